//! Two systems of ours, over good links and bad ones.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::*;
use super::net::{A, B, Net, config, ms, s};

#[test]
fn two_systems_agree_within_four_seconds_in_each_combination_of_rate_and_activity() {
    for (rate_a, rate_b) in [(0, 0), (0, 1), (1, 1)] {
        for (active_a, active_b) in [(true, true), (true, false), (false, true)] {
            let rate = |n| if n == 0 { LacpRate::Slow } else { LacpRate::Fast };
            let a = LacpConfig { rate: rate(rate_a), active: active_a, ..config(0) };
            let b = LacpConfig { rate: rate(rate_b), active: active_b, ..config(1) };
            let mut net = Net::new(&[a, b], 2);
            net.run_well(s(4));
            let state = |rate: i32, active| 0x3c | u8::from(active) | u8::from(rate == 1) << 1;
            for port in [1, 2] {
                assert_eq!(net.state(A, port), state(rate_a, active_a), "{rate_a} {rate_b} {active_a} {active_b}");
                assert_eq!(net.state(B, port), state(rate_b, active_b));
            }
            let [active_a, active_b] = [A, B].map(|n| net.systems[n].active().unwrap());
            assert_eq!((active_a.ports, active_b.ports), (2, 2));
            assert_eq!(active_a.partner, config(1).system);
            net.run_well(s(300));
            assert_eq!(net.distributing(A), [1, 2], "and stay so");
            net.assert_limit();
        }
    }
}

#[test]
fn two_passive_systems_use_one_link_without_lacp() {
    let passive = |n| LacpConfig { active: false, ..config(n) };
    let mut net = Net::new(&[passive(0), passive(1)], 2);
    net.run_well(s(200));
    assert_eq!(net.sent, []);
    assert_eq!((net.distributing(A), net.distributing(B)), (vec![1], vec![1]));
}

#[test]
fn a_link_that_was_lost_is_back_in_milliseconds() {
    let mut net = Net::new(&[config(0), config(1)], 2);
    net.run_well(s(10));
    net.set_cable(1, false);
    assert_eq!((net.distributing(A), net.distributing(B)), (vec![2], vec![2]), "no timer is waited for");
    net.run_well(s(40));
    assert_eq!(net.distributing(A), [2]);
    net.set_cable(1, true);
    net.run_well(ms(40_050));
    assert_eq!((net.distributing(A), net.distributing(B)), (vec![1, 2], vec![1, 2]));
}

#[test]
fn a_link_that_fails_silently_is_noticed_by_the_timeout() {
    let fast = |n| LacpConfig { rate: LacpRate::Fast, ..config(n) };
    let mut net = Net::new(&[fast(0), fast(1)], 2);
    net.run_well(s(10));
    net.cables.retain(|(_, port), _| *port != MemberId(1));
    net.run_well(ms(13_050));
    assert_eq!((net.distributing(A), net.distributing(B)), (vec![2], vec![2]));
    net.run_well(ms(16_050));
    assert_eq!(net.systems[A].port(MemberId(1)).unwrap().actor_churn.0, ChurnState::Monitoring);
    net.run_well(s(80));
    let port = net.systems[A].port(MemberId(1)).unwrap();
    assert_eq!((port.actor_churn, port.partner_churn), ((ChurnState::Churned, 1), (ChurnState::Churned, 1)));
}

#[test]
fn another_configuration_is_negotiated_anew() {
    let mut net = Net::new(&[config(0), config(1)], 2);
    net.run_well(s(10));
    let now = net.now;
    net.systems[A].set_config(now, LacpConfig { user_key: 7, rate: LacpRate::Fast, ..config(0) });
    assert!(net.distributing(A).is_empty());
    net.run_well(s(14));
    assert_eq!(net.distributing(A), [1, 2]);
    assert_eq!(net.systems[B].active().unwrap().partner_key, 7 << 6 | 15);
    net.assert_limit();
}

/// What happens at a moment: a cable is pulled or plugged, at both ends or at one.
fn upheaval() -> impl Strategy<Value = (u64, u16, bool, u8)> {
    (1u64..4000, 1u16..4, any::<bool>(), 0u8..3)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever was lost, doubled, delayed and unplugged: when it stops, both ends use all links, and stay so.
    #[test]
    fn two_systems_converge_after_any_upheaval(
        seed in any::<u64>(),
        loss in 0u64..100,
        fast in any::<(bool, bool)>(),
        active in (any::<bool>(), any::<bool>()).prop_filter("one end speaks first", |(a, b)| *a || *b),
        select in 0usize..3,
        upheavals in vec(upheaval(), 0..20),
    ) {
        let select = [AdSelect::Stable, AdSelect::Bandwidth, AdSelect::Count][select];
        let rate = |fast| if fast { LacpRate::Fast } else { LacpRate::Slow };
        let a = LacpConfig { rate: rate(fast.0), active: active.0, select, ..config(0) };
        let b = LacpConfig { rate: rate(fast.1), active: active.1, select, ..config(1) };
        let mut net = Net::new(&[a, b], 3);
        let mut random = seed;
        let mut fate = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let draw = random >> 33;
            let copies = if draw % 100 < loss { 0 } else { 1 + usize::from(draw % 7 == 0) };
            (copies, draw / 100 % 1500)
        };
        for (wait, port, up, ends) in upheavals {
            net.run(net.now + ms(wait), &mut fate);
            match ends {
                0 => net.set_link(A, MemberId(port), up),
                1 => net.set_link(B, MemberId(port), up),
                _ => net.set_cable(port, up),
            }
        }
        (1..4).for_each(|port| net.set_cable(port, true));
        // Late frames arrive, old words run out, and slow ports speak.
        net.run_well(net.now + s(130));
        prop_assert_eq!(net.distributing(A), [1, 2, 3]);
        prop_assert_eq!(net.distributing(B), [1, 2, 3]);
        let (sent, now) = (net.sent.len(), net.now);
        net.run_well(now + s(120));
        prop_assert_eq!(net.distributing(A), [1, 2, 3]);
        let most = if fast.0 || fast.1 { 120 * 6 } else { 5 * 6 };
        prop_assert!(net.sent.len() - sent <= most, "{} LACPDUs in two minutes", net.sent.len() - sent);
        net.assert_limit();
    }
}
