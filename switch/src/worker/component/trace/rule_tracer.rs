//! Tells of the flow rules that a traced frame meets.

use crate::engine::flow::{CountedRule, Observer};
use crate::engine::trace::{describe_edit, step};
use crate::engine::vlan::TagEdit;
use crate::model::{FlowEdit, FlowTarget, TraceStep};

/// An observer that tells of the rules that a frame meets.
pub(super) struct RuleTracer<'a> {
    pub(super) steps: &'a mut Vec<TraceStep>,
    /// What the frame does.
    pub(super) how: &'a str,
}

impl Observer for RuleTracer<'_> {
    fn matched(&mut self, counted: &CountedRule, _len: usize) {
        let rule = &counted.rule;
        let mut does: Vec<_> = rule.edits.iter().map(describe_flow_edit).collect();
        match rule.target {
            FlowTarget::Normal => {}
            FlowTarget::Queue(queue) => does.push(format!("to queue {queue}")),
            FlowTarget::Group(group) => does.push(format!("on with group {group}")),
        }
        let does = if does.is_empty() { "nothing".to_owned() } else { does.join(", ") };
        self.steps.push(step("flow", format!("{}: rule {} of group {}: {does}", self.how, rule.id, rule.group)));
    }

    fn missed(&mut self, group: u32) {
        self.steps.push(step("flow", format!("{}: no rule of group {group} matches", self.how)));
    }

    fn edited(&mut self, edit: TagEdit) {
        self.steps.push(step("flow", describe_edit(edit)));
    }
}

fn describe_flow_edit(edit: &FlowEdit) -> String {
    match edit {
        FlowEdit::Pop => "pop the tag".to_owned(),
        FlowEdit::Push(tpid) => format!("push a tag {tpid:#06x}"),
        FlowEdit::Vid(vid) => format!("set VID {vid}"),
        FlowEdit::Pcp(pcp) => format!("set PCP {pcp}"),
    }
}
