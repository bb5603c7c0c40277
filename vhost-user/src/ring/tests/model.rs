//! A driver and a device do things in any order. The oracle is lists of chains in ordinary memory.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::driver::{TABLE, Used};

/// Pieces of memory for buffers, and their size in bytes.
const PIECES: u64 = 256;
const PIECE: u64 = 256;
/// Most steps of a case. Miri takes a second for some.
const MOST_STEPS: usize = if cfg!(miri) { 20 } else { 400 };

#[derive(Clone, Debug)]
enum Op {
    Add {
        readable: Vec<u32>,
        writable: Vec<u32>,
        indirect: bool,
    },
    Publish,
    /// Look at `most` chains, and use `done` of them. Of the bytes to write, `fill` parts of 4 are written.
    Burst {
        most: usize,
        done: usize,
        fill: u32,
    },
    Pop,
    /// Use a chain that was taken, and then publish.
    Complete {
        which: usize,
        fill: u32,
        publish: bool,
    },
    Collect {
        most: usize,
    },
    Kicks(bool),
    Calls(bool),
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let lens = || prop::collection::vec(1..=PIECE as u32, 0..4);
    let add = (lens(), lens(), any::<bool>());
    let add = add.prop_map(|(readable, writable, indirect)| Op::Add { readable, writable, indirect });
    let burst = (0_usize..40, 0_usize..40, 0_u32..=4).prop_map(|(most, done, fill)| Op::Burst { most, done, fill });
    let complete = (any::<usize>(), 0_u32..=4, any::<bool>());
    let complete = complete.prop_map(|(which, fill, publish)| Op::Complete { which, fill, publish });
    prop_oneof![
        8 => add,
        4 => Just(Op::Publish),
        4 => burst,
        2 => Just(Op::Pop),
        2 => complete,
        3 => (0_usize..20).prop_map(|most| Op::Collect { most }),
        1 => any::<bool>().prop_map(Op::Kicks),
        1 => any::<bool>().prop_map(Op::Calls),
        1 => Just(Op::Restart),
    ]
}

/// Bytes of a chain to read, and what the device writes.
fn pattern(token: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| token.wrapping_mul(37).wrapping_add(at * 7) as u8).collect()
}

#[derive(Clone, Debug)]
struct Offered {
    token: u64,
    buffers: Vec<Buffer>,
    readable: usize,
    writable: usize,
}

struct World {
    bed: Bed,
    in_order: bool,
    packed: bool,
    events: bool,
    free: Vec<u64>,
    next_token: u64,
    added: VecDeque<Offered>,
    available: VecDeque<Offered>,
    taken: Vec<(Offered, Request)>,
    /// Used, with the number of bytes written. `staged` is not published yet.
    staged: Vec<(Offered, u32)>,
    used: VecDeque<(Offered, u32)>,
    /// Whether the next chain must make the driver kick, or must not.
    kick: Option<bool>,
    /// The same of calls.
    call: Option<bool>,
}

impl World {
    fn new(size: u16, features: u64, start: Position) -> Self {
        let features_set = RingFeatures::of_bits(features);
        let bed = bed_at(size, features, start);
        let free = (0..PIECES).map(|n| bed.free + n * PIECE).collect();
        Self {
            bed,
            in_order: features_set.in_order,
            packed: features_set.packed,
            events: features_set.event_idx,
            free,
            next_token: 0,
            added: VecDeque::new(),
            available: VecDeque::new(),
            taken: Vec::new(),
            staged: Vec::new(),
            used: VecDeque::new(),
            kick: None,
            call: None,
        }
    }

    fn add(&mut self, readable: &[u32], writable: &[u32], indirect: bool) {
        let indirect = indirect && self.bed.queue.features().indirect;
        let count = readable.len() + writable.len();
        if count == 0 || count > self.free.len() || count > TABLE {
            return;
        }
        let lens = readable.iter().map(|len| (len, false)).chain(writable.iter().map(|len| (len, true)));
        let buffers: Vec<_> =
            lens.map(|(len, writable)| Buffer { guest: self.free.pop().unwrap(), len: *len, writable }).collect();
        let sum = |lens: &[u32]| lens.iter().sum::<u32>() as usize;
        let token = self.next_token;
        let chain = Offered { token, buffers, readable: sum(readable), writable: sum(writable) };
        if !self.bed.driver.add(&chain.buffers, token, indirect) {
            self.free.extend(chain.buffers.iter().map(|buffer| buffer.guest));
            return;
        }
        self.next_token += 1;
        let mut bytes = &pattern(token, chain.readable)[..];
        for buffer in chain.buffers.iter().filter(|buffer| !buffer.writable) {
            let (first, rest) = bytes.split_at(buffer.len as usize);
            self.bed.memory.write(buffer.guest, first).unwrap();
            bytes = rest;
        }
        self.added.push_back(chain);
    }

    fn publish(&mut self) -> Result<(), TestCaseError> {
        let kicked = self.bed.driver.publish();
        if !self.added.is_empty() {
            if let Some(must) = self.kick {
                prop_assert_eq!(kicked, must, "a kick");
            }
            // With the event index, a wish is for one kick.
            self.kick = self.kick.filter(|_| !self.events || !kicked);
        }
        self.available.append(&mut self.added);
        Ok(())
    }

    /// What the device does with a chain: reads, and writes a part. Returns the bytes written.
    fn work(chain: Chain<'_>, offered: &Offered, fill: u32) -> Result<u32, TestCaseError> {
        prop_assert_eq!((chain.readable_len(), chain.writable_len()), (offered.readable, offered.writable));
        let mut reader = chain.reader();
        let expected = pattern(offered.token, offered.readable);
        let mut bytes = vec![0; offered.readable];
        let mut start = 0;
        if let Some(head) = reader.read_array::<12>() {
            bytes[..12].copy_from_slice(&head);
            start = 12;
        }
        // In two parts, and then there is nothing left.
        let half = start + (bytes.len() - start) / 3;
        prop_assert_eq!(reader.read(&mut bytes[start..half]), half - start);
        prop_assert_eq!(reader.left(), bytes.len() - half);
        prop_assert_eq!(reader.read(&mut bytes[half..]), expected.len() - half);
        prop_assert_eq!(reader.read(&mut [0]), 0);
        prop_assert_eq!(bytes, expected);
        let written = offered.writable * fill as usize / 4;
        let data = pattern(!offered.token, written);
        let mut writer = chain.writer();
        prop_assert_eq!(writer.write(&data[..written / 2]), written / 2);
        prop_assert_eq!(writer.write(&data[written / 2..]), written - written / 2);
        prop_assert_eq!(writer.left(), offered.writable - written);
        Ok(written as u32)
    }

    fn burst(&mut self, most: usize, done: usize, fill: u32) -> Result<(), TestCaseError> {
        let mut burst = self.bed.queue.burst(&mut self.bed.scratch, most).unwrap();
        prop_assert_eq!(burst.len(), most.min(self.available.len()));
        for _ in 0..done.min(burst.len()) {
            let offered = self.available.pop_front().unwrap();
            let written = Self::work(burst.chain(0).unwrap(), &offered, fill)?;
            burst.advance(written);
            self.staged.push((offered, written));
        }
        for (ahead, offered) in self.available.iter().take(burst.len()).enumerate() {
            prop_assert_eq!(burst.chain(ahead).unwrap().readable_len(), offered.readable);
        }
        let rest = burst.len();
        prop_assert!(burst.chain(rest).is_none());
        let finished = burst.finish().unwrap();
        prop_assert_eq!(finished, done.min(finished + rest));
        // A burst without a chain publishes nothing.
        if finished > 0 { self.published() } else { Ok(()) }
    }

    fn published(&mut self) -> Result<(), TestCaseError> {
        let news = !self.staged.is_empty();
        self.used.extend(self.staged.drain(..));
        let call = self.bed.queue.needs_call();
        if news {
            if let Some(must) = self.call {
                prop_assert_eq!(call, must, "a call");
            }
            self.call = self.call.filter(|_| !self.events || !call);
        }
        prop_assert!(!self.bed.queue.needs_call(), "nothing was used since");
        Ok(())
    }

    fn pop(&mut self) -> Result<(), TestCaseError> {
        let mut request = Request::new(&self.bed.memory);
        let taken = self.bed.queue.pop(&mut request).unwrap();
        prop_assert_eq!(taken, !self.available.is_empty());
        prop_assert_eq!(request.chain().is_some(), taken);
        if let Some(offered) = self.available.pop_front() {
            prop_assert!(!self.bed.queue.pop(&mut request).unwrap(), "a request has one chain");
            self.taken.push((offered, request));
        }
        Ok(())
    }

    fn complete(&mut self, which: usize, fill: u32, publish: bool) -> Result<(), TestCaseError> {
        // In order, the oldest is the only one that may be used.
        let which = if self.in_order { 0 } else { which % self.taken.len().max(1) };
        if which < self.taken.len() {
            let (offered, mut request) = self.taken.remove(which);
            let written = Self::work(request.chain().unwrap(), &offered, fill)?;
            self.bed.queue.complete(&mut request, written);
            self.bed.queue.complete(&mut request, written);
            self.staged.push((offered, written));
        }
        if publish {
            self.bed.queue.publish();
            self.published()?;
        }
        Ok(())
    }

    fn collect(&mut self, most: usize) -> Result<(), TestCaseError> {
        for _ in 0..most {
            let (expected, got) = (self.used.pop_front(), self.bed.driver.collect());
            let Some((offered, written)) = expected else {
                prop_assert_eq!(got, None);
                return Ok(());
            };
            let Some(Used { token, len }) = got else { panic!("chain {} is not used", offered.token) };
            prop_assert_eq!(token, offered.token);
            // A chain that another one stands for had nothing written into it.
            prop_assert_eq!(len.unwrap_or_default(), written);
            let mut data = &pattern(!token, written as usize)[..];
            for buffer in offered.buffers.iter().filter(|buffer| buffer.writable) {
                let (first, rest) = data.split_at(data.len().min(buffer.len as usize));
                let mut bytes = vec![0; first.len()];
                self.bed.memory.read(buffer.guest, &mut bytes).unwrap();
                prop_assert_eq!(&bytes, first);
                data = rest;
            }
            self.free.extend(offered.buffers.iter().map(|buffer| buffer.guest));
        }
        Ok(())
    }

    fn kicks(&mut self, on: bool) -> Result<(), TestCaseError> {
        if on {
            let more = self.bed.queue.enable_kicks().unwrap();
            prop_assert_eq!(more, !self.available.is_empty());
            // If there is something already, the next kick is not promised.
            self.kick = Some(true).filter(|_| !more || !self.events);
        } else {
            self.bed.queue.disable_kicks();
            self.kick = Some(false).filter(|_| self.packed || !self.events);
        }
        Ok(())
    }

    fn calls(&mut self, on: bool) -> Result<(), TestCaseError> {
        if on {
            let more = self.bed.driver.enable_calls();
            prop_assert_eq!(more, !self.used.is_empty());
            self.call = Some(true).filter(|_| !more || !self.events);
        } else {
            self.bed.driver.disable_calls();
            self.call = Some(false).filter(|_| self.packed || !self.events);
        }
        Ok(())
    }

    /// The device is made anew where it stood.
    fn restart(&mut self) -> Result<(), TestCaseError> {
        if !self.taken.is_empty() || !self.staged.is_empty() {
            return Ok(());
        }
        let (position, setup) = (self.bed.queue.position(), *self.bed.driver.setup());
        // Nothing is in use, so the front end's knowledge is enough.
        let base = position.base(setup.features);
        prop_assert_eq!(setup.position_of_base(&self.bed.memory, base).unwrap(), position);
        if !self.packed {
            prop_assert_eq!(setup.position_of_used_ring(&self.bed.memory).unwrap(), position);
        }
        self.bed.queue = Queue::new(&self.bed.memory, &setup, position).unwrap();
        // A new device does not know what was last called for. The first answer may be a call too many.
        self.bed.queue.needs_call();
        Ok(())
    }

    fn step(&mut self, op: Op) -> Result<(), TestCaseError> {
        match op {
            Op::Add { readable, writable, indirect } => {
                self.add(&readable, &writable, indirect);
                Ok(())
            }
            Op::Publish => self.publish(),
            // A device does either what `burst` or what `pop` is for, when the order counts.
            Op::Burst { .. } if self.in_order && !self.taken.is_empty() => Ok(()),
            Op::Burst { most, done, fill } => self.burst(most, done, fill),
            Op::Pop => self.pop(),
            Op::Complete { which, fill, publish } => self.complete(which, fill, publish),
            Op::Collect { most } => self.collect(most),
            Op::Kicks(on) => self.kicks(on),
            Op::Calls(on) => self.calls(on),
            Op::Restart => self.restart(),
        }
    }
}

/// Runs the steps, and then lets everything come back.
fn run(size: u16, features: u64, start: Position, ops: Vec<Op>) -> Result<(), TestCaseError> {
    let mut world = World::new(size, features, start);
    for op in ops {
        world.step(op)?;
    }
    world.publish()?;
    while !world.taken.is_empty() {
        world.complete(0, 4, true)?;
    }
    world.bed.queue.publish();
    world.published()?;
    while !world.available.is_empty() {
        world.burst(64, 64, 3)?;
    }
    world.collect(usize::MAX)?;
    prop_assert_eq!(world.free.len() as u64, PIECES);
    Ok(())
}

fn features() -> impl Strategy<Value = u64> {
    let all = vec![F_INDIRECT, F_EVENT_IDX, F_IN_ORDER];
    prop::sample::subsequence(all, 0..=3).prop_map(|some| some.into_iter().sum())
}

proptest! {
    #[test]
    fn split_rings_behave_as_lists_of_chains(
        bits in 0_u32..7,
        start in prop_oneof![Just(0_u16), any::<u16>(), 65_500_u16..=u16::MAX],
        features in features(),
        ops in prop::collection::vec(op(), 0..MOST_STEPS),
    ) {
        run(1 << bits, features, Position { available: start, used: start }, ops)?;
    }

    #[test]
    fn packed_rings_behave_as_lists_of_chains(
        size in 1_u16..70,
        start: u16,
        wrap: bool,
        features in features(),
        ops in prop::collection::vec(op(), 0..MOST_STEPS),
    ) {
        let at = start % size + if wrap { 1 << 15 } else { 0 };
        run(size, features | F_PACKED, Position { available: at, used: at }, ops)?;
    }
}
