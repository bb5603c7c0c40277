//! What is done with the frames of a burst, whatever they are for.

use crate::counters::PortShard;
use crate::engine::bridge::packet_len;
use crate::engine::parse::parse_l2;
use crate::engine::vlan::{self, TagEdit};
use crate::io::umem::{Chain, Frame, FrameCache};
use crate::model::{Count, DropReason};

/// What is left to be done with the frames of a burst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing: they are as on a wire.
    #[default]
    Nothing,
    /// Some lack a checksum.
    Checksums,
    /// Some are to be cut into segments, or have several chunks. All go one by one.
    Long,
}

impl Left {
    /// Of the frames of a burst.
    pub(super) fn of(frames: &[Frame]) -> Self {
        if frames.iter().any(|frame| frame.is_to_be_cut() || frame.is_chained()) {
            Left::Long
        } else if frames.iter().all(Frame::is_plain) {
            Left::Nothing
        } else {
            Left::Checksums
        }
    }
}

/// As [`count`], of frames of which some are to be cut, or have several chunks.
#[inline(never)]
pub(super) fn count_wire(frames: &[Frame]) -> Count {
    let mut sum = Count::default();
    frames.iter().for_each(|frame| sum.add(frame.wire()));
    sum
}

/// Frames taken from a queue at once.
pub const BURST: usize = crate::engine::rule::MAX_BATCH;

/// How many frames, and their bytes. Fewer than 65,536 frames: the sum fits in 32 bits, of which several are summed at
/// once.
#[inline]
pub(super) fn count(frames: &[Frame]) -> Count {
    if is_any_chained(frames) { count_wire(frames) } else { count_single(frames) }
}

/// As [`count`], of frames of one chunk each.
#[inline]
pub(super) fn count_single(frames: &[Frame]) -> Count {
    let bytes = frames.iter().fold(0_u32, |sum, frame| sum.wrapping_add(len_of(frame)));
    Count { packets: frames.len() as u64, bytes: u64::from(bytes) }
}

/// As [`count`], and whether a frame is longer than `most` or has several chunks. Then the count is to be made anew. It
/// has no branch a frame.
#[inline]
pub(super) fn measure(frames: &[Frame], most: usize) -> (Count, bool) {
    let most = u32::from(u16::try_from(most).unwrap_or(u16::MAX));
    let (mut bytes, mut all) = (0_u32, 0);
    for frame in frames {
        bytes = bytes.wrapping_add(len_of(frame));
        // The highest bit is set by a difference below zero only: neither length nor bound has it.
        all |= most.wrapping_sub(len_of(frame));
    }
    (Count { packets: frames.len() as u64, bytes: u64::from(bytes) }, all >> 31 != 0 || is_any_chained(frames))
}

/// Whether a frame has several chunks. It is asked once a burst, and a switch that never had such frames looks at none.
#[inline]
pub(super) fn is_any_chained(frames: &[Frame]) -> bool {
    Chain::were_any() && Frame::is_any_chained(frames)
}

/// The frames of a burst, as on a wire.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "a burst has less than 2^32 frames")]
pub(super) fn total_packets(burst: Count) -> usize {
    burst.packets as usize
}

/// The bytes of a burst.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the sum of a burst fits in 32 bits")]
pub(super) fn total_len(burst: Count) -> usize {
    burst.bytes as usize
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "a frame is no longer than its chunk, a page")]
fn len_of(frame: &Frame) -> u32 {
    frame.len() as u32
}

/// Whether a frame of `len` bytes is longer than an Ethernet header and `mtu` bytes. Tags do not count. `data` has its
/// headers.
pub(super) fn is_too_long(data: &[u8], len: usize, mtu: usize) -> bool {
    packet_len(parse_l2(data).ok().and_then(|l2| l2.tag), len) > mtu
}

/// Edits a frame's tag. The change counts at `source`.
// Inlined always: it is the whole of the loops that call it, and those are not inlined themselves.
#[inline(always)]
pub(super) fn edit_tag(frame: &mut Frame, edit: TagEdit, source: &PortShard) {
    let (start, len) = (frame.start(), frame.len());
    let (start, len) = vlan::apply(edit, frame.chunk_mut(), start, len);
    frame.set(start, len);
    source.retagged(edit.grows_by());
}

/// Keeps the frames of a burst that `judge` passes, in order. It drops the others, which count where `judge` says.
pub(super) fn sift<'a>(
    burst: &mut Vec<Frame>,
    cache: &mut FrameCache,
    mut judge: impl FnMut(&mut Frame) -> Result<(), (&'a PortShard, DropReason)>,
) {
    let mut kept = 0;
    for at in 0..burst.len() {
        match judge(&mut burst[at]) {
            Ok(()) => {
                burst.swap(kept, at);
                kept += 1;
            }
            Err((shard, reason)) => shard.dropped(reason, burst[at].packet_len()),
        }
    }
    burst.drain(kept..).for_each(|frame| cache.put(frame));
}
