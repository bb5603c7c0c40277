//! Loops through the outside: two ports of the switch that a kernel bridge joins.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Daemon, Frame, Guest, Mac, NetNs, Options, wait};

const SOON: Duration = Duration::from_secs(10);

/// Guests `a` and `b`, and two ports that are joined in a namespace.
struct Loop {
    daemon: Daemon,
    guests: [Guest; 2],
    joined: NetNs,
}

impl Loop {
    fn new(label: &str, config: &str) -> Self {
        let daemon = Daemon::with(label, &Options { config: config.to_owned(), ..Options::default() });
        let guests = ["a", "b"].map(|name| daemon.guest(name, json!({})));
        let joined = NetNs::new("joined");
        joined.sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
        joined.sh("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
        joined.sh("ip link add br0 type bridge");
        joined.sh("ip link set br0 up");
        for n in 0..2 {
            let spec = json!({ "name": format!("l{n}"), "kind": "guest", "netns": joined.name(),
                               "guest_ifname": format!("lg{n}"), "mac_check": false });
            daemon.ok("POST", "ports", spec);
            joined.sh(&format!("ip link set lg{n} master br0"));
        }
        Self { daemon, guests, joined }
    }

    /// Frames that came in by the joined ports so far.
    fn looped(&self) -> u64 {
        ["l0", "l1"].iter().map(|port| self.daemon.stats(port)["rx"]["packets"].as_u64().unwrap_or(0)).sum()
    }

    /// Waits until hardly anything comes in by the joined ports.
    fn expect_rest(&self) {
        wait::expect("the storm ends", SOON, || {
            let before = self.looped();
            std::thread::sleep(Duration::from_millis(300));
            self.looped() - before < 20
        });
    }

    fn held(&self) -> Vec<Value> {
        let rows = self.daemon.get("fdb");
        rows.as_array().expect("a list").iter().filter(|row| row["held"] == true).cloned().collect()
    }
}

#[test]
fn a_broadcast_storm_ends_and_the_sender_is_reached_all_the_same() {
    let looped = Loop::new("loop", "");
    let Loop { daemon, guests: [a, b], .. } = &looped;
    a.address("10.0.0.1/24");
    b.address("10.0.0.2/24");
    // Both ask by broadcast, and both questions go round.
    assert!(a.pings("10.0.0.2") && b.pings("10.0.0.1"));
    a.raw().send(&Frame::ethernet(a.mac, Mac::BROADCAST).payload(0x88b5, &[0; 46]));
    looped.expect_rest();
    assert!(daemon.dropped("l0", "mac_flap") + daemon.dropped("l1", "mac_flap") > 0);
    let held = looped.held();
    let row = held.iter().find(|row| row["mac"] == a.mac.to_string()).unwrap_or_else(|| panic!("{held:?}"));
    assert_eq!(row["port"], "a", "it is held where it is");
    let told = daemon.get("doctor").to_string();
    assert!(told.contains("flaps between this port and"), "{told}");
    assert!(String::from_utf8_lossy(&daemon.cli("fdb list").stdout).contains("learned, held"));
    wait::expect("the log tells", SOON, || daemon.log().contains("flap between ports"));
    assert!(a.pings("10.0.0.2") && b.pings("10.0.0.1"));
    let trace = daemon.cli(&format!("trace --in l0 --src {} --dst ff:ff:ff:ff:ff:ff", a.mac));
    assert!(String::from_utf8_lossy(&trace.stdout).contains("mac_flap"));
    // Once the loop is cut, all are let go.
    looped.joined.sh("ip link set lg1 nomaster");
    wait::expect("nothing is held", Duration::from_secs(30), || looped.held().is_empty());
    looped.daemon.finish();
}

#[test]
fn without_a_limit_the_storm_goes_on_until_there_is_one() {
    let looped = Loop::new("loopoff", "[bridge]\nflap_limit = 0");
    let Loop { daemon, guests: [a, _], .. } = &looped;
    a.raw().send(&Frame::ethernet(a.mac, Mac::BROADCAST).payload(0x88b5, &[0; 46]));
    wait::expect("it goes round", SOON, || looped.looped() > 5_000);
    assert!(daemon.dropped("l0", "mac_flap") == 0 && looped.held().is_empty());
    assert!(daemon.cli("bridge set --flap-limit 5").status.success());
    looped.expect_rest();
    assert!(!looped.held().is_empty());
    let (status, error) = daemon.call("PATCH", "bridge", &json!({ "flap_limit": 1_000_001 }));
    assert_eq!((status, error["error"].as_str().map(|text| text.starts_with("flap_limit: "))), (400, Some(true)));
    looped.daemon.finish();
}
