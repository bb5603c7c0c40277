//! Chains of buffers that a driver has made available.

use crate::memory::{GuestSlice, Lookup};

use super::error::RingError;

/// What is known of a chain whose slices are in a store.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChainInfo {
    /// Place of its first slice in the store.
    pub first: u32,
    /// Slices to read. They come first.
    pub readable: u16,
    /// Slices to write.
    pub writable: u16,
    /// Bytes to read.
    pub readable_len: u32,
    /// Bytes to write.
    pub writable_len: u32,
    /// What the driver knows the chain by: the index of its first descriptor, or the buffer id.
    pub id: u16,
    /// Descriptors of the ring that it takes.
    pub descriptors: u16,
    /// Bytes that the device has written.
    pub written: u32,
}

impl ChainInfo {
    /// A chain without slices.
    #[inline(always)]
    pub(super) fn new(first: usize, id: u16) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "a store has some thousand slices at most")]
        let first = first as u32;
        Self { first, readable: 0, writable: 0, readable_len: 0, writable_len: 0, id, descriptors: 1, written: 0 }
    }

    /// A chain of one buffer, whose slice is the next of the store.
    #[inline(always)]
    pub(super) fn single(first: usize, id: u16, len: u32, writable: bool) -> Self {
        let (readable_len, writable_len) = if writable { (0, len) } else { (len, 0) };
        let (readable, writable) = (u16::from(!writable), u16::from(writable));
        Self { readable, writable, readable_len, writable_len, ..Self::new(first, id) }
    }

    /// Number of slices.
    pub(super) fn slices(&self) -> usize {
        usize::from(self.readable) + usize::from(self.writable)
    }

    /// Adds a buffer and its slices. A buffer in several regions is several slices.
    ///
    /// # Errors
    /// The buffer is none, or the chain is too long. `limit` counts slices, so this ends also where a table or a ring
    /// has a loop.
    pub(super) fn add<'a>(
        &mut self,
        lookup: &mut Lookup<'a>,
        slices: &mut Vec<GuestSlice<'a>>,
        buffer: Buffer,
        limit: u16,
    ) -> Result<(), RingError> {
        let Buffer { addr, len, writable } = buffer;
        if !writable && self.writable > 0 {
            return Err(RingError::Order);
        }
        let error = RingError::Buffer { guest: addr, len };
        let sum = if writable { &mut self.writable_len } else { &mut self.readable_len };
        *sum = sum.checked_add(len).ok_or(RingError::TooManyBytes)?;
        let (mut at, mut left) = (addr, len);
        loop {
            if self.slices() >= usize::from(limit) {
                return Err(RingError::TooLong { limit });
            }
            let slice = lookup.find_start(at, left).ok_or(error)?;
            slices.push(slice);
            let count = if writable { &mut self.writable } else { &mut self.readable };
            *count += 1;
            let Ok(taken) = u32::try_from(slice.len()) else { return Err(error) };
            left -= taken;
            if left == 0 {
                return Ok(());
            }
            at = at.checked_add(taken.into()).ok_or(error)?;
        }
    }
}

/// A buffer as a descriptor has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buffer {
    pub addr: u64,
    pub len: u32,
    pub writable: bool,
}

/// The buffers that a driver has made available at once: some to read, then some to write.
///
/// The slices are checked. What is in them may change at any time.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a> {
    readable: &'a [GuestSlice<'a>],
    writable: &'a [GuestSlice<'a>],
    readable_len: u32,
    writable_len: u32,
}

impl<'a> Chain<'a> {
    /// The chain whose slices are these.
    #[inline(always)]
    pub(super) fn new(info: &ChainInfo, slices: &'a [GuestSlice<'a>]) -> Self {
        let first = info.first as usize;
        let all = slices.get(first..first + info.slices()).unwrap_or_default();
        let (readable, writable) = all.split_at_checked(info.readable.into()).unwrap_or_default();
        Self { readable, writable, readable_len: info.readable_len, writable_len: info.writable_len }
    }

    /// Slices that the device reads.
    pub fn readable(&self) -> &'a [GuestSlice<'a>] {
        self.readable
    }

    /// Slices that the device writes.
    pub fn writable(&self) -> &'a [GuestSlice<'a>] {
        self.writable
    }

    /// Bytes to read.
    #[inline]
    pub fn readable_len(&self) -> usize {
        self.readable_len as usize
    }

    /// Bytes to write.
    #[inline]
    pub fn writable_len(&self) -> usize {
        self.writable_len as usize
    }

    /// Reads from the first byte on.
    #[inline(always)]
    pub fn reader(&self) -> Reader<'a> {
        Reader(Cursor::new(self.readable, self.readable_len()))
    }

    /// Writes from the first byte on.
    #[inline(always)]
    pub fn writer(&self) -> Writer<'a> {
        Writer(Cursor::new(self.writable, self.writable_len()))
    }
}

/// A place in slices.
#[derive(Clone, Copy, Debug)]
struct Cursor<'a> {
    /// What is left of the slice in turn.
    front: GuestSlice<'a>,
    /// The slices after it.
    rest: &'a [GuestSlice<'a>],
    /// Bytes of all of these.
    left: usize,
}

impl<'a> Cursor<'a> {
    #[inline(always)]
    fn new(slices: &'a [GuestSlice<'a>], left: usize) -> Self {
        match slices {
            [front, rest @ ..] => Self { front: *front, rest, left },
            [] => Self { front: GuestSlice::default(), rest: &[], left: 0 },
        }
    }

    /// The next slice, of at most `most` bytes. None at the end.
    #[inline(always)]
    fn next(&mut self, most: usize) -> Option<GuestSlice<'a>> {
        while self.front.is_empty() {
            let (front, rest) = self.rest.split_first()?;
            (self.front, self.rest) = (*front, rest);
        }
        let part = self.front.first(most);
        self.front = self.front.after(part.len());
        self.left -= part.len();
        Some(part)
    }
}

/// Reads a chain's bytes in order.
#[derive(Clone, Debug)]
pub struct Reader<'a>(Cursor<'a>);

impl<'a> Reader<'a> {
    /// Bytes that are left.
    #[inline]
    pub fn left(&self) -> usize {
        self.0.left
    }

    /// Copies the next bytes into `to`, until that is full or none are left. Returns how many.
    #[inline(always)]
    pub fn read(&mut self, to: &mut [u8]) -> usize {
        let mut done = 0;
        while done < to.len()
            && let Some(part) = self.0.next(to.len() - done)
        {
            done += part.read(&mut to[done..]);
        }
        done
    }

    /// The next `N` bytes, if so many are left.
    #[inline(always)]
    pub fn read_array<const N: usize>(&mut self) -> Option<[u8; N]> {
        if let Some(bytes) = self.0.front.read_array() {
            self.0.front = self.0.front.after(N);
            self.0.left -= N;
            return Some(bytes);
        }
        let mut bytes = [0; N];
        (self.left() >= N && self.read(&mut bytes) == N).then_some(bytes)
    }

    /// The next slice of memory, of at most `most` bytes. None at the end.
    #[inline]
    pub fn next_slice(&mut self, most: usize) -> Option<GuestSlice<'a>> {
        self.0.next(most)
    }
}

/// Writes a chain's bytes in order.
#[derive(Clone, Debug)]
pub struct Writer<'a>(Cursor<'a>);

impl<'a> Writer<'a> {
    /// Bytes for which there is room.
    #[inline]
    pub fn left(&self) -> usize {
        self.0.left
    }

    /// Writes the bytes of `from` while there is room. Returns how many.
    #[inline(always)]
    pub fn write(&mut self, from: &[u8]) -> usize {
        let mut done = 0;
        while done < from.len()
            && let Some(part) = self.0.next(from.len() - done)
        {
            done += part.write(&from[done..]);
        }
        done
    }

    /// The next slice of memory, of at most `most` bytes. None at the end.
    #[inline]
    pub fn next_slice(&mut self, most: usize) -> Option<GuestSlice<'a>> {
        self.0.next(most)
    }
}
