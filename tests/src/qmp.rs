//! A client of QEMU's monitor protocol (QMP): JSON lines over a Unix socket.

use std::io::{BufRead, BufReader, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};

use crate::wait;

/// Longest time for QEMU's answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A QMP client with what tests need.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
    /// Events that came so far.
    pub events: Vec<Value>,
}

impl Qmp {
    /// Connects to the monitor at `path` and negotiates. The socket may not exist yet.
    pub fn connect(path: &Path) -> Self {
        let stream = wait::until(PATIENCE, || UnixStream::connect(path).ok()).expect("the monitor listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut qmp = Self { stream: BufReader::new(stream), events: Vec::new() };
        let greeting = qmp.message();
        assert!(greeting["QMP"]["version"]["qemu"]["major"].is_u64(), "{greeting}");
        qmp.ok("qmp_capabilities", Value::Null);
        qmp
    }

    fn message(&mut self) -> Value {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("the monitor speaks");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// Executes a command and returns the whole answer. `fd` is sent with it.
    pub fn execute(&mut self, command: &str, arguments: Value, fd: Option<RawFd>) -> Value {
        let mut request = json!({ "execute": command, "id": command });
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        let text = format!("{request}\n");
        let fds: Vec<RawFd> = fd.into_iter().collect();
        let control = [ControlMessage::ScmRights(&fds)];
        let control = if fds.is_empty() { &control[..0] } else { &control[..] };
        let socket = self.stream.get_ref().as_raw_fd();
        let sent = sendmsg::<()>(socket, &[IoSlice::new(text.as_bytes())], control, MsgFlags::MSG_NOSIGNAL, None);
        assert_eq!(sent.expect("the monitor hears"), text.len());
        loop {
            let message = self.message();
            if message.get("event").is_none() {
                assert_eq!(message["id"], command, "{message}");
                return message;
            }
            self.events.push(message);
        }
    }

    /// Executes a command that must succeed.
    pub fn ok(&mut self, command: &str, arguments: Value) -> Value {
        let answer = self.execute(command, arguments, None);
        answer.get("return").cloned().unwrap_or_else(|| panic!("{command}: {answer}"))
    }

    /// Executes a command that must fail. Returns class and description.
    pub fn fails(&mut self, command: &str, arguments: Value) -> (String, String) {
        let answer = self.execute(command, arguments, None);
        let text = |field: &str| answer["error"][field].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        (text("class"), text("desc"))
    }

    /// Gives the monitor a descriptor by name.
    pub fn getfd(&mut self, name: &str, fd: &OwnedFd) {
        let answer = self.execute("getfd", json!({ "fdname": name }), Some(fd.as_raw_fd()));
        assert!(answer.get("return").is_some(), "{answer}");
    }

    /// Waits for an event with that field in its data.
    pub fn event(&mut self, name: &str, field: &str, value: &str) {
        let wanted = |event: &Value| event["event"] == name && event["data"][field] == value;
        while !self.events.iter().any(wanted) {
            let message = self.message();
            self.events.push(message);
        }
    }
}
