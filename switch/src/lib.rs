//! The data plane of xswitch: a switch between AF_XDP sockets, in one process, on a few threads.
//!
//! Two floors. [`engine`] is pure: packet bytes in, verdict out; tables, policy, drop reasons. [`io`] is the kernel's side:
//! UMEM, rings, sockets, netdevs. The [`worker`] loop ties them together on a core, and [`Switch`] manages it all: ports come
//! and go, counters are read, packets traced and captured. What crosses from control to workers is an immutable view
//! ([`worker::view`]), what crosses back is counters and learned addresses. `docs/architecture.md` draws the picture.

pub mod counters;
pub mod engine;
pub mod io;
pub mod outside;
pub mod worker;

/// The plain data that crosses between the data plane and whoever manages it.
pub use model;

mod capture;
mod control;
mod error;

/// The checks of ports, for those who make up names, and for data planes that stand in for this one in tests.
#[doc(hidden)]
pub use control::resolve;
pub use control::{CaptureRequest, CaptureStream, GuestSockets, NetdevFinding, PinPlace, Switch};
pub use engine::tables::{KeptTables, RuleUndo};
pub use error::{Error, ErrorKind};
