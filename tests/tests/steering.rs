//! A NIC shared by the host and the guests.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use tests::veth::{End, Veth, address, mac};
use tests::{Daemon, Frame, Mac, NetNs, shell, wait};

const SOON: Duration = Duration::from_secs(5);

/// A TCP connection of the host over the NIC. It answers each byte.
struct Connection(TcpStream);

impl Connection {
    fn open(host: &NetNs, remote: &NetNs) -> Self {
        let listener = remote.run(|| TcpListener::bind("10.0.0.9:22").expect("the address is free"));
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut byte = [0];
            while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
        });
        let stream = host.run(|| TcpStream::connect("10.0.0.9:22").expect("the host reaches the remote"));
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        Self(stream)
    }

    fn lives(&mut self) {
        for sent in 0..20 {
            self.0.write_all(&[sent]).expect("it takes data");
            let mut byte = [0];
            self.0.read_exact(&mut byte).expect("it answers");
            assert_eq!(byte, [sent]);
        }
    }
}

fn sharing(label: &str, mode: &str) {
    let daemon = Daemon::start(label);
    let remote = NetNs::new("remote");
    let (nic, far) = (End { ns: &daemon.ns, ifname: "nic0" }, End { ns: &remote, ifname: "r0" });
    Veth::default().connect(nic, far);
    address(nic, "10.0.0.8/24");
    address(far, "10.0.0.9/24");
    let mut connection = Connection::open(&daemon.ns, &remote);
    connection.lives();
    daemon.ok(
        "POST",
        "ports",
        json!({ "name": "nic", "kind": "phy", "ifname": "nic0", "steering": "shared", "mode": mode }),
    );
    connection.lives();
    let guest = daemon.guest("vm", json!({}));
    guest.address("10.0.0.1/24");
    // The guest asks first. Then the remote does, and has to find the guest by ARP.
    assert!(guest.pings("10.0.0.9"));
    connection.lives();
    remote.sh("ip neighbour flush all");
    guest.ns.sh("ip neighbour flush all");
    remote.sh("ping -c 2 -i 0.2 -W 2 10.0.0.1");
    connection.lives();
    let xdp = &daemon.stats("nic")["queues"][0]["xdp"];
    for outcome in ["redirect", "pass", "pass_group"] {
        assert!(xdp[outcome].as_u64().expect("a number") > 0, "{outcome}: {xdp}");
    }
    // The set follows the ports. A removed guest's frames go to the host's stack, which drops what is not for it.
    daemon.ok("DELETE", "ports/vm", Value::Null);
    let redirected = || daemon.stats("nic")["queues"][0]["xdp"]["redirect"].as_u64().expect("a number");
    let before = redirected();
    remote.sh(&format!("ip neighbour replace 10.0.0.1 lladdr {} dev r0", guest.mac));
    let mut ping = remote.command("ping");
    assert!(!ping.args(["-c", "1", "-W", "1", "10.0.0.1"]).status().expect("ping runs").success());
    assert_eq!(redirected(), before);
    connection.lives();
    daemon.ok("DELETE", "ports/nic", Value::Null);
    connection.lives();
    daemon.finish();
}

#[test]
fn the_hosts_connection_stays_up_while_guests_use_its_nic() {
    sharing("share", "native");
}

#[test]
fn a_nic_is_shared_in_generic_mode_too() {
    sharing("sharegen", "generic");
}

#[test]
fn a_learned_station_behind_a_guest_is_steered_as_well() {
    let daemon = Daemon::start("nested");
    let remote = NetNs::new("remote");
    Veth::default().connect(End { ns: &daemon.ns, ifname: "nic0" }, End { ns: &remote, ifname: "r0" });
    address(End { ns: &remote, ifname: "r0" }, "10.0.0.9/24");
    daemon.ok("POST", "ports", json!({ "name": "nic", "kind": "phy", "ifname": "nic0", "steering": "shared" }));
    let guest = daemon.guest("vm", json!({ "mac_check": false }));
    // A second address behind the guest's port, as of a nested guest.
    guest.ns.sh(&format!("ip link set {} address 02:00:00:00:77:77", guest.ifname));
    guest.address("10.0.0.1/24");
    let mut attempts = 0;
    wait::expect("an answer", Duration::from_secs(20), || {
        attempts += 1;
        guest.pings("10.0.0.9")
    });
    daemon.finish();
}

/// Two uplinks into one network, isolated from each other. What the host sends by one comes back by the other.
#[test]
fn the_host_keeps_its_own_addresses_behind_two_uplinks() {
    let daemon = Daemon::start("twoup");
    let lan = NetNs::new("lan");
    lan.sh("ip link add br0 type bridge");
    lan.sh("ip link set br0 up");
    address(End { ns: &lan, ifname: "br0" }, "10.0.0.9/24");
    for n in 0..2 {
        let (near, far) = (format!("p{n}"), format!("e{n}"));
        Veth::default().connect(End { ns: &daemon.ns, ifname: &near }, End { ns: &lan, ifname: &far });
        lan.sh(&format!("ip link set {far} master br0"));
    }
    let nic = End { ns: &daemon.ns, ifname: "p0" };
    address(nic, "10.0.0.5/24");
    daemon.ns.sh("ip link add link p0 name mac0 address 02:00:00:00:07:07 type macvlan");
    let pings = || {
        let mut ping = daemon.ns.command("ping");
        shell::output(ping.args(["-c", "3", "-i", "0.2", "-W", "1", "10.0.0.9"])).status.success()
    };
    assert!(pings(), "before the switch has the NICs");
    for n in 0..2 {
        let spec = json!({ "name": format!("up{n}"), "kind": "phy", "ifname": format!("p{n}"), "steering": "shared",
                           "isolated": true });
        daemon.ok("POST", "ports", spec);
    }
    let guest = daemon.guest("vm", json!({ "mac_check": false }));
    let own = mac(nic);
    // The host asks by broadcast, and the question comes back by the other uplink.
    for _ in 0..3 {
        daemon.ns.sh("ip neighbour flush all");
        lan.sh("ip neighbour flush all");
        assert!(pings());
    }
    wait::expect("it was dropped there", SOON, || daemon.dropped("up1", "host_address") > 0);
    // A guest sends from the addresses of the NIC and of the macvlan on it.
    for address in [own, "02:00:00:00:07:07".parse().expect("an address")] {
        let before = daemon.dropped("vm", "host_address");
        guest.raw().send(&Frame::ethernet(address, Mac::BROADCAST).payload(0x88b5, &[0; 46]));
        daemon.expect_dropped("vm", "host_address", before + 1);
        let text = address.to_string();
        assert!(!daemon.get("fdb").to_string().contains(&text));
        for (method, target, body) in [
            ("POST", "ports", json!({ "name": "thief", "kind": "guest", "mac": text })),
            ("PATCH", "ports/vm", json!({ "mac": text })),
            ("POST", "fdb", json!({ "mac": text, "port": "vm" })),
        ] {
            let (status, error) = daemon.call(method, target, &body);
            assert_eq!((status, error["code"].as_str()), (409, Some("EEXIST")), "{error}");
            assert!(error["error"].as_str().expect("a text").contains("host's own address on"), "{error}");
        }
    }
    assert!(pings());
    daemon.ns.sh("ip link set p0 address 02:00:00:00:00:55");
    wait::expect("the old address is free", SOON, || {
        daemon.call("PATCH", "ports/vm", &json!({ "mac": own.to_string() })).0 == 200
    });
    let (status, _) = daemon.call("PATCH", "ports/vm", &json!({ "mac": "02:00:00:00:00:55" }));
    assert_eq!(status, 409);
    daemon.finish();
}
