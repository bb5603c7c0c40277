//! What became of a traced frame, as a whole.

use crate::engine::trace::step;
use crate::model::{EndPort, TraceEnd, TraceFate, TraceReport, TraceStep};

/// The report on a walk that took `steps` and came to `ends`. `outside` names what an outside end is joined to.
pub(super) fn report(mut steps: Vec<TraceStep>, ends: Vec<TraceEnd>, outside: &dyn Fn(u32) -> String) -> TraceReport {
    let count = |fate| ends.iter().filter(|end| end.fate == fate).count();
    let (sent, dropped, waiting) = (count(TraceFate::Sent), count(TraceFate::Dropped), count(TraceFate::Waiting));
    let (circling, cut) = (count(TraceFate::Circling), count(TraceFate::Cut));
    let name = |end: &TraceEnd| match &end.at {
        Some(EndPort::Port { name, .. }) => name.clone(),
        Some(EndPort::Outside(no)) => outside(*no),
        Some(at) => at.to_string(),
        None => String::new(),
    };
    let outputs: Vec<_> = ends.iter().filter(|end| end.fate == TraceFate::Sent).map(name).collect();
    let verdict = match (sent, dropped, waiting, circling) {
        (1, ..) => "forward",
        (2.., ..) => "copy",
        (0, 1.., ..) => "drop",
        (0, 0, 1.., _) => "wait",
        (0, 0, 0, 1..) => "circle",
        _ => "cut",
    };
    let first = ends.iter().find(|end| end.fate == TraceFate::Dropped).and_then(|end| end.reason.clone());
    let drop_reason = first.filter(|_| verdict == "drop");
    let mut parts = Vec::new();
    if sent > 0 {
        parts.push(format!("sent to {}", outputs.join(", ")));
    }
    let others = [
        (dropped, "dropped"),
        (waiting, "waiting"),
        (circling, "going round for ever"),
        (cut, "not followed to the end"),
    ];
    parts.extend(others.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")));
    steps.push(step("verdict", parts.join("; ")));
    let (rule, mirror) = (None, None);
    TraceReport { steps, verdict: verdict.to_owned(), outputs, drop_reason, rule, mirror, ends }
}
