//! The hand-over protocol: messages on `fds.sock`, and their encoding.
//!
//! `fds.sock` is a Unix socket of type SEQPACKET. A request is one JSON message. The answer is another one, with the
//! sockets as ancillary data (`SCM_RIGHTS`). `SO_PEERCRED` identifies the client. A connection may carry any number of
//! requests, one after the other.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ctl_types::ErrorBody;
use model::{MacAddr, Mode};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Name of the socket in the run directory.
pub const SOCKET: &str = "fds.sock";
/// Longest message, in bytes.
pub const MAX_MESSAGE: usize = 4096;
/// Most descriptors in a message (`SCM_MAX_FD` of the kernel).
const MAX_FDS: usize = 253;
/// Most sockets that a process can be handed: those of a message, less one for a network namespace.
pub const MAX_SOCKETS: u32 = 252;
const _: () = assert!(MAX_SOCKETS as usize + 1 == MAX_FDS);

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The sockets of a port, in queue order, for a process that will bind them.
    Sockets {
        /// Port, by name or number.
        port: String,
        /// The process. By default it is the client itself. Another one must belong to the same user, unless root asks.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pid: Option<i32>,
        /// Whether to append a descriptor of the port's network namespace. Default false.
        #[serde(default)]
        netns: bool,
    },
    /// Describes a port without handing over its sockets. Changes nothing unless `open` is true.
    Describe {
        /// Port, by name or number.
        port: String,
        /// Whether to open the guest's end. From then on no kernel stack there gets the port's packets. Default false.
        #[serde(default)]
        open: bool,
    },
    /// Declares the sockets of a port unused, although the process that got them still lives.
    Release {
        /// Port, by name or number.
        port: String,
        /// Whether to do so even if the process still has them. They get no packets from then on, and bound ones stay
        /// bound until the process ends. Only root and the daemon's user may do this. Default false.
        #[serde(default)]
        force: bool,
    },
}

impl Request {
    /// The port of the request, by name or number.
    pub fn port(&self) -> &str {
        match self {
            Request::Sockets { port, .. } | Request::Describe { port, .. } | Request::Release { port, .. } => port,
        }
    }
}

/// A port's properties that a guest process needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Name of the port.
    pub port: String,
    /// Its number.
    pub vport: u16,
    /// Netdev to bind to, which is the guest's end of the port.
    pub ifname: String,
    /// Named network namespace of that netdev. If absent, it is the daemon's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// MAC address for the guest's card.
    pub mac: MacAddr,
    /// Layer 3 MTU in bytes.
    pub mtu: u32,
    /// XDP mode of the netdev, or of the switch's end as long as the netdev is not open. QEMU calls generic mode `skb`.
    pub mode: Mode,
    /// Number of queues. Queues 0 to `queues` − 1 of the netdev have a socket each.
    pub queues: u32,
    /// `RLIMIT_MEMLOCK` that QEMU needs, in bytes. The kernel counts the packet memory of all sockets of a user against
    /// it.
    pub memlock: u64,
    /// Path of the pinned XSKMAP, whose slots are numbered as the queues. A privileged QEMU 10.1 or later can create
    /// its sockets itself with it (`map-path`). Absent as long as the guest's end is not open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map_path: Option<String>,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// The request was carried out.
    Done(Offer),
    /// The request was refused.
    Refused(ErrorBody),
}

/// Encodes a message.
pub fn encode(message: &impl Serialize) -> Vec<u8> {
    // Plain data with text keys always serializes.
    serde_json::to_vec(message).unwrap_or_default()
}

/// Decodes a message. The error says what is wrong with it.
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

/// Receives one message with its descriptors. An empty message is the end of the connection.
///
/// # Errors
/// `InvalidData` if the message is longer than [`MAX_MESSAGE`] or has too many descriptors, otherwise the kernel's
/// error.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; MAX_MESSAGE];
    let received =
        recvmsg(socket.as_fd(), &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    // The descriptors are owned from here on, so an error closes them.
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
