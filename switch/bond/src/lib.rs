//! Bonds: several links that the switch uses as one port.
//!
//! The crate decides, and does nothing. It has no I/O, no clock and no threads. A caller gives it events with the time
//! at which they happened, and carries out the actions that come back.
//!
//! - [`options`]: options with the names, values and rules of the Linux bonding driver
//! - [`lacp`]: the Link Aggregation Control Protocol of IEEE 802.1AX
//! - [`Bond`]: which members carry traffic, in each mode
//! - [`buckets`]: which member each bucket of flows goes to, without reordering
//! - [`hash`]: which bucket a frame belongs to
//!
//! Times are [`Time`]: what has passed since any fixed moment, by a clock that never goes back. A caller sleeps until
//! [`Bond::deadline`], or until something happens. It then tells what happened, or calls [`Bond::run`].
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::expect_used))]

mod bond;
pub mod buckets;
pub mod hash;
pub mod lacp;
mod link;
pub mod options;
mod repeat;

use std::fmt;
use std::time::Duration;

pub use bond::{Action, ActivateError, Bond, Collect, Egress, MemberInfo, NewMember};
pub use link::{Duplex, Link, LinkState};

/// Time since a fixed moment, by a clock that never goes back.
pub type Time = Duration;

/// Number of a member in its bond, from 1 on. It stays with the member and is its port number to LACP partners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberId(pub u16);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The earlier of two deadlines, if there are any.
fn earliest(a: Option<Time>, b: Option<Time>) -> Option<Time> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
