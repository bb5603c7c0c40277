//! Ports that held stations were seen at beside the one that they are held at. What is flooded from a held station does
//! not go out there: it would come back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::engine::PortNo;
use crate::model::MAX_PORTS;

const BITS: usize = u64::BITS as usize;

/// A set of ports. Any worker adds to it and reads it. Control clears it when no station is held any more.
#[derive(Debug, Default)]
pub struct LoopPorts {
    any: AtomicBool,
    words: [AtomicU64; MAX_PORTS.div_ceil(BITS)],
}

impl LoopPorts {
    /// Whether there is any.
    #[inline]
    pub fn any(&self) -> bool {
        self.any.load(Relaxed)
    }

    /// Whether a port is one of them.
    pub fn contains(&self, port: PortNo) -> bool {
        let (word, bit) = (usize::from(port) / BITS, usize::from(port) % BITS);
        self.words.get(word).is_some_and(|word| word.load(Relaxed) >> bit & 1 != 0)
    }

    /// Adds a port. Most often it is there already, and nothing is written.
    pub(super) fn add(&self, port: PortNo) {
        if self.contains(port) {
            return;
        }
        let (word, bit) = (usize::from(port) / BITS, usize::from(port) % BITS);
        if let Some(word) = self.words.get(word) {
            word.fetch_or(1 << bit, Relaxed);
            self.any.store(true, Relaxed);
        }
    }

    /// Removes all.
    pub(super) fn clear(&self) {
        self.any.store(false, Relaxed);
        self.words.iter().for_each(|word| word.store(0, Relaxed));
    }
}
