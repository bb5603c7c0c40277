//! The system calls of AF_XDP, one function each, with types instead of numbers.
//!
//! Nothing here decides anything: a call's failure comes back as the bare [`Errno`], and callers turn it into words with what
//! they know (`xdp_prog::explain_bind_error`). ABI: `include/uapi/linux/if_xdp.h`, kernel 6.18.

use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// `XDP_MAX_TX_SKB_BUDGET` of kernel 6.17 and later: descriptors that one copy-mode send call handles (32 without it).
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// One of the four rings of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingKind {
    /// Received frames, kernel to user.
    Rx,
    /// Frames to send, user to kernel.
    Tx,
    /// Empty frames, user to kernel.
    Fill,
    /// Sent frames, kernel to user.
    Completion,
}

impl RingKind {
    fn option(self) -> libc::c_int {
        match self {
            RingKind::Rx => libc::XDP_RX_RING,
            RingKind::Tx => libc::XDP_TX_RING,
            RingKind::Fill => libc::XDP_UMEM_FILL_RING,
            RingKind::Completion => libc::XDP_UMEM_COMPLETION_RING,
        }
    }

    /// Offset that selects this ring in `mmap` of the socket.
    pub fn page_offset(self) -> libc::off_t {
        match self {
            RingKind::Rx => 0,
            RingKind::Tx => 0x8000_0000,
            RingKind::Fill => 0x1_0000_0000,
            RingKind::Completion => 0x1_8000_0000,
        }
    }

    /// Where producer, consumer, flags and descriptors of this ring sit in its mapping.
    pub fn offsets(self, all: &libc::xdp_mmap_offsets) -> libc::xdp_ring_offset {
        match self {
            RingKind::Rx => all.rx,
            RingKind::Tx => all.tx,
            RingKind::Fill => all.fr,
            RingKind::Completion => all.cr,
        }
    }
}

fn set_option<T>(fd: BorrowedFd<'_>, option: libc::c_int, value: &T) -> Result<(), Errno> {
    // SAFETY: `value` is a live reference to a plain C value of `size_of::<T>()` bytes, which the kernel only reads.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop)
}

/// # Safety
/// `T` is a C struct of integers, for which all zeroes and any bytes that the kernel writes are valid.
unsafe fn get_option<T>(fd: BorrowedFd<'_>, option: libc::c_int) -> Result<T, Errno> {
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: by this function's contract all zeroes is a valid `T`.
    let mut value: T = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most `len` bytes, which is the size of `value`.
    let result = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_XDP, option, std::ptr::from_mut(&mut value).cast(), &raw mut len)
    };
    Errno::result(result).map(|_| value)
}

/// A new AF_XDP socket: no UMEM, no rings, not bound. Needs CAP_NET_RAW.
pub fn socket() -> Result<OwnedFd, Errno> {
    // SAFETY: no pointers; a non-negative result is a descriptor that nobody else owns.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    // SAFETY: see above.
    Errno::result(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Registers `len` bytes at `addr` as the socket's UMEM, in chunks of `chunk_size` bytes with no headroom of our own.
///
/// # Safety
/// The memory stays mapped, and nothing but frame accessors touches it, until the socket is closed.
pub unsafe fn register_umem(fd: BorrowedFd<'_>, addr: *mut u8, len: usize, chunk_size: u32) -> Result<(), Errno> {
    let registration = libc::xdp_umem_reg {
        addr: addr.addr() as u64,
        len: len as u64,
        chunk_size,
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    set_option(fd, libc::XDP_UMEM_REG, &registration)
}

/// Sets the size of a ring, in descriptors (a power of two), which makes the ring.
pub fn set_ring_size(fd: BorrowedFd<'_>, ring: RingKind, size: u32) -> Result<(), Errno> {
    set_option(fd, ring.option(), &size)
}

/// Lets one copy-mode send call handle `frames` descriptors. At most the TX ring's size (EACCES above it).
pub fn set_tx_budget(fd: BorrowedFd<'_>, frames: u32) -> Result<(), Errno> {
    set_option(fd, XDP_MAX_TX_SKB_BUDGET, &frames)
}

/// The layout of the socket's ring mappings.
pub fn mmap_offsets(fd: BorrowedFd<'_>) -> Result<libc::xdp_mmap_offsets, Errno> {
    // SAFETY: `xdp_mmap_offsets` is integers only.
    unsafe { get_option(fd, libc::XDP_MMAP_OFFSETS) }
}

/// The kernel's counters of the socket.
pub fn statistics(fd: BorrowedFd<'_>) -> Result<libc::xdp_statistics, Errno> {
    // SAFETY: `xdp_statistics` is integers only.
    unsafe { get_option(fd, libc::XDP_STATISTICS) }
}

/// Whether an AF_XDP socket is bound to a netdev that is there. Asked by sending nothing in a way that the kernel does not carry
/// out: it says ENXIO of a socket that is not bound (any more) before it refuses to wait (`__xsk_sendmsg` in `net/xdp/xsk.c`).
pub fn is_bound(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: no memory is given.
    let sent = unsafe { libc::send(fd.as_raw_fd(), std::ptr::null(), 0, libc::MSG_NOSIGNAL) };
    match Errno::result(sent) {
        // ENETDOWN: the netdev is there and down.
        Err(Errno::EOPNOTSUPP | Errno::ENETDOWN) => true,
        // Whoever has it has made it one that never waits: it was carried out, which sends what was to be sent anyway.
        Ok(_) | Err(Errno::EAGAIN | Errno::EBUSY | Errno::ENOBUFS) => is_zero_copy(fd).is_ok(),
        Err(_) => false,
    }
}

/// Makes a listening Unix socket refuse descriptors that clients send (`SO_PASSRIGHTS`, kernel 6.16 and later).
pub fn refuse_descriptors(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    const SO_PASSRIGHTS: libc::c_int = 83;
    let off: libc::c_int = 0;
    // SAFETY: `off` is a live integer of the size given, which the kernel only reads.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            std::ptr::from_ref(&off).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop)
}

/// Whether a bound socket is in zero-copy mode.
pub fn is_zero_copy(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    // SAFETY: `xdp_options` is integers only.
    let options: libc::xdp_options = unsafe { get_option(fd, libc::XDP_OPTIONS)? };
    Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
}

/// Binds to one queue of a netdev. With `share`, the UMEM of that bound socket is used and `flags` must be 0.
pub fn bind(
    fd: BorrowedFd<'_>,
    ifindex: u32,
    queue: u32,
    flags: u16,
    share: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: if share.is_some() { libc::XDP_SHARED_UMEM } else { flags },
        sxdp_ifindex: ifindex,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: share.map_or(0, |fd| fd.as_raw_fd().unsigned_abs()),
    };
    // SAFETY: `address` is a `sockaddr_xdp` of the size given, which the kernel only reads.
    let result = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            std::ptr::from_ref(&address).cast(),
            size_of::<libc::sockaddr_xdp>() as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop)
}

/// Makes the kernel send what is in the TX ring. `EAGAIN`: there is more; `EBUSY`: it stopped at a frame that it could not
/// send, which is done with all the same; `ENOBUFS`: the device takes nothing more now.
#[inline]
pub fn kick_tx(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: a send without data and address.
    let result = unsafe { libc::sendto(fd.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
    Errno::result(result).map(drop)
}

/// Makes a driver that sleeps look at its fill ring.
#[inline]
pub fn kick_rx(fd: BorrowedFd<'_>) {
    // SAFETY: a receive without a buffer. Its result says nothing that the rings do not say better.
    unsafe {
        libc::recvfrom(
            fd.as_raw_fd(),
            std::ptr::null_mut(),
            0,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        );
    }
}
