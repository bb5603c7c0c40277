//! What an operator sees: the command line, metrics, `doctor`, the API's document.

use disk::client::{GuestSpec, Task};
use serde_json::Value;
use tests::{Daemon, Options, http};

use crate::{complains, guest, prints};

#[test]
fn the_command_line_makes_shows_changes_and_deletes_disks() {
    let daemon = Daemon::start("disk-cli");
    let shown = prints(&daemon.cli("disk create vm1 --size 16M --queues 2 --read-ops 1K:2K --serial S1"));
    for line in
        ["disk           vm1", "size           16 MiB (32768 sectors)", "queues         2", "reads          1024/s"]
    {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    prints(&daemon.cli("disk create vm2"));
    let list = prints(&daemon.cli("disk list"));
    let rows: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0][..5], ["PVF", "DISK", "STATE", "GUEST", "SIZE"]);
    assert_eq!(rows[1][..6], ["0", "vm1", "up", "none", "16", "MiB"]);
    assert_eq!(rows[2][..3], ["1", "vm2", "up"]);
    let grown: Value = serde_json::from_str(&prints(&daemon.cli("disk grow vm1 1G --json"))).expect("JSON");
    assert_eq!(grown["info"]["bytes"], 1 << 30);
    assert!(prints(&daemon.cli("disk pause 0")).contains("paused         yes"));
    assert!(prints(&daemon.cli("disk resume vm1")).contains("paused         no"));
    let limits = prints(&daemon.cli("disk limits vm1 --read-ops 0 --write-bytes 10M"));
    assert!(limits.contains("reads          none") && limits.contains("bytes written  10 MiB/s"), "{limits}");
    assert_eq!(prints(&daemon.cli("disk limits vm1")), limits);
    let capability = prints(&daemon.cli("capability"));
    assert!(capability.lines().any(|line| line.split_whitespace().eq(["disks", "256", "254"])), "{capability}");
    for (line, said) in [
        ("disk show vm3", "is `vm1` meant?"),
        ("disk show 7", "pvf_id: there is no disk 7"),
        ("disk create vm1", "name: there is a disk `vm1` already"),
        ("disk create a/b", "name: `a/b`"),
        ("disk create 7", "name: `7` would be taken for a number"),
        ("disk create x --size 1000", "size: 1000 bytes"),
        ("disk create x --path /etc/passwd", "path: /etc/passwd"),
        ("disk create x --queues 300", "queues: 300 is out of range, 1 to 256"),
        ("disk grow vm1 1M", "can't shrink"),
        ("disk snapshot vm1 /etc/copy", "path: `/etc/copy`"),
        ("disk delete vm2 nothing", "disk nothing: name: there is no disk `nothing`"),
        ("disk craete x", "similar subcommand"),
    ] {
        let why = complains(&daemon.cli(line));
        assert!(why.contains(said), "{line}: {why}");
    }
    prints(&daemon.cli("disk delete vm1 --delete-image"));
    assert!(!daemon.path("state/disks/vm1.img").exists() && daemon.path("state/disks/vm2.img").exists());
    assert_eq!(prints(&daemon.cli("disk list --json")).trim(), "[]");
    daemon.finish();
}

#[test]
fn an_image_that_another_disk_has_is_not_deleted() {
    let daemon = Daemon::start("disk-shared-image");
    prints(&daemon.cli("disk create vm1 --size 1M"));
    prints(&daemon.cli("disk delete vm1"));
    let image = daemon.path("state/disks/vm1.img");
    for name in ["one", "two"] {
        prints(&daemon.cli(&format!("disk create {name} --read-only --path {}", image.display())));
    }
    let why = complains(&daemon.cli("disk delete one --delete-image"));
    assert!(why.contains("path: ") && why.contains("disk `two`"), "{why}");
    prints(&daemon.cli("disk delete one"));
    assert!(image.exists());
    prints(&daemon.cli("disk delete two --delete-image"));
    assert!(!image.exists());
    daemon.finish();
}

#[test]
fn a_snapshot_is_made_or_refused_in_words() {
    let daemon = Daemon::start("disk-snapshot");
    prints(&daemon.cli("disk create vm1"));
    let copy = daemon.path("state/disks/copy.img");
    let output = daemon.cli("disk snapshot vm1 copy.img");
    // Whether there are reflinks depends on the file system of temporary files.
    if output.status.success() {
        assert!(prints(&output).contains("copy.img") && copy.exists());
    } else {
        let why = complains(&output);
        assert!(why.contains("reflinks") && why.contains("XFS and Btrfs"), "{why}");
        assert!(!copy.exists(), "a file is left");
    }
    daemon.finish();
}

#[test]
fn metrics_and_statistics_count_what_a_guest_does() {
    let daemon = Daemon::start("disk-metrics");
    prints(&daemon.cli("disk create vm1"));
    let mut guest = guest(&daemon, "vm1", GuestSpec::default());
    for _ in 0..3 {
        assert_eq!(guest.queues[0].run(&Task::write(0, vec![1; 4096])).0, 0);
    }
    assert_eq!(guest.queues[0].run(&Task::read(0, 512)).0, 0);
    assert_eq!(guest.queues[0].run(&Task::read(1 << 40, 512)).0, 1, "there is no such sector");
    let scrape = daemon.ns.run(|| http::over_tcp("127.0.0.1:9477", "GET", "/metrics", b"").expect("a scrape"));
    let text = String::from_utf8(scrape.body).expect("text");
    for line in [
        "xswitch_disk_up{disk=\"vm1\"} 1",
        "xswitch_disk_connected{disk=\"vm1\"} 1",
        "xswitch_disk_paused{disk=\"vm1\"} 0",
        "xswitch_disk_full{disk=\"vm1\"} 0",
        "xswitch_disk_active_queues{disk=\"vm1\"} 1",
        "xswitch_disk_size_bytes{disk=\"vm1\"} 1048576",
        "xswitch_disk_operations_total{disk=\"vm1\",queue=\"0\",operation=\"write\"} 3",
        "xswitch_disk_bytes_total{disk=\"vm1\",queue=\"0\",operation=\"write\"} 12288",
        "xswitch_disk_operations_total{disk=\"vm1\",queue=\"0\",operation=\"flush\"} 0",
        "xswitch_disk_request_seconds_count{disk=\"vm1\",queue=\"0\",operation=\"write\"} 3",
        "xswitch_disk_request_seconds_bucket{disk=\"vm1\",queue=\"0\",operation=\"write\",le=\"+Inf\"} 3",
        "xswitch_disk_refused_total{disk=\"vm1\",queue=\"0\"} 1",
        "xswitch_disk_no_space_total{disk=\"vm1\",queue=\"0\"} 0",
        "xswitch_disk_in_flight{disk=\"vm1\",queue=\"0\"} 0",
        "xswitch_table_entries{table=\"disks\"} 1",
    ] {
        assert!(text.lines().any(|other| other == line), "{line}: {text}");
    }
    let stats = prints(&daemon.cli("disk stats"));
    let row: Vec<_> = stats.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(row, ["vm1", "1", "512", "3", "12", "KiB", "0", "0", "0", "0"]);
    let stats = prints(&daemon.cli("disk stats vm1"));
    assert!(stats.contains("P99") && stats.contains("write"), "{stats}");
    let why = complains(&daemon.cli("disk delete vm1"));
    assert!(why.contains("a guest uses"), "{why}");
    drop(guest);
    daemon.finish();
}

#[test]
fn doctor_looks_at_places_and_disks() {
    let images = tempfile::tempdir().expect("a directory");
    let config = format!(
        "[disks]\ndirectories = [{:?}, {:?}]\ndevices = [\"/dev/no-such-device\"]\n",
        images.path(),
        images.path().join("missing")
    );
    let mut daemon = Daemon::with("disk-doctor", &Options { config, ..Options::default() });
    prints(&daemon.cli("disk create vm1"));
    let missing = images.path().join("missing/a.img");
    let why = complains(&daemon.cli(&format!("disk create vm2 --path {}", missing.display())));
    assert!(why.contains("the directory") && why.contains("missing"), "{why}");
    daemon.stop();
    std::fs::remove_file(images.path().join("vm1.img")).expect("it is there");
    daemon.launch();
    tests::wait::expect("the disk has failed", crate::PATIENCE, || crate::state(&daemon, "vm1") == "failed");
    let output = daemon.cli("doctor --json");
    let text = String::from_utf8_lossy(&output.stdout);
    let checks: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
    let status = |name: &str| {
        let found = checks.as_array().expect("checks").iter().find(|check| check["name"] == name);
        found.unwrap_or_else(|| panic!("{name}: {checks}"))["status"].clone()
    };
    assert_eq!(status("io_uring"), "ok");
    assert_eq!(status("disk vm1"), "fail");
    assert_eq!(status(&format!("images in {}", images.path().join("missing").display())), "fail");
    assert_eq!(status("block device /dev/no-such-device"), "warn");
    daemon.finish();
}

#[test]
fn the_api_describes_disks() {
    let daemon = Daemon::start("disk-openapi");
    let document = daemon.get("openapi.json");
    for path in ["disks", "disks/{disk}", "disks/{disk}/pause", "disks/{disk}/resume", "disks/{disk}/snapshot"] {
        assert!(document["paths"][format!("/api/v1/{path}")].is_object(), "{path}");
    }
    let fields = &document["components"]["schemas"]["DiskSpec"]["properties"];
    assert!(fields["queue_depth"].is_object() && fields["limits"].is_object(), "{fields}");
    daemon.finish();
}
