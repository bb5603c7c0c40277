//! Reads request bodies. Keys are checked in spp-ctl's order, and mistakes get its words.

use std::fmt::Write;

use axum::http::StatusCode;
use ctl_spp::{Change, ComponentType, Dir, Entry, EntryKey, Patch, PortId, PortType, ProcType};
use model::{MacAddr, VlanEdit};
use serde_json::{Map, Value};

use super::Refusal;

/// Most characters of a value that a refusal repeats.
const MAX_SHOWN: usize = 200;

/// A JSON object. Any other JSON counts as an object without keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Body(Map<String, Value>);

/// `key(X) required.`
pub(super) fn required(key: &str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, format!("key({key}) required."))
}

/// `invalid key(X): V.`
pub(super) fn invalid(key: &str, value: &Value) -> Refusal {
    let mut text = String::new();
    python(&mut text, value, false);
    if let Some((at, _)) = text.char_indices().nth(MAX_SHOWN) {
        text.truncate(at);
        text.push_str("...");
    }
    Refusal::new(StatusCode::BAD_REQUEST, format!("invalid key({key}): {text}."))
}

/// Writes a value as Python prints it. spp-ctl is a Python program, and clients know its texts.
fn python(out: &mut String, value: &Value, inside: bool) {
    let list = |out: &mut String, items: &mut dyn Iterator<Item = (Option<&String>, &Value)>| {
        for (n, (key, value)) in items.enumerate() {
            if n > 0 {
                out.push_str(", ");
            }
            if let Some(key) = key {
                let _ = write!(out, "'{}': ", key.escape_debug());
            }
            python(out, value, true);
        }
    };
    match value {
        Value::Null => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Number(number) => drop(write!(out, "{number}")),
        Value::String(text) if inside => drop(write!(out, "'{}'", text.escape_debug())),
        Value::String(text) => out.push_str(text),
        Value::Array(values) => {
            out.push('[');
            list(out, &mut values.iter().map(|value| (None, value)));
            out.push(']');
        }
        Value::Object(map) => {
            out.push('{');
            list(out, &mut map.iter().map(|(key, value)| (Some(key), value)));
            out.push('}');
        }
    }
}

/// Whether Python takes a value as false. Clients send `{}` for no VLAN operation.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) => false,
    }
}

/// A whole number, as a number or as a text. Clients send both.
pub(super) fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => {
            let digits = text.trim();
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
        }
        _ => None,
    }
}

impl Body {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(_) => Ok(Self::default()),
            Err(_) => Err(Refusal::new(StatusCode::BAD_REQUEST, "Not in json format.")),
        }
    }

    pub(super) fn of(map: &Map<String, Value>) -> Self {
        Self(map.clone())
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// All keys with their values.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.iter()
    }

    /// The value of a key that must be there.
    pub(super) fn need(&self, key: &str) -> Result<&Value, Refusal> {
        self.get(key).ok_or_else(|| required(key))
    }

    /// Checks that all of these keys are there.
    pub(super) fn need_all(&self, keys: &[&str]) -> Result<(), Refusal> {
        keys.iter().try_for_each(|key| self.need(key).map(drop))
    }

    /// The meaning of a key's value, which must be one of these words.
    pub(super) fn word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Result<T, Refusal> {
        let value = self.need(key)?;
        let found = words.iter().find(|(word, _)| value.as_str() == Some(word));
        found.map(|(_, meaning)| *meaning).ok_or_else(|| invalid(key, value))
    }

    /// The port that a key names.
    pub(super) fn port(&self, key: &str) -> Result<PortId, Refusal> {
        port_of(key, self.need(key)?)
    }

    fn action<T: Copy>(&self, words: [(&str, T); 2]) -> Result<T, Refusal> {
        self.word("action", &words)
    }
}

/// Reads a port. A name in spp-ctl's form that can't exist here is refused with the reason.
pub(super) fn port_of(key: &str, value: &Value) -> Result<PortId, Refusal> {
    let text = value.as_str().ok_or_else(|| invalid(key, value))?;
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let looks_right = text.split_once(':').is_some_and(|(kind, rest)| {
        let (no, queue) = rest.split_once("nq").map_or((rest, None), |(no, queue)| (no, Some(queue)));
        PortType::ALL.iter().any(|known| known.word() == kind) && number(no) && queue.is_none_or(number)
    });
    if !looks_right {
        return Err(invalid(key, value));
    }
    text.parse().map_err(|why| ctl_spp::SppError::Refused(why).into())
}

/// The body of POST `components`.
pub(super) fn start_component(kind: ProcType, body: &Body) -> Result<Change, Refusal> {
    body.need_all(&["name", "core", "type"])?;
    let (name, core) = (body.need("name")?, body.need("core")?);
    let text = name.as_str().ok_or_else(|| invalid("name", name))?;
    let number = core.as_u64().and_then(|core| u32::try_from(core).ok()).ok_or_else(|| invalid("core", core))?;
    let types: &[_] = match kind {
        ProcType::Mirror => &[("mirror", ComponentType::Mirror)],
        _ => &[
            ("forward", ComponentType::Forward),
            ("merge", ComponentType::Merge),
            ("classifier", ComponentType::Classifier),
            // The type's name in 2018.
            ("classifier_mac", ComponentType::Classifier),
        ],
    };
    Ok(Change::StartComponent { name: text.to_owned(), core: number, kind: body.word("type", types)? })
}

/// The body of PUT `components/{name}/ports`.
pub(super) fn component_port(kind: ProcType, name: &str, body: &Body) -> Result<Change, Refusal> {
    body.need_all(&["action", "port", "dir"])?;
    let attach = body.action([("attach", true), ("detach", false)])?;
    let dir = body.word("dir", &[("rx", Dir::Rx), ("tx", Dir::Tx)])?;
    let (name, port) = (name.to_owned(), body.port("port")?);
    if !attach {
        return Ok(Change::Detach { name, dir, port });
    }
    let vlan = match body.get("vlan").filter(|vlan| kind == ProcType::Vf && !is_empty(vlan)) {
        Some(value) => vlan(value).ok_or_else(|| invalid("vlan", value))?,
        None => VlanEdit::None,
    };
    Ok(Change::Attach { name, dir, port, vlan })
}

/// A VLAN operation: `{"operation": "none" | "add" | "del", "id": VID, "pcp": PCP}`. Only `add` needs the numbers.
fn vlan(value: &Value) -> Option<VlanEdit> {
    match value.get("operation")?.as_str()? {
        "none" => Some(VlanEdit::None),
        "del" => Some(VlanEdit::Del),
        "add" => {
            let vid = u16::try_from(whole(value.get("id")?)?).ok()?;
            Some(VlanEdit::Add { vid, pcp: u8::try_from(whole(value.get("pcp")?)?).ok()? })
        }
        _ => None,
    }
}

/// The body of PUT `classifier_table`.
pub(super) fn classifier_table(body: &Body) -> Result<Change, Refusal> {
    body.need_all(&["action", "type", "port", "mac_address"])?;
    let add = body.action([("add", true), ("del", false)])?;
    let tagged = body.word("type", &[("mac", false), ("vlan", true)])?;
    let port = body.port("port")?;
    let address = body.need("mac_address")?;
    let mac = match address.as_str() {
        Some("default") => None,
        Some(text) => Some(text.parse::<MacAddr>().map_err(|_| invalid("mac_address", address))?),
        None => return Err(invalid("mac_address", address)),
    };
    let vlan = if tagged {
        let vlan = body.get("vlan").unwrap_or(&Value::Null);
        Some(whole(vlan).and_then(|vid| u16::try_from(vid).ok()).ok_or_else(|| invalid("vlan", vlan))?)
    } else {
        None
    };
    let key = EntryKey { vlan, mac };
    Ok(if add { Change::AddEntry(Entry { key, port }) } else { Change::DelEntry { key, port: Some(port) } })
}

/// The body of PUT `forward` and `capture`.
pub(super) fn run(body: &Body) -> Result<Change, Refusal> {
    Ok(Change::Run(body.action([("start", true), ("stop", false)])?))
}

/// The body of PUT `ports`, for nfv and the primary.
pub(super) fn port(kind: ProcType, body: &Body) -> Result<Change, Refusal> {
    body.need_all(&["action", "port"])?;
    let add = body.action([("add", true), ("del", false)])?;
    let port = body.port("port")?;
    if !add {
        return Ok(Change::DelPort(port));
    }
    let pipe = kind == ProcType::Primary && port.kind == PortType::Pipe;
    let ring = |key| {
        let value = body.get(key).unwrap_or(&Value::Null);
        port_of(key, value).ok().filter(|port| port.kind == PortType::Ring).ok_or_else(|| invalid(key, value))
    };
    let rings = if pipe { Some((ring("rx")?, ring("tx")?)) } else { None };
    Ok(Change::AddPort { port, rings })
}

/// The body of PUT `patches`.
pub(super) fn patch(body: &Body) -> Result<Change, Refusal> {
    body.need_all(&["src", "dst"])?;
    // spp-ctl's refusals call both ports `port`.
    let port = |key| port_of("port", body.need(key)?);
    Ok(Change::AddPatch(Patch { src: port("src")?, dst: port("dst")? }))
}
