//! Packet sockets: raw frames sent and received at a netdev.
//!
//! The kernel removes the outer VLAN tag of a received frame before a packet socket sees it, and reports it beside the
//! data (`PACKET_AUXDATA`). It is put back here, so that a test sees the frame as on the wire. Frames that the socket's
//! own host sends are not received.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::netns::NetNs;
use crate::number::narrow;
use crate::packet::{CTAG, Frame};

const RECEIVE_BUFFER: libc::c_int = 16 << 20;

/// A raw packet socket bound to one netdev.
#[derive(Debug)]
pub struct RawSocket {
    fd: OwnedFd,
}

impl RawSocket {
    /// Opens a socket on `ifname` in `ns`.
    pub fn open(ns: &NetNs, ifname: &str) -> Self {
        let ifindex = ns.ifindex(ifname);
        let socket = ns.run(|| Self::open_here(ifindex));
        socket.unwrap_or_else(|error| panic!("packet socket on {ifname}: {error}"))
    }

    /// Opens a socket on the netdev with that index, in the namespace of the calling thread.
    pub fn open_here(ifindex: u32) -> io::Result<Self> {
        let protocol = narrow::<u16>(libc::ETH_P_ALL).to_be();
        // Protocol 0 until it is bound, or it would collect frames of other netdevs meanwhile.
        // SAFETY: a plain system call. Nobody else owns the returned descriptor.
        let fd = unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let socket = Self { fd };
        socket.option(libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)?;
        socket.option(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        socket.option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER)?;
        // SAFETY: all zero is a valid `sockaddr_ll`.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = narrow(libc::AF_PACKET);
        address.sll_protocol = protocol;
        address.sll_ifindex = ifindex.cast_signed();
        // SAFETY: the address is a `sockaddr_ll` of the given size.
        let bound = unsafe {
            libc::bind(socket.fd.as_raw_fd(), (&raw const address).cast(), narrow(size_of::<libc::sockaddr_ll>()))
        };
        if bound == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
    }

    fn option(&self, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
        // SAFETY: the value is a `c_int` of the given size. The kernel reads it during the call only.
        let set = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                level,
                name,
                (&raw const value).cast(),
                narrow(size_of::<libc::c_int>()),
            )
        };
        if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Sends a frame as it is. Returns the kernel's refusal: shorter than 14 bytes, longer than the MTU allows, no
    /// carrier.
    pub fn try_send(&self, frame: &Frame) -> io::Result<()> {
        // SAFETY: pointer and length are those of a live buffer.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), frame.0.as_ptr().cast(), frame.0.len(), 0) };
        if sent == frame.0.len().cast_signed() { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Sends a frame. Panics if the kernel refuses it.
    pub fn send(&self, frame: &Frame) {
        self.try_send(frame).unwrap_or_else(|error| panic!("sending {frame:?}: {error}"));
    }

    /// The next frame, or `None` after `timeout`.
    pub fn recv(&self, timeout: Duration) -> Option<Frame> {
        let end = Instant::now() + timeout;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one live `pollfd`.
            let ready = unsafe { libc::poll(&raw mut poll, 1, narrow(left.as_millis().min(60_000))) };
            if ready > 0
                && let Some(frame) = self.recv_now()
            {
                return Some(frame);
            }
            if left.is_zero() {
                return None;
            }
        }
    }

    /// The next frame that `wanted` accepts, or `None` after `timeout`. Others are skipped.
    pub fn recv_if(&self, timeout: Duration, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        let end = Instant::now() + timeout;
        std::iter::from_fn(|| self.recv(end.saturating_duration_since(Instant::now()))).find(wanted)
    }

    /// All frames that have come so far.
    pub fn drain(&self) -> Vec<Frame> {
        std::iter::from_fn(|| self.recv(Duration::ZERO)).collect()
    }

    fn recv_now(&self) -> Option<Frame> {
        let mut data = vec![0_u8; 65_536];
        let mut control = [0_u64; 16];
        let mut part = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
        // SAFETY: all zero is a valid `msghdr`. The buffers set below outlive the call.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: `message` describes live buffers with their true sizes.
        let len = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
        data.truncate(usize::try_from(len).ok()?);
        if let Some((tpid, tci)) = stripped_tag(&message) {
            let at = 12.min(data.len());
            data.splice(at..at, [tpid.to_be_bytes(), tci.to_be_bytes()].concat());
        }
        Some(Frame(data))
    }
}

/// TPID and TCI of the tag that the kernel removed from a received frame.
fn stripped_tag(message: &libc::msghdr) -> Option<(u16, u16)> {
    // SAFETY: `recvmsg` filled `message`, so its control messages are well formed and inside its control buffer. A
    // `PACKET_AUXDATA` message holds a `tpacket_auxdata`, and the read does not rely on alignment.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while let Some(control) = header.as_ref() {
            if control.cmsg_level == libc::SOL_PACKET && control.cmsg_type == libc::PACKET_AUXDATA {
                let aux = libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned();
                let with_tpid = aux.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
                let tpid = if with_tpid { aux.tp_vlan_tpid } else { CTAG };
                return (aux.tp_status & libc::TP_STATUS_VLAN_VALID != 0).then_some((tpid, aux.tp_vlan_tci));
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
        None
    }
}
