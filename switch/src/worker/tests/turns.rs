//! Turns of workers: rings that are full or dry, frames between workers, sleep.

use super::*;
use crate::engine::parse::ETHERTYPE_IPV4;
use crate::engine::parse::tests::udp_in_ipv4;

#[test]
fn a_burst_between_two_workers_stays_in_order_and_the_rest_is_dropped_with_a_reason() {
    let mut bed = Bed::new(2, &[const { VlanMode::Access { vid: 0 } }; 2]);
    // More than the ring between the workers holds, in one turn of the first.
    for mark in 0..20 {
        assert!(bed.kernels[0].receive(&frame(1, None, mark, 60)));
    }
    assert!(bed.workers[0].turn());
    let sent = bed.settle();
    let expected: Vec<_> = (0..8).map(|mark| frame(1, None, mark, 60)).collect();
    assert_eq!(sent[1], expected);
    let mut stats = PortStats::default();
    let view = bed.shared.view.load();
    view.ports[1].as_ref().unwrap().shards.iter().for_each(|shard| shard.add_to(&mut stats));
    assert_eq!(stats.drops["worker_ring_full"].packets, 12);
    drop(view);
    bed.assert_balanced();
}

#[test]
fn a_queue_that_ran_dry_is_filled_again_once_frames_are_free() {
    let mut bed = Bed::new(1, &[const { VlanMode::Access { vid: 0 } }; 2]);
    let worker = &mut bed.workers[0];
    let hoard: Vec<_> = std::iter::from_fn(|| worker.egress.cache().take()).collect();
    // What comes in goes out to a port that sends nothing, until there is no frame left to receive with.
    while bed.kernels[0].receive(&frame(1, None, 0, 60)) {
        bed.workers[0].turn();
    }
    bed.workers[0].turn();
    assert!(!bed.kernels[0].receive(&frame(1, None, 0, 60)), "frames are still free");
    hoard.into_iter().for_each(|frame| bed.workers[0].egress.cache().put(frame));
    bed.workers[0].turn();
    assert!(bed.kernels[0].receive(&frame(1, None, 0, 60)), "it stays dry");
    bed.settle();
    bed.assert_balanced();
}

#[test]
fn a_receiver_that_takes_nothing_fills_its_ring_and_no_other() {
    let mut bed = Bed::new(1, &[const { VlanMode::Access { vid: 0 } }; 3]);
    let turns = 4 * DEPTH;
    for n in 0..turns {
        assert!(bed.kernels[0].receive(&frame(1, None, n as u8, 60)));
        bed.workers[0].turn();
        bed.kernels[1].transmit();
    }
    let mut stats = PortStats::default();
    let view = bed.shared.view.load();
    view.ports[2].as_ref().unwrap().shards.iter().for_each(|shard| shard.add_to(&mut stats));
    assert_eq!(stats.drops["tx_ring_full"].packets, u64::from(turns - DEPTH));
    drop(view);
    assert_eq!(bed.kernels[2].transmit().len(), DEPTH as usize);
    bed.settle();
    bed.assert_balanced();
}

#[test]
fn a_worker_that_sleeps_is_woken_by_a_frame() {
    let mut bed = Bed::new(1, &[const { VlanMode::Access { vid: 0 } }; 2]);
    let worker = bed.workers.remove(0);
    let thread = std::thread::spawn(|| worker.run());
    let (me, start) = (&bed.shared.workers[0], Instant::now());
    let (sleeps, mut seen) = (|| me.counters.sleeps(), 0);
    for mark in 0..3 {
        while sleeps() == seen {
            assert!(start.elapsed() < Duration::from_secs(20), "it does not sleep");
            std::thread::yield_now();
        }
        seen = sleeps();
        let data = frame(1, None, mark, 60);
        assert!(bed.kernels[0].receive(&data));
        loop {
            match &bed.kernels[1].transmit()[..] {
                [] => assert!(start.elapsed() < Duration::from_secs(20), "it does not wake up"),
                sent => break assert_eq!(sent, [data]),
            }
            std::thread::yield_now();
        }
    }
    let (reply, stopped) = crossbeam::channel::bounded(1);
    bed.commands[0].send(Command::Stop(reply)).unwrap();
    me.attention.store(true, Ordering::Release);
    me.wake();
    assert_eq!(stopped.recv().unwrap().len(), 2);
    thread.join().unwrap();
}

#[test]
fn frames_of_a_flow_leave_by_one_queue_in_order_and_flows_by_several() {
    const QUEUES: usize = 3;
    let mut bed = Bed::with_queues(1, &[const { VlanMode::Access { vid: 0 } }; 2], 0, QUEUES);
    let mut used = [false; QUEUES];
    for source in 0..16 {
        let flow: Vec<_> = (0..4)
            .map(|mark| {
                let mut data = [&station(2)[..], &station(1), &ETHERTYPE_IPV4.to_be_bytes(), &udp_in_ipv4(40)].concat();
                data[29] = source;
                *data.last_mut().unwrap() = mark;
                data
            })
            .collect();
        // They come in by several queues.
        for (at, data) in flow.iter().enumerate() {
            assert!(bed.kernels[at % 2].receive(data));
            bed.workers[0].turn();
        }
        let sent = bed.settle();
        let queue = sent[QUEUES..].iter().position(|frames| !frames.is_empty()).unwrap();
        assert_eq!(sent[QUEUES + queue], flow);
        assert_eq!(sent.iter().map(Vec::len).sum::<usize>(), flow.len());
        used[queue] = true;
    }
    assert!(used.iter().filter(|used| **used).count() > 1);
    bed.assert_balanced();
}
