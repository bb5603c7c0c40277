//! Front ends and guests that do what they may not: it costs them their session, and nobody else a packet.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde_json::json;
use tests::random::Random;
use tests::stream::while_streaming;
use tests::{Daemon, wait};

use super::front_end::{FrontEnd, MEMORY, SIZE, parts};
use super::{PATIENCE, Server, add_port, start_guest, vhost};

/// Malformed sessions in one run.
const SESSIONS: u64 = 1000;

/// Bytes that are no messages, or nearly.
fn babble(front_end: &mut FrontEnd, random: &mut Random) {
    for _ in 0..1 + random.below(8) {
        let payload: Vec<u8> = (0..random.below(80)).map(|_| random.number().to_le_bytes()[0]).collect();
        let fds = vec![front_end.memory.as_raw_fd(); usize::try_from(random.below(4)).expect("few")];
        let sent = match random.below(3) {
            0 => front_end.send_bytes(&[&[1], &payload[..]].concat(), &fds),
            _ => front_end.send(u32::try_from(random.below(50)).expect("a number"), &payload, &fds),
        };
        if !sent {
            return;
        }
    }
}

/// Descriptors, indices and flags at random, or nearly right, while the ring is polled.
fn scramble(front_end: &FrontEnd, random: &mut Random) {
    for ring in [0, 1] {
        let parts = parts(ring);
        for entry in 0..u64::from(SIZE) {
            let addr = match random.below(4) {
                0 => random.number(),
                1 => MEMORY - random.below(64),
                _ => random.below(MEMORY),
            };
            let len: u32 = *random.one_of(&[60, 72, 2000, 70_000, u32::MAX]);
            let flags = u16::try_from(random.below(8)).expect("flags");
            let next = u16::try_from(random.below(u64::from(SIZE) + 4)).expect("an index");
            let descriptor =
                [&addr.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat();
            front_end.write(parts.descriptors + 16 * entry, &descriptor);
            front_end.write(parts.available + 4 + 2 * entry, &next.to_le_bytes());
        }
        let index = u16::try_from(random.below(80)).expect("an index");
        front_end.write(parts.available + 2, &index.to_le_bytes());
    }
    front_end.kick();
}

/// One session of a bad guest. It ends by its own doing, or by the switch's.
fn misbehave(mut front_end: FrontEnd, random: &mut Random) {
    match random.below(5) {
        0 => babble(&mut front_end, random),
        1 => {
            front_end.start_rings();
            scramble(&front_end, random);
            babble(&mut front_end, random);
        }
        2 => {
            // The memory goes while it is used.
            scramble(&front_end, random);
            front_end.start_rings();
            let _ = front_end.memory.set_len(random.below(MEMORY));
            front_end.kick();
            std::thread::sleep(Duration::from_micros(random.below(3000)));
        }
        _ => {
            front_end.start_rings();
            for _ in 0..random.below(4) {
                scramble(&front_end, random);
                std::thread::sleep(Duration::from_micros(random.below(1000)));
            }
        }
    }
}

#[test]
fn a_thousand_bad_sessions_cost_nobody_else_a_packet() {
    let daemon = Daemon::start("vhostbad");
    let (a, b) = (daemon.guest("one", json!({})), daemon.guest("two", json!({})));
    let socket = add_port(&daemon, "bad", Server::Switch, 1);
    let mut random = Random(0x5eed);
    let mut turned_away = 0;
    while_streaming(&a, &b, |is_whole| {
        for _ in 0..SESSIONS {
            if !is_whole() {
                return;
            }
            match FrontEnd::connect(&socket) {
                Some(front_end) => misbehave(front_end, &mut random),
                None => turned_away += 1,
            }
        }
    });
    assert!(turned_away < SESSIONS / 2, "{turned_away} of {SESSIONS} could not connect");
    let info = vhost(&daemon, "bad");
    assert!(info["sessions"].as_u64().is_some_and(|sessions| sessions > 100), "{info}");
    daemon.assert_balanced();
    // An honest guest finds all in order.
    wait::expect("nobody is connected", PATIENCE, || vhost(&daemon, "bad")["connected"] == false);
    let mut vm = start_guest(&socket, Server::Switch, 1, 1, &[]);
    vm.wait_ready();
    a.address("10.0.0.9/24");
    assert!(vm.pings("10.0.0.9"));
    daemon.finish();
}

/// Has a write to that event wait for ever.
fn fill(event: &OwnedFd) {
    let set = |flags| fcntl(event, FcntlArg::F_SETFL(flags)).expect("a mode");
    set(OFlag::O_NONBLOCK);
    while nix::unistd::write(event, &(u64::MAX - 1).to_ne_bytes()).is_err() {
        // The switch has called meanwhile.
        let _ = nix::unistd::read(event, &mut [0; 8]);
    }
    set(OFlag::empty());
}

/// Bursts that are sent while the call can't be written to.
const BURSTS: u16 = 500;

#[test]
fn a_call_that_blocks_stops_nobody() {
    let daemon = Daemon::start("vhostcall");
    let (a, b) = (daemon.guest("one", json!({})), daemon.guest("two", json!({})));
    let socket = add_port(&daemon, "bad", Server::Switch, 1);
    let front_end = FrontEnd::connect(&socket).expect("a port that takes a guest");
    // The header, then a packet for a station that nobody has.
    let packet = [&[0; 12][..], &[2, 0, 0, 0, 0, 99, 2, 0, 0, 0, 0, 98, 8, 0], &[0; 46]].concat();
    front_end.write_packets(&packet);
    front_end.calls.iter().for_each(fill);
    assert!(front_end.start_rings());
    wait::expect("its rings run", PATIENCE, || vhost(&daemon, "bad")["active_pairs"] == 1);
    while_streaming(&a, &b, |is_whole| {
        for burst in 1..=BURSTS {
            front_end.calls.iter().for_each(fill);
            front_end.send_up_to(burst.wrapping_mul(7));
            wait::expect("packets are taken", PATIENCE, || front_end.taken() == burst.wrapping_mul(7) || !is_whole());
        }
    });
    assert_eq!(front_end.taken(), BURSTS.wrapping_mul(7));
    daemon.finish();
}

#[test]
fn a_call_that_is_no_event_is_refused() {
    let daemon = Daemon::start("vhostpipe");
    let socket = add_port(&daemon, "a", Server::Switch, 1);
    for kick in [false, true] {
        let mut front_end = FrontEnd::connect(&socket).expect("a port that takes a guest");
        // Nobody reads it, so a write would wait some time.
        let (reader, writer) = nix::unistd::pipe().expect("a pipe");
        if kick {
            front_end.kicks[1] = reader
        } else {
            front_end.calls[1] = writer
        }
        front_end.start_rings();
        assert!(front_end.is_hung_up());
        let expected = format!("the {} of ring 1: the descriptor is no eventfd", if kick { "kick" } else { "call" });
        wait::expect("it is told", PATIENCE, || {
            vhost(&daemon, "a")["last_error"].as_str().is_some_and(|error| error.contains(&expected))
        });
    }
    daemon.finish();
}

#[test]
fn a_broken_ring_is_told_by_its_error_event() {
    let daemon = Daemon::start("vhosterr");
    let socket = add_port(&daemon, "a", Server::Switch, 1);
    let mut front_end = FrontEnd::connect(&socket).expect("a port that takes a guest");
    front_end.errs.iter().for_each(|event| assert!(nix::unistd::read(event, &mut [0; 8]).is_err()));
    assert!(front_end.start_rings());
    wait::expect("its rings run", PATIENCE, || vhost(&daemon, "a")["active_pairs"] == 1);
    // More than the ring has entries.
    front_end.send_up_to(SIZE + 1);
    assert!(front_end.is_hung_up());
    assert!(nix::unistd::read(&front_end.errs[1], &mut [0; 8]).is_ok());
    assert!(nix::unistd::read(&front_end.errs[0], &mut [0; 8]).is_err(), "the other ring is whole");
    daemon.finish();
}

#[test]
fn a_guest_whose_memory_shrinks_loses_its_session() {
    let daemon = Daemon::start("vhostshrink");
    let socket = add_port(&daemon, "a", Server::Switch, 1);
    let mut front_end = FrontEnd::connect(&socket).expect("a port that takes a guest");
    assert!(front_end.start_rings());
    wait::expect("its rings run", PATIENCE, || vhost(&daemon, "a")["active_pairs"] == 1);
    front_end.memory.set_len(0).expect("a file that can shrink");
    front_end.kick();
    assert!(front_end.is_hung_up());
    wait::expect("it is told", PATIENCE, || {
        vhost(&daemon, "a")["last_error"].as_str().is_some_and(|error| error.contains("memory"))
    });
    daemon.finish();
}

#[test]
fn a_second_front_end_is_turned_away() {
    let daemon = Daemon::start("vhosttwo");
    let socket = add_port(&daemon, "a", Server::Switch, 1);
    let first = FrontEnd::connect(&socket).expect("a port that takes a guest");
    assert!(first.start_rings());
    wait::expect("its rings run", PATIENCE, || vhost(&daemon, "a")["active_pairs"] == 1);
    let mut second = FrontEnd::connect(&socket).expect("a socket");
    assert!(second.is_hung_up());
    assert_eq!(vhost(&daemon, "a")["active_pairs"], 1, "the first one goes on");
    drop(first);
    let third = || FrontEnd::connect(&socket).is_some_and(|front_end| front_end.start_rings());
    wait::expect("the next one is taken", PATIENCE, third);
    daemon.finish();
}
