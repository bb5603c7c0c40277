//! What others do to the netdevs of a tap port.

use serde_json::{Value, json};
use tests::{Daemon, Guest, wait};

use crate::{PATIENCE, add, exchanges, expect_link, info, names, open};

fn rig(label: &str) -> (Daemon, Guest, String) {
    let daemon = Daemon::start(label);
    let guest = daemon.guest("c", json!({}));
    let name = add(&daemon, "a", json!({}));
    (daemon, guest, name)
}

fn expect_up(daemon: &Daemon) {
    let is_up = || {
        let port = daemon.get("ports/a");
        port["state"] == "up" && port["info"].get("problems").is_none()
    };
    wait::expect("the port is up again", PATIENCE, is_up);
}

#[test]
fn a_vmm_keeps_its_tap_while_the_daemon_is_away() {
    let (mut daemon, guest, name) = rig("tapaway");
    let tap = open(&daemon.ns, &name);
    exchanges(&tap, &guest, 1);
    let before = daemon.ns.ifindex(&name);
    for how in ["killed", "stopped"] {
        match how {
            "killed" => daemon.kill(),
            _ => daemon.stop(),
        }
        assert_eq!(daemon.ns.ifindex(&name), before, "{how}");
        daemon.launch();
        expect_link(&daemon, "a", true);
        exchanges(&tap, &guest, 1);
        assert_eq!(daemon.ns.ifindex(&name), before, "{how}");
    }
    daemon.finish();
}

#[test]
fn a_tap_that_is_deleted_is_made_again() {
    let (daemon, guest, name) = rig("tapgone");
    let tap = open(&daemon.ns, &name);
    exchanges(&tap, &guest, 1);
    let before = daemon.ns.ifindex(&name);
    daemon.ns.sh(&format!("ip link del {name}"));
    let again = || daemon.ns.find_ifindex(&name).is_some_and(|index| index != before);
    wait::expect("there is a tap again", PATIENCE, again);
    expect_up(&daemon);
    expect_link(&daemon, "a", false);
    drop(tap);
    exchanges(&open(&daemon.ns, &name), &guest, 1);
    daemon.finish();
}

#[test]
fn a_tap_that_is_renamed_keeps_its_port_also_over_a_restart() {
    let (mut daemon, guest, name) = rig("tapname");
    let tap = open(&daemon.ns, &name);
    let is_called = |daemon: &Daemon, name: &str| daemon.get("ports/a")["spec"]["guest_ifname"] == name;
    daemon.ns.sh(&format!("ip link set {name} name vm-tap"));
    wait::expect("the port follows", PATIENCE, || is_called(&daemon, "vm-tap"));
    exchanges(&tap, &guest, 1);
    daemon.kill();
    // While nobody looks.
    daemon.ns.sh("ip link set vm-tap name other");
    daemon.launch();
    expect_link(&daemon, "a", true);
    assert!(is_called(&daemon, "other"));
    exchanges(&tap, &guest, 1);
    daemon.ok("DELETE", "ports/a", Value::Null);
    assert_eq!(names(&daemon.ns), ["lo", "xs0"]);
    daemon.finish();
}

#[test]
fn a_vmm_keeps_its_tap_when_the_pair_behind_it_is_deleted() {
    let (daemon, guest, name) = rig("tappair");
    let tap = open(&daemon.ns, &name);
    let before = (daemon.ns.ifindex(&name), daemon.ns.ifindex("xs1"));
    daemon.ns.sh("ip link del xs1");
    let again = || daemon.ns.find_ifindex("xs1").is_some_and(|index| index != before.1);
    wait::expect("there is a pair again", PATIENCE, again);
    expect_up(&daemon);
    expect_link(&daemon, "a", true);
    exchanges(&tap, &guest, 1);
    assert_eq!(daemon.ns.ifindex(&name), before.0);
    daemon.finish();
}

#[test]
fn filters_that_somebody_takes_away_are_put_back_and_a_tap_that_is_down_is_told() {
    let (daemon, guest, name) = rig("tapfilter");
    let tap = open(&daemon.ns, &name);
    for netdev in [&name, "xf1"] {
        daemon.ns.sh(&format!("tc qdisc del dev {netdev} clsact"));
        let back = || daemon.ns.sh(&format!("tc filter show dev {netdev} ingress")).contains("Redirect");
        wait::expect("the filter is back", PATIENCE, back);
        exchanges(&tap, &guest, 1);
    }
    let told = || info(&daemon, "a")["problems"].to_string().contains(&format!("ip link set {name} up"));
    daemon.ns.sh(&format!("ip link set {name} down"));
    wait::expect("it is told", PATIENCE, told);
    let doctor = String::from_utf8(daemon.cli("doctor").stdout).expect("text");
    assert!(doctor.contains(&format!("{name} is down")), "{doctor}");
    daemon.ns.sh(&format!("ip link set {name} up"));
    expect_up(&daemon);
    exchanges(&tap, &guest, 1);
    daemon.finish();
}

#[test]
fn a_change_of_the_mtu_reaches_the_tap() {
    let (daemon, guest, name) = rig("tapmtu");
    let tap = open(&daemon.ns, &name);
    daemon.ok("PATCH", "ports/a", json!({ "mtu": 3000 }));
    daemon.ok("PATCH", "ports/c", json!({ "mtu": 3000 }));
    for netdev in ["xs1", "xf1", name.as_str()] {
        assert!(daemon.ns.sh(&format!("ip link show {netdev}")).contains("mtu 3000"), "{netdev}");
    }
    exchanges(&tap, &guest, 1);
    daemon.finish();
}
