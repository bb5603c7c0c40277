//! Tells what happens to one frame that comes in by a port of components.
//!
//! It goes by what workers go by: the set in force, its tables, rules and edits, each by the function that a worker
//! calls. Nothing is counted, metered, moved or sent. Control calls it, so it may allocate.
//!
//! A frame may become several, and may go round in a circle. Each way is followed to its end, or until it comes to
//! where it was before, as it was before. In all no more than [`MAX_VISITS`] components are asked.

mod parcel;
mod report;
mod rule_tracer;
mod walk;

use std::sync::Arc;

use self::parcel::Parcel;
use self::report::report;
pub(crate) use self::walk::TraceContext;
use self::walk::Walk;
use crate::engine::trace::parse_steps;
use crate::model::{TraceFate, TraceReport};
use crate::worker::view::PortShared;

/// Components that are asked at most.
const MAX_VISITS: usize = 1024;

/// Follows `frame`, as if it came in now by that queue of a port of components.
pub(crate) fn trace(context: &TraceContext<'_>, port: &Arc<PortShared>, queue: u32, frame: &[u8]) -> TraceReport {
    let mut walk = Walk { context, steps: Vec::new(), ends: Vec::new(), todo: Vec::new() };
    walk.say("ingress", format!("{} bytes from {}, queue {queue}", frame.len(), port.name));
    walk.steps.extend(parse_steps(frame));
    walk.enter(port, queue, Parcel::new(frame));
    let mut visits = 0;
    while let Some(visit) = walk.todo.pop() {
        visits += 1;
        match visits > MAX_VISITS {
            true => walk.end(TraceFate::Cut, None, None, &visit.parcel, visit.before.as_ref()),
            false => walk.visit(visit),
        }
    }
    let Walk { steps, ends, .. } = walk;
    report(steps, ends, context.outside)
}
