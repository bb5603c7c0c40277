//! A guest moves from one QEMU to another while packets come, and each page that the switch wrote comes along.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tests::guest::Setup;
use tests::qmp::Qmp;
use tests::{Daemon, wait};

use super::{PATIENCE, Server, add_port, expect_link, guest, start_guest, vhost};

/// Bytes of a page.
const PAGE: usize = 4096;
/// Bytes a second of a migration.
const SLOW: u64 = 4 << 20;
const FAST: u64 = 1 << 30;
/// `VHOST_F_LOG_ALL`.
const LOG_ALL: u64 = 1 << 26;

/// Compares the memory of two guests that stand still. A page that was written and not logged differs.
fn assert_same_memory(source: &mut Qmp, one: &Path, target: &mut Qmp, other: &Path) {
    let bytes = u64::from(Setup::with_addresses(&[]).memory) << 20;
    let mut pages = 0;
    for (qmp, path) in [(source, one), (target, other)] {
        qmp.ok("pmemsave", json!({ "val": 0, "size": bytes, "filename": path.display().to_string() }));
    }
    let mut files = [one, other].map(|path| BufReader::new(File::open(path).expect("saved memory")));
    let (mut here, mut there) = ([0; PAGE], [0; PAGE]);
    for page in 0..bytes / PAGE as u64 {
        files[0].read_exact(&mut here).expect("a page of the source");
        files[1].read_exact(&mut there).expect("a page of the target");
        assert!(here == there, "the page at {:#x} has not come along", page * PAGE as u64);
        pages += u64::from(here != [0; PAGE]);
    }
    assert!(pages > 1000, "a guest that runs uses memory: {pages} pages");
}

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
    // Linux copies packets up to 128 bytes out of their buffers. It writes nothing into these pages, so only the
    // switch's log tells of them. Into the buffers of longer ones it writes itself.
    let load = "iperf3 -c 10.0.0.1 -t 60 -b 10M >/tmp/client 2>&1 & ping -f -w 60 10.0.0.1 >/dev/null";
    peer.console.send(load).expect("a console");
    wait::expect("packets come", PATIENCE, || daemon.stats("from")["tx"]["packets"].as_u64() > Some(1000));

    let channel = daemon.path("migration.sock").display().to_string();
    // The target does not run on by itself, so that its memory can be looked at.
    let incoming = ["-incoming".to_owned(), format!("unix:{channel}"), "-S".to_owned()];
    let mut target = start_guest(&to, Server::Switch, 1, 1, &incoming);
    wait::expect("the target listens", PATIENCE, || std::path::Path::new(&channel).exists());
    let mut qmp = source.qmp();
    // First so slowly that most pages are written again after they were copied.
    qmp.ok("migrate-set-parameters", json!({ "max-bandwidth": SLOW }));
    qmp.ok("migrate", json!({ "uri": format!("unix:{channel}") }));
    let before = daemon.stats("from")["tx"]["packets"].as_u64();
    wait::expect("packets come meanwhile", PATIENCE, || {
        daemon.stats("from")["tx"]["packets"].as_u64() > before.map(|n| n + 5000)
    });
    qmp.ok("migrate-set-parameters", json!({ "max-bandwidth": FAST }));
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
    let mut arrived = target.qmp();
    wait::expect("the target has it all", PATIENCE, || arrived.ok("query-status", json!({}))["status"] == "paused");
    assert_same_memory(&mut qmp, &source.dir().join("memory"), &mut arrived, &target.dir().join("memory"));
    arrived.ok("cont", json!({}));
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
