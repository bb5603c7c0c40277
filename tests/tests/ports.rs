//! Ports on real netdevs: modes, MTU, checksums, foreign programs, refusals, the command line.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tests::raw::RawSocket;
use tests::veth::{End, Veth, address};
use tests::xsk_guest::XskGuest;
use tests::{Daemon, Frame, Mac, NetNs, shell, wait};

const SOON: Duration = Duration::from_secs(3);

/// A TCP transfer from one namespace to another. Both stacks check every checksum.
fn transfer(from: &NetNs, to: &NetNs, ip: &str) {
    const BYTES: usize = 4 << 20;
    let address = format!("{ip}:5001");
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            to.enter();
            let listener = std::net::TcpListener::bind(&address).expect("the address is free");
            ready.send(()).expect("the sender waits");
            let mut received = Vec::new();
            let (mut stream, _) = listener.accept().expect("a connection");
            stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
            std::io::Read::read_to_end(&mut stream, &mut received).expect("data");
            assert_eq!(received.len(), BYTES);
        });
        let address = &address;
        scope.spawn(move || {
            from.enter();
            is_ready.recv().expect("the receiver is ready");
            let mut stream = std::net::TcpStream::connect(address).expect("a connection");
            stream.set_write_timeout(Some(Duration::from_secs(10))).expect("a timeout");
            std::io::Write::write_all(&mut stream, &vec![7; BYTES]).expect("data");
        });
    });
}

#[test]
fn kernel_guests_and_a_kernel_host_behind_a_phy_have_right_checksums() {
    let daemon = Daemon::start("sums");
    let host = NetNs::new("host");
    let (near, far) = (End { ns: &daemon.ns, ifname: "up0" }, End { ns: &host, ifname: "h0" });
    Veth::default().connect(near, far);
    address(far, "10.0.0.9/24");
    daemon.ok("POST", "ports", json!({ "name": "up", "kind": "phy", "ifname": "up0" }));
    let (a, b) = (daemon.guest("a", json!({})), daemon.guest("b", json!({})));
    a.address("10.0.0.1/24");
    b.address("10.0.0.2/24");
    transfer(&a.ns, &b.ns, "10.0.0.2");
    transfer(&a.ns, &host, "10.0.0.9");
    transfer(&host, &b.ns, "10.0.0.2");
    assert_eq!(
        daemon.get("doctor").as_array().expect("checks").iter().filter(|check| check["status"] == "fail").count(),
        0
    );
    // Somebody turns an offload on again. The daemon notices and reports it, or has repaired it already.
    a.ns.sh(&format!("ethtool -K {} tx on", a.ifname));
    let told = daemon.get("doctor").to_string();
    let is_repaired = || daemon.log().contains("its offloads are turned off again");
    assert!(told.contains("tx-checksum-ip-generic") || is_repaired(), "{told}");
    daemon.finish();
}

#[test]
fn each_mode_carries_packets_and_is_reported() {
    let daemon = Daemon::start("modes");
    let native = daemon.guest("n", json!({ "mode": "native" }));
    let generic = daemon.guest("g", json!({ "mode": "generic" }));
    native.address("10.0.0.1/24");
    generic.address("10.0.0.2/24");
    assert_eq!(daemon.get("ports/n")["info"]["mode"], "native");
    assert_eq!(daemon.get("ports/g")["info"]["mode"], "generic");
    assert!(native.pings("10.0.0.2"));
    transfer(&native.ns, &generic.ns, "10.0.0.2");
    transfer(&generic.ns, &native.ns, "10.0.0.1");
    daemon.finish();
}

#[test]
fn native_mode_that_cannot_be_had_is_refused_or_replaced_with_the_reason() {
    let daemon = Daemon::start("native");
    let spec = |mode| json!({ "name": "x", "kind": "guest", "mode": mode, "mtu": 3600, "guest_sockets": true });
    let (status, error) = daemon.call("POST", "ports", &spec("native"));
    assert_eq!(status, 400, "{error}");
    let text = error["error"].as_str().expect("a text");
    assert!(text.contains("68 to 3506") && text.contains("a guest's own AF_XDP sockets"), "{error}");
    // The program at the guest's end is for packets of one page. The switch's is not.
    let port = daemon.ok("POST", "ports", spec("auto"));
    let end = &port["info"]["guest_end"];
    assert_eq!((&port["info"]["mode"], &end["mode"]), (&json!("native"), &json!("generic")));
    assert!(end["mode_reason"].as_str().expect("a reason").contains("MTU is too large"), "{port}");
    daemon.ok("DELETE", "ports/x", Value::Null);
    assert!(daemon.ns.find_ifindex("xs0").is_none(), "the pair goes with its port");
    daemon.finish();
}

#[test]
fn the_largest_mtu_passes_and_more_is_refused_with_the_range() {
    let daemon = Daemon::start("mtu");
    let (a, b) = (daemon.guest("a", json!({ "mtu": 65_535 })), daemon.guest("b", json!({ "mtu": 65_535 })));
    let info = &daemon.get("ports/a")["info"];
    assert_eq!((&info["mode"], &info["max_mtu"]), (&json!("native"), &json!(65_535)));
    a.address("10.0.0.1/24");
    b.address("10.0.0.2/24");
    // IP and ICMP headers are 28 bytes. Fragments are off.
    a.ns.sh("ping -c 2 -i 0.2 -W 2 -M do -s 65507 10.0.0.2");
    let (big_a, big_b) = (
        daemon.guest("ga", json!({ "mtu": 65_535, "mode": "generic" })),
        daemon.guest("gb", json!({ "mtu": 65_535, "mode": "generic" })),
    );
    big_a.address("10.0.1.1/24");
    big_b.address("10.0.1.2/24");
    big_a.ns.sh("ping -c 2 -i 0.2 -W 2 -M do -s 65507 10.0.1.2");
    for (method, target, body) in [
        ("POST", "ports", json!({ "name": "j", "kind": "guest", "mtu": 65_536 })),
        ("POST", "ports", json!({ "name": "j", "kind": "guest", "mtu": 67 })),
        ("PATCH", "ports/a", json!({ "mtu": 65_536 })),
    ] {
        let (status, error) = daemon.call(method, target, &body);
        assert_eq!((status, error["code"].as_str()), (400, Some("EINVAL")), "{error}");
        assert!(error["error"].as_str().expect("a text").contains("68 to 65535"), "{error}");
    }
    // Both ends follow a change.
    daemon.ok("PATCH", "ports/a", json!({ "mtu": 1400 }));
    let mtu = |ns: &NetNs, ifname: &str| {
        ns.links().iter().find(|link| link["ifname"] == ifname).expect("the netdev")["mtu"].clone()
    };
    assert_eq!((mtu(&a.ns, &a.ifname), mtu(&daemon.ns, "xs0")), (json!(1400), json!(1400)));
    // b may send longer frames than a takes.
    let long = Frame::ethernet(b.mac, a.mac).payload(0x88b5, &[1; 2000]);
    a.raw().send(&Frame::ethernet(a.mac, Mac::BROADCAST).payload(0x88b5, &[0; 46]));
    wait::expect("a is learned", SOON, || !daemon.get("fdb?port=a").as_array().expect("rows").is_empty());
    b.raw().send(&long);
    daemon.expect_dropped("a", "egress_mtu", 1);
    daemon.finish();
}

#[test]
fn a_foreign_program_is_named_and_left_in_place() {
    let daemon = Daemon::start("foreign");
    let other = NetNs::new("other");
    Veth::default().connect(End { ns: &daemon.ns, ifname: "up0" }, End { ns: &other, ifname: "o0" });
    let sink = tests::gensink::Sink::attach(&daemon.ns, "up0");
    let (status, error) = daemon.call("POST", "ports", &json!({ "name": "up", "kind": "phy", "ifname": "up0" }));
    assert_eq!((status, error["code"].as_str()), (409, Some("EBUSY")), "{error}");
    assert!(error["error"].as_str().expect("a text").contains("`sink`"), "{error}");
    let program = |daemon: &Daemon| {
        let links = daemon.ns.links();
        links.iter().find(|link| link["ifname"] == "up0").expect("the netdev")["xdp"]["prog"]["name"].clone()
    };
    assert_eq!(program(&daemon), "sink");
    drop(sink);
    wait::expect("the foreign program is gone", SOON, || program(&daemon).is_null());
    daemon.ok("POST", "ports", json!({ "name": "up", "kind": "phy", "ifname": "up0" }));
    daemon.finish();
}

#[test]
fn an_af_xdp_guest_talks_to_a_kernel_guest() {
    let daemon = Daemon::start("xsk");
    let (a, b) = (daemon.guest("a", json!({})), daemon.guest("b", json!({})));
    let mut xsk = XskGuest::open(&a);
    let raw = b.raw();
    for n in 0..200_u8 {
        let there = Frame::ethernet(a.mac, b.mac).payload(0x88b5, &[n; 100]);
        xsk.send(&there);
        assert_eq!(raw.recv_if(SOON, |frame| *frame == there), Some(there));
        let back = Frame::ethernet(b.mac, a.mac).payload(0x88b5, &[n; 200]);
        raw.send(&back);
        assert_eq!(xsk.recv(SOON), Some(back));
    }
    drop(xsk);
    daemon.finish();
}

#[test]
fn what_is_refused_changes_nothing() {
    let daemon = Daemon::start("refuse");
    let guest = daemon.guest("a", json!({ "vlan": { "mode": "access", "vid": 5 } }));
    let other = NetNs::new("other");
    Veth { queues: 2, mtu: 1500 }.connect(End { ns: &daemon.ns, ifname: "two" }, End { ns: &other, ifname: "o0" });
    let before = (daemon.get("ports"), daemon.get("fdb"), daemon.get("bridge"), daemon.ns.links().len());
    let cases = [
        (json!({ "name": "a", "kind": "guest" }), 409, "a"),
        (json!({ "name": "b", "kind": "guest", "vport": 0 }), 409, "vport"),
        (json!({ "name": "b", "kind": "guest", "vport": 1024 }), 400, "vport"),
        (json!({ "name": "b/c", "kind": "guest" }), 400, "name"),
        (json!({ "name": "b", "kind": "guest", "ifname": "xs0" }), 409, "ifname"),
        (json!({ "name": "b", "kind": "guest", "ifname": "lo" }), 409, "ifname"),
        (json!({ "name": "b", "kind": "guest", "netns": "no-such-namespace" }), 404, "netns"),
        (
            json!({ "name": "b", "kind": "guest", "netns": guest.ns.name(), "guest_ifname": guest.ifname }),
            409,
            "guest_ifname",
        ),
        (json!({ "name": "b", "kind": "guest", "queues": 1025 }), 400, "queues"),
        (json!({ "name": "b", "kind": "guest", "queue_depth": 100 }), 400, "queue_depth"),
        (json!({ "name": "b", "kind": "guest", "mac": "01:00:00:00:00:01" }), 400, "mac"),
        (json!({ "name": "b", "kind": "guest", "steering": "shared" }), 400, "steering"),
        (json!({ "name": "b", "kind": "phy" }), 400, "ifname"),
        (json!({ "name": "b", "kind": "phy", "ifname": "nosuch" }), 404, "ifname"),
        (json!({ "name": "b", "kind": "phy", "ifname": "two", "queues": 1 }), 400, "queues"),
        (json!({ "name": "b", "kind": "phy", "ifname": "two", "zero_copy": "on" }), 422, "zero-copy"),
    ];
    for (body, status, text) in cases {
        let (got, error) = daemon.call("POST", "ports", &body);
        assert_eq!(got, status, "{body}: {error}");
        assert!(error["error"].as_str().expect("a text").contains(text), "{body}: {error}");
    }
    let after = (daemon.get("ports"), daemon.get("fdb"), daemon.get("bridge"), daemon.ns.links().len());
    assert_eq!(before, after);
    daemon.finish();
}

#[test]
fn the_command_line_says_what_the_api_says() {
    let daemon = Daemon::start("cli");
    let guest = NetNs::new("guest");
    let json_of = |line: &str| -> Value {
        let output = daemon.cli(line);
        assert!(output.status.success(), "{line}: {}", shell::text(&output));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{line}: {error}"))
    };
    let added = json_of(&format!("--json port add vm1 --netns {} --vlan access:7 --mtu 1400", guest.name()));
    assert_eq!(added["spec"]["vlan"], json!({ "mode": "access", "vid": 7 }));
    assert_eq!(json_of("--json port list"), daemon.get("ports"));
    assert_eq!(json_of("--json port show vm1"), daemon.get("ports/vm1"));
    json_of("--json port set vm1 --mtu 1300 --isolated on");
    assert_eq!(daemon.get("ports/vm1")["spec"]["mtu"], 1300);
    json_of("--json fdb add 02:00:00:00:00:05 vm1 --vlan 7");
    assert_eq!(json_of("--json fdb list --vlan 7")[0]["mac"], "02:00:00:00:00:05");
    for line in ["stats", "bridge show", "workers", "audit", "doctor", "version", "top --interval 0.1 --count 2"] {
        let output = daemon.cli(line);
        assert!(output.status.success() && !output.stdout.is_empty(), "{line}: {}", shell::text(&output));
        let output = daemon.cli(&format!("--json {line}"));
        let first = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut values = serde_json::Deserializer::from_str(&first).into_iter::<Value>();
        assert!(values.next().expect("a value").is_ok(), "{line}: {first}");
    }
    for (line, code, says) in [
        ("port show nosuch", 1, "nosuch"),
        ("port add vm1", 1, "vm1"),
        ("port del nosuch", 1, "nosuch"),
        ("trace --in vm1 --hex 0g", 1, "hex"),
        ("capture nosuch -w /dev/null", 1, "nosuch"),
        ("port add x --vlan access:9999", 2, "9999"),
        ("nonsense", 2, "nonsense"),
    ] {
        let output = daemon.cli(line);
        assert_eq!(output.status.code(), Some(code), "{line}: {}", shell::text(&output));
        assert!(String::from_utf8_lossy(&output.stderr).contains(says), "{line}: {}", shell::text(&output));
    }
    assert!(daemon.cli("port del vm1").status.success());
    assert_eq!(daemon.get("ports"), json!([]));
    let nobody =
        Command::new(daemon.cli_command().get_program()).args(["--run-dir", "/nonexistent", "port", "list"]).output();
    let nobody = nobody.expect("it starts");
    assert_eq!(nobody.status.code(), Some(1));
    assert!(shell::text(&nobody).contains("start xswitchd"), "{}", shell::text(&nobody));
    daemon.finish();
}

#[test]
fn a_nic_with_more_than_64_queues_carries_packets_on_each() {
    let daemon = Daemon::start("queues");
    let far = NetNs::new("far");
    Veth { queues: 100, ..Veth::default() }
        .connect(End { ns: &daemon.ns, ifname: "up0" }, End { ns: &far, ifname: "h0" });
    let up = daemon.ok("POST", "ports", json!({ "name": "up", "kind": "phy", "ifname": "up0", "queue_depth": 64 }));
    assert_eq!(up["info"]["queues"].as_array().expect("a list").len(), 100);
    let guest = daemon.guest("vm", json!({ "queue_depth": 64 }));
    let (outside, inside) = (RawSocket::open(&far, "h0"), guest.raw());
    // By their hashes the flows spread over all queues.
    for n in 0..200 {
        let ip = |last| std::net::Ipv4Addr::new(10, 0, 0, last);
        let frame = Frame::ethernet(Mac::stranger(1), guest.mac).udp4((ip(1), 1000 + n), (ip(2), 7), &[0; 18]);
        outside.send(&frame);
        assert_eq!(inside.recv(SOON).map(|got| got.hex()), Some(frame.hex()), "flow {n}");
    }
    let stats = daemon.stats("up");
    let used = |queue: &&Value| queue["queue"].as_u64() >= Some(64) && queue["rx"]["packets"] != 0;
    assert!(stats["queues"].as_array().expect("a list").iter().filter(used).count() > 0, "{stats}");
    daemon.ok("PUT", "rules/1", json!({ "action": { "vid": 0, "qid": 99 } }));
    let frame = Frame::ethernet(guest.mac, Mac::stranger(1)).payload(0x88b5, &[0; 46]);
    inside.send(&frame);
    assert_eq!(outside.recv(SOON).map(|got| got.hex()), Some(frame.hex()));
    wait::expect("it left by that queue", SOON, || daemon.stats("up")["queues"][99]["tx"]["packets"] == 1);
    let (status, error) = daemon.call("POST", "ports", &json!({ "name": "x", "kind": "guest", "queues": 1025 }));
    assert_eq!((status, error["error"].as_str().map(|text| text.starts_with("queues: 1025"))), (400, Some(true)));
    daemon.finish();
}

#[test]
fn a_trace_says_what_then_happens() {
    let daemon = Daemon::start("trace");
    let a = daemon.guest("a", json!({ "vlan": { "mode": "access", "vid": 7 } }));
    let b = daemon.guest("b", json!({ "vlan": { "mode": "trunk", "tagged": "7" } }));
    let (raw_a, raw_b) = (a.raw(), b.raw());
    let payload = [1; 46];
    let cases = [
        (Frame::ethernet(a.mac, Mac::BROADCAST).payload(0x88b5, &payload), "flood"),
        (Frame::ethernet(b.mac, Mac::BROADCAST).payload(0x88b5, &payload), "mac_spoofed"),
        (Frame::ethernet(a.mac, Mac([1, 0x80, 0xc2, 0, 0, 0])).payload(0x88b5, &payload), "reserved_multicast"),
        (Frame::ethernet(a.mac, a.mac).payload(0x88b5, &payload), "same_port"),
        (Frame::ethernet(a.mac, Mac::BROADCAST).tag(0x8100, 0, 7).payload(0x88b5, &payload), "vlan_not_allowed"),
    ];
    let rows = daemon.get("fdb");
    for (frame, _) in &cases {
        daemon.ok("POST", "trace", json!({ "port": "a", "hex": frame.hex() }));
    }
    assert_eq!(daemon.get("fdb"), rows, "a trace learns nothing");
    assert_eq!(daemon.stats("a")["rx"]["packets"], 0, "a trace counts nothing");
    for (frame, expected) in &cases {
        let report = daemon.ok("POST", "trace", json!({ "port": "a", "hex": frame.hex() }));
        let said = report["drop_reason"].as_str().unwrap_or_else(|| report["verdict"].as_str().expect("a verdict"));
        assert_eq!(said, *expected, "{report}");
        raw_a.send(frame);
        if *expected == "flood" {
            assert_eq!(report["outputs"], json!(["b"]));
            assert_eq!(raw_b.recv(SOON).expect("it comes").outer_tag(), Some((0x8100, 0, 7)));
        } else {
            daemon.expect_dropped("a", expected, 1);
        }
    }
    daemon.finish();
}
