//! Where a disk's bytes are.
//!
//! A [`Store`] is one disk's bytes: a file, a block device, later perhaps an image format or a network. Each thread
//! that serves the disk has a [`Channel`] to it. A channel adds operations to the thread's io_uring and learns of
//! their completions, so one thread waits for guests and for the store at once. An operation may take several steps
//! there.

#![allow(unsafe_code, reason = "who begins an operation answers for its buffers")]

mod channel;
mod file;
mod lock;

use std::fmt::Debug;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::errno::Errno;

pub use self::file::FileStore;
use crate::uring::Ring;

/// What a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Properties {
    /// Number of bytes.
    pub bytes: u64,
    /// Buffers begin at multiples of this, and have such lengths. A power of two. 1 if it does not matter.
    pub memory_align: u32,
    /// Offsets and lengths are multiples of this. A power of two.
    pub offset_align: u32,
    /// Bytes that the device below writes at once.
    pub physical_block: u32,
    /// Bytes that are best written at once. 0 if nobody knows.
    pub optimal_io: u32,
    /// The page cache of the host is not used.
    pub direct: bool,
    /// Ranges can be discarded.
    pub discard: bool,
}

/// What is to be done with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read into the buffers.
    Read {
        /// First byte.
        at: u64,
    },
    /// Write what is in the buffers.
    Write {
        /// First byte.
        at: u64,
        /// It is durable when it is done.
        durable: bool,
    },
    /// Make durable what was written.
    Flush,
    /// These bytes are not needed any more. They read as anything, in practice as zeroes.
    Discard {
        /// First byte.
        at: u64,
        /// Number of bytes.
        len: u64,
    },
    /// These bytes are zeroes.
    Zero {
        /// First byte.
        at: u64,
        /// Number of bytes.
        len: u64,
        /// They need not stay allocated.
        unmap: bool,
    },
}

/// A disk's bytes. All threads share it.
pub trait Store: Debug + Send + Sync {
    /// What it is now.
    fn properties(&self) -> Properties;

    /// A way to it for a thread, which is the caller.
    ///
    /// # Errors
    /// The kernel refuses.
    fn channel(&self, ring: &mut Ring) -> io::Result<Box<dyn Channel>>;

    /// Makes it greater, before any guest hears of it. Waits for it.
    ///
    /// # Errors
    /// It can't be that great, or would become smaller. Then it is as before.
    fn grow(&self, bytes: u64) -> io::Result<()>;

    /// Makes durable what was written. Waits for it.
    ///
    /// # Errors
    /// It may not be durable.
    fn sync(&self) -> io::Result<()>;

    /// Takes the right to use it, which one disk has at a time. Waits at most so long for another one's.
    ///
    /// # Errors
    /// EWOULDBLOCK if another one has it. It may be on another machine.
    fn own(&self, most: Duration) -> io::Result<()>;

    /// Gives the right back.
    fn disown(&self);

    /// Bytes for which there is still room where it is, if that can be known. Waits for it.
    fn free(&self) -> Option<u64> {
        None
    }

    /// The file, if it is one that a snapshot can be made of.
    fn file(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// A thread's way to a store.
pub trait Channel: Debug {
    /// Begins an operation. `token` is a small number that is not in use, and goes into the user data of what is added
    /// to the ring. All buffers fit [`Properties::memory_align`].
    ///
    /// # Safety
    /// The buffers' memory stays valid, and is used by nobody else here, until [`Channel::advance`] has given a result.
    unsafe fn begin(&mut self, ring: &mut Ring, operation: Operation, buffers: &[libc::iovec], token: u32);

    /// A completion with that token is there. Gives the operation's result if it has ended.
    fn advance(&mut self, ring: &mut Ring, token: u32, result: i32) -> Option<Result<(), Errno>>;
}
