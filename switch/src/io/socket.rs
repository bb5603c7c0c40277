//! One AF_XDP socket on a queue of a netdev. The kernel has the other end of its rings.
//!
//! A socket belongs to one thread at a time. Sockets share UMEM through any live copy-mode socket (`XDP_SHARED_UMEM`).
//! The same memory is registered once more if there is none, or if the socket must be able to go zero-copy. So the
//! first socket may close while others stay. A library that ties UMEM to its first socket could not do that
//! (`docs/dependencies.md`). Sharing inherits `XDP_USE_SG` from the donor, so all copy-mode sockets have it or none. A
//! socket with a UMEM of its own ([`RingMemory::Own`]) registers that, and shares it with
//! nobody.
//!
//! Soundness: the kernel touches only chunks that the rings name. [`QueueRings`] names a chunk only while the ledger
//! has it with this socket. It gets the chunk back from the rings, or after the kernel has let go of the socket.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::frame_rings::{Flush, Rings, wait_until_sent};
use super::mmap::Mmap;
use super::queue_rings::{QueueRings, RingMemory};
use super::ring::{Consumer, Entry, Producer};
use super::sys::{self, RingKind};
use super::umem::{FrameCache, Umem};
use crate::model::{Count, ZeroCopy};

/// Descriptors that one send call is asked to handle. More does not pay: from 64 up the rates are within noise.
const TX_BUDGET: u32 = 128;
/// Longest time that binding again gives EBUSY. The kernel takes a closed socket off its queue in the background.
const REBIND_TIMEOUT: Duration = Duration::from_secs(3);

/// How long closing a socket waits for other holders of its descriptor.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Live sockets whose UMEM further sockets can share.
#[derive(Debug, Default)]
pub struct UmemSharers {
    /// Each with the number of its UMEM.
    list: Mutex<Vec<(u64, Weak<OwnedFd>)>>,
    /// Held while a socket registers UMEM because it found no socket to share with. Each registration counts as locked
    /// memory. So only one of several sockets that open at once registers it.
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

/// Which socket to open, and how.
#[derive(Clone, Copy, Debug)]
pub struct SocketOptions {
    /// Index of the netdev.
    pub ifindex: u32,
    /// Queue of the netdev.
    pub queue: u32,
    /// Descriptors of each ring, a power of two.
    pub depth: u32,
    /// Whether zero-copy mode is wanted.
    pub zero_copy: ZeroCopy,
    /// Where its frames lie.
    pub memory: RingMemory,
    /// Whether packets may have several chunks (`XDP_USE_SG`, kernel 6.6 and later).
    pub takes_chains: bool,
}

/// An open socket.
#[derive(Debug)]
pub struct XskSocket {
    fd: Arc<OwnedFd>,
    rings: QueueRings,
    zero_copy: bool,
}

impl XskSocket {
    /// Opens and binds a socket and fills its fill ring. `cache` has frames of the shared UMEM.
    ///
    /// # Errors
    /// The kernel's bare error. Nothing is left open or taken.
    pub fn open(options: &SocketOptions, sharers: &UmemSharers, cache: &mut FrameCache) -> Result<Self, Errno> {
        let deadline = Instant::now() + REBIND_TIMEOUT;
        let umem = options.memory.umem(cache.umem(), options.depth)?;
        loop {
            match Self::open_once(options, sharers, &umem) {
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
        // A socket that may become zero-copy registers UMEM by itself, because sharing inherits the donor's mode.
        let flags = libc::XDP_USE_NEED_WAKEUP
            | match options.zero_copy {
                ZeroCopy::Auto => 0,
                ZeroCopy::On => libc::XDP_ZEROCOPY,
                ZeroCopy::Off => libc::XDP_COPY,
            }
            | if options.takes_chains { sys::XDP_USE_SG } else { 0 };
        let share = || {
            let shared = |donor: Arc<OwnedFd>| Self::open_bound(options, umem, flags, Some(donor.as_fd()));
            // EBADF: the donor's netdev is gone, and the kernel has unbound the donor. Another donor may do.
            sharers.live(umem).into_iter().map(shared).find(|result| !matches!(result, Err(Errno::EBADF)))
        };
        if options.memory == RingMemory::Own {
            return Self::open_bound(options, umem, flags, None);
        }
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
            // SAFETY: only `QueueRings` writes the rings of this socket and of those that share with it. It names only
            // chunks that the ledger has with them. The kernel holds the pages itself, even if they are unmapped.
            unsafe { sys::register_umem(fd.as_fd(), start, len, umem.frame_size())? };
        }
        for ring in [RingKind::Rx, RingKind::Tx, RingKind::Fill, RingKind::Completion] {
            sys::set_ring_size(fd.as_fd(), ring, options.depth)?;
        }
        // Kernels before 6.17 lack the option, and handle 32 descriptors a call.
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
        let rings = QueueRings::new(Arc::clone(umem), rings, options.memory, options.depth, options.takes_chains);
        Ok(Self { fd: Arc::new(fd), rings, zero_copy })
    }

    #[inline]
    pub(super) fn rings(&self) -> &QueueRings {
        &self.rings
    }

    #[inline]
    pub(super) fn rings_mut(&mut self) -> &mut QueueRings {
        &mut self.rings
    }

    /// The descriptor, for the XSKMAP and epoll. It stays in this crate: a duplicate would keep the kernel writing to
    /// the frames of a closed socket.
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

    /// Shows the kernel all staged frames, then calls it until it has taken them or makes no progress.
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
                // The netdev is down. Trying again soon is of no use, and the next frame tries anyway.
                Err(Errno::ENETDOWN) => return Flush::Done,
                // The netdev is gone. The kernel has unbound the socket (`xsk_is_bound` in `xsk_sendmsg`) and looks at
                // no ring any more.
                Err(Errno::ENXIO | Errno::ENODEV) => {
                    self.rings.mark_gone();
                    return Flush::Done;
                }
                // The device is stuck: it has no buffers or no completion space. The worker goes on with its other
                // ports and comes back.
                _ if now == left => return Flush::Pending,
                _ => left = now,
            }
        }
        Flush::Done
    }

    /// Sends what is staged, waits up to `grace` for it, and closes the socket. Gives all its frames to `cache`.
    /// Returns the received frames that nobody had taken. The XDP program must no longer send to the socket.
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
                // The drop waits until the driver's receive path has let go of the socket (`synchronize_net` in
                // `xsk_unbind_dev`). After that nobody writes into its frames.
                drop(fd);
                rings.reclaim(cache);
            }
            // The kernel goes on using the frames, so they stay with the socket.
            Err(shared) => {
                tracing::error!(fd = shared.as_raw_fd(), "an AF_XDP socket is held elsewhere while it is closed");
            }
        }
        untaken
    }
}

/// The descriptor once nobody else holds it. Others hold it briefly to read statistics or to share its UMEM.
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
    let entries = usize::try_from(offsets.desc).map_err(|_| Errno::EINVAL)?;
    let len = entries + size as usize * size_of::<T>();
    let map = Mmap::ring(fd, len, kind.page_offset())?;
    // SAFETY: the mapping is that of this ring. The descriptor is new, so this is the only user-side end. It goes into
    // `QueueRings`, which pushes only frames that it has given to an owner of this socket.
    unsafe { end(map, &offsets, size) }
}

/// Ties a ring's end to its entry type.
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
