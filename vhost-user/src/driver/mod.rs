//! A driver's side of rings, as a guest has it, for tests, fuzzing and micro-benchmarks.
//!
//! It does what the specification asks of a driver, and panics when the device does not. It uses nothing of the
//! device's side but the layout of rings in memory.
#![allow(clippy::cast_possible_truncation, reason = "sizes and indices of rings, which are checked")]

mod front_end;
mod packed;
mod repeat;
mod split;

use std::sync::Arc;

pub use self::front_end::{FrontEnd, Record};
use self::packed::PackedDriver;
pub use self::repeat::{Repeater, Turn};
use self::split::SplitDriver;
use crate::memory::{GuestMemory, MemoryError};
use crate::message::RegionAddress;
use crate::ring::{Position, RingSetup};

/// First guest address of the memories made here.
pub const GUEST: u64 = 0x10_0000;
/// The same byte in the front end's process.
pub const USER: u64 = 0x7f00_0000_0000;
/// Entries of an indirect table.
pub const TABLE: usize = 16;
/// Parts of a ring begin at multiples of this, in bytes.
const ALIGN: u64 = 64;

/// `bytes` bytes of ordinary memory at [`GUEST`], as a guest's.
///
/// # Errors
/// There are no bytes.
pub fn memory(bytes: u64) -> Result<Arc<GuestMemory>, MemoryError> {
    GuestMemory::of_heap([RegionAddress { guest_addr: GUEST, size: bytes, user_addr: USER, mmap_offset: 0 }])
        .map(Arc::new)
}

/// A buffer that the driver offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// First byte.
    pub guest: u64,
    /// Number of bytes.
    pub len: u32,
    /// Whether the device writes it.
    pub writable: bool,
}

/// A chain that the device has given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// What the driver called it.
    pub token: u64,
    /// Bytes that the device has written, as it says. None if another chain's entry stands for this one too. Then all
    /// bytes count as written.
    pub len: Option<u32>,
}

/// A chain that the device has.
#[derive(Clone, Copy, Debug)]
struct Offered {
    token: u64,
    /// Descriptors in the ring or table of descriptors.
    descriptors: u16,
    /// Bytes to write.
    writable: u32,
}

impl Offered {
    fn new(token: u64, descriptors: u16, buffers: &[Buffer]) -> Self {
        Self { token, descriptors, writable: buffers.iter().filter(|b| b.writable).map(|b| b.len).sum() }
    }

    /// # Panics
    /// If the device says that it has written more than there is.
    fn used(&self, len: Option<u32>) -> Used {
        assert!(len.is_none_or(|len| len <= self.writable), "{len:?} of {} bytes were written", self.writable);
        Used { token: self.token, len }
    }
}

/// Places for the parts of a new ring from `at` on, and zeroes there: what the front end tells, the first byte of
/// indirect tables if they are negotiated, and the first byte behind.
fn lay_out(memory: &GuestMemory, at: u64, shape: RingSetup) -> (RingSetup, u64, u64) {
    let region = memory.regions().next().expect("a region");
    let mut end = at;
    let mut place = |bytes: u64| {
        let start = end;
        end = (start + bytes).next_multiple_of(ALIGN);
        start
    };
    let size = u64::from(shape.size);
    let descriptors = place(16 * size);
    let (available, used) =
        if shape.features.packed { (place(4), place(4)) } else { (place(6 + 2 * size), place(6 + 8 * size)) };
    let tables = if shape.features.indirect { place(16 * TABLE as u64 * size) } else { 0 };
    let user = |guest: u64| guest - region.guest_addr + region.user_addr;
    let setup = RingSetup { descriptors: user(descriptors), available: user(available), used: user(used), ..shape };
    memory.write(descriptors, &vec![0; (end - at) as usize]).expect("room for the ring");
    (setup, tables, end)
}

/// A driver of one ring.
#[derive(Debug)]
pub struct Driver {
    setup: RingSetup,
    end: u64,
    ring: Ring,
}

#[derive(Debug)]
enum Ring {
    Split(SplitDriver),
    Packed(PackedDriver),
}

macro_rules! with {
    ($ring:expr, $name:ident => $do:expr) => {
        match $ring {
            Ring::Split($name) => $do,
            Ring::Packed($name) => $do,
        }
    };
}

impl Driver {
    /// A driver of a new ring at guest address `at`, a multiple of 64, in the first region. The ring is empty and
    /// stands at `start`. Of `shape` everything counts but the addresses.
    ///
    /// # Panics
    /// If the memory has no room, or there is no such ring.
    pub fn new(memory: &Arc<GuestMemory>, at: u64, shape: RingSetup, start: Position) -> Self {
        let (setup, tables, end) = lay_out(memory, at, shape);
        let ring = match shape.features.packed {
            true => Ring::Packed(PackedDriver::new(memory, &setup, tables, start)),
            false => Ring::Split(SplitDriver::new(memory, &setup, tables, start)),
        };
        Self { setup, end, ring }
    }

    /// What a front end tells the device.
    pub fn setup(&self) -> &RingSetup {
        &self.setup
    }

    /// First guest address behind the ring.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Makes a chain, if there is room. With `indirect` its descriptors lie in a table. The device sees it after
    /// [`Driver::publish`].
    ///
    /// # Panics
    /// If there are no buffers, or too many for a table.
    pub fn add(&mut self, buffers: &[Buffer], token: u64, indirect: bool) -> bool {
        assert!(!buffers.is_empty() && (!indirect || buffers.len() <= TABLE), "{} buffers", buffers.len());
        with!(&mut self.ring, ring => ring.add(buffers, token, indirect))
    }

    /// Makes what was added available. Returns whether the device wants a kick.
    pub fn publish(&mut self) -> bool {
        with!(&mut self.ring, ring => ring.publish())
    }

    /// The next chain that the device has used.
    ///
    /// # Panics
    /// If the device used something else than what it has, or in another order than negotiated.
    pub fn collect(&mut self) -> Option<Used> {
        with!(&mut self.ring, ring => ring.collect())
    }

    /// Asks for a call when the next chain is used. Returns whether one is used already.
    pub fn enable_calls(&mut self) -> bool {
        with!(&mut self.ring, ring => ring.enable_calls())
    }

    /// Asks for no calls.
    pub fn disable_calls(&mut self) {
        with!(&mut self.ring, ring => ring.disable_calls());
    }
}
