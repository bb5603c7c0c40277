//! Disks that are changed while a guest uses them, and that share nothing with packets.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use disk::client::{Guest, GuestSpec, Task};
use serde_json::{Value, json};
use tests::Daemon;

use crate::guest;

/// Keeps a queue busy with writes and reads until it is told to end. Every request has to succeed. Returns their
/// number.
fn use_until(guest: &mut Guest, end: &AtomicBool) -> u64 {
    let queue = &mut guest.queues[0];
    let (mut done, mut next) = (0, 0_u64);
    while !end.load(Ordering::Relaxed) || queue.in_flight() > 0 {
        while !end.load(Ordering::Relaxed) {
            let sector = next % 64 * 8;
            let task =
                if next.is_multiple_of(2) { Task::write(sector, vec![9; 4096]) } else { Task::read(sector, 4096) };
            if queue.add(&task).is_none() {
                break;
            }
            next += 1;
        }
        queue.publish();
        if let Some((_, status)) = queue.wait(Duration::from_millis(100)) {
            assert_eq!(status, 0, "no request fails");
            done += 1;
        }
    }
    done
}

/// Has the user end when a check fails, or the test would wait for it.
struct EndOnPanic<'a>(&'a AtomicBool);

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn operations(daemon: &Daemon) -> u64 {
    let stats = daemon.get("disk-stats/vm1");
    let queue = &stats["queues"][0];
    ["read", "write"].iter().map(|kind| queue[kind]["operations"].as_u64().expect("a number")).sum()
}

#[test]
fn under_load_a_disk_grows_pauses_and_is_limited_and_no_request_fails() {
    let daemon = Daemon::start("disk-load");
    daemon.ok("POST", "disks", json!({ "name": "vm1", "size": 4 << 20 }));
    let mut guest = guest(&daemon, "vm1", GuestSpec { depth: 16, ..GuestSpec::default() });
    let end = AtomicBool::new(false);
    let done = std::thread::scope(|scope| {
        let user = scope.spawn(|| use_until(&mut guest, &end));
        let _end = EndOnPanic(&end);
        let more = || {
            let before = operations(&daemon);
            tests::wait::expect("requests are done", Duration::from_secs(20), || operations(&daemon) > before);
        };
        more();
        for round in 1..=5_u64 {
            let disk = daemon.ok("PATCH", "disks/vm1", json!({ "size": (4 + round) << 20 }));
            assert_eq!(disk["info"]["bytes"], (4 + round) << 20);
            more();
            daemon.ok("POST", "disks/vm1/pause", json!({}));
            // It is quiet: nothing is in work, and nothing is done.
            let quiet = operations(&daemon);
            assert_eq!(daemon.get("disk-stats/vm1")["queues"][0]["in_flight"], 0);
            assert_eq!(daemon.get("disks/vm1")["info"]["transport"], "paused");
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(operations(&daemon), quiet);
            daemon.ok("POST", "disks/vm1/resume", json!({}));
            more();
        }
        // No more than rate and burst pass, whatever the time really was.
        let rate = 200;
        let limit = json!({ "per_second": rate, "burst": 10 });
        daemon.ok("PATCH", "disks/vm1", json!({ "limits": { "read_ops": limit, "write_ops": limit } }));
        let (began, before) = (Instant::now(), operations(&daemon));
        std::thread::sleep(Duration::from_millis(500));
        let passed = operations(&daemon) - before;
        // Two directions; requests that were taken before the change end too. Each bucket may have begun a token.
        let most = 2 * (rate * u64::try_from(began.elapsed().as_millis() + 1).expect("small") / 1000 + 1 + 10) + 16;
        assert!(passed <= most, "{passed} of {most}");
        assert_ne!(daemon.get("disk-stats/vm1")["queues"][0]["limited"], 0);
        daemon.ok("PATCH", "disks/vm1", json!({ "limits": { "read_ops": { "per_second": 0 } } }));
        let disk = daemon.ok("PATCH", "disks/vm1", json!({ "limits": { "write_ops": { "per_second": 0 } } }));
        assert_eq!(disk["spec"].get("limits"), None, "{disk}");
        more();
        end.store(true, Ordering::Relaxed);
        user.join().expect("no request fails")
    });
    assert!(done > 0);
    drop(guest);
    daemon.finish();
}

#[test]
fn threads_of_disks_are_confined_and_others_are_not() {
    let daemon = Daemon::start("disk-confined");
    daemon.ok("POST", "disks", json!({ "name": "vm1", "queues": 2, "threads": 2, "cpus": [0] }));
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("it runs");
    let mut confined = Vec::new();
    for task in tasks.flatten().map(|task| task.path()) {
        let read = |name: &str| std::fs::read_to_string(task.join(name)).unwrap_or_default();
        let (name, status) = (read("comm").trim().to_owned(), read("status"));
        // A thread with rules of Landlock can get no new privileges.
        let is_confined = status.contains("NoNewPrivs:\t1");
        let serves = name == "xs-disk" || name.starts_with("xs-disk-q");
        assert_eq!(is_confined, serves, "{name}");
        if name.starts_with("xs-disk-q") {
            assert!(status.contains("Cpus_allowed_list:\t0\n"), "{name}: {status}");
        }
        confined.extend(serves.then_some(name));
    }
    confined.sort();
    assert_eq!(confined, ["xs-disk", "xs-disk-q0", "xs-disk-q1"]);
    daemon.ok("DELETE", "disks/vm1", Value::Null);
    daemon.finish();
}
