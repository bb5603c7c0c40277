//! Serving a router on a socket.

use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::serve::{Listener, ListenerExt};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use crate::error::Error;

/// How long a client may take to send a request's head, and to begin with one.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of the longest head of a request.
const MAX_HEAD: usize = 64 << 10;
/// How long a client on TCP may leave an answer lying, in milliseconds.
const ANSWER_TIMEOUT_MS: u32 = 20_000;
/// Clients on TCP at a time: further ones wait until one goes. Each has a descriptor, of which the rest of the daemon needs some, too.
const MAX_CLIENTS: usize = 256;
/// How long open requests may take to end when the daemon does.
const GRACE: Duration = Duration::from_millis(500);

/// A listening socket; its file goes when this is dropped.
#[derive(Debug)]
pub struct ApiSocket {
    listener: UnixListener,
    file: SocketFile,
}

/// The file of a socket; it goes when this is dropped.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl ApiSocket {
    /// Listens at `path` with permission bits `mode`. A socket that a dead daemon left is replaced; one that answers is not.
    ///
    /// # Errors
    /// If somebody listens there already, or the file can't be made.
    pub fn bind(path: &Path, mode: u32) -> Result<Self, Error> {
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(Error::InUse { path: path.to_owned(), holder: "unknown".to_owned() }),
            // Refused: nobody listens on a socket, or it is a file of another kind, which is not ours to remove.
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

    /// The listener and its file apart.
    pub fn split(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}

impl SocketFile {
    /// The file of a socket that listens there.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Serves until `stop` says true, then lets open requests end for a moment.
pub async fn serve(socket: ApiSocket, router: Router, stop: watch::Receiver<bool>) {
    let (listener, _file) = socket.split();
    serve_on(listener, usize::MAX, router, stop).await;
}

/// The same on a TCP address, which any user of the machine may reach: none may take up all of the daemon's memory and descriptors.
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
            // It waits itself while there are no descriptors for more.
            (stream, _) = listener.accept(), if connections.len() < clients => {
                connections.spawn(connection(stream, router.clone()));
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            () = stopped(&mut stop) => break,
        }
    }
    let _ = tokio::time::timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
}

/// Ends when `stop` says true, or nobody can say it any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, router: Router) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(MAX_HEAD);
    // A client that has said all and shuts its side is still to be answered.
    builder.half_close(true);
    let service = TowerToHyperService::new(router);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "an API connection ended");
    }
}
