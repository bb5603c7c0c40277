//! One machine after the other, with PDUs made by hand.

use super::super::pdu::{Lacpdu, Marker};
use super::super::*;
use super::net::{A, B, Net, config, link, ms, s};

const P: MemberId = MemberId(1);
const PARTNER: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 0x77]);

/// A system with one port whose link is up.
fn lone(config: LacpConfig) -> Lacp {
    let mut lacp = Lacp::new(config);
    lacp.add(P);
    lacp.set_link(ms(0), P, link(true, 10_000));
    lacp
}

/// What the partner says: its own state, and ours as it was told.
fn pdu(lacp: &Lacp, state: u8) -> [u8; pdu::FRAME_LEN] {
    let actor =
        PortInfo { system_priority: 1, system: PARTNER, key: 5, port_priority: 6, port: 7, state: PortState(state) };
    let partner = lacp.port(P).unwrap().actor;
    Pdu::Lacp(Lacpdu { version: 1, actor, partner, collector_max_delay: 0 }).encode(PARTNER)
}

fn lacpdus(lacp: &mut Lacp) -> Vec<Lacpdu> {
    let frames = lacp.take_frames().into_iter();
    frames.filter_map(|(_, pdu)| if let Pdu::Lacp(pdu) = pdu { Some(pdu) } else { None }).collect()
}

/// Runs at every deadline up to `end`. Returns when LACPDUs were sent.
fn run(lacp: &mut Lacp, mut now: Time, end: Time) -> Vec<Time> {
    let mut sent = Vec::new();
    loop {
        sent.extend(lacpdus(lacp).iter().map(|_| now));
        match lacp.deadline(now) {
            Some(next) if next <= end => now = next,
            _ => return sent,
        }
        lacp.run(now);
    }
}

#[test]
fn receive_goes_from_expired_to_defaulted_and_current_to_expired() {
    let mut lacp = lone(LacpConfig { rate: LacpRate::Fast, ..config(0) });
    let receive = |lacp: &Lacp| lacp.port(P).unwrap().receive;
    assert_eq!(receive(&lacp), ReceiveState::Expired);
    assert_eq!(lacp.port(P).unwrap().actor.state.to_string(), "activity timeout aggregation defaulted expired");
    lacp.run(ms(2999));
    assert_eq!(receive(&lacp), ReceiveState::Expired);
    lacp.run(ms(3000));
    assert_eq!(receive(&lacp), ReceiveState::Defaulted);
    assert!(lacp.collects(P) && lacp.distributes(P), "a single link is used without a partner");
    let frame = pdu(&lacp, 0x3d);
    lacp.receive(ms(5000), P, &frame).unwrap();
    let port = lacp.port(P).unwrap();
    assert_eq!((port.receive, port.partner.system, port.partner.key), (ReceiveState::Current, PARTNER, 5));
    assert!(!port.actor.state.has(PortState::DEFAULTED) && !port.actor.state.has(PortState::EXPIRED));
    assert!(!lacp.collects(P), "a partner that answers is waited for");
    lacp.run(ms(7999));
    assert_eq!(receive(&lacp), ReceiveState::Current);
    lacp.run(ms(8000));
    let port = lacp.port(P).unwrap();
    assert_eq!(port.receive, ReceiveState::Expired);
    assert!(port.actor.state.has(PortState::EXPIRED) && !port.partner.state.has(PortState::SYNCHRONIZATION));
    lacp.set_link(ms(8001), P, link(false, 10_000));
    assert_eq!((receive(&lacp), lacp.deadline(ms(8001))), (ReceiveState::Disabled, None));
    let frame = pdu(&lacp, 0x3d);
    lacp.receive(ms(8002), P, &frame).unwrap();
    assert_eq!(receive(&lacp), ReceiveState::Disabled, "a frame that was under way");
}

#[test]
fn a_slow_port_believes_its_partner_for_ninety_seconds() {
    let mut lacp = lone(config(0));
    let frame = pdu(&lacp, 0x3d);
    lacp.receive(ms(0), P, &frame).unwrap();
    lacp.run(ms(89_999));
    assert_eq!(lacp.port(P).unwrap().receive, ReceiveState::Current);
    lacp.run(s(90));
    assert_eq!(lacp.port(P).unwrap().receive, ReceiveState::Expired);
}

#[test]
fn mux_goes_through_all_states_as_the_partner_does() {
    let mut lacp = lone(config(0));
    let tell = |lacp: &mut Lacp, now, state| {
        let frame = pdu(lacp, state);
        lacp.receive(now, P, &frame).unwrap();
        (lacp.port(P).unwrap().mux, lacp.collects(P), lacp.distributes(P))
    };
    // Activity and aggregation.
    assert_eq!(tell(&mut lacp, ms(100), 0x05), (MuxState::Waiting, false, false));
    lacp.run(ms(2099));
    assert_eq!(lacp.port(P).unwrap().mux, MuxState::Waiting);
    lacp.run(ms(2100));
    assert_eq!(lacp.port(P).unwrap().mux, MuxState::Attached);
    assert!(lacp.port(P).unwrap().actor.state.has(PortState::SYNCHRONIZATION));
    // The partner is in sync, then collects, then distributes.
    assert_eq!(tell(&mut lacp, ms(2200), 0x0d), (MuxState::Collecting, true, false));
    assert_eq!(tell(&mut lacp, ms(2300), 0x1d), (MuxState::Distributing, true, true));
    assert_eq!(tell(&mut lacp, ms(2400), 0x3d), (MuxState::Distributing, true, true));
    assert_eq!(lacp.port(P).unwrap().actor.state.0, 0x3d);
    // It stops to collect, then leaves.
    assert_eq!(tell(&mut lacp, ms(2500), 0x0d), (MuxState::Collecting, true, false));
    assert_eq!(tell(&mut lacp, ms(2600), 0x05), (MuxState::Attached, false, false));
    // Another key is another aggregator: the port starts over.
    let mut frame = pdu(&lacp, 0x3d);
    frame[27] = 99;
    lacp.receive(ms(2700), P, &frame).unwrap();
    assert_eq!(lacp.port(P).unwrap().mux, MuxState::Waiting);
}

#[test]
fn a_partner_that_means_another_link_is_not_in_sync() {
    let mut lacp = lone(config(0));
    let mut frame = pdu(&lacp, 0x3d);
    let frame_ok = frame;
    lacp.receive(ms(0), P, &frame_ok).unwrap();
    lacp.run(s(2));
    assert!(lacp.distributes(P));
    // Byte 49 is the lower half of the port number in the partner information.
    frame[49] = 9;
    lacp.take_frames();
    lacp.receive(s(3), P, &frame).unwrap();
    assert!(!lacp.collects(P));
    assert_eq!(lacpdus(&mut lacp).len(), 1, "the partner is told at once what is so");
}

#[test]
fn periodic_follows_the_timeout_that_the_partner_asks_for() {
    let mut lacp = lone(config(0));
    assert_eq!(run(&mut lacp, ms(0), ms(2900)), [ms(0), ms(1000), ms(2000)], "expired: short intervals");
    let slow = pdu(&lacp, 0x3d);
    lacp.receive(s(3), P, &slow).unwrap();
    let sent = run(&mut lacp, s(3), s(70));
    assert!(sent.ends_with(&[s(33), s(63)]), "{sent:?}");
    let fast = pdu(&lacp, 0x3f);
    lacp.receive(s(70), P, &fast).unwrap();
    assert_eq!(run(&mut lacp, s(70), ms(72_500)), [s(70), s(71), s(72)], "at once, then each second");
}

#[test]
fn a_passive_port_is_silent_until_an_active_one_speaks() {
    let mut lacp = lone(LacpConfig { active: false, ..config(0) });
    assert_eq!(run(&mut lacp, ms(0), s(100)), []);
    let frame = pdu(&lacp, 0x0c);
    lacp.receive(s(100), P, &frame).unwrap();
    assert_eq!(run(&mut lacp, s(100), s(150)), [], "two passive ports say nothing");
    let frame = pdu(&lacp, 0x0f);
    lacp.receive(s(150), P, &frame).unwrap();
    assert_eq!(run(&mut lacp, s(150), ms(151_500)).len(), 2);
}

#[test]
fn markers_are_answered_five_times_a_second() {
    let mut lacp = lone(config(0));
    lacp.take_frames();
    let marker = |transaction| Marker { port: 9, system: PARTNER, transaction };
    for n in 0..20 {
        lacp.receive(ms(10 * n), P, &Pdu::Marker(marker(u32::try_from(n).unwrap())).encode(PARTNER)).unwrap();
    }
    let answers: Vec<_> = lacp.take_frames();
    let expected: Vec<_> = (0..5).map(|n| (P, Pdu::MarkerResponse(marker(n)))).collect();
    assert_eq!(answers, expected);
    let response = Pdu::MarkerResponse(marker(1)).encode(PARTNER);
    lacp.receive(s(5), P, &response).unwrap();
    let counters = lacp.port(P).unwrap().counters;
    assert_eq!((counters.markers_in, counters.marker_responses_out, counters.markers_ignored), (20, 5, 16));
}

#[test]
fn illegal_frames_and_own_ones_are_counted_and_nothing_else() {
    let mut lacp = lone(config(0));
    let before = lacp.port(P).unwrap();
    let mut frame = pdu(&lacp, 0x3d);
    frame[16] = 9;
    assert!(lacp.receive(ms(1), P, &frame).is_err());
    lacp.receive(ms(1), P, &Pdu::Other { subtype: 10 }.encode(PARTNER)).unwrap();
    let mut own = pdu(&lacp, 0x3d);
    own[20..26].copy_from_slice(&config(0).system.octets());
    lacp.receive(ms(1), P, &own).unwrap();
    let after = lacp.port(P).unwrap();
    assert_eq!((after.counters.illegal, after.counters.loopbacks, after.counters.lacpdus_in), (2, 1, 0));
    assert_eq!(PortStatus { counters: before.counters, ..after }, before);
}

#[test]
fn a_port_that_leaves_collects_until_its_partner_has_stopped() {
    let mut net = Net::new(&[config(0), config(1)], 2);
    net.run_well(s(5));
    let now = net.now;
    net.systems[A].leave(now, P);
    assert!(net.systems[A].collects(P) && !net.systems[A].distributes(P));
    assert!(!net.systems[A].has_left(now, P), "the partner may have sent more");
    net.run_well(now + ms(10));
    assert!(net.systems[A].has_left(net.now, P), "the partner was told and has stopped");
    assert_eq!(net.distributing(B), [2]);
    net.systems[A].remove(net.now, P);
    net.run_well(now + ms(1500));
    let partner = net.systems[B].port(P).unwrap().partner;
    assert!(!partner.state.has(PortState::AGGREGATION), "its last word");
    assert_eq!(net.distributing(B), [2]);
}

#[test]
fn a_partner_that_does_not_stop_is_waited_for_a_second() {
    let mut net = Net::new(&[config(0), config(1)], 1);
    net.run_well(s(5));
    net.systems[A].leave(net.now, P);
    assert!(!net.systems[A].has_left(net.now + ms(999), P));
    assert!(net.systems[A].has_left(net.now + ms(1000), P));
}
