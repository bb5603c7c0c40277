//! Packets whose rest is still with the guest that sends them: each receiver gets all of them.
#![cfg(not(miri))]

use std::time::Duration;

use proptest::prelude::*;
use vhost_user::net::NetHeader;

use super::offloads::{ALL, NONE, access, guest_at, guests_at};
use super::*;
use crate::capture::Tap;
use crate::io::vhost::test_guest::Tcp;
use crate::worker::view::View;

/// Checks that frames have the payloads of these packets, of which each has a mark of its own, and are as long. A tag
/// may have come or gone. Returns their marks.
fn check(packets: &[Tcp], frames: &[Vec<u8>]) -> Vec<u8> {
    let mark = |frame: &Vec<u8>| {
        let tcp = packets.iter().find(|tcp| frame.ends_with(&tcp.bytes())).expect("a packet as it was sent");
        let untagged = Tcp { tag: None, ..*tcp }.headers() + tcp.payload;
        assert!([untagged, untagged + 4].contains(&frame.len()));
        tcp.mark
    };
    frames.iter().map(mark).collect()
}

/// Lets somebody capture at a port.
fn capture(bed: &mut Bed, port: usize) -> Arc<Tap> {
    let tap = Tap::new(vec![format!("p{port}")], None, 2048);
    let old = bed.shared.view.load_full();
    let mut lists = vec![Vec::new(); bed.kernels.len()];
    lists[port].push(Arc::clone(&tap));
    let mut view = View { taps: Arc::new(lists), ..View::clone(&old) };
    view.snapshot.epoch += 1;
    bed.shared.publish(view);
    bed.workers.iter_mut().for_each(Worker::refresh_view);
    tap
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Receivers are guests with and without offloads and queues in memory, on the same worker and on another one. They
    /// get packets alone, by a flood, by a mirror, with and without tags, at once and in a later turn.
    #[test]
    fn whoever_gets_a_packet_gets_all_of_it(
        workers in 1usize..3,
        features in prop::collection::vec(prop_oneof![Just(Some(ALL)), Just(Some(NONE)), Just(None)], 3),
        mirror in prop::option::of(0u16..3),
        captured in prop::option::of(0usize..4),
        bursts in prop::collection::vec(
            prop::collection::vec((prop::option::of(0u8..3), any::<bool>(), any::<bool>(), 0usize..1328), 1..16), 1..6),
    ) {
        let trunk = VlanMode::Trunk { native: Some(0), tagged: VlanSet::all() };
        let mut bed = Bed::new(workers, &[access(0), trunk.clone(), access(5), trunk]);
        let mut a = guest_at(&mut bed, 3, ALL);
        let mut others = guests_at(&mut bed, features);
        if let Some(mirror) = mirror {
            let mut tables = Tables::new(Capacity::default(), workers);
            let action = RuleAction { mirror: Some(mirror), ..RuleAction::to(RuleTarget::Normal) };
            let rule = RuleSpec { key_index: 1, key: RuleKey::default(), action };
            tables.change_rules(vec![RuleChange::Write(rule)], &|_| Some(1)).unwrap();
            bed.install(&tables);
        }
        let tap = captured.map(|port| capture(&mut bed, port));
        // Stations are known where they are.
        for station in 0..3 {
            match &mut others[usize::from(station)] {
                Some(guest) => guest.send(NetHeader::PLAIN, &frame(station, None, 0, 60)),
                None => assert!(bed.kernels[usize::from(station)].receive(&frame(station, None, 0, 60))),
            }
        }
        bed.settle();
        others.iter_mut().flatten().for_each(|guest| drop((guest.receive(), guest.gets_back())));
        tap.iter().for_each(|tap| drop(tap.receive(Duration::ZERO)));
        a.receive();
        for burst in bursts {
            let packets: Vec<_> = (0..).zip(burst).map(|(mark, (to, is_v6, is_tagged, payload))| {
                let tag = is_tagged.then_some(5);
                Tcp { from: 3, to, is_v6, tag, payload: payload + 101, size: 0, mark }
            }).collect();
            let count = packets.len();
            for tcp in &packets {
                let (header, packet) = tcp.packet();
                a.send(header, &packet);
            }
            let sent = bed.settle();
            prop_assert_eq!(a.gets_back(), count);
            let mut came = Vec::new();
            for (port, other) in others.iter_mut().enumerate() {
                let frames = match other {
                    Some(guest) => {
                        let got = guest.receive();
                        let chains: u16 = got.iter().map(|(header, _)| header.num_buffers).sum();
                        guest.give_room(chains.into(), 1526);
                        got.into_iter().map(|(_, packet)| packet).collect()
                    }
                    None => sent[port].clone(),
                };
                came.push(check(&packets, &frames));
            }
            if let Some(tap) = &tap {
                check(&packets, &tap.receive(Duration::ZERO).into_iter().map(|frame| frame.data).collect::<Vec<_>>());
            }
            // Rings between workers are short.
            if workers == 1 {
                let of_trunk = packets.iter().filter(|tcp| tcp.to.is_none_or(|to| to == 1));
                for tcp in of_trunk {
                    prop_assert!(came[1].contains(&tcp.mark), "{:?}", tcp);
                }
            }
        }
        bed.assert_balanced();
    }
}
