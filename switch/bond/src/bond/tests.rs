use super::*;
use crate::Duplex;
use crate::buckets::{BUCKETS, Slot};
use crate::lacp::pdu::Pdu;

const fn ms(ms: u64) -> Time {
    Time::from_millis(ms)
}

fn mac(n: u64) -> MacAddr {
    MacAddr::from_u64(0x0200_0000_0000 + n)
}

fn link(up: bool) -> Link {
    Link { up, speed: Some(10_000), duplex: Some(Duplex::Full) }
}

const M1: MemberId = MemberId(1);
const M2: MemberId = MemberId(2);
const M3: MemberId = MemberId(3);

/// A bond that is up, with those options and members `m1`, `m2`, … whose links are up.
fn bond(options: &[(&str, &str)], members: u16) -> Bond {
    let mut bond = Bond::new(Options::default(), None);
    for (name, value) in options {
        bond.set_option(ms(0), name, value).unwrap();
    }
    for n in 1..=members {
        let new = NewMember { name: format!("m{n}"), mac: mac(n.into()), link: link(true) };
        assert_eq!(bond.add(ms(0), new), MemberId(n));
    }
    bond.set_up(ms(0), true);
    bond
}

/// Lets time pass up to `end`, without any frames of data.
fn run(bond: &mut Bond, mut now: Time, end: Time) {
    while let Some(next) = bond.deadline(now).filter(|next| *next <= end) {
        assert!(next > now, "a thread would spin");
        now = next;
        bond.run(now, |_| 0);
    }
    bond.run(end, |_| 0);
}

fn announcements(bond: &mut Bond) -> (usize, usize) {
    let actions = bond.take_actions();
    let count = |action| actions.iter().filter(|a| **a == action).count();
    (count(Action::Announce), count(Action::RenewGroups))
}

fn share(bond: &Bond, id: MemberId) -> usize {
    bond.buckets().slots().iter().filter(|slot| **slot == Slot::Member(id)).count()
}

#[test]
fn a_bond_that_is_down_or_empty_carries_nothing() {
    for mode in ["balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad"] {
        let mut bond = bond(&[("mode", mode)], 2);
        bond.set_up(ms(1), false);
        assert_eq!((bond.carrier(), bond.egress(), bond.collect(M1)), (false, Egress::Nowhere, Collect::Nothing));
        assert!(super::tests::bond(&[("mode", mode)], 0).egress() == Egress::Nowhere, "{mode}");
    }
}

#[test]
fn active_backup_uses_one_member_and_takes_frames_from_it_alone() {
    let mut bond = bond(&[("mode", "active-backup")], 3);
    assert_eq!((bond.egress(), bond.carrier()), (Egress::Member(M1), true));
    assert_eq!([M1, M2, M3].map(|id| bond.collect(id)), [Collect::All, Collect::Nothing, Collect::Nothing]);
    bond.set_link(ms(10), M1, link(false));
    assert_eq!(bond.egress(), Egress::Member(M2));
    assert_eq!([M1, M2].map(|id| bond.collect(id)), [Collect::Nothing, Collect::All]);
    bond.set_link(ms(20), M1, link(true));
    assert_eq!(bond.egress(), Egress::Member(M2), "without a primary nothing changes back");
    for id in [M1, M2, M3] {
        bond.set_link(ms(30), id, link(false));
    }
    assert_eq!((bond.egress(), bond.carrier(), bond.active()), (Egress::Nowhere, false, None));
    bond.set_option(ms(40), "all_slaves_active", "1").unwrap();
    assert_eq!(bond.collect(M3), Collect::All);
}

#[test]
fn the_primary_is_chosen_again_as_primary_reselect_says() {
    for (reselect, faster, expected) in
        [("always", false, M2), ("better", false, M1), ("better", true, M2), ("failure", true, M1)]
    {
        let mut bond = bond(&[("mode", "active-backup"), ("primary", "m2"), ("primary_reselect", reselect)], 3);
        assert_eq!(bond.active(), Some(M2), "the primary comes first");
        bond.set_link(ms(10), M2, link(false));
        assert_eq!(bond.active(), Some(M1));
        let speed = Some(if faster { 25_000 } else { 10_000 });
        bond.set_link(ms(20), M2, Link { speed, ..link(true) });
        assert_eq!(bond.active(), Some(expected), "{reselect}");
        bond.set_link(ms(30), M1, link(false));
        bond.set_link(ms(30), M3, link(false));
        assert_eq!(bond.active(), Some(M2));
    }
}

#[test]
fn a_new_primary_is_taken_at_once_and_an_active_member_by_hand_until_a_link_changes() {
    let mut bond = bond(&[("mode", "active-backup"), ("primary_reselect", "failure")], 3);
    bond.set_option(ms(1), "primary", "m3").unwrap();
    assert_eq!(bond.active(), Some(M3));
    bond.activate(ms(2), Some("m2")).unwrap();
    assert_eq!(bond.active(), Some(M2));
    run(&mut bond, ms(2), ms(5000));
    assert_eq!(bond.active(), Some(M2));
    bond.set_option(ms(5000), "primary_reselect", "always").unwrap();
    assert_eq!(bond.active(), Some(M3));
    bond.set_link(ms(5001), M1, link(false));
    assert_eq!(bond.activate(ms(5002), Some("m1")), Err(ActivateError::Down("m1".to_owned())));
    assert_eq!(bond.activate(ms(5002), Some("m9")), Err(ActivateError::NoMember("m9".to_owned())));
    assert_eq!(super::tests::bond(&[], 1).activate(ms(1), None), Err(ActivateError::Mode(Mode::BalanceRr)));
    assert_eq!(bond.active(), Some(M3));
}

#[test]
fn a_failover_is_announced_as_often_as_asked() {
    let options = [("mode", "active-backup"), ("miimon", "100"), ("num_grat_arp", "3"), ("peer_notif_delay", "200")];
    let mut bond = bond(&options, 2);
    bond.set_option(ms(0), "resend_igmp", "2").unwrap();
    run(&mut bond, ms(0), ms(5000));
    bond.take_actions();
    bond.set_link(ms(5000), M1, link(false));
    assert_eq!(announcements(&mut bond), (1, 1), "at once");
    run(&mut bond, ms(5000), ms(5199));
    assert_eq!(announcements(&mut bond), (0, 0));
    run(&mut bond, ms(5199), ms(5200));
    assert_eq!(announcements(&mut bond), (1, 1));
    run(&mut bond, ms(5200), ms(9000));
    assert_eq!(announcements(&mut bond), (1, 0));
    bond.set_option(ms(9000), "num_grat_arp", "0").unwrap();
    bond.set_option(ms(9000), "resend_igmp", "0").unwrap();
    bond.set_link(ms(9000), M1, link(true));
    bond.set_link(ms(9000), M2, link(false));
    assert_eq!((bond.active(), announcements(&mut bond)), (Some(M1), (0, 0)));
    assert_eq!(bond.deadline(ms(9000)), None, "nothing is left to do");
}

#[test]
fn addresses_follow_fail_over_mac() {
    for (policy, of_bond, of_members) in
        [("none", mac(1), [mac(1), mac(1)]), ("active", mac(2), [mac(1), mac(2)]), ("follow", mac(1), [mac(1), mac(1)])]
    {
        let mut bond = bond(&[("mode", "active-backup"), ("fail_over_mac", policy)], 2);
        assert_eq!(bond.mac(), mac(1), "that of the first member");
        bond.set_link(ms(1), M1, link(false));
        assert_eq!(bond.mac(), of_bond, "{policy}");
        assert_eq!([M1, M2].map(|id| bond.member_mac(id).unwrap()), of_members, "{policy}");
    }
}

#[test]
fn delays_hold_links_back_in_each_mode() {
    let options = [("mode", "balance-xor"), ("miimon", "100"), ("updelay", "1000"), ("downdelay", "200")];
    let mut bond = bond(&options, 2);
    run(&mut bond, ms(0), ms(2000));
    bond.set_link(ms(2000), M1, link(false));
    run(&mut bond, ms(2000), ms(2199));
    assert_eq!(share(&bond, M1), 128, "downdelay");
    run(&mut bond, ms(2199), ms(2200));
    assert_eq!((share(&bond, M1), share(&bond, M2)), (0, 256));
    assert_eq!(bond.members()[0].failures, 1);
    bond.set_link(ms(2500), M1, link(true));
    run(&mut bond, ms(2500), ms(3499));
    assert_eq!(bond.members()[0].state, LinkState::Back(ms(3500)));
    run(&mut bond, ms(3499), ms(3570));
    assert_eq!((share(&bond, M1), share(&bond, M2)), (128, 128));
}

#[test]
fn updelay_is_not_waited_for_when_there_is_no_other_member() {
    let mut bond = bond(&[("mode", "active-backup"), ("miimon", "100"), ("updelay", "1000")], 1);
    bond.set_link(ms(0), M1, link(false));
    bond.set_link(ms(10), M1, link(true));
    assert_eq!(bond.egress(), Egress::Member(M1));
}

#[test]
fn updelay_holds_back_a_member_that_is_added_to_others() {
    let bond = bond(&[("mode", "balance-xor"), ("miimon", "100"), ("updelay", "1000")], 2);
    let states: Vec<_> = bond.members().iter().map(|member| member.state).collect();
    assert_eq!(states, [LinkState::Up, LinkState::Back(ms(1000))]);
}

#[test]
fn the_other_modes_use_all_members() {
    let mut broadcast = bond(&[("mode", "broadcast")], 2);
    assert_eq!(broadcast.egress(), Egress::All(vec![M1, M2]));
    broadcast.set_link(ms(1), M2, link(false));
    assert_eq!(broadcast.egress(), Egress::All(vec![M1]));
    let turns = bond(&[("packets_per_slave", "4")], 2);
    assert_eq!(turns.egress(), Egress::InTurn { members: vec![M1, M2], frames: 4 });
    let xor = bond(&[("mode", "balance-xor")], 2);
    assert_eq!((xor.egress(), share(&xor, M1)), (Egress::Buckets, BUCKETS / 2));
    for bond in [broadcast, turns, xor] {
        assert_eq!(bond.collect(M1), Collect::All);
    }
}

#[test]
fn a_member_is_removed_after_its_buckets_and_its_frames_have_left() {
    let mut bond = bond(&[("mode", "balance-xor")], 2);
    bond.remove(ms(0), M1);
    assert_eq!((share(&bond, M1), bond.collect(M1)), (128, Collect::All), "frames of it are still under way");
    // A bucket is busy for ten seconds. The other ones move as soon as they are quiet.
    let mut held = 0;
    for now in (0..1100).step_by(10) {
        bond.run(ms(now), |bucket| if bucket == 0 { now } else { 0 });
        held += usize::from(bond.buckets().slot(0) == Slot::Held);
        if now == 100 {
            assert_eq!(share(&bond, M1), 1);
        }
    }
    assert_eq!(held, 3, "for the drain time");
    assert_eq!(bond.take_actions(), [Action::Release(M1)]);
    assert_eq!((share(&bond, M2), bond.collect(M1), bond.members().len()), (256, Collect::Nothing, 1));
    let again = bond.add(ms(2000), NewMember { name: "m9".to_owned(), mac: mac(9), link: link(true) });
    assert_eq!(again, M1, "numbers are used again");
}

#[test]
fn an_active_member_that_is_removed_still_takes_unicast() {
    let mut bond = bond(&[("mode", "active-backup")], 2);
    bond.take_actions();
    bond.remove(ms(0), M1);
    assert_eq!(
        (bond.egress(), bond.collect(M1), bond.collect(M2)),
        (Egress::Member(M2), Collect::Unicast, Collect::All)
    );
    run(&mut bond, ms(0), ms(29));
    assert_eq!(bond.take_actions(), [Action::Announce, Action::RenewGroups]);
    run(&mut bond, ms(29), ms(60));
    assert_eq!(bond.take_actions(), [Action::Release(M1)]);
}

#[test]
fn a_netdev_that_is_gone_is_dropped_at_once() {
    let mut bond = bond(&[("mode", "balance-xor")], 2);
    bond.drop_member(ms(0), M1);
    assert_eq!((share(&bond, M2), bond.take_actions()), (256, Vec::new()));
    bond.drop_member(ms(0), M1);
    bond.remove(ms(0), M1);
    bond.set_link(ms(0), M1, link(true));
    assert_eq!(bond.members().len(), 1);
}

/// Two bonds whose members of the same number are linked, by links that deliver after a millisecond.
struct Pair {
    bonds: [Bond; 2],
    now: Time,
    released: Vec<(usize, MemberId)>,
}

impl Pair {
    fn new(options: &[(&str, &str)], members: u16) -> Self {
        let options = [&[("mode", "802.3ad"), ("lacp_rate", "fast")][..], options].concat();
        let mut bonds = [bond(&options, members), bond(&options, members)];
        let own = [("ad_actor_system", "02:00:00:00:0b:0b")];
        bonds[1] = bond(&[&options[..], &own].concat(), members);
        Self { bonds, now: ms(0), released: Vec::new() }
    }

    fn run(&mut self, end: Time) {
        while self.now < end {
            self.now += ms(1);
            for from in [0, 1] {
                self.bonds[from].run(self.now, |_| 0);
                for action in self.bonds[from].take_actions() {
                    match action {
                        Action::Send { member, frame } => {
                            assert_eq!(frame[6..12], mac(member.0.into()).octets(), "the member's own address");
                            self.bonds[1 - from].receive(self.now, member, &frame).unwrap();
                        }
                        Action::Release(member) => self.released.push((from, member)),
                        Action::Announce | Action::RenewGroups => {}
                    }
                }
            }
        }
    }
}

#[test]
fn lacp_brings_members_in_and_min_links_decides_on_the_carrier() {
    let mut pair = Pair::new(&[("min_links", "2")], 2);
    assert!(!pair.bonds[0].carrier());
    pair.run(ms(4000));
    for bond in &pair.bonds {
        assert_eq!((bond.carrier(), bond.egress(), share(bond, M1)), (true, Egress::Buckets, 128));
        assert_eq!(bond.collect(M2), Collect::All);
    }
    let aggregator = pair.bonds[0].aggregator().unwrap();
    assert_eq!((aggregator.ports, aggregator.actor_key), (2, 15));
    pair.bonds[0].set_link(pair.now, M2, link(false));
    assert_eq!((pair.bonds[0].carrier(), pair.bonds[0].egress()), (false, Egress::Nowhere));
    pair.bonds[0].set_option(pair.now, "min_links", "0").unwrap();
    assert_eq!((pair.bonds[0].egress(), share(&pair.bonds[0], M1)), (Egress::Buckets, 256));
}

#[test]
fn lacp_lets_a_member_go_when_its_partner_has_stopped() {
    let mut pair = Pair::new(&[], 2);
    pair.run(ms(4000));
    let start = pair.now;
    pair.bonds[0].remove(start, M1);
    assert_eq!(pair.bonds[0].collect(M1), Collect::All);
    pair.run(start + ms(20));
    assert_eq!((share(&pair.bonds[0], M1), pair.bonds[0].collect(M1)), (128, Collect::All), "its buckets drain");
    assert_eq!(pair.bonds[1].collect(M1), Collect::All, "a partner takes what is still sent");
    // The partner moves its buckets away as they are quiet.
    pair.run(start + ms(200));
    assert_eq!(pair.released, [(0, M1)]);
    assert_eq!((share(&pair.bonds[0], M2), share(&pair.bonds[1], M2)), (256, 256));
}

#[test]
fn slow_protocols_frames_are_of_no_use_in_other_modes() {
    let mut bond = bond(&[("mode", "balance-xor")], 1);
    let frame = Pdu::Other { subtype: 1 }.encode(mac(7));
    assert_eq!(bond.receive(ms(1), M1, &frame), Ok(()));
    assert_eq!(bond.take_actions(), []);
}
