//! The program on real netdevs: modes, foreign programs, counters, steering.

mod support;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use support::{frame, ifindex, ip, load, send, with_veth};
use xdp_prog::{
    DriverFeatures, Error, ErrorKind, Mode, ModeRequest, SteerKey, Steering, VETH_NATIVE_MAX_MTU, attached_programs,
    driver_features,
};

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn xdp_socket() -> OwnedFd {
    // SAFETY: no pointers; a non-negative result is a descriptor that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0)) }
}

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
            assert_eq!(attached_programs(ifindex("sw")).unwrap().len(), 1);
        }
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
        // A socket that is bound nowhere takes no packet, but it is there.
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
        assert_eq!(driver_features(ifindex("sw")).unwrap(), DriverFeatures { native: true, zero_copy: false });
        assert_eq!(driver_features(ifindex("lo")).unwrap(), DriverFeatures { native: false, zero_copy: false });
    });
}

#[test]
fn a_steering_set_beyond_its_capacity_is_refused_whole() {
    with_veth(|| {
        let program = load(Steering::Shared);
        let key = |n: u32| SteerKey { mac: [2, 0, 0, (n >> 16) as u8, (n >> 8) as u8, n as u8], vid: None };
        let keys: BTreeSet<_> = (0..=xdp_prog::STATIONS).map(key).collect();
        assert_eq!(program.set_steering(&keys).unwrap_err().kind(), ErrorKind::Full);
        let most: BTreeSet<_> = (0..xdp_prog::STATIONS).map(key).collect();
        program.set_steering(&most).unwrap();
    });
}
