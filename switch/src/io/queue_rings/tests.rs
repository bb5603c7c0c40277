use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::io::memory::{self, MemoryKernel, MemoryQueue};
use crate::model::HugePages;

/// Most steps of a property. Miri takes a second for some.
const MOST_STEPS: usize = if cfg!(miri) { 12 } else { 200 };
const DEPTH: u32 = 16;
/// Frames of the shared UMEM.
const SHARED: u32 = 64;

struct Bed {
    umem: Arc<Umem>,
    cache: FrameCache,
    queue: MemoryQueue,
    kernel: MemoryKernel,
}

fn bed() -> Bed {
    let umem = Umem::new(SHARED, 2048, HugePages::Off).unwrap();
    let mut cache = FrameCache::new(Arc::clone(&umem));
    let (mut queue, kernel) = memory::queue(&umem, DEPTH, RingMemory::Own).unwrap();
    queue.refill(&mut cache);
    Bed { umem, cache, queue, kernel }
}

impl Bed {
    fn free(&self) -> u32 {
        self.umem.pool_len() + self.cache.len() as u32
    }

    fn receive(&mut self, max: usize) -> Vec<Frame> {
        let mut burst = Vec::new();
        let taken = self.queue.rings_mut().receive(&mut burst, max, &mut self.cache);
        assert_eq!(taken, burst.len());
        burst
    }

    fn send(&mut self, frames: &mut Vec<Frame>) -> usize {
        let count = frames.len();
        let mut all = std::mem::take(frames).into_iter();
        let sent = self.queue.rings_mut().send(count, &mut all, &mut self.cache);
        self.queue.flush();
        frames.extend(all);
        sent
    }
}

#[test]
fn frames_are_copied_both_ways_and_none_of_the_shared_umem_stays() {
    let mut bed = bed();
    assert!(bed.kernel.receive(b"first") && bed.kernel.receive(b"second"));
    let mut burst = bed.receive(64);
    assert_eq!((burst[0].data(), burst[1].data()), (&b"first"[..], &b"second"[..]));
    let base = bed.umem.region().0 as usize;
    let shared = base..base + bed.umem.region().1;
    assert!(
        burst.iter().all(|frame| shared.contains(&(frame.data().as_ptr() as usize))),
        "workers see frames of the shared UMEM only"
    );
    assert_eq!(bed.free(), SHARED - 2);
    assert_eq!(bed.send(&mut burst), 2);
    assert_eq!(bed.free(), SHARED);
    assert_eq!(bed.kernel.transmit(), [b"first".to_vec(), b"second".to_vec()]);
    bed.queue.rings_mut().reap(&mut bed.cache);
    assert_eq!(bed.queue.rings().outstanding(), (DEPTH - 2, 0));
    assert_eq!(bed.umem.census().placed(), 0);
}

#[test]
fn what_was_received_waits_while_no_shared_frame_is_free() {
    let mut bed = bed();
    let mut all: Vec<_> = std::iter::from_fn(|| bed.cache.take()).collect();
    assert!(bed.kernel.receive(b"one") && bed.kernel.receive(b"two"));
    assert_eq!(bed.receive(64), []);
    assert!(bed.queue.rings().has_received());
    bed.cache.put(all.pop().unwrap());
    let burst = bed.receive(64);
    assert_eq!(burst.iter().map(Frame::data).collect::<Vec<_>>(), [b"one"]);
    assert!(bed.queue.rings().has_received());
    burst.into_iter().chain(all).for_each(|frame| bed.cache.put(frame));
    assert_eq!(bed.receive(64).into_iter().map(|frame| bed.cache.put(frame)).count(), 1);
}

#[test]
fn a_guest_that_takes_nothing_can_still_send() {
    let mut bed = bed();
    let mut frames: Vec<_> = std::iter::from_fn(|| bed.cache.take()).take(2 * DEPTH as usize).collect();
    assert_eq!(bed.send(&mut frames), DEPTH as usize);
    assert_eq!(frames.len(), DEPTH as usize, "what is not sent stays the caller's");
    for _ in 0..3 * DEPTH {
        assert!(bed.kernel.receive(b"on"));
        let burst = bed.receive(64);
        assert_eq!(burst.len(), 1);
        burst.into_iter().for_each(|frame| bed.cache.put(frame));
        bed.queue.refill(&mut bed.cache);
    }
    frames.into_iter().for_each(|frame| bed.cache.put(frame));
    assert_eq!(bed.free(), SHARED);
}

#[test]
fn a_queue_whose_other_end_is_gone_gives_up_what_it_was_to_send() {
    let mut bed = bed();
    let mut frames: Vec<_> = bed.cache.take().into_iter().collect();
    assert_eq!(bed.send(&mut frames), 1);
    bed.kernel.remove();
    bed.queue.flush();
    bed.queue.rings_mut().abandon(&mut bed.cache);
    assert_eq!(bed.queue.rings().own_frames().unwrap().tx, 0);
    assert!(bed.queue.rings().own_frames().unwrap().is_balanced());
}

#[test]
fn a_longer_ring_has_no_more_frames_than_half_of_an_own_umem_for_each_side() {
    let umem = Umem::new(SHARED, 2048, HugePages::Off).unwrap();
    for (depth, side) in [(64, 64), (256, 256), (4096, 256)] {
        let (mut queue, _kernel) = memory::queue(&umem, depth, RingMemory::Own).unwrap();
        queue.refill(&mut FrameCache::new(Arc::clone(&umem)));
        let own = queue.rings().own_frames().unwrap();
        assert_eq!(own, OwnFrames { all: 2 * side, free: side, rx: side, tx: 0 });
    }
}

proptest! {
    /// Frames come in, are taken, sent and dropped at random. Both UMEMs' frames are in one place each throughout,
    /// and data arrives as it was sent, in order.
    #[test]
    fn frames_of_both_umems_are_in_one_place_each(
        steps in prop::collection::vec((0u8..6, 1usize..24), 0..MOST_STEPS),
    ) {
        let mut bed = bed();
        let (mut hands, mut next, mut waiting, mut to_send) = (Vec::new(), 0_u32, 0, Vec::new());
        for (step, count) in steps {
            match step {
                0 => for _ in 0..count {
                    if bed.kernel.receive(&next.to_ne_bytes()) {
                        next += 1;
                        waiting += 1;
                    }
                },
                1 => {
                    let burst = bed.receive(count);
                    waiting -= burst.len();
                    hands.extend(burst);
                }
                2 => {
                    let mut some: Vec<_> = hands.drain(..count.min(hands.len())).collect();
                    let data: Vec<_> = some.iter().map(|frame: &Frame| frame.data().to_vec()).collect();
                    let sent = bed.send(&mut some);
                    to_send.extend(data.into_iter().take(sent));
                    some.into_iter().for_each(|frame| bed.cache.put(frame));
                }
                3 => prop_assert_eq!(bed.kernel.transmit(), std::mem::take(&mut to_send)),
                4 => {
                    bed.queue.rings_mut().reap(&mut bed.cache);
                    bed.queue.refill(&mut bed.cache);
                }
                _ => hands.drain(..count.min(hands.len())).for_each(|frame| bed.cache.put(frame)),
            }
            let own = bed.queue.rings().own_frames().unwrap();
            prop_assert!(own.is_balanced(), "{own:?}");
            prop_assert!(own.rx as usize >= waiting && own.tx as usize >= to_send.len());
            prop_assert_eq!(bed.free() as usize + hands.len(), SHARED as usize);
            prop_assert_eq!(bed.umem.census().held() as usize, hands.len());
        }
        let untaken = bed.queue.close(Duration::ZERO, &mut bed.cache);
        prop_assert_eq!(untaken.packets as usize, waiting);
        hands.into_iter().for_each(|frame| bed.cache.put(frame));
        prop_assert_eq!(bed.umem.census().free(), SHARED);
    }
}
