//! Network devices by rtnetlink: looking at them, making veth pairs, MTU, addresses, namespaces.
//!
//! These are control-path calls, a few milliseconds each. Every call has its own netlink socket and thread, made in the
//! namespace of the caller, so that the same functions serve the guest's end inside its namespace ([`super::netns::NetNs::run`]).

use std::os::fd::{AsRawFd, BorrowedFd};

use futures_util::{StreamExt, TryStreamExt};
use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
use rtnetlink::packet_route::nsid::{NsidAttribute, NsidMessage};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, new_connection};

use super::netns::on_thread;
use crate::model::MacAddr;
use crate::{Error, ErrorKind};

/// Longest name of a netdev (`IFNAMSIZ` less the final zero).
pub const MAX_IFNAME: usize = 15;

/// A netdev as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Index, unique in its namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// MTU in bytes.
    pub mtu: u32,
    /// Largest MTU that its driver takes now; 0 if it names none.
    pub max_mtu: u32,
    /// Link-layer address.
    pub mac: MacAddr,
    /// Set up by its administrator.
    pub up: bool,
    /// Has carrier and is up.
    pub carrier: bool,
    /// Whether it is one end of a veth pair.
    pub is_veth: bool,
    /// `IFLA_LINK`: for a veth the index of its peer, in the peer's namespace.
    pub peer: Option<u32>,
    /// The identifier that this namespace has for the peer's, if that is another one.
    pub peer_nsid: Option<i32>,
    /// Free text of its administrator.
    pub alias: Option<String>,
    /// Receive queues that it was made with.
    pub rx_queues: u32,
}

impl Link {
    /// Whether its peer is in another namespace.
    pub fn peer_elsewhere(&self) -> bool {
        self.peer_nsid.is_some()
    }

    fn parse(message: &LinkMessage) -> Self {
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
        };
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
                LinkAttribute::LinkInfo(infos) => {
                    link.is_veth = infos.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Veth)));
                }
                _ => {}
            }
        }
        link
    }
}

/// What a new veth pair is like.
#[derive(Clone, Debug)]
pub struct VethSpec<'a> {
    /// Name of the switch's end.
    pub name: &'a str,
    /// Name of the guest's end.
    pub peer: &'a str,
    /// Queues of both ends, each way.
    pub queues: u32,
    /// MTU of both ends.
    pub mtu: u32,
    /// Address of the guest's end.
    pub peer_mac: MacAddr,
}

fn failed(what: &str, error: &rtnetlink::Error) -> Error {
    let rtnetlink::Error::NetlinkError(message) = error else {
        return Error::new(ErrorKind::System, format!("{what}: {error}"));
    };
    let errno = Errno::from_raw(message.raw_code().saturating_abs());
    let (kind, advice) = match errno {
        Errno::EPERM => (ErrorKind::System, ": CAP_NET_ADMIN is needed"),
        Errno::EEXIST => (ErrorKind::Exists, ": a netdev of that name is there already"),
        Errno::ENODEV => (ErrorKind::NotFound, ""),
        Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT => (ErrorKind::Unsupported, ": this kernel or driver can't do it"),
        _ => (ErrorKind::System, ""),
    };
    Error::new(kind, format!("{what}: {errno}{advice}"))
}

fn netlink<T, F>(what: &str, work: F) -> Result<T, Error>
where
    T: Send,
    F: AsyncFnOnce(Handle) -> Result<T, rtnetlink::Error> + Send,
{
    on_thread(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let system = |error: std::io::Error| Error::new(ErrorKind::System, format!("{what}: {error}"));
        runtime.map_err(system)?.block_on(async {
            let (connection, handle, _) = new_connection().map_err(system)?;
            tokio::spawn(connection);
            work(handle).await.map_err(|error| failed(what, &error))
        })
    })
}

/// Looks up a netdev by name; `None` if there is none.
pub fn find(name: &str) -> Result<Option<Link>, Error> {
    if name.is_empty() || name.len() > MAX_IFNAME {
        return Ok(None);
    }
    let found = netlink(&format!("looking up netdev {name}"), async |handle| {
        handle.link().get().match_name(name.to_owned()).execute().try_next().await
    });
    absent_is_none(found)
}

/// Looks up a netdev by index; `None` if there is none.
pub fn find_index(index: u32) -> Result<Option<Link>, Error> {
    let found = netlink(&format!("looking up netdev #{index}"), async |handle| {
        handle.link().get().match_index(index).execute().try_next().await
    });
    absent_is_none(found)
}

fn absent_is_none(found: Result<Option<LinkMessage>, Error>) -> Result<Option<Link>, Error> {
    match found {
        Ok(message) => Ok(message.as_ref().map(Link::parse)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Every netdev of the namespace.
pub fn list() -> Result<Vec<Link>, Error> {
    let messages: Vec<LinkMessage> =
        netlink("listing netdevs", async |handle| handle.link().get().execute().try_collect().await)?;
    Ok(messages.iter().map(Link::parse).collect())
}

/// Makes a veth pair, both ends down.
pub fn create_veth(spec: &VethSpec<'_>) -> Result<(), Error> {
    let queues = [LinkAttribute::NumTxQueues(spec.queues), LinkAttribute::NumRxQueues(spec.queues)];
    let mut peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(spec.peer.to_owned())
        .mtu(spec.mtu)
        .address(spec.peer_mac.octets().to_vec());
    let mut pair = LinkMessageBuilder::<LinkVeth>::new(spec.name, spec.peer).mtu(spec.mtu);
    for attribute in queues {
        peer = peer.append_extra_attribute(attribute.clone());
        pair = pair.append_extra_attribute(attribute);
    }
    let message = pair.set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build()))).build();
    netlink(&format!("making veth pair {} and {}", spec.name, spec.peer), async |handle| {
        handle.link().add(message).execute().await
    })
}

fn set(what: &str, link: LinkMessageBuilder<LinkUnspec>) -> Result<(), Error> {
    netlink(what, async |handle| handle.link().set(link.build()).execute().await)
}

/// Sets a netdev up.
pub fn set_up(index: u32) -> Result<(), Error> {
    set(&format!("setting netdev #{index} up"), LinkUnspec::new_with_index(index).up())
}

/// Keeps the host's IPv6 stack from giving the netdev an address of its own and speaking on it. Does nothing without IPv6.
pub fn silence_ipv6(index: u32) -> Result<(), Error> {
    let mode = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    let link = LinkUnspec::new_with_index(index).append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![mode]));
    match set(&format!("keeping IPv6 off netdev #{index}"), link) {
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(()),
        result => result,
    }
}

/// Sets the free text of a netdev (the kernel takes none while it makes one).
pub fn set_alias(index: u32, alias: &str) -> Result<(), Error> {
    set(&format!("naming netdev #{index} as ours"), LinkUnspec::new_with_index(index).alias(alias))
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

/// Moves a netdev to the namespace behind `fd`; it is down there.
pub fn move_to(index: u32, fd: BorrowedFd<'_>) -> Result<(), Error> {
    let link = LinkUnspec::new_with_index(index).setns_by_fd(fd.as_raw_fd());
    set(&format!("moving netdev #{index} to another network namespace"), link)
}

/// Deletes a netdev; of a veth pair both ends go.
pub fn delete(index: u32) -> Result<(), Error> {
    netlink(&format!("deleting netdev #{index}"), async |handle| handle.link().del(index).execute().await)
}

/// The identifier that this namespace has for the namespace behind `fd`; `None` if it has none.
pub fn nsid(fd: BorrowedFd<'_>) -> Result<Option<i32>, Error> {
    let mut question = NsidMessage::default();
    question.attributes.push(NsidAttribute::Fd(fd.as_raw_fd().unsigned_abs()));
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNsId(question));
    request.header.flags = NLM_F_REQUEST;
    let answers = netlink("asking for a namespace's identifier", async |mut handle| {
        Ok(handle.request(request)?.collect::<Vec<_>>().await)
    })?;
    Ok(answers.iter().find_map(|answer| match &answer.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(message)) => {
            message.attributes.iter().find_map(|attribute| match attribute {
                NsidAttribute::Id(id) if *id >= 0 => Some(*id),
                _ => None,
            })
        }
        _ => None,
    }))
}
