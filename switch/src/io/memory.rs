//! A queue in memory: rings like those of an AF_XDP socket, and a [`MemoryKernel`] in place of the kernel.
//!
//! Tests, made-up hosts and micro-benchmarks put frames in and take them out at the kernel's end. That end may be on
//! another thread than the queue. It wakes a sleeping worker. It can go away as a netdev does.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::frame_rings::{Flush, Rings, wait_until_sent};
use super::queue_rings::{QueueRings, RingMemory};
use super::ring::{CONTINUED, Consumer, Desc, Producer, pair};
use super::umem::{FrameCache, HEADROOM, Umem};
use crate::model::Count;

/// State that both ends share beside the rings.
#[derive(Debug)]
struct Link {
    /// Whether the queue is open. The kernel's end holds the lock while it touches frames.
    open: Mutex<bool>,
    /// Whether the kernel's end is gone.
    gone: AtomicBool,
    /// Whether to signal the next frame that comes in.
    wants_wakeup: AtomicBool,
    /// The eventfd that wakes the worker.
    event: Arc<OwnedFd>,
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The worker's end of a queue in memory.
#[derive(Debug)]
pub struct MemoryQueue {
    rings: QueueRings,
    link: Arc<Link>,
}

/// Makes a queue with rings of `depth` descriptors (a power of two), and its kernel's end. `shared` is the UMEM that
/// all queues share.
///
/// # Errors
/// No descriptor is left for the wake-up, or no memory for a UMEM of its own.
pub fn queue(shared: &Arc<Umem>, depth: u32, memory: RingMemory) -> Result<(MemoryQueue, MemoryKernel), Errno> {
    let umem = memory.umem(shared, depth)?;
    let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
    let link = Arc::new(Link {
        open: Mutex::new(true),
        gone: AtomicBool::new(false),
        wants_wakeup: AtomicBool::new(false),
        event: Arc::new(event.into()),
    });
    let (kernel, rings) = KernelRings::pair(depth);
    let rings = QueueRings::new(Arc::clone(&umem), rings, memory, depth, true);
    let kernel = MemoryKernel { umem, rings: kernel, link: Arc::clone(&link) };
    Ok((MemoryQueue { rings, link }, kernel))
}

impl MemoryQueue {
    #[inline]
    pub(super) fn rings(&self) -> &QueueRings {
        &self.rings
    }

    #[inline]
    pub(super) fn rings_mut(&mut self) -> &mut QueueRings {
        &mut self.rings
    }

    /// The eventfd that is signalled after [`MemoryQueue::ask_for_wakeup`].
    pub fn fd(&self) -> &Arc<OwnedFd> {
        &self.link.event
    }

    /// Supplies the receive side with empty frames up to its target.
    #[inline]
    pub fn refill(&mut self, cache: &mut FrameCache) {
        self.rings.refill(cache);
    }

    /// Shows the kernel's end all staged frames.
    #[inline]
    pub fn flush(&mut self) -> Flush {
        self.rings.submit();
        if self.link.gone.load(Ordering::Acquire) {
            self.rings.mark_gone();
        }
        Flush::Done
    }

    /// Asks for a signal when the next frame comes in.
    pub fn ask_for_wakeup(&self) {
        // Clears an earlier signal, if there is one.
        let _ = nix::unistd::read(self.link.event.as_fd(), &mut [0; 8]);
        self.link.wants_wakeup.store(true, Ordering::Relaxed);
        // Pairs with the fence in `MemoryKernel::wake`. At least one side sees the other: the new frame, or the
        // request.
        fence(Ordering::SeqCst);
    }

    /// Waits up to `grace` for all frames to be sent, then gives the queue's frames to `cache`. Returns the received
    /// frames that nobody had taken.
    pub fn close(mut self, grace: Duration, cache: &mut FrameCache) -> Count {
        wait_until_sent(grace, || {
            self.flush();
            self.rings.reap(cache);
            self.rings.outstanding().1 == 0
        });
        // From here on the kernel's end touches no frame.
        *self.link.lock() = false;
        let untaken = self.rings.discard_received(cache);
        self.rings.reclaim(cache);
        untaken
    }
}

/// The kernel's ends of a queue's rings. They move descriptors. What these mean is the user's concern.
#[derive(Debug)]
pub struct KernelRings {
    rx: Producer<Desc>,
    tx: Consumer<Desc>,
    fill: Consumer<u64>,
    completion: Producer<u64>,
}

impl KernelRings {
    /// Both ends of rings of `depth` descriptors, a power of two.
    pub fn pair(depth: u32) -> (Self, Rings) {
        let ((rx, user_rx), (user_tx, tx)) = (pair(depth), pair(depth));
        let ((user_fill, fill), (completion, user_completion)) = (pair(depth), pair(depth));
        let rings = Rings { rx: user_rx, tx: user_tx, fill: user_fill, completion: user_completion };
        (Self { rx, tx, fill, completion }, rings)
    }

    /// Receives up to `count` frames while the fill ring has entries and the rx ring has room. `fill` gets the address
    /// of a chunk, and returns the length of the data behind the headroom. Returns the number of frames.
    #[inline]
    pub fn receive(&mut self, count: usize, mut fill: impl FnMut(u64) -> u32) -> usize {
        let room = (self.rx.size() - self.rx.pending()) as usize;
        let mut received = 0;
        while received < count.min(room) {
            let Some(chunk) = self.fill.pop() else { break };
            self.rx.push(Desc { addr: chunk + u64::from(HEADROOM), len: fill(chunk), options: 0 });
            received += 1;
        }
        self.fill.release();
        self.rx.submit();
        received
    }

    /// Receives a packet of that many chunks, if the fill ring has as many entries and the rx ring has room. `fill` is
    /// as in [`KernelRings::receive`].
    pub fn receive_chained(&mut self, chunks: usize, mut fill: impl FnMut(u64) -> u32) -> bool {
        let room = (self.rx.size() - self.rx.pending()) as usize;
        let mut addrs = Vec::new();
        self.fill.look_at(self.rx.size(), |addr| addrs.push(addr));
        if chunks > room.min(addrs.len()) {
            return false;
        }
        for (number, chunk) in (1..).zip(&addrs[..chunks]) {
            let options = if number < chunks { CONTINUED } else { 0 };
            self.rx.push(Desc { addr: chunk + u64::from(HEADROOM), len: fill(*chunk), options });
            self.fill.pop();
        }
        self.fill.release();
        self.rx.submit();
        true
    }

    /// Sends frames of the tx ring while the completion ring has room. `send` gets each descriptor. Returns the number
    /// of frames.
    #[inline]
    pub fn transmit(&mut self, mut send: impl FnMut(Desc)) -> usize {
        let room = self.completion.size() - self.completion.pending();
        let mut sent = 0;
        while sent < room as usize
            && let Some(desc) = self.tx.pop()
        {
            send(desc);
            self.completion.push(desc.addr);
            sent += 1;
        }
        self.tx.release();
        self.completion.submit();
        sent
    }
}

/// The kernel's end of a queue in memory, with the wire behind it.
#[derive(Debug)]
pub struct MemoryKernel {
    umem: Arc<Umem>,
    rings: KernelRings,
    link: Arc<Link>,
}

impl MemoryKernel {
    /// Receives a frame from the wire, in as many chunks as it needs. False if there are too few empty frames.
    pub fn receive(&mut self, data: &[u8]) -> bool {
        let room = self.umem.frame_size() as usize - HEADROOM as usize;
        if data.len() > room {
            return self.receive_chained(data, room);
        }
        let copy = |chunk: &mut [u8]| {
            chunk[..data.len()].copy_from_slice(data);
            data.len()
        };
        data.len() <= room && self.receive_each(1, copy) == 1
    }

    /// Receives a frame of one chunk that a program has put something in front of.
    pub fn receive_behind(&mut self, front: &[u8], data: &[u8]) -> bool {
        let Self { umem, rings, link } = self;
        let open = link.lock();
        let all = [front, data].concat();
        if !*open || front.len() > HEADROOM as usize || all.len() > umem.frame_size() as usize - HEADROOM as usize {
            return false;
        }
        let (memory, _) = umem.region();
        let received = rings.receive(1, |chunk| {
            #[expect(clippy::cast_possible_truncation, reason = "an offset into this process's memory")]
            let start = chunk as usize + HEADROOM as usize - front.len();
            // SAFETY: as in `receive_each`. The front is no longer than the headroom, and the data than the room.
            let place = unsafe { std::slice::from_raw_parts_mut(memory.add(start), all.len()) };
            place.copy_from_slice(&all);
            u32::try_from(data.len()).unwrap_or_default()
        });
        drop(open);
        self.wake();
        received == 1
    }

    fn receive_chained(&mut self, data: &[u8], room: usize) -> bool {
        let Self { umem, rings, link } = self;
        let open = link.lock();
        if !*open || link.gone.load(Ordering::Relaxed) {
            return false;
        }
        let ((memory, _), mut pieces) = (umem.region(), data.chunks(room));
        let received = rings.receive_chained(pieces.len(), |chunk| {
            let piece = pieces.next().unwrap_or_default();
            // SAFETY: as in `receive_each`. The piece is no longer than the room.
            #[expect(clippy::cast_possible_truncation, reason = "an offset into this process's memory")]
            let place =
                unsafe { std::slice::from_raw_parts_mut(memory.add(chunk as usize + HEADROOM as usize), piece.len()) };
            place.copy_from_slice(piece);
            u32::try_from(piece.len()).unwrap_or_default()
        });
        drop(open);
        self.wake();
        received
    }

    /// Receives up to `count` frames while there are empty ones. `write` writes a frame into the given room and returns
    /// its length. Returns the number of frames.
    #[inline]
    pub fn receive_each(&mut self, count: usize, mut write: impl FnMut(&mut [u8]) -> usize) -> usize {
        let Self { umem, rings, link } = self;
        let open = link.lock();
        if !*open || link.gone.load(Ordering::Relaxed) {
            return 0;
        }
        let ((memory, _), room) = (umem.region(), umem.frame_size() - HEADROOM);
        let received = rings.receive(count, |chunk| {
            // SAFETY: this queue's fill ring gave away the whole chunk at this offset of UMEM. The ledger gives the
            // chunk to nobody else before the rx ring has brought it back. An open queue takes it in no other way.
            #[expect(clippy::cast_possible_truncation, reason = "an offset into this process's memory")]
            let data = unsafe {
                std::slice::from_raw_parts_mut(memory.add(chunk as usize + HEADROOM as usize), room as usize)
            };
            u32::try_from(write(data)).unwrap_or(room).min(room)
        });
        drop(open);
        self.wake();
        received
    }

    /// Sends what is in the tx ring to the wire. Returns the frames in order.
    pub fn transmit(&mut self) -> Vec<Vec<u8>> {
        let (mut sent, mut is_begun) = (Vec::new(), false);
        self.transmit_pieces(|data, is_continued| {
            match sent.last_mut().filter(|_: &&mut Vec<u8>| is_begun) {
                Some(packet) => packet.extend_from_slice(data),
                None => sent.push(data.to_vec()),
            }
            is_begun = is_continued;
        });
        sent
    }

    /// Sends what is in the tx ring to the wire. `send` sees each frame, all of one chunk. Returns the number of
    /// frames.
    #[inline]
    pub fn transmit_each(&mut self, mut send: impl FnMut(&[u8])) -> usize {
        self.transmit_pieces(|data, _| send(data))
    }

    /// The same. `send` sees each chunk, and whether the packet goes on in the next one.
    #[inline]
    fn transmit_pieces(&mut self, mut send: impl FnMut(&[u8], bool)) -> usize {
        let Self { umem, rings, link } = self;
        let open = link.lock();
        if !*open || link.gone.load(Ordering::Relaxed) {
            return 0;
        }
        let (memory, _) = umem.region();
        rings.transmit(|desc| {
            // SAFETY: this queue's tx ring gave this frame away for reading, with data inside its chunk. The ledger
            // gives the chunk to nobody else before the completion ring has brought it back. An open queue takes it in
            // no other way.
            #[expect(clippy::cast_possible_truncation, reason = "an offset into this process's memory")]
            let data = unsafe { std::slice::from_raw_parts(memory.add(desc.addr as usize), desc.len as usize) };
            send(data, desc.options & CONTINUED != 0);
        })
    }

    /// Goes away like a deleted netdev. Nothing is received or sent any more. The queue notices at its next flush.
    pub fn remove(&self) {
        let open = self.link.lock();
        self.link.gone.store(true, Ordering::Release);
        drop(open);
    }

    /// Whether the queue is still open.
    pub fn is_open(&self) -> bool {
        *self.link.lock()
    }

    fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.link.wants_wakeup.swap(false, Ordering::Relaxed) {
            // A full counter is the only failure, and it wakes the worker as well.
            let _ = nix::unistd::write(&*self.link.event, &1_u64.to_ne_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;
    use crate::model::HugePages;

    const DEPTH: u32 = 8;

    struct Bed {
        umem: Arc<Umem>,
        cache: FrameCache,
        queue: MemoryQueue,
        kernel: MemoryKernel,
    }

    fn bed() -> Bed {
        let umem = Umem::new(64, 2048, HugePages::Off).unwrap();
        let mut cache = FrameCache::new(Arc::clone(&umem));
        let (mut queue, kernel) = queue(&umem, DEPTH, RingMemory::Shared { fill: DEPTH }).unwrap();
        queue.refill(&mut cache);
        Bed { umem, cache, queue, kernel }
    }

    fn is_signalled(queue: &MemoryQueue) -> bool {
        let mut fds = [PollFd::new(queue.fd().as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() > 0
    }

    #[test]
    fn a_frame_goes_in_and_out_as_it_is() {
        let Bed { umem, mut cache, mut queue, mut kernel } = bed();
        assert!(kernel.receive(b"first") && kernel.receive(b"second"));
        assert!(!kernel.receive(&[0; 20_000]), "there are too few chunks for it");
        let mut burst = Vec::new();
        assert_eq!(queue.rings_mut().receive(&mut burst, 64, &mut cache), 2);
        assert_eq!((umem.data(&burst[0]), umem.data(&burst[1])), (&b"first"[..], &b"second"[..]));
        assert_eq!(queue.rings_mut().send(2, &mut burst.drain(..), &mut cache), 2);
        assert!(kernel.transmit().is_empty(), "it is not flushed");
        queue.flush();
        assert_eq!(kernel.transmit(), [b"first".to_vec(), b"second".to_vec()]);
        assert_eq!(queue.rings_mut().reap(&mut cache), 2);
        assert_eq!(queue.rings().outstanding(), (DEPTH - 2, 0));
    }

    #[test]
    fn what_is_not_taken_back_waits_in_the_tx_ring() {
        let Bed { mut cache, mut queue, mut kernel, .. } = bed();
        for _ in 0..2 {
            let frames: Vec<_> = std::iter::from_fn(|| cache.take()).take(DEPTH as usize).collect();
            assert_eq!(queue.rings_mut().send(DEPTH as usize, &mut frames.into_iter(), &mut cache), DEPTH as usize);
            queue.flush();
            kernel.transmit();
        }
        assert_eq!(queue.rings_mut().tx_pending(), DEPTH, "the completion ring is full");
        assert_eq!(queue.rings_mut().reap(&mut cache), DEPTH as usize);
        assert_eq!(kernel.transmit().len(), DEPTH as usize);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no poll")]
    fn the_first_frame_after_it_was_asked_for_is_signalled() {
        let Bed { queue, mut kernel, .. } = bed();
        assert!(kernel.receive(b"unasked"));
        assert!(!is_signalled(&queue));
        queue.ask_for_wakeup();
        assert!(kernel.receive(b"asked") && is_signalled(&queue));
        queue.ask_for_wakeup();
        assert!(!is_signalled(&queue), "the old signal is taken back");
    }

    #[test]
    fn a_kernel_that_is_gone_moves_nothing_and_the_queue_takes_its_frames_back() {
        let Bed { umem, mut cache, mut queue, mut kernel } = bed();
        let frame = cache.take();
        assert_eq!(queue.rings_mut().send(1, &mut frame.into_iter(), &mut cache), 1);
        kernel.remove();
        assert!(!queue.rings().is_gone());
        queue.flush();
        assert!(queue.rings().is_gone() && !queue.rings().is_short());
        assert!(!kernel.receive(b"late") && kernel.transmit().is_empty());
        queue.rings_mut().abandon(&mut cache);
        assert_eq!(queue.rings().outstanding(), (DEPTH, 0));
        queue.close(Duration::ZERO, &mut cache);
        assert_eq!((umem.census().held(), umem.census().placed()), (0, 0));
    }

    #[test]
    fn a_queue_that_is_closed_has_all_frames_back_and_its_kernel_touches_none() {
        let Bed { umem, mut cache, mut queue, mut kernel } = bed();
        assert!(kernel.receive(b"untaken"));
        let frame = cache.take();
        assert_eq!(queue.rings_mut().send(1, &mut frame.into_iter(), &mut cache), 1);
        assert!(kernel.is_open());
        let untaken = queue.close(Duration::ZERO, &mut cache);
        assert_eq!(untaken, Count { packets: 1, bytes: 7 });
        assert_eq!((umem.census().held(), umem.census().placed()), (0, 0));
        assert!(!kernel.is_open() && !kernel.receive(b"late") && kernel.transmit().is_empty());
    }
}
