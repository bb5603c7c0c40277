//! Requests to the front end.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockaddrLike, SockaddrStorage, getsockname, sendmsg};

use crate::message::config_change;

/// The socket of `SET_BACKEND_REQ_FD`.
///
/// Requests are sent without a wish for a reply, so nothing is ever read from it. A front end that reads nothing fills
/// the socket's buffer, and then its requests are lost. Nobody waits for it.
#[derive(Clone, Debug)]
pub struct BackendChannel(Arc<OwnedFd>);

impl From<Arc<OwnedFd>> for BackendChannel {
    fn from(socket: Arc<OwnedFd>) -> Self {
        Self(socket)
    }
}

impl BackendChannel {
    /// Tells that the configuration space has changed. The front end reads it again.
    ///
    /// # Errors
    /// If the front end does not read, is gone, or has given something else than a Unix socket. A TCP socket, for one,
    /// can be locked for ever by another sender whose memory is not there (userfaultfd(2)).
    pub fn config_changed(&self) -> Result<(), Errno> {
        let address: SockaddrStorage = getsockname(self.0.as_raw_fd())?;
        if address.family() != Some(AddressFamily::Unix) {
            return Err(Errno::EAFNOSUPPORT);
        }
        let request = config_change();
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let sent = sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(&request)], &[], flags, None)?;
        // The kernel takes so short a message whole, or not at all.
        if sent == request.len() { Ok(()) } else { Err(Errno::EPIPE) }
    }
}
