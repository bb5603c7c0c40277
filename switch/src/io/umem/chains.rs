//! Packets of several chunks: jumbo frames.
//!
//! The kernel gives a packet that is longer than a chunk in several descriptors (`XDP_PKT_CONTD`). Its frame has the
//! first chunk, with all headers. Each chunk has a link to the next one, in a table beside the ledger. So whoever
//! decides on a packet finds an ordinary frame, and going from port to port copies nothing.
//!
//! The ledger has further chunks as [`CHAINED`]. They belong to the holder of the frame. A flag of the frame says that
//! there are some. Frames of one chunk pay for nothing of this.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::ledger::{CHAINED, HELD};
use super::{Frame, FrameCache, HEADROOM, Umem};

/// Most chunks of a packet: what a socket buffer of the kernel can have, its head and 17 fragments (`MAX_SKB_FRAGS`).
/// A copy-mode socket drops what is longer (`xsk_build_skb` in `net/xdp/xsk.c`).
pub const MOST_CHUNKS: usize = 18;
/// Whether there ever was a packet of several chunks in this process.
static WERE_ANY: AtomicBool = AtomicBool::new(false);
/// Link of the last chunk. In others the lower half is the index of the next one and 1.
const END: u64 = 0;

/// The links of all chunks of a UMEM. A link that is not [`END`] names a chunk that is [`CHAINED`].
#[derive(Debug)]
pub(super) struct Chains(Box<[AtomicU64]>);

/// A chunk in a chain: its index, and where its data lies.
#[derive(Clone, Copy, Debug)]
struct Link {
    index: u32,
    start: u16,
    len: u16,
}

impl Link {
    #[expect(clippy::cast_possible_truncation, reason = "parts of a word")]
    fn of(word: u64) -> Option<Self> {
        let index = (word as u32).checked_sub(1)?;
        Some(Self { index, start: (word >> 32) as u16, len: (word >> 48) as u16 })
    }

    fn word(self) -> u64 {
        (u64::from(self.index) + 1) | u64::from(self.start) << 32 | u64::from(self.len) << 48
    }
}

impl Chains {
    pub(super) fn new(chunks: usize) -> Self {
        Self((0..chunks).map(|_| AtomicU64::new(END)).collect())
    }

    fn get(&self, chunk: usize) -> Option<Link> {
        Link::of(self.0[chunk].load(Ordering::Relaxed))
    }

    fn set(&self, chunk: usize, link: Option<Link>) {
        self.0[chunk].store(link.map_or(END, Link::word), Ordering::Relaxed);
    }

    /// Compares the links with the ledger, at a moment when nobody moves frames.
    ///
    /// # Errors
    /// What does not agree.
    pub(super) fn check(&self, owners: &[AtomicU32]) -> Result<(), String> {
        let owner = |chunk: usize| owners[chunk].load(Ordering::Relaxed);
        let chained = (0..owners.len()).filter(|chunk| owner(*chunk) == CHAINED).count();
        let (mut links, mut wrong) = (0, 0);
        for (chunk, link) in (0..self.0.len()).filter_map(|chunk| self.get(chunk).map(|link| (chunk, link))) {
            links += 1;
            wrong += u32::from(!matches!(owner(chunk), HELD | CHAINED) || owner(link.index as usize) != CHAINED);
        }
        if links == chained && wrong == 0 {
            return Ok(());
        }
        Err(format!("{chained} further chunks of long packets have {links} links, {wrong} of them from or to others"))
    }
}

/// A packet of several chunks while it is put together.
#[derive(Debug)]
#[must_use = "a frame that is not given on is lost"]
pub struct Chain {
    head: Frame,
    /// Number of the UMEM.
    umem: u64,
    /// Index of the last chunk.
    last: usize,
    /// Bytes in further chunks.
    tail: usize,
    /// Whether there are further chunks.
    is_long: bool,
}

impl Chain {
    /// Whether there ever was a packet of several chunks in this process. Whoever gets one from another thread finds it
    /// so.
    #[inline]
    pub fn were_any() -> bool {
        WERE_ANY.load(Ordering::Relaxed)
    }

    /// Adds a frame of one chunk: the first, or the next one.
    ///
    /// # Panics
    /// If they are of different UMEMs.
    pub fn add(chain: &mut Option<Self>, umem: &Umem, frame: Frame) {
        debug_assert!(frame.is_plain(), "a frame with something left to be done");
        match chain {
            None => {
                let (umem, last) = (umem.id, umem.chunk_of(&frame));
                *chain = Some(Self { head: frame, umem, last, tail: 0, is_long: false });
            }
            Some(chain) => chain.push(umem, &frame),
        }
    }

    fn push(&mut self, umem: &Umem, next: &Frame) {
        assert!(umem.id == self.umem, "chunks of different UMEMs");
        let (chains, index) = (umem.chains(), umem.chunk_of(next));
        let part = |bytes: usize| u16::try_from(bytes).unwrap_or_default();
        let link =
            Link { index: u32::try_from(index).unwrap_or_default(), start: part(next.start()), len: part(next.len()) };
        self.tail += next.len();
        if !self.is_long {
            self.is_long = true;
            WERE_ANY.store(true, Ordering::Relaxed);
        }
        chains.set(index, None);
        umem.set_owner(index, CHAINED);
        chains.set(self.last, Some(link));
        self.last = index;
    }

    /// The packet.
    pub fn finish(self) -> Frame {
        let Self { mut head, tail, is_long, .. } = self;
        if is_long {
            head.set_chained(tail);
        }
        head
    }
}

impl Umem {
    /// The chunk behind that of a frame.
    fn next_of(&self, frame: &Frame) -> Option<Link> {
        if frame.is_chained() { self.chains().get(self.chunk_of(frame)) } else { None }
    }

    /// The frame with its first chunk only. Returns that of the other chunks, if there are some.
    pub fn unchain(&self, frame: &mut Frame) -> Option<Frame> {
        let link = self.next_of(frame)?;
        let tail = frame.further_len();
        frame.set_unchained();
        self.chains().set(self.chunk_of(frame), None);
        self.set_owner(link.index as usize, HELD);
        // SAFETY: a link names a chunk that is `CHAINED`, and where its data lies within it. Only the holder of the
        // frame reaches it, and the link is gone now. So nobody else makes a frame of that chunk. The word says `HELD`.
        let mut rest = unsafe { self.frame_at(link.index, link.start, link.len) };
        if self.chains().get(link.index as usize).is_some() {
            rest.set_chained(tail.saturating_sub(rest.len()));
        }
        Some(rest)
    }

    /// The bytes of a packet, chunk by chunk.
    pub fn pieces<'a>(&'a self, frame: &'a Frame) -> impl Iterator<Item = &'a [u8]> {
        self.placed_pieces(frame).map(|(_, bytes)| bytes)
    }

    /// The same, and where each lies in its chunk.
    fn placed_pieces<'a>(&'a self, frame: &'a Frame) -> impl Iterator<Item = (usize, &'a [u8])> {
        let mut next = self.next_of(frame);
        let further = std::iter::from_fn(move || {
            let link = next?;
            next = self.chains().get(link.index as usize);
            // SAFETY: the chunk is `CHAINED`, and its holder is the holder of the frame. The frame is borrowed as long
            // as the bytes are, so nobody writes them or takes the chunk meanwhile.
            Some((usize::from(link.start), unsafe { self.bytes_at(link.index, link.start, link.len) }))
        });
        std::iter::once((frame.start(), frame.data())).chain(further)
    }

    /// Number of chunks of a packet.
    pub fn chunks(&self, frame: &Frame) -> usize {
        if frame.is_chained() { self.pieces(frame).count() } else { 1 }
    }
}

impl FrameCache {
    /// A copy of a packet without anything left to be done, in as many chunks, each at the same place. The packet may
    /// be of another UMEM with chunks of the same size. `None` if too few frames are free.
    #[inline(never)]
    pub fn copy_packet(&mut self, umem: &Umem, packet: &Frame) -> Option<Frame> {
        if !self.stock_up(umem.chunks(packet)) {
            return None;
        }
        self.write_pieces(umem.placed_pieces(packet))
    }

    /// A packet with these bytes, in as many chunks as it needs. `None` if too few frames are free.
    pub fn write_packet(&mut self, bytes: &[u8]) -> Option<Frame> {
        let room = (self.umem().frame_size() - HEADROOM) as usize;
        if !self.stock_up(bytes.len().div_ceil(room).max(1)) {
            return None;
        }
        let (first, further) = bytes.split_at(bytes.len().min(room));
        let pieces = std::iter::once(first).chain(further.chunks(room));
        self.write_pieces(pieces.map(|piece| (HEADROOM as usize, piece)))
    }

    /// As many frames as there are pieces are here.
    fn write_pieces<'a>(&mut self, pieces: impl Iterator<Item = (usize, &'a [u8])>) -> Option<Frame> {
        let mut chain = None;
        for (start, piece) in pieces {
            let mut frame = self.take()?;
            frame.set(start, piece.len());
            frame.chunk_mut()[start..start + piece.len()].copy_from_slice(piece);
            Chain::add(&mut chain, self.umem(), frame);
        }
        chain.map(Chain::finish)
    }
}
