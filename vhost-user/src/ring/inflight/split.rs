//! The part of a split queue: `QueueRegionSplit`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::VERSION;
use crate::memory::Mapping;
use crate::ring::area::Area;
use crate::ring::error::RingError;
use crate::ring::layout::{Le16, Le64};

/// Bytes before the entries.
pub(super) const HEADER: u64 = 16;
/// Bytes of an entry: a word with the flag in its lowest byte and `next` in the highest two, and the counter.
pub(super) const ENTRY: u64 = 16;

/// Place of the version among the 16-bit words behind `features`, and of others.
const VERSION_AT: usize = 0;
const COUNT_AT: usize = 1;
const LAST_BATCH_HEAD: usize = 2;
const USED_INDEX: usize = 3;

/// The chains of a split queue that are in work.
#[derive(Debug)]
pub(super) struct SplitPart {
    /// Version, number of entries, head of the last batch, used index.
    words: Area<Le16>,
    /// Two words for each descriptor.
    entries: Area<Le64>,
    /// Counter of the next chain. It tells the order in which they were taken.
    counter: u64,
    /// Chains that are used, and not published.
    batch: Vec<u16>,
}

impl SplitPart {
    /// The part at `start`, for a queue of `size` entries. None if the mapping is too short.
    pub(super) fn open(mapping: &Arc<Mapping>, start: usize, size: u16) -> Option<Self> {
        let words = Area::of_mapping(mapping, start.checked_add(8)?, 4)?;
        let entries = Area::of_mapping(mapping, start.checked_add(16)?, usize::from(size) * 2)?;
        Some(Self { words, entries, counter: 0, batch: Vec::new() })
    }

    fn word(&self, at: usize) -> u16 {
        self.words.entries()[at].load(Ordering::Relaxed)
    }

    fn set_word(&self, at: usize, value: u16) {
        // A device that comes later must find what was written before.
        self.words.entries()[at].store(value, Ordering::Release);
    }

    /// Flag, and next entry of the batch.
    fn state(&self, index: u16) -> Option<(bool, u16)> {
        let word = self.entries.entries().get(usize::from(index) * 2)?.load(Ordering::Relaxed);
        let [flag, .., low, high] = word.to_le_bytes();
        Some((flag != 0, u16::from_le_bytes([low, high])))
    }

    fn set_state(&self, index: u16, in_work: bool, next: u16) {
        if let Some(entry) = self.entries.entries().get(usize::from(index) * 2) {
            entry.store(u64::from(in_work) | u64::from(next) << 48, Ordering::Release);
        }
    }

    /// Whether no device has used it yet, or one with another number of entries.
    pub(super) fn is_new(&self) -> bool {
        self.word(VERSION_AT) != VERSION || usize::from(self.word(COUNT_AT)) != self.entries.entries().len() / 2
    }

    /// Begins without requests, where the used ring ends.
    ///
    /// A used index of 0 would make the next device believe that a batch was interrupted.
    pub(super) fn begin(&self, size: u16, used_index: u16) {
        for word in self.entries.entries() {
            word.store(0, Ordering::Relaxed);
        }
        self.set_word(LAST_BATCH_HEAD, 0);
        self.set_word(USED_INDEX, used_index);
        self.set_word(COUNT_AT, size);
        self.set_word(VERSION_AT, VERSION);
    }

    /// Completes what the last device has left half done, and returns the chains in work, oldest first.
    pub(super) fn recover(&mut self, used_index: u16) -> Vec<u16> {
        // The driver saw these chains as used, but their flags may still be set.
        let mut head = self.word(LAST_BATCH_HEAD);
        let size = self.entries.entries().len() / 2;
        for _ in 0..usize::from(used_index.wrapping_sub(self.word(USED_INDEX))).min(size) {
            let Some((_, next)) = self.state(head) else { break };
            self.set_state(head, false, next);
            head = next;
        }
        self.set_word(USED_INDEX, used_index);
        let all = (0..=u16::MAX).take(size);
        let mut heads: Vec<_> = all.filter(|head| self.state(*head).is_some_and(|(in_work, _)| in_work)).collect();
        let counter =
            |head: &u16| self.entries.entries().get(usize::from(*head) * 2 + 1).map(|c| c.load(Ordering::Relaxed));
        heads.sort_by_key(counter);
        self.counter = heads.last().and_then(counter).map_or(0, |last| last.wrapping_add(1));
        heads
    }

    /// Notes that a chain is in work.
    ///
    /// # Errors
    /// It is already: the driver has offered it twice.
    pub(super) fn take(&mut self, head: u16) -> Result<(), RingError> {
        match self.state(head) {
            Some((false, next)) => {
                if let Some(counter) = self.entries.entries().get(usize::from(head) * 2 + 1) {
                    counter.store(self.counter, Ordering::Relaxed);
                }
                self.counter = self.counter.wrapping_add(1);
                self.set_state(head, true, next);
                Ok(())
            }
            _ => Err(RingError::InWork { id: head }),
        }
    }

    /// Notes that a chain will be published as used.
    pub(super) fn complete(&mut self, head: u16) {
        self.set_state(head, true, self.word(LAST_BATCH_HEAD));
        self.set_word(LAST_BATCH_HEAD, head);
        self.batch.push(head);
    }

    /// Notes that all of these are published.
    pub(super) fn published(&mut self, used_index: u16) {
        for head in std::mem::take(&mut self.batch) {
            let next = self.state(head).map_or(0, |(_, next)| next);
            self.set_state(head, false, next);
        }
        self.set_word(USED_INDEX, used_index);
    }
}
