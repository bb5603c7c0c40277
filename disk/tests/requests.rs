//! Requests of every kind and layout, by a guest on the host.
#![allow(clippy::cast_possible_truncation, reason = "small numbers of tests")]

mod common;

use std::time::Duration;

use common::{ImagePlace, MIB, SECTOR, pattern};
use disk::client::{Data, GuestSpec, Layout, Task, kind};

const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;

#[test]
fn what_is_written_is_read_and_the_disk_says_who_it_is() {
    for packed in [false, true] {
        let place = ImagePlace::new(MIB);
        let disk = place.start(|_| {});
        let mut guest = place.guest(GuestSpec { packed, ..GuestSpec::default() });
        assert_eq!(guest.sectors(), MIB / 512);
        let queue = &mut guest.queues[0];
        let bytes = pattern(1, 8192);
        assert_eq!(queue.run(&Task::write(8, bytes.clone())).0, OK);
        assert_eq!(queue.run(&Task::flush()).0, OK);
        assert_eq!(queue.run(&Task::read(8, 8192)), (OK, bytes.clone()));
        assert_eq!(std::fs::read(place.image()).unwrap()[4096..4096 + 8192], bytes);
        let id = Task { kind: kind::GET_ID, ..Task::read(0, 20) };
        assert_eq!(queue.run(&id), (OK, b"disk-of-a-test\0\0\0\0\0\0".to_vec()));
        let counters = &disk.counters()[0];
        assert_eq!((counters.read.operations.get(), counters.write.bytes.get()), (1, 8192));
        assert_eq!((counters.flush.operations.get(), counters.in_flight.get()), (1, 0));
    }
}

#[test]
fn zeroes_and_discards_are_of_all_their_segments() {
    let place = ImagePlace::new(MIB);
    let _disk = place.start(|_| {});
    let mut guest = place.guest(GuestSpec::default());
    let queue = &mut guest.queues[0];
    for (kind, flags) in [(kind::WRITE_ZEROES, 0), (kind::WRITE_ZEROES, 1), (kind::DISCARD, 0)] {
        assert_eq!(queue.run(&Task::write(0, pattern(7, 65536))).0, OK);
        let segments = [(1, 3, flags), (16, 8, flags), (100, 0, flags)];
        assert_eq!(queue.run(&Task::segments(kind, &segments)).0, OK);
        let mut expected = pattern(7, 65536);
        expected[SECTOR..4 * SECTOR].fill(0);
        expected[16 * SECTOR..24 * SECTOR].fill(0);
        assert!(queue.run(&Task::read(0, 65536)) == (OK, expected), "kind {kind}, flags {flags}");
    }
}

#[test]
fn what_may_not_be_is_told_and_changes_nothing() {
    let place = ImagePlace::new(MIB);
    let disk = place.start(|spec| spec.block = 4096);
    let mut guest = place.guest(GuestSpec::default());
    let queue = &mut guest.queues[0];
    let last = MIB / 512 - 8;
    let refused = [
        (Task::read(last + 8, 4096), IO_ERROR),
        (Task::read(last, 8192), IO_ERROR),
        (Task::read(u64::MAX, 4096), IO_ERROR),
        (Task::read(u64::MAX / 512 + 1, 4096), IO_ERROR),
        (Task::read(1, 4096), IO_ERROR),
        (Task::read(0, 512), IO_ERROR),
        (Task::write(last + 8, vec![1; 4096]), IO_ERROR),
        (Task::write(0, vec![1; 100]), IO_ERROR),
        (Task::segments(kind::DISCARD, &[(0, 8, 1)]), UNSUPPORTED),
        (Task::segments(kind::WRITE_ZEROES, &[(0, 8, 2)]), UNSUPPORTED),
        (Task::segments(kind::WRITE_ZEROES, &[(0, 8, 0), (last + 8, 8, 0)]), IO_ERROR),
        (Task::segments(kind::WRITE_ZEROES, &[(0, 1, 0)]), IO_ERROR),
        (Task::segments(kind::DISCARD, &[(0, 8, 0); 17]), IO_ERROR),
        (Task::segments(kind::DISCARD, &[]), IO_ERROR),
        (Task { kind: kind::DISCARD, ..Task::write(0, vec![0; 15]) }, IO_ERROR),
        (Task { kind: 99, ..Task::read(0, 512) }, UNSUPPORTED),
    ];
    assert_eq!(queue.run(&Task::write(0, pattern(3, 4096))).0, OK);
    for (task, status) in &refused {
        assert_eq!(queue.run(task).0, *status, "{task:?}");
    }
    assert_eq!(queue.run(&Task::read(0, 4096)), (OK, pattern(3, 4096)));
    assert_eq!(disk.counters()[0].refused.get(), refused.len() as u64);
}

#[test]
fn a_read_only_disk_is_read_only() {
    let place = ImagePlace::new(MIB);
    let _disk = place.start(|spec| spec.read_only = true);
    let mut guest = place.guest(GuestSpec::default());
    assert_ne!(guest.features() & 1 << 5, 0);
    let queue = &mut guest.queues[0];
    assert_eq!(queue.run(&Task::write(0, vec![1; 512])).0, IO_ERROR);
    assert_ne!(queue.run(&Task::segments(kind::WRITE_ZEROES, &[(0, 8, 0)])).0, OK);
    assert_eq!(queue.run(&Task::flush()).0, OK);
    assert_eq!(queue.run(&Task::read(0, 512)), (OK, vec![0; 512]));
}

#[test]
fn data_at_odd_addresses_is_copied_in_parts() {
    let place = ImagePlace::new(4 * MIB);
    let disk = place.start(|_| {});
    let mut guest = place.guest(GuestSpec { bytes: 1 << 20, depth: 24, ..GuestSpec::default() });
    let queue = &mut guest.queues[0];
    let odd = |cuts: Vec<u32>| Layout { shift: 33, cuts: Some(cuts), indirect: true };
    let bytes = pattern(5, 1 << 20);
    let cuts = vec![3, 9, 1, 40000, 7, 300_001];
    assert_eq!(queue.run(&Task::write(8, bytes.clone()).laid_out(odd(cuts.clone()))).0, OK);
    assert_eq!(queue.run(&Task::read(8, 1 << 20)), (OK, bytes.clone()));
    assert_eq!(queue.run(&Task::read(8, 1 << 20).laid_out(odd(cuts))), (OK, bytes));
    assert!(disk.counters()[0].copied.get() >= 2, "without O_DIRECT this tests nothing");
    // More at once than there are bounce buffers.
    let task = |number: u64| Task::read(number * 8, 64 << 10).laid_out(odd(vec![16]));
    for number in 0..24 {
        queue.add(&task(number)).unwrap();
    }
    queue.publish();
    for _ in 0..24 {
        assert_eq!(queue.wait_with(Duration::from_secs(20), |_| Some(task(0))).unwrap().1, OK);
    }
}

#[test]
fn a_chain_without_a_status_ends_and_the_queue_goes_on() {
    let place = ImagePlace::new(MIB);
    let _disk = place.start(|_| {});
    let mut guest = place.guest(GuestSpec::default());
    let queue = &mut guest.queues[0];
    let short =
        Task { data: Data::In(0), layout: Layout { cuts: Some(vec![10, 6]), ..Layout::default() }, ..Task::flush() };
    assert_eq!(queue.run(&short).0, OK);
    assert_eq!(queue.run(&Task::read(0, 512)).0, OK);
}
