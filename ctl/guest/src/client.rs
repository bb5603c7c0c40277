//! Client of the hand-over socket, as used by launchers of guests.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ctl_types::ErrorBody;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::protocol::{Answer, Offer, Request, SOCKET, decode, encode, receive, send};

/// Time limit for the daemon's answer. The daemon may have to wait until the kernel frees a queue.
const PATIENCE: Duration = Duration::from_secs(30);

/// A failure of the connection, or a refusal by the daemon.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// Nobody listens on the socket.
    #[error("no daemon answers at {path}: start xswitchd, or name its directory by --run-dir")]
    NoDaemon {
        /// Socket.
        path: PathBuf,
        /// Reason.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to the daemon broke")]
    Connection(#[from] io::Error),
    /// The answer can't be decoded.
    #[error("the daemon's answer can't be understood ({0}): are both of one version?")]
    Answer(String),
    /// The daemon rejected the request.
    #[error("{}", .0.error)]
    Refused(ErrorBody),
}

/// A connection to the daemon's hand-over socket.
#[derive(Debug)]
pub struct HandOver(OwnedFd);

impl HandOver {
    /// Connects to the daemon with that run directory.
    pub fn connect(run_dir: &Path) -> Result<Self, HandOverError> {
        let path = run_dir.join(SOCKET);
        let open = || -> rustix::io::Result<OwnedFd> {
            let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
            for timeout in [Timeout::Recv, Timeout::Send] {
                set_socket_timeout(&socket, timeout, Some(PATIENCE))?;
            }
            connect(&socket, &SocketAddrUnix::new(&path)?)?;
            Ok(socket)
        };
        open().map(Self).map_err(|errno| HandOverError::NoDaemon { path, source: errno.into() })
    }

    /// Sends a request and waits for the answer. The sockets come in queue order, followed by the namespace if it was
    /// asked for.
    pub fn ask(&self, request: &Request) -> Result<(Offer, Vec<OwnedFd>), HandOverError> {
        send(self.0.as_fd(), &encode(request), &[])?;
        let (bytes, fds) = receive(self.0.as_fd())?;
        if bytes.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        match decode(&bytes).map_err(HandOverError::Answer)? {
            Answer::Done(offer) => Ok((offer, fds)),
            Answer::Refused(error) => Err(HandOverError::Refused(error)),
        }
    }
}
