use std::collections::VecDeque;
use std::fs::File;

use proptest::prelude::*;

use super::tracked::Part;
use super::*;
use crate::driver::{Buffer, Driver, GUEST, Used, memory};
use crate::memory::GuestMemory;
use crate::ring::{F_EVENT_IDX, F_INDIRECT, F_PACKED, Position, Queue, Request, RingError, RingFeatures, RingSetup};

const MOST_STEPS: usize = if cfg!(miri) { 20 } else { 300 };
const BYTES: u64 = 1 << 18;

fn shape(size: u16, features: u64) -> RingSetup {
    let features = RingFeatures::of_bits(features);
    RingSetup { size: size.into(), descriptors: 0, available: 0, used: 0, features, chain_limit: 64 }
}

#[derive(Clone, Copy, Debug)]
enum Crash {
    /// Between two calls.
    Idle,
    /// In `publish`, before the ring is written.
    BeforeRing,
    /// In `publish`, after the ring was written.
    AfterRing,
}

#[derive(Clone, Debug)]
enum Op {
    Add { buffers: u32, indirect: bool },
    Pop,
    Complete(usize),
    Publish,
    Collect(usize),
    Crash(Crash),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1_u32..4, any::<bool>()).prop_map(|(buffers, indirect)| Op::Add { buffers, indirect }),
        6 => Just(Op::Pop),
        4 => any::<usize>().prop_map(Op::Complete),
        2 => Just(Op::Publish),
        2 => (0_usize..9).prop_map(Op::Collect),
        1 => prop_oneof![Just(Crash::Idle), Just(Crash::BeforeRing), Just(Crash::AfterRing)].prop_map(Op::Crash),
    ]
}

struct World {
    memory: Arc<GuestMemory>,
    driver: Driver,
    region: InflightRegion,
    queue: TrackedQueue,
    free: u64,
    indirect: bool,
    next: u64,
    available: VecDeque<u64>,
    /// Taken and not published, oldest first. Those without request are completed.
    taken: Vec<(u64, Option<Request>)>,
    /// Completed, in that order.
    completed: Vec<u64>,
    used: VecDeque<u64>,
}

impl World {
    fn new(size: u16, features: u64, start: Position) -> Self {
        let memory = memory(BYTES).unwrap();
        let driver = Driver::new(&memory, GUEST, shape(size, features), start);
        let region = InflightRegion::of_heap(2, size, features & F_PACKED != 0);
        let base = start.base(driver.setup().features);
        let queue = TrackedQueue::new(&memory, driver.setup(), &region, 1, base).unwrap();
        Self {
            free: driver.end(),
            memory,
            driver,
            region,
            queue,
            indirect: features & F_INDIRECT != 0,
            next: 0,
            available: VecDeque::new(),
            taken: Vec::new(),
            completed: Vec::new(),
            used: VecDeque::new(),
        }
    }

    /// The chain's bytes are its token, so that a chain which is opened again is known.
    fn place(&self, token: u64) -> u64 {
        self.free + token % 1024 * 24
    }

    fn add(&mut self, buffers: u32, indirect: bool) {
        let (token, place) = (self.next, self.place(self.next));
        let mut chain = vec![Buffer { guest: place, len: 8, writable: false }];
        chain.extend((1..u64::from(buffers)).map(|n| Buffer { guest: place + n * 8, len: 4, writable: true }));
        if self.driver.add(&chain, token, indirect && self.indirect) {
            self.memory.write(place, &token.to_le_bytes()).unwrap();
            self.next += 1;
            self.available.push_back(token);
            self.driver.publish();
        }
    }

    fn pop(&mut self, expected: Option<u64>) -> Result<Option<Request>, TestCaseError> {
        let mut request = Request::new(&self.memory);
        prop_assert_eq!(self.queue.pop(&mut request).unwrap(), expected.is_some());
        let read = request.chain().map(|chain| u64::from_le_bytes(chain.reader().read_array().unwrap()));
        prop_assert_eq!(read, expected);
        Ok(request.chain().is_some().then_some(request))
    }

    fn complete(&mut self, which: usize) {
        let mut in_work: Vec<_> = self.taken.iter_mut().filter(|(_, request)| request.is_some()).collect();
        if !in_work.is_empty() {
            let at = which % in_work.len();
            let (token, request) = &mut in_work[at];
            self.queue.complete(request.as_mut().unwrap(), 0);
            self.completed.push(*token);
            *request = None;
        }
    }

    fn published(&mut self) {
        self.taken.retain(|(_, request)| request.is_some());
        self.used.extend(self.completed.drain(..));
    }

    fn collect(&mut self, most: usize) -> Result<(), TestCaseError> {
        for _ in 0..most {
            let (expected, got) = (self.used.pop_front(), self.driver.collect());
            prop_assert_eq!(got, expected.map(|token| Used { token, len: Some(0) }));
        }
        Ok(())
    }

    /// The device dies, and the next one takes its place.
    fn crash(&mut self, crash: Crash) -> Result<(), TestCaseError> {
        let TrackedQueue { queue, part, .. } = &mut self.queue;
        let used = queue.position().used;
        if !matches!(crash, Crash::Idle) {
            if let Part::Packed(part) = part {
                part.publish((used & 0x7fff, used >> 15 == 1));
            }
            if matches!(crash, Crash::AfterRing) {
                queue.publish();
                self.published();
            }
        }
        self.completed.clear();
        // A base that is of no use, as QEMU's after such an event.
        let setup = self.driver.setup();
        let base = Position::start(setup.features).base(setup.features);
        self.queue = TrackedQueue::new(&self.memory, setup, &self.region, 1, base).unwrap();
        let tokens: Vec<_> = self.taken.drain(..).map(|(token, _)| token).collect();
        for token in tokens {
            let request = self.pop(Some(token))?;
            self.taken.push((token, request));
        }
        Ok(())
    }

    fn step(&mut self, op: Op) -> Result<(), TestCaseError> {
        match op {
            Op::Add { buffers, indirect } => self.add(buffers, indirect),
            Op::Pop => {
                let token = self.available.pop_front();
                if let Some(request) = self.pop(token)? {
                    self.taken.push((token.unwrap(), Some(request)));
                }
            }
            Op::Complete(which) => self.complete(which),
            Op::Publish => {
                self.queue.publish();
                self.published();
            }
            Op::Collect(most) => self.collect(most)?,
            Op::Crash(crash) => self.crash(crash)?,
        }
        Ok(())
    }
}

fn run(size: u16, features: u64, start: Position, ops: Vec<Op>) -> Result<(), TestCaseError> {
    let mut world = World::new(size, features, start);
    for op in ops {
        world.step(op)?;
    }
    world.crash(Crash::Idle)?;
    while let Some(token) = world.available.pop_front() {
        let request = world.pop(Some(token))?;
        world.taken.push((token, request));
    }
    while world.taken.iter().any(|(_, request)| request.is_some()) {
        world.complete(world.completed.len());
    }
    world.queue.publish();
    world.published();
    world.collect(world.used.len() + 1)
}

proptest! {
    #[test]
    fn no_request_of_a_split_queue_is_lost_or_used_twice_by_a_crash(
        bits in 1_u32..6,
        start: u16,
        indirect: bool,
        ops in prop::collection::vec(op(), 0..MOST_STEPS),
    ) {
        let features = F_EVENT_IDX + if indirect { F_INDIRECT } else { 0 };
        run(1 << bits, features, Position { available: start, used: start }, ops)?;
    }

    #[test]
    fn no_request_of_a_packed_queue_is_lost_or_used_twice_by_a_crash(
        size in 1_u16..40,
        start: u16,
        wrap: bool,
        indirect: bool,
        ops in prop::collection::vec(op(), 0..MOST_STEPS),
    ) {
        let features = F_PACKED + if indirect { F_INDIRECT } else { 0 };
        let at = start % size + if wrap { 1 << 15 } else { 0 };
        run(size, features, Position { available: at, used: at }, ops)?;
    }

    #[test]
    fn bytes_of_the_region_never_hurt_the_device(
        size in 1_u16..10, packed: bool, words in prop::collection::vec((0_usize..40, any::<[u8; 8]>()), 0..40),
    ) {
        let (size, features) = if packed { (size, F_PACKED) } else { (size.next_power_of_two(), 0) };
        let memory = memory(BYTES).unwrap();
        let start = Position::start(RingFeatures::of_bits(features));
        let mut driver = Driver::new(&memory, GUEST, shape(size, features), start);
        let region = InflightRegion::of_heap(1, size, packed);
        let open = || TrackedQueue::new(&memory, driver.setup(), &region, 0, start.base(driver.setup().features));
        open().unwrap();
        let bytes = crate::memory::GuestSlice::of_mapping(&region.mapping);
        for (at, word) in words {
            // The version and the size stay, or the region is a new one.
            let keep = if at == 1 { 4 } else { 0 };
            bytes.after(at * 8 + keep).write(&word[keep..]);
        }
        let Ok(mut queue) = open() else { return Ok(()) };
        driver.add(&[Buffer { guest: driver.end(), len: 8, writable: true }], 0, false);
        driver.publish();
        for _ in 0..20 {
            let mut request = Request::new(&memory);
            if queue.pop(&mut request) != Ok(true) {
                break;
            }
            queue.complete(&mut request, 1);
            queue.publish();
        }
    }
}

#[test]
fn a_region_without_requests_begins_where_the_used_ring_ends() {
    // Else a device that dies before its first request is used would lose a request.
    let start = Position { available: 300, used: 300 };
    let mut world = World::new(8, 0, start);
    world.add(1, false);
    let token = world.available.pop_front();
    let request = world.pop(token).unwrap();
    world.taken.push((0, request));
    world.crash(Crash::Idle).unwrap();
    assert_eq!(world.queue.queue().position(), Position { available: 301, used: 300 });
}

#[test]
fn a_chain_that_is_offered_twice_at_once_is_refused() {
    let mut world = World::new(8, 0, Position { available: 0, used: 0 });
    world.add(1, false);
    world.add(1, false);
    let token = world.available.pop_front();
    let _request = world.pop(token).unwrap();
    // The second entry of the available ring names the first chain, too.
    let available = world.driver.setup().available - crate::driver::USER + GUEST;
    world.memory.write(available + 6, &[0, 0]).unwrap();
    let error = RingError::InWork { id: 0 };
    assert_eq!(world.queue.pop(&mut Request::new(&world.memory)), Err(error));
}

#[test]
#[cfg_attr(miri, ignore = "maps files")]
fn the_front_end_keeps_the_region_as_a_file() {
    for features in [0, F_PACKED] {
        let packed = features == F_PACKED;
        let (region, file) = InflightRegion::create(2, 16, packed).unwrap();
        let layout = region.layout();
        let each = if packed { 32 + 16 * 32 } else { 16 + 16 * 16 };
        assert_eq!(layout.size, 2 * u64::next_multiple_of(each, 64));
        let memory = memory(BYTES).unwrap();
        let start = Position::start(RingFeatures::of_bits(features));
        let mut driver = Driver::new(&memory, GUEST, shape(16, features), start);
        let base = start.base(driver.setup().features);
        let mut queue = TrackedQueue::new(&memory, driver.setup(), &region, 1, base).unwrap();
        assert!(driver.add(&[Buffer { guest: driver.end(), len: 8, writable: false }], 0, false));
        driver.publish();
        assert!(queue.pop(&mut Request::new(&memory)).unwrap());
        drop((queue, region));
        let region = InflightRegion::open(file.as_fd(), layout, packed).unwrap();
        let mut queue = TrackedQueue::new(&memory, driver.setup(), &region, 1, base).unwrap();
        assert!(queue.enable_kicks().unwrap(), "there is something to do");
        assert!(queue.pop(&mut Request::new(&memory)).unwrap());
        assert!(!queue.pop(&mut Request::new(&memory)).unwrap());
        // Queues and sizes that the region does not have.
        let error = Err(RingError::Inflight { index: 2 });
        assert_eq!(TrackedQueue::new(&memory, driver.setup(), &region, 2, base).map(drop), error);
        let greater = RingSetup { size: 32, ..*driver.setup() };
        let error = Err(RingError::Inflight { index: 0 });
        assert_eq!(TrackedQueue::new(&memory, &greater, &region, 0, base).map(drop), error);
        let short = InflightLayout { size: layout.size - 1, ..layout };
        assert!(InflightRegion::open(file.as_fd(), short, packed).is_err());
        File::from(file.try_clone().unwrap()).set_len(64).unwrap();
        assert!(InflightRegion::open(file.as_fd(), layout, packed).is_err());
    }
}

#[test]
fn a_queue_that_uses_chains_in_order_needs_no_region() {
    // What such a queue has taken and not used is found again by the used ring alone.
    let start = Position { available: 0, used: 0 };
    let memory = memory(BYTES).unwrap();
    let mut driver = Driver::new(&memory, GUEST, shape(8, 0), start);
    let buffer = |token: u64| Buffer { guest: driver.end() + token * 8, len: 8, writable: false };
    let buffers: Vec<_> = (0..3).map(buffer).collect();
    for (token, buffer) in (0..).zip(&buffers) {
        memory.write(buffer.guest, &u64::to_le_bytes(token)).unwrap();
        assert!(driver.add(&[*buffer], token, false));
    }
    driver.publish();
    let mut queue = Queue::new(&memory, driver.setup(), start).unwrap();
    let mut requests = [(); 2].map(|()| Request::new(&memory));
    for request in &mut requests {
        assert!(queue.pop(request).unwrap());
    }
    queue.complete(&mut requests[0], 0);
    queue.publish();
    let position = driver.setup().position_of_used_ring(&memory).unwrap();
    let mut queue = Queue::new(&memory, driver.setup(), position).unwrap();
    for token in 1..3_u64 {
        let mut request = Request::new(&memory);
        assert!(queue.pop(&mut request).unwrap());
        assert_eq!(request.chain().unwrap().reader().read_array(), Some(token.to_le_bytes()));
    }
}
