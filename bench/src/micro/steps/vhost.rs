//! Rings of vhost-user: from a guest's transmit ring into a buffer of the switch, and on into another guest's receive
//! ring. The guests' part is not measured.

use std::hint::black_box;
use std::sync::Arc;

use vhost_user::driver::{Buffer, Driver, GUEST, memory};
use vhost_user::memory::{GuestMemory, GuestSlice};
use vhost_user::net::{HeaderFormat, NetHeader, deliver, read_header};
use vhost_user::ring::{F_IN_ORDER, F_INDIRECT, F_PACKED, Position, Queue, RingFeatures, RingSetup, Scratch};

use super::{BURSTS, Case};
use crate::micro::fixtures::BURST;

const GROUP: &str = "vhost";
/// Entries of each ring. All are in use.
const ENTRIES: usize = BURSTS * BURST;
/// Bytes of a guest's buffer.
const ROOM: u32 = 2048;
/// Bytes from one buffer to the next: an odd number of cache lines, as in pools of DPDK. Else all buffers would begin
/// in the same few sets of the caches.
const STRIDE: u64 = 2048 + 320;
const FORMAT: HeaderFormat = HeaderFormat { len: 12, mergeable: true };
/// Frames without FCS.
const SHORT: u32 = 60;
const LONG: u32 = 1514;

/// One end: a guest's ring, and the queue over it.
struct End {
    driver: Driver,
    queue: Queue,
    buffers: Vec<Buffer>,
    /// Whether descriptors are in tables.
    indirect: bool,
}

impl End {
    fn new(features: u64, len: u32, writable: bool) -> Self {
        let memory = memory(8 << 20).expect("memory");
        let features = RingFeatures::of_bits(features);
        let start = Position::start(features);
        let shape =
            RingSetup { size: ENTRIES as u32, descriptors: 0, available: 0, used: 0, features, chain_limit: 64 };
        let mut driver = Driver::new(&memory, GUEST, shape, start);
        driver.disable_calls();
        let queue = Queue::new(&memory, driver.setup(), start).expect("a queue");
        let first = driver.end();
        let buffer = |n: u64| Buffer { guest: first + n * STRIDE, len, writable };
        let buffers: Vec<_> = (0..ENTRIES as u64).map(buffer).collect();
        if !writable {
            fill(&memory, &buffers);
        }
        Self { driver, queue, buffers, indirect: features.indirect }
    }

    /// The guest takes back what is used, and offers all again.
    fn offer(&mut self) {
        while let Some(used) = self.driver.collect() {
            black_box(used);
        }
        for (token, buffer) in (0..).zip(&self.buffers) {
            assert!(self.driver.add(std::slice::from_ref(buffer), token, self.indirect), "the ring is full");
        }
        self.driver.publish();
    }
}

/// Packets of their buffers' lengths, with headers that leave nothing to the switch.
fn fill(memory: &Arc<GuestMemory>, buffers: &[Buffer]) {
    for buffer in buffers {
        let mut packet = vec![0x5a; buffer.len as usize];
        packet[..FORMAT.len].copy_from_slice(&NetHeader::PLAIN.to_bytes());
        memory.write(buffer.guest, &packet).expect("memory");
    }
}

struct Path {
    from: End,
    to: End,
    scratch: Scratch,
    /// Buffers of the switch, with the lengths of their packets.
    frames: Vec<([u8; ROOM as usize], usize)>,
}

impl Path {
    fn new(features: u64, len: u32) -> Self {
        let from = End::new(features, len + FORMAT.len as u32, false);
        let to = End::new(features & !F_INDIRECT, ROOM, true);
        Self { from, to, scratch: Scratch::default(), frames: vec![([0; ROOM as usize], 0); BURST] }
    }

    fn prepare(&mut self) {
        self.from.offer();
        self.to.offer();
    }

    fn run(&mut self) {
        let Self { from, to, scratch, frames } = self;
        for _ in 0..BURSTS {
            let mut burst = from.queue.burst(scratch, BURST).expect("a ring");
            for (frame, len) in &mut *frames {
                let Some(chain) = burst.chain(0) else { break };
                let mut reader = chain.reader();
                let header = read_header(&mut reader, FORMAT).filter(NetHeader::is_plain);
                let packet = frame.get_mut(..reader.left()).filter(|_| header.is_some());
                *len = packet.map_or(0, |packet| reader.read(packet));
                burst.advance(0);
            }
            assert_eq!(burst.finish(), Ok(BURST));
            black_box(from.queue.needs_call());
            let mut burst = to.queue.burst(scratch, BURST).expect("a ring");
            for (frame, len) in &*frames {
                let delivered = deliver(&mut burst, FORMAT, NetHeader::PLAIN, &[&frame[..*len]], GuestSlice::default());
                debug_assert_eq!(delivered, Ok(()));
            }
            assert_eq!(burst.finish(), Ok(BURST));
            black_box(to.queue.needs_call());
        }
    }
}

pub(super) fn cases() -> Vec<Case> {
    let kinds = [
        ("split", 0),
        ("split, in order", F_IN_ORDER),
        ("split, indirect", F_INDIRECT),
        ("packed", F_PACKED),
        ("packed, in order", F_PACKED | F_IN_ORDER),
    ];
    let lens = [(64, SHORT), (1518, LONG)];
    let case = |(name, features), (bytes, len)| {
        let make = move || Path::new(features, len);
        Case::new(GROUP, format!("{name}, {bytes} B"), ENTRIES, make, Path::prepare, Path::run)
    };
    kinds.into_iter().flat_map(|kind| lens.map(|len| case(kind, len))).collect()
}
