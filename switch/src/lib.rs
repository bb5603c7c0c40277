//! The data plane of xswitch: a switch between AF_XDP sockets, in one process, on a few threads.
//!
//! - [`engine`] is pure: packet bytes in, verdict out. It has tables, policy and drop reasons.
//! - [`io`] is the kernel's side: UMEM, rings, sockets, netdevs.
//! - [`worker`] is the loop on a core that ties them together.
//! - [`offload`] has the flows that go on in the kernel.
//! - [`Switch`] manages it all: ports come and go, counters are read, packets are traced and captured.
//!
//! Control hands the workers an immutable view ([`worker::view`]). Workers hand back counters and learned addresses.
//! `docs/architecture.md` has the picture.
#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        reason = "small numbers of tests"
    )
)]

pub mod counters;
pub mod engine;
pub mod host;
pub mod io;
pub mod offload;
pub mod outside;
pub mod worker;

/// Plain data that crosses between the data plane and its managers.
pub use model;

mod capture;
mod control;
mod error;
mod rarp;

pub use control::{CaptureRequest, CaptureStream, NetdevFinding, PortChange, Switch, check_name, frame_mtu, jumbo_mtu};
pub use engine::tables::{KeptTables, RuleUndo};
pub use error::{Error, ErrorKind};
pub use host::GuestSockets;
pub use host::kernel::{PinPlace, Places};
