//! One AF_XDP socket: a queue of a netdev, whose rings the kernel has the other end of.
//!
//! A socket belongs to one thread at a time. Its UMEM is shared: by `XDP_SHARED_UMEM` through any live copy-mode socket. If
//! there is none, or the socket must be able to go zero-copy, the same memory is registered once more. So the first socket may
//! go while others stay. A library that ties UMEM to its first socket could not do that (`docs/dependencies.md`).
//!
//! Why this is sound: the kernel touches only chunks that the rings name. [`FrameRings`] names a chunk only while the ledger has
//! it with this socket, and gets it back by the rings, or after the kernel has let go of the socket.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::frame_rings::{Flush, FrameRings, Rings, wait_until_sent};
use super::mmap::Mmap;
use super::ring::{Consumer, Entry, Producer};
use super::sys::{self, RingKind};
use super::umem::{FrameCache, Umem};
use crate::model::{Count, ZeroCopy};

/// Descriptors that one send call is asked to handle; more does not pay (measured: within noise from 64 up).
const TX_BUDGET: u32 = 128;
/// The kernel takes a closed socket off its queue in the background: binding again at once gives EBUSY for this long at most.
const REBIND_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a socket that is to be closed waits for others to let go of its descriptor.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Live sockets whose UMEM further ones can share.
#[derive(Debug, Default)]
pub struct UmemSharers {
    /// With the number of the UMEM.
    list: Mutex<Vec<(u64, Weak<OwnedFd>)>>,
    /// Held while a socket registers UMEM because nobody could share. Each registration counts as locked memory, so of sockets
    /// that are opened at the same time only one does it.
    registering: Mutex<()>,
}

impl UmemSharers {
    fn live(&self, umem: &Umem) -> Vec<Arc<OwnedFd>> {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.retain(|(_, fd)| fd.strong_count() > 0);
        list.iter().filter(|(id, _)| *id == umem.id()).filter_map(|(_, fd)| fd.upgrade()).collect()
    }

    fn add(&self, umem: &Umem, fd: &Arc<OwnedFd>) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).push((umem.id(), Arc::downgrade(fd)));
    }
}

/// What to open.
#[derive(Clone, Copy, Debug)]
pub struct SocketOptions {
    /// Netdev.
    pub ifindex: u32,
    /// Its queue.
    pub queue: u32,
    /// Descriptors of each ring, a power of two.
    pub depth: u32,
    /// Zero-copy wish.
    pub zero_copy: ZeroCopy,
    /// Frames that the receive side is kept supplied with, at most `depth`.
    pub fill: u32,
}

/// An open socket.
#[derive(Debug)]
pub struct XskSocket {
    fd: Arc<OwnedFd>,
    rings: FrameRings,
    zero_copy: bool,
}

impl XskSocket {
    /// Opens and binds a socket and fills its fill ring from `cache`.
    ///
    /// # Errors
    /// The kernel's, with no meaning put on it; nothing is left open or taken.
    pub fn open(options: &SocketOptions, sharers: &UmemSharers, cache: &mut FrameCache) -> Result<Self, Errno> {
        let deadline = Instant::now() + REBIND_TIMEOUT;
        loop {
            match Self::open_once(options, sharers, cache.umem()) {
                Err(Errno::EBUSY) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
                Err(errno) => return Err(errno),
                Ok(mut socket) => {
                    socket.refill(cache);
                    return Ok(socket);
                }
            }
        }
    }

    fn open_once(options: &SocketOptions, sharers: &UmemSharers, umem: &Arc<Umem>) -> Result<Self, Errno> {
        // What may become zero-copy has a UMEM registration of its own: sharing inherits the mode of the one shared with.
        let flags = libc::XDP_USE_NEED_WAKEUP
            | match options.zero_copy {
                ZeroCopy::Auto => 0,
                ZeroCopy::On => libc::XDP_ZEROCOPY,
                ZeroCopy::Off => libc::XDP_COPY,
            };
        let share = || {
            let shared = |donor: Arc<OwnedFd>| Self::open_bound(options, umem, flags, Some(donor.as_fd()));
            // EBADF: the donor's netdev is gone, and the kernel has unbound it. Another one may do.
            sharers.live(umem).into_iter().map(shared).find(|result| !matches!(result, Err(Errno::EBADF)))
        };
        let mut registering = None;
        if options.zero_copy == ZeroCopy::Off {
            if let Some(result) = share() {
                return result;
            }
            registering = Some(sharers.registering.lock().unwrap_or_else(PoisonError::into_inner));
            if let Some(result) = share() {
                return result;
            }
        }
        let socket = Self::open_bound(options, umem, flags, None)?;
        if !socket.zero_copy {
            sharers.add(umem, &socket.fd);
        }
        drop(registering);
        Ok(socket)
    }

    fn open_bound(
        options: &SocketOptions,
        umem: &Arc<Umem>,
        flags: u16,
        share: Option<BorrowedFd<'_>>,
    ) -> Result<Self, Errno> {
        let fd = sys::socket()?;
        if share.is_none() {
            let (start, len) = umem.region();
            // SAFETY: `FrameRings` alone writes the rings of this socket and of those that share with it, and names only chunks
            // that the ledger has with them. The kernel holds the pages itself, should they be unmapped.
            unsafe { sys::register_umem(fd.as_fd(), start, len, umem.frame_size())? };
        }
        for ring in [RingKind::Rx, RingKind::Tx, RingKind::Fill, RingKind::Completion] {
            sys::set_ring_size(fd.as_fd(), ring, options.depth)?;
        }
        // Kernels before 6.17 don't know it, and handle 32.
        let _ = sys::set_tx_budget(fd.as_fd(), TX_BUDGET.min(options.depth));
        let layout = sys::mmap_offsets(fd.as_fd())?;
        let rings = Rings {
            rx: map_ring(fd.as_fd(), RingKind::Rx, &layout, options.depth, Consumer::from_kernel)?,
            tx: map_ring(fd.as_fd(), RingKind::Tx, &layout, options.depth, Producer::from_kernel)?,
            fill: map_ring(fd.as_fd(), RingKind::Fill, &layout, options.depth, Producer::from_kernel)?,
            completion: map_ring(fd.as_fd(), RingKind::Completion, &layout, options.depth, Consumer::from_kernel)?,
        };
        match share {
            Some(donor) => sys::bind_shared(fd.as_fd(), options.ifindex, options.queue, donor)?,
            None => sys::bind(fd.as_fd(), options.ifindex, options.queue, flags)?,
        }
        let zero_copy = sys::is_zero_copy(fd.as_fd())?;
        let rings = FrameRings::new(Arc::clone(umem), rings, options.fill.min(options.depth));
        Ok(Self { fd: Arc::new(fd), rings, zero_copy })
    }

    #[inline]
    pub(super) fn rings(&self) -> &FrameRings {
        &self.rings
    }

    #[inline]
    pub(super) fn rings_mut(&mut self) -> &mut FrameRings {
        &mut self.rings
    }

    /// The descriptor, for the XSKMAP and epoll. A duplicate would keep the kernel at the frames of a closed socket, so it
    /// stays in this crate.
    pub(crate) fn fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    /// Whether the driver moves frames without a copy.
    pub fn zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// Supplies the receive side with empty frames up to its target.
    #[inline]
    pub fn refill(&mut self, cache: &mut FrameCache) {
        self.rings.refill(cache);
        if self.zero_copy && self.rings.fill_needs_wakeup() {
            sys::kick_rx(self.fd.as_fd());
        }
    }

    /// Shows the kernel all staged frames and calls it until it has taken them, as long as it makes progress.
    pub fn flush(&mut self) -> Flush {
        self.rings.submit();
        if !self.rings.tx_needs_wakeup() {
            return Flush::Done;
        }
        let mut left = self.rings.tx_pending();
        while left > 0 {
            let result = sys::kick_tx(self.fd.as_fd());
            let now = self.rings.tx_pending();
            match result {
                // The netdev is down: trying again soon is of no use, and the next frame tries anyway.
                Err(Errno::ENETDOWN) => return Flush::Done,
                // It is gone. The kernel has unbound the socket (`xsk_is_bound` in `xsk_sendmsg`) and looks at no ring any more.
                Err(Errno::ENXIO | Errno::ENODEV) => {
                    self.rings.mark_gone();
                    return Flush::Done;
                }
                // Without progress the device is stuck (no buffers or completion space): the worker goes on with its other
                // ports and comes back.
                _ if now == left => return Flush::Pending,
                _ => left = now,
            }
        }
        Flush::Done
    }

    /// Sends what is staged, waits up to `grace` for it to be sent, closes the socket and gives all its frames to `cache`.
    /// Returns what had been received and nobody has taken: the XDP program must not send it any more by then.
    pub fn close(mut self, grace: Duration, cache: &mut FrameCache) -> Count {
        wait_until_sent(grace, || {
            let flushed = self.flush();
            self.rings.reap(cache);
            flushed == Flush::Done && self.rings.outstanding().1 == 0
        });
        let untaken = self.rings.discard_received(cache);
        let Self { fd, rings, .. } = self;
        match sole(fd) {
            Ok(fd) => {
                // This waits until the driver's receive path has let go of the socket (`synchronize_net` in
                // `xsk_unbind_dev`). Afterwards nobody writes into its frames.
                drop(fd);
                rings.reclaim(cache);
            }
            // The kernel goes on with the frames, so they stay with the socket.
            Err(shared) => {
                tracing::error!(fd = shared.as_raw_fd(), "an AF_XDP socket is held elsewhere while it is closed");
            }
        }
        untaken
    }
}

/// The descriptor for its last holder. Others have it for a moment: those that read statistics or share its UMEM.
fn sole(fd: Arc<OwnedFd>) -> Result<OwnedFd, Arc<OwnedFd>> {
    let deadline = Instant::now() + CLOSE_TIMEOUT;
    let mut tried = Arc::try_unwrap(fd);
    while let Err(shared) = tried {
        if Instant::now() >= deadline {
            return Err(shared);
        }
        std::thread::sleep(Duration::from_millis(1));
        tried = Arc::try_unwrap(shared);
    }
    tried
}

/// The kernel's counters of a socket (`XDP_STATISTICS`), by their field names.
pub fn counters(fd: BorrowedFd<'_>) -> Result<[(&'static str, u64); 6], Errno> {
    let s = sys::statistics(fd)?;
    Ok([
        ("rx_dropped", s.rx_dropped),
        ("rx_invalid_descs", s.rx_invalid_descs),
        ("tx_invalid_descs", s.tx_invalid_descs),
        ("rx_ring_full", s.rx_ring_full),
        ("rx_fill_ring_empty_descs", s.rx_fill_ring_empty_descs),
        ("tx_ring_empty_descs", s.tx_ring_empty_descs),
    ])
}

fn map_ring<R, T: Entry>(
    fd: BorrowedFd<'_>,
    kind: RingKind,
    layout: &libc::xdp_mmap_offsets,
    size: u32,
    end: unsafe fn(Mmap, &libc::xdp_ring_offset, u32) -> Result<R, Errno>,
) -> Result<R, Errno>
where
    R: RingOf<T>,
{
    let offsets = kind.offsets(layout);
    let len = offsets.desc as usize + size as usize * size_of::<T>();
    let map = Mmap::ring(fd, len, kind.page_offset())?;
    // SAFETY: the mapping is that of this ring, and the descriptor is new, so this is the only end on the user's side. It goes
    // into `FrameRings`, which pushes only frames that it has given to an owner of this socket.
    unsafe { end(map, &offsets, size) }
}

/// Ties an end of a ring to its entry type.
trait RingOf<T> {}
impl<T> RingOf<T> for Producer<T> {}
impl<T> RingOf<T> for Consumer<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::HugePages;

    #[test]
    fn umem_is_shared_with_sockets_of_the_same_umem_only() {
        let [one, other] = [(); 2].map(|()| Umem::new(32, 2048, HugePages::Off).unwrap());
        let fd = Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
        let sharers = UmemSharers::default();
        sharers.add(&one, &fd);
        assert_eq!((sharers.live(&one).len(), sharers.live(&other).len()), (1, 0));
        drop(fd);
        assert_eq!(sharers.live(&one).len(), 0);
    }

    #[test]
    fn a_descriptor_that_others_have_for_a_moment_is_waited_for() {
        let fd = Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
        let other = Arc::clone(&fd);
        let holder = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            drop(other);
        });
        assert!(sole(fd).is_ok());
        holder.join().unwrap();
    }
}
