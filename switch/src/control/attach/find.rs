//! The netdev of a port, looked for. What can refuse is asked here. Nothing is changed.

use super::Wish;
use super::before::note;
use super::ends::{Ends, Undo, unreached_peer};
use super::mark::Mark;
use super::mtu::{MtuFacts, OneChunk, mtu_limit, one_chunk};
use super::tap::FoundTap;
use crate::control::fields::check_mtu;
use crate::host::{Host, Link, LinkChange, Namespace, Netdev, PairSpec};
use crate::model::*;
use crate::{Error, ErrorKind};

/// What there is of a port's netdev.
#[derive(Debug)]
pub enum FoundNetdev {
    /// Nothing: a pair is to be made.
    Nothing(Box<NewPair>),
    /// A netdev that the port takes.
    There(Box<There>),
}

/// A pair that is to be made.
#[derive(Debug)]
pub struct NewPair {
    /// Name of the far end.
    far_name: String,
    /// Namespace of the far end.
    namespace: Namespace,
    /// What the far end is to be like.
    change_far: LinkChange,
    /// The tap that the far end is joined to.
    tap: Option<FoundTap>,
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
    /// The tap that the far end is joined to.
    tap: Option<FoundTap>,
}

impl FoundNetdev {
    /// Looks for the pair of a guest port, and completes `spec` by what is found or will be made (names, address, MTU).
    ///
    /// A pair that this switch made for the port is its pair, whatever it is called, and wherever its far end is.
    pub fn for_guest(host: &dyn Host, spec: &mut PortSpec, frame_size: u32, wish: &Wish) -> Result<Self, Error> {
        let one_chunk = one_chunk(host, spec.guest_sockets);
        let facts = MtuFacts { mode: spec.mode, is_veth: true, has_tap: false, frame_size, one_chunk };
        let (max, why) = mtu_limit(facts);
        check_mtu(spec.mtu.unwrap_or(DEFAULT_MTU), max, why)?;
        let mark = Mark::of(host);
        let is_own = |link: &&Link| mark.port_of(link) == Some(&spec.name);
        let named = host.find(spec.ifname.as_deref().unwrap_or_default())?;
        if let Some(link) = named.as_ref().filter(is_own).or_else(|| wish.links(host).iter().find(is_own)).cloned() {
            return adopt_own(host, spec, link).map(|there| Self::There(Box::new(there)));
        }
        let namespace = spec.netns.as_deref().map(|name| host.namespace(name)).transpose()?;
        if let Some(link) = named {
            return adopt(host, spec, link, namespace).map(|there| Self::There(Box::new(there)));
        }
        let vport = spec.vport.unwrap_or_default();
        let far_name = spec.guest_ifname.get_or_insert_with(|| format!("xg{vport}")).clone();
        let derived = MacAddr::derived_from(spec.uuid());
        let mac = *spec.mac.get_or_insert(derived);
        let mtu = *spec.mtu.get_or_insert(DEFAULT_MTU);
        let change_far = LinkChange { mac: Some(mac), plain: true, ..up_with(mtu) };
        let namespace = namespace.unwrap_or_default();
        Ok(Self::Nothing(Box::new(NewPair { far_name, namespace, change_far, tap: None })))
    }

    /// Looks for the pair and the tap of a tap port, and completes `spec` by what is found or will be made. Both are
    /// the switch's own, or are to be made.
    pub fn for_tap(host: &dyn Host, spec: &mut PortSpec, frame_size: u32, wish: &Wish) -> Result<Self, Error> {
        let one_chunk = one_chunk(host, false);
        let facts = MtuFacts { mode: spec.mode, is_veth: true, has_tap: true, frame_size, one_chunk };
        let (max, why) = mtu_limit(facts);
        let mtu = *spec.mtu.get_or_insert(DEFAULT_MTU);
        check_mtu(mtu, max, why)?;
        let mark = Mark::of(host);
        let is_own = |link: &&Link| mark.port_of(link) == Some(&spec.name);
        let ifname = spec.ifname.clone().unwrap_or_default();
        let named = host.find(&ifname)?;
        let own = named.as_ref().filter(is_own).or_else(|| wish.links(host).iter().find(is_own)).cloned();
        let namespace = spec.netns.as_deref().map(|name| host.namespace(name)).transpose()?.unwrap_or_default();
        let change_far = LinkChange { plain: true, silent: true, ..up_with(mtu) };
        let Some(link) = own else {
            if named.is_some() {
                let text =
                    format!("ifname: {ifname} is there: a tap port has a pair that the switch makes; name another");
                return Err(Error::new(ErrorKind::Exists, text));
            }
            let tap = Some(FoundTap::find(host, spec, &namespace, wish.links(host))?);
            let far_name = format!("xf{}", spec.vport.unwrap_or_default());
            return Ok(Self::Nothing(Box::new(NewPair { far_name, namespace, change_far, tap })));
        };
        let unreached = || Error::new(ErrorKind::NotFound, unreached_peer(&link.name));
        let (namespace, peer) = host.find_peer(&link, None)?.ok_or_else(unreached)?;
        spec.ifname = Some(link.name.clone());
        spec.netns = namespace.name().map(str::to_owned);
        let gone = || Error::new(ErrorKind::NotFound, format!("ifname: there is no netdev {} any more", link.name));
        let channels = host.channels(&link).ok_or_else(gone)?;
        check_channels(spec, &link, channels)?;
        host.check_no_program(&Netdev::here(&link))?;
        let tap = Some(FoundTap::find(host, spec, &namespace, wish.links(host))?);
        let far = Some((namespace, peer));
        let change_near = up_with(mtu);
        let there = There { link, far, move_far: None, channels, made: true, change_near, change_far, tap };
        Ok(Self::There(Box::new(there)))
    }

    /// Looks for the netdev of a phy port, and completes `spec` by it (MTU, queues).
    pub fn for_phy(host: &dyn Host, spec: &mut PortSpec, frame_size: u32, wish: &Wish) -> Result<Self, Error> {
        let ifname = spec.ifname.as_deref().unwrap_or_default();
        let missing = || Error::new(ErrorKind::NotFound, format!("ifname: there is no netdev {ifname} here"));
        let link = host.find(ifname)?.ok_or_else(missing)?;
        let native = spec.mode == ModeRequest::Native && !link.is_veth;
        let lacks_it = || native && !host.has_multi_buffer(&Netdev::here(&link));
        let one_chunk = one_chunk(host, false).or_else(|| lacks_it().then_some(OneChunk::Driver));
        let facts = MtuFacts { mode: spec.mode, is_veth: link.is_veth, has_tap: false, frame_size, one_chunk };
        let (max, why) = mtu_limit(facts);
        let mtu = *spec.mtu.get_or_insert(link.mtu);
        check_mtu(mtu, max, why)?;
        let channels = host.channels(&link).ok_or_else(missing)?;
        if wish.is_known() && spec.queues != Some(channels) && channels <= MAX_QUEUES {
            // Somebody has changed them while nobody looked.
            spec.queues = Some(channels);
        }
        check_channels(spec, &link, channels)?;
        host.check_no_program(&Netdev::here(&link))?;
        if spec.steering == Steering::All && !spec.force {
            check_host_use(host, &link, wish)?;
        }
        // A veth's other end is somebody's stack, whose offloads would leave checksums out; a real NIC completes them.
        let far = host.find_peer(&link, None)?;
        if link.is_veth && far.is_none() {
            tracing::warn!("{}", unreached_peer(&link.name));
        }
        let mtu = (mtu != link.mtu).then_some(mtu);
        let change_near = LinkChange { mtu, up: Some(true), ..LinkChange::default() };
        let change_far = LinkChange { plain: true, ..change_near.clone() };
        let there = There { link, far, move_far: None, channels, made: false, change_near, change_far, tap: None };
        Ok(Self::There(Box::new(there)))
    }

    /// The netdevs that are there.
    pub fn netdevs(&self) -> Vec<Netdev> {
        let (there, namespace, tap) = match self {
            FoundNetdev::Nothing(pair) => (None, &pair.namespace, &pair.tap),
            FoundNetdev::There(there) => {
                let far = there.far.as_ref();
                (Some(there), far.map_or(&Namespace::Here, |(namespace, _)| namespace), &there.tap)
            }
        };
        let tap = tap.iter().filter_map(FoundTap::link).map(|link| Netdev::of(link, namespace.clone()));
        let ends = there.into_iter().flat_map(|there| {
            let far = there.far.iter().map(|(namespace, link)| Netdev::of(link, namespace.clone()));
            std::iter::once(Netdev::here(&there.link)).chain(far)
        });
        ends.chain(tap).collect()
    }

    /// The netdevs as they are before the port changes them.
    pub fn before(&self, host: &dyn Host) -> Option<NetdevsBefore> {
        match self {
            FoundNetdev::There(there) => Some(there.before(host)),
            FoundNetdev::Nothing(_) => None,
        }
    }

    /// Makes or takes the netdev, and sets both ends up. On an error all is as it was.
    pub fn open(self, host: &dyn Host, spec: &PortSpec) -> Result<(Ends, Undo), Error> {
        match self {
            FoundNetdev::Nothing(pair) => pair.make(host, spec),
            FoundNetdev::There(there) => there.take(host, spec),
        }
    }
}

/// Checks that the port has a queue for each channel of the netdev, or gives it as many.
fn check_channels(spec: &mut PortSpec, link: &Link, channels: u32) -> Result<(), Error> {
    let name = &link.name;
    // A veth counts both directions apart. NICs mostly do not.
    let change = |count: u32| match link.is_veth {
        true => format!("`ethtool -L {name} rx {count} tx {count}`"),
        false => format!("`ethtool -L {name} combined {count}`, or `rx {count}` where the driver has those"),
    };
    if channels > MAX_QUEUES {
        let change = change(spec.queues.unwrap_or(MAX_QUEUES));
        return Err(Error::invalid(format!(
            "queues: {name} has {channels} queues and a port can have {MAX_QUEUES}: packets of the others would be lost; change \
             the netdev ({change})"
        )));
    }
    let queues = *spec.queues.get_or_insert(channels);
    if queues != channels {
        return Err(Error::invalid(format!(
            "queues: {name} has {channels} queues and the port asks for {queues}: packets of the others would be lost; ask for \
             {channels}, or change the netdev ({})",
            change(queues)
        )));
    }
    Ok(())
}

/// Refuses a NIC that the host itself needs. A port that was there before is brought up again: nothing is lost by it
/// that was not lost before.
fn check_host_use(host: &dyn Host, link: &Link, wish: &Wish) -> Result<(), Error> {
    let host_use = host.host_use(link)?;
    let mut uses = Vec::new();
    if !host_use.addresses.is_empty() {
        uses.push(format!("addresses ({})", host_use.addresses.join(", ")));
    }
    if host_use.default_route {
        uses.push("its default route".to_owned());
    }
    if uses.is_empty() {
        return Ok(());
    }
    let text = format!(
        "the host has {} on {}, and would lose them: packets all go to the switch",
        uses.join(" and "),
        link.name
    );
    if wish.is_known() {
        tracing::warn!("{text}; steering `shared` would leave the host its own");
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Busy,
        format!("steering: {text}; use steering `shared`, which leaves the host its own, or `force` to take it"),
    ))
}

/// Takes the pair that this switch made for the port.
fn adopt_own(host: &dyn Host, spec: &mut PortSpec, link: Link) -> Result<There, Error> {
    if spec.ifname.as_ref() != Some(&link.name) {
        tracing::info!(port = spec.name, ifname = link.name, "its pair has another name than before");
        spec.ifname = Some(link.name.clone());
    }
    let far = host.find_peer(&link, None)?;
    match &far {
        Some((namespace, peer)) => {
            spec.guest_ifname = Some(peer.name.clone());
            spec.netns = namespace.name().map(str::to_owned);
        }
        None => tracing::warn!("{}", unreached_peer(&link.name)),
    }
    take_over(host, spec, link, far, None)
}

/// Takes a pair that somebody made.
fn adopt(host: &dyn Host, spec: &mut PortSpec, link: Link, namespace: Option<Namespace>) -> Result<There, Error> {
    let name = &link.name;
    if !link.is_veth {
        return Err(Error::new(
            ErrorKind::Exists,
            format!("ifname: {name} is there and no veth: name another one, or add it as a phy port"),
        ));
    }
    if let Some(port) = Mark::of(host).port_of(&link) {
        return Err(Error::new(
            ErrorKind::Exists,
            format!("ifname: {name} is the pair of port `{port}`: name another"),
        ));
    }
    if Mark::is_anothers(host, &link) {
        let text = format!("ifname: {name} is the pair of another switch on this machine: name another");
        return Err(Error::new(ErrorKind::Exists, text));
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
    if let Some(wanted) = &spec.guest_ifname
        && *wanted != peer.name
    {
        return Err(Error::invalid(format!(
            "guest_ifname: the other end of {name} is {}, not {wanted}: name that one, or none",
            peer.name
        )));
    }
    spec.guest_ifname = Some(peer.name.clone());
    let move_far = namespace.filter(|_| place.name().is_none());
    take_over(host, spec, link, Some((place, peer)), move_far)
}

/// Says how a pair that is there becomes the port's.
fn take_over(
    host: &dyn Host,
    spec: &mut PortSpec,
    link: Link,
    far: Option<(Namespace, Link)>,
    move_far: Option<Namespace>,
) -> Result<There, Error> {
    let gone = || Error::new(ErrorKind::NotFound, format!("ifname: there is no netdev {} any more", link.name));
    let channels = host.channels(&link).ok_or_else(gone)?;
    check_channels(spec, &link, channels)?;
    host.check_no_program(&Netdev::here(&link))?;
    let peer_mac = far.as_ref().map_or_else(|| MacAddr::derived_from(spec.uuid()), |(_, peer)| peer.mac);
    let mac = *spec.mac.get_or_insert(peer_mac);
    let change_near = up_with(*spec.mtu.get_or_insert(link.mtu));
    let change_far = LinkChange { mac: Some(mac), plain: true, ..change_near.clone() };
    let made = Mark::is_on(&link);
    Ok(There { made, move_far, far, channels, change_near, change_far, link, tap: None })
}

/// An end that is up.
fn up_with(mtu: u32) -> LinkChange {
    LinkChange { mtu: Some(mtu), up: Some(true), ..LinkChange::default() }
}

/// Joins the far end to the port's tap. On an error nothing of the port's is left.
fn join(host: &dyn Host, spec: &PortSpec, tap: Option<FoundTap>, ends: &mut Ends) -> Result<(), Error> {
    let (Some(tap), Some(far)) = (tap, &ends.far) else { return Ok(()) };
    ends.tap = Some(tap.open(host, spec, far)?);
    Ok(())
}

impl NewPair {
    fn make(self, host: &dyn Host, spec: &PortSpec) -> Result<(Ends, Undo), Error> {
        let (queues, mtu) = (spec.queues.unwrap_or(1), spec.mtu.unwrap_or(DEFAULT_MTU));
        let mac = spec.mac.unwrap_or_else(|| MacAddr::derived_from(spec.uuid()));
        let mark = Mark::of(host);
        let pair = host.make_pair(&PairSpec {
            name: spec.ifname.as_deref().unwrap_or_default(),
            draft_name: &mark.draft_name(spec.vport.unwrap_or_default()),
            peer: &self.far_name,
            queues,
            mtu,
            peer_mac: mac,
            peer_namespace: &self.namespace,
            alias: &mark.for_port(&spec.name),
        })?;
        let (near, far) = (pair.near, Some(pair.far));
        let mut ends = Ends { near, far, is_veth: true, channels: queues, made: true, tap: None };
        let made = ends.change(host, &up_with(mtu), &self.change_far);
        match made.and_then(|()| join(host, spec, self.tap, &mut ends)) {
            Ok(()) => Ok((ends, Undo::Delete)),
            Err(error) => {
                Undo::Delete.run(host, ends);
                Err(error)
            }
        }
    }
}

impl There {
    fn before(&self, host: &dyn Host) -> NetdevsBefore {
        let far = self.far.as_ref().map(|(namespace, link)| note(host, link, namespace));
        NetdevsBefore { near: note(host, &self.link, &Namespace::Here), far }
    }

    fn take(self, host: &dyn Host, spec: &PortSpec) -> Result<(Ends, Undo), Error> {
        let undo = Undo::Restore(self.before(host));
        let Self { link, far, move_far, channels, made, change_near, change_far, tap } = self;
        let far = far.map(|(namespace, link)| Netdev::of(&link, namespace));
        let mut ends = Ends { near: Netdev::here(&link), far, is_veth: link.is_veth, channels, made, tap: None };
        let taken = || {
            if let (Some(namespace), Some(far)) = (&move_far, &mut ends.far) {
                *far = host.move_to(far, namespace)?;
            }
            ends.change(host, &change_near, &change_far)?;
            join(host, spec, tap, &mut ends)
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
