//! Components on their workers.
//!
//! Control compiles the components into a [`Set`], and swaps it in. Each worker makes a plan of it, a list of intakes,
//! and says that it has. A turn takes a burst of each intake, does with it what its component does, and gives it to the
//! sending ends. A port gets frames by the egress, as it gets the bridge's. What is no intake is not looked at: frames
//! wait there.

mod dispatch;
mod plan;
mod runner;
mod steering;
mod trace;

pub(super) use self::runner::Runner;
pub(crate) use self::trace::{TraceContext, trace};
pub use super::set::{Component, Components, Counters, Flows, Gate, Link, PortFlows, Set};
