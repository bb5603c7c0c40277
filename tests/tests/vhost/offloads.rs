//! Checksums and segments that guests leave to the switch: between guests, and towards a kernel that checks.

use std::io::Read;
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tests::guest::Vm;
use tests::{Daemon, http, shell};

use super::{Server, start_guest, vhost};

/// Feature bits without a checksum or segment for the other side.
const PLAIN: u64 = 1 << 32 | 1 << 35 | 1 << 29 | 1 << 28 | 1 << 22 | 1 << 17 | 1 << 15 | 1 << 3;
/// CSUM and `GUEST_CSUM`, TSO both ways for IPv4 and IPv6.
const OFFLOADS: u64 = 1 | 1 << 1 | 1 << 7 | 1 << 8 | 1 << 11 | 1 << 12;
/// Bytes of the file that is sent.
const FILE: usize = 6_000_000;

/// A guest at a port that offers these features.
fn guest(daemon: &Daemon, name: &str, number: u8, features: Option<u64>) -> Vm {
    let socket = daemon.path(&format!("{name}.sock")).display().to_string();
    let mut port = json!({ "name": name, "kind": "vhost", "vhost": { "socket": socket } });
    if let Some(features) = features {
        port["feature_list"] = features.into();
    }
    daemon.ok("POST", "ports", port);
    let mut vm = start_guest(&socket, Server::Switch, number, 1, &[]);
    vm.wait_ready();
    vm
}

fn features(daemon: &Daemon, port: &str) -> u64 {
    vhost(daemon, port)["features"].as_u64().expect("features")
}

fn count(daemon: &Daemon, port: &str, counter: &str) -> u64 {
    vhost(daemon, port)[counter].as_u64().expect("a counter")
}

/// Makes the file, and returns its MD5 sum.
fn file(vm: &mut Vm) -> String {
    vm.sh(&format!("head -c {FILE} /dev/urandom >/tmp/file; md5sum </tmp/file"))
}

/// Sends the file from one guest to the other, and checks what has arrived.
fn send_file(from: &mut Vm, to: &mut Vm, to_ip: &str) {
    let sum = file(from);
    // Neither end sees the end of its input. So both stay until all has arrived.
    to.sh("(sleep 1000 | nc -l -p 5001 >/tmp/got) >/dev/null 2>&1 & sleep 1");
    from.sh(&format!("(cat /tmp/file; sleep 1000) | nc {to_ip} 5001 >/dev/null 2>&1 &"));
    let all = format!("for try in $(seq 100); do [ $(stat -c %s /tmp/got) = {FILE} ] && break; sleep 0.5; done");
    let got = to.sh(&format!("{all}; md5sum </tmp/got"));
    assert_eq!(got, sum);
    for vm in [from, to] {
        vm.sh("killall nc sleep; while pidof nc; do sleep 0.1; done; true");
    }
}

/// Bits a second from `a` to an iperf3 server in 10.0.0.`number`.
fn rate(a: &mut Vm, number: u8) -> f64 {
    let report = a.sh(&format!("iperf3 --json -c 10.0.0.{number} -t 4"));
    let report: Value = serde_json::from_str(&report).unwrap_or_else(|error| panic!("{error}: {report}"));
    report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or_else(|| panic!("no rate: {report}"))
}

#[test]
fn tcp_between_guests_goes_in_long_packets_and_arrives_intact() {
    let daemon = Daemon::start("vhosttso");
    let (mut a, mut b) = (guest(&daemon, "a", 1, None), guest(&daemon, "b", 2, None));
    assert_eq!((features(&daemon, "a") & OFFLOADS, features(&daemon, "b") & OFFLOADS), (OFFLOADS, OFFLOADS));
    send_file(&mut a, &mut b, "10.0.0.2");
    let long = count(&daemon, "b", "long_sent");
    assert!(long > 50, "{long} long packets");
    assert_eq!(count(&daemon, "a", "long_received"), long);
    assert_eq!(count(&daemon, "b", "segmented"), 0);
    let scrape = daemon.ns.run(|| http::over_tcp("127.0.0.1:9477", "GET", "/metrics", b"").expect("it answers"));
    let metrics = String::from_utf8(scrape.body).expect("text");
    let series = format!("xswitch_vhost_offload_packets_total{{port=\"b\",outcome=\"long_sent\"}} {long}");
    assert!(metrics.contains(&series), "{metrics}");
    // What is counted are segments.
    let stats = daemon.stats("b");
    let (packets, bytes) = (stats["tx"]["packets"].as_u64().unwrap(), stats["tx"]["bytes"].as_u64().unwrap());
    assert!(bytes / packets <= 1514 && packets > (FILE / 1514) as u64, "{stats}");
    b.sh("iperf3 -s -D");
    let whole = rate(&mut a, 2);
    // The sender cuts by itself.
    a.sh("ethtool -K eth0 tso off tx off");
    let before = count(&daemon, "a", "long_received");
    send_file(&mut a, &mut b, "10.0.0.2");
    assert_eq!(count(&daemon, "a", "long_received"), before, "none is left to be cut");
    a.sh("ethtool -K eth0 tx on tso on");
    send_file(&mut a, &mut b, "10.0.0.2");
    assert!(count(&daemon, "a", "long_received") > before);
    drop((a, b));
    // Guests that are offered none.
    let (mut c, mut d) = (guest(&daemon, "c", 3, Some(PLAIN)), guest(&daemon, "d", 4, Some(PLAIN)));
    assert_eq!((features(&daemon, "c") & OFFLOADS, features(&daemon, "d") & OFFLOADS), (0, 0));
    send_file(&mut c, &mut d, "10.0.0.4");
    assert_eq!(count(&daemon, "c", "long_received"), 0);
    d.sh("iperf3 -s -D");
    let cut = rate(&mut c, 4);
    println!("TCP between two guests: {:.0} Mbit/s whole, {:.0} cut: {:.1} times", whole / 1e6, cut / 1e6, whole / cut);
    daemon.assert_balanced();
    daemon.finish();
}

#[test]
fn guests_with_and_without_offloads_reach_each_other() {
    let daemon = Daemon::start("vhostmixed");
    let (mut a, mut b) = (guest(&daemon, "a", 1, None), guest(&daemon, "b", 2, Some(PLAIN)));
    send_file(&mut a, &mut b, "10.0.0.2");
    assert!(count(&daemon, "a", "long_received") > 50);
    assert_eq!(count(&daemon, "b", "long_sent"), 0);
    assert!(count(&daemon, "b", "segmented") > 50);
    send_file(&mut b, &mut a, "10.0.0.1");
    assert_eq!(count(&daemon, "a", "malformed") + count(&daemon, "b", "malformed"), 0);
    daemon.assert_balanced();
    daemon.finish();
}

#[test]
fn a_kernel_on_a_veth_gets_segments_with_right_checksums() {
    let daemon = Daemon::start("vhostwire");
    let veth = daemon.guest("c", json!({}));
    veth.address("10.0.0.3/24");
    // What tshark sees is what came, and not what the kernel has put together.
    veth.ns.sh(&format!("ethtool -K {} gro off", veth.ifname));
    let mut a = guest(&daemon, "a", 1, None);
    assert!(a.pings("10.0.0.3"));
    let sum = file(&mut a);
    let capture = daemon.path("wire.pcapng");
    let mut tshark = veth.ns.command("tshark");
    tshark.args(["-q", "-i", &veth.ifname, "-f", "tcp and src 10.0.0.1", "-c", "1000", "-w"]).arg(&capture);
    let mut tshark = tshark.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("tshark");
    // It says so when it captures.
    let mut said = [0; 1];
    tshark.stderr.as_mut().expect("a pipe").read_exact(&mut said).expect("tshark is ready");
    std::thread::sleep(Duration::from_secs(2));
    let listener = veth.ns.run(|| TcpListener::bind("10.0.0.3:5001").expect("a listener"));
    let receiver = std::thread::spawn(move || {
        let mut got = Vec::new();
        listener.accept().expect("a connection").0.read_to_end(&mut got).map(|_| got)
    });
    a.sh("nc 10.0.0.3 5001 </tmp/file");
    let got = receiver.join().expect("a thread").expect("all of the file");
    assert_eq!(got.len(), FILE);
    let got_file = daemon.path("got");
    std::fs::write(&got_file, got).expect("a file");
    assert_eq!(
        shell::run(std::process::Command::new("md5sum").stdin(std::fs::File::open(got_file).expect("it"))).trim(),
        sum.trim()
    );
    // The fewest that the file can go in are about 92.
    assert!(count(&daemon, "a", "long_received") > 50);
    assert!(tshark.wait().expect("tshark").success());
    let mut read = std::process::Command::new("tshark");
    read.arg("-r").arg(&capture).args(["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]);
    read.args(["-T", "fields", "-e", "frame.len", "-e", "tcp.checksum.status", "-e", "ip.checksum.status"]);
    let text = shell::run(read.stderr(Stdio::null()));
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 1000);
    for line in &lines {
        let [len, tcp, ip] = line.split('\t').collect::<Vec<_>>().try_into().expect("three fields");
        assert!(len.parse::<u32>().expect("a length") <= 1514 && (tcp, ip) == ("1", "1"), "{line}");
    }
    // What the window leaves room for ends with a short one.
    assert!(lines.iter().filter(|line| line.starts_with("1514")).count() > 200, "{text}");
    daemon.assert_balanced();
    daemon.finish();
}
