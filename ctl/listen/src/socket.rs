//! Unix sockets with their files.

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::sync::Arc;

use ctl_service::state::make_directory;
use ctl_service::upkeep::{PERIOD, Upkeep};
use ctl_service::{Error, Place};
use rustix::fs::{Mode, fchmod};
pub use rustix::net::SocketType;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, bind, connect, listen, socket_with};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// A listening socket, whose file is made again if somebody removes it. Dropping it removes the file.
#[derive(Debug)]
pub struct ApiSocket {
    listener: UnixListener,
    file: SocketFile,
    kind: Kind,
    mode: u32,
    watch: Interval,
    upkeep: Option<(&'static str, Arc<Upkeep>)>,
}

/// A kind of socket.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// A type that has connections.
    pub socket: SocketType,
    /// Sets options before anybody can connect.
    pub set_up: fn(BorrowedFd<'_>),
}

/// The file of a socket. Dropping it removes the file, unless another is in its place.
#[derive(Debug)]
struct SocketFile(Place);

impl ApiSocket {
    /// Listens at `path` with permission bits `mode`. Replaces a socket left by a dead daemon.
    ///
    /// # Errors
    /// If somebody listens there, or the file can't be created.
    pub fn bind(path: &Path, mode: u32) -> Result<Self, Error> {
        Self::of_kind(path, mode, Kind { socket: SocketType::STREAM, set_up: |_| () })
    }

    /// The same for another kind of socket.
    ///
    /// # Errors
    /// As [`ApiSocket::bind`].
    pub fn of_kind(path: &Path, mode: u32, kind: Kind) -> Result<Self, Error> {
        let (listener, file) = open(path, mode, kind)?;
        let mut watch = interval(PERIOD);
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self { listener, file, kind, mode, watch, upkeep: None })
    }

    /// Notes there, under that name, whether the file is in its place.
    #[must_use]
    pub fn noted(mut self, name: &'static str, upkeep: &Arc<Upkeep>) -> Self {
        self.upkeep = Some((name, Arc::clone(upkeep)));
        self
    }

    /// The next connection. Meanwhile the file is made again if it is not in its place any more.
    ///
    /// # Errors
    /// Those of accept(2), of which the most likely is a lack of descriptors.
    pub async fn accept(&mut self) -> std::io::Result<UnixStream> {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => return accepted.map(|(stream, _)| stream),
                _ = self.watch.tick() => self.look_after(),
            }
        }
    }

    fn look_after(&mut self) {
        let path = self.file.0.path().to_owned();
        let look = if self.file.0.is_taken() {
            Ok(false)
        } else {
            open(&path, self.mode, self.kind).map(|(listener, file)| {
                (self.listener, self.file) = (listener, file);
                true
            })
        };
        if let Some((name, upkeep)) = &self.upkeep {
            upkeep.note(name, &path, look);
        }
    }
}

fn open(path: &Path, mode: u32, kind: Kind) -> Result<(UnixListener, SocketFile), Error> {
    path.parent().map_or(Ok(()), make_directory)?;
    let make = || -> std::io::Result<OwnedFd> {
        Ok(socket_with(AddressFamily::UNIX, kind.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?)
    };
    let answered = || -> std::io::Result<()> { Ok(connect(make()?, &SocketAddrUnix::new(path)?)?) };
    match answered().map_err(|error| error.kind()) {
        // Somebody listens, even if the queue is full.
        Ok(()) | Err(ErrorKind::WouldBlock) => {
            return Err(Error::InUse { path: path.to_owned(), holder: "unknown".to_owned() });
        }
        // Nobody listens. A file of another kind is refused in the same way, but must not be removed.
        Err(ErrorKind::ConnectionRefused) if is_socket(path) => {
            std::fs::remove_file(path).map_err(|error| Error::io(format!("removing {}", path.display()), error))?;
        }
        Err(_) => {}
    }
    let listening = || -> std::io::Result<OwnedFd> {
        let socket = make()?;
        (kind.set_up)(socket.as_fd());
        // The file gets this mode at once. Nobody can connect before it has the right one.
        fchmod(&socket, Mode::from_raw_mode(0o600))?;
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        listen(&socket, BACKLOG)?;
        Ok(socket)
    };
    let failed = |error| Error::io(format!("listening on {}", path.display()), error);
    let socket = listening().map_err(failed)?;
    let file = SocketFile(Place::at(path).map_err(failed)?);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(|error| Error::io(format!("setting the mode of {}", path.display()), error))?;
    // Tokio has no listener for other kinds of sockets, but accepting works the same.
    let listener = UnixListener::from_std(StdListener::from(socket)).map_err(failed)?;
    Ok((listener, file))
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.0.is_taken() {
            let _ = std::fs::remove_file(self.0.path());
        }
    }
}
