//! A device with packed rings is killed anywhere, and the next one goes on.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::driver::{USER, Used};

/// Bytes of a buffer.
const PIECE: u32 = 64;
/// Identity of the ring in all tests.
const RING: RingIdentity = RingIdentity { device: 1, inode: 2, offset: 3 };

/// How far a device comes with its last burst.
#[derive(Clone, Copy, Debug)]
enum Killed {
    /// Before or while the burst is noted.
    Noting,
    /// So many used descriptors were written, and not the first one.
    Writing(usize),
    /// All were written.
    Done,
}

fn killed() -> impl Strategy<Value = Killed> {
    prop_oneof![Just(Killed::Noting), (0_usize..40).prop_map(Killed::Writing), Just(Killed::Done)]
}

/// Chains of a round: numbers of buffers to read and to write. The device takes so many of them at once.
type Round = (Vec<(usize, usize)>, usize, Killed);

fn round() -> impl Strategy<Value = Round> {
    let chain = prop_oneof![4 => Just((1, 0)), 2 => Just((0, 1)), 1 => (0_usize..4, 0_usize..4)];
    (prop::collection::vec(chain, 0..20), 0_usize..20, killed())
}

struct World {
    bed: Bed,
    journal: Journal,
    next_token: u64,
    /// Chains that the device has not used, with bytes to write.
    available: VecDeque<(u64, u32)>,
    /// Chains that it has used, and the driver has not collected.
    used: VecDeque<(u64, u32)>,
    /// Where the ring stands by the front end.
    base: u16,
    /// Chains that the front end has thrown away. The driver collects them after all that the device uses.
    thrown: Vec<u64>,
}

impl World {
    fn new(size: u16, features: u64, start: Position) -> Self {
        let mut bed = bed_at(size, features, start);
        let journal = Journal::of_heap(2);
        let record = journal.record(1).unwrap();
        record.begin(RING, size, start);
        bed.queue.set_record(Some(record));
        bed.queue.disable_kicks();
        Self {
            bed,
            journal,
            next_token: 0,
            available: VecDeque::new(),
            used: VecDeque::new(),
            base: start.used,
            thrown: Vec::new(),
        }
    }

    /// Second words of all descriptors.
    fn words(&self) -> Vec<u64> {
        let mut bytes = vec![0; 16 * usize::from(self.bed.queue.size())];
        self.bed.memory.read(self.ring(), &mut bytes).unwrap();
        let (descriptors, _) = bytes.as_chunks::<16>();
        descriptors.iter().map(|desc| u64::from_le_bytes(desc[8..].try_into().unwrap())).collect()
    }

    fn ring(&self) -> u64 {
        self.bed.driver.setup().descriptors - USER + GUEST
    }

    /// Puts a descriptor's second word back.
    fn put_back(&self, index: usize, word: u64) {
        self.bed.memory.write(self.ring() + 16 * index as u64 + 8, &word.to_le_bytes()).unwrap();
    }

    fn offer(&mut self, chains: &[(usize, usize)], indirect: bool) {
        for &(readable, writable) in chains {
            let buffer = |writable| Buffer { guest: self.bed.free, len: PIECE, writable };
            let read = std::iter::repeat_n(buffer(false), readable);
            let buffers: Vec<_> = read.chain(std::iter::repeat_n(buffer(true), writable)).collect();
            if buffers.is_empty() || !self.bed.driver.add(&buffers, self.next_token, indirect) {
                continue;
            }
            self.available.push_back((self.next_token, PIECE * writable as u32));
            self.next_token += 1;
        }
        self.bed.driver.publish();
    }

    /// The device takes up to `most` chains, and is killed on the way.
    fn burst(&mut self, most: usize, killed: Killed) {
        let (before, position) = (self.words(), self.bed.queue.position());
        let place = usize::from(position.used & 0x7fff);
        let mut burst = self.bed.queue.burst(&mut self.bed.scratch, most).unwrap();
        let count = burst.len();
        for (_, writable) in self.available.iter().take(count) {
            burst.advance(*writable);
        }
        assert_eq!(burst.finish().unwrap(), count);
        let changed: Vec<_> = self.words().into_iter().zip(before).enumerate().collect();
        let changed: Vec<_> = changed.into_iter().filter(|(_, (now, before))| now != before).collect();
        let taken = match killed {
            Killed::Noting => {
                changed.iter().for_each(|&(index, (_, before))| self.put_back(index, before));
                let record = self.journal.record(1).unwrap();
                record.note(position.used, position.used, std::iter::empty());
                0
            }
            // The first descriptor is written last.
            Killed::Writing(written) => {
                let others = changed.iter().filter(|(index, _)| *index != place);
                others.skip(written).for_each(|&(index, (_, before))| self.put_back(index, before));
                changed.iter().filter(|(index, _)| *index == place).for_each(|&(index, (_, before))| {
                    self.put_back(index, before);
                });
                count
            }
            Killed::Done => count,
        };
        self.used.extend(self.available.drain(..taken));
    }

    /// The front end throws away what is available, from where it stands: nothing, or all that is there.
    ///
    /// It is a device of its own, and not at the place where ours was.
    fn throw_away(&mut self) {
        let setup = *self.bed.driver.setup();
        let stands = Position { available: self.base, used: self.base };
        let mut queue = Queue::new(&self.bed.memory, &setup, stands).unwrap();
        let mut burst = queue.burst(&mut self.bed.scratch, usize::MAX).unwrap();
        let count = burst.len();
        while !burst.is_empty() {
            burst.advance(0);
        }
        burst.finish().unwrap();
        self.base = queue.position().available;
        // It takes the last ones, if not all.
        let first = self.available.len() - count;
        self.thrown = self.available.drain(first..).map(|(token, _)| token).collect();
    }

    fn restart(&mut self) -> Result<(), TestCaseError> {
        // The file was removed meanwhile, and made again.
        let again = Journal::of_heap(2);
        again.record(1).unwrap().copy(&self.journal.record(1).unwrap());
        self.journal = again;
        let setup = *self.bed.driver.setup();
        let record = self.journal.record(1).unwrap();
        let base = self.base.into();
        let position = record.resume(&self.bed.memory, &setup, RING, base).unwrap().expect("a record of this ring");
        self.bed.queue = Queue::new(&self.bed.memory, &setup, position).unwrap();
        self.bed.queue.set_record(Some(record));
        prop_assert!(self.bed.queue.needs_call(), "nobody knows whether the driver was called");
        prop_assert_eq!(self.bed.queue.enable_kicks().unwrap(), !self.available.is_empty());
        Ok(())
    }

    fn collect(&mut self) -> Result<(), TestCaseError> {
        self.collect_used()?;
        prop_assert_eq!(self.bed.driver.collect(), None);
        Ok(())
    }

    fn collect_used(&mut self) -> Result<(), TestCaseError> {
        while let Some((token, written)) = self.used.pop_front() {
            let got = self.bed.driver.collect();
            prop_assert_eq!(got.map(|used| used.token), Some(token));
            let len = got.and_then(|Used { len, .. }| len);
            prop_assert_eq!(len.unwrap_or_default(), written);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 400 }, ..ProptestConfig::default() })]
    #[test]
    fn a_device_that_is_killed_anywhere_is_gone_on_with(
        size in 1_u16..40,
        start: u16,
        wrap: bool,
        features in prop::sample::subsequence(vec![F_INDIRECT, F_EVENT_IDX, F_IN_ORDER], 0..=3),
        indirect: bool,
        rounds in prop::collection::vec(round(), 1..30),
    ) {
        let features: u64 = features.into_iter().sum();
        let at = start % size + if wrap { 1 << 15 } else { 0 };
        let mut world = World::new(size, features | F_PACKED, Position { available: at, used: at });
        for (chains, most, killed) in rounds {
            world.offer(&chains, indirect && features & F_INDIRECT != 0);
            world.burst(most, killed);
            world.restart()?;
            world.collect()?;
        }
        world.burst(usize::MAX, Killed::Done);
        world.collect()?;
        prop_assert!(world.available.is_empty());
    }
}

/// What QEMU does while there is no back end. Its position is that of the ring's start.
#[test]
fn what_the_front_end_has_thrown_away_is_passed_over() {
    for size in 4..12_u16 {
        for done in 0..2 * size {
            for left in 0..=size {
                check_thrown_away(size, done, left);
            }
        }
    }
}

fn check_thrown_away(size: u16, done: u16, left: u16) {
    let what = format!("size {size}, {done} used, {left} left");
    let mut world = World::new(size, F_PACKED, Position::start(RingFeatures::of_bits(F_PACKED)));
    for _ in 0..done {
        world.offer(&[(1, 0)], false);
        world.burst(1, Killed::Done);
        world.collect().unwrap();
    }
    world.offer(&vec![(1, 0); left.into()], false);
    let offered = world.available.len();
    assert_eq!(offered, usize::from(left));
    world.throw_away();
    let thrown = std::mem::take(&mut world.thrown);
    assert!(
        !done.is_multiple_of(2 * size) || thrown.len() == offered,
        "{what}: the front end stands where the ring does"
    );
    // The device is killed several times, before it gets there.
    for _ in 0..3 {
        world.restart().unwrap();
    }
    world.burst(usize::MAX, Killed::Done);
    world.collect_used().unwrap();
    for token in thrown {
        assert_eq!(world.bed.driver.collect().map(|used| used.token), Some(token), "{what}");
    }
    // It goes on for two rounds and more.
    for _ in 0..5 * size {
        world.offer(&[(1, 0)], false);
        world.burst(1, Killed::Done);
        assert!(world.available.is_empty(), "{what}: it does not go on");
        world.collect().unwrap();
        world.restart().unwrap();
    }
}

fn killed_world() -> World {
    let mut world = World::new(8, F_PACKED, Position::start(RingFeatures::of_bits(F_PACKED)));
    world.offer(&[(1, 0); 5], false);
    world.burst(3, Killed::Done);
    world
}

fn resumed(world: &World, setup: &RingSetup, identity: RingIdentity) -> Option<Position> {
    world.journal.record(1).unwrap().resume(&world.bed.memory, setup, identity, world.base.into()).unwrap()
}

#[test]
fn a_record_holds_for_its_ring_only() {
    let world = killed_world();
    let setup = *world.bed.driver.setup();
    let behind = Some(Position { available: 0x8003, used: 0x8003 });
    assert_eq!(resumed(&world, &setup, RING), behind);
    let others =
        [RingIdentity { device: 9, ..RING }, RingIdentity { inode: 9, ..RING }, RingIdentity { offset: 9, ..RING }];
    for other in others {
        assert_eq!(resumed(&world, &setup, other), None, "{other:?}");
    }
    assert_eq!(resumed(&world, &RingSetup { size: 4, ..setup }, RING), None);
    let split = RingSetup { features: RingFeatures::default(), ..setup };
    assert_eq!(resumed(&world, &split, RING), None);
    assert!(world.journal.holds());
    let other = world.journal.record(0).unwrap();
    assert_eq!(other.resume(&world.bed.memory, &setup, RING, 0x8000), Ok(None), "another record");
    assert!(world.journal.record(2).is_none());
    world.journal.record(1).unwrap().end();
    assert_eq!(resumed(&world, &setup, RING), None);
    assert!(!world.journal.holds());
}

#[test]
fn a_driver_that_has_begun_anew_is_not_gone_on_with() {
    let world = killed_world();
    let setup = *world.bed.driver.setup();
    // A guest that was booted anew has its ring at the same place, zeroed and filled again.
    let start = Position::start(setup.features);
    Driver::new(&world.bed.memory, GUEST, setup, start);
    assert_eq!(resumed(&world, &setup, RING), None);
}

#[test]
fn what_a_device_wishes_is_never_all_zeroes() {
    for features in [F_PACKED, F_PACKED | F_EVENT_IDX] {
        let mut bed = bed_at(8, features, Position { available: 0, used: 0 });
        let at = bed.driver.setup().used - USER + GUEST;
        let wish = |bed: &Bed| {
            let mut bytes = [0; 4];
            bed.memory.read(at, &mut bytes).unwrap();
            u32::from_le_bytes(bytes)
        };
        bed.queue.enable_kicks().unwrap();
        assert_ne!(wish(&bed), 0, "{features:#x}");
        bed.queue.disable_kicks();
        assert_ne!(wish(&bed), 0, "{features:#x}");
    }
}

#[test]
fn odd_records_do_no_harm() {
    let world = killed_world();
    let setup = *world.bed.driver.setup();
    // A place outside of the ring, and a burst of more entries than a record has.
    let record = world.journal.record(1).unwrap();
    record.begin(RING, 8, Position { available: 0, used: 8 });
    assert_eq!(resumed(&world, &setup, RING), None);
    record.begin(RING, 8, Position { available: 0, used: 3 });
    record.note(3, 4, std::iter::repeat_n((u16::MAX, u64::MAX), 1000));
    assert!(resumed(&world, &setup, RING).is_some());
}
