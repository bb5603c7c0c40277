//! What can be wrong with memory that a front end gives, or with an address in it.

use nix::errno::Errno;

use super::MAX_REGIONS;

/// Why memory is refused, or why an address is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// A region has no bytes.
    #[error("a memory region of no bytes")]
    Empty,
    /// A region ends beyond 2⁶⁴, in the guest's or the user's addresses, or in its file.
    #[error("a memory region of {size:#x} bytes ends beyond what an address or offset can be")]
    Overflow {
        /// Bytes of the region.
        size: u64,
    },
    /// A file is shorter than what is said to lie in it.
    #[error("the file of the memory ends at {file:#x}; it must reach to {end:#x}")]
    FileTooShort {
        /// Bytes of the file.
        file: u64,
        /// Where the region ends in the file.
        end: u64,
    },
    /// A file lies where another process can make accesses wait for ever, as on FUSE or NFS.
    #[error("memory must be a memfd, or a file on tmpfs or hugetlbfs (file system type {kind:#x})")]
    FileSystem {
        /// `f_type` of statfs(2).
        kind: i64,
    },
    /// Two regions have a guest address in common.
    #[error("memory regions overlap at guest address {guest:#x}")]
    Overlap {
        /// First byte of the later region.
        guest: u64,
    },
    /// There are more regions than a guest may have.
    #[error("more than {MAX_REGIONS} memory regions")]
    TooMany,
    /// No region has these addresses and this size.
    #[error("no memory region of {size:#x} bytes at guest address {guest:#x}")]
    NoRegion {
        /// First byte.
        guest: u64,
        /// Bytes.
        size: u64,
    },
    /// Bytes that the guest names are not all in its memory.
    #[error("{len:#x} bytes at guest address {guest:#x} are not the guest's memory")]
    Guest {
        /// First byte.
        guest: u64,
        /// Bytes.
        len: u64,
    },
    /// Bytes that the front end names by its own address are not all in the guest's memory.
    #[error("{len:#x} bytes at the front end's address {user:#x} are not the guest's memory")]
    User {
        /// First byte.
        user: u64,
        /// Bytes.
        len: u64,
    },
    /// The kernel refused a call.
    #[error("{call}: {errno}")]
    Refused {
        /// Name of the call.
        call: &'static str,
        /// Its error.
        errno: Errno,
    },
}

impl MemoryError {
    /// For `map_err`.
    pub(super) fn of(call: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::Refused { call, errno }
    }
}
