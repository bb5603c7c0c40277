//! A frame: the right to one chunk of UMEM, and where the packet lies in it.

use std::ptr::NonNull;

/// The right to read and write one chunk, and where the packet's data lies in it.
///
/// It owns its chunk as a `Box` owns its memory. It is not `Clone`, so a chunk has one holder at a time. No safe
/// function makes one: frames come from the ledger, which gives out each chunk once. The chunk stays mapped while its
/// frame exists, even if the [`Umem`](super::Umem) is dropped.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame that is not given on is lost"]
pub struct Frame {
    /// First byte of data, always within the chunk. Not `NonNull`: `None` of an `Option<Frame>` would be a null here.
    /// Loops over frames then compare every pointer with null, and are no plain copies any more.
    data: *mut u8,
    /// Bytes of data. The data ends within the chunk.
    len: u32,
    /// Lower half: bytes of the chunk minus one. These bits of an address tell the place within the chunk. Upper half:
    /// what is left to be done with the packet, [`CHECKSUM`], [`CUT`] and [`REST`], or [`CHAINED`].
    ///
    /// One word, so that a frame with nothing to be done costs no more than one that knows of no such thing.
    word: u32,
}

/// Lower half of the word.
const LARGEST_MASK: u32 = 0xffff;
/// The chunk begins with an [`Offload`](crate::io::offload), as bytes. A checksum is to be made.
pub(super) const CHECKSUM: u32 = 1 << 16;
/// With [`CHECKSUM`]: the packet is to be cut, and the frame has a tail.
pub(super) const CUT: u32 = 1 << 17;
/// The packet's last bytes are still in its sender's memory. The uppermost bits have the number of that
/// [rest](super::Rests).
const REST: u32 = 1 << 18;
const REST_SHIFT: u32 = 24;
/// The packet goes on in further chunks ([`chains`](super::chains)). The chunk begins with the number of bytes there.
const CHAINED: u32 = 1 << 19;
/// Bytes of that number.
const FURTHER: usize = 4;

// SAFETY: a frame is the only access to its chunk, so the chunk moves with it to another thread.
unsafe impl Send for Frame {}
// SAFETY: a shared frame only reads its chunk, and nobody writes it meanwhile.
unsafe impl Sync for Frame {}

impl Frame {
    /// A frame with `len` bytes of data at `data`.
    ///
    /// # Safety
    /// - `data` lies in a chunk of `mask + 1` bytes, a power of two of at most 32,768. The chunk begins at a multiple
    ///   of that.
    /// - The `len` bytes at `data` end within that chunk.
    /// - The whole chunk is readable and writable through `data`, and stays mapped while the frame exists.
    /// - Neither another `Frame` nor the kernel has this chunk while the frame exists.
    #[inline(always)]
    pub(super) unsafe fn new(data: NonNull<u8>, len: u32, mask: u32) -> Self {
        Self { data: data.as_ptr(), len, word: mask }
    }

    /// Whether the packet is as it goes on a wire, and in one chunk.
    #[inline(always)]
    pub fn is_plain(&self) -> bool {
        self.word <= LARGEST_MASK
    }

    /// Whether the packet is to be cut into segments. The data is the first of them then.
    #[inline(always)]
    pub fn is_to_be_cut(&self) -> bool {
        self.word & CUT != 0
    }

    /// Whether a checksum is to be made.
    #[inline(always)]
    pub fn lacks_checksum(&self) -> bool {
        self.word & CHECKSUM != 0
    }

    /// Number of the rest of the packet, if it is still in its sender's memory. It is the end of the data.
    #[inline(always)]
    pub fn rest(&self) -> Option<u8> {
        (self.word & REST != 0).then_some(self.word.to_be_bytes()[0])
    }

    /// Leaves the end of the data in its sender's memory, as the rest of that number.
    #[inline]
    pub(in crate::io) fn leave_rest(&mut self, number: u8) {
        self.word |= REST | u32::from(number) << REST_SHIFT;
    }

    /// The data is all there.
    #[inline]
    pub(super) fn set_complete(&mut self) {
        self.word &= LARGEST_MASK | CHECKSUM | CUT | CHAINED;
    }

    /// Whether the packet goes on in further chunks. The data is its beginning then, with all headers.
    #[inline(always)]
    pub fn is_chained(&self) -> bool {
        self.word & CHAINED != 0
    }

    /// Whether one of these packets goes on in further chunks. It has no branch a frame.
    #[inline(never)]
    pub fn is_any_chained(frames: &[Frame]) -> bool {
        frames.iter().fold(0, |all, frame| all | frame.word) & CHAINED != 0
    }

    /// Notes that the packet has `further` bytes in further chunks. The kernel leaves room for that number in front.
    pub(super) fn set_chained(&mut self, further: usize) {
        let further = u32::try_from(further).unwrap_or(u32::MAX);
        if self.start() >= FURTHER {
            self.chunk_mut()[..FURTHER].copy_from_slice(&further.to_ne_bytes());
        }
        self.word |= CHAINED;
    }

    /// Notes that the packet is in one chunk.
    pub(super) fn set_unchained(&mut self) {
        self.word &= !CHAINED;
    }

    /// Bytes in further chunks.
    #[inline]
    pub fn further_len(&self) -> usize {
        if self.is_chained() { self.read_further_len() } else { 0 }
    }

    #[cold]
    fn read_further_len(&self) -> usize {
        let number = self.chunk().first_chunk().filter(|_| self.start() >= FURTHER);
        number.map_or(0, |bytes| u32::from_ne_bytes(*bytes) as usize)
    }

    /// Bytes of the packet, those in further chunks included. Of a packet that is to be cut, those of its first
    /// segment.
    #[inline]
    pub fn packet_len(&self) -> usize {
        self.len() + self.further_len()
    }

    /// Sets what is left to be done. The data must be all there, in this chunk.
    #[inline]
    pub(super) fn mark(&mut self, flags: u32) {
        self.word = self.mask() | flags;
    }

    /// Bytes of the chunk minus one.
    #[inline(always)]
    pub(super) fn mask(&self) -> u32 {
        self.word & LARGEST_MASK
    }

    /// Bytes of data in this chunk.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is no data.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes between the chunk's first byte and the data.
    #[inline]
    pub fn start(&self) -> usize {
        self.addr() & self.mask() as usize
    }

    /// Address of the first byte of data in this process.
    #[inline]
    pub(super) fn addr(&self) -> usize {
        self.data.addr()
    }

    /// The data in this chunk.
    #[inline]
    pub fn data(&self) -> &[u8] {
        // SAFETY: these bytes lie within the chunk, by the invariants of `new`, and `set` keeps them. The chunk is
        // mapped and ours alone. Nobody writes it while the frame is borrowed.
        unsafe { std::slice::from_raw_parts(self.data, self.len as usize) }
    }

    /// All bytes of the chunk. The data begins at `start` and has `len` bytes.
    #[inline]
    pub fn chunk_mut(&mut self) -> &mut [u8] {
        // SAFETY: `start` is the distance to the chunk's first byte, so the result is in the same mapping.
        let chunk = unsafe { self.data.sub(self.start()) };
        // SAFETY: the chunk has `mask + 1` bytes, is mapped, and is ours alone. The frame is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(chunk, self.mask() as usize + 1) }
    }

    /// All bytes of the chunk, to be read.
    #[inline]
    pub fn chunk(&self) -> &[u8] {
        // SAFETY: as in `chunk_mut`.
        let chunk = unsafe { self.data.sub(self.start()) };
        // SAFETY: as in `chunk_mut`. Nobody writes the chunk while the frame is borrowed.
        unsafe { std::slice::from_raw_parts(chunk, self.mask() as usize + 1) }
    }

    /// Sets the place of the data in the chunk. What is in further chunks stays.
    ///
    /// # Panics
    /// If `start..start + len` is not within the chunk, or `start` is its end.
    #[inline]
    pub fn set(&mut self, start: usize, len: usize) {
        let size = self.mask() as usize + 1;
        assert!(start < size && len <= size - start, "data outside its frame");
        // SAFETY: the chunk's first byte and the byte `start` behind it both lie within the chunk.
        self.data = unsafe { self.data.sub(self.start()).add(start) };
        #[expect(clippy::cast_possible_truncation, reason = "`len` is at most a chunk, a page")]
        let len = len as u32;
        self.len = len;
    }

    /// Copies the data of another frame to the same place of this chunk. What is in further chunks is not copied.
    ///
    /// # Panics
    /// If the other chunk is larger, and the data lies beyond the end of this one.
    #[inline]
    pub fn copy_from(&mut self, other: &Frame) {
        let (start, len) = (other.start(), other.len());
        self.set(start, len);
        self.chunk_mut()[start..][..len].copy_from_slice(other.data());
    }

    /// Copies so many bytes in front of the data of another frame to the same place: what a program has put there.
    ///
    /// # Panics
    /// If there are fewer.
    #[inline]
    pub fn copy_front(&mut self, other: &Frame, bytes: usize) {
        let end = other.start();
        self.chunk_mut()[end - bytes..end].copy_from_slice(&other.chunk()[end - bytes..end]);
    }

    /// The bytes in front of the data.
    #[inline]
    pub fn front(&self) -> &[u8] {
        &self.chunk()[..self.start()]
    }
}
