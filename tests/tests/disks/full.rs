//! A file system that is full: the guest gets an error, the operator an alarm, and both are over with the cause.

use disk::client::{GuestSpec, Task};
use serde_json::{Value, json};
use tests::{Daemon, Options, http};

use crate::{Tmpfs, comes_up, guest, prints};

const OK: u8 = 0;
const IO_ERROR: u8 = 1;

/// The value of a series of the disk.
fn metric(daemon: &Daemon, series: &str) -> String {
    let scrape = daemon.ns.run(|| http::over_tcp("127.0.0.1:9477", "GET", "/metrics", b"").expect("a scrape"));
    let text = String::from_utf8(scrape.body).expect("text");
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line.unwrap_or_else(|| panic!("{series}: {text}")).trim().to_owned()
}

/// What `doctor` says of the disk: status and reason.
fn doctor(daemon: &Daemon) -> (Value, String) {
    let output = daemon.cli("doctor --json");
    let checks: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let check = checks.as_array().and_then(|checks| checks.iter().find(|check| check["name"] == "disk vm1"));
    let check = check.unwrap_or_else(|| panic!("no disk: {checks}"));
    (check["status"].clone(), check.to_string())
}

#[test]
fn a_full_file_system_is_an_error_to_the_guest_and_an_alarm_until_a_write_works_again() {
    let place = tempfile::tempdir().expect("a directory");
    let images = Tmpfs::mount(place.path().join("images"), "1m");
    let config = format!("[disks]\ndirectories = [{:?}]\n", images.0);
    let mut daemon = Daemon::with("disk-full", &Options { config, ..Options::default() });
    prints(&daemon.cli("disk create vm1 --size 8M --block-size 4096"));
    let mut guest = guest(&daemon, "vm1", GuestSpec { bytes: 64 << 10, ..GuestSpec::default() });
    let block = |number: u64| Task::write(number * 128, vec![7; 64 << 10]);
    let written = (0..128).take_while(|number| guest.queues[0].run(&block(*number)).0 == OK).count() as u64;
    assert!((1..17).contains(&written), "{written} blocks have gone into 1 MiB");
    assert_eq!(guest.queues[0].run(&block(written)).0, IO_ERROR);

    let disk = daemon.get("disks/vm1");
    assert_eq!((&disk["state"], &disk["info"]["full"]), (&json!("degraded"), &json!(true)), "{disk}");
    assert!(disk["error"].as_str().is_some_and(|why| why.contains("no space")), "{disk}");
    let queue = daemon.get("disk-stats/vm1")["queues"][0].clone();
    assert_eq!((&queue["no_space"], &queue["errors"]), (&json!(2), &json!(2)), "{queue}");
    assert_eq!(metric(&daemon, "xswitch_disk_full{disk=\"vm1\"}"), "1");
    assert_eq!(metric(&daemon, "xswitch_disk_degraded{disk=\"vm1\"}"), "1");
    assert_eq!(metric(&daemon, "xswitch_disk_up{disk=\"vm1\"}"), "1", "it is served all the same");
    assert_eq!(metric(&daemon, "xswitch_disk_no_space_total{disk=\"vm1\",queue=\"0\"}"), "2");
    let (status, why) = doctor(&daemon);
    assert!(status == "warn" && why.contains("no space"), "{why}");
    assert!(prints(&daemon.cli("disk show vm1")).contains("no space"));
    // What is there can be read, and written again.
    assert_eq!(guest.queues[0].run(&Task::read(0, 64 << 10)), (OK, vec![7; 64 << 10]));
    assert_eq!(guest.queues[0].run(&block(0)).0, OK);
    assert_eq!(daemon.get("disks/vm1")["info"]["full"], true, "neither shows that there is space again");
    // A new image for which there is no space is refused, and leaves nothing.
    let (status, answer) =
        daemon.call("POST", "disks", &json!({ "name": "vm2", "size": 8 << 20, "allocate": true, "block_size": 4096 }));
    assert_eq!((status, &answer["code"]), (507, &json!("ENOSPC")), "{answer}");
    assert!(!images.0.join("vm2.img").exists());

    // The guest need not try again.
    images.resize("16m");
    comes_up(&daemon, "vm1");
    assert_eq!(metric(&daemon, "xswitch_disk_full{disk=\"vm1\"}"), "0");
    assert_ne!(doctor(&daemon).0, "fail");
    assert_eq!(guest.queues[0].run(&block(written)).0, OK);
    // The next daemon knows nothing of it, and needs not.
    daemon.kill();
    daemon.launch();
    comes_up(&daemon, "vm1");
    guest.connect(&daemon.path("run/disks/vm1.sock"));
    assert_eq!(guest.queues[0].run(&Task::read(written * 128, 64 << 10)), (OK, vec![7; 64 << 10]));
    drop(guest);
    daemon.finish();
}
