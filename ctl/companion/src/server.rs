//! Server of the hand-over socket.
//!
//! A tokio task accepts connections, and each connection has a thread. `SO_PEERCRED` tells the client's user and
//! process. Each request is checked against [`Access`] before it reaches the service. The limits of connections keep
//! users from blocking each other.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::sync::mpsc::TrySendError;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ctl_guest::protocol::{Answer, Offer, Request, SOCKET, decode, encode, receive, send};
use ctl_listen::{ApiSocket, Kind, SocketType};
use ctl_service::guests::Process;
use ctl_service::{Error, Service};
use ctl_types::ErrorBody;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use switch::io::sys::refuse_descriptors;
use switch::{ErrorKind, GuestSockets};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;

/// Limit of connections per user who may have sockets. Further ones are closed at once.
const CONNECTIONS: usize = 512;
/// Limit for all users together who may have none, so that they can't keep out the others.
const STRANGERS: usize = 16;
/// Time limit for a client to send a request, and to take its answer.
const IDLE: Duration = Duration::from_secs(30);
/// Stack size of a connection's thread, in bytes.
const STACK: usize = 256 << 10;
/// Queue length of refused connections that wait to be closed.
const CLOSING: usize = 1024;

/// User ids that may have sockets, besides root and the daemon's user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Users who may have the sockets of every port.
    pub everywhere: Vec<u32>,
    /// Users who may have the sockets of one port, by its name.
    pub ports: BTreeMap<String, Vec<u32>>,
}

impl Access {
    /// Whether no user is configured.
    fn is_empty(&self) -> bool {
        self.everywhere.is_empty() && self.ports.values().all(Vec::is_empty)
    }

    fn all_ports(&self, uid: u32) -> bool {
        is_privileged(uid) || self.everywhere.contains(&uid)
    }

    /// Whether the user may have the sockets of any port.
    fn knows(&self, uid: u32) -> bool {
        self.all_ports(uid) || self.ports.values().flatten().any(|user| *user == uid)
    }

    /// Checks that the user may have the sockets of `port`, requested by `key`. The error for a port that does not
    /// exist has the same words, so that a stranger can't probe for ports.
    fn check(&self, uid: u32, port: Option<&str>, key: &str) -> Result<(), Error> {
        let users = self.ports.get(port.unwrap_or(key));
        if self.all_ports(uid) || users.is_some_and(|users| users.contains(&uid)) {
            return Ok(());
        }
        Err(Error::denied(format!(
            "user {uid} may not have the sockets of `{key}`: name the user in `users` of [guests], or for that port in \
             [guests.ports]"
        )))
    }
}

/// Whether the user is root or the daemon's own.
fn is_privileged(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
}

/// The client of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its process number. 0 if it is in a PID namespace that is not visible here.
    pub pid: i32,
    /// Its effective user id when it connected.
    pub uid: u32,
}

/// A listening hand-over socket.
#[derive(Debug)]
pub struct FdsSocket(ApiSocket);

impl FdsSocket {
    /// Listens in a run directory that no other daemon uses. If any user is configured, everybody may connect.
    /// Permissions are checked with each request.
    pub fn bind(run_dir: &Path, access: &Access) -> Result<Self, Error> {
        let mode = if access.is_empty() { 0o600 } else { 0o666 };
        // Older kernels can't refuse descriptors. There, received ones are closed instead.
        let kind = Kind {
            socket: SocketType::SEQPACKET,
            set_up: |socket| {
                let _ = refuse_descriptors(socket);
            },
        };
        ApiSocket::of_kind(&run_dir.join(SOCKET), mode, kind).map(Self)
    }
}

/// Serves until `stop` says true.
///
/// Each connection has a thread, because closing descriptors can block. A client may send sockets that linger on close,
/// and they are closed with their message or with the connection.
pub fn serve(
    socket: FdsSocket,
    service: &Arc<Service>,
    access: Access,
    mut stop: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let socket = FdsSocket(socket.0.noted("guests_socket", service.upkeep()));
    let (service, access) = (Arc::downgrade(service), Arc::new(access));
    let (closer, closing) = std::sync::mpsc::sync_channel::<StdStream>(CLOSING);
    let thread = || std::thread::Builder::new().stack_size(STACK).name("xs-fds".to_owned());
    if let Err(error) = thread().spawn(move || closing.into_iter().for_each(drop)) {
        tracing::warn!(%error, "hand-over connections too many are closed in their turn");
    }
    tokio::spawn(async move {
        // Its file is removed when the task ends.
        let mut socket = socket;
        let mut rooms = Rooms::default();
        loop {
            let accepted = tokio::select! {
                accepted = accept(&mut socket.0) => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let Some(place) = rooms.enter(access.knows(peer.uid).then_some(peer.uid)) else {
                        tracing::debug!(?peer, "a hand-over connection too many");
                        // Closing could block, and then nobody else would be accepted. So the closing thread does it.
                        let mut refused = stream;
                        while let Err(TrySendError::Full(stream)) = closer.try_send(refused) {
                            refused = stream;
                            tokio::select! {
                                () = tokio::time::sleep(Duration::from_millis(100)) => {}
                                _ = stop.wait_for(|stop| *stop) => {
                                    std::mem::forget(refused);
                                    return;
                                }
                            }
                        }
                        continue;
                    };
                    let (service, access) = (Weak::clone(&service), Arc::clone(&access));
                    let spawned = thread().spawn(move || {
                        let _place = place;
                        if let Err(error) = connection(&stream, peer, &service, &access) {
                            tracing::debug!(%error, "a hand-over connection ended");
                        }
                        drop(stream);
                    });
                    if let Err(error) = spawned {
                        tracing::warn!(%error, "a hand-over connection gets no thread");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a hand-over connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    })
}

/// Connection slots: one pool for each user who may have sockets, and one for all others.
#[derive(Debug, Default)]
struct Rooms(BTreeMap<Option<u32>, Arc<Semaphore>>);

impl Rooms {
    /// Takes a slot, if one is free. `None` stands for all users who may have nothing.
    fn enter(&mut self, user: Option<u32>) -> Option<OwnedSemaphorePermit> {
        let places = if user.is_some() { CONNECTIONS } else { STRANGERS };
        let room = self.0.entry(user).or_insert_with(|| Arc::new(Semaphore::new(places)));
        Arc::clone(room).try_acquire_owned().ok()
    }
}

async fn accept(socket: &mut ApiSocket) -> std::io::Result<(StdStream, Peer)> {
    let stream = socket.accept().await?.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    let credentials = getsockopt(&stream, PeerCredentials)?;
    Ok((stream, Peer { pid: credentials.pid(), uid: credentials.uid() }))
}

fn connection(stream: &StdStream, peer: Peer, service: &Weak<Service>, access: &Access) -> std::io::Result<()> {
    loop {
        // Descriptors sent by a client are closed at once.
        let bytes = match receive(stream.as_fd()) {
            Ok((bytes, _)) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                refuse(stream, ErrorKind::Invalid, &error)?;
                continue;
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        if bytes.is_empty() {
            return Ok(());
        }
        // A stopping daemon must not wait for a client that takes no answer, so the reference is short.
        let Some(done) = service.upgrade().map(|service| carry_out(&service, access, peer, &bytes)) else {
            return Ok(());
        };
        match done {
            Ok((offer, given)) => {
                let port = offer.port.clone();
                let fds: Vec<BorrowedFd<'_>> = given.iter().map(AsFd::as_fd).collect();
                let sent = send(stream.as_fd(), &encode(&Answer::Done(offer)), &fds);
                if sent.is_err()
                    && !fds.is_empty()
                    && let Some(service) = service.upgrade()
                {
                    // The client did not get them.
                    service.not_delivered(&port, &given);
                }
                sent?;
            }
            Err(error) => refuse(stream, error.kind(), &error)?,
        }
    }
}

fn refuse(stream: &StdStream, kind: ErrorKind, error: &dyn std::error::Error) -> std::io::Result<()> {
    send(stream.as_fd(), &encode(&Answer::Refused(ErrorBody::new(kind, error.to_string()))), &[])
}

/// Carries out a request, if the client may make it.
#[doc(hidden)]
pub fn carry_out(service: &Service, access: &Access, peer: Peer, bytes: &[u8]) -> Result<(Offer, Vec<OwnedFd>), Error> {
    let request: Request = decode(bytes).map_err(|why| Error::invalid(format!("request: {why}")))?;
    // Permissions come first, because strangers must not learn which ports exist.
    let name = service.name_of(request.port());
    access.check(peer.uid, name.as_deref().ok(), request.port())?;
    let name = name?;
    match request {
        Request::Sockets { pid, netns, .. } => {
            let process = holder(peer, pid)?;
            let (offer, GuestSockets { mut sockets, netns: namespace }) = service.hand_over(&name, process)?;
            sockets.extend(netns.then_some(namespace));
            Ok((offer, sockets))
        }
        Request::Describe { open, .. } => Ok((service.describe_guest(&name, open)?, Vec::new())),
        Request::Release { force, .. } => {
            if force && !is_privileged(peer.uid) {
                return Err(Error::denied("force: it is for root and the daemon's own user"));
            }
            Ok((service.release_guest(&name, force)?, Vec::new()))
        }
    }
}

/// The process that gets the sockets. It must belong to the client's user, unless root asks.
fn holder(peer: Peer, pid: Option<i32>) -> Result<Process, Error> {
    let number = pid.unwrap_or(peer.pid);
    let process = Process::open(number)
        .map_err(|error| Error::invalid(format!("pid: process {number} can't be looked after: {error}")))?;
    if peer.uid != 0 && number != peer.pid && process.user() != Some(peer.uid) {
        return Err(Error::denied(format!("pid: process {number} is not user {}'s", peer.uid)));
    }
    Ok(process)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_get_what_the_configuration_gives_them() {
        let ours = nix::unistd::geteuid().as_raw();
        let access = Access { everywhere: vec![7001], ports: BTreeMap::from([("vm1".to_owned(), vec![7002])]) };
        for (uid, port, may) in [
            (0, "vm1", true),
            (ours, "vm1", true),
            (7001, "vm2", true),
            (7002, "vm1", true),
            (7002, "vm2", false),
            (7003, "vm1", false),
        ] {
            assert_eq!(access.check(uid, Some(port), "0").is_ok(), may, "{uid} {port}");
        }
        assert_eq!([0, 7001, 7002, 7003].map(|uid| access.knows(uid)), [true, true, true, false]);
        let error = Access::default().check(7003, Some("vm1"), "0").unwrap_err();
        assert!(error.kind() == ErrorKind::Denied && error.to_string().contains("[guests]"), "{error}");
        assert_eq!(error.to_string(), access.check(7003, None, "0").unwrap_err().to_string());
    }

    #[test]
    fn strangers_fill_only_their_own_room() {
        let mut rooms = Rooms::default();
        let strangers: Vec<_> = std::iter::from_fn(|| rooms.enter(None)).collect();
        assert_eq!(strangers.len(), STRANGERS);
        let ours: Vec<_> = std::iter::from_fn(|| rooms.enter(Some(7001))).collect();
        assert!(ours.len() == CONNECTIONS && rooms.enter(Some(0)).is_some());
        drop(strangers);
        assert!(rooms.enter(None).is_some());
    }

    #[test]
    fn a_process_may_be_named_by_its_user_or_by_root() {
        let this = std::process::id().cast_signed();
        assert!(holder(Peer { pid: this, uid: 7001 }, None).is_ok());
        assert!(holder(Peer { pid: 1, uid: 0 }, Some(this)).is_ok());
        let ours = Process::open(this).unwrap().user().unwrap();
        assert!(holder(Peer { pid: 1, uid: ours }, Some(this)).is_ok());
        let error = holder(Peer { pid: 1, uid: 7001 }, Some(this)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(holder(Peer { pid: 1, uid: 0 }, Some(i32::MAX)).unwrap_err().to_string().starts_with("pid: "));
    }
}
