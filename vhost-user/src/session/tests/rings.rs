//! When rings run.

use super::*;

/// Whatever comes last starts it.
#[test]
fn a_ring_starts_when_it_has_all_that_it_needs() {
    type Step = fn(&mut Rig) -> Vec<Action>;
    let steps: [Step; 5] = [
        |rig| rig.ok(number(Code::SetFeatures, FEATURES)),
        |rig| rig.ok(table(&[(0, MEMORY_SIZE, MEMORY, 0)])),
        |rig| rig.ok(state(Code::SetVringNum, 1, 256)),
        |rig| rig.ok(addresses(1, ring_at(1), 0)),
        |rig| rig.ok(event(Code::SetVringKick, 1, true)),
    ];
    for last in 0..steps.len() {
        let mut rig = Rig::new();
        for (_, step) in steps.iter().enumerate().filter(|(at, _)| *at != last) {
            assert!(!step(&mut rig).contains(&Action::StartRing(1)));
        }
        assert!(steps[last](&mut rig).ends_with(&[Action::StartRing(1)]), "{last}");
    }
}

#[test]
fn a_ring_that_is_to_be_polled_starts_without_an_event() {
    let mut rig = Rig::ready();
    rig.ok(state(Code::SetVringNum, 0, 256));
    rig.ok(addresses(0, ring_at(0), 0));
    assert_eq!(rig.ok(event(Code::SetVringKick, 0, false)), [Action::StartRing(0)]);
    assert!(matches!(rig.session.ring(0).unwrap().kick, Kick::Polled));
}

#[test]
fn a_ring_says_what_it_lacks() {
    let mut rig = Rig::ready();
    let lacks = |rig: &Rig| rig.session.ring(0).unwrap().lacks(rig.session.memory(), false);
    assert_eq!(lacks(&rig), Some("size"));
    rig.ok(state(Code::SetVringNum, 0, 256));
    assert_eq!(lacks(&rig), Some("addresses"));
    // The used ring ends a byte beyond the memory.
    let [descriptors, _, available] = ring_at(0);
    let used = MEMORY + MEMORY_SIZE - (4 + 8 * 256) + 1;
    rig.ok(addresses(0, [descriptors, used, available], 0));
    assert_eq!(lacks(&rig), Some("kick"));
    assert_eq!(rig.ok(event(Code::SetVringKick, 0, true)), []);
    assert_eq!(lacks(&rig), Some("memory"));
    assert_eq!(rig.ok(addresses(0, [descriptors, used - 1, available], 0)), [Action::StartRing(0)]);
    assert_eq!(lacks(&rig), None);
}

/// Its two event areas are small.
#[test]
fn a_packed_ring_needs_the_memory_of_a_packed_ring() {
    let mut rig = Rig::ready();
    rig.ok(number(Code::SetFeatures, FEATURES | bit::RING_PACKED));
    rig.ok(state(Code::SetVringNum, 0, 255));
    let end = MEMORY + MEMORY_SIZE;
    rig.ok(addresses(0, [end - 16 * 255, end - 4, end - 4], 0));
    assert_eq!(rig.ok(event(Code::SetVringKick, 0, true)), [Action::StartRing(0)]);
}

#[test]
fn a_ring_is_stopped_by_the_question_where_it_is() {
    let mut rig = Rig::ready();
    rig.start(1);
    rig.base = RingBase(0x0001_0203);
    let took = rig.take(state(Code::GetVringBase, 1, 0));
    assert_eq!(took.actions, [Action::StopRing(1)]);
    assert_eq!(took.reply, Some(vec![1, 0, 0, 0, 3, 2, 1, 0]));
    // It says so again, and is not stopped again.
    let took = rig.take(state(Code::GetVringBase, 1, 0));
    assert_eq!((took.actions, took.reply), (vec![], Some(vec![1, 0, 0, 0, 3, 2, 1, 0])));
    // A kick starts it where it was.
    assert_eq!(rig.ok(event(Code::SetVringKick, 1, true)), [Action::StartRing(1)]);
    assert_eq!(rig.session.ring(1).unwrap().base, Some(RingBase(0x0001_0203)));
}

#[test]
fn a_ring_that_never_ran_is_where_the_front_end_said() {
    let mut rig = Rig::ready();
    rig.ok(state(Code::SetVringBase, 2, 0x1234));
    assert_eq!(rig.take(state(Code::GetVringBase, 2, 0)).reply, Some(vec![2, 0, 0, 0, 0x34, 0x12, 0, 0]));
    assert_eq!(rig.take(state(Code::GetVringBase, 3, 0)).reply, Some(vec![3, 0, 0, 0, 0, 0, 0, 0]));
    rig.ok(number(Code::SetFeatures, FEATURES | bit::RING_PACKED));
    assert_eq!(rig.take(state(Code::GetVringBase, 3, 0)).reply, Some(vec![3, 0, 0, 0, 0, 0x80, 0, 0x80]));
}

#[test]
fn events_are_swapped_while_a_ring_runs() {
    let mut rig = Rig::ready();
    // Before it runs, it only finds them when it starts.
    assert_eq!(rig.ok(event(Code::SetVringCall, 0, true)), []);
    assert_eq!(rig.ok(event(Code::SetVringErr, 0, true)), []);
    rig.start(0);
    assert_eq!(rig.ok(event(Code::SetVringCall, 0, true)), [Action::CallChanged(0)]);
    assert_eq!(rig.ok(event(Code::SetVringErr, 0, true)), [Action::ErrChanged(0)]);
    assert_eq!(rig.ok(event(Code::SetVringKick, 0, true)), [Action::KickChanged(0)]);
    assert_eq!(rig.ok(event(Code::SetVringCall, 0, false)), [Action::CallChanged(0)]);
    assert!(rig.session.ring(0).unwrap().call.is_none());
    assert_eq!(rig.ok(event(Code::SetVringKick, 0, false)), [Action::KickChanged(0)]);
    assert_eq!(rig.running, [0].into());
}

#[test]
fn a_ring_in_use_keeps_size_place_and_position() {
    let mut rig = Rig::ready();
    rig.start(0);
    assert_eq!(rig.ok(state(Code::SetVringNum, 0, 256)), [], "the same again is no change");
    assert_eq!(rig.ok(addresses(0, ring_at(0), 0)), []);
    let words = "ring 0 runs and is enabled, it must be stopped or disabled first";
    assert!(rig.refused(state(Code::SetVringNum, 0, 128), words));
    assert!(rig.refused(state(Code::SetVringBase, 0, 0), words));
    assert!(rig.refused(addresses(0, ring_at(2), 0), words));
    rig.ok(state(Code::SetVringNum, 1, 128));
}

/// Cloud-hypervisor did so for a guest's next driver, until 2022: rings were disabled, but not stopped.
#[test]
fn a_disabled_ring_that_is_set_up_anew_waits_for_its_kick() {
    type Change = fn(&mut Rig) -> Vec<Action>;
    let changes: [Change; 3] = [
        |rig| rig.ok(state(Code::SetVringNum, 0, 128)),
        |rig| rig.ok(addresses(0, ring_at(2), 0)),
        |rig| rig.ok(state(Code::SetVringBase, 0, 5)),
    ];
    for change in changes {
        let mut rig = Rig::ready();
        rig.start(0);
        rig.ok(state(Code::SetVringEnable, 0, 0));
        assert_eq!(change(&mut rig), [Action::StopRing(0)]);
        rig.ok(state(Code::SetVringBase, 0, 6));
        assert_eq!(rig.ok(event(Code::SetVringKick, 0, true)), [Action::StartRing(0)]);
        assert_eq!(rig.session.ring(0).unwrap().base, Some(RingBase(6)), "as it was set, not where it was");
    }
}

#[test]
fn a_position_that_is_set_counts_more_than_where_the_ring_was() {
    let mut rig = Rig::ready();
    rig.start(0);
    rig.ok(state(Code::SetVringEnable, 0, 0));
    assert_eq!(rig.ok(state(Code::SetVringBase, 0, 5)), [Action::StopRing(0)]);
    assert_eq!(rig.take(state(Code::GetVringBase, 0, 0)).reply, Some(vec![0, 0, 0, 0, 5, 0, 0, 0]));
}

#[test]
fn the_first_pair_is_enabled_at_first_and_others_by_request() {
    let mut rig = Rig::ready();
    (0..4).for_each(|ring| drop(rig.start(ring)));
    let enabled = |rig: &Rig| rig.session.rings().iter().map(Ring::is_enabled).collect::<Vec<_>>();
    assert_eq!(enabled(&rig), [true, true, false, false]);
    let on = |ring, on| Action::RingEnabled { ring, on };
    assert_eq!(rig.ok(state(Code::SetVringEnable, 2, 1)), [on(2, true)]);
    assert_eq!(rig.ok(state(Code::SetVringEnable, 2, 1)), []);
    assert_eq!(rig.ok(state(Code::SetVringEnable, 0, 1)), []);
    assert_eq!(rig.ok(state(Code::SetVringEnable, 1, 0)), [on(1, false)]);
    assert_eq!(enabled(&rig), [true, false, true, false]);
    // It stays so while a ring is stopped and started.
    rig.take(state(Code::GetVringBase, 2, 0));
    rig.ok(event(Code::SetVringKick, 2, true));
    assert_eq!(enabled(&rig), [true, false, true, false]);
}

/// Then there is no request to enable them (specification, "Ring states").
#[test]
fn rings_start_enabled_if_protocol_features_were_not_negotiated() {
    let mut rig = Rig::of(Offer { enabled_at_first: 0, ..OFFER });
    rig.ok(number(Code::SetFeatures, VERSION_1));
    rig.ok(table(&[(0, MEMORY_SIZE, MEMORY, 0)]));
    (0..4).for_each(|ring| drop(rig.start(ring)));
    assert!(rig.session.rings().iter().all(Ring::is_enabled));

    let mut rig = Rig::of(Offer { enabled_at_first: 0, ..OFFER });
    rig.ok(number(Code::SetFeatures, FEATURES));
    rig.ok(table(&[(0, MEMORY_SIZE, MEMORY, 0)]));
    (0..4).for_each(|ring| drop(rig.start(ring)));
    assert!(!rig.session.rings().iter().any(Ring::is_enabled));
}

#[test]
fn rings_are_stopped_when_the_connection_ends() {
    let mut rig = Rig::ready();
    rig.start(0);
    rig.start(3);
    let actions = rig.session.hang_up();
    assert_eq!(actions, [Action::StopRing(0), Action::StopRing(3)]);
    rig.carry_out(&actions);
    assert_eq!(rig.session.ring(3).unwrap().base, Some(RingBase(77)));
    assert_eq!(rig.session.hang_up(), []);
}

#[test]
fn a_device_has_as_many_rings_as_it_offers_and_256_at_most() {
    assert_eq!(Session::new(OFFER).rings().len(), 4);
    let session = Session::new(Offer { rings: 300, ..OFFER });
    assert_eq!((session.rings().len(), session.offer().rings), (256, 256));
    assert!(session.ring(255).is_some());
}

#[test]
fn positions_of_packed_rings_have_two_halves() {
    let both = PackedBase { available: 5, available_wrap: true, used: 3, used_wrap: false };
    assert_eq!(RingBase::packed(both), RingBase(0x0003_8005));
    assert_eq!(RingBase(0x0003_8005).as_packed(), both);
    // DPDK's virtio-user sends the lower half only.
    let same = PackedBase { available: 5, available_wrap: true, used: 5, used_wrap: true };
    assert_eq!(RingBase(0x8005).as_packed(), same);
    assert_eq!(RingBase(0x8000_8000).as_packed(), PackedBase { available: 0, used: 0, ..same });
    assert_eq!(RingBase::split(0xffff).as_split(), 0xffff);
    assert_eq!(RingBase(0xdead_0007).as_split(), 7);
}
