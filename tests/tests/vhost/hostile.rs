//! Front ends and guests that do what they may not: it costs them their session, and nobody else a packet.

use std::os::fd::AsRawFd;
use std::time::Duration;

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
