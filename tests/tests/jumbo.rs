//! Jumbo frames: packets of several frames of packet memory, between guests and NICs, with tags, mirror and capture.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tests::veth::{self, End, Veth};
use tests::{Daemon, Frame, Mac, NetNs, Options, shell, wait};

const SOON: Duration = Duration::from_secs(5);
const ETHERTYPE: u16 = 0x88b5;

/// A payload of `len` bytes, which tell their places.
fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).expect("a byte")).collect()
}

/// A transfer by TCP, of which each byte is checked.
fn transfer(from: &NetNs, to: &NetNs, ip: &str) {
    let (bytes, address) = (payload(16 << 20), format!("{ip}:5001"));
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let (bytes, address) = (&bytes, &address);
        scope.spawn(move || {
            to.enter();
            let listener = std::net::TcpListener::bind(address).expect("the address is free");
            ready.send(()).expect("the sender waits");
            let (mut stream, _) = listener.accept().expect("a connection");
            stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
            let mut received = Vec::new();
            std::io::Read::read_to_end(&mut stream, &mut received).expect("data");
            assert!(received == *bytes, "the stream is as it was sent");
        });
        scope.spawn(move || {
            from.enter();
            is_ready.recv().expect("the receiver is ready");
            let mut stream = std::net::TcpStream::connect(address).expect("a connection");
            stream.set_write_timeout(Some(Duration::from_secs(10))).expect("a timeout");
            std::io::Write::write_all(&mut stream, bytes).expect("data");
        });
    });
}

#[test]
fn guests_and_a_nic_exchange_jumbo_frames() {
    for mtu in [9000_u32, 65_000] {
        let daemon = Daemon::start("jumbo");
        let lan = NetNs::new("lan");
        let (near, far) = (End { ns: &daemon.ns, ifname: "up0" }, End { ns: &lan, ifname: "lan0" });
        Veth { mtu, ..Veth::default() }.connect(near, far);
        let vlan = json!({ "mode": "access", "vid": 5 });
        let up = daemon.ok("POST", "ports", json!({ "name": "up", "kind": "phy", "ifname": "up0", "vlan": vlan }));
        assert_eq!((&up["spec"]["mtu"], &up["info"]["mode"]), (&json!(mtu), &json!("native")), "{up}");
        let guest = |name: &str, more: Value| {
            let mut spec = json!({ "mtu": mtu, "vlan": { "mode": "access", "vid": 5 } });
            spec.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("an object"));
            daemon.guest(name, spec)
        };
        let (a, b) = (guest("a", json!({})), guest("b", json!({ "mode": "generic" })));
        a.address("10.0.0.1/24");
        b.address("10.0.0.2/24");
        veth::address(End { ns: &lan, ifname: "lan0" }, "10.0.0.3/24");
        let most = mtu - 28;
        for ip in ["10.0.0.2", "10.0.0.3"] {
            a.ns.sh(&format!("ping -c 2 -i 0.2 -W 2 -M do -s {most} {ip}"));
        }
        transfer(&a.ns, &b.ns, "10.0.0.2");
        transfer(&b.ns, &a.ns, "10.0.0.1");
        transfer(&a.ns, &lan, "10.0.0.3");
        transfer(&lan, &a.ns, "10.0.0.1");
        daemon.finish();
    }
}

#[test]
fn queues_with_frames_of_their_own_carry_jumbo_frames() {
    let options = Options { config: "shared_queues = 0\n".to_owned(), ..Options::default() };
    let daemon = Daemon::with("jumbown", &options);
    let (a, b) = (daemon.guest("a", json!({ "mtu": 9000 })), daemon.guest("b", json!({ "mtu": 9000 })));
    a.address("10.0.0.1/24");
    b.address("10.0.0.2/24");
    transfer(&a.ns, &b.ns, "10.0.0.2");
    daemon.finish();
}

/// What tshark reads back: length, bytes that were kept, VLAN and data of each packet of the tests' EtherType.
fn read_back(file: &std::path::Path) -> Vec<String> {
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(file).args(["-Y", "data", "-T", "fields", "-E", "separator=|"]);
    tshark.args(["-e", "frame.len", "-e", "frame.cap_len", "-e", "vlan.id", "-e", "data.data"]).stderr(Stdio::null());
    shell::run(&mut tshark).lines().map(str::to_owned).collect()
}

#[test]
fn a_mirror_and_a_capture_have_whole_jumbo_frames() {
    let daemon = Daemon::start("jumbomir");
    let lan = NetNs::new("lan");
    let (near, far) = (End { ns: &daemon.ns, ifname: "up0" }, End { ns: &lan, ifname: "lan0" });
    Veth { mtu: 9000, ..Veth::default() }.connect(near, far);
    daemon.ok("POST", "ports", json!({ "name": "up", "kind": "phy", "ifname": "up0" }));
    let a = daemon.guest("a", json!({ "mtu": 9000, "vlan": { "mode": "access", "vid": 5 } }));
    let m = daemon.guest("m", json!({ "mtu": 9000 }));
    let small = daemon.guest("small", json!({ "vlan": { "mode": "access", "vid": 5 } }));
    let mirror = daemon.get("ports/m")["spec"]["vport"].clone();
    daemon.ok("POST", "rules", json!({ "action": { "vid": "normal", "mirror": mirror } }));
    let file = daemon.path("up.pcapng");
    let mut capture = daemon.cli_command();
    let mut capture = capture.args(["capture", "up", "--count", "1", "-w"]).arg(&file).spawn().expect("xswitch starts");
    wait::expect("the capture is on", SOON, || std::fs::metadata(&file).is_ok_and(|file| file.len() > 0));
    std::thread::sleep(Duration::from_millis(300));
    let (lan0, m0) = (tests::raw::RawSocket::open(&lan, "lan0"), m.raw());
    let bytes = payload(9000);
    a.raw().send(&Frame::ethernet(a.mac, Mac::BROADCAST).payload(ETHERTYPE, &bytes));
    let tagged = lan0.recv_if(SOON, |frame| frame.src() == a.mac).expect("it comes out of the NIC");
    assert_eq!(tagged.outer_tag(), Some((0x8100, 0, 5)));
    assert!(tagged.0.len() == 9018 && tagged.0.ends_with(&bytes));
    let copy = m0.recv_if(SOON, |frame| frame.src() == a.mac).expect("the mirror gets a copy");
    assert!(copy.0.len() == 9014 && copy.0.ends_with(&bytes));
    daemon.expect_dropped("small", "egress_mtu", 1);
    assert!(small.raw().recv_if(Duration::from_millis(100), |frame| frame.src() == a.mac).is_none());
    assert!(capture.wait().expect("xswitch ends").success());
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(read_back(&file), [format!("9018|9018|5|{hex}")]);
    daemon.finish();
}

#[test]
fn a_guests_own_sockets_and_jumbo_frames_exclude_each_other_with_the_reason() {
    let daemon = Daemon::start("jumboend");
    let _guest = daemon.guest("a", json!({ "mtu": 9000 }));
    let (status, error) = daemon.call("PATCH", "ports/a", &json!({ "guest_sockets": true }));
    assert_eq!(status, 400, "{error}");
    let text = error["error"].as_str().expect("a text");
    assert!(text.contains("mtu: 9000") && text.contains("a guest's own AF_XDP sockets"), "{error}");
    daemon.ok("PATCH", "ports/a", json!({ "mtu": 1500 }));
    daemon.ok("PATCH", "ports/a", json!({ "guest_sockets": true }));
    assert_eq!(daemon.get("ports/a")["info"]["max_mtu"], 3506);
    let (_, error) = daemon.call("PATCH", "ports/a", &json!({ "mtu": 9000 }));
    assert!(error["error"].as_str().expect("a text").contains("68 to 3506"), "{error}");
    daemon.finish();
}
