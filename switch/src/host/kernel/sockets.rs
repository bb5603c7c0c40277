//! AF_XDP and packet sockets.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::BindToDevice;
use xdp_prog::{BindFacts, explain_bind_error};

use super::namespaces::{self, run};
use super::packet::{GroupSocket, Promiscuous, SendSocket};
use super::{KernelHost, expect_link, xsk_queues};
use crate::host::{
    FrameSocket, GroupFrames, GuestSockets, Netdev, PacketSocket, PortSocket, QueueOptions, SocketCounters, Sockets,
};
use crate::io::backend::Backend;
use crate::io::queue_rings::RingMemory;
use crate::io::socket::{self, SocketOptions, XskSocket};
use crate::io::sys;
use crate::io::umem::FrameCache;
use crate::model::{OWN_UMEM_FRAMES, ZeroCopy};
use crate::{Error, ErrorKind};

/// Index of the loopback netdev, which every namespace has.
const LOOPBACK: u32 = 1;

fn memlock() -> Option<u64> {
    let (soft, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_MEMLOCK).ok()?;
    Some(soft).filter(|&limit| limit != nix::sys::resource::RLIM_INFINITY)
}

fn packet_error(netdev: &Netdev, errno: Errno) -> Error {
    let advice = if errno == Errno::EPERM { ": CAP_NET_RAW is needed" } else { "" };
    Error::new(ErrorKind::System, format!("opening a packet socket on {}: {errno}{advice}", netdev.name))
}

/// A socket that can be bound to that netdev only: whoever gets it may not send on others. Only a privileged
/// process could lift that (kernel 6.6 and later heed it, `xsk_bind` in `net/xdp/xsk.c`; earlier ones let it be
/// bound anywhere in the namespace).
fn own_socket(ifname: &str) -> Result<OwnedFd, Errno> {
    let socket = sys::socket()?;
    setsockopt(&socket, BindToDevice, &ifname.into())?;
    Ok(socket)
}

impl Sockets for KernelHost {
    fn open_queue(&self, options: &QueueOptions<'_>, cache: &mut FrameCache) -> Result<Backend, Error> {
        let QueueOptions { netdev, queue, channels, depth, zero_copy, memory, takes_chains } = *options;
        let wanted = SocketOptions { ifindex: netdev.index, queue, depth, zero_copy, memory, takes_chains };
        let opened = XskSocket::open(&wanted, &self.sharers, cache);
        opened.map(Backend::Xsk).map_err(|errno| {
            let umem = cache.umem();
            let frames = match memory {
                RingMemory::Shared { .. } => umem.frames(),
                RingMemory::Own => OWN_UMEM_FRAMES,
            };
            let facts = BindFacts {
                ifname: netdev.name.clone(),
                queue,
                channels: Some(channels),
                zero_copy_forced: zero_copy == ZeroCopy::On,
                memlock: memlock(),
                umem_bytes: u64::from(frames) * u64::from(umem.frame_size()),
            };
            let kind = match errno {
                Errno::EBUSY => ErrorKind::Busy,
                Errno::EOPNOTSUPP => ErrorKind::Unsupported,
                _ => ErrorKind::System,
            };
            Error::new(kind, explain_bind_error(errno, &facts))
        })
    }

    fn counters(&self, socket: &PortSocket) -> SocketCounters {
        socket::counters(socket.fd()).map_or_else(|_| SocketCounters::default(), SocketCounters)
    }

    fn make_promiscuous(&self, netdev: &Netdev) -> Result<Box<dyn PacketSocket>, Error> {
        let socket = Promiscuous::new(netdev.index).map_err(|errno| packet_error(netdev, errno))?;
        Ok(Box::new(socket))
    }

    fn copy_group_frames(&self, netdev: &Netdev) -> Result<Box<dyn GroupFrames>, Error> {
        let socket = GroupSocket::open(netdev.index).map_err(|errno| packet_error(netdev, errno))?;
        Ok(Box::new(socket))
    }

    fn open_frame_socket(&self, netdev: &Netdev) -> Result<Box<dyn FrameSocket>, Error> {
        let socket = SendSocket::open(netdev.index).map_err(|errno| packet_error(netdev, errno))?;
        Ok(Box::new(socket))
    }

    fn open_guest_sockets(&self, netdev: &Netdev, queues: u32) -> Result<GuestSockets, Error> {
        // A socket belongs to the namespace that it is opened in, and can be bound to no netdev of another.
        run(&netdev.namespace, || {
            let ifname = expect_link(netdev)?.name;
            let sockets = (0..queues).map(|_| own_socket(&ifname)).collect::<Result<Vec<_>, _>>();
            let sockets = sockets.map_err(|errno| {
                let advice = if errno == Errno::EPERM { ": CAP_NET_RAW is needed" } else { "" };
                Error::new(ErrorKind::System, format!("opening an AF_XDP socket for {ifname}: {errno}{advice}"))
            })?;
            let netns = namespaces::current().map_err(|error| {
                Error::new(ErrorKind::System, format!("opening the network namespace of {ifname}: {error}"))
            })?;
            Ok(GuestSockets { sockets, netns })
        })
    }

    fn tells_bound_queues(&self) -> bool {
        xsk_queues::bound(LOOPBACK).is_ok()
    }

    fn bound_queues(&self, netdev: &Netdev) -> Option<u32> {
        let bound = run(&netdev.namespace, || Ok(xsk_queues::bound(netdev.index).ok().flatten()));
        u32::try_from(bound.ok().flatten()?.len()).ok()
    }
}
