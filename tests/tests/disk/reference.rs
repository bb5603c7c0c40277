//! The same client and expectations with QEMU's storage daemon. So they are checked by another's device.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use disk::client::{Guest, GuestSpec, Task, kind};
use serde_json::json;
use tests::qmp::Qmp;
use tests::wait;

use super::{Place, Serve};

const PATIENCE: Duration = Duration::from_secs(20);
const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;

/// The storage daemon of Debian's `qemu-utils`.
struct Reference(Child);

impl Reference {
    fn start(image: &Path, socket: &Path, monitor: &Path) -> Self {
        let mut command = Command::new("qemu-storage-daemon");
        command.args([
            "--blockdev".to_owned(),
            format!("driver=file,node-name=f,filename={},cache.direct=on,discard=unmap", image.display()),
            "--export".to_owned(),
            format!("type=vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path={},writable=on", socket.display()),
            "--chardev".to_owned(),
            format!("socket,id=q,path={},server=on,wait=off", monitor.display()),
            "--monitor".to_owned(),
            "chardev=q".to_owned(),
        ]);
        let child = command.stdin(Stdio::null()).spawn().expect("qemu-storage-daemon, of Debian's qemu-utils");
        let mut reference = Self(child);
        wait::expect("it listens", PATIENCE, || {
            let ended = reference.0.try_wait().expect("a child");
            assert!(ended.is_none(), "qemu-storage-daemon has ended: {ended:?}");
            socket.exists() && monitor.exists()
        });
        reference
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What both devices have to do in the same way.
fn expect(guest: &mut Guest, mib: u64) {
    assert_eq!(guest.sectors(), mib << 11);
    let queue = &mut guest.queues[0];
    let bytes: Vec<u8> = (0..8192_u32).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
    assert_eq!(queue.run(&Task::write(8, bytes.clone())).0, OK);
    assert_eq!(queue.run(&Task::flush()).0, OK);
    assert_eq!(queue.run(&Task::read(8, 8192)), (OK, bytes.clone()));
    for (kind, flags) in [(kind::WRITE_ZEROES, 0), (kind::WRITE_ZEROES, 1), (kind::DISCARD, 0)] {
        assert_eq!(queue.run(&Task::write(8, bytes.clone())).0, OK);
        assert_eq!(queue.run(&Task::segments(kind, &[(8, 8, flags)])).0, OK);
        assert_eq!(queue.run(&Task::read(8, 4096)), (OK, vec![0; 4096]), "kind {kind}, flags {flags}");
    }
    let last = mib << 11;
    for (task, status) in [
        (Task::read(last, 512), IO_ERROR),
        (Task::read(last - 1, 1024), IO_ERROR),
        (Task::write(last, vec![1; 512]), IO_ERROR),
        (Task::read(0, 100), IO_ERROR),
        (Task::segments(kind::DISCARD, &[(last, 8, 0)]), IO_ERROR),
        (Task { kind: 99, ..Task::read(0, 512) }, UNSUPPORTED),
    ] {
        assert_eq!(queue.run(&task).0, status, "{task:?}");
    }
    // Many at once.
    for sector in 0..32 {
        assert!(queue.add(&Task::read(sector * 8, 4096)).is_some());
    }
    queue.publish();
    for _ in 0..32 {
        assert_eq!(queue.wait(PATIENCE).map(|(_, status)| status), Some(OK));
    }
}

#[test]
fn qemus_storage_daemon_does_what_is_expected_of_ours() {
    let place = Place::new(4);
    let monitor = place.0.path().join("monitor.sock");
    let _reference = Reference::start(&place.image(), &place.socket(), &monitor);
    let mut guest = Guest::new(GuestSpec::default());
    guest.connect(&place.socket());
    expect(&mut guest, 4);
    Qmp::connect(&monitor).ok("block_resize", json!({ "node-name": "f", "size": 8 << 20 }));
    assert!(guest.config_changes(PATIENCE));
    assert_eq!(guest.sectors(), 8 << 11);
}

#[test]
fn ours_does_it_too_and_each_respects_the_locks_of_the_other() {
    let place = Place::new(4);
    let monitor = place.0.path().join("monitor.sock");
    let mut serve = Serve::start(&place.image(), &place.socket(), &[]);
    let mut guest = Guest::new(GuestSpec::default());
    guest.connect(&place.socket());
    expect(&mut guest, 4);
    serve.ok(&format!("grow {}", 8 << 20));
    assert!(guest.config_changes(PATIENCE));
    assert_eq!(guest.sectors(), 8 << 11);
    // QEMU can't have the image as long as this has it.
    let other = place.0.path().join("other.sock");
    let mut command = Command::new("qemu-storage-daemon");
    let image = place.image();
    let blockdev = format!("driver=file,node-name=f,filename={}", image.display());
    let export =
        format!("type=vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path={},writable=on", other.display());
    let output = command.args(["--blockdev", &blockdev, "--export", &export]).output().expect("qemu-storage-daemon");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("lock"), "{text}");
    drop(serve);
    // Operations that the kernel still has keep the lock for a moment.
    let read = || Command::new("qemu-io").args(["-f", "raw", "-c", "read 0 512"]).arg(&image).output();
    wait::expect("the image is free", PATIENCE, || read().is_ok_and(|output| output.status.success()));
    let _reference = Reference::start(&image, &other, &monitor);
    guest.hang_up();
}
