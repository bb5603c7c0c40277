//! Clients that are slow, silent or many: they keep nobody out, and take no memory.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::json;
use tests::{Daemon, Options, http, wait};

const PATIENCE: Duration = Duration::from_secs(20);
const SCRAPE: &str = "127.0.0.1:9477";
const REST: &str = "127.0.0.1:7777";
/// More than the daemon has places for.
const MANY: usize = 400;

fn resident_mib(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") >> 10
}

fn scrape(daemon: &Daemon) -> String {
    let answer = daemon.ns.run(|| http::over_tcp(SCRAPE, "GET", "/metrics", b"").expect("a scrape"));
    assert_eq!(answer.status, 200);
    String::from_utf8(answer.body).expect("text")
}

/// Connections to an address that have sent `bytes`.
fn connections(daemon: &Daemon, address: &str, bytes: &[u8]) -> Vec<TcpStream> {
    let connect = || {
        let mut stream = TcpStream::connect(address).expect("it is listened to");
        // The daemon may close it at any time.
        let _ = stream.write_all(bytes);
        stream
    };
    daemon.ns.run(|| (0..MANY).map(|_| connect()).collect())
}

#[test]
fn slow_clients_keep_nobody_out() {
    let daemon = Daemon::with("slow", &Options { config: format!("[spp]\nlisten = \"{REST}\""), ..Options::default() });
    for bytes in [
        &b""[..],
        b"GET /met",
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /v1/vfs HTTP/1.1\r\n\
        Host: localhost\r\nContent-Length: 100\r\n\r\n{",
    ] {
        let slow = [connections(&daemon, SCRAPE, bytes), connections(&daemon, REST, bytes)];
        assert!(scrape(&daemon).contains("xswitch_build_info"));
        let answer = daemon.ns.run(|| http::over_tcp(REST, "GET", "/v1/processes", b"").expect("an answer"));
        assert_eq!(answer.status, 200);
        drop(slow);
    }
    let path = daemon.path("run");
    for socket in ["api.sock", "dpu.sock"] {
        let slow: Vec<_> = (0..MANY).map(|_| UnixStream::connect(path.join(socket)).expect("a connection")).collect();
        assert_eq!(daemon.get("version")["name"], "xswitchd");
        // Those too many are cut off, the oldest first.
        slow[0].set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut first = &slow[0];
        assert!(matches!(first.read(&mut [0; 64]), Ok(_) | Err(_)), "{socket}: it is over");
    }
    daemon.finish();
}

#[test]
fn readers_that_do_not_read_cost_little_memory() {
    let daemon = Daemon::start("readers");
    for id in 0..4000 {
        daemon.ok("POST", "meters", json!({ "id": id, "rate": 1000 }));
    }
    let text = scrape(&daemon).len();
    let before = resident_mib(&daemon);
    let slow = connections(&daemon, SCRAPE, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(scrape(&daemon).len() >= text);
    let with = resident_mib(&daemon);
    assert!(with < before + 100, "{before} MiB became {with} MiB");
    drop(slow);
    assert!(scrape(&daemon).len() >= text);
    wait::expect("memory goes back", PATIENCE, || resident_mib(&daemon) <= before + 30);
    daemon.finish();
}
