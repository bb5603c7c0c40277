//! The daemon's sockets: Unix sockets with their files, and HTTP routers served on them or on TCP.
//!
//! The limits of clients are set here, so that all transports have the same: time for a head and a body, and the number
//! of TCP clients. All transports depend on this crate. Servers run on the caller's tokio runtime.
#![forbid(unsafe_code)]

pub mod config;

use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::serve::{Listener, ListenerExt};
use ctl_service::Error;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

/// Time limit for a client to send the head of a request, counted from the end of the previous one.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit for a client to send the body of a request.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest head of a request, in bytes.
const MAX_HEAD: usize = 64 << 10;
/// Time limit for a TCP client to acknowledge an answer, in milliseconds.
const ANSWER_TIMEOUT_MS: u32 = 20_000;
/// Limit of simultaneous TCP clients. Further ones wait. Each takes a descriptor, and the daemon needs some for itself.
const MAX_CLIENTS: usize = 256;
/// Time for open requests to end when the daemon stops.
const GRACE: Duration = Duration::from_millis(500);

/// A listening socket. Dropping it removes its file.
#[derive(Debug)]
pub struct ApiSocket {
    listener: UnixListener,
    file: SocketFile,
}

/// The file of a socket. Dropping it removes the file.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl ApiSocket {
    /// Listens at `path` with permission bits `mode`. Replaces a socket left by a dead daemon.
    ///
    /// # Errors
    /// If somebody listens there, or the file can't be created.
    pub fn bind(path: &Path, mode: u32) -> Result<Self, Error> {
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(Error::InUse { path: path.to_owned(), holder: "unknown".to_owned() }),
            // Nobody listens. A file of another kind is refused in the same way, but must not be removed.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused && is_socket(path) => {
                std::fs::remove_file(path).map_err(|error| Error::io(format!("removing {}", path.display()), error))?;
            }
            Err(_) => {}
        }
        let listener =
            UnixListener::bind(path).map_err(|error| Error::io(format!("listening on {}", path.display()), error))?;
        let socket = Self { listener, file: SocketFile::at(path) };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .map_err(|error| Error::io(format!("setting the mode of {}", path.display()), error))?;
        Ok(socket)
    }

    /// Separates the listener from its file.
    pub fn split(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}

impl SocketFile {
    /// The file of a socket that already listens at `path`.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Serves until `stop` says true, then gives open requests a short time to end.
pub async fn serve(socket: ApiSocket, router: Router, stop: watch::Receiver<bool>) {
    let (listener, _file) = socket.split();
    serve_on(listener, usize::MAX, router, stop).await;
}

/// The same on a TCP address. Any user of the machine may connect, so limits protect the daemon's memory and
/// descriptors.
pub async fn serve_tcp(listener: TcpListener, router: Router, stop: watch::Receiver<bool>) {
    let listener = listener.tap_io(|stream| {
        if let Err(error) = setsockopt(stream, sockopt::TcpUserTimeout, &ANSWER_TIMEOUT_MS) {
            tracing::debug!(%error, "options of a connection");
        }
    });
    serve_on(listener, MAX_CLIENTS, router, stop).await;
}

async fn serve_on<L: Listener>(mut listener: L, clients: usize, router: Router, mut stop: watch::Receiver<bool>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            // `accept` itself waits while the process is out of descriptors.
            (stream, _) = listener.accept(), if connections.len() < clients => {
                connections.spawn(connection(stream, router.clone()));
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            () = stopped(&mut stop) => break,
        }
    }
    let _ = tokio::time::timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
}

/// Returns when `stop` says true, or its sender is gone.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, router: Router) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(MAX_HEAD);
    // A client that has shut down its sending side still gets its answer.
    builder.half_close(true);
    let service = TowerToHyperService::new(router);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "an API connection ended");
    }
}
