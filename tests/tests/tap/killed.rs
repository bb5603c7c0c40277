//! A daemon that is killed while it makes or deletes a tap port.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Daemon, NetNs};

use crate::{add, names};

#[test]
fn a_killed_add_or_del_leaves_no_netdev_without_a_port() {
    let mut daemon = Daemon::start("tapkilled");
    let jail = NetNs::new("jail");
    let mut seen = [false; 2];
    for step in 0..24_u32 {
        let socket = daemon.path("run/api.sock");
        let netns = if step % 2 == 0 { Value::Null } else { json!(jail.name()) };
        let work = std::thread::spawn(move || {
            let body = json!({ "name": "a", "kind": "tap", "netns": netns }).to_string();
            let _ = tests::http::over_unix(&socket, "POST", "/api/v1/ports", body.as_bytes());
            let _ = tests::http::over_unix(&socket, "DELETE", "/api/v1/ports/a", b"");
        });
        std::thread::sleep(Duration::from_millis(u64::from(step) * 2));
        daemon.kill();
        work.join().expect("the client ends");
        daemon.launch();
        let is_there = daemon.get("ports").as_array().is_some_and(|ports| !ports.is_empty());
        seen[usize::from(is_there)] = true;
        if is_there {
            daemon.ok("DELETE", "ports/a", Value::Null);
        }
        assert_eq!((names(&daemon.ns), names(&jail)), (vec!["lo".to_owned()], vec!["lo".to_owned()]), "step {step}");
    }
    assert!(seen[0], "no add was interrupted");
    add(&daemon, "a", json!({}));
    daemon.finish();
}
