//! Which requests a device has in work, in memory that outlives it (vhost-user, "Inflight I/O tracking").
//!
//! A device that uses chains in any order can't tell from a ring which ones it had when it died. So it notes them in a
//! memory that the front end keeps (`VHOST_USER_GET_INFLIGHT_FD`, `VHOST_USER_SET_INFLIGHT_FD`). The next device gets
//! them again, oldest first, before it takes new ones. Nothing is done twice that the driver has seen as used, and
//! nothing is left out.
//!
//! The memory comes from the front end, so nothing in it is believed.

mod packed;
mod split;
#[cfg(test)]
mod tests;
mod tracked;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::sys::memfd::{MFdFlags, memfd_create};

pub use self::tracked::TrackedQueue;
use super::position::MAX_SIZE;
use crate::memory::{Mapping, MemoryError};
use crate::message::InflightLayout;

/// Queues' parts begin at multiples of this, in bytes.
const ALIGN: u64 = 64;
/// Version of the layout. 0 is memory that was never used.
const VERSION: u16 = 1;

/// The memory of all queues of a device.
#[derive(Debug)]
pub struct InflightRegion {
    mapping: Arc<Mapping>,
    layout: InflightLayout,
    packed: bool,
}

/// Bytes of a queue's part.
fn part(queue_size: u16, packed: bool) -> u64 {
    let entries = u64::from(queue_size);
    let bytes = if packed { packed::HEADER + packed::ENTRY * entries } else { split::HEADER + split::ENTRY * entries };
    bytes.next_multiple_of(ALIGN)
}

impl InflightRegion {
    /// Makes the memory, without requests, and the file that the front end keeps.
    ///
    /// # Errors
    /// No queue has so many entries, or the kernel refuses.
    pub fn create(queues: u16, queue_size: u16, packed: bool) -> Result<(Self, OwnedFd), MemoryError> {
        let size = u64::from(queues) * part(queue_size, packed);
        let refused = |call| move |errno| MemoryError::Refused { call, errno };
        let file = memfd_create(c"xswitch-inflight", MFdFlags::MFD_CLOEXEC).map_err(refused("memfd_create"))?;
        let length = i64::try_from(size).map_err(|_| MemoryError::Overflow { size })?;
        nix::unistd::ftruncate(&file, length).map_err(refused("ftruncate"))?;
        let region =
            Self::open(file.as_fd(), InflightLayout { size, offset: 0, rings: queues, ring_size: queue_size }, packed)?;
        Ok((region, file))
    }

    /// Maps the memory that the front end has kept.
    ///
    /// # Errors
    /// The memory is too short for the queues, or [`MemoryError`] says what is wrong with the file.
    pub fn open(fd: BorrowedFd<'_>, layout: InflightLayout, packed: bool) -> Result<Self, MemoryError> {
        let InflightLayout { size, offset, rings, ring_size } = layout;
        let needed = u64::from(rings) * part(ring_size, packed);
        if size < needed || ring_size > MAX_SIZE || !offset.is_multiple_of(8) {
            return Err(MemoryError::FileTooShort { file: size, end: needed });
        }
        // Its owner looks at the region's requests only when a session begins. A memory that shrinks later is one that
        // no longer works for whoever shrank it.
        let mapping = Mapping::of_file(fd, offset, size, &Arc::new(AtomicBool::new(false)))?;
        Ok(Self { mapping: Arc::new(mapping), layout, packed })
    }

    /// Memory without a file, for tests.
    #[cfg(test)]
    fn of_heap(queues: u16, queue_size: u16, packed: bool) -> Self {
        let size = u64::from(queues) * part(queue_size, packed);
        let layout = InflightLayout { size, offset: 0, rings: queues, ring_size: queue_size };
        Self { mapping: Arc::new(Mapping::of_heap(size as usize)), layout, packed }
    }

    /// What the front end is told of it.
    pub fn layout(&self) -> InflightLayout {
        self.layout
    }

    /// Where a queue's part begins.
    fn start(&self, queue: u16) -> Option<usize> {
        let start = u64::from(queue) * part(self.layout.ring_size, self.packed);
        usize::try_from(start).ok().filter(|_| queue < self.layout.rings)
    }
}
