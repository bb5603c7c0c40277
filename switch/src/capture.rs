//! Copies of frames on their way to a reader.
//!
//! A worker copies the frames of a captured port into the bounded queue of each tap. It never waits: a frame that finds
//! the queue full is counted as missed.
//! Taps are part of the workers' view. A port without one costs a length check a burst.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crossbeam::queue::ArrayQueue;

use crate::model::{CapturedFrame, Direction};

/// Most frames that wait for a reader.
const BACKLOG: usize = 8192;
/// Time between two looks of a waiting reader.
const READER_POLL: Duration = Duration::from_millis(2);

/// Where the frames of one capture go.
#[derive(Debug)]
pub struct Tap {
    ports: Vec<String>,
    direction: Option<Direction>,
    snaplen: usize,
    backlog: ArrayQueue<CapturedFrame>,
    missed: AtomicU64,
}

impl Tap {
    /// A tap on the named ports (empty: all), one direction or both, keeping up to `snaplen` bytes of a frame.
    pub fn new(ports: Vec<String>, direction: Option<Direction>, snaplen: usize) -> Arc<Self> {
        Arc::new(Self { ports, direction, snaplen, backlog: ArrayQueue::new(BACKLOG), missed: AtomicU64::new(0) })
    }

    /// Whether the tap is on that port.
    pub fn covers(&self, port: &str) -> bool {
        self.ports.is_empty() || self.ports.iter().any(|name| name == port)
    }

    /// Offers a frame of `len` bytes, which are `pieces`.
    pub fn offer<'a>(
        &self,
        vport: u16,
        queue: u32,
        direction: Direction,
        len: usize,
        pieces: impl Iterator<Item = &'a [u8]>,
    ) {
        if self.direction.is_some_and(|wanted| wanted != direction) {
            return;
        }
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let frame = CapturedFrame {
            vport,
            queue,
            direction,
            timestamp_ns: u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX),
            wire_len: u32::try_from(len).unwrap_or(u32::MAX),
            data: first_bytes(len.min(self.snaplen), pieces),
        };
        if self.backlog.push(frame).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes the frames that came, oldest first. Waits up to `timeout` for the first one.
    pub fn receive(&self, timeout: Duration) -> Vec<CapturedFrame> {
        let deadline = Instant::now() + timeout;
        loop {
            let frames: Vec<_> = std::iter::from_fn(|| self.backlog.pop()).take(BACKLOG).collect();
            if !frames.is_empty() || Instant::now() >= deadline {
                return frames;
            }
            std::thread::sleep(READER_POLL.min(deadline.saturating_duration_since(Instant::now())));
        }
    }

    /// Frames that found the backlog full.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

/// The first `len` bytes of a packet.
pub(crate) fn first_bytes<'a>(len: usize, pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len);
    for piece in pieces {
        let left = len - bytes.len();
        bytes.extend_from_slice(&piece[..piece.len().min(left)]);
        if bytes.len() == len {
            break;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_reader_loses_the_newest_frames_and_is_told_how_many() {
        let tap = Tap::new(Vec::new(), Some(Direction::Rx), 4);
        for _ in 0..BACKLOG + 3 {
            tap.offer(1, 0, Direction::Rx, 6, [&b"abc"[..], b"def"].into_iter());
        }
        tap.offer(1, 0, Direction::Tx, 9, std::iter::once(&b"other way"[..]));
        let frames = tap.receive(Duration::ZERO);
        assert_eq!((frames.len(), tap.missed()), (BACKLOG, 3));
        assert_eq!((frames[0].data.as_slice(), frames[0].wire_len), (b"abcd".as_slice(), 6));
        assert!(tap.receive(Duration::from_millis(3)).is_empty());
    }
}
