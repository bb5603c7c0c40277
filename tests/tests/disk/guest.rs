//! Linux with a disk.

use std::time::Duration;

use tests::disk_guest::DiskGuest;
use tests::shell::{run, words};
use tests::wait;

use super::{Place, Serve};

const PATIENCE: Duration = Duration::from_secs(20);
const KILLS: usize = 50;

fn kill_often(serve: &mut Serve, place: &Place, more: &[&str]) {
    for kill in 0..KILLS {
        std::thread::sleep(Duration::from_millis(20 + 37 * (kill as u64 % 7)));
        serve.kill();
        *serve = Serve::start(&place.image(), &place.socket(), more);
    }
}

#[test]
fn a_file_system_is_whole_after_the_daemon_was_killed_again_and_again() {
    let place = Place::new(64);
    let image = place.image().display().to_string();
    run(&mut words(&format!("/usr/sbin/mkfs.ext4 -q -F {image}")));
    let more = ["--queues", "2", "--depth", "128", "--threads", "2"];
    let mut serve = Serve::start(&place.image(), &place.socket(), &more);
    let mut guest = DiskGuest::launch(&place.socket(), ",num-queues=2,packed=on");
    guest.write_files();
    kill_often(&mut serve, &place, &more);
    guest.check_files();
    guest.power_off();
    drop(serve);
    run(&mut words(&format!("/usr/sbin/e2fsck -fn {image}")));
}

#[test]
fn a_guest_writes_while_the_daemon_is_killed_again_and_again() {
    let place = Place::new(64);
    let more = ["--queues", "2", "--depth", "128"];
    let mut serve = Serve::start(&place.image(), &place.socket(), &more);
    let mut guest = DiskGuest::launch(&place.socket(), ",num-queues=2");
    assert_eq!(guest.sectors(), 64 << 11);
    guest.sh("seq 1 1000000 | head -c 4194304 > /tmp/data");
    let expected = guest.sh("md5sum < /tmp/data | cut -c -32").trim().to_owned();
    // Two writers of the same data, in small and in large requests.
    for how in ["bs=4k", "bs=64k seek=256"] {
        let write = format!("dd if=/tmp/data of=/dev/vda {how} conv=fsync || touch /tmp/failed");
        guest.repeat(&write);
    }
    kill_often(&mut serve, &place, &more);
    guest.stop();
    guest.sh("dd if=/tmp/data of=/dev/vda bs=4k conv=fsync 2>/dev/null");
    assert_eq!(guest.checksum(4096), expected);
    let far = guest.sh("dd if=/dev/vda bs=64k skip=256 count=64 2>/dev/null | md5sum | cut -c -32");
    assert_eq!(far.trim(), expected);
    guest.sh("! dmesg | grep -i 'I/O error'");
    guest.power_off();
}

#[test]
fn a_guest_sees_its_disk_grow_and_waits_while_it_is_paused() {
    for device in ["", ",packed=on"] {
        let place = Place::new(16);
        let mut serve = Serve::start(&place.image(), &place.socket(), &[]);
        let mut guest = DiskGuest::launch(&place.socket(), device);
        assert_eq!(guest.sectors(), 16 << 11);
        serve.ok(&format!("grow {}", 32 << 20));
        wait::expect("the guest sees it", PATIENCE, || guest.sectors() == 32 << 11);
        assert!(serve.ask(&format!("grow {}", 16 << 20)).contains("shrink"));
        guest.sh("dd if=/dev/zero of=/dev/vda bs=1M seek=30 count=1 conv=fsync 2>/dev/null");
        serve.ok("pause");
        guest.sh("(dd if=/dev/zero of=/dev/vda bs=4k count=64 conv=fsync 2>/dev/null && touch /tmp/done) &");
        guest.sh("sleep 1; [ ! -e /tmp/done ]");
        // A daemon that is started paused as well, as it would be after a restart.
        serve.kill();
        serve = Serve::start(&place.image(), &place.socket(), &["--paused"]);
        guest.sh("sleep 1; [ ! -e /tmp/done ]");
        serve.ok("resume");
        wait::expect("the guest goes on", PATIENCE, || guest.sh("ls /tmp").contains("done"));
        guest.sh("! dmesg | grep -i 'I/O error'");
        guest.power_off();
    }
}

#[test]
fn a_guest_is_limited_and_knows_the_name_and_topology_of_its_disk() {
    let place = Place::new(16);
    let mut serve = Serve::start(&place.image(), &place.socket(), &["--name", "volume-7", "--block", "4096"]);
    let mut guest = DiskGuest::launch(&place.socket(), "");
    assert_eq!(guest.sh("cat /sys/block/vda/serial").trim(), "volume-7");
    assert_eq!(guest.sh("cat /sys/block/vda/queue/logical_block_size").trim(), "4096");
    assert_eq!(guest.sh("cat /sys/block/vda/queue/write_cache").trim(), "write back");
    serve.ok("limit 0 0 0 4000000");
    guest.sh("dd if=/dev/zero of=/dev/vda bs=1M count=4 conv=fsync 2>/dev/null");
    let stats = serve.ask("stats");
    assert!(!stats.contains("limited 0 "), "{stats}");
    guest.power_off();
}
