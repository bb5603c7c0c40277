//! What a sleeping worker waits for.
//!
//! As long as a socket is in an epoll set, the kernel goes through epoll's wake-up for each packet that the socket has
//! sent, though nobody waits (`sock_wfree`, `sock_def_write_space` in `net/core/sock.c`). That is 8 % of a copy-mode
//! sender's time. So a queue that keeps sending is taken out of the set, and put back before the worker sleeps.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;

/// Flushes without a sleep between them after which a queue leaves the set. A change of the set costs two system calls.
const BUSY: u32 = 8;

/// The epoll set. Each of its members keeps a [`Watched`].
#[derive(Debug)]
pub(super) struct Watch(Epoll);

/// Whether a member is in the set.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watched {
    is_in: bool,
    /// Flushes since the worker slept.
    flushes: u32,
}

impl Watch {
    /// A set that `event` wakes, without members.
    pub(super) fn new(event: &EventFd) -> Result<Self, Errno> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(event, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        Ok(Self(epoll))
    }

    /// A member has sent something.
    #[inline]
    pub(super) fn flushed(&self, watched: &mut Watched, fd: &impl AsFd) {
        if watched.is_in {
            watched.flushes += 1;
            if watched.flushes > BUSY {
                self.leave(watched, fd);
            }
        }
    }

    /// Takes a member out of the set.
    pub(super) fn leave(&self, watched: &mut Watched, fd: &impl AsFd) {
        if watched.is_in {
            let _ = self.0.delete(fd);
        }
        *watched = Watched::default();
    }

    /// Puts a member into the set, if it is not in it. An error is told once: it would be the same next time.
    pub(super) fn join(&self, watched: &mut Watched, fd: &impl AsFd) -> Result<(), Errno> {
        watched.flushes = 0;
        if watched.is_in {
            return Ok(());
        }
        watched.is_in = true;
        self.0.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, 0))
    }

    /// Sleeps until something of the set is there, or `timeout`.
    pub(super) fn wait(&self, timeout: EpollTimeout) {
        // An interruption is as good as an event: the next turn looks at everything.
        let _ = self.0.wait(&mut [EpollEvent::empty()], timeout);
    }
}
