//! The data plane of xswitch: a switch between AF_XDP sockets, in one process, on a few threads.
//!
//! - [`engine`] is pure: packet bytes in, verdict out. It has tables, policy and drop reasons.
//! - [`io`] is the kernel's side: UMEM, rings, sockets, netdevs.
//! - [`worker`] is the loop on a core that ties them together.
//! - [`Switch`] manages it all: ports come and go, counters are read, packets are traced and captured.
//!
//! Control hands the workers an immutable view ([`worker::view`]). Workers hand back counters and learned addresses.
//! `docs/architecture.md` has the picture.

pub mod counters;
pub mod engine;
pub mod io;
pub mod outside;
pub mod worker;

/// Plain data that crosses between the data plane and its managers.
pub use model;

mod capture;
mod control;
mod error;

/// Checks of ports, for code that makes up names, and for test doubles of this data plane.
#[doc(hidden)]
pub use control::resolve;
pub use control::{CaptureRequest, CaptureStream, GuestSockets, NetdevFinding, PinPlace, Switch};
pub use engine::tables::{KeptTables, RuleUndo};
pub use error::{Error, ErrorKind};
