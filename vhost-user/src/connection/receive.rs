//! Receives bytes with descriptors.
//!
//! Nix gives no descriptors out if some were lost, and leaves those open that were not.
#![allow(unsafe_code, reason = "recvmsg(2), and descriptors that the kernel hands out as numbers")]

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// The most that one message carries (`SCM_MAX_FD` of the kernel).
const MAX_FDS: usize = 253;

/// Bytes of control data for as many descriptors. The sizes are far below all limits.
#[expect(clippy::cast_possible_truncation, reason = "about a thousand bytes")]
const CONTROL_LEN: usize = {
    // SAFETY: this computes a length, and touches no memory.
    unsafe { libc::CMSG_SPACE((MAX_FDS * size_of::<RawFd>()) as u32) as usize }
};

/// Room for control data, aligned as its headers have to be.
#[repr(C)]
union Control {
    _align: libc::cmsghdr,
    bytes: [MaybeUninit<u8>; CONTROL_LEN],
}

/// What came.
#[derive(Debug)]
pub(super) struct Received {
    /// Bytes that were filled. 0 is the end of the stream.
    pub count: usize,
    /// Descriptors that came along. They close on exec.
    pub fds: Vec<OwnedFd>,
    /// The kernel had no room for all descriptors: the process has too many open.
    pub lost: bool,
}

/// Receives what is there, without waiting. `into` must not be empty.
pub(super) fn receive(socket: BorrowedFd<'_>, into: &mut [u8]) -> Result<Received, Errno> {
    let mut control = Control { bytes: [MaybeUninit::uninit(); CONTROL_LEN] };
    let mut part = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    // SAFETY: all zeroes is a valid header: no name, no parts, no control data.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = CONTROL_LEN;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the header names two live buffers with their lengths. The kernel writes within them.
    let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
    let count = usize::try_from(Errno::result(count)?).unwrap_or(0);
    let fds = descriptors(&header);
    Ok(Received { count, fds, lost: header.msg_flags & libc::MSG_CTRUNC != 0 })
}

/// The descriptors in the control data that the kernel has just written.
fn descriptors(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: the kernel has set the length of the control data to what it has written, which is valid.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !next.is_null() {
        // SAFETY: the pointer is to a header in the control data, which is aligned for it and initialised.
        let control = unsafe { next.read() };
        if (control.cmsg_level, control.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: this computes a length, and touches no memory.
            let empty = unsafe { libc::CMSG_LEN(0) };
            let bytes = control.cmsg_len.saturating_sub(usize::try_from(empty).unwrap_or(usize::MAX));
            // SAFETY: the pointer stays within the control data, or at its end.
            let data = unsafe { libc::CMSG_DATA(next) }.cast::<RawFd>();
            for at in 0..bytes / size_of::<RawFd>() {
                // SAFETY: the kernel has written as many numbers. Each is a descriptor of this process that is new,
                // so nobody else owns it.
                fds.push(unsafe { OwnedFd::from_raw_fd(data.add(at).read_unaligned()) });
            }
        }
        // SAFETY: `next` is a header of this control data.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    fds
}
