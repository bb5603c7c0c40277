//! Whether flow rules can be carried out.

use std::collections::{BTreeMap, BTreeSet};

use crate::Error;
use crate::engine::parse::is_tpid;
use crate::model::{FlowDirection, FlowEdit, FlowRule, FlowTarget, MAX_FLOW_PUSHES, MAX_FLOW_RULES, MacAddr, Masked};

/// Checks the rules of a port with that many queues.
///
/// # Errors
/// `Invalid`: the first thing that is wrong.
pub(crate) fn check(rules: &[FlowRule], queues: u32) -> Result<(), Error> {
    if rules.len() > MAX_FLOW_RULES {
        return Err(Error::invalid(format!("{} flow rules are too many: {MAX_FLOW_RULES} are possible", rules.len())));
    }
    let mut seen = BTreeSet::new();
    for rule in rules {
        let id = rule.id;
        check_rule(rule, queues).map_err(|what| Error::invalid(format!("flow rule {id}: {what}")))?;
        if !seen.insert(id) {
            return Err(Error::invalid(format!("flow rule {id}: there are two of that number")));
        }
    }
    for direction in [FlowDirection::Ingress, FlowDirection::Egress] {
        let pushes = most_pushes(rules, direction);
        if pushes > MAX_FLOW_PUSHES {
            return Err(Error::invalid(format!(
                "flow rules can give a frame {pushes} tags one way: {MAX_FLOW_PUSHES} are possible"
            )));
        }
    }
    Ok(())
}

fn check_rule(rule: &FlowRule, queues: u32) -> Result<(), String> {
    let FlowRule { id: _, direction, group, priority: _, key, edits, target } = rule;
    for (name, mac) in [("dmac", key.dmac), ("smac", key.smac)] {
        if let Some(mac) = mac.filter(|mac| mac.value.to_u64() & !mac.mask != 0) {
            return Err(format!("{name}: {} has bits outside its mask {}", mac.value, MacAddr::from_u64(mac.mask)));
        }
    }
    for (name, word) in [("ethertype", key.ethertype), ("tci", key.tci), ("inner_type", key.inner_type)] {
        if let Some(word) = word.filter(|word| word.value & !(word.mask & Masked::<16>::FULL) != 0) {
            return Err(format!("{name}: {:#x} has bits outside its mask {:#x}", word.value, word.mask));
        }
    }
    for edit in edits {
        match *edit {
            FlowEdit::Push(ethertype) if !is_tpid(ethertype) => {
                return Err(format!("a tag can't have the EtherType {ethertype:#06x}: 0x8100 or 0x88a8 is possible"));
            }
            FlowEdit::Vid(vid) if vid > 4094 => {
                return Err(format!("VLAN {vid} is out of range, 0 to 4094 are possible"));
            }
            FlowEdit::Pcp(pcp) if pcp > 7 => {
                return Err(format!("priority {pcp} is out of range, 0 to 7 are possible"));
            }
            _ => {}
        }
    }
    match *target {
        FlowTarget::Queue(_) if *direction == FlowDirection::Egress => {
            Err("a frame that goes out can't be sent to a queue".to_owned())
        }
        FlowTarget::Queue(queue) if queue >= queues => {
            Err(format!("the port has no queue {queue}: it has 0 to {}", queues.saturating_sub(1)))
        }
        FlowTarget::Group(next) if next <= *group => {
            Err(format!("it can't jump to group {next}: only to groups behind its own, {group}"))
        }
        _ => Ok(()),
    }
}

/// The most tags that the rules of one direction can give a frame on its way from group to group.
fn most_pushes(rules: &[FlowRule], direction: FlowDirection) -> usize {
    let mut most = BTreeMap::<u32, usize>::new();
    let mut rules: Vec<_> = rules.iter().filter(|rule| rule.direction == direction).collect();
    // Rules of later groups come first, because jumps lead to later groups only.
    rules.sort_by_key(|rule| std::cmp::Reverse(rule.group));
    for rule in rules {
        let own = rule.edits.iter().filter(|edit| matches!(edit, FlowEdit::Push(_))).count();
        let then = match rule.target {
            FlowTarget::Group(group) => most.get(&group).copied().unwrap_or(0),
            FlowTarget::Normal | FlowTarget::Queue(_) => 0,
        };
        let most = most.entry(rule.group).or_default();
        *most = (*most).max(own + then);
    }
    most.into_values().max().unwrap_or(0)
}
