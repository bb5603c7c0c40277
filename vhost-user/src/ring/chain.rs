//! Chains of buffers that a driver has made available.

use crate::memory::{GuestSlice, Lookup};

use super::error::RingError;
use super::store::Store;

/// What is known of a chain.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ChainInfo<'a> {
    /// The slice of a chain that has one. Most chains have. Slices of others are in a store.
    only: GuestSlice<'a>,
    /// Bytes to read.
    readable_len: u32,
    /// Bytes to write.
    pub writable_len: u32,
    /// Place of the first slice in the store.
    first: u32,
    /// Bytes that the device has written.
    pub written: u32,
    /// What the driver knows the chain by: the index of its first descriptor, or the buffer id.
    pub id: u16,
    /// Descriptors of the ring that it takes.
    pub descriptors: u16,
    /// Slices to read. They come first.
    readable: u16,
    /// Slices to write.
    writable: u16,
}

impl<'a> ChainInfo<'a> {
    /// A chain of one slice, which is asked for.
    #[inline(always)]
    pub(super) fn single(only: GuestSlice<'a>, len: u32, writable: bool, id: u16) -> Self {
        let (readable_len, writable_len) = if writable { (0, len) } else { (len, 0) };
        let (readable, writable) = (u16::from(!writable), u16::from(writable));
        Self { only, first: 0, readable, writable, readable_len, writable_len, written: 0, id, descriptors: 1 }
    }

    /// Its slices, those to read and those to write.
    #[inline(always)]
    pub(super) fn slices<'s>(&'s self, store: &'s [GuestSlice<'a>]) -> (&'s [GuestSlice<'a>], &'s [GuestSlice<'a>]) {
        match (self.readable, self.writable) {
            (1, 0) => (std::slice::from_ref(&self.only), &[]),
            (0, 1) => (&[], std::slice::from_ref(&self.only)),
            (readable, writable) => {
                let (first, count) = (self.first as usize, usize::from(readable) + usize::from(writable));
                let all = store.get(first..first + count).unwrap_or_default();
                all.split_at_checked(readable.into()).unwrap_or_default()
            }
        }
    }
}

/// Puts a chain of any number of slices together.
#[derive(Debug)]
pub(super) struct Builder<'b, 'a> {
    pub lookup: &'b mut Lookup<'a>,
    slices: &'b mut Vec<GuestSlice<'a>>,
    /// The chain, where it will stay.
    info: &'b mut ChainInfo<'a>,
    /// Most slices. A loop in a table or a ring ends here.
    limit: u16,
}

impl<'b, 'a> Builder<'b, 'a> {
    /// Begins with the next chain of a store, without slices.
    #[inline]
    pub(super) fn new(lookup: &'b mut Lookup<'a>, store: &'b mut Store<'a>, limit: u16) -> Self {
        // A store has some thousand slices at most.
        let first = u32::try_from(store.slices.len()).unwrap_or(u32::MAX);
        let at = store.chains.len();
        store.chains.push(ChainInfo { first, ..ChainInfo::default() });
        Self { lookup, slices: store.slices, info: &mut store.chains[at], limit }
    }

    /// Adds a buffer. A buffer in several regions is several slices.
    ///
    /// # Errors
    /// The buffer is none, or the chain is too long.
    #[inline]
    pub(super) fn add(&mut self, buffer: Buffer) -> Result<(), RingError> {
        let Buffer { addr, len, writable } = buffer;
        let info = &mut *self.info;
        if !writable && info.writable > 0 {
            return Err(RingError::Order);
        }
        let sum = if writable { &mut info.writable_len } else { &mut info.readable_len };
        *sum = sum.checked_add(len).ok_or(RingError::TooManyBytes)?;
        match self.lookup.bounds().slice(addr, len) {
            Some(slice) => self.push(slice, writable),
            None => self.add_parts(buffer),
        }
    }

    #[inline]
    fn push(&mut self, slice: GuestSlice<'a>, writable: bool) -> Result<(), RingError> {
        if self.slices.len() - self.info.first as usize >= usize::from(self.limit) {
            return Err(RingError::TooLong { limit: self.limit });
        }
        slice.prefetch_start(writable);
        self.slices.push(slice);
        let count = if writable { &mut self.info.writable } else { &mut self.info.readable };
        *count += 1;
        Ok(())
    }

    /// Adds a buffer that is not in the region of the last one, or not in one region, or none.
    fn add_parts(&mut self, buffer: Buffer) -> Result<(), RingError> {
        let Buffer { addr, len, writable } = buffer;
        let error = RingError::Buffer { guest: addr, len };
        let (mut at, mut left) = (addr, len);
        loop {
            let slice = self.lookup.find_start(at, left).ok_or(error)?;
            self.push(slice, writable)?;
            let taken = u32::try_from(slice.len()).unwrap_or(u32::MAX);
            left -= taken;
            if left == 0 {
                return Ok(());
            }
            at = at.checked_add(taken.into()).ok_or(error)?;
        }
    }

    /// Ends with the chain, which is known by `id` and takes so many descriptors of the ring.
    #[inline]
    pub(super) fn finish(self, id: u16, descriptors: u16) {
        (self.info.id, self.info.descriptors) = (id, descriptors);
        if self.info.readable + self.info.writable == 1 {
            self.info.only = self.slices.pop().unwrap_or_default();
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
    /// The chain of which this is known. Slices are in the store if there are several.
    #[inline(always)]
    pub(super) fn new(info: &'a ChainInfo<'a>, store: &'a [GuestSlice<'a>]) -> Self {
        let (readable, writable) = info.slices(store);
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

    /// All bytes that are left, if they lie in one piece.
    #[inline]
    pub fn rest(&self) -> Option<GuestSlice<'a>> {
        let mut cursor = self.0;
        cursor.next(self.left()).filter(|_| cursor.left == 0)
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

    /// Writes the bytes of another slice while there is room. Returns how many.
    pub fn write_slice(&mut self, from: GuestSlice<'_>) -> usize {
        let mut done = 0;
        while done < from.len()
            && let Some(part) = self.0.next(from.len() - done)
        {
            done += part.write_slice(from.after(done));
        }
        done
    }

    /// The next slice of memory, of at most `most` bytes. None at the end.
    #[inline]
    pub fn next_slice(&mut self, most: usize) -> Option<GuestSlice<'a>> {
        self.0.next(most)
    }
}
