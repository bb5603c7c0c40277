//! What the machine knows and does for the switch: namespaces, netdevs, XDP programs, sockets.
//!
//! [`Host`] is all that control asks of the machine. [`kernel`] has the real one. The tests' kit has a made-up one,
//! with which control runs without a kernel and without privileges.
//!
//! A netdev is addressed by its namespace and index ([`Netdev`]). Its name stands beside them, for messages and for
//! the few calls that take names only. All calls may block, and may come from several threads at a time. No worker
//! makes any of them.

pub mod kernel;

mod journals;
mod namespace;
mod netdevs;
mod programs;
mod sockets;
mod watch;

use std::fmt::Debug;

pub use self::journals::Journals;
pub use self::namespace::{Named, Namespace, NamespaceId};
pub use self::netdevs::{
    HostUse, Link, LinkChange, LinkStatus, MAX_IFNAME, Netdev, Netdevs, Pair, PairSpec, TapPlan, TapState,
};
pub use self::programs::{
    Attached, FlowTable, GuestEndPlace, GuestProgram, OtherProgram, PortProgram, Programs, QueueCounters, SteerKey,
    VETH_NATIVE_MAX_MTU,
};
pub use self::sockets::{
    FrameSocket, GroupFrames, GuestSockets, PacketSocket, PortSocket, QueueOptions, SocketCounters, Sockets,
};
pub use self::watch::{HostChange, HostWatch};

/// The machine as control needs it.
pub trait Host: Netdevs + Programs + Sockets + Journals + Debug + Send + Sync {}

impl<T: Netdevs + Programs + Sockets + Journals + Debug + Send + Sync> Host for T {}
