//! The Soft Patch Panel under hostile local users: its API, its files, and a daemon that is killed meanwhile.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tests::spp::{call, component, done, get, refused};
use tests::{Daemon, Options, http, narrow, wait};

const ADDRESS: &str = "127.0.0.1:7777";
const PATIENCE: Duration = Duration::from_secs(60);

fn connect(daemon: &Daemon) -> TcpStream {
    let stream = daemon.ns.run(|| TcpStream::connect(ADDRESS)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Sends raw bytes. Returns the status of the first answer, if there is one.
fn send(daemon: &Daemon, bytes: &[u8]) -> Option<u16> {
    let mut stream = connect(daemon);
    // The server may refuse before it has read all.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).split(' ').nth(1)?.parse().ok()
}

fn open_files(daemon: &Daemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("it runs").count()
}

fn threads(daemon: &Daemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("it runs").count()
}

fn launch_pcap(directory: &Path) -> String {
    let app = json!({ "-c": "ring:1", "--out-dir": directory });
    json!({ "client_id": 1, "proc_name": "spp_pcap", "eal": {}, "app": app }).to_string()
}

#[test]
fn captures_go_where_the_configuration_lets_them() {
    let outer = tempfile::tempdir().expect("a directory");
    let [base, more, secret] = ["base", "more", "secret"].map(|name| outer.path().join(name));
    [&base, &more, &secret].iter().for_each(|directory| std::fs::create_dir(directory).expect("a directory"));
    std::os::unix::fs::symlink(&secret, base.join("link")).expect("a link");
    std::os::unix::fs::symlink(secret.join("file"), base.join("spp-tx0.pcap")).expect("a link");
    std::os::unix::fs::symlink("/etc/hostname", base.join("spp-rx1.pcap")).expect("a link");
    let config = format!("[spp]\ndirectory = {base:?}\ncapture_directories = [{more:?}]");
    let daemon = Daemon::with("hostdir", &Options { config, ..Options::default() });
    for bad in [&secret, &base.join("link"), &base.join("../secret"), Path::new("/etc"), Path::new("/proc/self/cwd")] {
        let why = refused(&daemon, "PUT", "/v1/primary/launch", &launch_pcap(bad));
        assert!(why.contains("capture_directories"), "{why}");
    }
    let vf = json!({ "client_id": 2, "proc_name": "spp_vf", "eal": {}, "app": {} });
    done(&daemon, "PUT", "/v1/primary/launch", vf);
    done(&daemon, "POST", "/v1/vfs/2/components", json!({ "name": "f", "core": 2, "type": "forward" }));
    for (dir, port) in [("tx", "pcap:0"), ("rx", "pcap:1")] {
        let body = json!({ "action": "attach", "dir": dir, "port": port }).to_string();
        refused(&daemon, "PUT", "/v1/vfs/2/components/f/ports", &body);
    }
    for good in [&base, &more] {
        done(&daemon, "PUT", "/v1/primary/launch", serde_json::from_str(&launch_pcap(good)).expect("JSON"));
        done(&daemon, "PUT", "/v1/pcaps/1/capture", json!({ "action": "start" }));
        done(&daemon, "DELETE", "/v1/pcaps/1", Value::Null);
        assert!(std::fs::read_dir(good).expect("a directory").count() > 0);
    }
    assert_eq!(std::fs::read_dir(&secret).expect("a directory").count(), 0);
    // The operator may write captures anywhere.
    let line = format!("spp pri launch pcap 9 -- -c ring:9 --out-dir {}", secret.display());
    assert!(daemon.cli(&line).status.success());
    daemon.finish();
}

#[test]
fn a_file_that_is_damaged_while_the_daemon_is_down_stops_only_who_needs_it() {
    let base = tempfile::tempdir().expect("a directory");
    let config = format!("[spp]\ndirectory = {:?}\n[[spp.process]]\ntype = \"vf\"\nclient_id = 1", base.path());
    let mut daemon = Daemon::with("hostfile", &Options { config, ..Options::default() });
    component(&daemon, "vfs/1", "play", 1, "forward", &["rx pcap:3", "tx ring:0"]);
    component(&daemon, "vfs/1", "other", 1, "forward", &["rx nullpmd:0", "tx nullpmd:1"]);
    daemon.stop();
    std::fs::write(base.path().join("spp-rx3.pcap"), "no capture at all").expect("anybody may write to /tmp");
    daemon.launch();
    let works = |daemon: &Daemon, name: &str| {
        let state = daemon.get("spp");
        let components = state["components"].as_array().expect("a list").clone();
        components.iter().any(|one| one["name"] == format!("vf 1/{name}") && one["rx"]["packets"] != 0)
    };
    wait::expect("the other one works", PATIENCE, || works(&daemon, "other"));
    // The operator can repair it over the API.
    done(&daemon, "DELETE", "/v1/vfs/1/components/play", Value::Null);
    done(&daemon, "DELETE", "/v1/vfs/1/components/other", Value::Null);
    daemon.finish();
}

#[test]
fn a_browser_is_answered_for_no_page_of_another_server() {
    let daemon = Daemon::with(
        "hostweb",
        &Options { config: "[spp]\nhosts = [\"switch.example\"]".into(), ..Options::default() },
    );
    let ask = |method: &str, headers: &str| {
        send(&daemon, format!("{method} /v1/processes HTTP/1.1\r\nconnection: close\r\n{headers}\r\n").as_bytes())
    };
    for headers in
        ["", "host: localhost:7777\r\n", "host: 127.0.0.1\r\n", "host: [::1]\r\n", "host: switch.example:7777\r\n"]
    {
        assert_eq!(ask("GET", headers), Some(200), "{headers}");
    }
    for headers in [
        "host: evil.example:7777\r\n",
        "host: localhost\r\nhost: evil.example\r\n",
        "host: localhost:7777\r\norigin: http://evil.example\r\n",
        "host: localhost:7777\r\norigin: null\r\n",
        "host: evil.example\r\norigin: http://evil.example\r\n",
    ] {
        assert_eq!(ask("GET", headers), Some(403), "{headers}");
        assert_eq!(ask("POST", headers), Some(403), "{headers}");
        assert_eq!(ask("OPTIONS", headers), Some(403), "{headers}");
    }
    // A web page's preflight request.
    assert_eq!(ask("OPTIONS", "host: localhost\r\n"), Some(405));
    daemon.finish();
}

#[test]
fn clients_that_hold_connections_hold_nobody_else_up() {
    let daemon = Daemon::start("hostheld");
    let (files, before) = (open_files(&daemon), threads(&daemon));
    // Some send nothing, some send half of a request, and some do not read the answer.
    let mut held: Vec<_> = (0..600).map(|_| connect(&daemon)).collect();
    for stream in held.iter_mut().skip(200).take(20) {
        let _ = stream.write_all(b"PUT /v1/primary/launch HTTP/1.1\r\ncontent-length: 1000\r\n\r\n{");
    }
    for stream in held.iter_mut().skip(230).take(10) {
        stream.set_nonblocking(true).expect("a socket");
        while stream.write(&b"GET /v1/cpu_layout HTTP/1.1\r\n\r\n".repeat(100)).is_ok() {}
        stream.set_nonblocking(false).expect("a socket");
    }
    assert!(open_files(&daemon) < files + 300, "{} files", open_files(&daemon));
    assert!(threads(&daemon) < before + 64, "{} threads", threads(&daemon));
    daemon.get("ports");
    assert!(daemon.cli("port list").status.success());
    // The silent clients are disconnected, and waiting ones get their turn.
    assert_eq!(held[0].read(&mut [0]).expect("it is closed"), 0);
    drop(held);
    let served =
        || daemon.ns.run(|| http::over_tcp(ADDRESS, "GET", "/v1/processes", b"").is_ok_and(|got| got.status == 200));
    wait::expect("an answer", PATIENCE, served);
    wait::expect("no files are left", PATIENCE, || open_files(&daemon) <= files + 8);
    daemon.finish();
}

#[test]
fn requests_of_every_odd_form_are_answered_or_cut_off() {
    let daemon = Daemon::start("hostodd");
    let head =
        |rest: &str| format!("PUT /v1/primary/launch HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{rest}");
    let body = |body: &str| head(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    let deep = "[".repeat(500_000);
    let objects = "{\"a\":".repeat(100_000);
    for (bytes, status) in [
        (body(&deep), 400),
        (body(&objects), 400),
        (body(&format!("[{}]", "0,".repeat(200_000) + "0")), 400),
        (body("{\"client_id\": 1e400, \"proc_name\": \"spp_vf\", \"eal\": {}, \"app\": {}}"), 400),
        (body("{\"client_id\": 99999999999999999999999999, \"proc_name\": \"spp_vf\", \"eal\": {}, \"app\": {}}"), 400),
        (body("{\"client_id\": 1, \"proc_name\": \"\u{202e}spp_vf\", \"eal\": {}, \"app\": {}}"), 400),
        (body("\u{feff}{}"), 400),
        (head("content-length: 99999999999\r\n\r\n{}"), 413),
        (head("transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n"), 400),
        (head(&format!("x: {}\r\n\r\n", "y".repeat(1 << 20))), 431),
        (head(&"x: y\r\n".repeat(1000)), 431),
        (head("content-length: 2\r\ncontent-length: 3\r\n\r\n{}"), 400),
        ("GET /v1/%2e%2e/%2fetc%2fpasswd HTTP/1.1\r\nconnection: close\r\n\r\n".to_owned(), 404),
        ("GET /v1/vfs/%31 HTTP/1.1\r\nconnection: close\r\n\r\n".to_owned(), 404),
        ("GET /v1/vfs/99999999999999999999 HTTP/1.1\r\nconnection: close\r\n\r\n".to_owned(), 404),
        ("BREW /v1/processes HTTP/1.1\r\nconnection: close\r\n\r\n".to_owned(), 405),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 400),
        ("\0\u{1}\u{16}\r\n\r\n".to_owned(), 400),
    ] {
        let said = send(&daemon, bytes.as_bytes());
        // A truncated request has no answer.
        assert!(said.is_none_or(|said| said == status), "{said:?}, not {status}: {}", &bytes[..bytes.len().min(200)]);
    }
    // A client that sends no more is answered.
    let mut stream = connect(&daemon);
    stream.write_all(b"GET /v1/processes HTTP/1.0\r\n\r\n").expect("it listens");
    stream.shutdown(Shutdown::Write).expect("a socket");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.contains(" 200 ") && answer.contains("primary"), "{answer}");
    // Many requests at once, on one connection.
    let many =
        "GET /v1/processes HTTP/1.1\r\n\r\n".repeat(500) + "GET /v1/processes HTTP/1.1\r\nconnection: close\r\n\r\n";
    let mut stream = connect(&daemon);
    stream.write_all(many.as_bytes()).expect("it takes them");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answers");
    assert_eq!(answer.matches(" 200 ").count(), 501);
    assert_eq!(get(&daemon, "/v1/processes"), json!([{ "type": "primary" }]));
    daemon.finish();
}

#[test]
fn a_client_can_not_have_more_than_there_is() {
    let base = tempfile::tempdir().expect("a directory");
    let config = format!("[spp]\ndirectory = {:?}\n[[spp.process]]\ntype = \"nfv\"\nclient_id = 1", base.path());
    let daemon = Daemon::with("hostmany", &Options { config, ..Options::default() });
    let before = threads(&daemon);
    let add = |instance: &str, port: &str| {
        call(&daemon, "PUT", &format!("/v1/{instance}/ports"), &json!({ "action": "add", "port": port }).to_string())
    };
    let taps: Vec<_> = (0..200).map(|no| add("nfvs/1", &format!("tap:{no}")).0).collect();
    let made = taps.iter().filter(|status| **status == 204).count();
    assert!((64..=128).contains(&made) && taps.iter().all(|status| [204, 400].contains(status)), "{taps:?}");
    assert!(threads(&daemon) < before + 300, "{}", threads(&daemon));
    done(&daemon, "DELETE", "/v1/nfvs/1", Value::Null);
    wait::expect("the threads end", PATIENCE, || threads(&daemon) <= before + 16);
    let left = daemon
        .ns
        .links()
        .iter()
        .filter(|link| link["ifname"].as_str().is_some_and(|name| name.starts_with("spp_")))
        .count();
    assert_eq!(left, 0);
    daemon.finish();
}

/// Changes everything at random, until it is told to stop.
fn meddle(daemon: &Daemon, seed: u64, stop: &AtomicBool) {
    let requests = [
        ("PUT", "/v1/primary/launch", json!({ "client_id": 3, "proc_name": "spp_vf", "eal": {}, "app": {} })),
        (
            "PUT",
            "/v1/primary/launch",
            json!({ "client_id": 4, "proc_name": "spp_pcap", "eal": {}, "app": { "-c": "ring:0" } }),
        ),
        ("PUT", "/v1/pcaps/4/capture", json!({ "action": "start" })),
        ("PUT", "/v1/pcaps/4/capture", json!({ "action": "stop" })),
        ("DELETE", "/v1/pcaps/4", Value::Null),
        ("POST", "/v1/vfs/3/components", json!({ "name": "a", "core": 3, "type": "forward" })),
        ("PUT", "/v1/vfs/3/components/a/ports", json!({ "action": "attach", "dir": "rx", "port": "nullpmd:0" })),
        ("PUT", "/v1/vfs/3/components/a/ports", json!({ "action": "attach", "dir": "tx", "port": "ring:0" })),
        ("PUT", "/v1/vfs/3/components/a/ports", json!({ "action": "detach", "dir": "tx", "port": "ring:0" })),
        ("PUT", "/v1/vfs/3/components/a/ports", json!({ "action": "attach", "dir": "tx", "port": "tap:1" })),
        ("PUT", "/v1/vfs/3/flush", json!({ "action": "on" })),
        ("PUT", "/v1/vfs/3/flush", json!({ "action": "flush" })),
        ("PUT", "/v1/vfs/3/flush", json!({ "action": "off" })),
        ("DELETE", "/v1/vfs/3", Value::Null),
        ("DELETE", "/v1/primary", Value::Null),
    ];
    let mut at = seed;
    while !stop.load(Ordering::Relaxed) {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The last request ends the primary, so it is rare.
        let most = if at >> 60 == 0 { requests.len() } else { requests.len() - 1 };
        let (method, target, body) = &requests[narrow::<usize>(at >> 33) % most];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = http::over_tcp(ADDRESS, method, target, body.as_bytes());
        let status = answer.map_or(0, |answer| answer.status);
        assert_ne!(status, 500, "{method} {target} {body}: {}", daemon.log());
    }
}

#[test]
fn a_daemon_that_is_killed_amid_changes_goes_on_with_what_was_acknowledged() {
    let base = tempfile::tempdir().expect("a directory");
    let config = format!("[spp]\ndirectory = {:?}", base.path());
    let mut daemon = Daemon::with("hostkill", &Options { workers: 2, config, ..Options::default() });
    for round in 0..4 {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (running, stop) = (&daemon, &stop);
            for client in 0..6 {
                scope.spawn(move || running.ns.run(|| meddle(running, round * 10 + client, stop)));
            }
            std::thread::sleep(Duration::from_millis(700));
            // Killed in the midst of it. The clients find nobody then.
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(daemon.pid()), nix::sys::signal::Signal::SIGKILL)
                .expect("it runs");
            stop.store(true, Ordering::Relaxed);
        });
        daemon.kill();
        daemon.launch();
        let status = get(&daemon, "/v1/processes");
        assert!(status.as_array().is_some_and(|list| list.contains(&json!({ "type": "primary" }))), "{status}");
        done(&daemon, "DELETE", "/v1/primary/status", Value::Null);
    }
    for instance in ["vfs/3", "pcaps/4"] {
        let (status, _, why) = call(&daemon, "DELETE", &format!("/v1/{instance}"), "");
        assert!([204, 404].contains(&status), "{why}");
    }
    let state = daemon.get("spp");
    assert_eq!((&state["components"], &state["outside"]), (&json!([]), &json!([])));
    let ends = state["ends"].as_array().expect("a list");
    assert!(!ends.iter().any(|end| end["end"].get("ring").is_some()), "{ends:?}");
    let names: Vec<_> =
        daemon.ns.links().iter().map(|link| link["ifname"].as_str().unwrap_or_default().to_owned()).collect();
    assert!(!names.iter().any(|name| name.starts_with("spp_")), "{names:?}");
    daemon.finish();
}
