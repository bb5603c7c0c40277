//! XDP programs, as far as control knows them.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;

pub use xdp_prog::{FlowTable, QueueCounters, SteerKey, VETH_NATIVE_MAX_MTU};

use super::{Netdev, PortSocket};
use crate::Error;
use crate::model::{Mode, ModeRequest, PortNo, Steering};
use crate::offload::Exit;

/// What an attachment came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Mode in force.
    pub mode: Mode,
    /// Why a wish of [`ModeRequest::Auto`] ended in generic mode, if it did.
    pub fallback_reason: Option<String>,
}

/// A program on a netdev, whoever attached it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherProgram {
    /// BPF program id.
    pub id: u32,
    /// Name, id and mode, in words.
    pub text: String,
}

/// A port's program, loaded. Dropping it takes it off its netdev.
pub trait PortProgram: Debug + Send + Sync {
    /// Sends packets of a queue to that socket.
    fn set_socket(&self, queue: u32, socket: &PortSocket) -> Result<(), Error>;

    /// Sends packets of a queue to no socket; they are dropped and counted.
    fn clear_socket(&self, queue: u32) -> Result<(), Error>;

    /// Attaches the program.
    fn attach(&mut self, request: ModeRequest) -> Result<Attached, Error>;

    /// Whether the program is on its netdev. Somebody else may have taken it off.
    fn is_attached(&self) -> bool;

    /// Takes the program off its netdev, if it is on it.
    fn detach(&mut self) -> Result<(), Error>;

    /// BPF program id.
    fn id(&self) -> u32;

    /// Makes `keys` the steering set. A station in the old and the new one never misses a packet.
    fn set_steering(&self, keys: &BTreeSet<SteerKey>) -> Result<(), Error>;

    /// Counters of each queue.
    fn counters(&self) -> Result<Vec<QueueCounters>, Error>;
}

/// The guest's end of a port, for a guest's own sockets.
#[derive(Clone, Copy, Debug)]
pub struct GuestEndPlace<'a> {
    /// Number of the port, under which its program and sockets are kept for later processes.
    pub port: PortNo,
    /// The netdev.
    pub netdev: &'a Netdev,
    /// Queues of the port.
    pub queues: u32,
}

/// The program on a guest's end. It stays there when this is dropped, and when the process ends.
pub trait GuestProgram: Debug + Send + Sync {
    /// Mode in force.
    fn mode(&self) -> Mode;

    /// Path of the pinned XSKMAP; the slot of a queue has the queue's number.
    fn map_path(&self) -> PathBuf;

    /// Puts a socket, which need not be bound, into the slot of a queue unless another one is there; says whether
    /// it is in.
    fn offer(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<bool, Error>;

    /// Takes the socket out of the slot of a queue, if there is one.
    fn withdraw(&self, queue: u32) -> Result<(), Error>;

    /// Counters of each queue since the program was first attached.
    fn counters(&self) -> Result<Vec<QueueCounters>, Error>;

    /// Takes it off its netdev, and removes what is kept for later processes.
    fn remove(self: Box<Self>) -> Result<(), Error>;
}

/// XDP programs.
pub trait Programs {
    /// Whether the kernel takes packets of several buffers, in programs and in AF_XDP sockets (6.6 and later).
    fn knows_multi_buffer(&self) -> bool;

    /// Whether a netdev's driver has such packets for native programs.
    fn has_multi_buffer(&self, netdev: &Netdev) -> bool;

    /// Loads the program of a port; nothing is attached. It follows the flow table, as the port of that number.
    fn load_program(
        &self,
        netdev: &Netdev,
        queues: u32,
        steering: Steering,
        flows: Option<(&Arc<FlowTable>, PortNo)>,
    ) -> Result<Box<dyn PortProgram>, Error>;

    /// Makes a flow table.
    ///
    /// # Errors
    /// `Unsupported`: programs can't follow one here.
    fn make_flow_table(&self, slots: u32) -> Result<Arc<FlowTable>, Error>;

    /// What a netdev takes from programs on other netdevs.
    fn exit_of(&self, netdev: &Netdev) -> Exit;

    /// Has a veth take packets from programs on other netdevs: its other end, whose stack is its user, gathers what it
    /// receives (GRO).
    fn open_exit(&self, far: &Netdev) -> Result<(), Error>;

    /// Has programs send packets for a port out of that netdev, or of none.
    fn set_exit(&self, table: &FlowTable, port: PortNo, netdev: Option<&Netdev>) -> Result<(), Error>;

    /// Says that a netdev has no XDP program.
    ///
    /// # Errors
    /// `Busy`: somebody has one there.
    fn check_no_program(&self, netdev: &Netdev) -> Result<(), Error>;

    /// Every XDP program on a netdev.
    fn programs_on(&self, netdev: &Netdev) -> Result<Vec<OtherProgram>, Error>;

    /// Takes up what an earlier process has left on a guest's end; `None` if that is nothing. The host's IPv6 stack
    /// is kept from speaking there.
    ///
    /// # Errors
    /// What is there goes on as it is.
    fn resume_guest_end(&self, place: &GuestEndPlace<'_>) -> Result<Option<Box<dyn GuestProgram>>, Error>;

    /// Attaches a program to a guest's end. The host's IPv6 stack is kept from speaking there. On an error nothing
    /// is left.
    ///
    /// # Errors
    /// - `Unsupported`: nothing can be kept for later processes.
    /// - `Busy`: somebody else's program is there.
    fn attach_guest_end(
        &self,
        place: &GuestEndPlace<'_>,
        request: ModeRequest,
    ) -> Result<(Box<dyn GuestProgram>, Attached), Error>;

    /// Numbers of ports for whose guests' ends something is kept.
    fn kept_guest_ends(&self) -> Vec<PortNo>;

    /// Removes what is kept for the guest's end of a port.
    fn forget_guest_end(&self, port: PortNo) -> Result<(), Error>;
}
