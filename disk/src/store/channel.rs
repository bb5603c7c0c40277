//! A thread's operations on a file, by io_uring.
#![allow(unsafe_code, reason = "the kernel reads and writes the buffers of operations")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use io_uring::opcode;
use io_uring::squeue::Entry;
use io_uring::types::FsyncFlags;
use nix::errno::Errno;

use super::{Channel, Operation};
use crate::thread::store_user_data;
use crate::uring::{Registered, Ring};

/// Most buffers that the kernel takes at once (`UIO_MAXIOV`).
const MOST_BUFFERS: usize = 1024;
/// Zeroes that are written at once where the file system has no faster way, in bytes.
const ZEROES: usize = 1 << 16;

/// Zeroes, aligned for any store.
#[repr(align(4096))]
struct Zeroes([u8; ZEROES]);
static ZERO: Zeroes = Zeroes([0; ZEROES]);

/// What a file system turned out not to have. It is known for all threads.
#[derive(Debug, Default)]
pub(super) struct Missing {
    zero_range: AtomicBool,
    punch_hole: AtomicBool,
}

/// An operation that has begun.
#[derive(Debug)]
struct Pending {
    operation: Operation,
    /// Buffers that are left, from `first` on.
    buffers: Vec<libc::iovec>,
    first: usize,
    /// Next byte of the file, and bytes that are left.
    at: u64,
    left: u64,
    /// How it is tried now.
    way: Way,
}

/// The ways to make a range zeroes, or to discard it. The first that the file system has is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    ZeroRange,
    PunchHole,
    Write,
}

/// The operations of one thread.
#[derive(Debug)]
pub(super) struct FileChannel {
    file: Registered,
    missing: Arc<Missing>,
    /// By token.
    pending: Vec<Pending>,
}

impl FileChannel {
    pub(super) fn new(file: Registered, missing: Arc<Missing>) -> Self {
        Self { file, missing, pending: Vec::new() }
    }

    /// The next step of an operation.
    fn entry(&self, token: u32, pending: &Pending) -> Entry {
        let file = self.file.fixed();
        let entry = match pending.operation {
            Operation::Read { .. } => match pending.rest() {
                [one] => opcode::Read::new(file, one.iov_base.cast(), length(one.iov_len)).offset(pending.at).build(),
                some => opcode::Readv::new(file, some.as_ptr(), count(some)).offset(pending.at).build(),
            },
            Operation::Write { durable, .. } => {
                let flags = if durable { libc::RWF_DSYNC } else { 0 };
                match pending.rest() {
                    [one] => opcode::Write::new(file, one.iov_base.cast(), length(one.iov_len))
                        .offset(pending.at)
                        .rw_flags(flags)
                        .build(),
                    some => {
                        opcode::Writev::new(file, some.as_ptr(), count(some)).offset(pending.at).rw_flags(flags).build()
                    }
                }
            }
            Operation::Flush => opcode::Fsync::new(file).flags(FsyncFlags::DATASYNC).build(),
            Operation::Discard { .. } | Operation::Zero { .. } => match pending.way {
                Way::Write => {
                    let len = ZEROES.min(usize::try_from(pending.left).unwrap_or(ZEROES));
                    opcode::Write::new(file, ZERO.0.as_ptr(), length(len)).offset(pending.at).build()
                }
                way => {
                    let how =
                        if way == Way::PunchHole { libc::FALLOC_FL_PUNCH_HOLE } else { libc::FALLOC_FL_ZERO_RANGE };
                    opcode::Fallocate::new(file, pending.left)
                        .offset(pending.at)
                        .mode(how | libc::FALLOC_FL_KEEP_SIZE)
                        .build()
                }
            },
        };
        entry.user_data(store_user_data(token))
    }

    fn push(&self, ring: &mut Ring, token: u32, pending: &Pending) {
        let entry = self.entry(token, pending);
        // SAFETY: the caller of `begin` keeps the buffers. The vector of buffers is in `self.pending`, which does not
        // change before the result. Zeroes are static and only read.
        unsafe { ring.push(entry) };
    }

    /// The first way that may work.
    fn way(&self, operation: Operation) -> Way {
        let has_hole = !self.missing.punch_hole.load(Ordering::Relaxed);
        match operation {
            Operation::Zero { unmap: false, .. } if !self.missing.zero_range.load(Ordering::Relaxed) => Way::ZeroRange,
            Operation::Zero { .. } if !has_hole => Way::Write,
            _ => Way::PunchHole,
        }
    }
}

impl Pending {
    /// Buffers of the next step.
    fn rest(&self) -> &[libc::iovec] {
        let rest = &self.buffers[self.first..];
        &rest[..rest.len().min(MOST_BUFFERS)]
    }

    /// Goes on after so many bytes.
    fn consume(&mut self, done: u64) {
        self.at += done;
        self.left -= done;
        let mut done = usize::try_from(done).unwrap_or(usize::MAX);
        while let Some(buffer) = self.buffers.get_mut(self.first)
            && done > 0
        {
            let part = done.min(buffer.iov_len);
            // SAFETY: at most the end of the buffer.
            buffer.iov_base = unsafe { buffer.iov_base.cast::<u8>().add(part) }.cast();
            buffer.iov_len -= part;
            done -= part;
            if buffer.iov_len == 0 {
                self.first += 1;
            }
        }
    }

    /// A step is done. Gives the result if no step is left.
    fn done(&mut self, missing: &Missing, result: i32) -> Option<Result<(), Errno>> {
        let is_transfer = matches!(self.operation, Operation::Read { .. } | Operation::Write { .. });
        match (self.operation, self.way, u64::try_from(result)) {
            (Operation::Flush, _, Ok(_)) => Some(Ok(())),
            (_, Way::ZeroRange | Way::PunchHole, Ok(_)) if !is_transfer => Some(Ok(())),
            (Operation::Read { .. }, _, Ok(0)) => Some(Err(Errno::EIO)),
            (_, _, Ok(0)) => Some(Err(Errno::ENOSPC)),
            (_, _, Ok(count)) => {
                self.consume(count.min(self.left));
                (self.left == 0).then_some(Ok(()))
            }
            (_, _, Err(_)) => match Errno::from_raw(-result) {
                Errno::EINTR | Errno::EAGAIN => None,
                Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::ENOSYS if !is_transfer => self.other_way(missing),
                errno => Some(Err(errno)),
            },
        }
    }

    fn other_way(&mut self, missing: &Missing) -> Option<Result<(), Errno>> {
        match (self.operation, self.way) {
            (Operation::Zero { .. }, Way::ZeroRange) => {
                missing.zero_range.store(true, Ordering::Relaxed);
                // A hole may be filled again later, for which there may be no room. It reads as zeroes all the same.
                self.way = Way::PunchHole;
                None
            }
            (Operation::Zero { .. }, Way::PunchHole) => {
                missing.punch_hole.store(true, Ordering::Relaxed);
                self.way = Way::Write;
                None
            }
            // It was advice.
            (Operation::Discard { .. }, _) => Some(Ok(())),
            _ => Some(Err(Errno::EOPNOTSUPP)),
        }
    }
}

impl Channel for FileChannel {
    unsafe fn begin(&mut self, ring: &mut Ring, operation: Operation, buffers: &[libc::iovec], token: u32) {
        let (at, left) = match operation {
            Operation::Read { at } | Operation::Write { at, .. } => {
                (at, buffers.iter().map(|buffer| buffer.iov_len as u64).sum())
            }
            Operation::Flush => (0, 0),
            Operation::Discard { at, len } | Operation::Zero { at, len, .. } => (at, len),
        };
        let place = usize::try_from(token).unwrap_or(usize::MAX);
        while self.pending.len() <= place {
            let (operation, way) = (Operation::Flush, Way::PunchHole);
            self.pending.push(Pending { operation, buffers: Vec::new(), first: 0, at: 0, left: 0, way });
        }
        let way = self.way(operation);
        let pending = &mut self.pending[place];
        pending.buffers.clear();
        pending.buffers.extend_from_slice(buffers);
        (pending.operation, pending.first, pending.at, pending.left, pending.way) = (operation, 0, at, left, way);
        self.push(ring, token, &self.pending[place]);
    }

    fn advance(&mut self, ring: &mut Ring, token: u32, result: i32) -> Option<Result<(), Errno>> {
        let pending = self.pending.get_mut(usize::try_from(token).ok()?)?;
        let done = pending.done(&self.missing, result);
        if done.is_none() {
            let pending = self.pending.get(usize::try_from(token).ok()?)?;
            self.push(ring, token, pending);
        }
        done
    }
}

/// A length for the kernel, which takes less than 2 GiB at once. What is left is another step.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX).min(0x7fff_f000)
}

/// A number of buffers, at most [`MOST_BUFFERS`].
fn count(buffers: &[libc::iovec]) -> u32 {
    u32::try_from(buffers.len()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(operation: Operation, lengths: &[usize], way: Way) -> Pending {
        let buffer = |(number, len): (usize, &usize)| libc::iovec {
            iov_base: std::ptr::without_provenance_mut((number + 1) << 20),
            iov_len: *len,
        };
        let buffers = lengths.iter().enumerate().map(buffer).collect();
        let left = lengths.iter().sum::<usize>() as u64;
        Pending { operation, buffers, first: 0, at: 8192, left, way }
    }

    #[test]
    fn what_was_short_goes_on_where_it_stopped() {
        let missing = Missing::default();
        let mut read = pending(Operation::Read { at: 8192 }, &[1000, 3000, 1 << 20], Way::PunchHole);
        assert_eq!(read.done(&missing, 1500), None);
        let rest: Vec<_> = read.rest().iter().map(|part| (part.iov_base.addr(), part.iov_len)).collect();
        assert_eq!(rest, [((2 << 20) + 500, 2500), (3 << 20, 1 << 20)]);
        assert_eq!((read.at, read.left), (8192 + 1500, 2500 + (1 << 20)));
        assert_eq!(read.done(&missing, -libc::EINTR), None, "again");
        assert_eq!(read.done(&missing, 2500 + (1 << 20)), Some(Ok(())));
    }

    #[test]
    fn the_end_of_a_file_is_an_error_and_so_is_a_write_of_nothing() {
        let missing = Missing::default();
        let mut read = pending(Operation::Read { at: 0 }, &[512], Way::PunchHole);
        assert_eq!(read.done(&missing, 0), Some(Err(Errno::EIO)));
        let mut write = pending(Operation::Write { at: 0, durable: false }, &[512], Way::PunchHole);
        assert_eq!(write.done(&missing, 0), Some(Err(Errno::ENOSPC)));
        assert_eq!(write.done(&missing, -libc::EOPNOTSUPP), Some(Err(Errno::EOPNOTSUPP)));
    }

    #[test]
    fn zeroes_are_made_in_the_best_way_that_there_is() {
        let missing = Missing::default();
        let zero = Operation::Zero { at: 8192, len: 100_000, unmap: false };
        let mut zeroes = Pending { left: 100_000, ..pending(zero, &[], Way::ZeroRange) };
        assert_eq!(zeroes.done(&missing, -libc::EOPNOTSUPP), None);
        assert_eq!(zeroes.way, Way::PunchHole);
        assert_eq!(zeroes.done(&missing, -libc::EOPNOTSUPP), None);
        assert_eq!(zeroes.way, Way::Write);
        assert_eq!(zeroes.done(&missing, 65536), None);
        assert_eq!((zeroes.at, zeroes.left), (8192 + 65536, 100_000 - 65536));
        assert_eq!(zeroes.done(&missing, 100_000 - 65536), Some(Ok(())));
        assert!(missing.zero_range.load(Ordering::Relaxed) && missing.punch_hole.load(Ordering::Relaxed));
        let mut discard = pending(Operation::Discard { at: 0, len: 512 }, &[], Way::PunchHole);
        assert_eq!(discard.done(&missing, -libc::EOPNOTSUPP), Some(Ok(())), "it was advice");
    }
}
