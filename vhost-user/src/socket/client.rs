//! The client side.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, socket};
use thiserror::Error;

use crate::connection::Connection;

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ConnectError {
    /// Nobody listens there yet, or too many wait. It is worth another try.
    #[error("nobody listens there: {0}")]
    Absent(Errno),
    /// Another try is not going to help: a permission, or a path that is too long.
    #[error("connecting failed: {0}")]
    Failed(Errno),
}

/// Connects to the front end that listens there. Does not wait.
///
/// # Errors
/// If nobody takes the connection now.
pub fn connect(path: &Path) -> Result<Connection, ConnectError> {
    let address = UnixAddr::new(path).map_err(ConnectError::Failed)?;
    let socket = stream_socket().map_err(ConnectError::Failed)?;
    match nix::sys::socket::connect(socket.as_raw_fd(), &address) {
        Ok(()) => Ok(Connection::new(socket)),
        // No file, nobody behind the file, or a backlog that is full.
        Err(errno @ (Errno::ENOENT | Errno::ECONNREFUSED | Errno::EAGAIN)) => Err(ConnectError::Absent(errno)),
        Err(errno) => Err(ConnectError::Failed(errno)),
    }
}

/// A stream socket on which no call waits.
pub(super) fn stream_socket() -> Result<OwnedFd, Errno> {
    socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
}
