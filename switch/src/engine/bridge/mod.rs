//! The learning bridge: where a frame goes (IEEE 802.1Q-2022, clause 8.6, as far as it concerns a VM switch).
//!
//! [`decide`] answers for one frame. It checks the sender (`admit`), asks for the traffic rule and the FDB entry
//! ([`Lookup`]), and applies what holds at the egress port (`forward`). It changes nothing but the FDB, which is made
//! for many workers at once. Meters, mirrors and counters are the worker's to see to: a [`Decision`] names the rule.
//!
//! A worker calls [`FlowCache`] for each burst, which calls [`decide`] for flows that it does not have. `xswitch trace`
//! calls the same [`decide`] with a [`StepTracer`] that writes the steps down.
//!
//! A flood is not expanded here. The worker walks [`Snapshot::flood_ports`](super::snapshot::Snapshot::flood_ports),
//! asks [`flood_verdict`] for each, and stages the copies.

mod admit;
mod context;
mod decide;
mod egress;
mod flow_cache;
mod forward;
mod lookup;
#[cfg(test)]
mod tests;
mod tracer;
mod verdict;

pub use context::BurstContext;
pub use decide::decide;
pub use egress::{Egress, Run};
pub use flow_cache::{FlowCache, table_key};
pub use forward::{flood_verdict, is_receiver, mirror_check};
pub(crate) use forward::{max_len_of, packet_len};
pub use lookup::{DirectLookup, DryRunLookup, Lookup};
pub use tracer::{NoTrace, PortNames, StepTracer};
pub use verdict::{Decision, FloodVerdict, Verdict};
