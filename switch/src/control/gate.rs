//! The gate of threads that are no workers and take frames: those of packet sockets and outside ends.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::io::umem::FrameCache;

/// Held while a frame is taken from the pool and put before a worker. An audit closes it while it counts.
///
/// It also holds the frame cache of all these threads, so that an audit sees the frames in it.
#[derive(Debug)]
pub(super) struct FrameGate(Mutex<FrameCache>);

impl FrameGate {
    /// An open gate.
    pub fn new(cache: FrameCache) -> Self {
        Self(Mutex::new(cache))
    }

    /// Waits for the gate and keeps it while the guard lives.
    pub fn pass(&self) -> MutexGuard<'_, FrameCache> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
