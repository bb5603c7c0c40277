//! How a front end learns what came of a request.

use super::*;

#[test]
fn who_wishes_an_acknowledgement_gets_one() {
    let mut rig = Rig::ready();
    for message in [
        empty(Code::SetOwner),
        number(Code::SetFeatures, FEATURES),
        number(Code::SetProtocolFeatures, ALL_PROTOCOL),
        table(&[(0, MEMORY_SIZE, MEMORY, 0)]),
        state(Code::SetVringNum, 0, 256),
        addresses(0, ring_at(0), 0),
        event(Code::SetVringKick, 0, true),
        event(Code::SetVringCall, 0, true),
        state(Code::SetVringEnable, 3, 1),
        number(Code::NetSetMtu, 1500),
        message(Code::SetConfig, &[0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1], 0),
        empty(Code::ResetDevice),
    ] {
        let code = message.code;
        assert_eq!(rig.number(wished(message)), 0, "{code}");
    }
}

/// QEMU enables a pair before it sets features, asks for an acknowledgement, and waits for it without a limit.
#[test]
fn a_ring_can_be_enabled_before_features_are_set() {
    let mut rig = Rig::new();
    rig.ok(number(Code::SetProtocolFeatures, bit::REPLY_ACK | bit::MQ));
    assert_eq!(rig.number(wished(state(Code::SetVringEnable, 2, 1))), 0);
    assert_eq!(rig.number(wished(state(Code::SetVringEnable, 0, 0))), 0);
    rig.ok(number(Code::SetFeatures, FEATURES));
    rig.ok(table(&[(0, MEMORY_SIZE, MEMORY, 0)]));
    for (ring, enabled) in [(0, false), (1, true), (2, true), (3, false)] {
        assert_eq!(rig.start(ring), [Action::StartRing(ring)]);
        assert_eq!(rig.session.ring(ring).unwrap().is_enabled(), enabled, "{ring}");
    }
}

#[test]
fn a_wish_changes_nothing_where_there_is_an_answer_anyway() {
    let mut rig = Rig::new();
    assert_eq!(rig.number(wished(empty(Code::GetFeatures))), OFFER.features | bit::PROTOCOL_FEATURES);
    let took = rig.take(wished(state(Code::GetVringBase, 1, 0)));
    assert_eq!(took.reply, Some(vec![1, 0, 0, 0, 0, 0, 0, 0]));
}

/// Both ends would go on with different ideas.
#[test]
fn who_can_not_be_told_of_a_refusal_is_left() {
    let mut rig = Rig::new();
    for message in [
        state(Code::SetVringNum, 4, 256),
        state(Code::SetVringNum, 0, 0),
        state(Code::SetVringNum, 0, 32_769),
        event(Code::SetVringKick, 9, true),
        state(Code::GetVringBase, 4, 0),
        wished(state(Code::GetVringBase, 4, 0)),
        message(Code::GetFeatures, &[0], 0),
        wished(message(Code::GetFeatures, &[0], 0)),
        message(Code::SetMemTable, &[], 0),
    ] {
        let code = message.code;
        assert!(rig.refused(message, ""), "{code}");
    }
}

#[test]
fn requests_that_are_not_known_are_refused_and_the_session_goes_on_if_it_can() {
    let mut rig = Rig::new();
    let unknown = |need_reply| {
        let request = decode(99, &[1, 2, 3], vec![file()]);
        Message { code: 99, need_reply, size: 3, request }
    };
    assert!(rig.refused(unknown(false), "request 99: request 99 is not known"));
    let took = rig.take(unknown(true));
    assert_eq!((took.number(), took.close), (Some(1), false));
}

#[test]
fn requests_of_features_that_are_not_offered_are_refused() {
    let mut rig = Rig::of(Offer { protocol_features: bit::REPLY_ACK, ..OFFER });
    let region = (0, 0x1000, MEMORY, 0);
    for message in [
        empty(Code::GetQueueNum),
        empty(Code::GetMaxMemSlots),
        slot(Code::AddMemReg, region),
        slot(Code::RemMemReg, region),
        empty(Code::ResetDevice),
        empty(Code::GetStatus),
        number(Code::SetStatus, 1),
        inflight(Code::SetInflightFd, 4096, 0, 1, 128),
    ] {
        let code = message.code;
        assert!(rig.refused(message, "its protocol feature is not offered"), "{code}");
    }
    // These change nothing that the front end relies on.
    for message in [
        message(Code::SendRarp, &[0; 8], 0),
        number(Code::NetSetMtu, 1500),
        message(Code::SetBackendReqFd, &[], 1),
        message(Code::SetConfig, &[0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1], 0),
    ] {
        let code = message.code;
        assert!(!rig.refused(message, "its protocol feature is not offered"), "{code}");
    }
    // These have a way to say no.
    let took = rig.take(config(0, 4));
    assert_eq!((took.reply, took.close), (Some(vec![]), false));
    let took = rig.take(inflight(Code::GetInflightFd, 0, 0, 1, 128));
    assert_eq!((took.reply, took.close), (Some(vec![0; 24]), false));
}

fn config(offset: u32, size: u32) -> Message {
    let mut payload = [offset, size, 0].map(u32::to_ne_bytes).concat();
    payload.resize(12 + usize::try_from(size).unwrap(), 0);
    message(Code::GetConfig, &payload, 0)
}

#[test]
fn the_device_answers_for_its_configuration_space() {
    let mut rig = Rig::new();
    rig.outcome = Outcome::Config(vec![1, 2, 3, 4]);
    let took = rig.take(config(8, 4));
    assert_eq!(took.actions, [Action::ReadConfig { offset: 8, size: 4 }]);
    assert_eq!(took.reply, Some(vec![8, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]));
    // An answer that is too short, none at all, and no such piece.
    for outcome in [Outcome::Config(vec![1, 2, 3]), Outcome::Done, Outcome::Refused] {
        rig.outcome = outcome;
        let took = rig.take(config(8, 4));
        assert_eq!((took.reply, took.close), (Some(vec![]), false));
    }
    let write = || message(Code::SetConfig, &[32, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 9], 0);
    assert_eq!(rig.ok(write()), [Action::WriteConfig { offset: 32, migration: true, data: vec![9] }]);
    // A guest that writes what it must not costs nobody the device.
    rig.outcome = Outcome::Refused;
    let took = rig.take(write());
    assert_eq!((took.reply, took.close), (None, false));
    rig.outcome = Outcome::Refused;
    assert_eq!(rig.take(wished(write())).number(), Some(1));
}

#[test]
fn a_record_of_requests_in_flight_goes_back_in_the_form_of_the_question() {
    let mut rig = Rig::new();
    let layout = crate::message::InflightLayout { size: 4096, offset: 0, rings: 2, ring_size: 128 };
    for padding in [0, 4] {
        rig.outcome = Outcome::Inflight(crate::message::InflightRegion { layout, fd: file() });
        let mut payload = vec![0; 16];
        payload.extend([2, 0, 128, 0]);
        payload.resize(20 + padding, 0);
        let took = rig.take(message(Code::GetInflightFd, &payload, 0));
        assert_eq!(took.actions, [Action::MakeInflight { rings: 2, ring_size: 128 }]);
        assert_eq!(took.reply.map(|reply| reply.len()), Some(20 + padding));
        assert!(took.fd.is_some());
    }
    // As many rings as there are, and not none.
    for (rings, ring_size) in [(0, 128), (5, 128), (2, 0)] {
        let took = rig.take(inflight(Code::GetInflightFd, 0, 0, rings, ring_size));
        assert_eq!((took.actions, took.reply), (vec![], Some(vec![0; 24])));
    }
    assert_eq!(rig.ok(inflight(Code::SetInflightFd, 4096, 0, 2, 128)), [Action::InflightChanged]);
    assert_eq!(rig.session.inflight().map(|region| region.layout), Some(layout));
    for (size, offset, rings, ring_size) in
        [(0, 0, 2, 128), (u64::MAX, 1, 2, 128), (4096, 0, 0, 128), (4096, 0, 5, 128), (4096, 0, 2, 0)]
    {
        let odd = inflight(Code::SetInflightFd, size, offset, rings, ring_size);
        assert!(rig.refused(odd, "record of requests in flight"));
    }
}

#[test]
fn a_record_of_requests_in_flight_comes_before_the_rings_start() {
    let mut rig = Rig::ready();
    rig.start(1);
    let record = || inflight(Code::SetInflightFd, 4096, 0, 2, 128);
    assert!(rig.refused(record(), "ring 1 runs"));
    rig.ok(state(Code::SetVringEnable, 1, 0));
    assert_eq!(rig.ok(record()), [Action::StopRing(1), Action::InflightChanged]);
}

#[test]
fn a_device_that_can_not_go_on_ends_the_session() {
    let failed = || Outcome::Failed("mapping 0x0: out of memory".to_owned());
    let mut rig = Rig::new();
    rig.outcome = failed();
    let took = rig.take(wished(table(&[(0, MEMORY_SIZE, MEMORY, 0)])));
    assert_eq!((took.number(), took.close), (Some(1), true));
    assert_eq!(took.refusal.as_deref(), Some("SET_MEM_TABLE: mapping 0x0: out of memory"));
    rig.outcome = failed();
    let took = rig.take(table(&[(0, MEMORY_SIZE, MEMORY, 0)]));
    assert_eq!((took.number(), took.close), (None, true));
}

#[test]
fn a_device_that_does_not_say_where_a_ring_was_ends_the_session() {
    let mut rig = Rig::ready();
    rig.start(0);
    let turn = rig.session.handle(state(Code::GetVringBase, 0, 0));
    let answer = rig.session.finish(turn, Outcome::Done);
    assert!(answer.reply.is_none() && answer.close);
    assert_eq!(answer.refusal.as_deref(), Some("GET_VRING_BASE: ring 0 was not stopped"));
}
