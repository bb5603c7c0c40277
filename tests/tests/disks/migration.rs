//! A guest moves to another daemon with its disk, whose image both have. One of them has the right to it at a time.

use std::time::Duration;

use serde_json::{Value, json};
use tests::disk_guest::{DiskGuest, Drive};
use tests::guest::Setup;
use tests::shell::{run, words};
use tests::{Daemon, Options, wait};

use crate::{PATIENCE, counter, lock, socket};

/// Bytes a second of a migration.
const SLOW: u64 = 16 << 20;
const FAST: u64 = 1 << 30;

/// A daemon that has the disk `vm1` on storage that others have too.
fn daemon(label: &str, images: &std::path::Path) -> Daemon {
    let config = format!("[disks]\ndirectories = [{images:?}]\n");
    let daemon = Daemon::with(label, &Options { config, ..Options::default() });
    daemon.ok("POST", "disks", json!({ "name": "vm1", "size": 64 << 20, "queues": 2, "shared_storage": true }));
    daemon
}

fn transport(daemon: &Daemon) -> Value {
    daemon.get("disks/vm1")["info"]["transport"].clone()
}

#[test]
fn a_guest_migrates_with_its_disk_under_load_and_the_image_has_one_writer() {
    let images = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let image = images.path().join("vm1.img");
    let (from, to) = (daemon("disk-source", images.path()), daemon("disk-target", images.path()));
    run(&mut words(&format!("/usr/sbin/mkfs.ext4 -q -F {}", image.display())));
    let start = |daemon: &Daemon, args: Vec<String>| {
        let setup = Setup { args: args.into_iter().map(Into::into).collect(), ..Setup::default() };
        DiskGuest::start(setup, &[Drive::at(&socket(daemon, "vm1"), ",num-queues=2")])
    };
    let mut source = start(&from, Vec::new());
    let channel = from.path("migration.sock").display().to_string();
    let mut target = start(&to, vec!["-incoming".to_owned(), format!("unix:{channel}")]);
    source.wait_ready();
    source.write_files();
    source.writes_on();
    // Until the guest comes the target's rings don't run, and it has no right to the image.
    assert_eq!(transport(&to), "negotiated");
    assert!(lock(&image).is_none(), "the source has it");

    let mut qmp = source.qmp();
    qmp.ok("migrate-set-parameters", json!({ "max-bandwidth": SLOW }));
    qmp.ok("migrate", json!({ "uri": format!("unix:{channel}") }));
    source.writes_on();
    qmp.ok("migrate-set-parameters", json!({ "max-bandwidth": FAST }));
    let ended = wait::until(Duration::from_secs(60), || {
        let status = qmp.ok("query-migrate", json!({}))["status"].clone();
        assert_ne!(status, "failed", "{}\n{}", source.log(), target.log());
        (status == "completed").then_some(())
    });
    assert!(ended.is_some(), "the guest does not get across");
    wait::expect("the target's rings run", PATIENCE, || transport(&to) == "running");
    assert_ne!(transport(&from), "running");
    let done = |daemon: &Daemon| counter(daemon, "vm1", &["write", "operations"]);
    let before = (done(&from), done(&to));
    target.arrives_from(source);
    target.writes_on();
    assert_eq!(done(&from), before.0, "the source writes nothing any more");
    assert!(done(&to) > before.1);
    assert!(lock(&image).is_none(), "the target has it");
    target.check_files();
    target.power_off();
    wait::expect("nobody has it", PATIENCE, || lock(&image).is_some());
    run(&mut words(&format!("/usr/sbin/e2fsck -fn {}", image.display())));
    from.finish();
    to.finish();
}
