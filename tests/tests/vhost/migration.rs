//! A guest moves from one QEMU to another while packets come, and each page that the switch wrote comes along.

use std::time::Duration;

use serde_json::json;
use tests::{Daemon, wait};

use super::{PATIENCE, Server, add_port, expect_link, guest, start_guest, vhost};

/// `VHOST_F_LOG_ALL`.
const LOG_ALL: u64 = 1 << 26;

#[test]
fn a_guest_migrates_while_packets_come() {
    let daemon = Daemon::start("vhostmigrate");
    let mut peer = guest(&daemon, "b", Server::Switch, 2);
    let from = add_port(&daemon, "from", Server::Switch, 1);
    let to = add_port(&daemon, "to", Server::Switch, 1);
    let mut source = start_guest(&from, Server::Switch, 1, 1, &[]);
    source.wait_ready();
    assert!(source.pings("10.0.0.2"));
    // What comes in goes to memory of the guest, and is checked after the move.
    source.sh("iperf3 -s -D; sleep 1");
    peer.console.send("iperf3 -c 10.0.0.1 -t 60 -b 20M >/tmp/client 2>&1").expect("a console");
    wait::expect("packets come", PATIENCE, || daemon.stats("from")["tx"]["packets"].as_u64() > Some(1000));

    let channel = daemon.path("migration.sock").display().to_string();
    let mut target = start_guest(&to, Server::Switch, 1, 1, &["-incoming".to_owned(), format!("unix:{channel}")]);
    wait::expect("the target listens", PATIENCE, || std::path::Path::new(&channel).exists());
    let mut qmp = source.qmp();
    qmp.ok("migrate", json!({ "uri": format!("unix:{channel}") }));
    let mut logged = false;
    let ended = wait::until(Duration::from_secs(120), || {
        let features = vhost(&daemon, "from")["features"].as_u64().unwrap_or_default();
        logged |= features & LOG_ALL != 0;
        let status = qmp.ok("query-migrate", json!({}))["status"].clone();
        assert_ne!(status, "failed", "{}", source.log());
        (status == "completed").then_some(())
    });
    assert!(ended.is_some(), "the guest does not get across");
    assert!(logged, "no page was logged");
    expect_link(&daemon, "to", true);
    // The stream goes on to where the guest is now.
    let before = daemon.stats("to")["tx"]["packets"].as_u64();
    wait::expect("packets come there", PATIENCE, || {
        daemon.stats("to")["tx"]["packets"].as_u64() > before.map(|n| n + 1000)
    });
    // The source's guest is stopped, its QEMU still there.
    drop(source);
    let kernel = target.sh("dmesg | grep -ciE 'oops|bug:|corrupt|bad page' || true");
    assert_eq!(kernel.trim(), "0");
    assert!(target.pings("10.0.0.2"));
    let table = daemon.get("fdb");
    let row = table.as_array().and_then(|rows| rows.iter().find(|row| row["mac"] == "52:54:00:00:00:01"));
    assert_eq!(row.map(|row| row["port"].clone()), Some(json!("to")), "{table}");
    daemon.finish();
}
