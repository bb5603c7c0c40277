//! Events of a front end: the descriptors that it is called by, kicks by, and learns of errors by.
//!
//! An eventfd is a counter that several processes share, with its mode. A front end may make it blocking at any time,
//! and fill it. Then a write(2) to it waits until somebody reads it, which may be never. No flag of a write prevents
//! that: the kernel knows no `RWF_NOWAIT` for eventfds, and gives nobody a description of his own.
//!
//! So nothing is ever written to an [`Event`]. The kernel itself signals it, as the end of an asynchronous read of an
//! empty file (`IOCB_FLAG_RESFD` of io_submit(2)). `eventfd_signal` of the kernel adds one if there is room, wakes who
//! waits, and never waits itself, in any mode of the descriptor. Nothing is read from an event either.
#![allow(unsafe_code, reason = "io_setup, io_submit, io_getevents and io_destroy, which nobody wraps")]

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use thiserror::Error;

/// Why a descriptor can't be an event, or can't be signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EventError {
    /// It is something else, such as a pipe. Its owner could make anybody wait who uses it.
    #[error("the descriptor is no eventfd")]
    NoEventFd,
    /// The thread can't have what it signals by.
    #[error("events can't be signalled: {call}: {errno} (is fs.aio-max-nr reached, or asynchronous I/O forbidden?)")]
    Unavailable {
        /// Name of the system call.
        call: &'static str,
        /// Its error.
        errno: Errno,
    },
    /// The kernel refuses.
    #[error("signalling an event: {0}")]
    Refused(Errno),
}

/// An eventfd of a front end.
#[derive(Clone, Debug)]
pub struct Event(Arc<OwnedFd>);

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl TryFrom<Arc<OwnedFd>> for Event {
    type Error = EventError;

    /// # Errors
    /// [`EventError::NoEventFd`], or what can't be found out without `/proc`.
    fn try_from(fd: Arc<OwnedFd>) -> Result<Self, EventError> {
        // The kernel's name of the kind (proc_pid_fd(5)). Paths begin with a slash, so no file has it.
        let kind = nix::fcntl::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()).as_str());
        match kind {
            Ok(kind) if kind == "anon_inode:[eventfd]" => Ok(Self(fd)),
            Ok(_) => Err(EventError::NoEventFd),
            Err(errno) => Err(EventError::Refused(errno)),
        }
    }
}

impl Event {
    /// Adds one to the counter, if there is room, and wakes who waits. Never waits, whatever its owner does.
    ///
    /// It is for threads that signal often. The first signal of a thread makes the thread's context, which takes
    /// [`CONTEXT_EVENTS`] of `fs.aio-max-nr`.
    ///
    /// # Errors
    /// [`EventError::Unavailable`] if the context can't be made, [`EventError::Refused`] if the kernel has no memory.
    #[inline(never)]
    pub fn signal(&self) -> Result<(), EventError> {
        CONTEXT.with_borrow_mut(|context| {
            let context = match context {
                Some(context) => context,
                None => context.insert(Context::new()?),
            };
            context.signal(self.as_fd())
        })
    }

    /// The same for threads that signal now and then. They share one context.
    ///
    /// # Errors
    /// As for [`Event::signal`].
    pub fn signal_rarely(&self) -> Result<(), EventError> {
        static SHARED: Mutex<Option<Context>> = Mutex::new(None);
        let mut context = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *context {
            Some(context) => context.signal(self.as_fd()),
            none => none.insert(Context::new()?).signal(self.as_fd()),
        }
    }
}

thread_local! {
    static CONTEXT: RefCell<Option<Context>> = const { RefCell::new(None) };
}

/// Reads that a context has room for: how many signals go without a look at their results.
pub const CONTEXT_EVENTS: u32 = 32;

/// A context of asynchronous I/O. One thread uses it at a time.
struct Context {
    id: libc::c_ulong,
    /// A file without a byte. A read of it ends at once, in the call that asks for it.
    empty: OwnedFd,
    /// Signals whose results have not been taken.
    ended: u32,
}

impl Context {
    fn new() -> Result<Self, EventError> {
        let failed = |call| move |errno| EventError::Unavailable { call, errno };
        let empty = memfd_create(c"xs-signal", MFdFlags::MFD_CLOEXEC).map_err(failed("memfd_create"))?;
        let mut id: libc::c_ulong = 0;
        // SAFETY: the kernel writes the context's number to a live variable, which is zero as it has to be.
        let made = unsafe { libc::syscall(libc::SYS_io_setup, CONTEXT_EVENTS, &raw mut id) };
        Errno::result(made).map_err(failed("io_setup"))?;
        Ok(Self { id, empty, ended: 0 })
    }

    fn signal(&mut self, event: BorrowedFd<'_>) -> Result<(), EventError> {
        if self.ended >= CONTEXT_EVENTS {
            self.take_results();
        }
        match self.submit(event) {
            // The kernel counts places by CPU, and may find none free earlier.
            Err(Errno::EAGAIN) => {
                self.take_results();
                self.submit(event)
            }
            submitted => submitted,
        }
        .map_err(|errno| if errno == Errno::EINVAL { EventError::NoEventFd } else { EventError::Refused(errno) })
    }

    /// Reads the empty file, which signals the event.
    fn submit(&mut self, event: BorrowedFd<'_>) -> Result<(), Errno> {
        let number = |fd: BorrowedFd<'_>| u32::try_from(fd.as_raw_fd()).map_err(|_| Errno::EBADF);
        // SAFETY: all zeroes is a valid request: a read of no bytes into no buffer (`IOCB_CMD_PREAD`).
        let mut request: libc::iocb = unsafe { std::mem::zeroed() };
        request.aio_fildes = number(self.empty.as_fd())?;
        request.aio_flags = IOCB_FLAG_RESFD;
        request.aio_resfd = number(event)?;
        let mut requests: [*mut libc::iocb; 1] = [&raw mut request];
        // SAFETY: the context is this value's. The kernel copies the one request before it returns. The request names
        // no memory, so nothing is touched later.
        let submitted = unsafe { libc::syscall(libc::SYS_io_submit, self.id, 1_i64, requests.as_mut_ptr()) };
        Errno::result(submitted)?;
        self.ended += 1;
        Ok(())
    }

    /// Makes room. The results say nothing.
    fn take_results(&mut self) {
        let mut results = [MaybeUninit::<IoEvent>::uninit(); CONTEXT_EVENTS as usize];
        let most = libc::c_long::from(CONTEXT_EVENTS);
        let no_time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the kernel writes at most as many results as there is room for, and waits for none.
        unsafe {
            libc::syscall(libc::SYS_io_getevents, self.id, 0_i64, most, results.as_mut_ptr(), &raw const no_time);
        }
        self.ended = 0;
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context is this value's, and used no more. Nothing is in work: each read has ended in its call.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.id) };
    }
}

/// `aio_resfd` is signalled when the request has ended (the kernel's `linux/aio_abi.h`).
const IOCB_FLAG_RESFD: u32 = 1;

/// `struct io_event` of the kernel's `linux/aio_abi.h`.
#[derive(Clone, Copy)]
#[repr(C)]
struct IoEvent {
    _data: u64,
    _object: u64,
    _result: i64,
    _second: i64,
}

#[cfg(test)]
mod tests;
