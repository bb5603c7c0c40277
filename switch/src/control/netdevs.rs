//! The netdevs of a port: made or adopted, set up for AF_XDP, looked after, taken down.

use std::os::fd::AsFd;
use std::sync::Arc;

use nix::errno::Errno;

use super::resolve::{check_mtu, frame_mtu};
use crate::io::netdev::{self, Link, VethSpec};
use crate::io::netns::NetNs;
use crate::io::{ethtool, xsk_queues};
use crate::model::*;
use crate::{Error, ErrorKind};

/// Marks a pair as made by the switch (`IFLA_IFALIAS`), so that it is still removed with its port after a restart.
pub const ALIAS: &str = "xswitch";

/// Where the other end of a veth is.
#[derive(Debug)]
pub enum PeerPlace {
    /// In the namespace of the switch.
    Here,
    /// In a named namespace.
    Named(NetNs),
}

impl PeerPlace {
    /// Runs `work` where the peer is.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
        match self {
            PeerPlace::Here => work(),
            PeerPlace::Named(ns) => ns.run(work),
        }
    }
}

/// Queues of `peer`, the other end of a veth, that have an AF_XDP socket bound; none if it is down or the kernel can't tell.
pub fn bound_queues(place: &PeerPlace, peer: &str) -> u32 {
    let bound = place.run(|| {
        let link = expect_link(peer)?;
        Ok(xsk_queues::bound(link.index).map_or(0, |queues| queues.len()))
    });
    bound.map_or(0, |count| count as u32)
}

/// The netdevs of a live port.
#[derive(Debug)]
pub struct Netdevs {
    /// Index of the switch's netdev.
    pub ifindex: u32,
    /// Its name.
    pub ifname: String,
    /// Whether it is a veth.
    pub is_veth: bool,
    /// Receive queues in use.
    pub channels: u32,
    /// The veth's other end and its name, where it can be reached.
    pub peer: Option<(Arc<PeerPlace>, String)>,
    /// Whether the switch made the pair, now or before a restart.
    pub made: bool,
    /// Whether it was made just now, so that nobody else can be using it.
    pub fresh: bool,
}

/// The largest MTU of a port, and what sets it.
pub fn mtu_limit(mode: ModeRequest, is_veth: bool, frame_size: u32) -> (u32, &'static str) {
    let frame = frame_mtu(frame_size);
    if is_veth && mode == ModeRequest::Native && xdp_prog::VETH_NATIVE_MAX_MTU < frame {
        return (
            xdp_prog::VETH_NATIVE_MAX_MTU,
            "native XDP on veth needs each packet in one page with its headroom; mode generic carries more",
        );
    }
    (
        frame,
        "an AF_XDP frame holds one packet with 256 bytes of headroom, Ethernet header and VLAN tag; jumbo frames do not fit",
    )
}

impl Netdevs {
    /// Makes or adopts the pair of a guest port and completes `spec` by what it finds (names, address, MTU).
    pub fn for_guest(spec: &mut PortSpec, frame_size: u32) -> Result<Self, Error> {
        let ifname = spec.ifname.clone().unwrap_or_default();
        let (max, why) = mtu_limit(spec.mode, true, frame_size);
        check_mtu(spec.mtu.unwrap_or(DEFAULT_MTU), max, why)?;
        let ns = spec.netns.as_deref().map(NetNs::open).transpose()?;
        match netdev::find(&ifname)? {
            Some(link) => Self::adopt(spec, &link, ns),
            None => Self::make(spec, &ifname, ns),
        }
    }

    fn make(spec: &mut PortSpec, ifname: &str, ns: Option<NetNs>) -> Result<Self, Error> {
        let peer = spec.guest_ifname.get_or_insert_with(|| format!("xg{}", spec.vport.unwrap_or_default())).clone();
        let derived = MacAddr::derived_from(spec.uuid());
        let mac = *spec.mac.get_or_insert(derived);
        let mtu = *spec.mtu.get_or_insert(DEFAULT_MTU);
        let queues = spec.queues.unwrap_or(1);
        let peer_ns = ns.as_ref().map(|ns| ns.file().as_fd());
        let pair = VethSpec { name: ifname, peer: &peer, queues, mtu, peer_mac: mac, peer_ns };
        netdev::create_veth(&pair).map_err(|error| match &ns {
            // There was none of the other name a moment ago.
            Some(ns) if error.kind() == ErrorKind::Exists => Error::new(
                ErrorKind::Exists,
                format!("guest_ifname: network namespace `{}` has a netdev {peer} already", ns.name()),
            ),
            _ => error,
        })?;
        let made = || -> Result<Self, Error> {
            let here = expect_link(ifname)?;
            // The host's stack must not speak to the guest on the switch's end.
            netdev::silence_ipv6(here.index)?;
            netdev::set_alias(here.index, ALIAS)?;
            let place = ns.map_or(PeerPlace::Here, PeerPlace::Named);
            Ok(Self {
                ifindex: here.index,
                ifname: ifname.to_owned(),
                is_veth: true,
                channels: queues,
                peer: Some((Arc::new(place), peer.clone())),
                made: true,
                fresh: true,
            })
        };
        let netdevs = made().inspect_err(|_| remove_quietly(ifname))?;
        netdevs.set_up(Some(mac), Some(mtu)).inspect_err(|_| remove_quietly(ifname))?;
        Ok(netdevs)
    }

    fn adopt(spec: &mut PortSpec, link: &Link, ns: Option<NetNs>) -> Result<Self, Error> {
        if !link.is_veth {
            return Err(Error::new(
                ErrorKind::Exists,
                format!("ifname: {} is there and no veth: name another one, or add it as a phy port", link.name),
            ));
        }
        let (place, peer) = find_peer(link, ns)?.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!(
                    "ifname: the other end of {} is in a network namespace that can't be reached by a name: name it by `netns`, \
                     or add the netdev as a phy port",
                    link.name
                ),
            )
        })?;
        let channels = ethtool::rx_channels(&link.name).unwrap_or(link.rx_queues);
        let queues = *spec.queues.get_or_insert(channels);
        if queues != channels {
            return Err(Error::invalid(format!(
                "queues: {} has {channels} queues and the port asks for {queues}: packets of the others would be lost; ask for \
                 {channels}, or change the netdev (`ethtool -L {} rx {queues} tx {queues}`)",
                link.name, link.name
            )));
        }
        if let Some(name) = &spec.guest_ifname
            && *name != peer.name
        {
            return Err(Error::invalid(format!(
                "guest_ifname: the other end of {} is {}, not {name}: name that one, or none",
                link.name, peer.name
            )));
        }
        spec.guest_ifname = Some(peer.name.clone());
        spec.mac.get_or_insert(peer.mac);
        let netdevs = Self {
            ifindex: link.index,
            ifname: link.name.clone(),
            is_veth: true,
            channels,
            peer: Some((Arc::new(place), peer.name)),
            made: link.alias.as_deref() == Some(ALIAS),
            fresh: false,
        };
        spec.mtu.get_or_insert(link.mtu);
        netdevs.set_up(spec.mac, spec.mtu)?;
        Ok(netdevs)
    }

    /// Takes the netdev of a phy port and completes `spec` by what it finds.
    pub fn for_phy(spec: &mut PortSpec, frame_size: u32) -> Result<Self, Error> {
        let ifname = spec.ifname.clone().unwrap_or_default();
        let link = netdev::find(&ifname)?
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("ifname: there is no netdev {ifname} here")))?;
        let (max, why) = mtu_limit(spec.mode, link.is_veth, frame_size);
        let mtu = *spec.mtu.get_or_insert(link.mtu);
        check_mtu(mtu, max, why)?;
        let channels = ethtool::rx_channels(&ifname).unwrap_or(link.rx_queues);
        let queues = *spec.queues.get_or_insert(channels.min(MAX_QUEUES));
        if queues != channels {
            return Err(Error::invalid(format!(
                "queues: {ifname} has {channels} queues and the port asks for {queues}: packets of the others would be lost; \
                 ask for {channels}, or change the netdev (`ethtool -L {ifname} …`)"
            )));
        }
        // A veth's other end is somebody's stack, whose offloads would leave checksums out; a real NIC completes them.
        let peer = find_peer(&link, None)?.map(|(place, peer)| (Arc::new(place), peer.name));
        let netdevs =
            Self { ifindex: link.index, ifname, is_veth: link.is_veth, channels, peer, made: false, fresh: false };
        if let Some(problem) = netdevs.unreached_peer() {
            tracing::warn!("{problem}");
        }
        netdevs.set_up(None, (mtu != link.mtu).then_some(mtu))?;
        Ok(netdevs)
    }

    /// Sets both ends up: address of the guest's end, MTU, offloads, and up.
    fn set_up(&self, peer_mac: Option<MacAddr>, mtu: Option<u32>) -> Result<(), Error> {
        if let Some((place, peer)) = &self.peer {
            place.run(|| {
                let link = expect_link(peer)?;
                if let Some(mac) = peer_mac.filter(|&mac| mac != link.mac) {
                    netdev::set_mac(link.index, mac)?;
                }
                if let Some(mtu) = mtu.filter(|&mtu| mtu != link.mtu) {
                    netdev::set_mtu(link.index, mtu)?;
                }
                make_plain(peer)?;
                if link.up { Ok(()) } else { netdev::set_up(link.index) }
            })?;
        }
        if let Some(mtu) = mtu {
            netdev::set_mtu(self.ifindex, mtu)?;
        }
        netdev::set_up(self.ifindex)
    }

    /// Sets the MTU of both ends, or of none.
    pub fn set_mtu(&self, mtu: u32) -> Result<(), Error> {
        let before = netdev::find_index(self.ifindex)?.map_or(mtu, |link| link.mtu);
        netdev::set_mtu(self.ifindex, mtu)?;
        let Some((place, peer)) = &self.peer else { return Ok(()) };
        let set = place.run(|| netdev::set_mtu(expect_link(peer)?.index, mtu));
        if set.is_err() {
            netdev::set_mtu(self.ifindex, before)?;
        }
        set
    }

    /// Sets the address of the guest's end.
    pub fn set_peer_mac(&self, mac: MacAddr) -> Result<(), Error> {
        let Some((place, peer)) = &self.peer else { return Ok(()) };
        place.run(|| netdev::set_mac(expect_link(peer)?.index, mac))
    }

    /// What to know of a veth whose other end is in a namespace without a name.
    fn unreached_peer(&self) -> Option<String> {
        (self.is_veth && self.peer.is_none()).then(|| {
            format!(
                "the other end of {} can't be reached: if a kernel stack uses it, turn its offloads off there (`ethtool -K IF tx \
                 off txvlan off`), or its packets will have wrong checksums",
                self.ifname
            )
        })
    }

    /// Deletes the pair if it was made just now: one that was there may be in use, by another daemon say.
    pub fn give_up(&self) {
        if self.fresh {
            self.remove();
        }
    }

    /// Deletes the pair if the switch made it.
    pub fn remove(&self) {
        if self.made
            && let Err(error) = netdev::delete(self.ifindex)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(ifname = self.ifname, %error, "the veth pair of a deleted port stays");
        }
    }

    /// What would break packets now, in words.
    pub fn problems(&self, mtu: u32) -> Vec<String> {
        let mut problems = Vec::from_iter(self.unreached_peer());
        match netdev::find_index(self.ifindex) {
            Ok(Some(link)) => {
                if !link.up {
                    problems.push(format!("{} is down: `ip link set {} up`", link.name, link.name));
                } else if !link.carrier {
                    problems.push(format!("{} has no carrier: its other end is down or unplugged", link.name));
                }
                if link.mtu != mtu {
                    problems.push(format!(
                        "{} has MTU {} and the port {mtu}: somebody changed it; set it through the port",
                        link.name, link.mtu
                    ));
                }
            }
            Ok(None) => problems.push(format!("{} is gone: delete the port and add it again", self.ifname)),
            Err(error) => problems.push(error.to_string()),
        }
        if let Some((place, peer)) = &self.peer {
            match place.run(|| Ok(ethtool::hidden_bytes(peer))) {
                Ok(Ok(features)) if !features.is_empty() => problems.push(format!(
                    "{peer}, the other end, leaves work to a NIC that is not there ({}): its packets will have wrong checksums \
                     or no VLAN tag; `ethtool -K {peer} tx off txvlan off` there",
                    features.join(", ")
                )),
                Ok(Ok(_)) => {}
                Ok(Err(errno)) => problems.push(format!("the offloads of {peer}, the other end, can't be read: {errno}")),
                Err(error) => problems.push(error.to_string()),
            }
        }
        problems
    }
}

/// A netdev that has to be there.
pub fn expect_link(name: &str) -> Result<Link, Error> {
    netdev::find(name)?.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no netdev {name} any more")))
}

fn remove_quietly(name: &str) {
    if let Ok(Some(link)) = netdev::find(name)
        && let Err(error) = netdev::delete(link.index)
    {
        tracing::warn!(name, %error, "a veth pair that was made in vain stays");
    }
}

/// Turns off what would leave bytes out of packets that this netdev sends.
fn make_plain(ifname: &str) -> Result<(), Error> {
    let left = ethtool::make_plain(ifname).map_err(|errno| {
        let advice = if errno == Errno::EPERM { ": CAP_NET_ADMIN is needed" } else { "" };
        Error::new(ErrorKind::System, format!("turning off the offloads of {ifname}: {errno}{advice}"))
    })?;
    if !left.is_empty() {
        tracing::warn!(
            ifname,
            features = left.join(", "),
            "these offloads can't be turned off: checksums may be wrong"
        );
    }
    Ok(())
}

/// The other end of a veth: in this namespace, in the one given, or in any that has a name.
fn find_peer(link: &Link, ns: Option<NetNs>) -> Result<Option<(PeerPlace, Link)>, Error> {
    let Some(index) = link.peer.filter(|_| link.is_veth) else { return Ok(None) };
    if !link.peer_elsewhere() {
        let Some(peer) = netdev::find_index(index)? else { return Ok(None) };
        let Some(ns) = ns else { return Ok(Some((PeerPlace::Here, peer))) };
        netdev::move_to(peer.index, ns.file().as_fd())?;
        return Ok(Some((PeerPlace::Named(ns), peer)));
    }
    let candidates = match ns {
        Some(ns) => vec![ns],
        None => NetNs::all(),
    };
    for ns in candidates {
        if link.peer_nsid.is_some() && netdev::nsid(ns.file().as_fd())? == link.peer_nsid {
            let peer = ns.run(|| netdev::find_index(index))?;
            return Ok(peer.map(|peer| (PeerPlace::Named(ns), peer)));
        }
    }
    Ok(None)
}
