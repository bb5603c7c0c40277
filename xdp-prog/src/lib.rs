//! The XDP programs of xswitch: compiled from `bpf/`, loaded, attached, steered and counted.
//!
//! A [`PortProgram`] is the program on the netdev of one port. It is loaded first, then gets its sockets, and is
//! attached last. It is detached first. It is attached by a BPF link, so it ends with its process, and nobody else can
//! replace it unseen. A program that is already there, on either hook, is reported and left alone.
//!
//! A [`GuestProgram`] is its counterpart on the guest's end of a port. Its link and maps are pinned, so that a guest
//! keeps its sockets while the daemon restarts.
//!
//! A [`FlowTable`] has decisions that programs follow by themselves, so that these packets never leave the kernel.
//!
//! All calls act in the network namespace of the calling thread. Errors say what to do: [`Error`] for programs,
//! [`explain_bind_error`] for AF_XDP sockets.

mod attach;
mod counters;
mod doctor;
mod error;
mod explain;
mod flow_table;
pub mod genl;
mod guest;
pub mod netlink;
mod pins;
mod program;
mod query;

#[allow(missing_docs, missing_debug_implementations, clippy::all, clippy::pedantic, clippy::undocumented_unsafe_blocks)]
#[allow(rust_2018_idioms, elided_lifetimes_in_paths, unsafe_code, clippy::unwrap_used)]
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/port.skel.rs"));
}

#[allow(missing_docs, missing_debug_implementations, clippy::all, clippy::pedantic, clippy::undocumented_unsafe_blocks)]
#[allow(rust_2018_idioms, elided_lifetimes_in_paths, unsafe_code, clippy::unwrap_used)]
mod guest_skeleton {
    include!(concat!(env!("OUT_DIR"), "/guest.skel.rs"));
}

pub use attach::{Attached, Mode, ModeRequest};
pub use counters::QueueCounters;
pub use doctor::{Finding, Status, check_kernel};
pub use error::{Error, ErrorKind};
pub use explain::{AttachFacts, BindFacts, VETH_NATIVE_MAX_MTU, explain_attach_error, explain_bind_error};
pub use flow_table::{
    FLOW_MARK, FLOW_PORTS, FLOW_SLOTS, FLOW_WORDS, FlowAction, FlowDepth, FlowEdit, FlowMark, FlowTable, FlowTableKey,
    is_later, wait_for_programs,
};
pub use guest::{GuestOptions, GuestProgram, Resumed};
pub use pins::{bpffs_at, forget_pins};
pub use program::{LoadOptions, MAX_QUEUES, PortProgram, STATIONS, SteerKey, Steering};
pub use query::{DriverFeatures, ForeignProgram, NETDEV_IFINDEX, attached_programs, driver_features, netdev_family};
