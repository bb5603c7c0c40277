//! What rings consist of, as it lies in the guest's memory (virtio 1.2, 2.7 and 2.8). All numbers are little-endian.
//!
//! A guest without `VIRTIO_F_VERSION_1` uses its own byte order. That is little-endian on all machines that the switch
//! runs on.
#![allow(unsafe_code, reason = "types over bytes that another process writes")]

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::memory::Atomic;

/// A further descriptor follows (`VIRTQ_DESC_F_NEXT`).
pub const NEXT: u16 = 1;
/// The device writes, and does not read (`VIRTQ_DESC_F_WRITE`).
pub const WRITE: u16 = 2;
/// The buffer is a table of descriptors (`VIRTQ_DESC_F_INDIRECT`).
pub const INDIRECT: u16 = 4;
/// Equals the driver's wrap counter in a descriptor that is available (`VIRTQ_DESC_F_AVAIL`).
pub const AVAIL: u16 = 1 << 7;
/// Equals the device's wrap counter in a descriptor that is used (`VIRTQ_DESC_F_USED`).
pub const USED: u16 = 1 << 15;
/// The other side needs no notifications, in the flags of a split ring.
pub const SUPPRESS: u16 = 1;
/// Event flags of a packed ring: notify always.
pub const EVENT_ENABLE: u16 = 0;
/// Notify never.
pub const EVENT_DISABLE: u16 = 1;
/// Notify when a certain descriptor is reached.
pub const EVENT_DESCRIPTOR: u16 = 2;

macro_rules! little_endian {
    ($name:ident, $atomic:ty, $int:ty, $of:literal) => {
        #[doc = concat!("A little-endian ", $of, " that both sides may access at any time.")]
        #[derive(Debug, Default)]
        #[repr(transparent)]
        pub struct $name($atomic);

        // SAFETY: an atomic integer.
        unsafe impl Atomic for $name {}

        impl $name {
            /// The number.
            #[inline(always)]
            pub fn load(&self, order: Ordering) -> $int {
                <$int>::from_le(self.0.load(order))
            }

            /// Writes the number.
            #[inline(always)]
            pub fn store(&self, value: $int, order: Ordering) {
                self.0.store(value.to_le(), order);
            }
        }
    };
}

little_endian!(Le16, AtomicU16, u16, "16-bit number");
little_endian!(Le32, AtomicU32, u32, "32-bit number");
little_endian!(Le64, AtomicU64, u64, "64-bit number");

/// A descriptor in memory. Its second half is one word, so that it is read and written at once.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Descriptor {
    /// Guest address of the buffer.
    pub addr: Le64,
    /// Length, and two numbers that depend on the kind of ring: [`SplitDesc`], [`PackedDesc`].
    pub rest: Le64,
}
// SAFETY: two atomic integers of the same size.
unsafe impl Atomic for Descriptor {}

/// An entry of the used ring of a split ring.
#[derive(Debug, Default)]
#[repr(C)]
pub struct UsedElement {
    /// Index of the chain's first descriptor.
    pub id: Le32,
    /// Bytes written into the chain.
    pub len: Le32,
}
// SAFETY: two atomic integers of the same size.
unsafe impl Atomic for UsedElement {}

#[expect(clippy::cast_possible_truncation, reason = "these are the word's fields")]
fn fields(rest: u64) -> (u32, u16, u16) {
    (rest as u32, (rest >> 32) as u16, (rest >> 48) as u16)
}

/// The word of a length and two numbers.
#[inline(always)]
fn word(len: u32, third: u16, fourth: u16) -> u64 {
    u64::from(len) | u64::from(third) << 32 | u64::from(fourth) << 48
}

/// Words of a descriptor in a table whose alignment is not known.
fn words(bytes: [u8; 16]) -> (u64, u64) {
    let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
    (u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from_le_bytes(rest))
}

/// A copy of a descriptor of a split ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitDesc {
    /// Guest address of the buffer.
    pub addr: u64,
    /// Bytes of the buffer.
    pub len: u32,
    /// [`NEXT`], [`WRITE`], [`INDIRECT`].
    pub flags: u16,
    /// Index of the next descriptor, with [`NEXT`].
    pub next: u16,
}

impl SplitDesc {
    /// Reads a descriptor.
    #[inline(always)]
    pub fn load(from: &Descriptor) -> Self {
        Self::of_words(from.addr.load(Ordering::Relaxed), from.rest.load(Ordering::Relaxed))
    }

    /// A descriptor of an indirect table.
    pub fn of_bytes(bytes: [u8; 16]) -> Self {
        let (addr, rest) = words(bytes);
        Self::of_words(addr, rest)
    }

    #[inline(always)]
    fn of_words(addr: u64, rest: u64) -> Self {
        let (len, flags, next) = fields(rest);
        Self { addr, len, flags, next }
    }

    /// Its second word. Devices write no such descriptor.
    #[cfg(any(test, feature = "driver"))]
    pub fn rest(&self) -> u64 {
        word(self.len, self.flags, self.next)
    }
}

/// A copy of a descriptor of a packed ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedDesc {
    /// Guest address of the buffer.
    pub addr: u64,
    /// Bytes of the buffer. In a used descriptor, bytes written.
    pub len: u32,
    /// The driver's name for the buffer, in the last descriptor of a chain.
    pub id: u16,
    /// [`NEXT`], [`WRITE`], [`INDIRECT`], [`AVAIL`], [`USED`].
    pub flags: u16,
}

impl PackedDesc {
    /// Reads a descriptor. All that the driver wrote before the flags is seen.
    #[inline(always)]
    pub fn load(from: &Descriptor) -> Self {
        let rest = from.rest.load(Ordering::Acquire);
        Self::of_words(from.addr.load(Ordering::Relaxed), rest)
    }

    /// A descriptor of an indirect table.
    pub fn of_bytes(bytes: [u8; 16]) -> Self {
        let (addr, rest) = words(bytes);
        Self::of_words(addr, rest)
    }

    #[inline(always)]
    fn of_words(addr: u64, rest: u64) -> Self {
        let (len, id, flags) = fields(rest);
        Self { addr, len, id, flags }
    }

    /// Its second word.
    #[inline(always)]
    pub fn rest(&self) -> u64 {
        word(self.len, self.id, self.flags)
    }
}
