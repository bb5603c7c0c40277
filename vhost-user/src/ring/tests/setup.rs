use super::*;
use crate::driver::USER;
use crate::memory::MemoryError;

fn made(memory: &Arc<GuestMemory>, setup: RingSetup) -> Result<(), RingError> {
    Queue::new(memory, &setup, Position::start(setup.features)).map(drop)
}

#[test]
fn sizes_and_places_that_make_no_ring_are_refused() {
    let memory = memory(1 << 21).unwrap();
    let setup = |size: u32, features: u64| RingSetup {
        size,
        descriptors: USER,
        available: USER + (1 << 20),
        used: USER + (1 << 20) + (1 << 18),
        ..shape(1, features)
    };
    for (size, features) in
        [(1, 0), (1 << 15, 0), (1, F_PACKED), (3, F_PACKED), (32_767, F_PACKED), (1 << 15, F_PACKED)]
    {
        assert_eq!(made(&memory, setup(size, features)), Ok(()));
    }
    for (size, features) in [(0, 0), (3, 0), (1 << 16, 0), (u32::MAX, 0), (0, F_PACKED), (32_769, F_PACKED)] {
        assert_eq!(made(&memory, setup(size, features)), Err(RingError::Size(size)));
    }
    let part = |part, user, align| Err(RingError::Alignment { part, user, align });
    let good = setup(8, 0);
    let wrong = USER + 8;
    assert_eq!(made(&memory, RingSetup { descriptors: wrong, ..good }), part("descriptor table", wrong, 16));
    let wrong = USER + 1;
    assert_eq!(made(&memory, RingSetup { available: wrong, ..good }), part("available ring", wrong, 2));
    let wrong = USER + 2;
    assert_eq!(made(&memory, RingSetup { used: wrong, ..good }), part("used ring", wrong, 4));
    let packed = setup(8, F_PACKED);
    assert_eq!(made(&memory, RingSetup { used: wrong, ..packed }), part("device's event suppression", wrong, 4));
    let outside = |part, user, len| Err(RingError::Area { part, error: MemoryError::User { user, len } });
    let end = USER + (1 << 21);
    assert_eq!(made(&memory, RingSetup { descriptors: end - 64, ..good }), outside("descriptor table", end - 64, 128));
    assert_eq!(
        made(&memory, RingSetup { available: u64::MAX - 1, ..good }),
        outside("available ring", u64::MAX - 1, 4)
    );
    assert_eq!(made(&memory, RingSetup { used: end - 68, ..good }), Ok(()), "without an event behind it");
    let events = RingSetup { used: end - 68, ..setup(8, F_EVENT_IDX) };
    assert_eq!(made(&memory, events), outside("used ring", end, 2));
}

#[test]
fn positions_that_a_ring_can_not_have_are_refused() {
    let memory = memory(BYTES).unwrap();
    let at = |features, size, available, used| {
        let setup = *Driver::new(&memory, GUEST, shape(size, features), Position { available: 0, used: 0 }).setup();
        Queue::new(&memory, &setup, Position { available, used }).is_ok()
    };
    assert!(at(0, 8, 3, 65_531) && at(0, 8, 7, 7));
    assert!(!at(0, 8, 4, 65_531) && !at(0, 8, 6, 7));
    let wrap = 1 << 15;
    assert!(at(F_PACKED, 5, wrap | 4, wrap) && at(F_PACKED, 5, 2, wrap | 2) && at(F_PACKED, 5, wrap, 4));
    assert!(!at(F_PACKED, 5, 3, wrap | 2) && !at(F_PACKED, 5, 1, 2) && !at(F_PACKED, 5, wrap | 5, wrap));
    assert!(!at(F_PACKED, 5, 0x7fff, 0x7fff));
}

#[test]
fn bases_are_told_and_taken_as_the_protocol_has_them() {
    let split = bed_at(8, 0, Position { available: 0x1234, used: 0x1234 });
    assert_eq!(split.queue.position().base(split.queue.features()), 0x1234);
    let at = Position { available: 0x1236, used: 0x1234 };
    assert_eq!(split.queue.setup().position_of_base(&split.memory, 0x1236), Ok(at));
    let used = Position { available: 0x1234, used: 0x1234 };
    assert_eq!(split.queue.setup().position_of_used_ring(&split.memory), Ok(used));
    let packed = bed(8, F_PACKED);
    assert_eq!(packed.queue.position().base(packed.queue.features()), 0x8000_8000);
    // Some front ends leave the upper half out.
    for base in [0x8003, 0x8003_8003] {
        let at = Position { available: 0x8003, used: 0x8003 };
        assert_eq!(packed.queue.setup().position_of_base(&packed.memory, base), Ok(at));
    }
}
