//! The queues of this worker, by slot, and what wakes it.

use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::EpollTimeout;
use nix::sys::eventfd::EventFd;

use super::queue::Queue;
use crate::engine::PortNo;
use crate::io::umem::FrameCache;
use crate::worker::watch::Watch;

/// How soon a worker looks again at a device that would not take frames.
const RETRY: Duration = Duration::from_millis(1);

/// Queues by slot. Slots change when a queue comes or goes.
#[derive(Debug)]
pub(in crate::worker) struct OwnQueues {
    queues: Vec<Queue>,
    watch: Watch,
}

impl OwnQueues {
    /// No queues, and a worker that `event` wakes.
    pub(super) fn new(event: &EventFd) -> Result<Self, Errno> {
        Ok(Self { queues: Vec::new(), watch: Watch::new(event)? })
    }

    /// The queues.
    #[inline]
    pub(in crate::worker) fn as_slice(&self) -> &[Queue] {
        &self.queues
    }

    #[inline]
    pub(in crate::worker) fn as_mut_slice(&mut self) -> &mut [Queue] {
        &mut self.queues
    }

    #[inline]
    pub(super) fn at(&mut self, slot: usize) -> &mut Queue {
        &mut self.queues[slot]
    }

    /// The slot of a queue of that port.
    pub(super) fn slot_of(&self, port: PortNo, generation: u32, number: u32) -> Option<usize> {
        let is_it =
            |queue: &Queue| queue.port.no == port && queue.port.generation == generation && queue.number == number;
        self.queues.iter().position(is_it)
    }

    pub(super) fn add(&mut self, queue: Queue) {
        self.queues.push(queue);
    }

    /// Takes out the queues that are `wanted`.
    pub(super) fn remove(&mut self, wanted: impl Fn(&Queue) -> bool) -> Vec<Queue> {
        let mut removed: Vec<_> = self.queues.extract_if(.., |queue| wanted(queue)).collect();
        removed.iter_mut().for_each(|queue| queue.leave(&self.watch));
        removed
    }

    /// A queue that nobody takes frames from does not wake the worker.
    pub(in crate::worker) fn leave(&mut self, slot: usize) {
        self.queues[slot].leave(&self.watch);
    }

    /// Shows the kernel what is staged at any queue.
    #[inline]
    pub(super) fn flush(&mut self, cache: &mut FrameCache) {
        for queue in self.queues.iter_mut().filter(|queue| queue.is_dirty()) {
            queue.flush(cache, &self.watch);
        }
    }

    /// From now on frames that come in wake the worker.
    pub(super) fn prepare_sleep(&mut self) {
        self.queues.iter_mut().for_each(|queue| queue.join(&self.watch));
    }

    /// Sleeps until there is something. It does not sleep long if a device would not take frames, or a queue lacks
    /// some.
    pub(super) fn wait(&self) {
        let is_stuck = self.queues.iter().any(|queue| queue.is_dirty() || queue.backend.is_short());
        let retry = || EpollTimeout::try_from(RETRY).unwrap_or(EpollTimeout::ZERO);
        self.watch.wait(if is_stuck { retry() } else { EpollTimeout::NONE });
    }
}
