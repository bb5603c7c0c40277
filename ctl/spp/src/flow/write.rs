//! Writes a rule as words. [`line`](super::line) and [`parse`](super::parse) read them as the same rule.

use switch::model::{FlowDirection, MacAddr};

use super::parse::{Name, names};
use super::{Action, Field, Item, Part, Rule};

/// The words after `flow create PORT`: attributes that are not 0, pattern and actions.
pub fn line(rule: &Rule) -> String {
    let Rule { direction, group, priority, transfer, pattern, actions } = rule;
    let mut words = Vec::new();
    for (word, value) in [("group", *group), ("priority", *priority)] {
        if value != 0 {
            words.push(format!("{word} {value}"));
        }
    }
    let direction = match direction {
        FlowDirection::Ingress => "ingress",
        FlowDirection::Egress => "egress",
    };
    words.push(direction.to_owned());
    words.extend(transfer.then(|| "transfer".to_owned()));
    words.push("pattern".to_owned());
    words.extend(pattern.iter().map(|one| item(one) + " /"));
    words.push("end actions".to_owned());
    words.extend(actions.iter().map(|one| action(*one) + " /"));
    words.push("end".to_owned());
    words.join(" ")
}

/// The value of a name's bits, if all of them are given.
fn given(part: &Part, name: &Name) -> Option<u64> {
    let bits = part.get(&name.field).copied().unwrap_or_default();
    let mine = name.full() << name.shift;
    (bits.given & mine == mine).then_some((bits.value & mine) >> name.shift)
}

/// Whether all of a name's bits are given, or none, in each part of the item.
fn is_whole(item: &Item, name: &Name) -> bool {
    let whole = |part: &Part| {
        let bits = part.get(&name.field).copied().unwrap_or_default();
        [0, name.full() << name.shift].contains(&bits.given)
    };
    [&item.spec, &item.last, &item.mask].into_iter().all(whole)
}

fn item(item: &Item) -> String {
    let mut words = vec![item.kind.word().to_owned()];
    let all = names(item.kind);
    let is_all = |name: &Name| !all.iter().any(|other| other.field == name.field && other.bits > name.bits);
    for name in all {
        // The whole field's name is used if it fits, else the names of its parts, such as `vid`.
        let of_field = all.iter().find(|other| other.field == name.field && is_all(other));
        let whole = of_field.is_some_and(|of_field| is_whole(item, of_field));
        let parts = all.iter().any(|other| other.field == name.field && !is_all(other));
        if parts && is_all(name) != whole {
            continue;
        }
        let text = |value: u64| match name.field {
            Field::Dst | Field::Src => MacAddr::from_u64(value).to_string(),
            Field::Type | Field::InnerType => format!("{value:#06x}"),
            Field::Tci if is_all(name) => format!("{value:#06x}"),
            Field::Tci => value.to_string(),
        };
        let mut say = |how: &str, value| words.push(format!("{} {how} {}", name.word, text(value)));
        let (spec, mask) = (given(&item.spec, name), given(&item.mask, name));
        match (spec, mask) {
            (Some(spec), Some(mask)) if mask == name.full() => say("is", spec),
            _ => {
                spec.into_iter().for_each(|spec| say("spec", spec));
                mask.into_iter().for_each(|mask| say("mask", mask));
            }
        }
        given(&item.last, name).into_iter().for_each(|last| say("last", last));
    }
    words.join(" ")
}

fn action(action: Action) -> String {
    let word = action.word();
    match action {
        Action::Jump { group } => format!("{word} group {group}"),
        Action::Queue { index } => format!("{word} index {index}"),
        Action::OfPopVlan => word.to_owned(),
        Action::OfPushVlan { ethertype } => format!("{word} ethertype {ethertype:#06x}"),
        Action::OfSetVlanVid { vlan_vid } => format!("{word} vlan_vid {vlan_vid}"),
        Action::OfSetVlanPcp { vlan_pcp } => format!("{word} vlan_pcp {vlan_pcp}"),
    }
}
