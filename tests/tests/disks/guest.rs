//! Linux in QEMU with disks of a real daemon.

use std::path::Path;

use serde_json::json;
use tests::disk_guest::{DiskGuest, Drive};
use tests::guest::{Setup, cached};
use tests::shell::{run, words};
use tests::{Daemon, Options, wait};

use crate::{PATIENCE, comes_up, counter, prints, socket};

/// Makes an ext4 in an image that no guest uses.
fn make_ext4(image: &Path) {
    run(&mut words(&format!("/usr/sbin/mkfs.ext4 -q -F {}", image.display())));
}

fn check_ext4(image: &Path) {
    run(&mut words(&format!("/usr/sbin/e2fsck -fn {}", image.display())));
}

#[test]
fn a_guest_writes_on_while_its_disk_is_grown_paused_limited_and_its_daemon_killed() {
    let mut daemon = Daemon::start("disk-guest");
    prints(&daemon.cli("disk create vm1 --size 64M --queues 2"));
    let image = daemon.path("state/disks/vm1.img");
    make_ext4(&image);
    // The front end makes the second one's socket.
    let second = daemon.path("second.sock");
    prints(&daemon.cli(&format!("disk create vm2 --size 8M --socket-client --socket {}", second.display())));
    let first = socket(&daemon, "vm1");
    let drives = [
        Drive::at(&first, ",num-queues=2"),
        Drive { is_client: true, ..Drive::at(&second, ",packed=on,num-queues=1") },
    ];
    let mut guest = DiskGuest::with(Setup::default(), &drives);
    for (name, serial) in [("vda", "vm1"), ("vdb", "vm2")] {
        assert_eq!(guest.sh(&format!("cat /sys/block/{name}/serial")).trim(), serial);
    }
    guest.write_files();
    guest.repeat("dd if=/dev/zero of=/dev/vdb bs=64k count=128 conv=fsync || touch /tmp/failed; sleep 1");
    guest.writes_on();

    // Grow.
    prints(&daemon.cli("disk grow vm1 96M"));
    wait::expect("the guest sees it", PATIENCE, || guest.sectors() == 96 << 11);
    guest.writes_on();

    // Pause. The guest asks for more all the time, and nothing is done.
    prints(&daemon.cli("disk pause vm1"));
    let done = || ["read", "write", "flush"].map(|kind| counter(&daemon, "vm1", &[kind, "operations"]));
    let quiet = done();
    assert_eq!(counter(&daemon, "vm1", &["in_flight"]), 0);
    guest.sh("sleep 1");
    assert_eq!(done(), quiet);
    assert_eq!(daemon.get("disks/vm1")["info"]["transport"], "paused");
    // The guest's other disk goes on.
    let other = counter(&daemon, "vm2", &["write", "operations"]);
    wait::expect("the other disk is used", PATIENCE, || counter(&daemon, "vm2", &["write", "operations"]) > other);
    prints(&daemon.cli("disk resume vm1"));
    guest.writes_on();

    // Limits.
    prints(&daemon.cli("disk limits vm1 --write-bytes 4M --write-ops 30:5"));
    guest.writes_on();
    wait::expect("requests wait", PATIENCE, || counter(&daemon, "vm1", &["limited"]) > 0);
    prints(&daemon.cli("disk limits vm1 --write-bytes 0 --write-ops 0"));

    // Kill, also while it is paused.
    for round in 0..4 {
        if round == 3 {
            prints(&daemon.cli("disk pause vm1"));
        }
        daemon.kill();
        daemon.launch();
        comes_up(&daemon, "vm1");
        if round == 3 {
            wait::expect("the guest is back", PATIENCE, || daemon.get("disks/vm1")["info"]["connected"] == true);
            prints(&daemon.cli("disk resume vm1"));
        }
        guest.writes_on();
        let used = || counter(&daemon, "vm2", &["write", "operations"]) > 0;
        wait::expect("the guest is back at its other disk", PATIENCE, used);
    }
    let why = daemon.cli("disk delete vm1");
    assert!(!why.status.success(), "a guest uses it");
    guest.check_files();
    guest.power_off();
    let idle = || daemon.get("disks/vm1")["info"]["active_queues"] == 0;
    wait::expect("the guest is gone", PATIENCE, idle);
    prints(&daemon.cli("disk delete vm1 vm2"));
    check_ext4(&image);
    daemon.finish();
}

#[test]
fn fio_verifies_what_it_wrote_at_depth_16_while_the_daemon_is_killed() {
    let tools = cached("fio/fio.img");
    let images = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let config = format!("[disks]\ndirectories = [{:?}, {:?}]\n", images.path(), tools.parent().expect("a directory"));
    let mut daemon = Daemon::with("disk-fio", &Options { config, ..Options::default() });
    let disks = [
        json!({ "name": "vm1", "size": 32 << 20, "queues": 2 }),
        json!({ "name": "tools", "path": tools, "read_only": true }),
    ];
    for disk in disks {
        daemon.ok("POST", "disks", disk);
    }
    let (first, second) = (socket(&daemon, "vm1"), socket(&daemon, "tools"));
    let setup = Setup { memory: 320, ..Setup::default() };
    let drives = [Drive::at(&first, ",num-queues=2"), Drive::at(&second, ",packed=on")];
    let mut guest = DiskGuest::with(setup, &drives);
    guest.sh("modprobe ext4 && mkdir -p /fio && mount -t ext4 -o ro,noload /dev/vdb /fio");
    guest.sh("! dd if=/dev/zero of=/dev/vdb bs=4k count=1 2>/dev/null");
    // Writes of several sizes side by side. Each block that is read again has to be one that was written.
    let fio = "/fio/lib/ld-linux-x86-64.so.2 --library-path /fio/lib /fio/bin/fio --name=verify --filename=/dev/vda \
               --ioengine=libaio --direct=1 --iodepth=16 --rw=randwrite --bsrange=4k-64k --size=24m --fsync=64 \
               --verify=crc32c --do_verify=1 --verify_fatal=1 --randseed=7";
    guest.sh(&format!("({fio} >/tmp/fio.log 2>&1; echo $? > /tmp/fio.status) &"));
    let written = |daemon: &Daemon| counter(daemon, "vm1", &["write", "operations"]);
    for _ in 0..3 {
        wait::expect("fio writes", 3 * PATIENCE, || written(&daemon) > 50);
        daemon.kill();
        daemon.launch();
        comes_up(&daemon, "vm1");
    }
    let ended = |guest: &mut DiskGuest| guest.sh("cat /tmp/fio.status 2>/dev/null || true").trim().to_owned();
    wait::expect("fio ends", 6 * PATIENCE, || !ended(&mut guest).is_empty());
    let log = guest.sh("cat /tmp/fio.log");
    assert_eq!(ended(&mut guest), "0", "{log}");
    assert!(log.contains("read: IOPS") && log.contains("write: IOPS"), "{log}");
    assert!(log.contains("16=") && !log.contains("verify: bad"), "{log}");
    guest.sh("! dmesg | grep -i 'I/O error, dev vda'");
    guest.power_off();
    daemon.finish();
}
