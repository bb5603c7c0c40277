//! A client of QEMU's monitor protocol (QMP): JSON lines over a Unix socket.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::wait;

/// How long QEMU may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection in command mode.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    pending: Vec<u8>,
    events: VecDeque<Value>,
}

impl Qmp {
    /// Connects to the monitor at `path`, which may still be in the making, and says hello.
    pub fn connect(path: &Path) -> Self {
        let stream = wait::until(PATIENCE, || UnixStream::connect(path).ok());
        let stream = stream.unwrap_or_else(|| panic!("nothing listens at {}", path.display()));
        let mut qmp = Self { stream, pending: Vec::new(), events: VecDeque::new() };
        let greeting = qmp.message(Instant::now() + PATIENCE).expect("a greeting of QEMU");
        assert!(greeting.get("QMP").is_some(), "no greeting of QEMU: {greeting}");
        qmp.execute("qmp_capabilities", json!({})).expect("command mode");
        qmp
    }

    /// Executes a command; gives what it returns, or the text of its error.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, String> {
        let line = json!({ "execute": command, "arguments": arguments }).to_string() + "\n";
        self.stream.write_all(line.as_bytes()).map_err(|error| error.to_string())?;
        let end = Instant::now() + PATIENCE;
        loop {
            let mut message = self.message(end).ok_or_else(|| format!("no answer to {command}"))?;
            if message.get("event").is_some() {
                self.events.push_back(message);
            } else if message.get("error").is_some() {
                return Err(message["error"]["desc"].as_str().unwrap_or_default().to_owned());
            } else {
                return Ok(message["return"].take());
            }
        }
    }

    /// Takes the next event of a name, of those that came and were not yet taken; waits for it until `timeout` is over.
    pub fn wait_event(&mut self, name: &str, timeout: Duration) -> Option<Value> {
        let end = Instant::now() + timeout;
        loop {
            if let Some(at) = self.events.iter().position(|event| event["event"] == name) {
                return self.events.remove(at);
            }
            let message = self.message(end)?;
            self.events.push_back(message);
        }
    }

    /// The next line; none when QEMU hangs up or `end` is past.
    fn message(&mut self, end: Instant) -> Option<Value> {
        loop {
            if let Some(length) = self.pending.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=length).collect();
                return Some(serde_json::from_slice(&line).expect("JSON of QEMU"));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.stream.set_read_timeout(Some(left)).expect("a timeout");
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(length) => self.pending.extend_from_slice(&buffer[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => return None,
            }
        }
    }
}
