//! Storage that does not answer: a file system that is frozen. Its disks wait, and nothing else does.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use disk::client::{GuestSpec, Task};
use serde_json::{Value, json};
use tests::{Daemon, Options, shell, wait};

use crate::{PATIENCE, guest};

/// An ext4 of its own, on a loop device.
struct Frozen(PathBuf);

impl Frozen {
    fn mount(directory: &Path) -> Self {
        let (file, mount) = (directory.join("fs"), directory.join("mnt"));
        std::fs::File::create(&file).and_then(|file| file.set_len(64 << 20)).expect("a file");
        std::fs::create_dir(&mount).expect("a directory");
        shell::run(Command::new("mkfs.ext4").arg("-q").arg(&file));
        shell::run(Command::new("mount").args(["-o", "loop"]).arg(&file).arg(&mount));
        Self(mount)
    }

    fn set(&self, how: &str) -> bool {
        shell::output(Command::new("fsfreeze").arg(how).arg(&self.0)).status.success()
    }

    fn freeze(&self) -> Thaw<'_> {
        assert!(self.set("--freeze"), "it can be frozen");
        Thaw(self)
    }
}

/// Unfreezes, before a daemon is waited for that can't end otherwise.
struct Thaw<'a>(&'a Frozen);

impl Drop for Thaw<'_> {
    fn drop(&mut self) {
        self.0.set("--unfreeze");
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let unmounted = || shell::output(Command::new("umount").arg(&self.0)).status.success();
        wait::until(PATIENCE, || unmounted().then_some(()));
    }
}

#[test]
fn a_disk_whose_storage_hangs_delays_neither_ports_nor_other_disks() {
    let place = tempfile::tempdir().expect("a directory");
    let images = Frozen::mount(place.path());
    let config = format!("[disks]\ndirectories = [{:?}, {:?}]\n", place.path(), images.0);
    let daemon = Daemon::with("disk-hang", &Options { config, ..Options::default() });
    daemon.ok("POST", "disks", json!({ "name": "hangs", "path": images.0.join("hangs.img"), "allocate": true }));
    daemon.ok("POST", "disks", json!({ "name": "lives" }));
    let spec = GuestSpec { bytes: 512, ..GuestSpec::default() };
    let (mut hanging, mut living) = (guest(&daemon, "hangs", spec), guest(&daemon, "lives", spec));
    let _thaw = images.freeze();
    let number = hanging.queues[0].add(&Task::write(0, vec![3; 512])).expect("room");
    hanging.queues[0].publish();
    let in_flight = || daemon.get("disk-stats/hangs")["queues"][0]["in_flight"] == 1;
    wait::expect("a request is in work", PATIENCE, in_flight);
    let paused = std::thread::scope(|scope| {
        let pause = scope.spawn(|| daemon.call("POST", "disks/hangs/pause", &json!({})));
        wait::expect("it is being paused", PATIENCE, || daemon.get("disks/hangs")["info"]["paused"] == true);
        // All of this is answered while the pause waits for the storage.
        let port = daemon.guest("vm1", json!({}));
        assert_eq!(daemon.get(&format!("ports/{}", port.name))["state"], "up");
        assert_eq!(living.queues[0].run(&Task::write(0, vec![4; 512])).0, 0);
        daemon.ok("POST", "disks/lives/pause", json!({}));
        daemon.ok("POST", "disks/lives/resume", json!({}));
        daemon.ok("POST", "disks", json!({ "name": "new" }));
        let late = || daemon.call("POST", "disks", &json!({ "name": "late", "path": images.0.join("late.img") }));
        let late = scope.spawn(late);
        wait::expect("it is being made", PATIENCE, || {
            daemon.call("GET", "disks/late", &Value::Null).1["state"] == "starting"
        });
        let exported = daemon.cli("config export");
        let exported = String::from_utf8_lossy(&exported.stdout).into_owned();
        assert!(
            exported.contains("\"new\"") && !exported.contains("late.img"),
            "nobody has been told of it: {exported}"
        );
        assert!(!pause.is_finished(), "the pause waits for its request");
        assert_eq!(daemon.get("disks/hangs")["info"]["transport"], "paused", "what is shown waits for nothing");
        let (status, answer) = daemon.call("DELETE", "disks/hangs", &Value::Null);
        assert_eq!((status, &answer["code"]), (409, &json!("EBUSY")), "{answer}");
        assert!(images.set("--unfreeze"), "it can be unfrozen");
        assert_eq!(late.join().expect("an answer").0, 201);
        pause.join().expect("an answer")
    });
    assert_eq!(paused.0, 200, "{}", paused.1);
    assert_eq!(hanging.queues[0].wait(Duration::from_secs(20)), Some((number, 0)), "no request is lost");
    drop((hanging, living));
    daemon.finish();
}
