//! The ring has whatever bytes the guest likes, also while the device looks at it.

use proptest::prelude::*;

use super::*;

/// Bytes of the memory, all of which may be part of the ring.
const SMALL: u64 = 4096;
/// Most steps of a case. Miri takes seconds for some.
const MOST_STEPS: usize = if cfg!(miri) { 12 } else { 200 };

/// What is done to the memory, or by the device.
#[derive(Clone, Debug)]
enum Op {
    Word { at: u64, value: u64 },
    Burst(usize),
    Pop,
    Complete(bool),
    Events(bool),
}

fn op() -> impl Strategy<Value = Op> {
    // Numbers that mean something: addresses in the memory, small lengths, all flags.
    let likely = (0..SMALL, 0_u64..600, any::<u8>(), 0_u64..20)
        .prop_map(|(addr, len, flags, next)| [GUEST + addr, len | u64::from(flags) << 32 | next << 48])
        .prop_flat_map(|words| prop::sample::select(words.to_vec()));
    let value = prop_oneof![any::<u64>(), likely, any::<u16>().prop_map(|index| u64::from(index) << 16)];
    prop_oneof![
        8 => (0..SMALL / 8, value).prop_map(|(at, value)| Op::Word { at: at * 8, value }),
        2 => (0_usize..100).prop_map(Op::Burst),
        1 => Just(Op::Pop),
        1 => any::<bool>().prop_map(Op::Complete),
        1 => any::<bool>().prop_map(Op::Events),
    ]
}

/// Reads and writes all of a chain. Returns the number of bytes written.
fn work(chain: &Chain<'_>) -> u32 {
    let mut bytes = vec![0; chain.readable_len().min(1 << 16)];
    assert_eq!(chain.reader().read(&mut bytes), bytes.len());
    let room = chain.writable_len().min(1 << 16);
    chain.writer().write(&vec![0xa5; room]) as u32
}

fn run(features: u64, size: u16, ops: Vec<Op>) -> Result<(), TestCaseError> {
    let memory = memory(SMALL).unwrap();
    let features = RingFeatures::of_bits(features);
    let user = crate::driver::USER;
    // The parts lie over each other. That is the guest's to decide.
    let (available, used) = (user + 0x200, user + 0x300);
    let setup = RingSetup { size: size.into(), descriptors: user, available, used, features, chain_limit: 20 };
    let queue = |position| Queue::new(&memory, &setup, position);
    let start = Position::start(features);
    let (mut device, mut scratch) = (queue(start).unwrap(), Scratch::default());
    let mut request = Request::new(&memory);
    for op in ops {
        let result = match op {
            Op::Word { at, value } => {
                memory.write(GUEST + at, &value.to_le_bytes()).unwrap();
                Ok(())
            }
            Op::Burst(most) => device.burst(&mut scratch, most).and_then(|mut burst| {
                assert!(burst.len() <= most.min(size.into()));
                while let Some(chain) = burst.chain(0) {
                    assert!(chain.readable().len() + chain.writable().len() <= 20);
                    let written = work(&chain);
                    burst.advance(written);
                }
                burst.finish().map(drop)
            }),
            Op::Pop => device.pop(&mut request).map(|_| {
                request.chain().as_ref().map(work);
            }),
            Op::Complete(publish) => {
                device.complete(&mut request, 7);
                if publish {
                    device.publish();
                }
                device.needs_call();
                Ok(())
            }
            Op::Events(true) => device.enable_kicks().map(drop),
            Op::Events(false) => {
                device.disable_kicks();
                Ok(())
            }
        };
        if result.is_err() {
            // The owner would end the session. Here the next device goes on with what this one left.
            request = Request::new(&memory);
            let position = setup.position_of_used_ring(&memory).unwrap();
            device = queue(if features.packed { start } else { position }).unwrap();
        }
    }
    Ok(())
}

/// Features of three bits.
fn features(bits: u64) -> u64 {
    let all = [F_INDIRECT, F_EVENT_IDX, F_IN_ORDER].into_iter().enumerate();
    all.filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, feature)| feature).sum()
}

proptest! {
    #[test]
    fn bytes_of_a_split_ring_never_hurt_the_device(
        bits in 0_u32..6, flags in 0_u64..8, ops in prop::collection::vec(op(), 0..MOST_STEPS),
    ) {
        run(features(flags), 1 << bits, ops)?;
    }

    #[test]
    fn bytes_of_a_packed_ring_never_hurt_the_device(
        size in 1_u16..40, flags in 0_u64..8, ops in prop::collection::vec(op(), 0..MOST_STEPS),
    ) {
        run(features(flags) | F_PACKED, size, ops)?;
    }
}

/// A split ring with these descriptors, the first of which is available. What does the device say of it?
fn said(features: u64, descriptors: &[(u64, u32, u16, u16)]) -> Result<usize, RingError> {
    let Bed { memory, mut queue, mut scratch, .. } = bed(8, features);
    for (at, (addr, len, flags, next)) in (0_u64..).zip(descriptors) {
        let bytes = [&addr.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat();
        memory.write(GUEST + at * 16, &bytes).unwrap();
    }
    let available = queue.setup().available - crate::driver::USER + GUEST;
    memory.write(available, &[0, 0, 1, 0, 0, 0]).unwrap();
    queue.burst(&mut scratch, 9).map(|burst| burst.len())
}

#[test]
fn each_lie_of_a_split_ring_has_a_name() {
    use crate::ring::{INDIRECT, NEXT, WRITE};
    let good = GUEST + 0x1000;
    assert_eq!(said(0, &[(good, 10, NEXT, 1), (good, 10, WRITE, 0)]), Ok(1));
    assert_eq!(said(0, &[(good, 10, NEXT, 0)]), Err(RingError::TooLong { limit: 64 }), "a loop");
    assert_eq!(said(0, &[(good, 1 << 12, NEXT, 8)]), Err(RingError::Index { index: 8, count: 8 }));
    assert_eq!(said(0, &[(good, 9, WRITE | NEXT, 1), (good, 9, 0, 0)]), Err(RingError::Order));
    assert_eq!(said(0, &[(good, 0, 0, 0)]), Err(RingError::Buffer { guest: good, len: 0 }));
    let high = GUEST + BYTES - 1;
    assert_eq!(said(0, &[(high, 1, 0, 0)]), Ok(1));
    assert_eq!(said(0, &[(high, 2, 0, 0)]), Err(RingError::Buffer { guest: high, len: 2 }));
    assert_eq!(said(0, &[(u64::MAX, 2, 0, 0)]), Err(RingError::Buffer { guest: u64::MAX, len: 2 }));
    let most = RingError::Buffer { guest: good, len: u32::MAX };
    assert_eq!(said(0, &[(good, u32::MAX, 0, 0)]), Err(most));
    assert_eq!(said(0, &[(good, 16, INDIRECT, 0)]), Err(RingError::Indirect), "it was not negotiated");
    let table = RingError::Table { guest: good, len: 17 };
    assert_eq!(said(F_INDIRECT, &[(good, 17, INDIRECT, 0)]), Err(table));
    assert_eq!(said(F_INDIRECT, &[(good, 16, INDIRECT | NEXT, 1)]), Err(RingError::Indirect));
    // Tables in the ring's own table, of which one entry names a table again, and one a descriptor beyond the end.
    let own = GUEST + 16;
    let nested = [(own, 16, INDIRECT, 0), (good, 16, INDIRECT, 0)];
    assert_eq!(said(F_INDIRECT, &nested), Err(RingError::Indirect));
    let beyond = [(own, 16, INDIRECT, 0), (good, 16, NEXT, 1)];
    assert_eq!(said(F_INDIRECT, &beyond), Err(RingError::Index { index: 1, count: 1 }));
    let mixed = [(good, 3, NEXT, 1), (own + 16, 16, INDIRECT | WRITE, 0), (good, 9, WRITE, 0)];
    assert_eq!(said(F_INDIRECT, &mixed), Ok(1), "a table may follow ordinary descriptors");
}

/// A packed ring with these descriptors, as address, length, id and flags. What does the device say of the first?
fn said_of_packed(features: u64, descriptors: &[(u64, u32, u16, u16)]) -> Result<Vec<usize>, RingError> {
    let Bed { memory, mut queue, mut scratch, .. } = bed(4, features | F_PACKED);
    for (at, (addr, len, id, flags)) in (0_u64..).zip(descriptors) {
        let flags = flags | crate::ring::AVAIL;
        let bytes = [&addr.to_le_bytes()[..], &len.to_le_bytes(), &id.to_le_bytes(), &flags.to_le_bytes()].concat();
        memory.write(GUEST + at * 16, &bytes).unwrap();
    }
    let burst = queue.burst(&mut scratch, 9)?;
    Ok((0..burst.len()).map(|at| burst.chain(at).unwrap().readable().len()).collect())
}

#[test]
fn each_lie_of_a_packed_ring_has_a_name() {
    use crate::ring::{INDIRECT, NEXT, WRITE};
    let good = GUEST + 0x1000;
    let said = said_of_packed;
    assert_eq!(said(0, &[(good, 10, 0, NEXT), (good, 10, 7, 0), (good, 1, 9, 0)]), Ok(vec![2, 1]));
    assert_eq!(said(0, &[(good, 10, 0, NEXT); 4]), Err(RingError::TooLong { limit: 4 }), "a loop");
    assert_eq!(said(0, &[(good, 9, 0, WRITE | NEXT), (good, 9, 0, 0)]), Err(RingError::Order));
    assert_eq!(said(0, &[(good, 0, 0, 0)]), Err(RingError::Buffer { guest: good, len: 0 }));
    assert_eq!(said(0, &[(0, 10, 0, 0)]), Err(RingError::Buffer { guest: 0, len: 10 }));
    assert_eq!(said(0, &[(good, 16, 0, INDIRECT)]), Err(RingError::Indirect), "it was not negotiated");
    assert_eq!(said(F_INDIRECT, &[(good, 16, 0, INDIRECT | NEXT); 2]), Err(RingError::Indirect));
    assert_eq!(said(F_INDIRECT, &[(good, 8, 0, NEXT), (good, 16, 0, INDIRECT)]), Err(RingError::Indirect));
    let table = RingError::Table { guest: good, len: 15 };
    assert_eq!(said(F_INDIRECT, &[(good, 15, 0, INDIRECT)]), Err(table));
    // Tables in the ring itself. Their flags mean nothing but that the device writes, or that there is a table.
    let own = GUEST + 16;
    let both = [(own, 48, 0, INDIRECT), (good, 8, 0, NEXT), (good, 8, 0, NEXT), (good, 8, 0, 0)];
    assert_eq!(said(F_INDIRECT, &both), Ok(vec![3, 3]));
    assert_eq!(said(F_INDIRECT, &[(own, 16, 0, INDIRECT), (good, 16, 0, INDIRECT)]), Err(RingError::Indirect));
}

#[test]
fn a_chain_of_4_gib_is_refused() {
    // The same mebibyte again and again.
    let mut bed = bed(64, F_INDIRECT);
    let mut setup = *bed.driver.setup();
    setup.chain_limit = u16::MAX;
    let (table, count) = (GUEST + (1 << 17), 5000_u64);
    for at in 0..count {
        let flags_and_next = 1 | (at + 1) << 16;
        let bytes = [GUEST.to_le_bytes(), (BYTES | flags_and_next << 32).to_le_bytes()].concat();
        bed.memory.write(table + at * 16, &bytes).unwrap();
    }
    let buffer = Buffer { guest: table, len: count as u32 * 16, writable: false };
    assert!(bed.driver.add(&[buffer], 0, false));
    bed.driver.publish();
    // The descriptor's flags: a table.
    bed.memory.write(GUEST + 12, &[4]).unwrap();
    let mut queue = Queue::new(&bed.memory, &setup, Position::start(setup.features)).unwrap();
    assert_eq!(queue.burst(&mut bed.scratch, 1).unwrap_err(), RingError::TooManyBytes);
}

#[test]
fn an_index_that_is_too_far_or_goes_back_is_refused() {
    let Bed { memory, mut queue, mut scratch, mut driver, free, .. } = bed(4, 0);
    let index = queue.setup().available - crate::driver::USER + GUEST + 2;
    memory.write(index, &5_u16.to_le_bytes()).unwrap();
    let error = RingError::TooManyAvailable { available: 5, size: 4 };
    assert_eq!(queue.burst(&mut scratch, 1).unwrap_err(), error);
    memory.write(index, &[0, 0]).unwrap();
    assert!(driver.add(&[Buffer { guest: free, len: 1, writable: false }], 0, false));
    driver.publish();
    let mut request = Request::new(&memory);
    assert!(queue.pop(&mut request).unwrap());
    memory.write(index, &[0, 0]).unwrap();
    assert_eq!(queue.has_available(), Err(RingError::TooManyAvailable { available: 0, size: 4 }));
}

#[test]
fn descriptors_of_a_packed_ring_are_not_taken_twice() {
    let Bed { memory, mut queue, mut scratch, .. } = bed(4, F_PACKED);
    // All four are available, in this round and in the next: the guest changes their flags as it likes.
    let fill = |flags: u16| {
        for at in 0..4 {
            let bytes = [&(GUEST + 0x1000).to_le_bytes()[..], &[8, 0, 0, 0, at, 0], &flags.to_le_bytes()].concat();
            memory.write(GUEST + u64::from(at) * 16, &bytes).unwrap();
        }
    };
    fill(1 << 7);
    let mut requests: Vec<_> = (0..3).map(|_| Request::new(&memory)).collect();
    for request in &mut requests {
        assert!(queue.pop(request).unwrap());
    }
    assert_eq!(queue.burst(&mut scratch, 9).unwrap().len(), 1);
    let mut last = Request::new(&memory);
    assert!(queue.pop(&mut last).unwrap());
    fill(1 << 15);
    let error = RingError::TooManyAvailable { available: 5, size: 4 };
    assert_eq!(queue.burst(&mut scratch, 9).unwrap_err(), error);
    assert_eq!(queue.pop(&mut Request::new(&memory)), Err(error));
}

#[test]
fn a_burst_of_long_chains_ends_early_and_loses_none() {
    let mut bed = bed(1024, F_INDIRECT);
    let buffers: Vec<_> = (0..16).map(|n| Buffer { guest: bed.free + n, len: 1, writable: false }).collect();
    for token in 0..100 {
        assert!(bed.driver.add(&buffers, token, true));
    }
    bed.driver.publish();
    assert_eq!(bed.use_all(), 32, "they have 512 buffers");
    assert_eq!(bed.use_all(), 32);
    assert_eq!(bed.use_all() + bed.use_all(), 36);
    assert!((0..100).all(|token| bed.driver.collect().unwrap().token == token));
}
