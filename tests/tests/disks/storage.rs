//! Storage of other kinds than a file of the machine's own file system: a block device, and a file system that has
//! reflinks.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use disk::client::{GuestSpec, Task, kind};
use serde_json::json;
use tests::{Daemon, Options, shell};

use crate::{PATIENCE, comes_up, complains, guest, prints};

const OK: u8 = 0;

/// A loop device on a file. It goes with this.
struct Loop {
    device: PathBuf,
    file: PathBuf,
}

impl Loop {
    fn make(file: PathBuf, bytes: u64) -> Self {
        File::create(&file).and_then(|file| file.set_len(bytes)).expect("a file");
        let device = shell::run(Command::new("losetup").args(["--find", "--show"]).arg(&file));
        Self { device: PathBuf::from(device.trim()), file }
    }

    fn grow(&self, bytes: u64) {
        File::options().write(true).open(&self.file).and_then(|file| file.set_len(bytes)).expect("a greater file");
        shell::run(Command::new("losetup").arg("--set-capacity").arg(&self.device));
    }

    fn name(&self) -> &str {
        self.device.to_str().expect("a path")
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // Who has it open keeps it until then.
        shell::output(Command::new("losetup").arg("--detach").arg(&self.device));
    }
}

/// A file system on a loop device.
struct Mounted {
    place: PathBuf,
    _device: Loop,
}

impl Mounted {
    fn xfs(directory: &Path) -> Self {
        let (device, place) = (Loop::make(directory.join("fs"), 320 << 20), directory.join("mnt"));
        shell::run(Command::new("/usr/sbin/mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&device.device));
        std::fs::create_dir(&place).expect("a directory");
        shell::run(Command::new("mount").arg(&device.device).arg(&place));
        Self { place, _device: device }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        shell::output(Command::new("umount").arg("--lazy").arg(&self.place));
    }
}

#[test]
fn a_block_device_is_a_disk_that_nobody_else_has_and_that_grows_with_it() {
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let device = Loop::make(place.path().join("volume"), 8 << 20);
    let other = Loop::make(place.path().join("other"), 8 << 20);
    shell::run(Command::new("/usr/sbin/mkfs.ext4").arg("-q").arg(&other.device));
    let config = format!("[disks]\ndevices = [{:?}, {:?}]\n", device.device, other.device);
    let mut daemon = Daemon::with("disk-device", &Options { config, ..Options::default() });
    let name = device.name();
    let too_great = complains(&daemon.cli(&format!("disk create vm1 --path {name} --size 1G")));
    assert!(too_great.contains("make it greater first"), "{too_great}");
    let shown = prints(&daemon.cli(&format!("disk create vm1 --path {name}")));
    assert!(shown.contains("size           8 MiB"), "{shown}");
    assert_eq!(daemon.get("disks/vm1")["info"]["direct"], true, "a device has O_DIRECT");

    let mut guest = guest(&daemon, "vm1", GuestSpec::default());
    assert_eq!(guest.sectors(), 16 << 10);
    let queue = &mut guest.queues[0];
    assert_eq!(queue.run(&Task::write(8, vec![5; 4096])).0, OK);
    assert_eq!(queue.run(&Task::flush()).0, OK);
    let mut bytes = [0; 4096];
    File::open(&device.file).and_then(|file| file.read_exact_at(&mut bytes, 4096)).expect("it is there");
    assert_eq!(bytes, [5; 4096], "what was flushed is in the device");
    for (kind, flags) in [(kind::DISCARD, 0), (kind::WRITE_ZEROES, 0), (kind::WRITE_ZEROES, 1)] {
        assert_eq!(queue.run(&Task::write(8, vec![5; 4096])).0, OK);
        assert_eq!(queue.run(&Task::segments(kind, &[(8, 8, flags)])).0, OK, "kind {kind}, flags {flags}");
        assert_eq!(queue.run(&Task::read(8, 4096)), (OK, vec![0; 4096]), "kind {kind}, flags {flags}");
    }

    // The device grows first, then the disk, then the guest sees it.
    assert!(complains(&daemon.cli("disk grow vm1 16M")).contains("make it greater first"));
    device.grow(16 << 20);
    prints(&daemon.cli("disk grow vm1 16M"));
    assert!(guest.config_changes(PATIENCE), "the guest is told");
    assert_eq!(guest.sectors(), 32 << 10);
    assert_eq!(guest.queues[0].run(&Task::write((32 << 10) - 8, vec![6; 4096])).0, OK);

    // One user at a time, of whatever kind.
    assert!(complains(&daemon.cli(&format!("disk create vm2 --path {name}"))).contains("is the image of disk `vm1`"));
    let mut mount = Command::new("mount");
    let refused = shell::text(&shell::output(mount.args(["-t", "ext4"]).arg(&device.device).arg(place.path())));
    assert!(refused.contains("busy"), "a device that is a disk can't be mounted: {refused}");
    let mount = place.path().join("mnt");
    std::fs::create_dir(&mount).expect("a directory");
    shell::run(Command::new("mount").arg(&other.device).arg(&mount));
    let in_use = complains(&daemon.cli(&format!("disk create vm2 --path {}", other.name())));
    shell::run(Command::new("umount").arg(&mount));
    assert!(in_use.contains("mounted"), "{in_use}");
    prints(&daemon.cli(&format!("disk create vm2 --path {} --read-only", other.name())));
    let snapshot = complains(&daemon.cli("disk snapshot vm1 copy.img"));
    assert!(snapshot.contains("path: "), "{snapshot}");

    // A request is in work when the daemon is killed. The next one has the device again.
    let number = guest.queues[0].add(&Task::write(16, vec![7; 4096])).expect("room");
    guest.queues[0].publish();
    daemon.kill();
    daemon.launch();
    comes_up(&daemon, "vm1");
    guest.connect(&daemon.path("run/disks/vm1.sock"));
    assert_eq!(guest.queues[0].wait(Duration::from_secs(20)), Some((number, OK)));
    assert_eq!(guest.queues[0].run(&Task::read(16, 4096)), (OK, vec![7; 4096]));
    drop(guest);
    prints(&daemon.cli("disk delete vm1 vm2 --delete-image --force"));
    assert!(device.device.exists(), "a device is no image that could be removed");
    daemon.finish();
}

#[test]
fn a_snapshot_on_xfs_is_the_disk_of_that_moment_and_takes_no_room() {
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let images = Mounted::xfs(place.path());
    let config = format!("[disks]\ndirectories = [{:?}]\n", images.place);
    let mut daemon = Daemon::with("disk-reflink", &Options { config, ..Options::default() });
    prints(&daemon.cli("disk create vm1 --size 64M --allocate"));
    let mut guest = guest(&daemon, "vm1", GuestSpec { bytes: 1 << 20, ..GuestSpec::default() });
    for number in 0..64 {
        assert_eq!(guest.queues[0].run(&Task::write(number << 11, vec![1; 1 << 20])).0, OK);
    }
    assert_eq!(guest.queues[0].run(&Task::flush()).0, OK);
    let free = || nix::sys::statvfs::statvfs(&images.place).expect("a file system").blocks_free() * 4096;
    let before = free();
    let copy = prints(&daemon.cli("disk snapshot vm1 copy.img"));
    assert_eq!(Path::new(copy.trim()), images.place.join("copy.img"));
    assert!(before.saturating_sub(free()) < 8 << 20, "the copy has blocks of its own");
    // The disk and its copy are apart from then on.
    assert_eq!(guest.queues[0].run(&Task::write(0, vec![2; 1 << 20])).0, OK);
    assert_eq!(guest.queues[0].run(&Task::flush()).0, OK);
    let bytes = |name: &str| std::fs::read(images.place.join(name)).expect("an image");
    assert!(bytes("copy.img").iter().all(|byte| *byte == 1), "the copy is of one moment");
    assert!(bytes("vm1.img")[..1 << 20].iter().all(|byte| *byte == 2));
    assert!(complains(&daemon.cli("disk snapshot vm1 copy.img")).contains("exists"), "a copy replaces nothing");
    // A copy is an image: another guest may have it.
    daemon.ok("POST", "disks", json!({ "name": "vm2", "path": images.place.join("copy.img") }));
    let mut second = crate::guest(&daemon, "vm2", GuestSpec::default());
    assert_eq!(second.queues[0].run(&Task::read(0, 4096)), (OK, vec![1; 4096]));
    // XFS does not do single sectors directly any more. They are the guest's blocks all the same, of both disks.
    daemon.kill();
    daemon.launch();
    for (name, guest) in [("vm1", &mut guest), ("vm2", &mut second)] {
        comes_up(&daemon, name);
        guest.connect(&daemon.path(&format!("run/disks/{name}.sock")));
        assert_eq!(guest.queues[0].run(&Task::write(3, vec![9; 512])).0, OK);
        assert_eq!(guest.queues[0].run(&Task::read(2, 1024)).1[512..], [9; 512]);
    }
    drop((guest, second));
    daemon.finish();
}
