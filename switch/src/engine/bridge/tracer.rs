//! Who hears how a decision was made.

use crate::engine::PortNo;
use crate::engine::rule::{Key, Rule, Rules};

/// Gives the name of a port.
pub type PortNames<'a> = &'a dyn Fn(PortNo) -> String;

/// Hears each step of a decision. It has no say in it.
pub trait StepTracer {
    /// A step was taken. `stage` is that of [`TraceStep::stage`](crate::model::TraceStep::stage). `detail` says what
    /// was found, with the names of ports. It is called only if somebody wants to know.
    fn step(&mut self, stage: &'static str, detail: impl FnOnce(PortNames<'_>) -> String);

    /// The rules were asked about a frame with that key, and `found` applies.
    fn classified(&mut self, rules: &Rules, key: impl FnOnce() -> Key, found: Option<&Rule>);
}

/// Hears nothing. The calls, and the formatting inside them, compile to nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTrace;

impl StepTracer for NoTrace {
    #[inline(always)]
    fn step(&mut self, _stage: &'static str, _detail: impl FnOnce(PortNames<'_>) -> String) {}

    #[inline(always)]
    fn classified(&mut self, _rules: &Rules, _key: impl FnOnce() -> Key, _found: Option<&Rule>) {}
}
