//! What a sleeping worker waits for.
//!
//! As long as a socket is in an epoll set, the kernel goes through epoll's wake-up for each packet that the socket has sent
//! (`sock_wfree`, `sock_def_write_space` in `net/core/sock.c`), though nobody waits: 8 % of a copy-mode sender's time. So a
//! queue that keeps sending is taken out of the set, and put back before the worker sleeps.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;

use super::queue::{Queue, Serves};

/// Flushes without a sleep between them after which a queue leaves the set: a change of the set costs two system calls.
const BUSY: u32 = 8;

/// The set, and the part of each [`Queue`] that says whether it is in it.
#[derive(Debug)]
pub(super) struct Watch(Epoll);

/// Whether a queue is in its worker's set.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watched {
    is_in: bool,
    /// Flushes since the worker slept.
    flushes: u32,
}

impl Watch {
    /// A set of no queues, which `event` wakes.
    pub fn new(event: &EventFd) -> Result<Self, Errno> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(event, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        Ok(Self(epoll))
    }

    /// A queue has sent something.
    #[inline]
    pub fn flushed(&self, queue: &mut Queue) {
        if queue.watched.is_in {
            queue.watched.flushes += 1;
            if queue.watched.flushes > BUSY {
                self.leave(queue);
            }
        }
    }

    /// Takes a queue out of the set.
    pub fn leave(&self, queue: &mut Queue) {
        if std::mem::take(&mut queue.watched).is_in {
            let _ = self.0.delete(queue.backend.fd().as_fd());
        }
    }

    /// Puts into the set what is not in it, before the worker looks for work for the last time.
    pub fn prepare(&self, queues: &mut [Queue]) {
        for queue in queues {
            queue.watched.flushes = 0;
            // What nobody takes frames from would wake the worker again and again.
            if queue.serves == Serves::Nobody {
                continue;
            }
            queue.backend.ask_for_wakeup();
            if queue.watched.is_in {
                continue;
            }
            if let Err(errno) = self.0.add(queue.backend.fd().as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, 0)) {
                // Without it the queue is served while the worker is awake for another reason only.
                tracing::error!(port = queue.port.name, queue = queue.number, %errno, "a queue can't wake its worker");
            }
            // Also after an error, which would be the same next time.
            queue.watched.is_in = true;
        }
    }

    /// Sleeps until something of the set is there, or `timeout`.
    pub fn wait(&self, timeout: EpollTimeout) {
        // An interruption is as good as an event: the next turn looks at everything.
        let _ = self.0.wait(&mut [EpollEvent::empty()], timeout);
    }
}
