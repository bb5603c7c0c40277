//! Disks that a file declares: at start, at SIGHUP, by `xswitch config`.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tests::{Daemon, Options, shell, wait};

use crate::{PATIENCE, Tmpfs, comes_up, prints};

fn write(daemon: &Daemon, name: &str, text: &str) {
    let text = format!("[dataplane]\nworkers = 1\nframes = 16384\n{text}");
    std::fs::write(daemon.path(name), text).expect("writing a configuration");
}

fn config(daemon: &Daemon, command: &str, name: &str) -> (Option<i32>, String) {
    let output = daemon.cli(&format!("config {command} {}", daemon.path(name).display()));
    (output.status.code(), shell::text(&output))
}

fn names(daemon: &Daemon) -> Vec<Value> {
    daemon.get("disks").as_array().expect("disks").iter().map(|disk| disk["name"].clone()).collect()
}

#[test]
fn declared_disks_are_there_at_start_and_follow_the_file() {
    let disk = "[[disk]]\nname = \"vm1\"\nsize = 4194304\n";
    let mut daemon = Daemon::with("disk-declared", &Options { config: disk.to_owned(), ..Options::default() });
    comes_up(&daemon, "vm1");
    daemon.ok("POST", "disks", json!({ "name": "by-hand" }));
    daemon.ok("POST", "disks/vm1/pause", json!({}));
    let grown = "[[disk]]\nname = \"vm1\"\nsize = 8388608\nlimits = { read_ops = { per_second = 5 } }\n";
    write(&daemon, "xswitch.toml", &format!("{grown}[[disk]]\nname = \"vm2\"\nqueues = 2\n"));
    kill(Pid::from_raw(daemon.pid()), Signal::SIGHUP).expect("it runs");
    wait::expect("it has grown", PATIENCE, || daemon.get("disks/vm1")["info"]["bytes"] == 8 << 20);
    comes_up(&daemon, "vm2");
    let vm1 = daemon.get("disks/vm1");
    assert_eq!((&vm1["spec"]["paused"], &vm1["spec"]["limits"]["read_ops"]["per_second"]), (&json!(true), &json!(5)));
    daemon.kill();
    daemon.launch();
    for name in ["vm1", "vm2", "by-hand"] {
        comes_up(&daemon, name);
    }
    // What the file declares no more goes, and what was made by hand stays. So do all images.
    write(&daemon, "xswitch.toml", "");
    daemon.stop();
    daemon.launch();
    comes_up(&daemon, "by-hand");
    assert_eq!(names(&daemon), [json!("by-hand")]);
    assert!(daemon.path("state/disks/vm1.img").exists());
    daemon.finish();
}

#[test]
fn a_file_is_checked_compared_applied_and_exported() {
    let daemon = Daemon::start("disk-config");
    daemon.ok(
        "POST",
        "disks",
        json!({ "name": "old", "size": 4 << 20, "limits": { "write_bytes": { "per_second": 9 } } }),
    );
    let exported = prints(&daemon.cli("config export"));
    assert!(exported.contains("[[disk]]\nname = \"old\""), "{exported}");
    std::fs::write(daemon.path("whole.toml"), &exported).expect("a file");
    assert_eq!(config(&daemon, "diff", "whole.toml").0, Some(0), "an export changes nothing");
    let one = |more: &str| format!("[[disk]]\nname = \"old\"\n{more}");
    for (text, why) in [
        (one("size = 512\n"), "disk `old`: size: "),
        (one("queues = 0\n"), "disk `old`: queues: "),
        (one("path = \"/etc/passwd\"\n"), "disk `old`: path: "),
        (one("") + &one(""), "declared twice"),
        (one("szie = 1\n"), "szie"),
        (one("pvf_id = 5\n") + "[[disk]]\nname = \"b\"\npvf_id = 5\n", "pvf_id: 5 is disk"),
    ] {
        write(&daemon, "wrong.toml", &text);
        let (code, said) = config(&daemon, "apply", "wrong.toml");
        assert!(code != Some(0) && said.contains(why), "{text}: {said}");
        assert_eq!(names(&daemon), [json!("old")]);
    }
    write(&daemon, "good.toml", &(one("size = 8388608\n") + "[[disk]]\nname = \"new\"\n"));
    let (_, told) = config(&daemon, "diff", "good.toml");
    assert!(told.contains("+ disk new") && told.contains("size: 4194304 -> 8388608"), "{told}");
    assert_eq!(daemon.get("disks/old")["info"]["bytes"], 4 << 20, "a comparison changes nothing");
    let (code, said) = config(&daemon, "apply", "good.toml");
    assert_eq!(code, Some(0), "{said}");
    wait::expect("it has grown", PATIENCE, || daemon.get("disks/old")["info"]["bytes"] == 8 << 20);
    comes_up(&daemon, "new");
    assert_eq!(daemon.get("disks/old")["spec"].get("limits"), None, "a field that is left out has its default");
    // A field that can't be changed in operation makes the disk anew, with its image.
    let inode = |path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).expect("an image"));
    let before = inode(daemon.path("state/disks/new.img"));
    write(&daemon, "good.toml", &(one("size = 8388608\n") + "[[disk]]\nname = \"new\"\nqueues = 4\n"));
    let (_, told) = config(&daemon, "diff", "good.toml");
    assert!(told.contains("-/+ disk new"), "{told}");
    assert_eq!(config(&daemon, "apply", "good.toml").0, Some(0));
    wait::expect("it is anew", PATIENCE, || {
        let disk = daemon.get("disks/new");
        disk["state"] == "up" && disk["spec"]["queues"] == 4
    });
    assert_eq!(inode(daemon.path("state/disks/new.img")), before);
    write(&daemon, "good.toml", "");
    assert_eq!(config(&daemon, "apply", "good.toml").0, Some(0));
    assert_eq!(names(&daemon), [] as [Value; 0]);
    daemon.finish();
}

fn waits(daemon: &Daemon, name: &str, why: &str) {
    wait::expect(&format!("{name} waits"), PATIENCE, || {
        let disk = daemon.get(&format!("disks/{name}"));
        disk["state"] == "failed" && disk["error"].as_str().is_some_and(|error| error.contains(why))
    });
}

#[test]
fn a_declared_disk_gets_its_image_once_that_can_be_made_and_never_a_second_one() {
    let place = tempfile::tempdir().expect("a directory");
    let (later, small) = (place.path().join("later"), Tmpfs::mount(place.path().join("small"), "1m"));
    let config = format!(
        "[disks]\ndirectories = [{later:?}, {:?}]\n\
         [[disk]]\nname = \"vm1\"\nsize = 4194304\n\
         [[disk]]\nname = \"vm2\"\npath = {:?}\nsize = 4194304\nallocate = true\nblock_size = 4096\n",
        small.0,
        small.0.join("vm2.img")
    );
    let mut daemon = Daemon::with("disk-later", &Options { config, ..Options::default() });
    // The causes outlive daemons. Disks that wait for them do too.
    for _ in 0..2 {
        waits(&daemon, "vm1", "later");
        waits(&daemon, "vm2", "No space");
        daemon.kill();
        daemon.launch();
    }
    std::fs::create_dir(&later).expect("a directory");
    small.resize("16m");
    for (name, image) in [("vm1", later.join("vm1.img")), ("vm2", small.0.join("vm2.img"))] {
        comes_up(&daemon, name);
        assert_eq!(std::fs::metadata(&image).expect("an image").len(), 4 << 20);
        std::fs::remove_file(&image).expect("it is there");
    }
    daemon.kill();
    daemon.launch();
    for name in ["vm1", "vm2"] {
        waits(&daemon, name, "No such file");
    }
    assert!(!later.join("vm1.img").exists(), "an empty image takes the place of one that is gone");
    daemon.finish();
}
