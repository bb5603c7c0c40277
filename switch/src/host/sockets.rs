//! Sockets, as far as control knows them.

use std::fmt::Debug;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;

use super::Netdev;
use crate::Error;
use crate::io::backend::Backend;
use crate::io::queue_rings::RingMemory;
use crate::io::umem::FrameCache;
use crate::model::ZeroCopy;

/// What queue to open.
#[derive(Clone, Copy, Debug)]
pub struct QueueOptions<'a> {
    /// Netdev of the port.
    pub netdev: &'a Netdev,
    /// Its queue.
    pub queue: u32,
    /// Receive queues of the netdev that are in use, for messages.
    pub channels: u32,
    /// Descriptors of each ring, a power of two.
    pub depth: u32,
    /// Zero-copy wish.
    pub zero_copy: ZeroCopy,
    /// Where its frames lie.
    pub memory: RingMemory,
    /// Whether packets may have several chunks.
    pub takes_chains: bool,
}

/// The descriptor of an open queue, for programs and counters. It can't be duplicated by safe code outside of this
/// crate: the kernel would go on with the frames of a socket that was closed.
#[derive(Clone, Debug)]
pub struct PortSocket {
    fd: Arc<OwnedFd>,
    zero_copy: bool,
    takes_chains: bool,
}

impl PortSocket {
    /// That of a queue.
    pub fn of(backend: &Backend) -> Self {
        let (zero_copy, takes_chains) = (backend.zero_copy(), backend.takes_chains());
        Self { fd: Arc::clone(backend.fd()), zero_copy, takes_chains }
    }

    /// Whether the driver moves frames without a copy.
    pub fn zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// Whether packets may have several chunks.
    pub fn takes_chains(&self) -> bool {
        self.takes_chains
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The kernel's counters of a socket, by the field names of `XDP_STATISTICS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketCounters(pub [(&'static str, u64); 6]);

impl SocketCounters {
    /// Adds those of a socket that was at the same place before.
    #[must_use]
    pub fn plus(self, earlier: Self) -> Self {
        let mut sum = self;
        sum.0.iter_mut().zip(earlier.0).for_each(|((_, count), (_, before))| *count += before);
        sum
    }
}

/// Sockets for a guest, one a queue, in queue order: not bound, without memory, and in their slots.
#[derive(Debug)]
pub struct GuestSockets {
    /// The sockets.
    pub sockets: Vec<OwnedFd>,
    /// The network namespace of the netdev that they are to be bound to.
    pub netns: OwnedFd,
}

/// Keeps something of a netdev as it is while it lives.
pub trait PacketSocket: Debug + Send + Sync {}

/// A way to send frames by a netdev beside its queues.
pub trait FrameSocket: Debug + Send + Sync {
    /// Sends a frame. It never waits.
    fn send(&self, frame: &[u8]) -> Result<(), Errno>;
}

/// Copies of the group-addressed frames that come in from a netdev.
pub trait GroupFrames: Debug + Send + Sync {
    /// The descriptor that is readable when a frame has come.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Takes a frame that has come, with its outer VLAN tag where it was on the wire. `EAGAIN` if there is none.
    fn receive<'a>(&self, buffer: &'a mut [u8]) -> Result<&'a [u8], Errno>;
}

/// Queues of ports, and sockets beside them.
pub trait Sockets {
    /// Opens a queue of a port, and supplies its receive side. `cache` has frames of the shared UMEM.
    fn open_queue(&self, options: &QueueOptions<'_>, cache: &mut FrameCache) -> Result<Backend, Error>;

    /// The kernel's counters of a queue. They are gone with it.
    fn counters(&self, socket: &PortSocket) -> SocketCounters;

    /// Makes a netdev take frames for all addresses, while the result lives.
    fn make_promiscuous(&self, netdev: &Netdev) -> Result<Box<dyn PacketSocket>, Error>;

    /// Has the group-addressed frames of a netdev copied.
    fn copy_group_frames(&self, netdev: &Netdev) -> Result<Box<dyn GroupFrames>, Error>;

    /// Opens a way to send frames by a netdev beside its queues.
    fn open_frame_socket(&self, netdev: &Netdev) -> Result<Box<dyn FrameSocket>, Error>;

    /// Opens sockets for a guest, one a queue, which can be bound to that netdev only.
    fn open_guest_sockets(&self, netdev: &Netdev, queues: u32) -> Result<GuestSockets, Error>;

    /// Whether it can be told which queues have an AF_XDP socket bound (kernel 6.15 and later).
    fn tells_bound_queues(&self) -> bool;

    /// Queues of a netdev that have an AF_XDP socket bound, whoever has it. `None` if it can't be told, as of a netdev
    /// that is down.
    fn bound_queues(&self, netdev: &Netdev) -> Option<u32>;
}
