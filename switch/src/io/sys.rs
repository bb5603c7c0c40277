//! The system calls of AF_XDP, one function each, with types instead of numbers.
//!
//! Nothing here decides anything. A call's failure comes back as the bare [`Errno`]; callers turn it into words with what they
//! know (`xdp_prog::explain_bind_error`). ABI: `include/uapi/linux/if_xdp.h`, kernel 6.18.

use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// `XDP_MAX_TX_SKB_BUDGET` of kernel 6.17 and later: descriptors that one copy-mode send call handles (32 without it).
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// The family as addresses have it.
#[expect(clippy::cast_possible_truncation, reason = "a family is a small number")]
const AF_XDP: libc::sa_family_t = libc::AF_XDP as libc::sa_family_t;

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

/// # Safety
/// `T` is the option's C struct. If `value` names memory, the kernel may do with it what the option is for.
pub(super) unsafe fn set_option<T>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: &T,
) -> Result<(), Errno> {
    // SAFETY: `value` is a live reference to as many bytes, which the kernel only reads. The rest is by contract.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), socklen_of::<T>()) };
    Errno::result(result).map(drop)
}

/// Sets an option that is a number.
pub(super) fn set_number(fd: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: u32) -> Result<(), Errno> {
    // SAFETY: four bytes name no memory.
    unsafe { set_option(fd, level, option, &value) }
}

/// Binds a socket to an address of its family.
///
/// # Safety
/// `T` is the C struct of an address, without pointers.
pub(super) unsafe fn bind_to<T>(fd: BorrowedFd<'_>, address: &T) -> Result<(), Errno> {
    // SAFETY: `address` is a live reference to as many bytes, which the kernel only reads.
    let result = unsafe { libc::bind(fd.as_raw_fd(), std::ptr::from_ref(address).cast(), socklen_of::<T>()) };
    Errno::result(result).map(drop)
}

#[expect(clippy::cast_possible_truncation, reason = "structs of the kernel's ABI are of some hundred bytes at most")]
const fn socklen_of<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

/// # Safety
/// `T` is a C struct of integers, for which all zeroes and any bytes that the kernel writes are valid.
unsafe fn get_option<T>(fd: BorrowedFd<'_>, option: libc::c_int) -> Result<T, Errno> {
    let mut len = socklen_of::<T>();
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
/// As long as the kernel has the socket, it reads and writes the chunks whose addresses are in the socket's rings, and in those
/// of sockets that share its UMEM. Whoever writes these rings puts only chunks there that nobody else touches meanwhile.
pub unsafe fn register_umem(fd: BorrowedFd<'_>, addr: *mut u8, len: usize, chunk_size: u32) -> Result<(), Errno> {
    let registration = libc::xdp_umem_reg {
        addr: addr.addr() as u64,
        len: len as u64,
        chunk_size,
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    // SAFETY: the option takes this struct; what it does with the memory is in this function's contract.
    unsafe { set_option(fd, libc::SOL_XDP, libc::XDP_UMEM_REG, &registration) }
}

/// Sets the size of a ring, in descriptors (a power of two), which makes the ring.
pub fn set_ring_size(fd: BorrowedFd<'_>, ring: RingKind, size: u32) -> Result<(), Errno> {
    set_number(fd, libc::SOL_XDP, ring.option(), size)
}

/// Lets one copy-mode send call handle `frames` descriptors. At most the TX ring's size (EACCES above it).
pub fn set_tx_budget(fd: BorrowedFd<'_>, frames: u32) -> Result<(), Errno> {
    set_number(fd, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, frames)
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

/// Whether an AF_XDP socket is bound to a netdev that is there.
///
/// It sends nothing, in a way that the kernel does not carry out. Of a socket that is not bound (any more) the kernel says ENXIO
/// before it refuses to wait (`__xsk_sendmsg` in `net/xdp/xsk.c`).
pub fn is_bound(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: no memory is given.
    let sent = unsafe { libc::send(fd.as_raw_fd(), std::ptr::null(), 0, libc::MSG_NOSIGNAL) };
    match Errno::result(sent) {
        // ENETDOWN: the netdev is there and down.
        Err(Errno::EOPNOTSUPP | Errno::ENETDOWN) => true,
        // The socket was made one that never waits. So the call was carried out, and sent what was to be sent anyway.
        Ok(_) | Err(Errno::EAGAIN | Errno::EBUSY | Errno::ENOBUFS) => is_zero_copy(fd).is_ok(),
        Err(_) => false,
    }
}

/// Makes a listening Unix socket refuse descriptors that clients send (`SO_PASSRIGHTS`, kernel 6.16 and later).
pub fn refuse_descriptors(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    const SO_PASSRIGHTS: libc::c_int = 83;
    set_number(fd, libc::SOL_SOCKET, SO_PASSRIGHTS, 0)
}

/// Whether a bound socket is in zero-copy mode.
pub fn is_zero_copy(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    // SAFETY: `xdp_options` is integers only.
    let options: libc::xdp_options = unsafe { get_option(fd, libc::XDP_OPTIONS)? };
    Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
}

/// Binds to one queue of a netdev, with the socket's own UMEM.
pub fn bind(fd: BorrowedFd<'_>, ifindex: u32, queue: u32, flags: u16) -> Result<(), Errno> {
    bind_with(fd, ifindex, queue, flags & !libc::XDP_SHARED_UMEM, None)
}

/// Binds to one queue of a netdev, with the UMEM of the bound socket `donor`, and in its mode.
///
/// It is not for everybody: the rings of the socket then name chunks of the donor's UMEM.
pub(super) fn bind_shared(fd: BorrowedFd<'_>, ifindex: u32, queue: u32, donor: BorrowedFd<'_>) -> Result<(), Errno> {
    bind_with(fd, ifindex, queue, libc::XDP_SHARED_UMEM, Some(donor))
}

fn bind_with(
    fd: BorrowedFd<'_>,
    ifindex: u32,
    queue: u32,
    flags: u16,
    donor: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let address = libc::sockaddr_xdp {
        sxdp_family: AF_XDP,
        sxdp_flags: flags,
        sxdp_ifindex: ifindex,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: donor.map_or(0, |fd| fd.as_raw_fd().unsigned_abs()),
    };
    // SAFETY: an address of the socket's family, of numbers only.
    unsafe { bind_to(fd, &address) }
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
