//! The frame that a trace follows.

use crate::engine::parse::parse_l2;
use crate::engine::trace::describe_tag;
use crate::io::umem::HEADROOM;

/// A frame with room in front.
#[derive(Clone)]
pub(super) struct Parcel {
    pub(super) buf: Vec<u8>,
    pub(super) start: usize,
    pub(super) len: usize,
}

impl Parcel {
    pub(super) fn new(data: &[u8]) -> Self {
        let start = HEADROOM as usize;
        Self { buf: [&vec![0; start], data].concat(), start, len: data.len() }
    }

    pub(super) fn data(&self) -> &[u8] {
        &self.buf[self.start..self.start + self.len]
    }

    /// Its length and tag, in words.
    pub(super) fn describe(&self) -> String {
        let tag = parse_l2(self.data()).ok().and_then(|l2| l2.tag);
        format!("{} bytes, {}", self.len, tag.map_or_else(|| "untagged".to_owned(), describe_tag))
    }
}
