mod hostile;
mod journal;
mod log;
mod model;
mod notifications;
mod setup;
mod threads;

use std::sync::Arc;

use super::*;
use crate::driver::{Buffer, Driver, GUEST, memory};
use crate::memory::GuestMemory;

/// Bytes of the memory that most tests use.
const BYTES: u64 = 1 << 20;

/// A ring of that size. Its addresses are the driver's business.
fn shape(size: u16, features: u64) -> RingSetup {
    let features = RingFeatures::of_bits(features);
    RingSetup { size: size.into(), descriptors: 0, available: 0, used: 0, features, chain_limit: 64 }
}

/// A driver and a device of a new ring, and the first guest address behind it.
struct Bed {
    memory: Arc<GuestMemory>,
    driver: Driver,
    queue: Queue,
    scratch: Scratch,
    free: u64,
}

fn bed_at(size: u16, features: u64, start: Position) -> Bed {
    let memory = memory(BYTES).unwrap();
    let driver = Driver::new(&memory, GUEST, shape(size, features), start);
    let queue = Queue::new(&memory, driver.setup(), start).unwrap();
    let free = driver.end();
    Bed { memory, driver, queue, scratch: Scratch::default(), free }
}

fn bed(size: u16, features: u64) -> Bed {
    bed_at(size, features, Position::start(RingFeatures::of_bits(features)))
}

/// The four combinations of kind and event index.
const KINDS: [u64; 4] = [0, F_EVENT_IDX, F_PACKED, F_PACKED | F_EVENT_IDX];

impl Bed {
    /// Offers a buffer to read.
    fn offer(&mut self, token: u64) {
        let buffer = Buffer { guest: self.free, len: 8, writable: false };
        assert!(self.driver.add(&[buffer], token, false));
    }

    /// Takes all that is available in one burst, and uses it.
    fn use_all(&mut self) -> usize {
        let mut burst = self.queue.burst(&mut self.scratch, 64).unwrap();
        while !burst.is_empty() {
            burst.advance(0);
        }
        burst.finish().unwrap()
    }
}
