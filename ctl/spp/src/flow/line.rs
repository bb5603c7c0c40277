//! `flow …`: commands about flow rules, in testpmd's words. SPP's CLI and spp-ctl send them to the primary.

use serde::{Serialize, Serializer};
use switch::model::FlowDirection;

use super::{Rule, parse};
use crate::{PortId, PortType, Spp, SppError};

const RIGHT: &str = "Wrong message format: `flow validate|create PORT ATTRIBUTES pattern ITEM / … / end actions ACTION / … / end`, \
                     `flow destroy PORT N|ALL`, `flow list PORT` or `flow status PORT N` is expected";

/// The answer to a command, as SPP's primary gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    result: &'static str,
    /// The result in words.
    pub message: String,
    /// Number of the rule that was made, if any. It is written as a text.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_text")]
    pub rule_id: Option<u32>,
}

fn as_text<S: Serializer>(id: &Option<u32>, serializer: S) -> Result<S::Ok, S::Error> {
    match id {
        Some(id) => serializer.collect_str(id),
        None => serializer.serialize_none(),
    }
}

impl Told {
    fn success(message: String, rule_id: Option<u32>) -> Self {
        Self { result: "success", message, rule_id }
    }

    /// A rule was checked, and can be made.
    pub fn validated() -> Self {
        Self::success("Flow rule validated".to_owned(), None)
    }

    /// A rule was made, with this number.
    pub fn created(id: u32) -> Self {
        Self::success(format!("Flow rule #{id} created"), Some(id))
    }

    /// The rule with this number was deleted, or all rules of the port.
    pub fn destroyed(id: Option<u32>) -> Self {
        let what = id.map_or_else(|| "all".to_owned(), |id| format!("#{id}"));
        Self::success(format!("Flow rule {what} destroyed"), None)
    }

    /// The command `verb` was refused.
    pub fn error(verb: &str, why: &str) -> Self {
        let message = match verb {
            "validate" | "create" => format!("Flow {verb} error: {why}"),
            _ => why.to_owned(),
        };
        Self { result: "error", message, rule_id: None }
    }
}

/// Carries out the words after `flow`: `validate`, `create` and `destroy`. Other words are refused.
///
/// # Errors
/// `Refused` with the reason; `NotFound`: there is no primary; `System`: the state file can't be written.
pub fn run(spp: &Spp, words: &[&str]) -> Result<Told, SppError> {
    let [verb, port, rest @ ..] = words else { return wrong() };
    let no = phy(port)?;
    match (*verb, rest) {
        ("validate", rest) => spp.check_flow_rule(no, &rule(rest)?).map(|()| Told::validated()),
        ("create", rest) => spp.add_flow_rule(no, rule(rest)?).map(Told::created),
        ("destroy", [id]) => {
            let id = if *id == "ALL" { None } else { Some(number("flow destroy", id)?) };
            spp.del_flow_rules(no, id).map(|()| Told::destroyed(id))
        }
        _ => wrong(),
    }
}

/// Refuses words that are none of the commands.
///
/// # Errors
/// Always `Refused`.
pub fn wrong<T>() -> Result<T, SppError> {
    refused(RIGHT)
}

fn refused<T>(why: impl Into<String>) -> Result<T, SppError> {
    Err(SppError::refused(why))
}

/// The number of a `phy` port. Only these have rules.
///
/// # Errors
/// `Refused`: it is not the name of a `phy` port, or it names a queue.
pub fn phy(port: &str) -> Result<u32, SppError> {
    match port.parse::<PortId>().map_err(SppError::Refused)? {
        PortId { kind: PortType::Phy, no, queue: None } => Ok(no),
        other => refused(format!("{other}: only a phy port has flow rules")),
    }
}

/// The number that follows the word `what`.
///
/// # Errors
/// `Refused`: it is not a number.
pub fn number(what: &str, text: &str) -> Result<u32, SppError> {
    text.parse().map_err(|_| SppError::refused(format!("{what}: `{}` is no number", text.escape_default())))
}

/// Reads a rule: attributes in any order, the pattern, then the actions.
pub(super) fn rule(words: &[&str]) -> Result<Rule, SppError> {
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
            None => return wrong(),
        }
    }
    let Some(direction) = direction else { return refused("flow: ingress or egress is needed") };
    let pattern = until_end(&mut words)?;
    if words.next() != Some("actions") {
        return wrong();
    }
    let actions = until_end(&mut words)?;
    if let Some(more) = words.next() {
        return refused(format!("flow: `{}` is behind the end", more.escape_default()));
    }
    let pattern = parse::pattern(&pattern).map_err(SppError::Refused)?;
    let actions = parse::actions(&actions).map_err(SppError::Refused)?;
    Ok(Rule { direction, group, priority, transfer, pattern, actions })
}

/// The parts between `/`, up to `end`.
fn until_end<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<Vec<String>, SppError> {
    let (mut all, mut one) = (Vec::new(), Vec::new());
    for word in words {
        match word {
            "/" => all.push(std::mem::take(&mut one).join(" ")),
            "end" if one.is_empty() => return Ok(all),
            word => one.push(word),
        }
    }
    wrong()
}
