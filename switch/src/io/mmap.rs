//! Memory mappings: the four rings of a socket, and the frames of UMEM.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use nix::errno::Errno;

/// A mapping that is unmapped on drop. It hands out only its address. Users of the memory must keep this alive.
#[derive(Debug)]
pub struct Mmap {
    start: NonNull<u8>,
    len: usize,
    /// Whether the memory stays mapped on drop.
    kept: bool,
}

// SAFETY: the mapping belongs to the process, not to a thread, and `Mmap` itself reads and writes none of it.
unsafe impl Send for Mmap {}
// SAFETY: as above. Shared references give the address and the length only.
unsafe impl Sync for Mmap {}

impl Mmap {
    /// Maps `len` bytes of a socket's ring at `offset`, with all pages populated.
    pub fn ring(fd: BorrowedFd<'_>, len: usize, offset: libc::off_t) -> Result<Self, Errno> {
        Self::new(len, libc::MAP_SHARED | libc::MAP_POPULATE, fd.as_raw_fd(), offset)
    }

    /// Maps `len` bytes of zeroes. With `huge` they lie on huge pages, and `len` is a multiple of 2 MiB.
    ///
    /// # Errors
    /// ENOMEM if there are too few huge pages.
    pub fn anonymous(len: usize, huge: bool) -> Result<Self, Errno> {
        // Huge pages must be reserved by the call. With MAP_NORESERVE it succeeds, and the first touch kills the
        // process.
        let flags = match huge {
            true => libc::MAP_HUGETLB,
            false if cfg!(miri) => 0, // Miri does not know MAP_NORESERVE.
            false => libc::MAP_NORESERVE,
        };
        Self::new(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags, -1, 0)
    }

    /// Asks the kernel for transparent huge pages (2 MiB) at the first touch. A kernel that has none uses ordinary
    /// pages.
    pub fn prefer_huge(&self) {
        // Miri has no `madvise`.
        if cfg!(miri) {
            return;
        }
        // SAFETY: advice on this mapping changes none of its bytes.
        unsafe {
            libc::madvise(self.start.as_ptr().cast(), self.len, libc::MADV_HUGEPAGE);
        }
    }

    fn new(len: usize, flags: libc::c_int, fd: libc::c_int, offset: libc::off_t) -> Result<Self, Errno> {
        // SAFETY: the kernel chooses the address of a new mapping, so no memory in use is touched.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, fd, offset) };
        if start == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let start = NonNull::new(start.cast()).ok_or(Errno::ENOMEM)?;
        Ok(Self { start, len, kept: false })
    }

    /// Leaves the memory mapped for the rest of the process.
    pub fn keep(&mut self) {
        self.kept = true;
    }

    /// First byte.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Length in bytes.
    pub fn size(&self) -> usize {
        self.len
    }
}

impl Drop for Mmap {
    fn drop(&mut self) {
        if !self.kept {
            // SAFETY: `new` made this mapping, and only this call unmaps it. Users keep this value alive while they use
            // the memory.
            unsafe {
                libc::munmap(self.start.as_ptr().cast(), self.len);
            }
        }
    }
}
