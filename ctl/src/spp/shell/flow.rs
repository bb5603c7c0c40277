//! `pri; flow …`: flow rules of a `phy` port in testpmd's words, as SPP's CLI has them.

use serde_json::{Value, json};
use switch::model::FlowDirection;

use super::Answer;
use crate::spp::flow::show::Shown;
use crate::spp::flow::{NumberedRule, Rule, parse};
use crate::spp::{PortId, PortType, Spp, SppError};

const RIGHT: &str = "flow validate|create PORT ATTRIBUTES pattern ITEM / … / end actions ACTION / … / end, flow destroy PORT N|ALL, \
                     flow list PORT, flow status PORT N";

fn refused<T>(why: impl Into<String>) -> Result<T, SppError> {
    Err(SppError::refused(why))
}

/// Carries out what follows `flow`.
///
/// # Errors
/// `Refused` with the reason; `NotFound`: there is no primary.
pub(super) fn run(spp: &Spp, words: &[&str]) -> Result<Answer, SppError> {
    let [verb, port, rest @ ..] = words else { return refused(RIGHT) };
    let no = match port.parse::<PortId>().map_err(SppError::Refused)? {
        PortId { kind: PortType::Phy, no, queue: None } => no,
        other => return refused(format!("{other}: only a phy port has flow rules")),
    };
    let told = |text: String, value: Value| Ok(Answer { text, value });
    match (*verb, rest) {
        ("validate", rest) => {
            spp.check_flow_rule(no, &rule(rest)?)?;
            told("Flow rule validated\n".to_owned(), Value::Null)
        }
        ("create", rest) => {
            let id = spp.add_flow_rule(no, rule(rest)?)?;
            told(format!("Flow rule #{id} created\n"), json!({ "rule_id": id }))
        }
        ("destroy", ["ALL"]) => {
            spp.del_flow_rules(no, None)?;
            told("Flow rule all destroyed\n".to_owned(), Value::Null)
        }
        ("destroy", [id]) => {
            let id = number("flow destroy", id)?;
            spp.del_flow_rules(no, Some(id))?;
            told(format!("Flow rule #{id} destroyed\n"), Value::Null)
        }
        ("list", []) => {
            let rules = spp.flow_rules(no);
            told(list(&rules), json!(rules.iter().map(Shown::from).collect::<Vec<_>>()))
        }
        ("status", [id]) => {
            let id = number("flow status", id)?;
            let rules = spp.flow_rules(no);
            match rules.iter().find(|rule| rule.rule_id == id) {
                Some(rule) => {
                    let value = json!(Shown::from(rule));
                    told(status(&value), value)
                }
                None => refused(format!("{port} has no flow rule #{id}")),
            }
        }
        _ => refused(RIGHT),
    }
}

fn number(what: &str, text: &str) -> Result<u32, SppError> {
    text.parse().map_err(|_| SppError::refused(format!("{what}: `{}` is no number", text.escape_default())))
}

fn rule(words: &[&str]) -> Result<Rule, SppError> {
    let (mut group, mut priority, mut direction, mut transfer) = (0, 0, None, false);
    let mut words = words.iter().copied();
    loop {
        match words.next() {
            Some("group") => group = number("group", words.next().unwrap_or(""))?,
            Some("priority") => priority = number("priority", words.next().unwrap_or(""))?,
            Some("ingress") => direction = Some(FlowDirection::Ingress),
            Some("egress") => direction = Some(FlowDirection::Egress),
            Some("transfer") => transfer = true,
            Some("pattern") => break,
            Some(other) => return refused(format!("flow: `{}` is no attribute", other.escape_default())),
            None => return refused(RIGHT),
        }
    }
    let Some(direction) = direction else { return refused("flow: ingress or egress is needed") };
    let pattern = until_end(&mut words)?;
    if words.next() != Some("actions") {
        return refused(RIGHT);
    }
    let actions = until_end(&mut words)?;
    if let Some(more) = words.next() {
        return refused(format!("flow: `{}` is behind the end", more.escape_default()));
    }
    let pattern = parse::pattern(&pattern).map_err(SppError::Refused)?;
    let actions = parse::actions(&actions).map_err(SppError::Refused)?;
    Ok(Rule { direction, group, priority, transfer, pattern, actions })
}

/// What ` / ` parts, up to `end`.
fn until_end<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<Vec<String>, SppError> {
    let (mut all, mut one) = (Vec::new(), Vec::new());
    for word in words {
        match word {
            "/" => all.push(std::mem::take(&mut one).join(" ")),
            "end" if one.is_empty() => return Ok(all),
            word => one.push(word),
        }
    }
    refused(RIGHT)
}

fn list(rules: &[NumberedRule]) -> String {
    let mut text = "ID      Group   Prio    Attr    Rule\n".to_owned();
    for NumberedRule { rule_id, rule } in rules {
        let attributes = match (rule.direction, rule.transfer) {
            (FlowDirection::Ingress, false) => "i--",
            (FlowDirection::Ingress, true) => "i-t",
            (FlowDirection::Egress, false) => "-e-",
            (FlowDirection::Egress, true) => "-et",
        };
        let pattern: Vec<_> = rule.pattern.iter().map(|item| item.kind.word().to_uppercase()).collect();
        let actions: Vec<_> = rule.actions.iter().map(|action| action.word().to_uppercase()).collect();
        let words = format!("{} => {}", pattern.join(" "), actions.join(" "));
        text += &format!("{rule_id:<7} {:<7} {:<7} {attributes:<7} {words}\n", rule.group, rule.priority);
    }
    text
}

/// A rule as the primary's status shows it, in lines.
fn status(shown: &Value) -> String {
    let attr = &shown["attr"];
    let is = |key: &str| if attr[key] == 1 { "true" } else { "false" };
    let (group, priority) = (attr["group"].to_string(), attr["priority"].to_string());
    let mut text = "Attribute:\n  Group   Priority Ingress Egress Transfer\n".to_owned();
    text +=
        &format!("  {group:<7} {priority:<8} {:<7} {:<6} {}\nPatterns:\n", is("ingress"), is("egress"), is("transfer"));
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let fields = |value: &Value, indent: usize| -> String {
        let line = |(key, value): (&String, &Value)| format!("{:indent$}- {key}: {}\n", "", word(value));
        value.as_object().map_or_else(String::new, |fields| fields.iter().map(line).collect())
    };
    for item in shown["patterns"].as_array().into_iter().flatten() {
        text += &format!("  - {}:\n", word(&item["type"]));
        for part in ["spec", "last", "mask"] {
            text += &format!("    - {part}:\n{}", fields(&item[part], 6));
        }
    }
    text += "Actions:\n";
    for action in shown["actions"].as_array().into_iter().flatten() {
        text += &format!("  - {}:\n{}", word(&action["type"]), fields(&action["conf"], 4));
    }
    text
}
