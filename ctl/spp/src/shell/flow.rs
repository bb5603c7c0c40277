//! `pri; flow …`: commands about flow rules of a `phy` port, with the answers of SPP's CLI.

use serde_json::{Value, json};
use switch::model::{Count, FlowDirection};

use super::Answer;
use crate::flow::show::Shown;
use crate::flow::{NumberedRule, line};
use crate::{Spp, SppError};

/// Carries out the words after `flow`.
///
/// # Errors
/// `Refused` with the reason; `NotFound`: there is no primary; `System`: the state file can't be written.
pub(super) fn run(spp: &Spp, words: &[&str]) -> Result<Answer, SppError> {
    match words {
        ["list", port] => {
            let no = line::phy(port)?;
            let rules = spp.flow_rules(no);
            // Rules of a port that is gone are kept, so only a port without rules is looked for.
            if rules.is_empty() {
                spp.check_flow_port(no)?;
            }
            Ok(Answer { text: list(&rules), value: json!(rules.iter().map(Shown::from).collect::<Vec<_>>()) })
        }
        ["status", port, id] => {
            let (no, id) = (line::phy(port)?, line::number("flow status", id)?);
            let rules = spp.flow_rules(no);
            let found = rules.iter().find(|rule| rule.rule_id == id).map(|rule| json!(Shown::from(rule)));
            let mut value = found.ok_or_else(|| SppError::refused(format!("{port} has no flow rule #{id}")))?;
            // SPP's own output does not have the counters. They come after it.
            let Count { packets, bytes } = spp.flow_count(no, id);
            value["matched"] = json!({ "packets": packets, "bytes": bytes });
            let text = status(&value) + &format!("Matched:\n  - packets: {packets}\n  - bytes: {bytes}\n");
            Ok(Answer { text, value })
        }
        words => {
            let told = line::run(spp, words)?;
            let value = told.rule_id.map_or(Value::Null, |id| json!({ "rule_id": id }));
            Ok(Answer { text: told.message + "\n", value })
        }
    }
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

/// A rule in lines. The value is the one that the primary's status shows.
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
