//! Notifications by the kernel: rtnetlink, ethtool netlink, and names of namespaces.
//!
//! rtnetlink tells of netdevs, addresses and filters, also of namespaces that the switch's one has identifiers for
//! (`NETLINK_LISTEN_ALL_NSID`). The ethtool family tells of channels, and the netdev family of what drivers do for XDP,
//! which rtnetlink leaves out. inotify tells of
//! names in `/run/netns`. Nobody tells of a BPF link that is detached: that is looked for.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::protocols::{NETLINK_GENERIC, NETLINK_ROUTE};
use rtnetlink::sys::{Socket, SocketAddr};
use xdp_prog::{NETDEV_IFINDEX, genl};

use super::namespaces;
use crate::host::{HostChange, HostWatch};
use crate::{Error, ErrorKind};

/// Multicast groups of rtnetlink (`enum rtnetlink_groups`).
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_TC: u32 = 4;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV6_IFADDR: u32 = 9;
const RTNLGRP_NSID: u32 = 28;
/// Receive buffer in bytes: a thousand netdevs may change at once.
const BUFFER: usize = 4 << 20;
/// Largest datagram that the kernel sends.
const DATAGRAM: usize = 32 << 10;

/// The subscription.
#[derive(Debug)]
pub struct Watch {
    epoll: Epoll,
    route: Socket,
    /// `None` on a kernel without ethtool netlink.
    ethtool: Option<Socket>,
    /// Tells what drivers do for XDP. `None` on a kernel without that family (before 6.3).
    features: Option<Socket>,
    names: Option<Inotify>,
}

fn failed(what: &str, error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::System, format!("watching netdevs: {what}: {error}"))
}

/// Opens a netlink socket that is in groups, and never waits.
fn subscribe(protocol: isize, groups: &[u32]) -> std::io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    socket.set_non_blocking(true)?;
    // Larger than the usual limit by CAP_NET_ADMIN. What does not fit even so is told as ENOBUFS.
    let _ = socket.set_rx_buf_sz(BUFFER);
    groups.iter().try_for_each(|&group| socket.add_membership(group))?;
    Ok(socket)
}

/// Subscribes to a group of a generic netlink family.
fn subscribe_family(family: &str, group: &str) -> std::io::Result<Socket> {
    let id = || {
        let family = genl::family(&genl::open()?, family)?;
        family.groups.iter().find(|(name, _)| name == group).map(|(_, id)| *id).ok_or(Errno::ENOENT)
    };
    subscribe(NETLINK_GENERIC, &[id()?]).inspect_err(|error| tracing::debug!(%error, family, "a family tells nothing"))
}

/// Index of the netdev that a message of the netdev family is about.
fn netdev_of_features(message: &[u8]) -> Option<u32> {
    let attributes = message.get(genl::HEADERS..)?;
    xdp_prog::netlink::attributes(attributes)
        .find(|(kind, _)| *kind == NETDEV_IFINDEX)
        .and_then(|(_, value)| genl::number(value))
}

fn watch_names() -> Result<Inotify, Errno> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let flags = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVE;
    inotify.add_watch(Path::new(namespaces::NAMED), flags)?;
    Ok(inotify)
}

impl Watch {
    /// Subscribes.
    ///
    /// # Errors
    /// If rtnetlink can't be subscribed to. What else there is not on this machine is left out.
    pub fn new() -> Result<Self, Error> {
        let groups = [RTNLGRP_LINK, RTNLGRP_TC, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_NSID];
        let route = subscribe(NETLINK_ROUTE, &groups).map_err(|error| failed("rtnetlink", error))?;
        if let Err(error) = route.set_listen_all_namespaces(true) {
            tracing::debug!(%error, "guests' ends in other namespaces are not heard of");
        }
        let (ethtool, features) =
            (subscribe_family("ethtool", "monitor").ok(), subscribe_family("netdev", "mgmt").ok());
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|errno| failed("epoll", errno))?;
        let mut watch = Self { epoll, route, ethtool, features, names: None };
        watch.add(watch.route.as_raw_fd())?;
        for socket in watch.ethtool.iter().chain(&watch.features) {
            watch.add(socket.as_raw_fd())?;
        }
        watch.watch_names()?;
        Ok(watch)
    }

    #[expect(unsafe_code, reason = "sockets of netlink-sys give their number only")]
    fn add(&self, fd: std::os::fd::RawFd) -> Result<(), Error> {
        // SAFETY: the descriptor belongs to a field of `self`, which is open.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let added = self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, 0));
        added.map_err(|errno| failed("epoll", errno))
    }

    /// Watches the names of namespaces, once their directory is there.
    fn watch_names(&mut self) -> Result<(), Error> {
        if self.names.is_none()
            && let Ok(names) = watch_names()
        {
            self.add(names.as_fd().as_raw_fd())?;
            self.names = Some(names);
        }
        Ok(())
    }
}

/// Index of the netdev that a message is about.
fn netdev_of(message: &RouteNetlinkMessage) -> Option<u32> {
    match message {
        RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => Some(link.header.index),
        RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
            Some(address.header.index)
        }
        RouteNetlinkMessage::NewQueueDiscipline(tc)
        | RouteNetlinkMessage::DelQueueDiscipline(tc)
        | RouteNetlinkMessage::NewTrafficFilter(tc)
        | RouteNetlinkMessage::DelTrafficFilter(tc) => u32::try_from(tc.header.index).ok(),
        _ => None,
    }
}

/// Reads all messages of a socket. `None` if some were lost.
fn drain(socket: &Socket, mut take: impl FnMut(&[u8])) -> Option<()> {
    let mut lost = false;
    let mut buffer = Vec::with_capacity(DATAGRAM);
    loop {
        buffer.clear();
        match socket.recv(&mut buffer, 0) {
            Ok(_) => take(&buffer),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            // ENOBUFS comes once, and reading goes on.
            Err(_) if !lost => lost = true,
            Err(_) => break,
        }
    }
    (!lost).then_some(())
}

fn messages(mut datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let len = u32::from_ne_bytes(*datagram.first_chunk()?) as usize;
        let message = datagram.get(..len).filter(|_| len > 0)?;
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

impl HostWatch for Watch {
    fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    fn take(&mut self) -> HostChange {
        let mut change = HostChange::default();
        let mut note = |bytes: &[u8]| match NetlinkMessage::deserialize(bytes).map(|message| message.payload) {
            Ok(NetlinkPayload::InnerMessage(message)) => match netdev_of(&message) {
                Some(index) => drop(change.netdevs.insert(index)),
                None => change.anything = true,
            },
            _ => change.anything = true,
        };
        let mut all = drain(&self.route, |datagram| messages(datagram).for_each(&mut note));
        if let Some(socket) = &self.ethtool {
            // These name their netdev in an attribute's attribute, and are rare.
            let mut said = false;
            all = all.and(drain(socket, |_| said = true));
            change.anything |= said;
        }
        if let Some(socket) = &self.features {
            let mut note = |message: &[u8]| match netdev_of_features(message) {
                Some(index) => drop(change.netdevs.insert(index)),
                None => change.anything = true,
            };
            all = all.and(drain(socket, |datagram| messages(datagram).for_each(&mut note)));
        }
        if let Some(names) = &self.names {
            while names.read_events().is_ok_and(|events| !events.is_empty()) {
                change.anything = true;
            }
        }
        change.anything |= all.is_none();
        if let Err(error) = self.watch_names() {
            tracing::debug!(%error, "names of namespaces are not watched");
        }
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_cut_into_its_messages() {
        let message = |len: u32| [len.to_ne_bytes().to_vec(), vec![7; len as usize - 4]].concat();
        let padded = [message(6), vec![0; 2], message(8)].concat();
        assert_eq!(messages(&padded).map(<[u8]>::len).collect::<Vec<_>>(), [6, 8]);
        // A length that goes beyond the end, and one of zero, end it.
        assert_eq!(messages(&[message(8), 99_u32.to_ne_bytes().to_vec()].concat()).count(), 1);
        assert_eq!(messages(&[0; 16]).count(), 0);
    }
}
