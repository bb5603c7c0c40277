//! Memory mappings: the four rings of a socket, and the frames of UMEM.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use nix::errno::Errno;

/// A mapping that is undone when this is dropped. It only hands out its address: whoever uses the memory keeps this alive.
#[derive(Debug)]
pub struct Mmap {
    start: NonNull<u8>,
    len: usize,
    /// Stays mapped when this is dropped.
    kept: bool,
}

// SAFETY: the mapping belongs to the process, not to a thread, and `Mmap` itself reads and writes none of it.
unsafe impl Send for Mmap {}
// SAFETY: as above; shared references give the address and the length only.
unsafe impl Sync for Mmap {}

impl Mmap {
    /// Maps `len` bytes of a socket's ring at `offset`, populated.
    pub fn ring(fd: BorrowedFd<'_>, len: usize, offset: libc::off_t) -> Result<Self, Errno> {
        Self::new(len, libc::MAP_SHARED | libc::MAP_POPULATE, fd.as_raw_fd(), offset)
    }

    /// Maps `len` bytes of zeroes, on huge pages if asked (ENOMEM if there are not enough). `len` is a multiple of 2 MiB then.
    pub fn anonymous(len: usize, huge: bool) -> Result<Self, Errno> {
        // Huge pages must be reserved by the call: without (MAP_NORESERVE) it succeeds and the first touch kills.
        let flags = if huge { libc::MAP_HUGETLB } else { libc::MAP_NORESERVE };
        Self::new(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags, -1, 0)
    }

    /// Asks the kernel for transparent huge pages (2 MiB) when the memory is first touched. That is a wish: a kernel that
    /// has none goes on with ordinary pages.
    pub fn prefer_huge(&self) {
        // SAFETY: advice on this mapping, which changes no byte of it.
        unsafe {
            libc::madvise(self.start.as_ptr().cast(), self.len, libc::MADV_HUGEPAGE);
        }
    }

    fn new(len: usize, flags: libc::c_int, fd: libc::c_int, offset: libc::off_t) -> Result<Self, Errno> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that anyone has.
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
            // SAFETY: this mapping was made by `new` and is undone once. Its users hold this alive while they use it.
            unsafe {
                libc::munmap(self.start.as_ptr().cast(), self.len);
            }
        }
    }
}
