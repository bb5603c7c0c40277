//! The hand-over protocol: what is said on `fds.sock`, and how it is put on the wire.
//!
//! The socket is a Unix socket of type SEQPACKET. A request is one message of JSON, its answer is another, with the sockets as
//! ancillary data (`SCM_RIGHTS`). Who asks is known by `SO_PEERCRED`. A connection may be used for any number of requests,
//! one after the other.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use ctl_types::ErrorBody;
use model::{MAX_QUEUES, MacAddr, Mode};

/// Name of the socket in the run directory.
pub const SOCKET: &str = "fds.sock";
/// Longest message, in bytes.
pub const MAX_MESSAGE: usize = 4096;
/// Most descriptors with a message: a socket a queue, and a network namespace.
const MAX_FDS: usize = MAX_QUEUES as usize + 1;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The sockets of a port, in queue order, for a process that will bind them.
    Sockets {
        /// Port, by name or number.
        port: String,
        /// The process; default: the one that asks. Another's must be the same user's unless root asks.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pid: Option<i32>,
        /// Whether a descriptor of the port's network namespace is wanted too, behind the sockets; default false.
        #[serde(default)]
        netns: bool,
    },
    /// The same without the sockets; changes nothing, unless `open` is true.
    Describe {
        /// Port, by name or number.
        port: String,
        /// Whether the guest's end is opened, from when on no kernel stack there gets the port's packets; default false.
        #[serde(default)]
        open: bool,
    },
    /// The sockets of a port are not used any more, though the process lives that got them.
    Release {
        /// Port, by name or number.
        port: String,
        /// Whether the sockets get no packets from now on, though the process still has them; what is bound stays so until it
        /// ends. For root and the daemon's user only; default false.
        #[serde(default)]
        force: bool,
    },
}

impl Request {
    /// The port that it is about.
    pub fn port(&self) -> &str {
        match self {
            Request::Sockets { port, .. } | Request::Describe { port, .. } | Request::Release { port, .. } => port,
        }
    }
}

/// What a guest's process needs to know of its port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Name of the port.
    pub port: String,
    /// Its number.
    pub vport: u16,
    /// Netdev to bind to: the guest's end of the port.
    pub ifname: String,
    /// Named network namespace that it is in; absent: that of the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// MAC address that the guest's network card is to have.
    pub mac: MacAddr,
    /// Layer 3 MTU in bytes.
    pub mtu: u32,
    /// XDP mode in force on the netdev, or, as long as it is not open, that on the switch's end; QEMU calls generic mode `skb`.
    pub mode: Mode,
    /// Queues, 0 to `queues` − 1 of the netdev, each with a socket of its own.
    pub queues: u32,
    /// `RLIMIT_MEMLOCK` that QEMU needs, in bytes: the kernel counts the packet memory of all sockets of a user against it.
    pub memlock: u64,
    /// Path of the pinned XSKMAP, for a privileged QEMU that makes its sockets itself (`map-path`, QEMU 10.1 and later); the
    /// slot of a queue has the queue's number. Absent as long as the guest's end is not open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map_path: Option<String>,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// It was done.
    Done(Offer),
    /// It was not.
    Refused(ErrorBody),
}

/// Packs a message.
pub fn encode(message: &impl Serialize) -> Vec<u8> {
    // Plain data with text keys: it can always be written as JSON.
    serde_json::to_vec(message).unwrap_or_default()
}

/// Unpacks a message; the error says what is wrong with it.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

/// Sends one message with descriptors.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one message with its descriptors; an empty one is the end of the connection.
///
/// # Errors
/// Also if it is longer than [`MAX_MESSAGE`], or has more descriptors than any has.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; MAX_MESSAGE];
    let received =
        recvmsg(socket.as_fd(), &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    // Whatever came is owned from here on, and closed on an error.
    let fds = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    let too_much = if received.flags.contains(ReturnFlags::TRUNC) {
        Some(format!("a message is longer than {MAX_MESSAGE} bytes"))
    } else if received.flags.contains(ReturnFlags::CTRUNC) {
        Some(format!("a message has more than {MAX_FDS} descriptors"))
    } else {
        None
    };
    if let Some(why) = too_much {
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    bytes.truncate(received.bytes);
    Ok((bytes, fds))
}
