//! A guest like QEMU's af-xdp netdev: the program `xsk-guest`, with an AF_XDP socket on the guest's end of a port.
//!
//! The program is built on xsk-rs, which the switch does not use. It has a workspace of its own, `tests/xsk`.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use crate::daemon::Guest;
use crate::packet::Frame;
use crate::programs;

/// A running guest.
#[derive(Debug)]
pub struct XskGuest {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl XskGuest {
    /// Starts it on queue 0 of a guest's netdev.
    pub fn open(guest: &Guest) -> Self {
        let mut command = guest.ns.command(programs::xsk("xsk-guest"));
        command.arg(&guest.ifname).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("xsk-guest starts");
        let (input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut this = Self { child, input, output: BufReader::new(output) };
        assert_eq!(this.line(), "ready", "an AF_XDP socket on the guest's end");
        this
    }

    /// The next line of its output. Empty if it has ended. The reason is on standard error then.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("its output is text");
        line.trim_end().to_owned()
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").expect("xsk-guest runs");
        self.line()
    }

    /// Sends a frame.
    pub fn send(&mut self, frame: &Frame) {
        assert_eq!(self.ask(&format!("send {}", frame.hex())), "ok");
    }

    /// The next frame, or `None` after `timeout`.
    pub fn recv(&mut self, timeout: Duration) -> Option<Frame> {
        let answer = self.ask(&format!("recv {}", timeout.as_millis()));
        (answer != "none").then(|| Frame::from_hex(&answer).unwrap_or_else(|| panic!("no frame: `{answer}`")))
    }
}

impl Drop for XskGuest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
