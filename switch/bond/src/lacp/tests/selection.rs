//! Which aggregator ports join, and which one is active.

use super::super::*;
use super::net::{A, B, Net, config, link, ms, s};

const C: usize = 2;

/// A system with four ports. Ports from `first_of_c` on are plugged to another partner than the others.
fn two_partners(select: AdSelect, first_of_c: u16) -> Net {
    let mut net = Net::new(&[LacpConfig { select, ..config(0) }, config(1), config(2)], 4);
    for port in (first_of_c..=4).map(MemberId) {
        net.cables.remove(&(B, port));
        net.systems[B].set_link(ms(0), port, link(false, 0));
        net.plug((A, port), (C, port));
        net.set_link(C, port, true);
    }
    net
}

#[test]
fn only_ports_of_the_same_partner_are_aggregated() {
    let mut net = two_partners(AdSelect::Stable, 3);
    net.run_well(s(5));
    let aggregators: Vec<_> = (1..=4).map(|port| net.systems[A].port(MemberId(port)).unwrap().aggregator).collect();
    assert_eq!((aggregators[0], aggregators[2]), (aggregators[1], aggregators[3]));
    assert_ne!(aggregators[0], aggregators[2]);
    assert_eq!(net.distributing(A), [1, 2]);
    assert_eq!(net.distributing(C), Vec::<u16>::new(), "the other partner is held out of sync");
    assert_eq!(net.state(A, 3) & PortState::SYNCHRONIZATION.0, 0);
}

#[test]
fn stable_changes_only_when_no_link_is_left() {
    let mut net = two_partners(AdSelect::Stable, 3);
    net.run_well(s(5));
    net.set_cable(1, false);
    net.run_well(s(10));
    assert_eq!(net.distributing(A), [2], "one link is less than two, and still the active aggregator");
    net.set_cable(2, false);
    net.run_well(ms(10_050));
    assert_eq!(net.distributing(A), [3, 4]);
    net.set_cable(1, true);
    net.set_cable(2, true);
    net.run_well(s(20));
    assert_eq!(net.distributing(A), [3, 4]);
}

#[test]
fn count_and_bandwidth_take_the_better_aggregator_and_stay_when_it_is_as_good() {
    for select in [AdSelect::Count, AdSelect::Bandwidth] {
        let mut net = two_partners(select, 3);
        net.run_well(s(5));
        assert_eq!(net.distributing(A), [1, 2]);
        net.set_cable(1, false);
        net.run_well(s(6));
        assert_eq!(net.distributing(A), [3, 4], "{select}");
        net.set_cable(1, true);
        net.run_well(s(12));
        assert_eq!(net.distributing(A), [3, 4], "{select}: equals don't change places");
    }
}

#[test]
fn count_prefers_links_and_bandwidth_speed() {
    for (select, expected) in [(AdSelect::Count, vec![1, 2, 3]), (AdSelect::Bandwidth, vec![4])] {
        let mut net = two_partners(select, 4);
        net.systems[A].set_link(ms(0), MemberId(4), link(true, 100_000));
        net.run_well(s(5));
        assert_eq!(net.distributing(A), expected, "{select}");
    }
}

#[test]
fn links_of_different_speeds_are_not_aggregated() {
    let mut net = Net::new(&[config(0), config(1)], 3);
    for system in [A, B] {
        net.systems[system].set_link(ms(0), MemberId(3), link(true, 1000));
    }
    net.run_well(s(5));
    assert_eq!((net.distributing(A), net.distributing(B)), (vec![1, 2], vec![1, 2]));
}

#[test]
fn a_partner_that_answers_is_preferred_to_none() {
    let mut net = Net::new(&[config(0), config(1)], 2);
    // The first port's partner has no LACP.
    net.cables.retain(|(_, port), _| *port != MemberId(1));
    net.run_well(s(10));
    assert_eq!(net.distributing(A), [2]);
    net.set_cable(2, false);
    net.run_well(s(11));
    assert_eq!(net.distributing(A), [1], "better than nothing");
}

#[test]
fn a_link_that_is_moved_to_another_partner_joins_it_and_not_the_old_one() {
    let mut net = two_partners(AdSelect::Stable, 3);
    net.run_well(s(5));
    net.set_cable(2, false);
    net.run_well(s(6));
    net.plug((A, MemberId(2)), (C, MemberId(2)));
    net.cables.remove(&(B, MemberId(2)));
    net.set_link(A, MemberId(2), true);
    net.set_link(C, MemberId(2), true);
    net.run_well(s(12));
    let aggregator = |port| net.systems[A].port(MemberId(port)).unwrap().aggregator;
    assert_eq!(aggregator(2), aggregator(3));
    assert_eq!(net.distributing(A), [1]);
}

#[test]
fn cables_that_are_swapped_while_down_are_told_apart() {
    let mut net = Net::new(&[config(0), config(1)], 2);
    net.run_well(s(5));
    net.set_cable(1, false);
    net.set_cable(2, false);
    net.plug((A, MemberId(1)), (B, MemberId(2)));
    net.plug((A, MemberId(2)), (B, MemberId(1)));
    net.set_cable(1, true);
    net.set_cable(2, true);
    net.run_well(s(10));
    assert_eq!((net.distributing(A), net.distributing(B)), (vec![1, 2], vec![1, 2]));
    assert_eq!(net.systems[A].port(MemberId(1)).unwrap().partner.port, 2);
}
