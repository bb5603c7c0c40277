//! The port's program on real netdevs: modes, foreign programs, counters, steering.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::collections::BTreeSet;
use std::os::fd::AsFd;

use support::{frame, ifindex, ip, load, load_for, send, udp, with_veth, xdp_socket};
use xdp_prog::{
    DriverFeatures, Error, ErrorKind, LoadOptions, Mode, ModeRequest, PortProgram, SteerKey, Steering,
    VETH_NATIVE_MAX_MTU, attached_programs, driver_features,
};

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];

#[test]
fn each_mode_is_reported_and_detaching_leaves_nothing() {
    with_veth(|| {
        for (request, mode) in [
            (ModeRequest::Auto, Mode::Native),
            (ModeRequest::Native, Mode::Native),
            (ModeRequest::Generic, Mode::Generic),
        ] {
            let mut program = load(Steering::All);
            let attached = program.attach(request).unwrap();
            assert_eq!((attached.mode, attached.fallback_reason), (mode, None));
            assert_eq!(program.mode(), Some(mode));
            let there = attached_programs(ifindex("sw")).unwrap();
            assert_eq!((there.len(), there[0].id, there[0].mode), (1, program.id(), mode));
            assert_eq!(there[0].name, "xswitch_port");
            program.detach().unwrap();
            program.detach().unwrap();
            assert_eq!(attached_programs(ifindex("sw")).unwrap(), []);
        }
    });
}

#[test]
fn a_foreign_program_on_either_hook_is_named_and_left_alone() {
    with_veth(|| {
        for (theirs, ours) in [
            (ModeRequest::Native, ModeRequest::Native),
            (ModeRequest::Native, ModeRequest::Generic),
            (ModeRequest::Generic, ModeRequest::Auto),
        ] {
            let mut foreign = load(Steering::All);
            foreign.attach(theirs).unwrap();
            let error = load(Steering::All).attach(ours).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Busy);
            let Error::Foreign { program, .. } = &error else { panic!("{error}") };
            assert_eq!((program.id, program.name.as_str()), (foreign.id(), "xswitch_port"));
            assert!(error.to_string().contains(&format!("`xswitch_port` (id {}", foreign.id())), "{error}");
            let off = if theirs == ModeRequest::Native { "xdpdrv off" } else { "xdpgeneric off" };
            assert!(error.to_string().contains(off), "{error}");
            assert_eq!(attached_programs(ifindex("sw")).unwrap().len(), 1);
        }
    });
}

#[test]
fn a_second_attach_is_not_blamed_on_somebody_else() {
    with_veth(|| {
        let mut program = load(Steering::All);
        program.attach(ModeRequest::Native).unwrap();
        let error = program.attach(ModeRequest::Generic).unwrap_err();
        assert!(matches!(error, Error::Attached { mode: Mode::Native, .. }), "{error}");
        assert_eq!(program.mode(), Some(Mode::Native));
    });
}

#[test]
fn detaching_after_the_netdev_went_is_no_error() {
    with_veth(|| {
        let mut program = load(Steering::All);
        program.attach(ModeRequest::Native).unwrap();
        ip("link del sw");
        program.detach().unwrap();
        assert_eq!(program.mode(), None);
    });
}

#[test]
fn too_few_receive_queues_end_in_generic_mode_with_the_reason() {
    with_veth(|| {
        ip("link add sw1 numtxqueues 1 numrxqueues 1 type veth peer name vm1 numtxqueues 4 numrxqueues 4");
        let error = load_for("sw1", 1, Steering::All).unwrap().attach(ModeRequest::Native).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("rx queues") && error.to_string().contains("ethtool -L"), "{error}");
        let attached = load_for("sw1", 1, Steering::All).unwrap().attach(ModeRequest::Auto).unwrap();
        assert_eq!(attached.mode, Mode::Generic);
        assert!(attached.fallback_reason.unwrap().contains("rx queues"));
    });
}

#[test]
fn only_the_other_ends_mtu_limits_a_veth() {
    with_veth(|| {
        ip("link set sw mtu 9000");
        assert_eq!(load(Steering::All).attach(ModeRequest::Native).unwrap().mode, Mode::Native);
    });
}

#[test]
fn a_program_that_takes_several_buffers_has_no_limit_of_a_page() {
    with_veth(|| {
        ip("link set vm mtu 65535");
        let options = LoadOptions {
            ifname: "sw".into(),
            ifindex: ifindex("sw"),
            queues: 1,
            steering: Steering::Shared,
            multi_buffer: true,
            flows: None,
        };
        let attached = PortProgram::load(&options).unwrap().attach(ModeRequest::Native).unwrap();
        assert_eq!(attached.mode, Mode::Native);
    });
}

#[test]
fn a_number_of_queues_out_of_range_is_refused() {
    with_veth(|| {
        for queues in [0, xdp_prog::MAX_QUEUES + 1] {
            let error = load_for("sw", queues, Steering::All).unwrap_err();
            assert!(error.to_string().contains("1 to 1024"), "{error}");
        }
    });
}

#[test]
fn a_port_has_a_slot_and_a_row_for_each_of_its_queues() {
    with_veth(|| {
        for queues in [1, 65, xdp_prog::MAX_QUEUES] {
            let program = load_for("sw", queues, Steering::All).unwrap();
            assert_eq!(program.counters().unwrap().len(), queues as usize);
            program.set_socket(queues - 1, xdp_socket().as_fd()).unwrap();
            assert!(program.set_socket(queues, xdp_socket().as_fd()).is_err(), "the map is no larger than the port");
        }
    });
}

#[test]
fn packets_of_a_queue_that_the_port_does_not_have_are_dropped_and_counted() {
    with_veth(|| {
        // The netdev has two queues, and the port has only the first. Flows spread over both by their hash.
        let mut program = load_for("sw", 1, Steering::All).unwrap();
        program.attach(ModeRequest::Native).unwrap();
        let flows: Vec<_> = (0..64).map(|n| udp(OURS, 1000 + n * 77)).collect();
        send(&flows.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let [counters] = program.counters().unwrap()[..] else { panic!("one row a queue") };
        assert!(counters.drop_queue > 0 && counters.drop_no_socket > 0, "{counters:?}");
        assert_eq!(counters.drop_queue + counters.drop_no_socket, 64);
    });
}

#[test]
fn a_cut_off_vlan_tag_is_not_the_untagged_segment() {
    with_veth(|| {
        let mut program = load(Steering::Shared);
        program.set_steering(&BTreeSet::from([SteerKey { mac: OURS, vid: Some(0) }])).unwrap();
        program.attach(ModeRequest::Native).unwrap();
        let tagged = frame(OURS, Some(7));
        send(&[&tagged[..16], &frame(OURS, None)]);
        let counters = program.counters().unwrap();
        let sum = |which: fn(&xdp_prog::QueueCounters) -> u64| counters.iter().map(which).sum::<u64>();
        assert_eq!((sum(|c| c.pass), sum(|c| c.drop_no_socket)), (1, 1));
    });
}

#[test]
fn native_mode_ends_at_the_veth_limit_and_says_why() {
    with_veth(|| {
        let native = |mtu: u32| {
            ip(&format!("link set vm mtu {mtu}"));
            load(Steering::All).attach(ModeRequest::Native)
        };
        assert!(native(VETH_NATIVE_MAX_MTU).is_ok());
        let error = native(VETH_NATIVE_MAX_MTU + 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let text = error.to_string();
        assert!(text.contains("MTU is too large") && text.contains(&VETH_NATIVE_MAX_MTU.to_string()), "{text}");
        assert_eq!(attached_programs(ifindex("sw")).unwrap(), [], "asking for the kernel's words leaves nothing");
        let attached = load(Steering::All).attach(ModeRequest::Auto).unwrap();
        assert_eq!(attached.mode, Mode::Generic);
        assert!(attached.fallback_reason.unwrap().contains("MTU is too large"));
    });
}

#[test]
fn every_packet_is_counted_by_what_became_of_it() {
    with_veth(|| {
        let mut program = load(Steering::All);
        program.attach(ModeRequest::Native).unwrap();
        send(&[&frame(OURS, None), &frame(OURS, Some(7))]);
        let sum = |counters: fn(&xdp_prog::QueueCounters) -> u64| {
            program.counters().unwrap().iter().map(counters).sum::<u64>()
        };
        assert_eq!((sum(|c| c.drop_no_socket), sum(|c| c.redirect)), (2, 0));
        // An unbound socket takes no packet, but it fills the slot.
        let socket = xdp_socket();
        for queue in 0..2 {
            program.set_socket(queue, socket.as_fd()).unwrap();
        }
        send(&[&frame(OURS, None)]);
        assert_eq!((sum(|c| c.drop_no_socket), sum(|c| c.redirect)), (2, 1));
        for queue in 0..2 {
            program.clear_socket(queue).unwrap();
            program.clear_socket(queue).unwrap();
        }
        send(&[&frame(OURS, None)]);
        assert_eq!((sum(|c| c.drop_no_socket), sum(|c| c.redirect)), (3, 1));
    });
}

fn shared_steering_follows_its_set(mode: ModeRequest) {
    with_veth(|| {
        let mut program = load(Steering::Shared);
        program.attach(mode).unwrap();
        let set = |keys: &[(Option<u16>, [u8; 6])]| {
            let keys: BTreeSet<_> = keys.iter().map(|&(vid, mac)| SteerKey { mac, vid }).collect();
            program.set_steering(&keys).unwrap();
        };
        let mut before = (0, 0, 0);
        let mut came = |frames: &[&[u8]]| {
            send(frames);
            let counters = program.counters().unwrap();
            let sum = |which: fn(&xdp_prog::QueueCounters) -> u64| counters.iter().map(which).sum::<u64>();
            let now = (sum(|c| c.drop_no_socket), sum(|c| c.pass), sum(|c| c.pass_group));
            let since = (now.0 - before.0, now.1 - before.1, now.2 - before.2);
            before = now;
            since
        };
        let (plain, tagged, other) = (frame(OURS, None), frame(OURS, Some(7)), frame(OTHER, None));
        let group = frame([0xff; 6], None);
        let all: [&[u8]; 4] = [&plain, &tagged, &other, &group];
        assert_eq!(came(&all), (0, 3, 1));
        set(&[(Some(0), OURS)]);
        assert_eq!(came(&all), (1, 2, 1));
        set(&[(Some(7), OURS), (Some(0), OTHER)]);
        assert_eq!(came(&all), (2, 1, 1));
        set(&[(None, OURS)]);
        assert_eq!(came(&all), (2, 1, 1));
        set(&[]);
        assert_eq!(came(&all), (0, 3, 1));
    });
}

#[test]
fn shared_steering_follows_its_set_in_native_mode() {
    shared_steering_follows_its_set(ModeRequest::Native);
}

#[test]
fn shared_steering_follows_its_set_in_generic_mode() {
    shared_steering_follows_its_set(ModeRequest::Generic);
}

#[test]
fn a_driver_tells_what_it_can_do() {
    with_veth(|| {
        assert_eq!(
            driver_features(ifindex("sw")).unwrap(),
            DriverFeatures { native: true, multi_buffer: true, ..DriverFeatures::default() }
        );
        assert_eq!(driver_features(ifindex("lo")).unwrap(), DriverFeatures::default());
    });
}

#[test]
fn a_steering_set_beyond_its_capacity_is_refused_whole() {
    with_veth(|| {
        let program = load(Steering::Shared);
        let key = |n: u32| {
            let [_, n @ ..] = n.to_be_bytes();
            SteerKey { mac: [2, 0, 0, n[0], n[1], n[2]], vid: None }
        };
        let keys: BTreeSet<_> = (0..=xdp_prog::STATIONS).map(key).collect();
        assert_eq!(program.set_steering(&keys).unwrap_err().kind(), ErrorKind::Full);
        let most: BTreeSet<_> = (0..xdp_prog::STATIONS).map(key).collect();
        program.set_steering(&most).unwrap();
        // Both sets are full and have no key in common.
        let others: BTreeSet<_> = (xdp_prog::STATIONS..2 * xdp_prog::STATIONS).map(key).collect();
        program.set_steering(&others).unwrap();
    });
}
