//! The daemon's own files and sockets, removed or replaced while it runs, and in the hands of other users.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tests::{Daemon, http, wait};

const PATIENCE: Duration = Duration::from_secs(20);

fn rule(index: u32) -> Value {
    json!({ "key_index": index, "key": { "dl4port": 25 + index }, "action": { "vid": "drop" } })
}

fn rules(daemon: &Daemon) -> usize {
    daemon.get("rules").as_array().expect("rules").len()
}

/// Status of a check of `doctor`.
fn check(daemon: &Daemon, name: &str) -> Option<Value> {
    let checks = daemon.get("doctor");
    checks.as_array().expect("checks").iter().find(|check| check["name"] == name).map(|check| check["status"].clone())
}

/// Waits until the API answers at its path.
fn answers(daemon: &Daemon) {
    wait::expect("the API answers", PATIENCE, || {
        http::over_unix(&daemon.path("run/api.sock"), "GET", "/api/v1/version", b"").is_ok()
    });
}

#[test]
fn a_state_directory_that_is_removed_is_made_again_with_everything() {
    let mut daemon = Daemon::start("stategone");
    daemon.ok("POST", "rules", rule(0));
    let state = daemon.path("state");
    type Remove<'a> = (&'a str, &'a dyn Fn());
    let moved = daemon.path("moved");
    let steps: [Remove<'_>; 3] = [
        ("removed", &|| std::fs::remove_dir_all(&state).expect("it can be removed")),
        ("moved", &|| std::fs::rename(&state, &moved).expect("it can be moved")),
        ("replaced", &|| {
            std::fs::remove_file(state.join("state.redb")).expect("it can be removed");
            std::fs::write(state.join("state.redb"), "something else").expect("it can be written");
        }),
    ];
    for (at, (what, remove)) in (1..).zip(steps) {
        remove();
        daemon.ok("POST", "rules", rule(2 * at));
        remove_again(&state);
        wait::expect(what, PATIENCE, || state.join("state.redb").exists() && state.join("exclusive.lock").exists());
        daemon.ok("POST", "rules", rule(2 * at + 1));
        assert_eq!(check(&daemon, "state file"), Some(json!("warn")), "{what}");
        daemon.kill();
        daemon.launch();
        assert_eq!(rules(&daemon), 1 + 2 * at as usize, "{what}");
    }
    assert!(
        daemon.log().contains("state file") && daemon.log().contains("was removed or replaced"),
        "{}",
        daemon.log()
    );
    daemon.finish();
}

fn remove_again(state: &Path) {
    let _ = std::fs::remove_dir_all(state);
}

#[test]
fn nothing_is_acknowledged_while_the_state_file_can_not_be_written() {
    let daemon = Daemon::start("statelost");
    daemon.ok("POST", "rules", rule(0));
    let state = daemon.path("state");
    std::fs::remove_dir_all(&state).expect("it can be removed");
    std::fs::write(&state, "in the way").expect("it can be written");
    let (status, answer) = daemon.call("POST", "rules", &rule(1));
    assert!(status >= 500 && answer["error"].as_str().is_some_and(|why| why.contains("can't be kept")), "{answer}");
    assert_eq!(rules(&daemon), 1);
    wait::expect("doctor says so", PATIENCE, || check(&daemon, "state file") == Some(json!("fail")));
    let scrape = daemon.ns.run(|| http::over_tcp("127.0.0.1:9477", "GET", "/metrics", b"").expect("a scrape"));
    assert!(String::from_utf8_lossy(&scrape.body).contains("xswitch_file_lost{file=\"state_file\"} 1"));
    std::fs::remove_file(&state).expect("it can be removed");
    wait::expect("it is written again", PATIENCE, || state.join("state.redb").exists());
    daemon.ok("POST", "rules", rule(1));
    daemon.finish();
}

#[test]
fn a_run_directory_that_is_removed_is_made_again_with_its_sockets() {
    let mut daemon = Daemon::start("rungone");
    let guest = daemon.guest("vm1", json!({}));
    let run = daemon.path("run");
    let names = ["api.sock", "dpu.sock", "fds.sock", "exclusive.lock", "xswitchd.lock", "guests"];
    for name in names {
        let path = run.join(name);
        if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) }.expect("it is there");
        wait::expect(name, PATIENCE, || path.exists());
    }
    std::fs::remove_dir_all(&run).expect("it can be removed");
    for name in names {
        wait::expect(name, PATIENCE, || run.join(name).exists());
    }
    answers(&daemon);
    assert_eq!(check(&daemon, "api socket"), Some(json!("warn")));
    let output = tests::shell::output(&mut daemon.command());
    assert_eq!(output.status.code(), Some(1), "the directory is locked: {}", tests::shell::text(&output));
    assert_eq!(daemon.get("ports/vm1")["state"], "up", "{}", guest.name);
    daemon.stop();
    assert!(!run.join("api.sock").exists() && !run.join("fds.sock").exists());
    daemon.launch();
    daemon.finish();
}

/// A process of an unprivileged user.
fn stranger(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", program]);
    command
}

#[test]
fn no_other_user_can_lock_or_read_what_is_the_daemons() {
    let mut daemon = Daemon::start("files");
    std::fs::set_permissions(daemon.path(""), PermissionsExt::from_mode(0o755)).expect("its own directory");
    daemon.ok("POST", "rules", rule(0));
    // Whatever others may open they may lock.
    let mut holders = Vec::new();
    for dir in ["run", "state"] {
        let lock = daemon.path(dir).join("xswitchd.lock");
        let holder = stranger("flock")
            .args(["--shared", "--no-fork"])
            .arg(lock)
            .args(["sleep", "600"])
            .stderr(Stdio::null())
            .spawn();
        holders.push(holder.expect("flock starts"));
    }
    // A lock of an earlier version, and a state file of one: open to all, and locked.
    daemon.stop();
    let state = daemon.path("state/state.redb");
    std::fs::set_permissions(&state, PermissionsExt::from_mode(0o644)).expect("the state file");
    let holder = stranger("flock").args(["--shared", "--no-fork"]).arg(&state).args(["sleep", "600"]).spawn();
    holders.push(holder.expect("flock starts"));
    wait::expect("it is locked", PATIENCE, || std::fs::File::open(&state).expect("the state file").try_lock().is_err());
    daemon.launch();
    assert_eq!(rules(&daemon), 1);
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    for (name, expected) in [
        ("run", 0o755),
        ("state", 0o755),
        ("state/state.redb", 0o600),
        ("state/exclusive.lock", 0o600),
        ("run/exclusive.lock", 0o600),
        ("run/guests", 0o700),
        ("run/api.sock", 0o660),
        ("run/dpu.sock", 0o660),
        ("run/fds.sock", 0o600),
    ] {
        assert_eq!(mode(&daemon.path(name)), expected, "{name}");
    }
    wait::expect("learned addresses are kept", PATIENCE, || daemon.path("run/fdb.json").exists());
    assert_eq!(mode(&daemon.path("run/fdb.json")), 0o600);
    for holder in &mut holders {
        let _ = holder.kill();
        let _ = holder.wait();
    }
    daemon.finish();
}
