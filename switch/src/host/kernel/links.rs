//! Network devices by rtnetlink: queries, veth pairs, MTU, addresses, namespaces.
//!
//! Each call opens a netlink socket in the namespace of the calling thread. So the same
//! functions serve the guest's end inside its namespace (`namespaces::run`). A call waits for its answer
//! without an async runtime, because a runtime and a thread would take longer than the call.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, Nla,
};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
use rtnetlink::packet_route::nsid::{NsidAttribute, NsidMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::namespaces;
use crate::host::{HostUse, Link, MAX_IFNAME, Namespace, PairSpec, TapState};
use crate::model::{MacAddr, NetdevCounters};
use crate::{Error, ErrorKind};

fn parse(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mtu: 0,
        max_mtu: 0,
        mac: MacAddr::ZERO,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        is_veth: false,
        peer: None,
        peer_nsid: None,
        alias: None,
        rx_queues: 1,
        tap: None,
        tx_dropped: 0,
    };
    let mut is_plugged = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::MaxMtu(mtu) => link.max_mtu = *mtu,
            LinkAttribute::Address(bytes) => {
                link.mac = bytes.as_slice().try_into().map_or(MacAddr::ZERO, MacAddr::new);
            }
            LinkAttribute::Link(index) => link.peer = Some(*index),
            LinkAttribute::LinkNetNsId(id) => link.peer_nsid = Some(*id),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
            LinkAttribute::NumRxQueues(queues) => link.rx_queues = *queues,
            LinkAttribute::Stats64(stats) => link.tx_dropped = stats.tx_dropped,
            LinkAttribute::Carrier(carrier) => is_plugged = *carrier != 0,
            LinkAttribute::LinkInfo(infos) => {
                link.is_veth = infos.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Veth)));
                link.tap = infos.iter().find_map(tap);
            }
            _ => {}
        }
    }
    if let Some(tap) = link.tap.as_mut().filter(|tap| !tap.is_multi_queue) {
        // The kernel counts the queues of other taps only. One of a single queue has carrier while it is open.
        tap.open_queues = is_plugged.into();
    }
    link
}

/// Attributes of a tun or tap (`include/uapi/linux/if_link.h`).
const IFLA_TUN_OWNER: u16 = 1;
const IFLA_TUN_GROUP: u16 = 2;
const IFLA_TUN_TYPE: u16 = 3;
const IFLA_TUN_VNET_HDR: u16 = 5;
const IFLA_TUN_MULTI_QUEUE: u16 = 7;
const IFLA_TUN_NUM_QUEUES: u16 = 8;

/// What a link is beside, if it is a tap.
fn tap(info: &LinkInfo) -> Option<TapState> {
    let LinkInfo::Data(InfoData::Tun(attributes)) = info else { return None };
    let (mut state, mut is_tap) = (TapState::default(), false);
    for attribute in attributes {
        let mut value = vec![0; attribute.value_len()];
        attribute.emit_value(&mut value);
        let byte = value.first().copied().unwrap_or_default();
        let word = value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
        match attribute.kind() {
            IFLA_TUN_OWNER => state.owner = word,
            IFLA_TUN_GROUP => state.group = word,
            IFLA_TUN_TYPE => is_tap = i32::from(byte) == libc::IFF_TAP,
            IFLA_TUN_VNET_HDR => state.has_vnet_hdr = byte != 0,
            IFLA_TUN_MULTI_QUEUE => state.is_multi_queue = byte != 0,
            IFLA_TUN_NUM_QUEUES => state.open_queues = word.unwrap_or_default(),
            _ => {}
        }
    }
    is_tap.then_some(state)
}

pub(super) fn failed(what: &str, errno: Errno) -> Error {
    let (kind, advice) = match errno {
        Errno::EPERM => (ErrorKind::System, ": CAP_NET_ADMIN is needed"),
        Errno::EEXIST => (ErrorKind::Exists, ": a netdev of that name is there already"),
        Errno::ENODEV => (ErrorKind::NotFound, ""),
        Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT => (ErrorKind::Unsupported, ": this kernel or driver can't do it"),
        _ => (ErrorKind::System, ""),
    };
    Error::new(kind, format!("{what}: {errno}{advice}"))
}

/// Sends a request and returns its answers. A dump ([`NLM_F_DUMP`]) leaves out answers that can't be parsed.
pub(super) fn ask_kernel(message: RouteNetlinkMessage, flags: u16) -> Result<Vec<RouteNetlinkMessage>, Errno> {
    let errno = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EPROTO));
    let mut socket = Socket::new(NETLINK_ROUTE).map_err(errno)?;
    socket.bind_auto().map_err(errno)?;
    socket.connect(&SocketAddr::new(0, 0)).map_err(errno)?;
    let mut request = NetlinkMessage::from(message);
    request.header.flags = NLM_F_REQUEST | flags;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0).map_err(errno)?;
    let mut answers = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full().map_err(errno)?;
        let mut rest = datagram.as_slice();
        while let Some(len) = rest.first_chunk().map(|len| u32::from_ne_bytes(*len) as usize) {
            let bytes = rest.get(..len).filter(|_| len > 0).ok_or(Errno::EPROTO)?;
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
            match NetlinkMessage::deserialize(bytes).map(|message| message.payload) {
                Ok(NetlinkPayload::Done(_)) => return Ok(answers),
                // Number 0 is an acknowledgement.
                Ok(NetlinkPayload::Error(error)) => match error.raw_code().saturating_abs() {
                    0 => return Ok(answers),
                    code => return Err(Errno::from_raw(code)),
                },
                Ok(NetlinkPayload::InnerMessage(answer)) => answers.push(answer),
                Err(_) if flags & NLM_F_DUMP != NLM_F_DUMP => return Err(Errno::EPROTO),
                _ => {}
            }
        }
        if flags & (NLM_F_ACK | NLM_F_DUMP) == 0 {
            return Ok(answers);
        }
    }
}

fn ask(what: &str, message: RouteNetlinkMessage, flags: u16) -> Result<Vec<RouteNetlinkMessage>, Error> {
    ask_kernel(message, flags).map_err(|errno| failed(what, errno))
}

fn link_of(answer: &RouteNetlinkMessage) -> Option<Link> {
    match answer {
        RouteNetlinkMessage::NewLink(message) => Some(parse(message)),
        _ => None,
    }
}

/// Looks up a netdev by name; `None` if there is none.
pub fn find(name: &str) -> Result<Option<Link>, Error> {
    if name.is_empty() || name.len() > MAX_IFNAME {
        return Ok(None);
    }
    let message = LinkMessageBuilder::<LinkUnspec>::new().name(name.to_owned()).build();
    look_up(&format!("looking up netdev {name}"), message)
}

/// Looks up a netdev by index; `None` if there is none.
pub fn find_index(index: u32) -> Result<Option<Link>, Error> {
    look_up(&format!("looking up netdev #{index}"), LinkUnspec::new_with_index(index).build())
}

/// Looks up a netdev by index, with what was counted there; `None` if there is none.
pub fn find_with_counters(index: u32) -> Result<Option<(Link, NetdevCounters)>, Error> {
    let message = LinkUnspec::new_with_index(index).build();
    look_up_as(&format!("looking up netdev #{index}"), message, |answer| match answer {
        RouteNetlinkMessage::NewLink(message) => Some((parse(message), counters(message))),
        _ => None,
    })
}

fn counters(message: &LinkMessage) -> NetdevCounters {
    let stats = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Stats64(stats) => Some(stats),
        _ => None,
    });
    stats.map_or_else(NetdevCounters::default, |stats| NetdevCounters {
        rx_packets: stats.rx_packets,
        tx_packets: stats.tx_packets,
        rx_bytes: stats.rx_bytes,
        tx_bytes: stats.tx_bytes,
        rx_errors: stats.rx_errors,
        tx_errors: stats.tx_errors,
        rx_dropped: stats.rx_dropped,
        tx_dropped: stats.tx_dropped,
        rx_missed: stats.rx_missed_errors,
    })
}

fn look_up(what: &str, message: LinkMessage) -> Result<Option<Link>, Error> {
    look_up_as(what, message, link_of)
}

fn look_up_as<T>(
    what: &str,
    message: LinkMessage,
    read: impl Fn(&RouteNetlinkMessage) -> Option<T>,
) -> Result<Option<T>, Error> {
    match ask(what, RouteNetlinkMessage::GetLink(message), 0) {
        Ok(answers) => Ok(answers.iter().find_map(read)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Every netdev of the namespace.
pub fn list() -> Result<Vec<Link>, Error> {
    let answers = ask("listing netdevs", RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
    Ok(answers.iter().filter_map(link_of).collect())
}

/// Makes a veth pair, both ends down.
pub fn create_veth(spec: &PairSpec<'_>) -> Result<(), Error> {
    let queues = [LinkAttribute::NumTxQueues(spec.queues), LinkAttribute::NumRxQueues(spec.queues)];
    let mut peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(spec.peer.to_owned())
        .mtu(spec.mtu)
        .address(spec.peer_mac.octets().to_vec());
    // It is made there, which takes less than moving it there.
    let namespace = match spec.peer_namespace {
        Namespace::Here => None,
        Namespace::Named(named) => Some(namespaces::open(named)?),
    };
    if let Some(namespace) = &namespace {
        peer = peer.setns_by_fd(namespace.as_raw_fd());
    }
    let mut pair = LinkMessageBuilder::<LinkVeth>::new(spec.draft_name, spec.peer).mtu(spec.mtu);
    for attribute in queues {
        peer = peer.append_extra_attribute(attribute.clone());
        pair = pair.append_extra_attribute(attribute);
    }
    let message = pair.set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build()))).build();
    let what = format!("making veth pair {} and {}", spec.name, spec.peer);
    ask(&what, RouteNetlinkMessage::NewLink(message), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).map(drop)
}

fn set(what: &str, link: LinkMessageBuilder<LinkUnspec>) -> Result<(), Error> {
    ask(what, RouteNetlinkMessage::SetLink(link.build()), NLM_F_ACK).map(drop)
}

/// Sets a netdev up.
pub fn set_up(index: u32) -> Result<(), Error> {
    set(&format!("setting netdev #{index} up"), LinkUnspec::new_with_index(index).up())
}

/// Sets a netdev down.
pub fn set_down(index: u32) -> Result<(), Error> {
    set(&format!("setting netdev #{index} down"), LinkUnspec::new_with_index(index).down())
}

/// Keeps the host's IPv6 stack from giving the netdev an address and sending on it. Does nothing without IPv6.
pub fn silence_ipv6(index: u32) -> Result<(), Error> {
    let mode = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    let link = LinkUnspec::new_with_index(index).append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![mode]));
    match set(&format!("keeping IPv6 off netdev #{index}"), link) {
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(()),
        result => result,
    }
}

/// Sets the free text (ifalias) of a netdev. The kernel ignores it when it makes a netdev.
pub fn set_alias(index: u32, alias: &str) -> Result<(), Error> {
    set(&format!("naming netdev #{index} as ours"), LinkUnspec::new_with_index(index).alias(alias))
}

/// Gives a netdev that is down another name.
pub fn rename(index: u32, name: &str) -> Result<(), Error> {
    let link = LinkUnspec::new_with_index(index).name(name.to_owned());
    set(&format!("naming netdev #{index} {name}"), link)
}

/// Sets the MTU, in bytes.
pub fn set_mtu(index: u32, mtu: u32) -> Result<(), Error> {
    set(&format!("setting the MTU of netdev #{index} to {mtu}"), LinkUnspec::new_with_index(index).mtu(mtu))
}

/// Sets the link-layer address.
pub fn set_mac(index: u32, mac: MacAddr) -> Result<(), Error> {
    let link = LinkUnspec::new_with_index(index).address(mac.octets().to_vec());
    set(&format!("setting the address of netdev #{index} to {mac}"), link)
}

/// Moves a netdev to the namespace behind `fd`. It is down there.
pub fn move_to(index: u32, fd: BorrowedFd<'_>) -> Result<(), Error> {
    let link = LinkUnspec::new_with_index(index).setns_by_fd(fd.as_raw_fd());
    set(&format!("moving netdev #{index} to another network namespace"), link)
}

/// Deletes a netdev. Deleting one end of a veth pair deletes both.
pub fn delete(index: u32) -> Result<(), Error> {
    let message = LinkUnspec::new_with_index(index).build();
    ask(&format!("deleting netdev #{index}"), RouteNetlinkMessage::DelLink(message), NLM_F_ACK).map(drop)
}

/// This namespace's identifier of the namespace behind `fd`. `None` if it has none.
pub fn nsid(fd: BorrowedFd<'_>) -> Result<Option<i32>, Error> {
    let mut question = NsidMessage::default();
    question.attributes.push(NsidAttribute::Fd(fd.as_raw_fd().unsigned_abs()));
    let answers = ask("asking for a namespace's identifier", RouteNetlinkMessage::GetNsId(question), 0)?;
    let id = |attribute: &NsidAttribute| match attribute {
        NsidAttribute::Id(id) if *id >= 0 => Some(*id),
        _ => None,
    };
    Ok(answers.iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewNsId(message) => message.attributes.iter().find_map(id),
        _ => None,
    }))
}

/// What the host uses a netdev for.
pub fn host_use(index: u32) -> Result<HostUse, Error> {
    let mut host_use = HostUse::default();
    let dump = AddressMessage::default();
    for answer in ask("listing addresses", RouteNetlinkMessage::GetAddress(dump), NLM_F_DUMP)? {
        let RouteNetlinkMessage::NewAddress(address) = answer else { continue };
        if address.header.index != index || address.header.scope == AddressScope::Link {
            continue;
        }
        let local = |attribute: &AddressAttribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        };
        let any = |attribute: &AddressAttribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        };
        let attributes = &address.attributes;
        // On a point-to-point link `Address` is the other side's (`include/uapi/linux/if_addr.h`).
        if let Some(ip) = attributes.iter().find_map(local).or_else(|| attributes.iter().find_map(any)) {
            host_use.addresses.push(format!("{ip}/{}", address.header.prefix_len));
        }
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut dump = RouteMessage::default();
        dump.header.address_family = family;
        for answer in ask("listing routes", RouteNetlinkMessage::GetRoute(dump), NLM_F_DUMP)? {
            let RouteNetlinkMessage::NewRoute(route) = answer else { continue };
            let is_default = route.header.destination_prefix_length == 0 && route.header.kind == RouteType::Unicast;
            let goes_by = |attribute: &RouteAttribute| match attribute {
                RouteAttribute::Oif(oif) => *oif == index,
                RouteAttribute::MultiPath(hops) => hops.iter().any(|hop| hop.interface_index == index),
                _ => false,
            };
            host_use.default_route |= is_default && route.attributes.iter().any(goes_by);
        }
    }
    Ok(host_use)
}
