//! Mappings of files that a front end gives: guest memory, the dirty log, the inflight region.
#![allow(unsafe_code, reason = "mmap and munmap")]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::sys::statfs::{FsType, HUGETLBFS_MAGIC, TMPFS_MAGIC, fstatfs};
use nix::unistd::{SysconfVar, sysconf};

use super::error::MemoryError;
use super::faults::Guarded;

/// Bytes that stay mapped for reading and writing until this is dropped.
///
/// The file's owner may shrink the file. Then the bytes become zeroes, and the flag of the mapping is set
/// ([`super::faults`]).
#[derive(Debug)]
pub(crate) struct Mapping {
    /// First byte that was asked for.
    start: NonNull<u8>,
    /// Bytes that were asked for.
    len: usize,
    memory: Memory,
}

#[derive(Debug)]
enum Memory {
    /// Whole pages around the bytes.
    Pages { _guarded: Guarded, _pages: Pages },
    #[cfg(any(test, feature = "driver"))]
    Heap(std::alloc::Layout),
}

// SAFETY: the mapping belongs to the process, not to a thread, and `Mapping` itself reads and writes none of it.
unsafe impl Send for Mapping {}
// SAFETY: as above. Shared references give the address and the length only.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of a file at `offset`, which need not be aligned. `broken` becomes true when the file turns out
    /// to be shorter.
    ///
    /// # Errors
    /// The file is no memory of the kernel's own, or too short. Numbers overflow, or the kernel refuses.
    pub(crate) fn of_file(
        fd: BorrowedFd<'_>,
        offset: u64,
        len: u64,
        broken: &Arc<AtomicBool>,
    ) -> Result<Self, MemoryError> {
        Self::of_pages(fd, offset, len, page_size_of(fd)?, broken)
    }

    /// Maps the first `len` bytes of a file that this process has made, on any file system.
    ///
    /// # Errors
    /// It is too short, or the kernel refuses.
    pub(crate) fn of_own_file(fd: BorrowedFd<'_>, len: u64, broken: &Arc<AtomicBool>) -> Result<Self, MemoryError> {
        Self::of_pages(fd, 0, len, system_page(), broken)
    }

    /// Maps `len` bytes of a file whose pages have `page` bytes.
    fn of_pages(
        fd: BorrowedFd<'_>,
        offset: u64,
        len: u64,
        page: u64,
        broken: &Arc<AtomicBool>,
    ) -> Result<Self, MemoryError> {
        let end = offset.checked_add(len).ok_or(MemoryError::Overflow { size: len })?;
        let file = fstat(fd).map_err(MemoryError::of("fstat"))?.st_size;
        let file = u64::try_from(file).unwrap_or_default();
        if end > file {
            return Err(MemoryError::FileTooShort { file, end });
        }
        let Extent { offset, skip, len: mapped } = extent(offset, len, page)?;
        let pages = Pages::new(fd, offset, mapped)?;
        // SAFETY: `skip` is less than `mapped`, the length of the mapping.
        let start = unsafe { pages.start.add(skip) };
        // SAFETY: the pages are private to this value, which ends the guard before it unmaps them.
        let guarded = unsafe { Guarded::new(pages.start, pages.len, Arc::clone(broken)) };
        let len = usize::try_from(len).map_err(|_| MemoryError::Overflow { size: len })?;
        Ok(Self { start, len, memory: Memory::Pages { _guarded: guarded, _pages: pages } })
    }

    /// Ordinary memory instead of a file: `len` bytes of zeroes. It is for tests, and for Miri, which maps no files.
    ///
    /// # Panics
    /// If `len` is zero, or more than there is.
    #[cfg(any(test, feature = "driver"))]
    pub(crate) fn of_heap(len: usize) -> Self {
        assert!(len > 0, "a mapping of no bytes");
        let layout = std::alloc::Layout::from_size_align(len, 4096).expect("a size");
        // SAFETY: the size is not zero.
        let start = unsafe { std::alloc::alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| std::alloc::handle_alloc_error(layout));
        Self { start, len, memory: Memory::Heap(layout) }
    }

    /// First byte.
    #[inline]
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Number of bytes, at least one.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        match self.memory {
            // Fields are dropped in order, so the guard ends before the pages are unmapped.
            Memory::Pages { .. } => (),
            #[cfg(any(test, feature = "driver"))]
            // SAFETY: `of_heap` allocated this with the same layout. Users keep this value alive while they use it.
            Memory::Heap(layout) => unsafe { std::alloc::dealloc(self.start.as_ptr(), layout) },
        }
    }
}

/// A mapping of whole pages.
#[derive(Debug)]
struct Pages {
    start: NonNull<u8>,
    len: usize,
}

impl Pages {
    fn new(fd: BorrowedFd<'_>, offset: libc::off_t, len: usize) -> Result<Self, MemoryError> {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_NORESERVE);
        // SAFETY: the kernel chooses the address of a new mapping, so no memory in use is touched.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, access, flags, fd.as_raw_fd(), offset) };
        if start == libc::MAP_FAILED {
            return Err(MemoryError::Refused { call: "mmap", errno: Errno::last() });
        }
        // A core dump of the switch is no place for the memory of guests. Where the kernel refuses, it is bigger.
        // SAFETY: advice on this mapping changes none of its bytes.
        unsafe { libc::madvise(start, len, libc::MADV_DONTDUMP) };
        let start = NonNull::new(start.cast()).ok_or(MemoryError::Refused { call: "mmap", errno: Errno::ENOMEM })?;
        Ok(Self { start, len })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: `new` made this mapping, and only this call unmaps it. Users keep this value alive while they use the
        // memory.
        unsafe {
            libc::munmap(self.start.as_ptr().cast(), self.len);
        }
    }
}

/// Bytes of a page of the file. A mapping must begin and end at a multiple.
///
/// Only files whose pages the kernel itself provides are taken. On another file system its server could leave a page
/// fault unanswered, which would stop the thread for good.
fn page_size_of(fd: BorrowedFd<'_>) -> Result<u64, MemoryError> {
    let system = fstatfs(fd).map_err(MemoryError::of("fstatfs"))?;
    match system.filesystem_type() {
        TMPFS_MAGIC => Ok(system_page()),
        HUGETLBFS_MAGIC => Ok(u64::try_from(system.block_size()).unwrap_or(2 << 20)),
        FsType(kind) => Err(MemoryError::FileSystem { kind }),
    }
}

/// Bytes of a page of memory.
fn system_page() -> u64 {
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|page| u64::try_from(page).ok());
    page.unwrap_or(4096)
}

/// Whole pages that have given bytes of a file.
#[derive(Debug, PartialEq, Eq)]
struct Extent {
    /// Where the pages begin in the file.
    offset: libc::off_t,
    /// Bytes between there and the first byte that was asked for.
    skip: usize,
    /// Bytes of the pages.
    len: usize,
}

/// Whole pages of `page` bytes that have the `len` bytes at `offset`.
fn extent(offset: u64, len: u64, page: u64) -> Result<Extent, MemoryError> {
    if len == 0 {
        return Err(MemoryError::Empty);
    }
    let pages = || {
        let skip = offset % page;
        let len = len.checked_add(skip)?.checked_next_multiple_of(page)?;
        // The end is an offset too.
        libc::off_t::try_from((offset - skip).checked_add(len)?).ok()?;
        let offset = libc::off_t::try_from(offset - skip).ok()?;
        Some(Extent { offset, skip: usize::try_from(skip).ok()?, len: usize::try_from(len).ok()? })
    };
    pages().ok_or(MemoryError::Overflow { size: len })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use nix::sys::memfd::{MFdFlags, memfd_create};

    use super::*;

    #[test]
    fn pages_are_whole_ones_around_the_bytes() {
        let pages = |offset, len, page| extent(offset, len, page);
        assert_eq!(pages(0, 1, 4096), Ok(Extent { offset: 0, skip: 0, len: 4096 }));
        assert_eq!(pages(0xc_0000, 0x10_0000, 2 << 20), Ok(Extent { offset: 0, skip: 0xc_0000, len: 2 << 20 }));
        assert_eq!(pages(0x1f_f000, 0x2000, 2 << 20), Ok(Extent { offset: 0, skip: 0x1f_f000, len: 4 << 20 }));
        assert_eq!(pages(4097, 4095, 4096), Ok(Extent { offset: 4096, skip: 1, len: 4096 }));
        assert_eq!(pages(7, 0, 4096), Err(MemoryError::Empty));
        for (offset, len) in [(u64::MAX, 1), (1, u64::MAX), (1 << 63, 1), ((1 << 63) - 4096, 4097)] {
            assert_eq!(pages(offset, len, 4096), Err(MemoryError::Overflow { size: len }), "{len:#x} at {offset:#x}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "maps files")]
    fn files_that_are_no_memory_or_too_short_are_refused() {
        let broken = Arc::new(AtomicBool::new(false));
        let map = |fd: BorrowedFd<'_>, offset, len| Mapping::of_file(fd, offset, len, &broken).map(|map| map.len());
        let memory = File::from(memfd_create(c"guest", MFdFlags::MFD_CLOEXEC).unwrap());
        memory.set_len(8192).unwrap();
        assert_eq!(map(memory.as_fd(), 4096, 4096), Ok(4096));
        assert_eq!(map(memory.as_fd(), 10, 8182), Ok(8182));
        assert_eq!(map(memory.as_fd(), 4097, 4096), Err(MemoryError::FileTooShort { file: 8192, end: 8193 }));
        assert_eq!(map(memory.as_fd(), u64::MAX, 2), Err(MemoryError::Overflow { size: 2 }));
        assert_eq!(map(memory.as_fd(), 0, 0), Err(MemoryError::Empty));
        let null = File::open("/dev/null").unwrap();
        assert!(map(null.as_fd(), 0, 4096).is_err());
        let (pipe, _writer) = nix::unistd::pipe().unwrap();
        assert!(matches!(map(pipe.as_fd(), 0, 4096), Err(MemoryError::FileSystem { .. })));
        let readable = File::open(format!("/proc/self/fd/{}", memory.as_raw_fd())).unwrap();
        assert_eq!(
            map(readable.as_fd(), 0, 4096),
            Err(MemoryError::Refused { call: "mmap", errno: Errno::EACCES }),
            "it can't be written"
        );
    }
}
