//! Options of netdevs and devices, from a command line (`af-xdp,id=n0,inhibit=on`) or from JSON, with QEMU's messages.

use ::tests::narrow;
use serde_json::{Map, Value};

/// Named values. On a command line all are text. In JSON each must have its type.
#[derive(Clone, Debug)]
pub struct Params {
    values: Map<String, Value>,
    json: bool,
}

impl Params {
    /// Parses a word of the command line. A first part without `=` is the value of `first`. Two commas stand for one in
    /// a value.
    pub fn parse(text: &str, first: &str) -> Result<Self, String> {
        if text.starts_with('{') {
            let values = serde_json::from_str(text).map_err(|error| format!("JSON parse error, {error}"))?;
            return Ok(Self { values, json: true });
        }
        let mut values = Map::new();
        for (at, part) in text.replace(",,", "\0").split(',').enumerate() {
            let part = part.replace('\0', ",");
            let (name, value) = match part.split_once('=') {
                Some(pair) => pair,
                None if at == 0 => (first, part.as_str()),
                None => (part.as_str(), "on"),
            };
            values.insert(name.to_owned(), value.into());
        }
        Ok(Self { values, json: false })
    }

    /// Takes the arguments of a QMP command.
    pub fn json(values: Map<String, Value>) -> Self {
        Self { values, json: true }
    }

    /// The values.
    pub fn values(&self) -> &Map<String, Value> {
        &self.values
    }

    /// The value of a text option.
    pub fn text(&self, name: &str) -> Result<Option<&str>, String> {
        match self.values.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("Invalid parameter type for '{name}', expected: string")),
        }
    }

    /// The value of a text option that must be there.
    pub fn required(&self, name: &str) -> Result<&str, String> {
        self.text(name)?.ok_or_else(|| format!("Parameter '{name}' is missing"))
    }

    /// The value of an on/off option.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, String> {
        match self.values.get(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(Value::String(text)) if !self.json => match text.as_str() {
                "on" | "yes" | "true" | "y" => Ok(Some(true)),
                "off" | "no" | "false" | "n" => Ok(Some(false)),
                _ => Err(format!("Parameter '{name}' expects 'on' or 'off'")),
            },
            Some(_) => Err(format!("Invalid parameter type for '{name}', expected: boolean")),
        }
    }

    /// The value of a numeric option.
    pub fn number(&self, name: &str) -> Result<Option<i64>, String> {
        match self.values.get(name) {
            None => Ok(None),
            Some(Value::Number(number)) if number.is_i64() => Ok(number.as_i64()),
            Some(Value::String(text)) if !self.json => match text.parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(format!("Parameter '{name}' expects an int64 value")),
            },
            Some(_) => Err(format!("Invalid parameter type for '{name}', expected: integer")),
        }
    }

    fn only(&self, known: &[&str]) -> Result<(), String> {
        match self.values.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) if self.json => Err(format!("Parameter '{name}' is unexpected")),
            Some(name) => Err(format!("Invalid parameter '{name}'")),
        }
    }
}

/// QEMU's backends. All but `af-xdp` do nothing here.
pub const BACKENDS: [&str; 10] =
    ["socket", "stream", "dgram", "hubport", "tap", "user", "bridge", "vhost-user", "vhost-vdpa", "af-xdp"];

/// Whether this double acts as a QEMU built with AF_XDP.
pub fn has_af_xdp() -> bool {
    std::env::var_os("QEMU_DOUBLE_NO_AF_XDP").is_none()
}

/// Where the sockets come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sockets {
    /// Names or numbers of descriptors, one for each queue.
    Given(Vec<String>),
    /// The double opens them and puts them into the map pinned at this path, from this index on.
    Map(String, u32),
}

/// A valid af-xdp netdev.
#[derive(Clone, Debug)]
pub struct AfXdp {
    /// Netdev of the host.
    pub ifname: String,
    /// Number of queues.
    pub queues: u32,
    /// First queue of the netdev.
    pub start_queue: u32,
    /// Whether a mode was given. Without one a failed bind is tried again.
    pub mode_given: bool,
    /// Bind without zero copy.
    pub force_copy: bool,
    /// Source of the sockets.
    pub sockets: Sockets,
}

impl AfXdp {
    /// Checks options in QEMU's order.
    pub fn new(params: &Params) -> Result<Self, String> {
        params.only(&[
            "type",
            "id",
            "ifname",
            "mode",
            "force-copy",
            "queues",
            "start-queue",
            "inhibit",
            "sock-fds",
            "map-path",
            "map-start-index",
        ])?;
        let ifname = params.required("ifname")?.to_owned();
        let mode = params.text("mode")?;
        if let Some(mode) = mode
            && !["native", "skb"].contains(&mode)
        {
            return Err(format!("Parameter 'mode' does not accept value '{mode}'"));
        }
        let force_copy = params.flag("force-copy")?.unwrap_or(false);
        let queues = params.number("queues")?.unwrap_or(1);
        let start_queue = params.number("start-queue")?.unwrap_or(0).max(0);
        let inhibit = params.flag("inhibit")?.unwrap_or(false);
        let (sock_fds, map_path) = (params.text("sock-fds")?, params.text("map-path")?);
        let map_start = params.number("map-start-index")?;
        super::xsk::ifindex(&ifname)
            .map_err(|error| format!("failed to get ifindex for '{ifname}': {}", super::xsk::text(&error)))?;
        if queues < 1 {
            return Err(format!("invalid number of queues ({queues}) for '{ifname}'"));
        }
        if inhibit && sock_fds.is_none() && map_path.is_none() {
            return Err("'inhibit=on' requires 'sock-fds' or 'map-path'".to_owned());
        }
        if !inhibit && (sock_fds.is_some() || map_path.is_some()) {
            return Err("'sock-fds' and 'map-path' require 'inhibit=on'".to_owned());
        }
        if sock_fds.is_some() && map_path.is_some() {
            return Err("'sock-fds' and 'map-path' are mutually exclusive".to_owned());
        }
        if map_path.is_none() && map_start.is_some() {
            return Err("'map-start-index' requires 'map-path'".to_owned());
        }
        let map_start = map_start.unwrap_or(0);
        if map_start < 0 {
            return Err(format!("'map-start-index' cannot be negative ({map_start})"));
        }
        let sockets = match (sock_fds, map_path) {
            (Some(fds), _) => {
                let fds: Vec<String> = fds.split(':').map(str::to_owned).collect();
                if i64::try_from(fds.len()) != Ok(queues) {
                    return Err(format!("expected {queues} socket fds, got {}", fds.len()));
                }
                Sockets::Given(fds)
            }
            (None, Some(path)) => Sockets::Map(path.to_owned(), narrow(map_start)),
            (None, None) => return Err("the double loads no XDP program: it needs 'inhibit=on'".to_owned()),
        };
        let (queues, start_queue) = (narrow(queues), narrow(start_queue));
        Ok(Self { ifname, queues, start_queue, mode_given: mode.is_some(), force_copy, sockets })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_split_at_commas_that_are_not_doubled() {
        let params = Params::parse("af-xdp,id=a,,b,inhibit,queues=2", "type").unwrap();
        assert_eq!(params.required("type").unwrap(), "af-xdp");
        assert_eq!(params.required("id").unwrap(), "a,b");
        assert_eq!((params.flag("inhibit").unwrap(), params.number("queues").unwrap()), (Some(true), Some(2)));
        assert_eq!(params.required("ifname").unwrap_err(), "Parameter 'ifname' is missing");
    }

    #[test]
    fn json_values_must_have_their_type() {
        let params = Params::parse(r#"{"inhibit": "on", "queues": 1}"#, "type").unwrap();
        assert!(params.flag("inhibit").unwrap_err().contains("expected: boolean"));
        assert_eq!(params.number("queues").unwrap(), Some(1));
    }
}
