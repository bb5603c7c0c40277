//! A loop outside of the switch: frames that go out of one port come in by another.

use super::*;

const LIMIT: u32 = 10;

/// Stations 0 and 3 are behind ports 0 and 3. Ports 1 and 2 are bridged outside.
struct Loop {
    bed: Bed,
    /// Frames that came in by the loop.
    rounds: usize,
}

impl Loop {
    fn new(workers: usize, limit: u32) -> Self {
        let bed = Bed::new(workers, &[const { VlanMode::Access { vid: 0 } }; 4]);
        bed.shared.view.load().fdb.set_flap_limit(limit);
        Self { bed, rounds: 0 }
    }

    /// A frame from a station at its port. Returns how many came out of ports 0 and 3, and whether the loop came to
    /// rest before it took `most` frames.
    fn send(&mut self, from: u8, to: Option<u8>, most: usize) -> ([usize; 2], bool) {
        assert!(self.bed.kernels[usize::from(from)].receive(&frame(from, to, 1, 80)));
        let (mut out, mut taken) = ([0; 2], 0);
        loop {
            let sent = self.bed.settle();
            out = [out[0] + sent[0].len(), out[1] + sent[3].len()];
            let back = [(2, &sent[1]), (1, &sent[2])];
            if back.iter().all(|(_, frames)| frames.is_empty()) || taken > most {
                return (out, taken <= most);
            }
            for (port, frames) in back {
                taken += frames.len();
                frames.iter().for_each(|frame| assert!(self.bed.kernels[port].receive(frame)));
            }
            self.rounds += 1;
        }
    }

    /// A broadcast comes in by a port of the loop. Returns how many frames go round until it comes to rest, or about
    /// `most`.
    fn run_from(&mut self, port: usize, from: u8, most: usize) -> usize {
        assert!(self.bed.kernels[port].receive(&frame(from, None, 1, 80)));
        let mut taken = 0;
        loop {
            let sent = self.bed.settle();
            let back = [(2, &sent[1]), (1, &sent[2])];
            if back.iter().all(|(_, frames)| frames.is_empty()) || taken > most {
                return taken;
            }
            for (port, frames) in back {
                taken += frames.len();
                frames.iter().for_each(|frame| assert!(self.bed.kernels[port].receive(frame)));
            }
        }
    }

    fn dropped(&self, port: usize) -> u64 {
        let (view, mut stats) = (self.bed.shared.view.load(), PortStats::default());
        view.ports[port].iter().flat_map(|port| port.shards.iter()).for_each(|shard| shard.add_to(&mut stats));
        stats.drops.get("mac_flap").map_or(0, |count| count.packets)
    }

    fn pass(&self, seconds: u32) {
        let now = self.bed.shared.now.fetch_add(seconds, std::sync::atomic::Ordering::Relaxed) + seconds;
        self.bed.shared.view.load().fdb.release(now);
    }
}

#[test]
fn a_broadcast_in_a_loop_goes_on_for_ever_unless_its_sender_is_held() {
    let mut open = Loop::new(1, 0);
    let ([_, to_three], at_rest) = open.send(0, None, 500);
    assert!(!at_rest && to_three > 400, "{to_three}");
    for workers in [1, 2] {
        let mut damped = Loop::new(workers, LIMIT);
        let ([back, to_three], at_rest) = damped.send(0, None, 500);
        assert!(at_rest && back <= 2 * LIMIT as usize && to_three <= 2 * LIMIT as usize, "{back} {to_three}");
        assert!(damped.dropped(1) + damped.dropped(2) > 0);
        assert_eq!((damped.dropped(0), damped.dropped(3)), (0, 0));
        // From now on all of the sender's frames that come back are dropped at once, and it is where it was.
        for _ in 0..20 {
            assert_eq!(damped.send(0, None, 10), ([0, 1], true));
            assert_eq!(damped.send(3, Some(0), 10), ([1, 0], true), "it is reached");
            assert_eq!(damped.send(0, Some(3), 10), ([0, 1], true), "and reaches others");
        }
        damped.bed.assert_balanced();
    }
}

/// The bridge outside sends the station's broadcast to both ports. Then copies go round in one direction, and the
/// station does not seem to move.
#[test]
fn a_storm_of_a_station_inside_the_loop_ends_too() {
    for workers in [1, 2] {
        let mut damped = Loop::new(workers, LIMIT);
        for round in 0..20 {
            assert!(damped.bed.kernels[2].receive(&frame(7, None, 1, 80)));
            let taken = damped.run_from(1, 7, 500);
            assert!(taken < 100, "round {round}: {taken} frames");
        }
        assert!(damped.dropped(1) + damped.dropped(2) > 0);
        // Others are reached by it, and it by them.
        assert!(damped.bed.kernels[1].receive(&frame(7, Some(3), 1, 80)));
        damped.bed.settle();
        assert!(damped.bed.kernels[3].receive(&frame(3, Some(7), 1, 80)));
        let sent = damped.bed.settle();
        assert_eq!(sent[1].len() + sent[2].len(), 1);
        damped.bed.assert_balanced();
    }
}

#[test]
fn a_station_that_was_held_may_move_again() {
    let mut damped = Loop::new(1, LIMIT);
    damped.send(3, None, 500);
    assert!(damped.send(0, None, 500).1);
    damped.pass(60);
    // The loop is broken, and the station has moved to port 1.
    let bed = &mut damped.bed;
    assert!(bed.kernels[1].receive(&frame(0, Some(3), 1, 80)));
    assert_eq!(bed.settle()[3].len(), 1);
    assert!(bed.kernels[3].receive(&frame(3, Some(0), 1, 80)));
    assert_eq!(bed.settle()[1].len(), 1);
    bed.assert_balanced();
}

/// The flow cache knows the flow at the other port from before the station was held.
#[test]
fn cached_flows_of_a_held_station_are_dropped_too() {
    let mut damped = Loop::new(1, LIMIT);
    let bed = &mut damped.bed;
    let mut udp = [station(3), station(7)].concat();
    udp.extend(crate::engine::parse::ETHERTYPE_IPV4.to_be_bytes());
    udp.extend(crate::engine::parse::tests::udp_in_ipv4(40));
    bed.kernels[3].receive(&frame(3, None, 1, 80));
    bed.settle();
    bed.kernels[1].receive(&frame(7, None, 1, 80));
    bed.settle();
    for _ in 0..4 {
        assert!(bed.kernels[0].receive(&udp));
        assert_eq!(bed.settle()[3].len(), 1);
    }
    for n in 1..=LIMIT {
        bed.kernels[usize::from(n % 2 == 1)].receive(&frame(7, None, 1, 80));
        bed.settle();
    }
    // It is held at port 1, where it was first.
    assert!(bed.kernels[0].receive(&udp));
    assert!(bed.settle().iter().all(Vec::is_empty));
    assert!(bed.kernels[1].receive(&udp));
    assert_eq!(bed.settle()[3].len(), 1);
    assert_eq!(damped.dropped(0), 2);
    damped.bed.assert_balanced();
}

#[test]
fn a_few_moves_are_honest() {
    let mut damped = Loop::new(1, LIMIT);
    let bed = &mut damped.bed;
    for second in 0..20 {
        for port in [0, 1, 2, 0] {
            assert!(bed.kernels[port].receive(&frame(9, None, 1, 80)));
            assert_eq!(bed.settle().iter().flatten().count(), 3, "second {second}, port {port}");
        }
        bed.shared.now.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    assert_eq!((0..4).map(|port| damped.dropped(port)).sum::<u64>(), 0);
}
