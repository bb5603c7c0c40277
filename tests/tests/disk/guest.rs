//! Linux with a disk.

use std::path::Path;
use std::time::Duration;

use tests::guest::{Setup, Vm, qemu};
use tests::shell::{run, words};
use tests::wait;

use super::{Place, Serve};

const PATIENCE: Duration = Duration::from_secs(20);
const KILLS: usize = 50;

fn start(socket: &Path, device: &str) -> Vm {
    let mut setup = Setup { machine: "pc,memory-backend=mem".to_owned(), ..Setup::default() };
    let args = [
        "-object".to_owned(),
        format!("memory-backend-memfd,id=mem,size={}M,share=on", setup.memory),
        "-chardev".to_owned(),
        format!("socket,id=disk,path={},reconnect-ms=100", socket.display()),
        "-device".to_owned(),
        format!("vhost-user-blk-pci,chardev=disk{device}"),
    ];
    setup.args.extend(args.into_iter().map(Into::into));
    Vm::launch(qemu(), &setup)
}

fn sectors(vm: &mut Vm) -> u64 {
    vm.sh("cat /sys/block/vda/size").trim().parse().expect("a number")
}

/// Has the guest read its disk again, and gives the checksum of the first `kib` KiB.
fn checksum(vm: &mut Vm, kib: u32) -> String {
    vm.sh("sync; echo 3 > /proc/sys/vm/drop_caches");
    vm.sh(&format!("dd if=/dev/vda bs=1k count={kib} 2>/dev/null | md5sum | cut -c -32")).trim().to_owned()
}

/// Runs a command in the guest again and again.
fn run_until_stopped(vm: &mut Vm, number: u32, command: &str) {
    vm.sh(&format!("(while [ ! -e /tmp/stop ]; do {command}; done; touch /tmp/ended{number}) >/dev/null 2>&1 &"));
}

/// Stops so many commands, of which none has failed.
fn stop(vm: &mut Vm, count: usize) {
    vm.sh("touch /tmp/stop");
    let ended = |vm: &mut Vm| vm.sh("ls /tmp").matches("ended").count();
    wait::expect("the commands end", 3 * PATIENCE, || ended(vm) == count);
    vm.sh("[ ! -e /tmp/failed ]");
}

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
    let mut vm = start(&place.socket(), ",num-queues=2,packed=on");
    vm.sh("modprobe ext4 && mkdir -p /mnt && mount -t ext4 /dev/vda /mnt && echo 0 > /tmp/n");
    let write = "n=$(($(cat /tmp/n) + 1)); echo $n > /tmp/n; f=/mnt/f$((n % 20)); \
                 seq $n $((n + 20000)) > $f && md5sum $f > $f.sum && sync || touch /tmp/failed";
    run_until_stopped(&mut vm, 1, write);
    kill_often(&mut serve, &place, &more);
    stop(&mut vm, 1);
    vm.sh("umount /mnt && echo 3 > /proc/sys/vm/drop_caches && mount -t ext4 /dev/vda /mnt");
    vm.sh("cat /mnt/*.sum | md5sum -c");
    vm.sh("umount /mnt");
    vm.sh("! dmesg | grep -iE 'I/O error|EXT4-fs error'");
    vm.power_off();
    drop(serve);
    run(&mut words(&format!("/usr/sbin/e2fsck -fn {image}")));
}

#[test]
fn a_guest_writes_while_the_daemon_is_killed_again_and_again() {
    let place = Place::new(64);
    let more = ["--queues", "2", "--depth", "128"];
    let mut serve = Serve::start(&place.image(), &place.socket(), &more);
    let mut vm = start(&place.socket(), ",num-queues=2");
    assert_eq!(sectors(&mut vm), 64 << 11);
    vm.sh("seq 1 1000000 | head -c 4194304 > /tmp/data");
    let expected = vm.sh("md5sum < /tmp/data | cut -c -32").trim().to_owned();
    // Two writers of the same data, in small and in large requests.
    for (number, how) in [(1, "bs=4k"), (2, "bs=64k seek=256")] {
        let write = format!("dd if=/tmp/data of=/dev/vda {how} conv=fsync || touch /tmp/failed");
        run_until_stopped(&mut vm, number, &write);
    }
    kill_often(&mut serve, &place, &more);
    stop(&mut vm, 2);
    vm.sh("dd if=/tmp/data of=/dev/vda bs=4k conv=fsync 2>/dev/null");
    assert_eq!(checksum(&mut vm, 4096), expected);
    let far = vm.sh("dd if=/dev/vda bs=64k skip=256 count=64 2>/dev/null | md5sum | cut -c -32");
    assert_eq!(far.trim(), expected);
    vm.sh("! dmesg | grep -i 'I/O error'");
    vm.power_off();
}

#[test]
fn a_guest_sees_its_disk_grow_and_waits_while_it_is_paused() {
    for device in ["", ",packed=on"] {
        let place = Place::new(16);
        let mut serve = Serve::start(&place.image(), &place.socket(), &[]);
        let mut vm = start(&place.socket(), device);
        assert_eq!(sectors(&mut vm), 16 << 11);
        serve.ok(&format!("grow {}", 32 << 20));
        wait::expect("the guest sees it", PATIENCE, || sectors(&mut vm) == 32 << 11);
        assert!(serve.ask(&format!("grow {}", 16 << 20)).contains("shrink"));
        vm.sh("dd if=/dev/zero of=/dev/vda bs=1M seek=30 count=1 conv=fsync 2>/dev/null");
        serve.ok("pause");
        vm.sh("(dd if=/dev/zero of=/dev/vda bs=4k count=64 conv=fsync 2>/dev/null && touch /tmp/done) &");
        vm.sh("sleep 1; [ ! -e /tmp/done ]");
        // A daemon that is started paused as well, as it would be after a restart.
        serve.kill();
        serve = Serve::start(&place.image(), &place.socket(), &["--paused"]);
        vm.sh("sleep 1; [ ! -e /tmp/done ]");
        serve.ok("resume");
        wait::expect("the guest goes on", PATIENCE, || vm.sh("ls /tmp").contains("done"));
        vm.sh("! dmesg | grep -i 'I/O error'");
        vm.power_off();
    }
}

#[test]
fn a_guest_is_limited_and_knows_the_name_and_topology_of_its_disk() {
    let place = Place::new(16);
    let mut serve = Serve::start(&place.image(), &place.socket(), &["--name", "volume-7", "--block", "4096"]);
    let mut vm = start(&place.socket(), "");
    assert_eq!(vm.sh("cat /sys/block/vda/serial").trim(), "volume-7");
    assert_eq!(vm.sh("cat /sys/block/vda/queue/logical_block_size").trim(), "4096");
    assert_eq!(vm.sh("cat /sys/block/vda/queue/write_cache").trim(), "write back");
    serve.ok("limit 0 0 0 4000000");
    vm.sh("dd if=/dev/zero of=/dev/vda bs=1M count=4 conv=fsync 2>/dev/null");
    let stats = serve.ask("stats");
    assert!(!stats.contains("limited 0 "), "{stats}");
    vm.power_off();
}
