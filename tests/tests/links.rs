//! Optical ports beside what `ethtool` and `ip` say of their netdevs.

use std::time::Duration;

use serde_json::{Value, json};
use tests::raw::RawSocket;
use tests::veth::{End, Veth};
use tests::{Daemon, Frame, Mac, NetNs, shell, wait};

const SOON: Duration = Duration::from_secs(3);

/// The value of a line `Key: value` of ethtool.
fn ethtool(daemon: &Daemon, ifname: &str, key: &str) -> String {
    let text = daemon.ns.sh(&format!("ethtool {ifname}"));
    let line = text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("no {key}: {text}")).to_owned()
}

fn link(daemon: &Daemon) -> Value {
    daemon.get("links/up")
}

#[test]
fn a_link_is_what_ethtool_says_also_when_it_changes() {
    let daemon = Daemon::start("links");
    let far = NetNs::new("far");
    Veth::default().connect(End { ns: &daemon.ns, ifname: "up0" }, End { ns: &far, ifname: "h0" });
    daemon.ok("POST", "ports", json!({ "name": "up", "kind": "phy", "ifname": "up0" }));
    let is = link(&daemon);
    assert_eq!(format!("{}Mb/s", is["speed"]), ethtool(&daemon, "up0", "Speed"));
    assert_eq!(is["duplex"], ethtool(&daemon, "up0", "Duplex").to_lowercase());
    assert_eq!(is["autoneg"], ethtool(&daemon, "up0", "Auto-negotiation") == "on");
    assert_eq!((&is["port_id"], &is["up"], &is["mtu"]), (&json!(0), &json!(true), &json!(1500)));

    far.sh("ip link set h0 down");
    wait::expect("the link is down", SOON, || link(&daemon)["up"] == false);
    assert_eq!(ethtool(&daemon, "up0", "Link detected"), "no");
    far.sh("ip link set h0 up");
    wait::expect("the link is up", SOON, || link(&daemon)["up"] == true);

    // Somebody else sets the MTU. The port follows.
    daemon.ns.sh("ip link set up0 mtu 1400");
    assert_eq!(link(&daemon)["mtu"], 1400);
    wait::expect("the port has it", SOON, || daemon.get("ports/up")["spec"]["mtu"] == 1400);
    let set = daemon.cli("link set up --mtu 1450");
    assert!(set.status.success(), "{}", shell::text(&set));
    assert!(daemon.ns.sh("ip link show up0").contains("mtu 1450"));
    let refused = daemon.cli("link set up --mtu 70000");
    assert!(!refused.status.success());
    assert!(shell::text(&refused).contains("mtu: "), "{}", shell::text(&refused));
    assert!(daemon.ns.sh("ip link show up0").contains("mtu 1450"));

    // Neither a guest's port nor one that is not there has a link.
    daemon.ok("POST", "ports", json!({ "name": "vm", "kind": "guest" }));
    for (line, why) in
        [("link show vm", "`guest` port"), ("link show nosuch", "there is no port"), ("link stats 9", "no port")]
    {
        let said = daemon.cli(line);
        assert!(!said.status.success(), "{line}");
        assert!(shell::text(&said).contains(why), "{line}: {}", shell::text(&said));
    }

    daemon.ns.sh("ip link del up0");
    wait::expect("the loss is shown", SOON, || link(&daemon)["error"].is_string());
    assert_eq!((&link(&daemon)["up"], &link(&daemon)["ifname"]), (&json!(false), &json!("up0")));
    let list = daemon.cli("link list");
    assert!(shell::text(&list).contains("unknown"), "{}", shell::text(&list));
    daemon.finish();
}

#[test]
fn counters_of_queues_add_up_and_agree_with_the_kernels() {
    const FRAMES: u64 = 300;
    let daemon = Daemon::start("linkstats");
    let far = NetNs::new("far");
    // No stack speaks there, so that each frame is one of this test.
    for ns in [&*daemon.ns, &far] {
        ns.sh("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
    }
    Veth { queues: 4, ..Veth::default() }
        .connect(End { ns: &daemon.ns, ifname: "up0" }, End { ns: &far, ifname: "h0" });
    daemon.ok("POST", "ports", json!({ "name": "up", "kind": "phy", "ifname": "up0" }));
    let guest = daemon.guest("vm", json!({}));
    let (outside, inside) = (RawSocket::open(&far, "h0"), guest.raw());
    let before = daemon.get("link-stats/up")[0].clone();
    let ip = |last| std::net::Ipv4Addr::new(10, 0, 0, last);
    for n in 0..u16::try_from(FRAMES).expect("few") {
        let frame = Frame::ethernet(Mac::stranger(1), guest.mac).udp4((ip(1), 1000 + n), (ip(2), 7), &[0; 100]);
        outside.send(&frame);
        assert!(inside.recv(SOON).is_some(), "flow {n}");
        let back = Frame::ethernet(guest.mac, Mac::stranger(1)).udp4((ip(2), 7), (ip(1), 1000 + n), &[0; 50]);
        inside.send(&back);
        assert!(outside.recv(SOON).is_some(), "flow {n}");
    }
    let after = daemon.get("link-stats/up")[0].clone();
    let number = |value: &Value| value.as_u64().expect("a number");
    let grown = |key: &str| number(&after[key]) - number(&before[key]);
    // Ethernet, IP and UDP.
    let headers = 14 + 20 + 8;
    assert_eq!((grown("ipackets"), grown("ibytes")), (FRAMES, FRAMES * (headers + 100)));
    assert_eq!((grown("opackets"), grown("obytes")), (FRAMES, FRAMES * (headers + 50)));
    for lost in ["imissed", "ierrors", "oerrors", "rx_nombuf"] {
        assert_eq!(grown(lost), 0, "{lost}: {after}");
    }
    let queues = after["queues"].as_array().expect("a list");
    assert_eq!(queues.len(), 4);
    for key in ["ipackets", "opackets", "ibytes", "obytes"] {
        assert_eq!(queues.iter().map(|queue| number(&queue[key])).sum::<u64>(), number(&after[key]), "{key}");
    }
    assert!(queues.iter().filter(|queue| queue["ipackets"] != 0).count() > 1, "{after}");
    // The kernel's own figures, by iproute2.
    let kernel: Value = serde_json::from_str(&daemon.ns.sh("ip -j -s link show up0")).expect("JSON");
    for (side, of, packets) in [("rx", "rx_packets", "ipackets"), ("tx", "tx_packets", "opackets")] {
        assert_eq!(kernel[0]["stats64"][side]["packets"], after["netdev"][of], "{kernel}");
        assert_eq!(number(&after["netdev"][of]) - number(&before["netdev"][of]), grown(packets));
    }
    let said = daemon.cli("link stats up");
    assert!(shell::text(&said).contains("IPACKETS"), "{}", shell::text(&said));
    daemon.finish();
}
