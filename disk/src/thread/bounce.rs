//! Bounce buffers: aligned memory for requests whose own memory does not fit the store.
//!
//! There are few, so a guest with odd buffers can't make the daemon take much memory. A request with more bytes than a
//! buffer goes in parts. Requests that find none wait, oldest first.
#![allow(unsafe_code, reason = "pages are reached as bytes")]

use std::collections::VecDeque;

/// Bytes of a buffer.
pub const BOUNCE: usize = 256 << 10;
/// Most buffers of a thread.
const MOST: usize = 16;
const PAGE: usize = 4096;

#[derive(Clone, Debug)]
#[repr(C, align(4096))]
struct Page([u8; PAGE]);

/// A buffer.
#[derive(Debug)]
pub struct Bounce(Vec<Page>);

impl Bounce {
    /// Its bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: pages have no padding, and lie one after the other. Any bytes are valid.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * PAGE) }
    }
}

/// The buffers of a thread.
#[derive(Debug, Default)]
pub struct Bounces {
    free: Vec<Bounce>,
    made: usize,
    /// Tokens of requests that wait for one.
    waiting: VecDeque<u32>,
}

impl Bounces {
    /// A buffer for that request. If there is none, the request waits.
    pub fn take(&mut self, token: u32) -> Option<Bounce> {
        if let Some(bounce) = self.free.pop() {
            return Some(bounce);
        }
        if self.made >= MOST {
            self.waiting.push_back(token);
            return None;
        }
        self.made += 1;
        Some(Bounce(vec![Page([0; PAGE]); BOUNCE / PAGE]))
    }

    /// Takes a buffer back. Gives the request that has waited longest, and may try again.
    pub fn give(&mut self, bounce: Bounce) -> Option<u32> {
        self.free.push(bounce);
        self.waiting.pop_front()
    }

    /// Forgets buffers that are free.
    pub fn shrink(&mut self) {
        self.made -= self.free.len();
        self.free = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_bounded_and_the_oldest_waits_least() {
        let mut bounces = Bounces::default();
        let mut taken: Vec<_> = (0..).map_while(|token| bounces.take(token)).collect();
        assert_eq!(taken.len(), MOST);
        assert!(bounces.take(100).is_none());
        let mut last = taken.pop().unwrap();
        assert!(last.bytes().len() == BOUNCE && last.bytes().as_ptr().addr().is_multiple_of(PAGE));
        assert_eq!(bounces.give(last), Some(16), "the first that found none");
        assert_eq!(taken.pop().and_then(|bounce| bounces.give(bounce)), Some(100));
        bounces.shrink();
        assert_eq!(bounces.made, MOST - 2);
    }
}
