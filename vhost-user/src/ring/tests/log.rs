use super::*;
use crate::memory::DirtyLog;

const PAGE: u64 = 4096;

#[test]
fn bytes_written_are_logged_page_by_page_and_the_used_ring_where_it_is_said() {
    for features in [0, F_PACKED] {
        let mut bed = bed(8, features);
        let log = Arc::new(DirtyLog::of_heap(64));
        let used = 300 * PAGE;
        bed.queue.set_log(Some(RingLog { log: Arc::clone(&log), used: Some(used) }));
        let first = bed.free.next_multiple_of(PAGE) + PAGE;
        let buffer = |guest, len, writable| Buffer { guest, len, writable };
        // The second buffer begins at the end of a page. The third one is not reached.
        let buffers = [
            buffer(first - PAGE, 100, false),
            buffer(first, 10, true),
            buffer(first + 4 * PAGE - 1, 2000, true),
            buffer(first + 9 * PAGE, 100, true),
        ];
        assert!(bed.driver.add(&buffers, 0, false));
        bed.driver.publish();
        let mut burst = bed.queue.burst(&mut bed.scratch, 1).unwrap();
        burst.chain(0).unwrap().writer().write(&[1; 12]);
        burst.advance(12);
        assert_eq!(log.marked(), [], "nothing is used");
        burst.finish().unwrap();
        let mut expected = vec![first / PAGE, first / PAGE + 3, first / PAGE + 4];
        // A packed ring has no used ring. Its descriptors are written where they are.
        expected.push(if features == 0 { 300 } else { GUEST / PAGE });
        expected.sort_unstable();
        assert_eq!(log.marked(), expected);
        // What is written for notifications lies in the used ring, too.
        bed.queue.enable_kicks().unwrap();
        assert!(log.marked().contains(&300));
        bed.queue.set_log(None);
        assert!(bed.driver.add(&[buffer(first + 20 * PAGE, 4, true)], 1, false));
        bed.driver.publish();
        let mut request = Request::new(&bed.memory);
        assert!(bed.queue.pop(&mut request).unwrap());
        bed.queue.set_log(Some(RingLog { log: Arc::clone(&log), used: None }));
        let before = log.marked().len();
        bed.queue.complete(&mut request, 1);
        bed.queue.publish();
        assert_eq!(log.marked().len(), before + 1);
        assert!(log.marked().contains(&(first / PAGE + 20)));
    }
}

#[test]
fn entries_of_the_used_ring_are_logged_also_where_it_wraps() {
    // The entries of a ring of 1,024 take 8 KiB.
    let start = Position { available: 1_023, used: 1_023 };
    let mut bed = bed_at(1024, 0, start);
    let log = Arc::new(DirtyLog::of_heap(64));
    bed.queue.set_log(Some(RingLog { log: Arc::clone(&log), used: Some(PAGE * 16) }));
    for token in 0..2 {
        bed.offer(token);
    }
    bed.driver.publish();
    assert_eq!(bed.use_all(), 2);
    // The index and the first entry, and the last one, which lies over a border of pages.
    assert_eq!(log.marked(), [16, 17, 18]);
}
