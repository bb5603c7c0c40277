//! Client of QEMU's monitor protocol (QMP): one connection over a Unix socket, one command at a time.
//!
//! QMP is a stream of JSON objects, each followed by a newline. A greeting comes first, then an answer to each command.
//! Events may come at any time, and are kept until somebody waits for them. Descriptors travel with the bytes of a
//! command.
//!
//! The peer may be any program that listens on the path. Therefore every wait has a deadline, and both the length of a
//! message and the number of kept events are limited.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    connect, sendmsg, socket_with,
};
use serde_json::{Value, json};

/// Longest message that is accepted, in bytes.
const MAX_MESSAGE: usize = 256 << 10;
/// Limit of kept events. The oldest are dropped first.
const MAX_EVENTS: usize = 64;
/// Most descriptors sent with a command.
const MAX_FDS: usize = 16;

/// Time limits for the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For the greeting. It comes at once unless another client is connected.
    pub greeting: Duration,
    /// For the answer to a command.
    pub answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { greeting: Duration::from_secs(5), answer: Duration::from_secs(30) }
    }
}

/// A failure of the connection, or a refusal by QEMU.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// Nobody listens on the socket.
    #[error(
        "no QEMU answers at {path} ({why}): start it with `-qmp unix:{path},server=on,wait=off`, or name the socket that \
         it has"
    )]
    Absent {
        /// Socket.
        path: PathBuf,
        /// Reason.
        why: io::Error,
    },
    /// This user may not use the socket.
    #[error("{path} may not be used by this user: run as root or as the user that QEMU runs as")]
    Forbidden {
        /// Socket.
        path: PathBuf,
    },
    /// The peer sends no greeting, because it serves another client.
    #[error(
        "nothing comes from {path}: QEMU serves one client of a QMP socket at a time, so another is probably connected; end \
         that one, or give QEMU a second `-qmp` socket"
    )]
    Taken {
        /// Socket.
        path: PathBuf,
    },
    /// The peer does not speak QMP.
    #[error(
        "what answers at {path} does not speak QMP ({why}): name QEMU's QMP socket, not one of a human monitor or console"
    )]
    NotQmp {
        /// Socket.
        path: PathBuf,
        /// What is wrong with its messages.
        why: String,
    },
    /// QEMU rejected a command.
    #[error("QEMU refuses {command}: {desc}")]
    Refused {
        /// Command.
        command: String,
        /// QEMU's class of the error, `GenericError` for most.
        class: String,
        /// QEMU's description of the error.
        desc: String,
    },
    /// QEMU did not answer in time.
    #[error("QEMU has not answered {command} within {seconds} s")]
    Silent {
        /// Command.
        command: String,
        /// Time waited, in seconds.
        seconds: u64,
    },
    /// QEMU closed the connection.
    #[error("QEMU closed the QMP connection: it has ended or is about to")]
    Closed,
    /// The connection broke.
    #[error("the QMP connection broke: {0}")]
    Connection(io::Error),
    /// A message breaks the protocol.
    #[error("what came on the QMP connection can't be understood: {0}")]
    Garbled(String),
}

impl QmpError {
    /// Whether QEMU rejected the command, and so has changed nothing.
    pub fn is_refusal(&self) -> bool {
        matches!(self, QmpError::Refused { .. })
    }

    /// Whether the object of the command does not exist in QEMU.
    pub fn is_not_found(&self) -> bool {
        match self {
            QmpError::Refused { class, desc, .. } => class == "DeviceNotFound" || desc.ends_with("not found"),
            _ => false,
        }
    }

    fn of_connection(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => QmpError::Closed,
            _ => QmpError::Connection(error),
        }
    }
}

/// An asynchronous message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its name.
    pub name: String,
    /// Its data, or null.
    pub data: Value,
}

/// A connection that has negotiated its capabilities and accepts commands.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    patience: Patience,
    version: (u64, u64, u64),
    received: Vec<u8>,
    /// Whether `received` may contain a whole message.
    fresh: bool,
    events: VecDeque<Event>,
    /// Id of the last command.
    last: u64,
}

impl Qmp {
    /// Connects to a QEMU's QMP socket.
    pub fn connect(path: &Path) -> Result<Self, QmpError> {
        Self::connect_with(path, Patience::default())
    }

    /// As [`Qmp::connect`], with other time limits.
    pub fn connect_with(path: &Path, patience: Patience) -> Result<Self, QmpError> {
        let deadline = Instant::now() + patience.greeting;
        let open = || -> io::Result<UnixStream> {
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            // `connect` blocks while QEMU's backlog is full. The send timeout bounds that.
            set_socket_timeout(&socket, Timeout::Send, Some(patience.greeting.max(Duration::from_millis(1))))?;
            connect(&socket, &SocketAddrUnix::new(path)?)?;
            let stream = UnixStream::from(socket);
            stream.set_nonblocking(true)?;
            Ok(stream)
        };
        let stream = open().map_err(|why| match why.kind() {
            io::ErrorKind::PermissionDenied => QmpError::Forbidden { path: path.to_owned() },
            io::ErrorKind::WouldBlock => QmpError::Taken { path: path.to_owned() },
            _ => QmpError::Absent { path: path.to_owned(), why },
        })?;
        let mut qmp = Self {
            stream,
            patience,
            version: (0, 0, 0),
            received: Vec::new(),
            fresh: false,
            events: VecDeque::new(),
            last: 0,
        };
        let not_qmp = |why: String| QmpError::NotQmp { path: path.to_owned(), why };
        let greeting = match qmp.message(deadline) {
            Ok(Some(greeting)) => greeting,
            Ok(None) if qmp.received.is_empty() => return Err(QmpError::Taken { path: path.to_owned() }),
            Ok(None) => return Err(not_qmp("no whole message came".to_owned())),
            Err(QmpError::Garbled(why)) => return Err(not_qmp(why)),
            Err(QmpError::Closed) => return Err(not_qmp("it closed the connection at once".to_owned())),
            Err(error) => return Err(error),
        };
        let Some(qemu) = greeting.pointer("/QMP/version/qemu") else {
            return Err(not_qmp("its greeting is not QMP's".to_owned()));
        };
        let part = |name: &str| qemu[name].as_u64().unwrap_or(0);
        qmp.version = (part("major"), part("minor"), part("micro"));
        qmp.execute("qmp_capabilities", Value::Null)?;
        Ok(qmp)
    }

    /// QEMU's version.
    pub fn version(&self) -> (u64, u64, u64) {
        self.version
    }

    /// The process that listens on the socket, or `None` if it is in a PID namespace out of sight. It is QEMU, unless
    /// QEMU inherited the listening socket, as under libvirt.
    pub fn peer(&self) -> Option<i32> {
        let credentials =
            nix::sys::socket::getsockopt(&self.stream, nix::sys::socket::sockopt::PeerCredentials).ok()?;
        Some(credentials.pid()).filter(|pid| *pid > 0)
    }

    /// Executes a command and returns its result. Null stands for no arguments.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        self.execute_with(command, arguments, &[])
    }

    /// As [`Qmp::execute`], with descriptors attached (for `getfd`).
    pub fn execute_with(&mut self, command: &str, arguments: Value, fds: &[BorrowedFd<'_>]) -> Result<Value, QmpError> {
        let deadline = Instant::now() + self.patience.answer;
        let silent = || QmpError::Silent { command: command.to_owned(), seconds: self.patience.answer.as_secs() };
        self.last += 1;
        let mut message = json!({ "execute": command, "id": self.last });
        if !arguments.is_null() {
            message["arguments"] = arguments;
        }
        if !self.send(format!("{message}\n").as_bytes(), fds, deadline)? {
            return Err(silent());
        }
        loop {
            let Some(answer) = self.message(deadline)? else {
                return Err(QmpError::Silent { command: command.to_owned(), seconds: self.patience.answer.as_secs() });
            };
            if self.keep_event(&answer) {
                continue;
            }
            // A late answer to an earlier command that timed out.
            if answer.get("id").is_some_and(|id| id.as_u64() != Some(self.last)) {
                continue;
            }
            if let Some(error) = answer.get("error") {
                let text = |name: &str| error[name].as_str().unwrap_or("unknown").to_owned();
                return Err(QmpError::Refused {
                    command: command.to_owned(),
                    class: text("class"),
                    desc: text("desc"),
                });
            }
            return match answer.get("return") {
                Some(value) => Ok(value.clone()),
                None => Err(QmpError::Garbled(format!("neither an answer nor an event: {}", shortened(&answer)))),
            };
        }
    }

    /// The first event, kept or future, that has one of these names and whose data `is_it` accepts. `None` at the
    /// deadline.
    pub fn wait_event(
        &mut self,
        names: &[&str],
        is_it: impl Fn(&Value) -> bool,
        deadline: Instant,
    ) -> Result<Option<Event>, QmpError> {
        let wanted = |event: &Event| names.contains(&event.name.as_str()) && is_it(&event.data);
        loop {
            if let Some(at) = self.events.iter().position(wanted) {
                return Ok(self.events.remove(at));
            }
            match self.message(deadline)? {
                Some(message) => drop(self.keep_event(&message)),
                None => return Ok(None),
            }
        }
    }

    /// Keeps a message if it is an event. Returns whether it is.
    fn keep_event(&mut self, message: &Value) -> bool {
        let Some(name) = message.get("event").and_then(Value::as_str) else { return false };
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        let data = message.get("data").cloned().unwrap_or_default();
        self.events.push_back(Event { name: name.to_owned(), data });
        true
    }

    /// Sends all bytes, with the descriptors attached to the first one. False if the socket stayed full until the
    /// deadline.
    fn send(&self, mut bytes: &[u8], mut fds: &[BorrowedFd<'_>], deadline: Instant) -> Result<bool, QmpError> {
        while !bytes.is_empty() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
                return Err(QmpError::Connection(io::ErrorKind::InvalidInput.into()));
            }
            match sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    bytes = &bytes[sent..];
                    fds = &[];
                }
                Err(rustix::io::Errno::AGAIN) => {
                    if !self.wait(PollFlags::OUT, deadline)? {
                        return Ok(false);
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(QmpError::of_connection(errno.into())),
            }
        }
        Ok(true)
    }

    /// The next message, or `None` at the deadline.
    fn message(&mut self, deadline: Instant) -> Result<Option<Value>, QmpError> {
        loop {
            if let Some(message) = self.whole_message()? {
                return Ok(Some(message));
            }
            if self.received.len() > MAX_MESSAGE {
                return Err(QmpError::Garbled(format!("a message is longer than {MAX_MESSAGE} bytes")));
            }
            if !self.wait(PollFlags::IN, deadline)? {
                return Ok(None);
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(QmpError::Closed),
                Ok(count) => {
                    // Every message ends with a newline, so parsing again is useless until one more arrives.
                    self.fresh |= bytes[..count].contains(&b'\n');
                    self.received.extend_from_slice(&bytes[..count]);
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(QmpError::of_connection(error)),
            }
        }
    }

    /// Removes the first message from the received bytes.
    fn whole_message(&mut self) -> Result<Option<Value>, QmpError> {
        if !self.fresh {
            return Ok(None);
        }
        let mut messages = serde_json::Deserializer::from_slice(&self.received).into_iter::<Value>();
        match messages.next() {
            Some(Ok(message)) => {
                let end = messages.byte_offset();
                self.received.drain(..end);
                if message.is_object() {
                    return Ok(Some(message));
                }
                Err(QmpError::Garbled(format!("not an object: {}", shortened(&message))))
            }
            Some(Err(error)) if error.is_eof() => {
                self.fresh = false;
                Ok(None)
            }
            Some(Err(error)) => Err(QmpError::Garbled(format!("not JSON: {error}"))),
            None => {
                self.fresh = false;
                self.received.clear();
                Ok(None)
            }
        }
    }

    /// Waits until the socket is ready. False at the deadline.
    fn wait(&self, flags: PollFlags, deadline: Instant) -> Result<bool, QmpError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&self.stream.as_fd(), flags)], Some(&timeout)) {
                Ok(ready) => return Ok(ready > 0 && !left.is_zero()),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(QmpError::Connection(errno.into())),
            }
        }
    }
}

fn shortened(value: &Value) -> String {
    value.to_string().chars().take(80).collect()
}

#[cfg(test)]
mod tests;
