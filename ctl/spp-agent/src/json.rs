//! Commands in JSON: the second form in the command library's document. SPP's vf took it before spp-ctl existed.
//!
//! A request has several commands. The answer has a result for each:
//!
//! ```text
//! {"commands": [{"command": "component", "core": 2, "type": "forward"}, {"command": "flush"}]}
//! {"results": [{"result": "success"}, {"result": "success"}]}
//! ```
//!
//! The whole request is read before any command is carried out. Commands after one that failed are not carried out.
//! Their result is `invalid`.

use ctl_spp::run::{Outcome, run};
use ctl_spp::words::{self, Command};
use ctl_spp::{PortId, Proc, ProcType, Spp};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use super::connection::{Answers, MAX_COMMANDS};
use super::library;
use super::reply::error;

/// A request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    commands: Vec<Value>,
}

/// A command, with the keys that the document gives it.
#[derive(Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
enum Element {
    #[serde(alias = "_get_client_id")]
    Process {},
    Status {},
    Exit {},
    Forward {},
    Stop {},
    Flush {
        /// `on` or `off` turns flush mode on or off. `discard` discards held changes. Absent: flush.
        mode: Option<Word>,
    },
    Add {
        #[serde(alias = "port")]
        ports: Ports,
    },
    Component {
        core: u32,
        #[serde(rename = "type")]
        kind: Word,
        #[serde(default)]
        rx_port: Ports,
        #[serde(default)]
        tx_port: Ports,
    },
    ClassifierTable {
        #[serde(rename = "type")]
        kind: Word,
        value: Word,
        port: Word,
    },
}

/// A text without blanks. Commands become lines, and it must stay one word of its line.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Word(String);

impl TryFrom<String> for Word {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() || text.contains(|one: char| one.is_whitespace() || one.is_control()) {
            return Err(format!("`{}` is not one word", text.escape_default()));
        }
        Ok(Self(text))
    }
}

/// One port or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Ports {
    One(String),
    Some(Vec<String>),
}

impl Default for Ports {
    fn default() -> Self {
        Self::Some(Vec::new())
    }
}

impl Ports {
    fn read(&self) -> Result<Vec<String>, String> {
        let ports = match self {
            Self::One(port) => std::slice::from_ref(port),
            Self::Some(ports) => ports,
        };
        ports.iter().map(|port| port_word(port)).collect()
    }
}

/// A port as lines have it. The document writes `nic0` for `phy:0`, and `ring3` for `ring:3`.
fn port_word(text: &str) -> Result<String, String> {
    let with_colon = match text.find(|one: char| one.is_ascii_digit()) {
        Some(at) if !text.contains(':') => {
            let (kind, no) = text.split_at(at);
            format!("{}:{no}", if kind == "nic" { "phy" } else { kind })
        }
        _ => text.to_owned(),
    };
    let port: PortId = with_colon.parse().map_err(|why| format!("Invalid value (port): {why}"))?;
    Ok(port.to_string())
}

/// Whether the bytes are a JSON request, not a line.
pub(super) fn is_request(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"{")
}

/// Whether the bytes are the beginning of a JSON request whose end has not come yet.
pub(super) fn is_cut_off(bytes: &[u8]) -> bool {
    is_request(bytes) && serde_json::from_slice::<IgnoredAny>(without_end(bytes)).is_err_and(|error| error.is_eof())
}

/// The bytes without zeros at the end. Some of SPP's peers send their whole buffer.
fn without_end(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte != 0);
    &bytes[..end.map_or(0, |last| last + 1)]
}

/// Carries out a request.
pub(super) fn answers(spp: &Spp, proc: Proc, bytes: &[u8]) -> Answers {
    let mut answers = Answers { text: String::new(), asked: true, ended: false };
    let elements = match request(bytes) {
        Ok(elements) => elements,
        Err(why) => {
            answers.text = json!({"results": [error(&why)]}).to_string();
            return answers;
        }
    };
    let elements: Vec<_> = elements.into_iter().map(|element| commands(proc.kind, element)).collect();
    answers.asked = elements.iter().any(|element| !matches!(element.as_deref(), Ok([Command::ClientId])));
    let mut reply = Map::new();
    let mut failed = elements.iter().any(Result::is_err);
    let results: Vec<Value> = elements
        .into_iter()
        .map(|element| {
            let done = match element {
                Ok(_) if failed || answers.ended => return json!({"result": "invalid"}),
                Ok(commands) => commands.iter().try_for_each(|command| {
                    answers.ended = carry_out(spp, proc, command, &mut reply)?;
                    Ok(())
                }),
                Err(why) => Err(why),
            };
            tracing::debug!(%proc, ?done, "a command in JSON");
            match done {
                Ok(()) => json!({"result": "success"}),
                Err(why) => {
                    failed = true;
                    error(&why)
                }
            }
        })
        .collect();
    reply.insert("results".to_owned(), results.into());
    answers.text = Value::Object(reply).to_string();
    answers
}

fn request(bytes: &[u8]) -> Result<Vec<Value>, String> {
    let wrong = |why: String| format!("Wrong message format: {why}");
    let Request { commands } = serde_json::from_slice(without_end(bytes))
        .map_err(|error| wrong(format!("{{\"commands\": [{{\"command\": …}}, …]}} is expected: {error}")))?;
    if commands.is_empty() || commands.len() > MAX_COMMANDS {
        return Err(wrong(format!("{} commands: 1 to {MAX_COMMANDS} are possible", commands.len())));
    }
    Ok(commands)
}

/// The commands that an element stands for, in order. Each is written as a line, so that there is one parser.
fn commands(kind: ProcType, element: Value) -> Result<Vec<Command>, String> {
    let element = serde_json::from_value(element).map_err(|error| format!("Wrong message format: {error}"))?;
    let lines = match element {
        Element::Process {} => vec!["process".to_owned()],
        Element::Status {} => vec!["status".to_owned()],
        Element::Exit {} => vec!["exit".to_owned()],
        Element::Forward {} => vec!["forward".to_owned()],
        Element::Stop {} => vec!["stop".to_owned()],
        Element::Flush { mode } => vec![mode.map_or_else(|| "flush".to_owned(), |mode| format!("flush {}", mode.0))],
        Element::Add { ports } => ports.read()?.into_iter().map(|port| format!("add {port}")).collect(),
        Element::Component { core, kind, rx_port, tx_port } => {
            let side = |dir: &str, ports: &Ports| {
                let words = ports.read()?;
                Ok::<_, String>(if words.is_empty() { String::new() } else { format!(" {dir} {}", words.join(" ")) })
            };
            vec![format!("component {core} {}{}{}", kind.0, side("rx", &rx_port)?, side("tx", &tx_port)?)]
        }
        Element::ClassifierTable { kind, value, port } => {
            let port = if port.0 == "unuse" { port.0 } else { port_word(&port.0)? };
            vec![format!("classifier_table add {} {} {port}", kind.0, value.0)]
        }
    };
    lines.iter().map(|line| words::parse(kind, line)).collect()
}

/// Carries out a command, and adds what it answers to `reply`. Returns whether the process has ended.
fn carry_out(spp: &Spp, proc: Proc, command: &Command, reply: &mut Map<String, Value>) -> Result<bool, String> {
    match run(spp, proc, command).map_err(|error| error.to_string())? {
        Outcome::ClientId => {
            reply.insert("client_id".to_owned(), proc.id.into());
            reply.insert("process_type".to_owned(), proc.kind.word().into());
        }
        Outcome::Status(status) => {
            reply.insert("info".to_owned(), library::info(spp, &status));
        }
        Outcome::Done | Outcome::Flow(_) => {}
        Outcome::Ended => return Ok(true),
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_end_of_a_request_tells_whether_more_comes() {
        for whole in ["{}", " {\"commands\": []}\n\0\0", "{]", "{\"commands\": []} {", "status", ""] {
            assert!(!is_cut_off(whole.as_bytes()), "{whole}");
        }
        for part in ["{", "\r\n{\"commands\"", "{\"commands\": [{\"command\": \"fl", "{\"commands\": []\0"] {
            assert!(is_cut_off(part.as_bytes()), "{part}");
        }
    }

    #[test]
    fn ports_are_called_as_in_the_document_or_as_in_lines() {
        for (text, port) in [("nic0", "phy:0"), ("phy12", "phy:12"), ("vhost3", "vhost:3"), ("phy:0nq1", "phy:0nq1")] {
            assert_eq!(port_word(text), Ok(port.to_owned()));
        }
        for text in ["", "ring", "0", "ring-1", "nic:0", "ring0 ring1", "ring99999999999", "bridge0"] {
            assert!(port_word(text).is_err_and(|why| why.starts_with("Invalid value (port)")), "{text}");
        }
    }

    /// Objects of known keys and values in any combination, and some unknown ones.
    fn element() -> impl Strategy<Value = Value> {
        let keys = ["command", "core", "type", "rx_port", "tx_port", "ports", "port", "value", "other"];
        let words = [
            "add",
            "component",
            "classifier_table",
            "flush",
            "process",
            "none",
            "merge",
            "mac",
            "vlan",
            "default",
            "unuse",
            "52:54:00:12:34:56",
            "ring0",
            "nic:0",
            "phy:0nq1",
        ];
        let word = prop_oneof![4 => prop::sample::select(words.to_vec()).prop_map(str::to_owned), 1 => "\\PC{0,6}"];
        let value = prop_oneof![
            6 => word.clone().prop_map(Value::from),
            1 => any::<i64>().prop_map(Value::from),
            1 => prop::collection::vec(word, 0..3).prop_map(Value::from),
            1 => Just(Value::Null),
        ];
        let pairs = prop::collection::vec((prop::sample::select(keys.to_vec()), value), 0..6);
        pairs.prop_map(|pairs| pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    proptest! {
        #[test]
        fn any_element_is_one_or_several_commands_or_refused(element in element()) {
            for kind in [ProcType::Primary, ProcType::Vf, ProcType::Nfv, ProcType::Mirror, ProcType::Pcap] {
                if let Err(why) = commands(kind, element.clone()) {
                    prop_assert!(!why.is_empty());
                }
            }
        }

        #[test]
        fn any_bytes_are_a_request_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = (is_request(&bytes), is_cut_off(&bytes), request(&bytes));
        }
    }
}
