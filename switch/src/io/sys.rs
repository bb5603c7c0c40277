//! The system calls of AF_XDP, one function each, with types instead of numbers.
//!
//! Nothing here decides anything. A failure comes back as the bare [`Errno`]. Callers turn it into words with what they
//! know (`xdp_prog::explain_bind_error`). ABI: `include/uapi/linux/if_xdp.h`, kernel 6.18.

use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// `XDP_MAX_TX_SKB_BUDGET` (kernel 6.17 and later): descriptors that one copy-mode send call handles. It is 32 without
/// the option.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// Flag of a bind: packets may have several descriptors, either way (kernel 6.6 and later).
pub const XDP_USE_SG: u16 = 1 << 4;

/// The address family, as wide as in addresses.
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

    /// Offsets of the producer, consumer, flags and descriptors of this ring in its mapping.
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
/// `T` is the option's C struct. If `value` names memory, the kernel may use that memory as the option says.
pub(crate) unsafe fn set_option<T>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: &T,
) -> Result<(), Errno> {
    // SAFETY: `value` is a live reference to as many bytes, and the kernel only reads them. The caller vouches for the
    // rest.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), socklen_of::<T>()) };
    Errno::result(result).map(drop)
}

/// Sets an option whose value is a number.
pub(crate) fn set_number(fd: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: u32) -> Result<(), Errno> {
    // SAFETY: a number names no memory.
    unsafe { set_option(fd, level, option, &value) }
}

/// Binds a socket to an address of its family.
///
/// # Safety
/// `T` is the C struct of an address, and has no pointers.
pub(crate) unsafe fn bind_to<T>(fd: BorrowedFd<'_>, address: &T) -> Result<(), Errno> {
    // SAFETY: `address` is a live reference to as many bytes, and the kernel only reads them.
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
    // SAFETY: all zeroes is a valid `T` by this function's contract.
    let mut value: T = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most `len` bytes, which is the size of `value`.
    let result = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_XDP, option, std::ptr::from_mut(&mut value).cast(), &raw mut len)
    };
    Errno::result(result).map(|_| value)
}

/// A new AF_XDP socket without UMEM, rings or binding. Needs CAP_NET_RAW.
pub fn socket() -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes no pointers. A non-negative result is a descriptor that nobody else owns.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    // SAFETY: see above.
    Errno::result(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Registers `len` bytes at `addr` as the socket's UMEM, in chunks of `chunk_size` bytes, without extra headroom.
///
/// # Safety
/// While the kernel has the socket, it reads and writes the chunks that the socket's rings name. The same holds for the
/// rings of sockets that share its UMEM. Writers of these rings must name only chunks that nobody else touches
/// meanwhile.
pub unsafe fn register_umem(fd: BorrowedFd<'_>, addr: *mut u8, len: usize, chunk_size: u32) -> Result<(), Errno> {
    let registration = libc::xdp_umem_reg {
        addr: addr.addr() as u64,
        len: len as u64,
        chunk_size,
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    // SAFETY: the option takes this struct. This function's contract covers what the kernel does with the memory.
    unsafe { set_option(fd, libc::SOL_XDP, libc::XDP_UMEM_REG, &registration) }
}

/// Makes a ring of `size` descriptors, a power of two.
pub fn set_ring_size(fd: BorrowedFd<'_>, ring: RingKind, size: u32) -> Result<(), Errno> {
    set_number(fd, libc::SOL_XDP, ring.option(), size)
}

/// Lets one copy-mode send call handle `frames` descriptors. EACCES above the size of the tx ring.
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
/// It asks for a send that may wait, which the kernel refuses. Before that the kernel says ENXIO for a socket that is
/// not bound, or not any more (`__xsk_sendmsg` in `net/xdp/xsk.c`).
pub fn is_bound(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: the call gets no memory.
    let sent = unsafe { libc::send(fd.as_raw_fd(), std::ptr::null(), 0, libc::MSG_NOSIGNAL) };
    match Errno::result(sent) {
        // ENETDOWN: the netdev is there, but down.
        Err(Errno::EOPNOTSUPP | Errno::ENETDOWN) => true,
        // Somebody made the socket non-blocking. So the kernel carried out the call, and sent what was to be sent
        // anyway.
        Ok(_) | Err(Errno::EAGAIN | Errno::EBUSY | Errno::ENOBUFS) => is_zero_copy(fd).is_ok(),
        Err(_) => false,
    }
}

/// Makes a listening Unix socket refuse descriptors from clients (`SO_PASSRIGHTS`, kernel 6.16 and later).
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

/// Whether the kernel knows [`XDP_USE_SG`]. Nothing is bound: no netdev has index 0. An unknown flag is refused before
/// that (`xsk_bind` in `net/xdp/xsk.c`).
pub fn knows_sg() -> bool {
    socket().is_ok_and(|fd| bind(fd.as_fd(), 0, 0, XDP_USE_SG) != Err(Errno::EINVAL))
}

/// Binds to one queue of a netdev, with the socket's own UMEM.
pub fn bind(fd: BorrowedFd<'_>, ifindex: u32, queue: u32, flags: u16) -> Result<(), Errno> {
    bind_with(fd, ifindex, queue, flags & !libc::XDP_SHARED_UMEM, None)
}

/// Binds to one queue of a netdev, with the UMEM of the bound socket `donor`, in the donor's mode.
///
/// Not public, because the socket's rings then name chunks of the donor's UMEM.
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
    // SAFETY: this is an address of the socket's family, and consists of numbers.
    unsafe { bind_to(fd, &address) }
}

/// Makes the kernel send what is in the tx ring.
///
/// - `EAGAIN`: there is more.
/// - `EBUSY`: it stopped at a frame that it could not send. That frame counts as done.
/// - `ENOBUFS`: the device takes nothing more at the moment.
#[inline]
pub fn kick_tx(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: a send without data or address.
    let result = unsafe { libc::sendto(fd.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
    Errno::result(result).map(drop)
}

/// Makes a sleeping driver look at its fill ring.
#[inline]
pub fn kick_rx(fd: BorrowedFd<'_>) {
    // SAFETY: a receive without a buffer. The rings tell more than its result.
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

/// Has the scheduler prefer the calling thread to others, as far as its user may have that.
///
/// # Errors
/// `EACCES`, `EPERM`: it may not.
pub fn raise_priority() -> Result<(), Errno> {
    /// Nice values go from -20, the most preferred, to 19.
    const PREFERRED: libc::c_int = -15;
    // SAFETY: the call takes numbers only. 0 is the calling thread.
    Errno::result(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, PREFERRED) }).map(drop)
}
