//! Flow rules as the primary's status shows them.
//!
//! The order of keys and the form of values are SPP's. Header fields are texts: addresses, or hexadecimal numbers.

use serde::Serialize;
use serde_json::{Value, json};
use switch::model::{FlowDirection, MacAddr};

use super::{Action, Field, Item, NumberedRule, Part, Rule};

/// A rule as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shown {
    rule_id: u32,
    attr: Attributes,
    patterns: Vec<ShownItem>,
    actions: Vec<ShownAction>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Attributes {
    group: u32,
    priority: u32,
    ingress: u8,
    egress: u8,
    transfer: u8,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct ShownItem {
    r#type: &'static str,
    spec: Value,
    last: Value,
    mask: Value,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct ShownAction {
    r#type: &'static str,
    conf: Value,
}

impl From<&NumberedRule> for Shown {
    fn from(numbered: &NumberedRule) -> Self {
        let Rule { direction, group, priority, transfer, ref pattern, ref actions } = numbered.rule;
        let is = |wanted| u8::from(direction == wanted);
        let (ingress, egress) = (is(FlowDirection::Ingress), is(FlowDirection::Egress));
        Self {
            rule_id: numbered.rule_id,
            attr: Attributes { group, priority, ingress, egress, transfer: u8::from(transfer) },
            patterns: pattern.iter().map(item).collect(),
            actions: actions.iter().map(|action| ShownAction { r#type: action.word(), conf: conf(*action) }).collect(),
        }
    }
}

fn item(item: &Item) -> ShownItem {
    let part = |part: &Part| {
        let field = |field: &Field| {
            let value = part.get(field).map_or(0, |bits| bits.value);
            let text = match field {
                Field::Dst | Field::Src => MacAddr::from_u64(value).to_string(),
                Field::Type | Field::Tci | Field::InnerType => hex(value),
            };
            (field.word().to_owned(), Value::String(text))
        };
        if part.is_empty() { Value::Null } else { Value::Object(item.kind.fields().iter().map(field).collect()) }
    };
    ShownItem { r#type: item.kind.word(), spec: part(&item.spec), last: part(&item.last), mask: part(&item.mask) }
}

fn hex(value: u64) -> String {
    format!("{value:#06x}")
}

fn conf(action: Action) -> Value {
    match action {
        Action::Jump { group } => json!({ "group": group }),
        Action::Queue { index } => json!({ "index": index }),
        Action::OfPopVlan => Value::Null,
        Action::OfPushVlan { ethertype } => json!({ "ethertype": hex(ethertype.into()) }),
        Action::OfSetVlanVid { vlan_vid } => json!({ "vlan_vid": hex(vlan_vid.into()) }),
        Action::OfSetVlanPcp { vlan_pcp } => json!({ "vlan_pcp": format!("{vlan_pcp:#x}") }),
    }
}
