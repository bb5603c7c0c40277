//! What a guest, or its front end, can do wrong with a ring.

use super::Position;
use crate::event::EventError;
use crate::memory::MemoryError;

/// Why a ring is refused or given up. Its owner ends the session: nothing is to be repaired here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// No ring has so many entries.
    #[error("a ring of {0} entries; split rings have a power of two, and none has more than 32,768")]
    Size(u32),
    /// A part of the ring is not in the guest's memory.
    #[error("{part}: {error}")]
    Area {
        /// The part.
        part: &'static str,
        /// What is wrong.
        error: MemoryError,
    },
    /// A part of the ring is not aligned.
    #[error("{part} at {user:#x} is not aligned to {align} bytes")]
    Alignment {
        /// The part.
        part: &'static str,
        /// Its address in the front end's process.
        user: u64,
        /// Bytes that it must be aligned to.
        align: usize,
    },
    /// A ring can't go on at this position.
    #[error("a ring of {size} entries can't go on at {position:?}")]
    Position {
        /// Where it was to go on.
        position: Position,
        /// Number of entries.
        size: u16,
    },
    /// More buffers are available than the ring has room for.
    #[error("{available} of {size} entries are available or in use")]
    TooManyAvailable {
        /// Entries that the driver claims to have filled and the device has not used.
        available: u32,
        /// Number of entries.
        size: u16,
    },
    /// An index is none of the descriptor table.
    #[error("descriptor {index} of {count}")]
    Index {
        /// The index.
        index: u16,
        /// Number of descriptors in the table.
        count: usize,
    },
    /// A chain has more descriptors, or more pieces of memory, than are allowed. It may be a loop.
    #[error("a chain of more than {limit} buffers, or a loop")]
    TooLong {
        /// The limit.
        limit: u16,
    },
    /// A chain has 4 GiB or more.
    #[error("a chain of 4 GiB or more")]
    TooManyBytes,
    /// A descriptor's bytes are not in the guest's memory, or there are none.
    #[error("a buffer of {len:#x} bytes at guest address {guest:#x}, which is not the guest's memory")]
    Buffer {
        /// First byte.
        guest: u64,
        /// Number of bytes.
        len: u32,
    },
    /// A buffer to read comes after one to write.
    #[error("a buffer to read follows one to write")]
    Order,
    /// A table of descriptors where none may be: not negotiated, in another table, or with a further descriptor.
    #[error("an indirect descriptor where none may be")]
    Indirect,
    /// A table of descriptors has a length that is none, or lies outside of the guest's memory.
    #[error("an indirect table of {len:#x} bytes at guest address {guest:#x}")]
    Table {
        /// First byte.
        guest: u64,
        /// Number of bytes.
        len: u32,
    },
    /// A chain was offered that the device has already.
    #[error("chain {id} is in work already")]
    InWork {
        /// What the driver knows it by.
        id: u16,
    },
    /// The inflight region has no such queue.
    #[error("the inflight region has no queue {index} of this size and kind")]
    Inflight {
        /// Number of the queue.
        index: u16,
    },
    /// The guest's memory has lost pages ([`crate::memory::GuestMemory::is_broken`]).
    #[error("the guest has taken pages of its memory away")]
    MemoryBroken,
    /// The guest can't be told that buffers were used.
    #[error("the guest's call: {0}")]
    Call(#[from] EventError),
}
