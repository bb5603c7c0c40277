use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const fn ms(ms: u64) -> Time {
    Time::from_millis(ms)
}

fn ids(ids: &[u16]) -> Vec<MemberId> {
    ids.iter().map(|&id| MemberId(id)).collect()
}

fn table(members: &[u16]) -> Buckets {
    let mut table = Buckets::default();
    table.set_members(ms(0), ids(members), |_| true);
    table
}

fn share(table: &Buckets, member: u16) -> usize {
    table.slots().iter().filter(|slot| **slot == Slot::Member(MemberId(member))).count()
}

/// Time goes on without a frame until nothing is left to do.
fn settle(table: &mut Buckets, from: u64) {
    for step in 0..4 {
        table.settle(ms(from + step * 30), |_| 0);
    }
    assert!(!table.unsettled());
}

#[test]
fn members_have_equal_shares_and_without_any_frames_go_nowhere() {
    assert_eq!([1, 2, 3].map(|member| share(&table(&[1, 2, 3]), member)), [86, 85, 85]);
    assert!(table(&[]).slots().iter().all(|slot| *slot == Slot::Nowhere));
}

#[test]
fn a_member_whose_link_is_lost_takes_only_its_own_buckets_along_and_at_once() {
    let before = table(&[1, 2, 3, 4]);
    let mut after = before.clone();
    after.set_members(ms(5), ids(&[1, 2, 4]), |_| true);
    assert!(!after.unsettled());
    for (was, is) in before.slots().iter().zip(after.slots()) {
        if *was == Slot::Member(MemberId(3)) {
            assert_ne!(is, *was);
        } else {
            assert_eq!(is, *was, "a flow of another member moved");
        }
    }
    assert_eq!([1, 2, 4].map(|member| share(&after, member)), [86, 85, 85]);
}

#[test]
fn a_member_that_returns_takes_quiet_buckets_after_the_drain_time() {
    let mut table = table(&[1, 2, 3]);
    table.set_members(ms(0), ids(&[1, 2]), |_| true);
    table.set_members(ms(100), ids(&[1, 2, 3]), |_| true);
    assert_eq!(share(&table, 3), 0, "frames of the buckets may still wait at the other members");
    assert!(!table.settle(ms(100), |_| 7));
    assert!(!table.settle(ms(129), |_| 7));
    assert!(table.settle(ms(130), |_| 7));
    assert_eq!([1, 2, 3].map(|member| share(&table, member)), [86, 85, 85]);
    assert!(!table.unsettled());
}

#[test]
fn a_busy_bucket_is_held_before_it_moves_so_that_nothing_overtakes() {
    let mut table = table(&[1]);
    table.set_members(ms(0), ids(&[1, 2]), |_| true);
    let mut frames = 0;
    for now in (0..1000).step_by(10) {
        frames += 1;
        assert!(!table.settle(ms(now), |_| frames), "a busy bucket stays");
    }
    assert!(table.settle(ms(1000), |_| frames + 1));
    assert_eq!((share(&table, 1), share(&table, 2)), (128, 0));
    assert_eq!(table.slots().iter().filter(|slot| **slot == Slot::Held).count(), 128);
    assert!(!table.settle(ms(1029), |_| frames + 1));
    assert!(table.settle(ms(1030), |_| frames + 1));
    assert_eq!((share(&table, 1), share(&table, 2)), (128, 128));
}

#[test]
fn a_member_that_leaves_with_its_link_up_keeps_its_buckets_until_they_are_quiet() {
    let mut table = table(&[1, 2]);
    table.set_members(ms(0), ids(&[1]), |_| false);
    assert_eq!(share(&table, 2), 128);
    assert!(table.uses(MemberId(2)));
    settle(&mut table, 10);
    assert_eq!(share(&table, 1), 256);
    assert!(!table.uses(MemberId(2)));
}

#[test]
fn a_member_that_dies_while_its_buckets_move_lets_them_go_at_once() {
    let mut table = table(&[1, 2]);
    table.set_members(ms(0), ids(&[1]), |_| false);
    table.set_members(ms(1), ids(&[1]), |_| true);
    assert_eq!((share(&table, 1), table.unsettled()), (256, false));
}

#[test]
fn a_move_that_is_called_off_changes_nothing() {
    let before = table(&[1, 2]);
    let mut after = before.clone();
    after.set_members(ms(0), ids(&[1, 2, 3]), |_| true);
    after.set_members(ms(1), ids(&[1, 2]), |_| true);
    assert_eq!(after.slots(), before.slots());
    assert!(!after.unsettled());
}

proptest! {
    /// Whatever members do, shares are fair in the end, only members have buckets, and few buckets move.
    #[test]
    fn shares_are_fair_and_moves_are_few(steps in vec((0u16..6, any::<bool>(), any::<bool>(), 0u64..50), 1..60)) {
        let (mut table, mut members, mut now) = (Buckets::default(), Vec::<u16>::new(), 0);
        for (member, lost, busy, wait) in steps {
            let before = table.clone();
            let joined = match members.iter().position(|&m| m == member) {
                Some(at) => { members.remove(at); false }
                None => { members.push(member); true }
            };
            let was: Vec<_> = before.places.iter().map(|place| place.owner()).collect();
            table.set_members(ms(now), ids(&members), |_| lost);
            let moved = table.places.iter().zip(&was).filter(|(is, was)| is.owner() != **was).count();
            let most = if joined { BUCKETS.div_ceil(members.len()) } else {
                was.iter().filter(|owner| **owner == Some(MemberId(member))).count()
            };
            prop_assert!(moved <= most, "{moved} moved, {most} would do");
            now += wait;
            table.settle(ms(now), |_| if busy { now } else { 0 });
        }
        for _ in 0..3 {
            table.settle(ms(now), |_| 0);
            now += 31;
        }
        table.settle(ms(now), |_| 0);
        prop_assert!(!table.unsettled());
        let shares: Vec<_> = members.iter().map(|&member| share(&table, member)).collect();
        prop_assert_eq!(shares.iter().sum::<usize>(), if members.is_empty() { 0 } else { BUCKETS });
        if let (Some(min), Some(max)) = (shares.iter().min(), shares.iter().max()) {
            prop_assert!(max - min <= 1, "{shares:?}");
        }
    }
}
