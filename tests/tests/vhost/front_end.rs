//! A front end of the test's own, which says what it likes.

use std::fs::File;
use std::io::{IoSlice, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

/// Bytes of the guest's memory.
pub const MEMORY: u64 = 2 << 20;
/// Where the front end has it.
const USER: u64 = 0x7000_0000_0000;
/// Entries of each ring.
pub const SIZE: u16 = 64;
/// What is used: `VERSION_1`, mergeable buffers, protocol features.
const FEATURES: u64 = 1 << 32 | 1 << 15 | 1 << 30;

/// Requests (`VhostUserRequest` in QEMU's `docs/interop/vhost-user.rst`).
pub mod request {
    pub const SET_FEATURES: u32 = 2;
    pub const SET_OWNER: u32 = 3;
    pub const SET_MEM_TABLE: u32 = 5;
    pub const SET_VRING_NUM: u32 = 8;
    pub const SET_VRING_ADDR: u32 = 9;
    pub const SET_VRING_BASE: u32 = 10;
    pub const SET_VRING_KICK: u32 = 12;
    pub const SET_VRING_CALL: u32 = 13;
    pub const SET_VRING_ERR: u32 = 14;
}

/// A connection, with the memory of a guest.
pub struct FrontEnd {
    stream: UnixStream,
    pub memory: File,
    pub kicks: [OwnedFd; 2],
    /// What the switch calls by, and tells of a broken ring by.
    pub calls: [OwnedFd; 2],
    pub errs: [OwnedFd; 2],
}

/// Offsets of a ring's parts in the memory.
pub struct Parts {
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
}

/// Those of the ring that the guest receives by (0), or sends by (1).
pub fn parts(ring: u32) -> Parts {
    let at = 0x1000 + u64::from(ring) * 0x4000;
    Parts { descriptors: at, available: at + 0x1000, used: at + 0x2000 }
}

fn event() -> OwnedFd {
    EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC).expect("an event").into()
}

impl FrontEnd {
    /// Connects, and says nothing yet. `None`: the port turns it away.
    pub fn connect(socket: &str) -> Option<Self> {
        let stream = UnixStream::connect(socket).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        stream.set_write_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        let memory: File = memfd_create("guest", MFdFlags::MFD_CLOEXEC).expect("memory").into();
        memory.set_len(MEMORY).expect("a size");
        let events = || [event(), event()];
        Some(Self { stream, memory, kicks: events(), calls: events(), errs: events() })
    }

    /// Sends bytes with descriptors. An error means that the other end has hung up.
    pub fn send_bytes(&self, bytes: &[u8], fds: &[RawFd]) -> bool {
        let control = [ControlMessage::ScmRights(fds)];
        let control = if fds.is_empty() { &control[..0] } else { &control[..] };
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.stream.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None).is_ok()
    }

    /// Sends a request.
    pub fn send(&self, request: u32, payload: &[u8], fds: &[RawFd]) -> bool {
        let size = u32::try_from(payload.len()).expect("a short payload");
        let header = [request, 1, size].map(u32::to_le_bytes).concat();
        self.send_bytes(&[&header, payload].concat(), fds)
    }

    /// Waits until the other end hangs up, or says something.
    pub fn is_hung_up(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 64]), Ok(0) | Err(_))
    }

    /// Tells all that a guest's front end tells, so that both rings run. They are as the memory has them.
    pub fn start_rings(&self) -> bool {
        let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let pair = |ring: u32, value: u32| [ring.to_le_bytes(), value.to_le_bytes()].concat();
        let mut ok =
            self.send(request::SET_OWNER, &[], &[]) && self.send(request::SET_FEATURES, &words(&[FEATURES]), &[]);
        let table = [words(&[1]), words(&[0, MEMORY, USER, 0])].concat();
        ok &= self.send(request::SET_MEM_TABLE, &table, &[self.memory.as_raw_fd()]);
        for ring in 0..2_u32 {
            let Parts { descriptors, available, used } = parts(ring);
            let at = [pair(ring, 0), words(&[USER + descriptors, USER + used, USER + available, 0])].concat();
            ok &= self.send(request::SET_VRING_NUM, &pair(ring, SIZE.into()), &[]);
            ok &= self.send(request::SET_VRING_BASE, &pair(ring, 0), &[]);
            ok &= self.send(request::SET_VRING_ADDR, &at, &[]);
            for (request, events) in [
                (request::SET_VRING_CALL, &self.calls),
                (request::SET_VRING_ERR, &self.errs),
                (request::SET_VRING_KICK, &self.kicks),
            ] {
                ok &= self.send(request, &words(&[ring.into()]), &[events[ring as usize].as_raw_fd()]);
            }
        }
        ok
    }

    /// Writes into the guest's memory.
    pub fn write(&self, at: u64, bytes: &[u8]) {
        self.memory.write_all_at(bytes, at).expect("memory");
    }

    /// The ring that the guest sends by has a packet in each entry.
    pub fn write_packets(&self, packet: &[u8]) {
        let len = u32::try_from(packet.len()).expect("a short packet");
        let parts = parts(1);
        self.write(MEMORY / 2, packet);
        for entry in 0..SIZE {
            let descriptor = [&(MEMORY / 2).to_le_bytes()[..], &len.to_le_bytes(), &[0; 4]].concat();
            self.write(parts.descriptors + 16 * u64::from(entry), &descriptor);
            self.write(parts.available + 4 + 2 * u64::from(entry), &entry.to_le_bytes());
        }
    }

    /// Sends the packets up to that one.
    pub fn send_up_to(&self, index: u16) {
        self.write(parts(1).available + 2, &index.to_le_bytes());
        self.kick();
    }

    /// Which one the switch has taken last.
    pub fn taken(&self) -> u16 {
        let mut index = [0; 2];
        self.memory.read_exact_at(&mut index, parts(1).used + 2).expect("memory");
        u16::from_le_bytes(index)
    }

    /// Kicks the ring that the guest sends by.
    pub fn kick(&self) {
        let _ = nix::unistd::write(&self.kicks[1], &1_u64.to_ne_bytes());
    }
}
