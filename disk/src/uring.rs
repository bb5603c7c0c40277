//! The io_uring of a thread: what it waits for, and what it has the kernel do.
//!
//! The ring takes only what disks need: it is made with restrictions, so that no other operation and no file that was
//! not registered is reached by it, whatever gets into its memory.
#![allow(unsafe_code, reason = "the kernel reads and writes the memory that operations name")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use io_uring::register::Restriction;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};

/// `IORING_REGISTER_FILES_UPDATE`: files come and go with rings.
const FILES_UPDATE: u8 = 6;

/// What came of an operation.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// As it was given.
    pub user_data: u64,
    /// What a system call would have returned.
    pub result: i32,
    /// More will come of the same operation.
    pub more: bool,
}

/// A file that the ring may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered(u32);

impl Registered {
    /// As operations name it.
    pub fn fixed(self) -> Fixed {
        Fixed(self.0)
    }
}

/// An io_uring. One thread makes it and uses it.
pub struct Ring {
    uring: IoUring,
    /// Places of the table of files, and whether each is taken.
    files: Vec<bool>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("files", &self.files.len()).finish_non_exhaustive()
    }
}

/// Makes a ring of that size, as cheap as the kernel can.
fn build(entries: u32) -> io::Result<IoUring> {
    let completions = entries.saturating_mul(4);
    // Completions are made when this thread asks, not by interrupting it. Kernel 6.1 and later.
    let best = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_cqsize(completions)
        .setup_r_disabled()
        .build(entries);
    match best {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            IoUring::builder().setup_cqsize(completions).setup_r_disabled().build(entries)
        }
        made => made,
    }
}

impl Ring {
    /// A ring with so many entries, which may use so many files.
    ///
    /// # Errors
    /// Those of io_uring_setup(2) and io_uring_register(2). EPERM or ENOSYS if the host has it switched off.
    pub fn new(entries: u32, files: u32) -> io::Result<Self> {
        let uring = build(entries)?;
        let submitter = uring.submitter();
        submitter.register_files_sparse(files)?;
        let operations = [
            opcode::Read::CODE,
            opcode::Readv::CODE,
            opcode::Write::CODE,
            opcode::Writev::CODE,
            opcode::Fsync::CODE,
            opcode::Fallocate::CODE,
            opcode::PollAdd::CODE,
            opcode::AsyncCancel::CODE,
        ];
        let mut restrictions: Vec<_> = operations.into_iter().map(Restriction::sqe_op).collect();
        restrictions.push(Restriction::register_op(FILES_UPDATE));
        restrictions.push(Restriction::sqe_flags_required(Flags::FIXED_FILE.bits()));
        submitter.register_restrictions(&mut restrictions)?;
        submitter.register_enable_rings()?;
        Ok(Self { uring, files: vec![false; usize::try_from(files).unwrap_or_default()] })
    }

    /// Lets the ring use a file. It keeps the file open until that is forgotten.
    ///
    /// # Errors
    /// ENFILE if there is no room, or the kernel's error.
    pub fn register(&mut self, fd: BorrowedFd<'_>) -> io::Result<Registered> {
        let free = self.files.iter().position(|taken| !taken);
        let at = free.ok_or_else(|| io::Error::from_raw_os_error(libc::ENFILE))?;
        let place = u32::try_from(at).unwrap_or(u32::MAX);
        self.update(place, fd.as_raw_fd())?;
        self.files[at] = true;
        Ok(Registered(place))
    }

    /// Forgets a file. Operations that have begun go on.
    pub fn forget(&mut self, file: Registered) {
        if let Some(taken) = usize::try_from(file.0).ok().and_then(|at| self.files.get_mut(at)) {
            *taken = false;
        }
        // The place is overwritten later if this fails.
        let _ = self.update(file.0, -1);
    }

    fn update(&self, place: u32, fd: RawFd) -> io::Result<()> {
        self.uring.submitter().register_files_update(place, &[fd]).map(drop)
    }

    /// Adds an operation. The kernel sees it at the next [`Ring::wait`], or earlier.
    ///
    /// # Safety
    /// Memory that it names stays valid and unused until its completion is there. Vectors of buffers need to be valid
    /// only until the next [`Ring::wait`].
    pub unsafe fn push(&mut self, entry: Entry) {
        // SAFETY: as above.
        while unsafe { self.uring.submission().push(&entry) }.is_err() {
            // It is full: the kernel takes what is there. It may fail while completions wait, and those are bounded.
            let _ = self.uring.submit();
        }
    }

    /// Gives the kernel what was added, and waits until something has come of some operation, or for that long.
    ///
    /// # Errors
    /// The kernel refuses, which it does for no reason that passes.
    pub fn wait(&mut self, most: Option<Duration>) -> io::Result<()> {
        let submitter = self.uring.submitter();
        let waited = match most {
            None => submitter.submit_and_wait(1),
            Some(most) => {
                let time = Timespec::from(most);
                submitter.submit_with_args(1, &SubmitArgs::new().timespec(&time))
            }
        };
        match waited {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Time is over, a signal, or completions have to be taken first.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// What has come of operations, without waiting.
    pub fn completions(&mut self) -> impl Iterator<Item = Completion> + '_ {
        self.uring.completion().map(|entry| Completion {
            user_data: entry.user_data(),
            result: entry.result(),
            more: cqueue::more(entry.flags()),
        })
    }
}
