//! Bonds at workers: frames go by the table in force, and wait where it says so.

use std::sync::Arc;

use ::bond::MemberId;
use ::bond::buckets::BUCKETS;
use ::bond::options::HashPolicy;

use super::*;
use crate::worker::bond::{BondShared, BondTable, Place, Way};

const OPEN: VlanMode = VlanMode::Access { vid: 0 };
/// Kernels' ends: the first queue of port 0, and both of the bond, which is port 1.
const GUEST: usize = 0;
const MEMBERS: [usize; 2] = [2, 3];

fn bed(workers: usize) -> (Bed, Arc<BondShared>) {
    let shared = Arc::new(BondShared::new(workers));
    let bond = Arc::clone(&shared);
    let bed = Bed::with_bond(workers, &[OPEN, OPEN], 2, move |no| (no == 1).then(|| Arc::clone(&bond)));
    (bed, shared)
}

fn put(bed: &mut Bed, shared: &BondShared, way: Way) {
    shared.set_table(BondTable { members: vec![(MemberId(1), 0..1), (MemberId(2), 1..2)], way });
    bed.shared.publish_bonds();
    bed.workers.iter_mut().for_each(Worker::refresh_view);
}

fn buckets(place: Place) -> Way {
    Way::Buckets(HashPolicy::Layer2, Box::new([place; BUCKETS]))
}

fn send(bed: &mut Bed, marks: std::ops::Range<u8>) {
    for mark in marks {
        assert!(bed.kernels[GUEST].receive(&frame(1, None, mark, 60)));
    }
}

fn marks(sent: &[Vec<u8>]) -> Vec<u8> {
    sent.iter().map(|frame| frame[14]).collect()
}

#[test]
fn held_frames_wait_for_the_next_table_and_keep_their_order() {
    for workers in [1, 2] {
        let (mut bed, shared) = bed(workers);
        put(&mut bed, &shared, buckets(Place::Held));
        send(&mut bed, 0..5);
        let sent = bed.settle();
        assert!(MEMBERS.iter().all(|member| sent[*member].is_empty()), "{workers} workers");
        let waiting: u32 = bed.workers.iter_mut().map(|worker| worker.holdings().in_transit).sum();
        assert_eq!(waiting, 5);
        // Another table that still holds them changes nothing.
        put(&mut bed, &shared, buckets(Place::Held));
        put(&mut bed, &shared, buckets(Place::Member(1)));
        send(&mut bed, 5..7);
        let sent = bed.settle();
        assert_eq!((marks(&sent[MEMBERS[1]]), sent[MEMBERS[0]].len()), ((0..7).collect(), 0));
        assert_eq!((0..BUCKETS).map(|bucket| shared.sent(bucket)).sum::<u64>(), 7);
        bed.assert_balanced();
    }
}

#[test]
fn a_bond_without_usable_members_drops_and_counts() {
    let (mut bed, shared) = bed(1);
    for way in [Way::Nowhere, buckets(Place::Nowhere), Way::InTurn(vec![], 1)] {
        put(&mut bed, &shared, way);
        send(&mut bed, 0..2);
        assert!(bed.settle().iter().all(Vec::is_empty));
    }
    let view = bed.shared.view.load_full();
    let mut stats = PortStats::default();
    view.ports[1].as_ref().unwrap().shards.iter().for_each(|shard| shard.add_to(&mut stats));
    assert_eq!(stats.drops[DropReason::LinkDown.label()].packets, 6);
    bed.assert_balanced();
}

#[test]
fn each_member_of_a_broadcast_bond_gets_a_copy() {
    for workers in [1, 2] {
        let (mut bed, shared) = bed(workers);
        put(&mut bed, &shared, Way::All(vec![0, 1]));
        send(&mut bed, 0..4);
        let sent = bed.settle();
        assert!(MEMBERS.iter().all(|member| marks(&sent[*member]) == [0, 1, 2, 3]), "{workers} workers");
        bed.assert_balanced();
    }
}

#[test]
fn a_rule_that_names_a_queue_goes_by_the_bonds_choice() {
    let (mut bed, shared) = bed(1);
    put(&mut bed, &shared, Way::Member(1));
    let mut tables = Tables::new(Capacity::default(), 1);
    let action = RuleAction { target: RuleTarget::Port(1), queue: Some(0), meter: None, mirror: None };
    let rule = RuleSpec { key_index: 1, key: RuleKey::default(), action };
    tables.change_rules(vec![RuleChange::Write(rule)], &|no: u16| (no < 2).then_some(2)).unwrap();
    bed.install(&tables);
    send(&mut bed, 0..1);
    assert_eq!(bed.settle()[MEMBERS[1]].len(), 1);
}
