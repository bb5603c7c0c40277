//! The server side.

use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use nix::errno::Errno;
use nix::sys::socket::{Backlog, UnixAddr, bind, listen};
use thiserror::Error;

use super::client::stream_socket;
use super::file::{Access, BINDING, SocketFile, remove_stale};
use crate::connection::Connection;

/// Connections that wait to be accepted. They are accepted or turned away soon.
const BACKLOG: u8 = 16;

/// Why there is no socket.
#[derive(Debug, Error)]
pub enum BindError {
    /// Somebody listens there.
    #[error("somebody listens at {} already", .0.display())]
    InUse(PathBuf),
    /// A file is there that is no socket. It stays.
    #[error("{} is not a socket, and is left as it is", .0.display())]
    OtherFile(PathBuf),
    /// A step has failed.
    #[error("{step} {}: {errno}", path.display())]
    Failed {
        /// The step.
        step: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
}

impl BindError {
    pub(super) fn at(step: &'static str, path: &Path) -> impl Fn(Errno) -> Self {
        move |errno| Self::Failed { step, path: path.to_owned(), errno }
    }
}

/// A listening socket with its file. Dropping it removes the file, unless another is in its place.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    file: SocketFile,
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Listener {
    /// Listens there. The file has owner, group and mode before anybody can connect. A socket that nobody listens at is
    /// replaced.
    ///
    /// # Errors
    /// If somebody listens there, if a file of another kind is there, or if a step fails. Then no file of this call is
    /// left.
    pub fn bind(path: &Path, access: Access) -> Result<Self, BindError> {
        let address = UnixAddr::new(path).map_err(BindError::at("taking as a socket's path", path))?;
        let _binding = BINDING.lock().unwrap_or_else(PoisonError::into_inner);
        remove_stale(path)?;
        let socket = stream_socket().map_err(BindError::at("making a socket for", path))?;
        bind(socket.as_raw_fd(), &address).map_err(|errno| match errno {
            Errno::EADDRINUSE => BindError::InUse(path.to_owned()),
            errno => BindError::at("making", path)(errno),
        })?;
        let file = SocketFile::at(path).map_err(BindError::at("looking at", path))?;
        // Nobody can connect before it listens. So these need not be one step.
        file.give(access).map_err(BindError::at("setting owner and mode of", path))?;
        let backlog = Backlog::new(BACKLOG).unwrap_or(Backlog::MAXCONN);
        listen(&socket, backlog).map_err(BindError::at("listening at", path))?;
        // Somebody else may have taken it for a stale one until now.
        if !file.is_in_place() {
            return Err(BindError::InUse(path.to_owned()));
        }
        Ok(Self { socket: socket.into(), file })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Its file is still there. If not, nobody can connect any more, and it has to be made anew.
    pub fn is_in_place(&self) -> bool {
        self.file.is_in_place()
    }

    /// The next front end, if one waits.
    ///
    /// # Errors
    /// Those of accept(2), of which the most likely is a lack of descriptors. The front end waits on.
    pub fn accept(&self) -> std::io::Result<Option<Connection>> {
        loop {
            match self.socket.accept() {
                Ok((stream, _)) => return Ok(Some(stream.into())),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                // Somebody has gone before it was accepted.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Turns those away that wait, because the device has a front end. Tells how many there were. Those beyond the
    /// backlog are left for the next call.
    ///
    /// # Errors
    /// Those of accept(2).
    pub fn turn_away(&self) -> std::io::Result<u8> {
        for count in 0..BACKLOG {
            if self.accept()?.is_none() {
                return Ok(count);
            }
        }
        Ok(BACKLOG)
    }
}
