//! Components on their workers.
//!
//! Control compiles the components into a [`Set`], and swaps it in. Each worker makes a plan of it, a list of intakes,
//! and says that it has. A turn takes a burst of each intake, does with it what its component does, and gives it to the
//! sending ends. A port gets frames by the egress, as it gets the bridge's. What is no intake is not looked at: frames
//! wait there.

mod dispatch;
mod flow_rules;
mod plan;
mod runner;
mod set;
mod steering;
mod trace;

pub use self::flow_rules::{Flows, PortFlows};
pub(super) use self::runner::Runner;
pub use self::set::{Component, Components, Counters, Gate, Link, Set};
pub(crate) use self::trace::{TraceContext, trace};
