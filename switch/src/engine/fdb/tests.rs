//! The FDB against a map, the defence against floods, and readers beside writers.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;

fn mac(n: u64) -> MacAddr {
    MacAddr::from_u64(0x0200_0000_0000 + n)
}

#[derive(Clone, Debug)]
enum Op {
    Learn { n: u64, vid: Vid, port: PortNo, limit: u32 },
    Static { n: u64, vid: Vid, port: PortNo },
    Remove { n: u64, vid: Vid },
    FlushPort(PortNo),
    FlushLearned(Option<PortNo>),
    Pass(u32),
    Ageing(u32),
    Resize(u32),
}

fn any_op() -> impl Strategy<Value = Op> {
    let (n, vid, port) = (0_u64..60, 0_u16..3, 0_u16..4);
    prop_oneof![
        20 => (n.clone(), vid.clone(), port.clone(), prop_oneof![Just(100_u32), 1_u32..12])
            .prop_map(|(n, vid, port, limit)| Op::Learn { n, vid, port, limit }),
        2 => (n.clone(), vid.clone(), port.clone()).prop_map(|(n, vid, port)| Op::Static { n, vid, port }),
        2 => (n, vid).prop_map(|(n, vid)| Op::Remove { n, vid }),
        1 => port.clone().prop_map(Op::FlushPort),
        1 => prop::option::of(port).prop_map(Op::FlushLearned),
        4 => (1_u32..8).prop_map(Op::Pass),
        1 => (1_u32..20).prop_map(Op::Ageing),
        1 => (16_u32..40).prop_map(Op::Resize),
    ]
}

/// What the table should hold: port, static, last seen. Within the rules the table may choose which entry it evicts.
/// The model checks the rules, and then follows the choice.
#[derive(Debug, Default)]
struct Model {
    entries: HashMap<(u64, Vid), (PortNo, bool, u32)>,
}

impl Model {
    fn learned(&self, port: PortNo) -> u32 {
        self.entries.values().filter(|e| e.0 == port && !e.1).count() as u32
    }

    /// Removes what the table has evicted, and says from which ports.
    fn follow(&mut self, fdb: &Fdb) -> Vec<PortNo> {
        let gone: Vec<_> = self
            .entries
            .iter()
            .filter(|((n, vid), _)| fdb.lookup(mac(*n), *vid).is_none())
            .map(|(k, e)| (*k, *e))
            .collect();
        for (key, entry) in &gone {
            assert!(!entry.1, "static entry {key:?} evicted");
            self.entries.remove(key);
        }
        gone.into_iter().map(|(_, entry)| entry.0).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_table_does_what_a_map_would(ops in prop::collection::vec(any_op(), 1..250), seed: u64) {
        let (mut fdb, mut model, mut now, mut ageing) = (Fdb::new(24, 10, seed), Model::default(), 1000, 10);
        for op in ops {
            match op {
                Op::Learn { n, vid, port, limit } => {
                    let (before, had, total) = (model.entries.get(&(n, vid)).copied(), model.learned(port), fdb.len());
                    let most = (0..4).map(|p| model.learned(p)).max().unwrap();
                    let got = fdb.learn(mac(n), vid, port, limit, now);
                    let expected = match before {
                        Some((_, true, _)) => Learn::Static,
                        Some((p, _, seen)) if p == port => if seen == now { Learn::Known } else { Learn::Refreshed },
                        Some(_) => Learn::Moved,
                        None if got == Learn::Skipped => {
                            prop_assert_eq!(most, 0, "only static entries may not give way");
                            continue;
                        }
                        None => Learn::Learned,
                    };
                    prop_assert_eq!(got, expected);
                    if !matches!(got, Learn::Static) {
                        model.entries.insert((n, vid), (port, false, now));
                    }
                    let evicted = model.follow(&fdb);
                    if matches!(got, Learn::Learned | Learn::Moved) {
                        let over = (had + 1).saturating_sub(limit).min(EVICTIONS as u32) as usize;
                        let full = got == Learn::Learned && total - over.min(total) >= fdb.limit() as usize;
                        prop_assert_eq!(evicted.len(), over + usize::from(full));
                        prop_assert!(evicted.iter().filter(|p| **p == port).count() >= over);
                        prop_assert!(over > 0 || evicted.iter().all(|p| *p == port || most > had));
                    } else {
                        prop_assert!(evicted.is_empty());
                    }
                }
                Op::Static { n, vid, port } => {
                    let known = model.entries.contains_key(&(n, vid));
                    let learned = model.entries.values().any(|e| !e.1);
                    let full = fdb.len() >= fdb.limit() as usize;
                    let added = fdb.add_static(mac(n), vid, port);
                    prop_assert_eq!(added.is_ok(), known || learned || !full);
                    if added.is_ok() {
                        model.entries.insert((n, vid), (port, true, 0));
                    }
                    prop_assert_eq!(model.follow(&fdb).len(), usize::from(added.is_ok() && !known && full));
                }
                Op::Remove { n, vid } => {
                    prop_assert_eq!(fdb.remove(mac(n), vid), model.entries.remove(&(n, vid)).is_some());
                }
                Op::FlushPort(port) => {
                    let before = model.entries.len();
                    model.entries.retain(|_, e| e.0 != port);
                    prop_assert_eq!(fdb.flush_port(port), before - model.entries.len());
                }
                Op::FlushLearned(port) => {
                    let before = model.entries.len();
                    model.entries.retain(|_, e| e.1 || port.is_some_and(|port| e.0 != port));
                    prop_assert_eq!(fdb.flush_learned(port), before - model.entries.len());
                }
                Op::Pass(seconds) => now += seconds,
                Op::Ageing(seconds) => {
                    ageing = seconds;
                    fdb.set_ageing(seconds);
                }
                Op::Resize(limit) => {
                    fdb = fdb.resized(limit);
                    let statics = model.entries.values().filter(|e| e.1).count();
                    if statics > limit as usize {
                        return Ok(());
                    }
                    let over = model.entries.len().saturating_sub(limit as usize);
                    prop_assert_eq!(model.follow(&fdb).len(), over);
                }
            }
            if matches!(op, Op::Pass(_) | Op::Ageing(_)) {
                let before = model.entries.len();
                model.entries.retain(|_, e| e.1 || now - e.2 < ageing);
                prop_assert_eq!(fdb.age(now), before - model.entries.len());
            }
            prop_assert_eq!(fdb.len(), model.entries.len());
            prop_assert!(fdb.len() <= fdb.limit() as usize);
            for port in 0..4 {
                prop_assert_eq!(fdb.count(port), model.learned(port));
            }
            for n in 0..60 {
                for vid in 0..3 {
                    prop_assert_eq!(fdb.lookup(mac(n), vid), model.entries.get(&(n, vid)).map(|e| e.0));
                }
            }
        }
        let mut rows: Vec<_> = fdb.entries(now).iter().map(|r| (r.mac, r.vid, r.port, r.is_static, r.age)).collect();
        let mut expected: Vec<_> = model.entries.iter()
            .map(|((n, vid), e)| (mac(*n), *vid, e.0, e.1, if e.1 { 0 } else { now - e.2 })).collect();
        rows.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(rows, expected);
    }
}

#[test]
fn a_flood_from_one_port_never_costs_another_its_fewer_entries() {
    let fdb = Fdb::new(1000, 300, 42);
    for n in 0..400 {
        assert_eq!(fdb.learn(mac(n), 0, 1, 4096, 0), Learn::Learned);
    }
    assert_eq!(fdb.add_static(mac(999), 0, 3), Ok(()));
    for n in 0..100_000 {
        fdb.learn(mac(1_000_000 + n), 0, 2, u32::MAX, 0);
    }
    assert_eq!((fdb.count(1), fdb.count(2), fdb.len()), (400, 599, 1000));
    assert!((0..400).all(|n| fdb.lookup(mac(n), 0) == Some(1)));
    // A third port still gets its own, from the flooder.
    (0..50).for_each(|n| assert_eq!(fdb.learn(mac(5000 + n), 0, 3, 4096, 1), Learn::Learned));
    assert_eq!((fdb.count(1), fdb.count(2), fdb.count(3)), (400, 549, 50));
}

/// Neither a spoofed source address, nor a flood, nor time takes a static entry away from its port.
#[test]
fn learning_never_overwrites_a_static_entry() {
    let fdb = Fdb::new(100, 10, 7);
    fdb.add_static(mac(1), 5, 3).unwrap();
    let row = |fdb: &Fdb, now| fdb.entries(now).into_iter().find(|row| (row.mac, row.vid) == (mac(1), 5));
    let expected = Some(Row { mac: mac(1), vid: 5, port: 3, is_static: true, is_held: false, age: 0 });
    for (now, port) in [(0, 1), (0, 3), (1, 2), (1000, 1)] {
        assert_eq!(
            (fdb.preview(mac(1), 5, port), fdb.learn(mac(1), 5, port, 4096, now)),
            (Learn::Static, Learn::Static)
        );
        assert_eq!((row(&fdb, now), fdb.lookup(mac(1), 5)), (expected, Some(3)));
    }
    // The entry that a worker holds on to stays the same too.
    let entry = fdb.entry(mac(1), 5).unwrap();
    (0..10_000).for_each(|n| _ = fdb.learn(mac(1000 + n), 5, 1, u32::MAX, 1000));
    assert_eq!(fdb.learn(mac(1), 5, 1, 1, 1000), Learn::Static);
    fdb.age(100_000);
    fdb.flush_learned(None);
    assert!(fdb.is_current(entry) && row(&fdb, 100_000) == expected);
    assert_eq!((fdb.count(1), fdb.count(3), fdb.len()), (0, 0, 1));
    // A learned station of the same address in another VLAN is another one.
    assert_eq!(fdb.learn(mac(1), 6, 1, 4096, 0), Learn::Learned);
    assert_eq!((fdb.lookup(mac(1), 5), fdb.lookup(mac(1), 6)), (Some(3), Some(1)));
    // Only control makes it another port's.
    fdb.add_static(mac(1), 5, 2).unwrap();
    assert_eq!((fdb.lookup(mac(1), 5), fdb.is_current(entry)), (Some(2), false));
}

#[test]
fn the_oldest_goes_first_and_one_seen_since_gets_a_second_chance() {
    let fdb = Fdb::new(100, 300, 7);
    (0..4).for_each(|n| assert_eq!(fdb.learn(mac(n), 0, 1, 4, n as u32), Learn::Learned));
    assert_eq!(fdb.learn(mac(0), 0, 1, 4, 10), Learn::Refreshed);
    assert_eq!(fdb.learn(mac(4), 0, 1, 4, 11), Learn::Learned);
    let known: Vec<_> = (0..5).filter(|n| fdb.lookup(mac(*n), 0).is_some()).collect();
    assert_eq!(known, [0, 2, 3, 4]);
}

#[test]
fn addresses_are_told_apart_by_vlan_and_bad_arguments_are_refused() {
    let fdb = Fdb::new(100, 300, 7);
    fdb.learn(mac(1), 1, 1, 10, 0);
    fdb.learn(mac(1), 2, 2, 10, 0);
    assert_eq!((fdb.lookup(mac(1), 1), fdb.lookup(mac(1), 2), fdb.lookup(mac(1), 3)), (Some(1), Some(2), None));
    assert_eq!(fdb.learn(mac(2), 4096, 1, 10, 0), Learn::Skipped);
    assert_eq!(fdb.learn(mac(2), 1, MAX_PORTS as PortNo, 10, 0), Learn::Skipped);
    assert_eq!(fdb.learn(mac(2), 1, 1, 0, 0), Learn::Skipped);
    assert_eq!(fdb.add_static(MacAddr::BROADCAST, 1, 1), Err(StaticError::Invalid));
    assert_eq!(fdb.add_static(MacAddr::ZERO, 1, 1), Err(StaticError::Invalid));
    assert_eq!(fdb.add_static(mac(2), 4095, 1), Err(StaticError::Invalid));
    assert_eq!(fdb.flush_port(PortNo::MAX), 0);
    assert_eq!((fdb.preview(mac(1), 1, 1), fdb.preview(mac(1), 1, 2)), (Learn::Known, Learn::Moved));
    assert_eq!((fdb.preview(mac(9), 1, 1), fdb.len()), (Learn::Learned, 2));
}

#[test]
fn a_worker_skips_learning_while_another_writes() {
    let fdb = Fdb::new(100, 300, 7);
    fdb.learn(mac(1), 0, 1, 10, 0);
    let writing = fdb.writer();
    assert_eq!(fdb.learn(mac(2), 0, 1, 10, 0), Learn::Skipped);
    assert_eq!(fdb.learn(mac(1), 0, 2, 10, 0), Learn::Skipped);
    assert_eq!(fdb.learn(mac(1), 0, 1, 10, 5), Learn::Refreshed, "a known station needs no lock");
    assert_eq!(fdb.lookup(mac(1), 0), Some(1));
    drop(writing);
    assert_eq!(fdb.learn(mac(2), 0, 1, 10, 0), Learn::Learned);
}

/// Each address has two ports that follow from it. Whatever a reader finds must be one of them.
#[test]
fn readers_beside_writers_never_see_another_keys_port() {
    let home = |n: u64, moved: u64| ((n * 7 + moved * 512) % 1024) as PortNo;
    let fdb = Fdb::new(256, 1, 99);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|start| {
                let (fdb, stop) = (&fdb, &stop);
                scope.spawn(move || {
                    let (mut n, mut hits) = (start, 0_u64);
                    while !stop.load(Relaxed) {
                        n = (n + 1) % 1000;
                        if let Some(port) = fdb.lookup(mac(n), 0) {
                            assert!(port == home(n, 0) || port == home(n, 1), "{n} on {port}");
                            hits += 1;
                        }
                    }
                    hits
                })
            })
            .collect();
        // Two workers learn, move and evict all the time, and control works too.
        let workers: Vec<_> = (0..2)
            .map(|moved| {
                let fdb = &fdb;
                scope.spawn(move || {
                    (0..300_000).for_each(|n| {
                        fdb.learn(mac(n * 13 % 1000), 0, home(n * 13 % 1000, moved), 10, (n / 1000) as u32);
                    });
                })
            })
            .collect();
        for now in 0..300 {
            fdb.age(now);
            fdb.flush_learned(Some(home(u64::from(now), 0)));
            for row in fdb.entries(now) {
                let n = row.mac.to_u64() - mac(0).to_u64();
                assert!(row.port == home(n, 0) || row.port == home(n, 1));
            }
        }
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        stop.store(true, Relaxed);
        assert!(readers.into_iter().map(|reader| reader.join().unwrap()).sum::<u64>() > 0);
    });
    let rows = fdb.entries(0);
    assert_eq!(rows.len(), fdb.len());
    assert_eq!((0..1024).map(|port| fdb.count(port) as usize).sum::<usize>(), fdb.len());
    fdb.flush_learned(None);
    assert!(fdb.is_empty() && fdb.entries(0).is_empty());
}

/// Addresses that share both buckets. Without the seed no sender can find such addresses.
#[test]
fn colliding_addresses_displace_only_entries_of_fuller_ports() {
    let fdb = Fdb::new(1000, 300, 3);
    let pair = |n| {
        let mut buckets = fdb.table().places(key(mac(n), 0).unwrap()).buckets;
        buckets.sort_unstable();
        buckets
    };
    let mut same = (1..).filter(|n| pair(*n) == pair(0) && pair(0)[0] != pair(0)[1]);
    let mut learn = |port| fdb.learn(mac(same.next().unwrap()), 0, port, 4096, 0);
    (0..10).for_each(|_| assert_eq!(learn(1), Learn::Learned));
    (0..6).for_each(|_| assert_eq!(learn(2), Learn::Learned));
    // Now both buckets are full. The port with fewer entries takes from the one with more, until both have the same.
    // Then each evicts its own.
    assert_eq!(learn(2), Learn::Learned);
    assert_eq!((fdb.count(1), fdb.count(2)), (9, 7));
    assert_eq!(learn(1), Learn::Learned);
    assert_eq!((fdb.count(1), fdb.count(2)), (9, 7));
    // A port with many entries elsewhere and none here gets nothing.
    (0..50).for_each(|n| assert_eq!(fdb.learn(mac(u64::from(u32::MAX) + n), 0, 3, 4096, 0), Learn::Learned));
    assert_eq!(learn(3), Learn::Skipped);
    assert_eq!((fdb.count(1), fdb.count(2), fdb.count(3)), (9, 7, 50));
    // Static entries must go in, but not over each other.
    (0..16).for_each(|_| assert_eq!(fdb.add_static(mac(same.next().unwrap()), 0, 4), Ok(())));
    assert_eq!(fdb.add_static(mac(same.next().unwrap()), 0, 4), Err(StaticError::Full));
    assert_eq!((fdb.count(1), fdb.count(2), fdb.len()), (0, 0, 66));
}

#[test]
fn a_held_station_is_known_at_its_first_port_and_refused_at_others() {
    let fdb = Fdb::new(100, 300, 3);
    fdb.set_flap_limit(3);
    assert_eq!(fdb.learn(mac(1), 0, 5, 100, 9), Learn::Learned);
    for port in [6, 5, 6] {
        assert_eq!(fdb.learn(mac(1), 0, port, 100, 9), Learn::Moved);
    }
    assert_eq!(fdb.learn(mac(1), 0, 7, 100, 9), Learn::Held);
    assert_eq!(fdb.preview(mac(1), 0, 7), Learn::Held);
    assert_eq!((fdb.lookup(mac(1), 0), fdb.learn(mac(1), 0, 5, 100, 9)), (Some(5), Learn::Known));
    assert_eq!(fdb.learn(mac(1), 1, 7, 100, 9), Learn::Learned, "another VLAN is another station");
    assert_eq!(fdb.held(), [Held { mac: mac(1), vid: 0, port: 5, other: 7 }]);
    assert_eq!((fdb.holds(), fdb.count(5), fdb.count(6)), (1, 1, 0));
    assert!(fdb.entries(9).iter().all(|row| row.is_held == (row.vid == 0)));
    fdb.release(10);
    assert_eq!(fdb.learn(mac(1), 0, 6, 100, 10), Learn::Held);
    fdb.release(9 + flaps::HOLD);
    assert_eq!((fdb.held(), fdb.learn(mac(1), 0, 6, 100, 20)), (vec![], Learn::Moved));
}

#[test]
fn what_is_done_to_a_held_entry_is_done() {
    let held = |fdb: &Fdb| {
        fdb.set_flap_limit(1);
        fdb.learn(mac(1), 0, 5, 100, 0);
        fdb.learn(mac(1), 0, 6, 100, 0);
        assert_eq!(fdb.learn(mac(1), 0, 6, 100, 0), Learn::Known);
        assert_eq!(fdb.learn(mac(1), 0, 5, 100, 0), Learn::Moved, "home again, and held there");
        assert_eq!(fdb.learn(mac(1), 0, 6, 100, 0), Learn::Held);
    };
    type Undo = fn(&Fdb);
    let undone: [(&str, Undo); 5] = [
        ("removed", |fdb| assert!(fdb.remove(mac(1), 0))),
        ("flushed", |fdb| assert_eq!(fdb.flush_learned(None), 1)),
        ("its port went", |fdb| assert_eq!(fdb.flush_port(5), 1)),
        ("aged", |fdb| assert_eq!(fdb.age(1000), 1)),
        ("no limit any more", |fdb| {
            fdb.set_flap_limit(0);
            fdb.release(1);
        }),
    ];
    for (how, undo) in undone {
        let fdb = Fdb::new(100, 300, 3);
        held(&fdb);
        undo(&fdb);
        assert!(matches!(fdb.learn(mac(1), 0, 6, 100, 1), Learn::Learned | Learn::Moved), "{how}");
    }
    let fdb = Fdb::new(100, 300, 3);
    held(&fdb);
    fdb.add_static(mac(1), 0, 6).unwrap();
    fdb.release(flaps::HOLD);
    assert_eq!((fdb.lookup(mac(1), 0), fdb.learn(mac(1), 0, 5, 100, 20)), (Some(6), Learn::Static));
    let fdb = Fdb::new(100, 300, 3);
    held(&fdb);
    let resized = fdb.resized(200);
    assert_eq!((resized.holds(), resized.learn(mac(1), 0, 6, 100, 1)), (1, Learn::Moved));
}
