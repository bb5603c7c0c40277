//! The gate of threads that are no workers and take frames: those of packet sockets and outside ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::io::umem::FrameCache;
use crate::worker::shared::{Injected, Shared};
use crate::worker::view::PortShared;

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

    /// Lets a packet come in by queue 0 of a port. If no frame is free, or the worker is behind, it is lost as on a
    /// full ring.
    pub fn inject(&self, shared: &Shared, port: &Arc<PortShared>, packet: &[u8]) {
        let worker = &shared.workers[port.queues[0].worker()];
        let mut cache = self.pass();
        let Some(frame) = cache.write_packet(packet) else { return };
        match worker.injected.push(Injected { frame, port: Arc::clone(port) }) {
            Ok(()) => worker.wake(),
            Err(Injected { frame, .. }) => cache.put(frame),
        }
    }
}
