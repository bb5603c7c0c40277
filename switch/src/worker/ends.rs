//! Ends of components that are no ports: rings between components, null ends, and the queues of outside ends.
//!
//! An end has at most one component at each side, so each counter has one writer. Each side of a ring is in a lock,
//! which its owner takes once a burst and finds free. A side changes owners only while no worker uses it, and the lock
//! makes that safe. Ends belong to control and outlive the components that use them. What is in a ring stays there
//! meanwhile.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};

use super::frames::count;
use crate::capture::first_bytes;
use crate::counters::FrameCounter;
use crate::io::umem::Frame;
use crate::model::{CapturedFrame, Count, DEFAULT_RING_DEPTH, Direction};

/// Frames that wait for the thread of an outside end at most.
const OUTSIDE_BACKLOG: usize = 4096;
/// The reader of a ring that nobody takes frames from.
const NOBODY: usize = usize::MAX;

/// One side of a ring: its end, and what went through it.
#[derive(Debug)]
#[repr(align(128))]
struct Side<T> {
    end: Mutex<T>,
    passed: FrameCounter,
}

impl<T> Side<T> {
    fn new(end: T) -> Self {
        Self { end: Mutex::new(end), passed: FrameCounter::default() }
    }

    /// Works with the end, unless somebody else does at this moment.
    #[inline]
    fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        match self.end.try_lock() {
            Ok(mut end) => Some(work(&mut end)),
            Err(TryLockError::Poisoned(poisoned)) => Some(work(&mut poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// A ring: frames in order, from one component to another.
#[derive(Debug)]
pub struct Ring {
    no: u32,
    depth: u32,
    input: Side<rtrb::Producer<Frame>>,
    output: Side<rtrb::Consumer<Frame>>,
    refused: FrameCounter,
    /// Worker that takes frames from it.
    reader: AtomicUsize,
    /// Frames that it may hold at present, at most `depth`.
    limit: AtomicU32,
}

impl Ring {
    /// An empty ring of `depth` frames.
    pub fn new(no: u32, depth: u32) -> Self {
        let (input, output) = rtrb::RingBuffer::new(depth as usize);
        let (reader, limit) = (AtomicUsize::new(NOBODY), AtomicU32::new(depth));
        let refused = FrameCounter::default();
        Self { no, depth, input: Side::new(input), output: Side::new(output), refused, reader, limit }
    }

    /// Number.
    pub fn no(&self) -> u32 {
        self.no
    }

    /// Puts the first of `frames` into it, as many as there is room for. The rest stay in `frames`. Returns what had
    /// room.
    #[inline]
    pub fn put(&self, frames: &mut Vec<Frame>) -> Count {
        let limit = self.limit.load(Ordering::Relaxed);
        let allowed = if limit < self.depth { self.room_below(limit) } else { usize::MAX };
        let mut passed = Count::default();
        let put = |input: &mut rtrb::Producer<Frame>| {
            let room = input.slots().min(frames.len()).min(allowed);
            let Ok(chunk) = input.write_chunk_uninit(room) else { return };
            passed = count(&frames[..room]);
            chunk.fill_from_iter(frames.drain(..room));
        };
        self.input.with(put);
        self.input.passed.add(passed.packets, passed.bytes);
        passed
    }

    /// Frames that a ring with that limit has room for.
    #[cold]
    fn room_below(&self, limit: u32) -> usize {
        let room = u64::from(limit).saturating_sub(self.queued().packets);
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    /// Lets it hold that many frames more than it does, at most its depth. `None`: its depth.
    pub fn set_room(&self, room: Option<u64>) {
        let limit = room.map_or(u64::from(self.depth), |room| self.queued().packets.saturating_add(room));
        let limit = u32::try_from(limit).map_or(self.depth, |limit| limit.min(self.depth));
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Counts frames that had no room.
    pub fn refused(&self, count: Count) {
        self.refused.add(count.packets, count.bytes);
    }

    /// Takes up to `max` frames, oldest first. Returns how many.
    #[inline]
    pub fn take(&self, frames: &mut Vec<Frame>, max: usize) -> usize {
        if self.is_empty() {
            return 0;
        }
        let (before, mut passed) = (frames.len(), Count::default());
        #[expect(clippy::expect_used, reason = "the chunk has as many frames as it was asked for")]
        let take = |output: &mut rtrb::Consumer<Frame>| {
            let there = output.slots().min(max);
            let Ok(chunk) = output.read_chunk(there) else { return };
            // Unlike `extend` it looks for room once, as the number is known.
            let mut chunk = chunk.into_iter();
            frames.resize_with(before + there, || chunk.next().expect("a frame for each slot"));
            passed = count(&frames[before..]);
        };
        self.output.with(take);
        self.output.passed.add(passed.packets, passed.bytes);
        frames.len() - before
    }

    /// Whether there is nothing in it.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.output.passed.read().packets == self.input.passed.read().packets
    }

    /// Whether there is no room in it.
    pub fn is_full(&self) -> bool {
        self.room_below(self.limit.load(Ordering::Relaxed)) == 0
    }

    /// What is in it. It is exact while nobody moves frames.
    pub fn queued(&self) -> Count {
        let (output, input) = (self.output.passed.read(), self.input.passed.read());
        Count { packets: input.packets.saturating_sub(output.packets), bytes: input.bytes.saturating_sub(output.bytes) }
    }

    /// What was put into it, taken from it, and had no room, so far.
    pub fn counts(&self) -> [Count; 3] {
        [self.input.passed.read(), self.output.passed.read(), self.refused.read()]
    }

    /// Says which worker takes frames from it, if one does.
    pub fn set_reader(&self, worker: Option<usize>) {
        self.reader.store(worker.unwrap_or(NOBODY), Ordering::Relaxed);
    }

    /// The worker that takes frames from it.
    #[inline]
    pub fn reader(&self) -> Option<usize> {
        Some(self.reader.load(Ordering::Relaxed)).filter(|reader| *reader != NOBODY)
    }
}

/// A null end.
#[derive(Debug, Default)]
pub struct NullEnd {
    /// Frames that it gave.
    pub rx: FrameCounter,
    /// Frames that it took.
    pub tx: FrameCounter,
}

/// An outside end as components see it.
#[derive(Debug)]
pub struct OutsideEnd {
    /// Number.
    pub no: u32,
    /// Frames from outside.
    pub input: Arc<Ring>,
    /// Frames that were given to it.
    pub tx: FrameCounter,
    /// Frames that it had no room for.
    pub refused: FrameCounter,
    snaplen: usize,
    output: Sender<CapturedFrame>,
}

impl OutsideEnd {
    /// An end that keeps `snaplen` bytes of each frame that goes out, and the queue of these frames.
    pub fn new(no: u32, snaplen: usize) -> (Self, Receiver<CapturedFrame>) {
        let (output, receiver) = bounded(OUTSIDE_BACKLOG);
        let input = Arc::new(Ring::new(no, DEFAULT_RING_DEPTH));
        let (tx, refused) = Default::default();
        (Self { no, input, tx, refused, snaplen, output }, receiver)
    }

    /// Puts a copy of a frame of `len` bytes, which are `pieces`, into the queue to the outside. False if there is no
    /// room. `timestamp_ns` counts from 1970.
    pub fn offer<'a>(&self, len: usize, pieces: impl Iterator<Item = &'a [u8]>, timestamp_ns: u64) -> bool {
        if self.is_full() {
            return false;
        }
        let frame = CapturedFrame {
            vport: u16::try_from(self.no).unwrap_or(u16::MAX),
            queue: 0,
            direction: Direction::Tx,
            timestamp_ns,
            wire_len: u32::try_from(len).unwrap_or(u32::MAX),
            data: first_bytes(len.min(self.snaplen), pieces),
        };
        match self.output.try_send(frame) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }

    /// Whether there is no room for what goes out.
    pub fn is_full(&self) -> bool {
        self.output.is_full()
    }

    /// Frames that wait to go out.
    pub fn waiting(&self) -> usize {
        self.output.len()
    }
}

/// Takes all that is in a ring that no worker takes frames from any more.
pub fn drain(ring: &Ring) -> Vec<Frame> {
    let mut frames = Vec::new();
    // Nobody else has this side. If the lock is taken, that is a worker's last look, which is over in a moment.
    drop(ring.output.end.lock().unwrap_or_else(PoisonError::into_inner));
    while ring.take(&mut frames, usize::MAX) > 0 {}
    frames
}
