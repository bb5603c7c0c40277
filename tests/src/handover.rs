//! A client of the daemon's hand-over socket, written from the protocol alone. It can ask well or badly.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, connect, recvmsg,
    sendmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use serde_json::Value;

/// Longest time for an answer, in seconds.
const PATIENCE: i64 = 20;

/// A connection.
#[derive(Debug)]
pub struct Client(OwnedFd);

impl Client {
    /// Connects to `fds.sock` at `path`.
    pub fn connect(path: &Path) -> Self {
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
        let patience = TimeVal::new(PATIENCE, 0);
        setsockopt(&socket, sockopt::ReceiveTimeout, &patience).expect("a timeout");
        connect(socket.as_raw_fd(), &UnixAddr::new(path).expect("a short path"))
            .unwrap_or_else(|errno| panic!("{}: {errno}", path.display()));
        Self(socket)
    }

    /// Sends a message with descriptors. It does not wait for room.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn send(&self, bytes: &[u8], fds: &[RawFd]) -> Result<(), Errno> {
        let control = [ControlMessage::ScmRights(fds)];
        let control = if fds.is_empty() { &control[..0] } else { &control[..] };
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None).map(drop)
    }

    /// The next message with its descriptors. An empty one is the end.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn receive(&self) -> Result<(Vec<u8>, Vec<OwnedFd>), Errno> {
        let mut bytes = vec![0; 65_536];
        let mut space = cmsg_space!([RawFd; 128]);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let (length, fds) = {
            let message = recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
            let rights = message.cmsgs()?.filter_map(|control| match control {
                ControlMessageOwned::ScmRights(fds) => Some(fds),
                _ => None,
            });
            // SAFETY: the kernel made these descriptors for this message, and nobody else has them.
            let fds = rights.flatten().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect();
            (message.bytes, fds)
        };
        bytes.truncate(length);
        Ok((bytes, fds))
    }

    /// Sends a request and returns the answer.
    pub fn ask(&self, request: &Value) -> (Value, Vec<OwnedFd>) {
        self.send(request.to_string().as_bytes(), &[]).unwrap_or_else(|errno| panic!("{request}: {errno}"));
        self.answer()
    }

    /// The next answer.
    pub fn answer(&self) -> (Value, Vec<OwnedFd>) {
        let (bytes, fds) = self.receive().expect("an answer");
        assert!(!bytes.is_empty(), "the daemon hung up");
        (serde_json::from_slice(&bytes).expect("JSON"), fds)
    }

    /// Sends a request that must be refused. Returns the errno's name and the text.
    pub fn refused(&self, request: &Value) -> (String, String) {
        let (answer, fds) = self.ask(request);
        assert!(fds.is_empty(), "{answer}");
        let text = |field: &str| answer[field].as_str().unwrap_or_else(|| panic!("{request}: {answer}")).to_owned();
        (text("code"), text("error"))
    }
}

/// Runs `work` on a thread of another user. The kernel takes a connection from that thread as that user's, with this
/// process's id.
pub fn as_user<T: Send>(uid: u32, work: impl FnOnce() -> T + Send) -> T {
    let become_user = || {
        // SAFETY: the call takes numbers only. It changes only the calling thread.
        let changed = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
        assert_eq!(changed, 0, "root can become {uid}: {}", std::io::Error::last_os_error());
        work()
    };
    let done = std::thread::scope(|scope| scope.spawn(become_user).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
