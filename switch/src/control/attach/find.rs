//! The netdev of a port, looked for. What can refuse is asked here. Nothing is changed.

use super::ends::{Ends, Undo};
use super::mtu::mtu_limit;
use crate::control::fields::check_mtu;
use crate::host::{Host, Link, LinkChange, Namespace, Netdev, PairSpec};
use crate::model::*;
use crate::{Error, ErrorKind};

/// Marks a pair as made by the switch (`IFLA_IFALIAS`), so that it is still removed with its port after a restart.
const ALIAS: &str = "xswitch";

/// What there is of a port's netdev.
#[derive(Debug)]
pub enum FoundNetdev {
    /// Nothing: a pair is to be made, with its far end in that namespace.
    Nothing(Namespace),
    /// A netdev that the port takes.
    There(Box<There>),
}

/// A netdev that is there.
#[derive(Debug)]
pub struct There {
    link: Link,
    /// The other end of a veth, where it can be reached.
    far: Option<(Namespace, Link)>,
    /// Namespace that the far end is to be moved to.
    move_far: Option<Namespace>,
    channels: u32,
    /// Whether the switch made it, before a restart.
    made: bool,
    change_near: LinkChange,
    change_far: LinkChange,
}

impl FoundNetdev {
    /// Looks for the pair of a guest port, and completes `spec` by what is found or will be made (names, address, MTU).
    pub fn for_guest(host: &dyn Host, spec: &mut PortSpec, frame_size: u32) -> Result<Self, Error> {
        let (max, why) = mtu_limit(spec.mode, true, frame_size);
        check_mtu(spec.mtu.unwrap_or(DEFAULT_MTU), max, why)?;
        let namespace = spec.netns.as_deref().map(|name| host.namespace(name)).transpose()?;
        if let Some(link) = host.find(spec.ifname.as_deref().unwrap_or_default())? {
            return adopt(host, spec, link, namespace).map(|there| Self::There(Box::new(there)));
        }
        let vport = spec.vport.unwrap_or_default();
        spec.guest_ifname.get_or_insert_with(|| format!("xg{vport}"));
        let derived = MacAddr::derived_from(spec.uuid());
        spec.mac.get_or_insert(derived);
        spec.mtu.get_or_insert(DEFAULT_MTU);
        Ok(Self::Nothing(namespace.unwrap_or_default()))
    }

    /// Looks for the netdev of a phy port, and completes `spec` by it (MTU, queues).
    pub fn for_phy(host: &dyn Host, spec: &mut PortSpec, frame_size: u32) -> Result<Self, Error> {
        let ifname = spec.ifname.as_deref().unwrap_or_default();
        let missing = || Error::new(ErrorKind::NotFound, format!("ifname: there is no netdev {ifname} here"));
        let link = host.find(ifname)?.ok_or_else(missing)?;
        let (max, why) = mtu_limit(spec.mode, link.is_veth, frame_size);
        let mtu = *spec.mtu.get_or_insert(link.mtu);
        check_mtu(mtu, max, why)?;
        let channels = host.channels(&link);
        let queues = *spec.queues.get_or_insert(channels.min(MAX_QUEUES));
        if queues != channels {
            return Err(wrong_queues(&link.name, queues, channels, "…"));
        }
        // A veth's other end is somebody's stack, whose offloads would leave checksums out; a real NIC completes them.
        let far = host.find_peer(&link, None)?;
        if link.is_veth && far.is_none() {
            tracing::warn!("{}", super::ends::unreached_peer(&link.name));
        }
        let mtu = (mtu != link.mtu).then_some(mtu);
        let change_near = LinkChange { mtu, up: Some(true), ..LinkChange::default() };
        let change_far = LinkChange { plain: true, ..change_near.clone() };
        let there = There { link, far, move_far: None, channels, made: false, change_near, change_far };
        Ok(Self::There(Box::new(there)))
    }

    /// Makes or takes the netdev, and sets both ends up. On an error all is as it was.
    pub fn open(self, host: &dyn Host, spec: &PortSpec) -> Result<(Ends, Undo), Error> {
        match self {
            FoundNetdev::Nothing(namespace) => make(host, spec, &namespace),
            FoundNetdev::There(there) => there.take(host),
        }
    }
}

fn wrong_queues(ifname: &str, queues: u32, channels: u32, how: &str) -> Error {
    Error::invalid(format!(
        "queues: {ifname} has {channels} queues and the port asks for {queues}: packets of the others would be lost; ask for \
         {channels}, or change the netdev (`ethtool -L {ifname} {how}`)"
    ))
}

fn adopt(host: &dyn Host, spec: &mut PortSpec, link: Link, namespace: Option<Namespace>) -> Result<There, Error> {
    let name = &link.name;
    if !link.is_veth {
        return Err(Error::new(
            ErrorKind::Exists,
            format!("ifname: {name} is there and no veth: name another one, or add it as a phy port"),
        ));
    }
    let (place, peer) = host.find_peer(&link, namespace.as_ref())?.ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            format!(
                "ifname: the other end of {name} is in a network namespace that can't be reached by a name: name it by `netns`, \
                 or add the netdev as a phy port"
            ),
        )
    })?;
    let channels = host.channels(&link);
    let queues = *spec.queues.get_or_insert(channels);
    if queues != channels {
        return Err(wrong_queues(name, queues, channels, &format!("rx {queues} tx {queues}")));
    }
    if let Some(wanted) = &spec.guest_ifname
        && *wanted != peer.name
    {
        return Err(Error::invalid(format!(
            "guest_ifname: the other end of {name} is {}, not {wanted}: name that one, or none",
            peer.name
        )));
    }
    spec.guest_ifname = Some(peer.name.clone());
    let mac = *spec.mac.get_or_insert(peer.mac);
    let mtu = Some(*spec.mtu.get_or_insert(link.mtu));
    let change_near = LinkChange { mtu, up: Some(true), ..LinkChange::default() };
    let change_far = LinkChange { mac: Some(mac), plain: true, ..change_near.clone() };
    Ok(There {
        made: link.alias.as_deref() == Some(ALIAS),
        move_far: namespace.filter(|_| place.name().is_none()),
        far: Some((place, peer)),
        channels,
        change_near,
        change_far,
        link,
    })
}

fn make(host: &dyn Host, spec: &PortSpec, peer_namespace: &Namespace) -> Result<(Ends, Undo), Error> {
    let (queues, mtu) = (spec.queues.unwrap_or(1), spec.mtu.unwrap_or(DEFAULT_MTU));
    let mac = spec.mac.unwrap_or_else(|| MacAddr::derived_from(spec.uuid()));
    let pair = host.make_pair(&PairSpec {
        name: spec.ifname.as_deref().unwrap_or_default(),
        peer: spec.guest_ifname.as_deref().unwrap_or_default(),
        queues,
        mtu,
        peer_mac: mac,
        peer_namespace,
        alias: ALIAS,
    })?;
    let ends = Ends { near: pair.near, far: Some(pair.far), is_veth: true, channels: queues, made: true };
    let change_near = LinkChange { mtu: Some(mtu), up: Some(true), ..LinkChange::default() };
    let change_far = LinkChange { mac: Some(mac), plain: true, ..change_near.clone() };
    match ends.change(host, &change_near, &change_far) {
        Ok(()) => Ok((ends, Undo::Delete)),
        Err(error) => {
            Undo::Delete.run(host, ends);
            Err(error)
        }
    }
}

impl There {
    fn take(self, host: &dyn Host) -> Result<(Ends, Undo), Error> {
        let Self { link, far, move_far, channels, made, change_near, change_far } = self;
        let undo = Undo::Restore {
            near: LinkChange { mtu: Some(link.mtu), ..LinkChange::default() },
            far: far.as_ref().map(|(namespace, link)| {
                (LinkChange { mac: Some(link.mac), mtu: Some(link.mtu), ..LinkChange::default() }, namespace.clone())
            }),
        };
        let far = far.map(|(namespace, link)| Netdev::of(&link, namespace));
        let mut ends = Ends { near: Netdev::here(&link), far, is_veth: link.is_veth, channels, made };
        let mut taken = || {
            if let (Some(namespace), Some(far)) = (&move_far, &mut ends.far) {
                *far = host.move_to(far, namespace)?;
            }
            ends.change(host, &change_near, &change_far)
        };
        match taken() {
            Ok(()) => Ok((ends, undo)),
            Err(error) => {
                undo.run(host, ends);
                Err(error)
            }
        }
    }
}
