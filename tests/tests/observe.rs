//! The switch seen from outside: tshark reads captures, Prometheus reads metrics.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use tests::{Daemon, Frame, Mac, http, shell, wait};

const ETHERTYPE: u16 = 0x88b5;

/// A capture as tshark reads it: interface, direction flags and source of each packet.
fn read_back(command: &mut Command) -> Vec<[String; 3]> {
    let fields = [
        "-T",
        "fields",
        "-E",
        "separator=|",
        "-e",
        "frame.interface_name",
        "-e",
        "frame.packet_flags_direction",
        "-e",
        "eth.src",
    ];
    let text = shell::run(command.args(fields).stderr(Stdio::null()));
    text.lines()
        .map(|line| line.split('|').map(str::to_owned).collect::<Vec<_>>().try_into().expect("three fields"))
        .collect()
}

#[test]
fn a_capture_has_both_directions_of_the_port_asked_for() {
    let daemon = Daemon::start("capture");
    let (a, b, c) = (daemon.guest("a", json!({})), daemon.guest("b", json!({})), daemon.guest("c", json!({})));
    let (raw_a, raw_b, raw_c) = (a.raw(), b.raw(), c.raw());
    let file = daemon.path("a.pcapng");
    let mut capture = daemon.cli_command();
    let mut capture = capture.args(["capture", "a", "--count", "3", "-w"]).arg(&file).spawn().expect("xswitch starts");
    let mut pipe = daemon.cli_command();
    let mut pipe = pipe
        .args(["capture", "--direction", "rx", "--snaplen", "20", "--count", "3"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("xswitch starts");
    let mut tshark = Command::new("tshark");
    tshark.args(["-r", "-"]).stdin(pipe.stdout.take().expect("a pipe"));
    // The captures are on once their first bytes are there. They do not have earlier frames.
    wait::expect("the capture is on", Duration::from_secs(5), || {
        std::fs::metadata(&file).is_ok_and(|file| file.len() > 0)
    });
    std::thread::sleep(Duration::from_millis(300));
    let send = |raw: &tests::raw::RawSocket, from: Mac, to: Mac, mark: u8| {
        raw.send(&Frame::ethernet(from, to).payload(ETHERTYPE, &[mark; 46]));
        std::thread::sleep(Duration::from_millis(50));
    };
    send(&raw_a, a.mac, Mac::BROADCAST, 1);
    send(&raw_b, b.mac, a.mac, 2);
    send(&raw_c, c.mac, b.mac, 3);
    send(&raw_a, a.mac, b.mac, 4);
    assert!(capture.wait().expect("it ends").success());
    let packets = read_back(Command::new("tshark").arg("-r").arg(&file));
    let line = |port: &str, direction: &str, mac: Mac| [port.to_owned(), direction.to_owned(), mac.to_string()];
    let inbound = packets[0][1].clone();
    let outbound = packets[1][1].clone();
    assert_ne!(inbound, outbound);
    assert_eq!(packets, [line("a", &inbound, a.mac), line("a", &outbound, b.mac), line("a", &inbound, a.mac)]);
    let packets = read_back(&mut tshark);
    assert_eq!(packets, [line("a", &inbound, a.mac), line("b", &inbound, b.mac), line("c", &inbound, c.mac)]);
    assert!(pipe.wait().expect("it ends").success());
    daemon.finish();
}

#[test]
fn a_reader_that_goes_away_ends_its_capture() {
    let daemon = Daemon::start("reader");
    let a = daemon.guest("a", json!({}));
    let mut capture = daemon.cli_command();
    let mut child =
        capture.args(["capture", "a"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("xswitch starts");
    let mut head = [0; 4];
    child.stdout.take().expect("a pipe").read_exact(&mut head).expect("the section header");
    // The pipe is closed. The next frame makes the capture notice it.
    let raw = a.raw();
    let ended = wait::until(Duration::from_secs(10), || {
        raw.send(&Frame::ethernet(a.mac, Mac::BROADCAST).payload(ETHERTYPE, &[1; 46]));
        child.try_wait().expect("it can be waited for")
    });
    assert!(ended.expect("it ends").success());
    let mut said = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    assert_eq!(said, "");
    daemon.finish();
}

#[test]
fn prometheus_scrapes_what_the_counters_say() {
    let daemon = Daemon::start("prometheus");
    let (a, b) = (daemon.guest("a", json!({})), daemon.guest("b", json!({})));
    a.address("10.0.0.1/24");
    b.address("10.0.0.2/24");
    assert!(a.pings("10.0.0.2"));
    a.raw().send(&Frame::ethernet(b.mac, Mac::BROADCAST).payload(ETHERTYPE, &[1; 46]));
    daemon.expect_dropped("a", "mac_spoofed", 1);
    // An entry in each table, so that its series are checked too.
    daemon.ok("POST", "meters", json!({ "id": 50, "rate": 1_000_000 }));
    daemon.ok("PUT", "rules/7", json!({ "key": { "ipprotocol": 1 }, "action": { "vid": "normal", "meter": 50 } }));
    daemon.ok("PUT", "redirects/0", json!({ "dest": 1 }));
    daemon.ok("DELETE", "redirects/0", serde_json::Value::Null);
    assert!(a.pings("10.0.0.2"));
    daemon.assert_balanced();

    let scrape =
        daemon.ns.run(|| http::over_tcp("127.0.0.1:9477", "GET", "/metrics", b"").expect("the scrape answers"));
    assert_eq!(scrape.status, 200);
    let text = String::from_utf8(scrape.body.clone()).expect("text");
    let lookups = |by: &str| {
        let series = format!("xswitch_worker_rule_lookups_total{{worker=\"0\",by=\"{by}\"}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&series));
        value.expect("a series of the worker").parse::<u64>().expect("a count")
    };
    assert!(lookups("tables") >= 1 && lookups("cache") >= 2, "pings, new to the tables once:\n{text}");
    let file = daemon.path("metrics");
    std::fs::write(&file, &scrape.body).expect("writing it");
    let checked = shell::output(
        Command::new("promtool").args(["check", "metrics"]).stdin(std::fs::File::open(&file).expect("it is there")),
    );
    assert!(checked.status.success() && shell::text(&checked).is_empty(), "{}", shell::text(&checked));

    let config = "scrape_configs:\n  - job_name: xswitch\n    scrape_interval: 1s\n    static_configs:\n      - targets: ['127.0.0.1:9477']\n";
    std::fs::write(daemon.path("prometheus.yml"), config).expect("writing it");
    let mut server = daemon.ns.command("prometheus");
    server.arg(format!("--config.file={}", daemon.path("prometheus.yml").display()));
    server.arg(format!("--storage.tsdb.path={}", daemon.path("tsdb").display()));
    server.args(["--web.listen-address=127.0.0.1:9090", "--log.level=error"]);
    let mut server = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("prometheus starts");
    let ask = |query: &str| {
        let target = format!("/api/v1/query?query={query}");
        let answer = daemon.ns.run(|| http::over_tcp("127.0.0.1:9090", "GET", &target, b"")).ok()?;
        let answer: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
        answer["data"]["result"][0]["value"][1].as_str()?.parse::<f64>().ok()
    };
    let scraped = wait::until(Duration::from_secs(30), || ask("up").filter(|up| *up == 1.0));
    let values = [
        "xswitch_port_receive_packets_total%7Bport=%22a%22%7D",
        "xswitch_port_dropped_packets_total%7Bport=%22a%22,reason=%22mac_spoofed%22%7D",
        "xswitch_nic_transmit_packets_total%7Bport=%22a%22%7D",
        "xswitch_rule_packets_total%7Bkey_index=%227%22%7D",
        "xswitch_meter_packets_total%7Bmeter=%2250%22,color=%22green%22%7D",
    ]
    .map(ask);
    server.kill().expect("it can be killed");
    server.wait().expect("it can be waited for");
    assert!(scraped.is_some(), "Prometheus never scraped the daemon");
    let rx = daemon.stats("a")["rx"]["packets"].as_f64();
    let icmp = daemon.get("rules/7")["matched"]["packets"].as_f64();
    assert!(icmp >= Some(6.0), "three requests and their answers: {icmp:?}");
    assert_eq!(values, [rx, Some(1.0), rx, icmp, icmp]);
    daemon.finish();
}
