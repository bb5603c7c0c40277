//! What is negotiated.

use super::*;

#[test]
fn features_are_offered_with_the_bit_of_the_protocol() {
    let mut rig = Rig::new();
    assert_eq!(rig.number(empty(Code::GetFeatures)), OFFER.features | bit::PROTOCOL_FEATURES);
    assert_eq!(rig.number(empty(Code::GetProtocolFeatures)), ALL_PROTOCOL);
    assert_eq!(rig.number(empty(Code::GetQueueNum)), 2);
    assert_eq!(rig.number(empty(Code::GetMaxMemSlots)), 3);
}

#[test]
fn a_device_without_protocol_features_has_not_the_bit_either() {
    let mut rig = Rig::of(Offer { protocol_features: 0, ..OFFER });
    assert_eq!(rig.number(empty(Code::GetFeatures)), OFFER.features);
    assert!(rig.refused(empty(Code::GetProtocolFeatures), "not offered"));
    assert!(rig.refused(number(Code::SetProtocolFeatures, 0), "not offered"));
}

#[test]
fn protocol_features_can_be_set_before_virtio_features() {
    let mut rig = Rig::new();
    rig.ok(number(Code::SetProtocolFeatures, bit::MQ | bit::REPLY_ACK));
    assert_eq!(rig.session.protocol_features(), bit::MQ | bit::REPLY_ACK);
    assert_eq!(rig.session.features(), None);
}

#[test]
fn features_that_are_not_offered_are_refused() {
    let mut rig = Rig::new();
    assert!(
        rig.refused(number(Code::SetFeatures, FEATURES | 1 << 15), "SET_FEATURES: features 0x8000 are not offered")
    );
    let protocol = number(Code::SetProtocolFeatures, ALL_PROTOCOL | 1 << 14);
    assert!(rig.refused(protocol, "SET_PROTOCOL_FEATURES: features 0x4000 are not offered"));
    assert!(!rig.refused(wished(number(Code::SetFeatures, 1)), "not offered"), "who is told may go on");
}

#[test]
fn migration_may_begin_while_rings_run() {
    let mut rig = Rig::ready();
    rig.start(0);
    let log = || message(Code::SetLogBase, &[0x1000_u64, 0].map(u64::to_ne_bytes).concat(), 1);
    assert_eq!(rig.ok(log()), [Action::LogChanged]);
    assert!(rig.session.log().is_none(), "not before the feature is set");
    assert_eq!(rig.ok(number(Code::SetFeatures, FEATURES | bit::LOG_ALL)), [Action::FeaturesChanged]);
    assert_eq!(rig.session.log().map(|log| log.size), Some(0x1000));
    assert_eq!(rig.ok(addresses(0, ring_at(0), 0x5000)), [Action::RingLogChanged(0)]);
    // The log grows with the guest's memory.
    assert_eq!(rig.ok(log()), [Action::LogChanged]);
    // Another pair says the same.
    assert_eq!(rig.ok(number(Code::SetFeatures, FEATURES | bit::LOG_ALL)), []);
    assert_eq!(rig.ok(number(Code::SetFeatures, FEATURES)), [Action::FeaturesChanged]);
    assert!(rig.session.log().is_none());
    assert_eq!(rig.ok(addresses(0, ring_at(0), 0)), [Action::RingLogChanged(0)]);
    assert_eq!(rig.running, [0].into());
}

#[test]
fn other_features_change_only_while_no_ring_runs() {
    let mut rig = Rig::ready();
    rig.start(0);
    let packed = || number(Code::SetFeatures, FEATURES | bit::RING_PACKED);
    assert!(rig.refused(packed(), "0x400000000 can't change while a ring runs and is enabled"));
    rig.take(state(Code::GetVringBase, 0, 0));
    assert_eq!(rig.ok(packed()), [Action::FeaturesChanged]);
    assert!(rig.session.is_packed());
    // A disabled ring stops for that, and waits for its kick.
    rig.ok(event(Code::SetVringKick, 0, true));
    rig.ok(state(Code::SetVringEnable, 0, 0));
    let split = number(Code::SetFeatures, FEATURES);
    assert_eq!(rig.ok(split), [Action::StopRing(0), Action::FeaturesChanged]);
    assert_eq!(rig.ok(event(Code::SetVringKick, 0, true)), [Action::StartRing(0)]);
}

#[test]
fn a_log_is_acknowledged_if_it_is_shared_and_that_was_negotiated() {
    let log = || message(Code::SetLogBase, &[0x1000_u64, 0].map(u64::to_ne_bytes).concat(), 1);
    let mut rig = Rig::new();
    rig.ok(log());
    rig.ok(number(Code::SetProtocolFeatures, bit::LOG_SHMFD));
    assert_eq!(rig.number(log()), 0);
    // Once, however the front end asks for it.
    assert_eq!(rig.number(wished(log())), 0);
    // Nobody but the front end has that memory.
    let took = rig.take(number(Code::SetLogBase, 0x1000));
    assert_eq!((took.number(), took.close), (Some(1), false));
    assert!(took.refusal.unwrap().contains("log of written pages: no descriptor"));
    for (size, offset) in [(0, 0), (u64::MAX, 1)] {
        let odd = message(Code::SetLogBase, &[size, offset].map(u64::to_ne_bytes).concat(), 1);
        assert_eq!(rig.take(odd).number(), Some(1));
    }
    assert_eq!(rig.ok(message(Code::SetLogFd, &[], 1)), [Action::LogChanged]);
    assert!(rig.session.log_event().is_some());
}

#[test]
fn the_driver_s_status_is_kept() {
    let mut rig = Rig::new();
    assert_eq!(rig.number(empty(Code::GetStatus)), 0);
    assert_eq!(rig.ok(number(Code::SetStatus, 0x0b)), [Action::StatusChanged(0x0b)]);
    assert_eq!(rig.number(empty(Code::GetStatus)), 0x0b);
    assert!(rig.refused(number(Code::SetStatus, 0x100), "status 0x100 has more than 8 bits"));
}

/// Front ends do not say everything again after a reset, so the rest stays.
#[test]
fn a_reset_forgets_features_and_rings_and_nothing_else() {
    let resets: [fn() -> Message; 2] = [|| empty(Code::ResetDevice), || number(Code::SetStatus, 0)];
    for reset in resets {
        let mut rig = Rig::ready();
        rig.ok(number(Code::SetProtocolFeatures, bit::MQ));
        rig.ok(number(Code::SetStatus, 7));
        rig.ok(state(Code::SetVringEnable, 1, 0));
        rig.start(0);
        rig.start(1);
        assert_eq!(rig.ok(reset()), [Action::StopRing(0), Action::StopRing(1), Action::Reset]);
        assert_eq!((rig.session.features(), rig.session.status()), (None, 0));
        assert_eq!(rig.session.protocol_features(), bit::MQ);
        assert_eq!(rig.session.memory().regions().len(), 1);
        assert!(rig.session.ring(0).unwrap().call.is_some());
        rig.ok(number(Code::SetFeatures, FEATURES));
        assert_eq!(rig.start(1), [Action::StartRing(1)]);
        assert!(rig.session.ring(1).unwrap().is_enabled(), "as at first");
    }
}

/// QEMU 7.2 resets the status of a guest that is paused, and asks for the positions then. They are where it goes on.
#[test]
fn positions_outlive_a_reset_of_the_status() {
    let mut rig = Rig::ready();
    rig.start(1);
    assert_eq!(rig.ok(number(Code::SetStatus, 0)), [Action::StopRing(1), Action::Reset]);
    assert_eq!(rig.take(state(Code::GetVringBase, 1, 0)).reply, Some(vec![1, 0, 0, 0, 77, 0, 0, 0]));
}

#[test]
fn positions_do_not_outlive_a_reset_of_the_device() {
    let mut rig = Rig::ready();
    rig.start(1);
    assert_eq!(rig.ok(empty(Code::ResetDevice)), [Action::StopRing(1), Action::Reset]);
    assert_eq!(rig.session.ring(1).unwrap().lacks(rig.session.memory(), false), Some("size"));
    assert_eq!(rig.take(state(Code::GetVringBase, 1, 0)).reply, Some(vec![1, 0, 0, 0, 0, 0, 0, 0]));
}

#[test]
fn what_once_ended_sessions_does_nothing() {
    let mut rig = Rig::ready();
    rig.start(0);
    let before = format!("{:?}", rig.session);
    assert_eq!(rig.ok(empty(Code::ResetOwner)), []);
    assert_eq!(rig.number(wished(empty(Code::ResetOwner))), 0);
    assert_eq!(format!("{:?}", rig.session), before);
}

#[test]
fn owner_mtu_announcement_and_channel_are_told() {
    let mut rig = Rig::new();
    assert!(!rig.session.is_owned());
    rig.ok(empty(Code::SetOwner));
    assert!(rig.session.is_owned());
    assert_eq!(rig.ok(number(Code::NetSetMtu, 1500)), [Action::MtuChanged(1500)]);
    assert_eq!(rig.session.mtu(), Some(1500));
    for mtu in [0, 67, 9001, 65_536 + 1500] {
        assert!(!rig.refused(number(Code::NetSetMtu, mtu), "68 to 9000 are possible"), "{mtu}");
    }
    let announce = message(Code::SendRarp, &[2, 0, 0, 0, 0, 9, 0, 0], 0);
    assert_eq!(rig.ok(announce), [Action::SendRarp([2, 0, 0, 0, 0, 9])]);
    assert_eq!(rig.ok(message(Code::SetBackendReqFd, &[], 1)), [Action::BackendChannelChanged]);
    assert!(rig.session.backend_channel().is_some());
}
