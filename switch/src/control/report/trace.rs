//! What would happen to a frame.

use crate::control::components;
use crate::control::state::Control;
use crate::engine::trace::{TraceInput, trace as trace_bridge};
use crate::model::{TraceReport, TraceStep};
use crate::{Error, ErrorKind};

/// Tells what would happen to a frame that came in from a port by that queue.
pub(in crate::control) fn trace(
    control: &Control,
    port: &str,
    queue: u32,
    frame: &[u8],
    rule: Option<u32>,
) -> Result<TraceReport, Error> {
    let live = control.ports.find(port)?;
    let queues = live.queues();
    if queue >= queues {
        let message = format!("port `{port}` has no queue {queue}: it has 0 to {}", queues - 1);
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    let core = &control.core;
    if !live.shared.bridged {
        return Ok(components::trace(core, &control.components, &live.shared, queue, frame));
    }
    let view = core.shared.view.load_full();
    let input = TraceInput {
        snapshot: &view.snapshot,
        fdb: &view.fdb,
        meters: &view.meters,
        now: core.now(),
        now_ns: core.shared.now_ns(),
        names: &|no| control.ports.name_of(no),
        rule,
    };
    let mut report = trace_bridge(&input, live.shared.no, frame);
    if let Some(offload) = core.offload() {
        let detail = offload.explain(&view, live.shared.no, queue, frame, core.now());
        report.steps.push(TraceStep { stage: "flow table".to_owned(), detail });
    }
    Ok(report)
}
