//! A VMM as far as its tap is concerned: it opens a tap by name, and reads and writes frames.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use crate::netns::NetNs;
use crate::number::narrow;
use crate::packet::Frame;

/// Bytes of a virtio-net header without a count of buffers, which taps have unless they are told otherwise.
const HEADER: usize = 10;
const DEVICE: &str = "/dev/net/tun";

/// How a VMM opens a tap.
#[derive(Clone, Copy, Debug)]
pub struct Vmm {
    /// User of the process. 0 has all capabilities, others have none.
    pub user: u32,
    /// Its group, which is the only one.
    pub group: u32,
    /// Queues. With more than one the tap is opened as one of several queues.
    pub queues: usize,
    /// Whether it puts virtio-net headers before packets.
    pub headers: bool,
}

impl Default for Vmm {
    fn default() -> Self {
        Self { user: 0, group: 0, queues: 1, headers: true }
    }
}

/// An open tap. A file is a queue.
#[derive(Debug)]
pub struct OpenTap {
    files: Vec<File>,
    headers: bool,
}

impl Vmm {
    /// Opens the tap of that name in a namespace.
    pub fn open(self, ns: &NetNs, name: &str) -> io::Result<OpenTap> {
        let files = ns.run(|| {
            // Who may open the device is up to the machine. The kernel asks who attaches the tap.
            let device = || OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(DEVICE);
            let files = (0..self.queues).map(|_| device()).collect::<io::Result<Vec<_>>>()?;
            self.become_user()?;
            files.iter().try_for_each(|file| self.attach(file, name))?;
            Ok::<_, io::Error>(files)
        });
        Ok(OpenTap { files: files?, headers: self.headers })
    }

    /// Makes the calling thread the user's. The thread must end then.
    fn become_user(self) -> io::Result<()> {
        if self.user == 0 {
            return Ok(());
        }
        // The functions of libc would change the whole process.
        // SAFETY: plain system calls with numbers.
        let done = unsafe {
            libc::syscall(libc::SYS_setgroups, 0, 0) == 0
                && libc::syscall(libc::SYS_setresgid, self.group, self.group, self.group) == 0
                && libc::syscall(libc::SYS_setresuid, self.user, self.user, self.user) == 0
        };
        if done { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn attach(self, file: &File, name: &str) -> io::Result<()> {
        let mut flags = libc::IFF_TAP | libc::IFF_NO_PI;
        if self.headers {
            flags |= libc::IFF_VNET_HDR;
        }
        if self.queues > 1 {
            flags |= libc::IFF_MULTI_QUEUE;
        }
        let mut ifr_name = [0; libc::IFNAMSIZ];
        for (to, from) in ifr_name.iter_mut().zip(name.bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        let mut request =
            libc::ifreq { ifr_name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: narrow(flags) } };
        // SAFETY: `request` is a live `ifreq` with name and flags.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// What a VMM leaves to its host, of a packet that it writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Left {
    /// Offsets of the first byte that the checksum is of, and of the checksum from there.
    pub checksum: Option<(u16, u16)>,
    /// Bytes of headers, and bytes of data in each TCP segment, in IPv4.
    pub segments: Option<(u16, u16)>,
}

impl OpenTap {
    /// Sends a frame by a queue.
    pub fn send(&self, queue: usize, frame: &Frame) {
        self.try_send(queue, frame).unwrap_or_else(|error| panic!("sending {frame:?}: {error}"));
    }

    /// Sends a frame by a queue. Returns the kernel's refusal.
    pub fn try_send(&self, queue: usize, frame: &Frame) -> io::Result<()> {
        self.send_left(queue, frame, Left::default())
    }

    /// Sends a packet by a queue and leaves that to the host.
    pub fn send_left(&self, queue: usize, frame: &Frame, left: Left) -> io::Result<()> {
        let mut packet = Vec::new();
        if self.headers {
            let (start, offset) = left.checksum.unwrap_or_default();
            let (length, size) = left.segments.unwrap_or_default();
            packet.extend([u8::from(left.checksum.is_some()), u8::from(left.segments.is_some())]);
            packet.extend([length, size, start, offset].iter().flat_map(|number| number.to_le_bytes()));
        }
        packet.extend(&frame.0);
        (&self.files[queue]).write_all(&packet)
    }

    /// The next frame of any queue, with the queue's number, or `None` after `timeout`.
    pub fn recv(&self, timeout: Duration) -> Option<(usize, Frame)> {
        let end = Instant::now() + timeout;
        let mut buffer = vec![0; 70_000];
        loop {
            for (queue, mut file) in self.files.iter().enumerate() {
                if let Ok(len) = file.read(&mut buffer) {
                    let start = if self.headers { HEADER } else { 0 };
                    return Some((queue, Frame(buffer[start..len].to_vec())));
                }
            }
            if Instant::now() >= end {
                return None;
            }
            let mut polls: Vec<_> = self.files.iter().map(|file| poll_of(file.as_raw_fd())).collect();
            // SAFETY: as many live `pollfd`s.
            unsafe { libc::poll(polls.as_mut_ptr(), narrow(polls.len()), 50) };
        }
    }

    /// The next frame that `wanted` accepts, or `None` after `timeout`. Others are skipped.
    pub fn recv_if(&self, timeout: Duration, wanted: impl Fn(&Frame) -> bool) -> Option<(usize, Frame)> {
        let end = Instant::now() + timeout;
        let next = || self.recv(end.saturating_duration_since(Instant::now()));
        std::iter::from_fn(next).find(|(_, frame)| wanted(frame))
    }

    /// Number of its queues.
    pub fn queues(&self) -> usize {
        self.files.len()
    }

    /// Closes the last queue.
    pub fn close_one(&mut self) {
        self.files.pop();
    }
}

fn poll_of(fd: i32) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}
