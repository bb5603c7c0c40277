//! HTTP routers served on Unix sockets and on TCP.

use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};

use crate::clients::{Clients, Peer};
use crate::heap::{Heap, give_back};
use crate::socket::ApiSocket;
use crate::stream::{Deadlines, Guarded};

/// Time limit for a client to send the head of a request, counted from the end of the previous one.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit for a client to send the body of a request.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest head of a request, in bytes. The server keeps at most about this much of an answer for a slow client.
const MAX_HEAD: usize = 64 << 10;
/// Time limit for a TCP client to acknowledge an answer, in milliseconds.
const ANSWER_TIMEOUT_MS: u32 = 20_000;
/// Places for clients of a socket. Each takes a descriptor, and the daemon needs some for itself.
pub const MAX_CLIENTS: usize = 256;
/// Time for open requests to end when the daemon stops.
const GRACE: Duration = Duration::from_millis(500);
/// Pause after a failed accept. The usual reason is a lack of descriptors.
const BREATH: Duration = Duration::from_millis(100);

/// Deadlines of a TCP client, who may be anybody.
const TCP: Deadlines = Deadlines { silence: None, stall: Duration::from_secs(10), least: 16 << 10 };
/// Deadlines of a client on a Unix socket. Somebody may look at a capture page by page.
const UNIX: Deadlines = Deadlines { silence: None, stall: Duration::from_secs(300), least: 1 };

/// Serves until `stop` says true, then gives open requests a short time to end.
pub async fn serve(socket: ApiSocket, router: Router, stop: watch::Receiver<bool>) {
    serve_on(accept_unix(socket, UNIX, stop), router).await;
}

/// The same on a TCP address. Any user of the machine may connect, so limits protect the daemon's memory and
/// descriptors.
pub async fn serve_tcp(listener: TcpListener, router: Router, stop: watch::Receiver<bool>) {
    serve_on(accept_tcp(listener, TCP, stop), router).await;
}

/// Connections of a Unix socket, each with its place among the clients, until `stop` says true.
pub fn accept_unix(
    socket: ApiSocket,
    deadlines: Deadlines,
    stop: watch::Receiver<bool>,
) -> mpsc::Receiver<Guarded<UnixStream>> {
    accept(socket, deadlines, stop)
}

/// The same for a TCP address.
pub fn accept_tcp(
    listener: TcpListener,
    deadlines: Deadlines,
    stop: watch::Receiver<bool>,
) -> mpsc::Receiver<Guarded<TcpStream>> {
    accept(listener, deadlines, stop)
}

/// A source of connections.
trait Accept: Send + 'static {
    type Stream: Send + 'static;

    /// The next connection. Dropping the future loses none.
    fn next(&mut self) -> impl Future<Output = (Self::Stream, Peer)> + Send;
}

impl Accept for ApiSocket {
    type Stream = UnixStream;

    async fn next(&mut self) -> (UnixStream, Peer) {
        loop {
            match self.accept().await.and_then(|stream| Ok((Peer::User(stream.peer_cred()?.uid()), stream))) {
                Ok((peer, stream)) => return (stream, peer),
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection");
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    }
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn next(&mut self) -> (TcpStream, Peer) {
        // This waits while the process is out of descriptors.
        let (stream, address) = Listener::accept(self).await;
        if let Err(error) = setsockopt(&stream, sockopt::TcpUserTimeout, &ANSWER_TIMEOUT_MS) {
            tracing::debug!(%error, "options of a connection");
        }
        (stream, Peer::Host(address.ip()))
    }
}

fn accept<A: Accept>(
    mut source: A,
    deadlines: Deadlines,
    mut stop: watch::Receiver<bool>,
) -> mpsc::Receiver<Guarded<A::Stream>> {
    let (sender, receiver) = mpsc::channel(1);
    let clients = Clients::new(MAX_CLIENTS);
    tokio::spawn(async move {
        loop {
            let (stream, peer) = tokio::select! {
                next = source.next() => next,
                // True, or its sender is gone.
                _ = stop.wait_for(|stop| *stop) => break,
                () = sender.closed() => break,
            };
            if sender.send(Guarded::new(stream, clients.admit(peer), deadlines)).await.is_err() {
                break;
            }
        }
        // The socket's file goes before the servers end.
        drop(source);
        drop(sender);
    });
    receiver
}

async fn serve_on<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    mut streams: mpsc::Receiver<Guarded<S>>,
    router: Router,
) {
    let (mut connections, mut heap) = (tokio::task::JoinSet::new(), Heap::default());
    loop {
        if heap.note(connections.len()) {
            tokio::task::spawn_blocking(give_back);
        }
        tokio::select! {
            stream = streams.recv() => match stream {
                Some(stream) => drop(connections.spawn(connection(stream, router.clone()))),
                None => break,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    let _ = tokio::time::timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
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
