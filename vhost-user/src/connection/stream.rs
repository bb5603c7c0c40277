//! The stream of messages.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use thiserror::Error;

use super::receive::receive;
use crate::message::{Assembler, Malformed, Message, Reply};

/// Why a connection is over.
#[derive(Debug, Error)]
pub enum Ended {
    /// The front end has closed it, between two messages.
    #[error("the front end has closed the connection")]
    Closed,
    /// The front end has closed it within a message.
    #[error("the front end has closed the connection within a message")]
    Cut,
    /// What came is no message.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Descriptors were lost, because the process has too many open.
    #[error("descriptors that the front end has sent were lost: too many files are open")]
    DescriptorsLost,
    /// A request was refused, and the front end could not be told, or the device can't go on.
    #[error("{0}")]
    Refused(String),
    /// The kernel's error.
    #[error("the connection has failed: {0}")]
    Io(#[from] Errno),
}

/// A stream of messages from a front end.
///
/// What it keeps is bounded: one message that is not complete, with eight descriptors, and one reply.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    assembler: Assembler,
    unsent: Unsent,
}

/// What is left of a reply.
#[derive(Debug, Default)]
struct Unsent {
    bytes: Vec<u8>,
    at: usize,
    /// Goes with the first byte.
    fd: Option<OwnedFd>,
}

impl Unsent {
    fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }
}

impl From<UnixStream> for Connection {
    fn from(stream: UnixStream) -> Self {
        Self::new(stream.into())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Connection {
    /// A connection over a stream socket. No call on it waits, whatever the socket's mode is.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, assembler: Assembler::default(), unsent: Unsent::default() }
    }

    /// What to wait for: messages, or room for the rest of a reply.
    pub fn events(&self) -> PollFlags {
        if self.unsent.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLOUT }
    }

    /// The next message. `None` if it is not complete yet, or if a reply has to go first.
    ///
    /// # Errors
    /// If the connection is over.
    pub fn next_message(&mut self) -> Result<Option<Message>, Ended> {
        if !self.flush()? {
            return Ok(None);
        }
        loop {
            let received = match receive(self.socket.as_fd(), self.assembler.room()) {
                Ok(received) => received,
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => continue,
                Err(Errno::ECONNRESET) => return Err(self.end()),
                Err(errno) => return Err(errno.into()),
            };
            if received.lost {
                return Err(Ended::DescriptorsLost);
            }
            if received.count == 0 {
                return Err(self.end());
            }
            if let Some(message) = self.assembler.advance(received.count, received.fds)? {
                return Ok(Some(message));
            }
        }
    }

    fn end(&self) -> Ended {
        if self.assembler.is_between_messages() { Ended::Closed } else { Ended::Cut }
    }

    /// Sends a reply, or keeps what the front end does not take now.
    ///
    /// # Errors
    /// If the connection is over, or with EBUSY if the last reply is not gone yet. No message is read before it is, so
    /// that can't be after [`Connection::next_message`] gave one.
    pub fn send(&mut self, reply: Reply) -> Result<(), Ended> {
        if !self.flush()? {
            return Err(Errno::EBUSY.into());
        }
        self.unsent = Unsent { bytes: reply.bytes, at: 0, fd: reply.fd };
        self.flush().map(drop)
    }

    /// Sends what is left of the last reply. Is it gone?
    ///
    /// # Errors
    /// If the connection is over.
    pub fn flush(&mut self) -> Result<bool, Ended> {
        while !self.unsent.is_empty() {
            let rest = [IoSlice::new(&self.unsent.bytes[self.unsent.at..])];
            let number = self.unsent.fd.as_ref().map(AsRawFd::as_raw_fd);
            let control = number.as_slice();
            let rights = [ControlMessage::ScmRights(control)];
            let rights = if control.is_empty() { &rights[..0] } else { &rights[..] };
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match sendmsg::<()>(self.socket.as_raw_fd(), &rest, rights, flags, None) {
                Ok(count) => {
                    self.unsent.at += count;
                    self.unsent.fd = None;
                }
                Err(Errno::EAGAIN) => return Ok(false),
                Err(Errno::EINTR) => {}
                Err(Errno::EPIPE | Errno::ECONNRESET) => return Err(self.end()),
                Err(errno) => return Err(errno.into()),
            }
        }
        self.unsent = Unsent::default();
        Ok(true)
    }

    /// The front end is gone, even if messages of it are still to be read. A server asks before it turns the next
    /// front end away.
    pub fn is_hung_up(&self) -> bool {
        // The kernel tells of a hang-up unasked.
        let mut sockets = [PollFd::new(self.socket.as_fd(), PollFlags::empty())];
        poll(&mut sockets, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }
}
