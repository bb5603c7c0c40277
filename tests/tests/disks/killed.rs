//! What was acknowledged outlives the daemon, however it ends.

use std::collections::BTreeMap;
use std::time::Duration;

use disk::client::{GuestSpec, Task};
use serde_json::{Value, json};
use tests::random::Random;
use tests::{Daemon, http, wait};

use crate::{PATIENCE, SECTOR, comes_up, guest, lock, state};

#[test]
fn a_guest_goes_on_with_its_disk_after_the_daemon_was_killed() {
    let mut daemon = Daemon::start("disk-kill");
    daemon.ok("POST", "disks", json!({ "name": "vm1", "size": 8 << 20, "queues": 2, "pvf_id": 3 }));
    let mut guest = guest(&daemon, "vm1", GuestSpec { queues: 2, ..GuestSpec::default() });
    assert_eq!(guest.sectors(), (8 << 20) / SECTOR);
    for round in 0..5_u8 {
        let at = u64::from(round) * 8;
        assert_eq!(guest.queues[0].run(&Task::write(at, vec![round + 1; 4096])).0, 0);
        // Requests are in work when it is killed.
        let number = guest.queues[1].add(&Task::write(4096 + at, vec![round + 1; 4096])).expect("room");
        guest.queues[1].publish();
        daemon.kill();
        daemon.launch();
        guest.connect(&daemon.path("run/disks/vm1.sock"));
        let done = guest.queues[1].wait(Duration::from_secs(30));
        assert_eq!(done, Some((number, 0)), "a request in work is done by the next daemon");
        for sector in [at, 4096 + at] {
            let (status, bytes) = guest.queues[0].run(&Task::read(sector, 4096));
            assert_eq!((status, bytes), (0, vec![round + 1; 4096]), "sector {sector}");
        }
    }
    drop(guest);
    daemon.ok("POST", "disks/3/pause", json!({}));
    daemon.kill();
    daemon.launch();
    comes_up(&daemon, "vm1");
    let disk = daemon.get("disks/3");
    assert_eq!((&disk["info"]["paused"], &disk["info"]["transport"]), (&json!(true), &json!("paused")), "{disk}");
    daemon.finish();
}

/// Asks a daemon that may be killed meanwhile.
fn ask(daemon: &Daemon, method: &str, target: &str, body: &Value) -> Option<u16> {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let target = format!("/api/v1/{target}");
    http::over_unix(&daemon.path("run/api.sock"), method, &target, &body).ok().map(|answer| answer.status)
}

/// What a disk was acknowledged to be: bytes, and whether it is paused.
type Known = BTreeMap<String, (u64, bool)>;

/// Changes disks until the daemon is gone. Returns the disks of which the last change was acknowledged, and those
/// that nobody knows of.
fn change_until_killed(daemon: &Daemon, client: u64, known: &mut Known) -> Vec<String> {
    let mut random = Random(client * 7919 + 1);
    loop {
        let name = format!("c{client}-{}", random.below(4));
        let there = known.get(&name).copied();
        let (bytes, paused) = there.unwrap_or_default();
        let grown = bytes + (1 << 20);
        let (method, target, body, after) = match (there, random.below(4)) {
            (None, _) => ("POST", "disks".to_owned(), json!({ "name": name, "size": 1 << 20 }), Some((1 << 20, false))),
            (_, 0) => ("DELETE", format!("disks/{name}?delete_image=true"), Value::Null, None),
            (_, 1) => ("PATCH", format!("disks/{name}"), json!({ "size": grown }), Some((grown, paused))),
            (_, 2) => ("POST", format!("disks/{name}/pause"), json!({}), Some((bytes, true))),
            _ => ("POST", format!("disks/{name}/resume"), json!({}), Some((bytes, false))),
        };
        match ask(daemon, method, &target, &body) {
            Some(status) => {
                assert!((200..300).contains(&status), "{method} {target}: {status}");
                match after {
                    Some(after) => drop(known.insert(name, after)),
                    None => drop(known.remove(&name)),
                }
            }
            // It may have been done, or not.
            None => {
                known.remove(&name);
                return vec![name];
            }
        }
    }
}

#[test]
fn two_clients_change_disks_and_all_that_was_acknowledged_is_there_after_a_kill() {
    let mut daemon = Daemon::start("disk-acked");
    let mut known = [Known::new(), Known::new()];
    for round in 0..4_u64 {
        let unknown: Vec<String> = std::thread::scope(|scope| {
            let daemon = &daemon;
            let changes = (0..)
                .zip(&mut known)
                .map(|(client, known)| scope.spawn(move || change_until_killed(daemon, client + 2 * round, known)));
            let changes: Vec<_> = changes.collect();
            let count = || daemon.get("disks").as_array().map_or(0, Vec::len);
            wait::expect("disks are there", PATIENCE, || count() >= 2);
            std::thread::sleep(Duration::from_millis(50 + 40 * round));
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(daemon.pid()), nix::sys::signal::Signal::SIGKILL)
                .expect("it runs");
            changes.into_iter().flat_map(|client| client.join().expect("a client")).collect()
        });
        daemon.kill();
        daemon.launch();
        let all: Vec<_> = known.iter().flatten().collect();
        for (name, (bytes, paused)) in all {
            comes_up(&daemon, name);
            let disk = daemon.get(&format!("disks/{name}"));
            assert_eq!((&disk["info"]["bytes"], &disk["info"]["paused"]), (&json!(bytes), &json!(paused)), "{disk}");
        }
        // Clients of the next round have other names. These go, but for the first of each.
        let disks = daemon.get("disks");
        for disk in disks.as_array().expect("disks") {
            let name = disk["name"].as_str().expect("a name");
            let is_known = known.iter().any(|known| known.contains_key(name));
            assert!(is_known || unknown.iter().any(|other| other == name), "{name} was deleted");
            daemon.ok("DELETE", &format!("disks/{name}?delete_image=true"), Value::Null);
        }
        known = [Known::new(), Known::new()];
    }
    daemon.finish();
}

#[test]
fn a_disk_that_waits_for_its_image_delays_neither_start_nor_ports_and_comes_back() {
    let mut daemon = Daemon::start("disk-wait");
    for name in ["locked", "free", "gone"] {
        daemon.ok("POST", "disks", json!({ "name": name }));
    }
    let image = |name: &str| daemon.path(&format!("state/disks/{name}.img"));
    let (locked, gone, aside) = (image("locked"), image("gone"), image("aside"));
    daemon.stop();
    let held = lock(&locked).expect("nobody has it");
    std::fs::rename(&gone, &aside).expect("it is there");
    daemon.launch();
    // The lock is waited for, and meanwhile all else works.
    assert_ne!(state(&daemon, "locked"), "up");
    daemon.ok("POST", "disks", json!({ "name": "new" }));
    let port = daemon.guest("vm1", json!({}));
    assert_eq!(daemon.get(&format!("ports/{}", port.name))["state"], "up");
    comes_up(&daemon, "free");
    assert_ne!(state(&daemon, "locked"), "up", "somebody else has its image");
    wait::expect("a disk without an image has failed", PATIENCE, || state(&daemon, "gone") == "failed");
    let why = daemon.get("disks/gone")["error"].as_str().expect("a reason").to_owned();
    assert!(why.starts_with("path: ") && why.contains("gone.img"), "{why}");
    assert!(!gone.exists(), "no empty image takes the place of one that is gone");
    let (status, answer) = daemon.call("POST", "disks", &json!({ "name": "second", "path": locked }));
    assert_eq!((status, &answer["code"]), (409, &json!("EBUSY")), "{answer}");
    drop(held);
    std::fs::rename(&aside, &gone).expect("it is there");
    comes_up(&daemon, "locked");
    comes_up(&daemon, "gone");
    daemon.finish();
}
