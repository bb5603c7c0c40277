//! What others do to netdevs of ports, on a real kernel: each kind of change, at random, and a daemon that is killed.

mod killed;
mod random;

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tests::{Daemon, shell, wait};

/// Longest time that a port takes to follow.
const PATIENCE: Duration = Duration::from_secs(10);

/// A namespace that nobody holds open, as a container runtime has it. It goes with the guard, if it is there.
struct Plain(String);

impl Plain {
    fn new(daemon: &Daemon, label: &str) -> Self {
        let plain = Self(format!("{}-{label}", daemon.ns.name()));
        plain.add();
        plain
    }

    fn add(&self) {
        shell::run(Command::new("ip").args(["netns", "add", &self.0]));
        self.sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
    }

    fn delete(&self) {
        shell::run(Command::new("ip").args(["netns", "del", &self.0]));
    }

    fn try_sh(&self, line: &str) -> bool {
        let mut command = Command::new("ip");
        shell::output(command.args(["netns", "exec", &self.0]).args(line.split_whitespace())).status.success()
    }

    fn sh(&self, line: &str) {
        assert!(self.try_sh(line), "{line} in {}", self.0);
    }

    fn pings(&self, ip: &str) -> bool {
        wait::until(PATIENCE, || self.try_sh(&format!("ping -c 1 -W 1 {ip}")).then_some(())).is_some()
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = shell::output(Command::new("ip").args(["netns", "del", &self.0]));
    }
}

fn state(daemon: &Daemon, port: &str) -> (String, String) {
    let entry = daemon.get(&format!("ports/{port}"));
    (entry["state"].as_str().unwrap_or_default().to_owned(), entry["error"].as_str().unwrap_or_default().to_owned())
}

fn expect_state(daemon: &Daemon, port: &str, wanted: &str) {
    wait::expect(&format!("{port} is {wanted}"), PATIENCE, || state(daemon, port).0 == wanted);
}

fn spec(daemon: &Daemon, port: &str, field: &str) -> Value {
    daemon.get(&format!("ports/{port}"))["spec"][field].clone()
}

fn expect_spec(daemon: &Daemon, port: &str, field: &str, wanted: &Value) {
    wait::expect(&format!("{field} of {port} is {wanted}"), PATIENCE, || spec(daemon, port, field) == *wanted);
}

/// A port `a` of a kind, with a station behind it, and a guest `b` as its peer.
struct Bed {
    daemon: Daemon,
    /// Where the station is.
    far: Plain,
    /// The station's netdev.
    eth: String,
    /// The switch's netdev.
    near: &'static str,
    /// The peer, whose namespace goes with it.
    _b: tests::Guest,
}

impl Bed {
    fn new(kind: &'static str) -> Self {
        let daemon = Daemon::start(&format!("watch{kind}"));
        let far = Plain::new(&daemon, "a");
        let b = daemon.guest("b", json!({}));
        b.address("10.0.0.2/24");
        let bed = Self { daemon, far, eth: "eth0".to_owned(), near: "sw0", _b: b };
        if kind == "phy" {
            bed.make_pair();
            bed.daemon.ok("POST", "ports", json!({ "name": "a", "kind": "phy", "ifname": "sw0" }));
        } else {
            let place = json!({ "netns": bed.far.0, "guest_ifname": "eth0", "ifname": "sw0" });
            bed.daemon.ok("POST", "ports", merged(json!({ "name": "a", "kind": "guest" }), place));
        }
        bed.set_station_up();
        assert!(bed.works(), "at the start");
        bed
    }

    fn make_pair(&self) {
        let queues = "numrxqueues 4 numtxqueues 4";
        // It has the port's name last: the switch takes it at once, and its queues can't be changed then.
        self.daemon.ns.sh(&format!("ip link add new0 {queues} type veth peer name eth0 {queues} netns {}", self.far.0));
        self.daemon.ns.sh("ethtool -L new0 rx 1 tx 1");
        self.far.sh("ethtool -L eth0 rx 1 tx 1");
        self.daemon.ns.sh("ip link set new0 name sw0");
        self.daemon.ns.sh("ip link set sw0 up");
    }

    fn set_station_up(&self) {
        self.far.sh(&format!("ip addr replace 10.0.0.1/24 dev {}", self.eth));
        self.far.sh(&format!("ip link set {} up", self.eth));
    }

    /// Whether the two reach each other.
    fn works(&self) -> bool {
        let _ = self.far.try_sh("ip neigh flush all");
        self.far.pings("10.0.0.2")
    }
}

fn merged(mut base: Value, more: Value) -> Value {
    base.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
    base
}

#[test]
fn a_renamed_netdev_is_followed_and_its_old_name_is_free() {
    for kind in ["guest", "phy"] {
        let bed = Bed::new(kind);
        bed.daemon.ns.sh("ip link set sw0 down");
        expect_state(&bed.daemon, "a", "degraded");
        bed.daemon.ns.sh("ip link set sw0 name other0");
        bed.daemon.ns.sh("ip link set other0 up");
        expect_spec(&bed.daemon, "a", "ifname", &json!("other0"));
        expect_state(&bed.daemon, "a", "up");
        assert!(bed.works(), "{kind}");
        let twice = json!({ "name": "twice", "kind": "phy", "ifname": "other0" });
        let (status, error) = bed.daemon.call("POST", "ports", &twice);
        assert_eq!(status, 409, "{error}");
        assert!(error.to_string().contains("`a`"), "{error}");
        bed.daemon.ns.sh("ip link add sw0 type veth peer name sw1");
        bed.daemon.ok("POST", "ports", json!({ "name": "c", "kind": "phy", "ifname": "sw0" }));
        assert!(bed.works(), "{kind}");
        let mut bed = bed;
        bed.daemon.stop();
        bed.daemon.launch();
        assert_eq!(spec(&bed.daemon, "a", "ifname"), "other0");
        assert!(bed.works(), "{kind} after a restart");
        bed.daemon.finish();
    }
}

#[test]
fn a_netdev_that_is_gone_is_told_and_taken_up_again() {
    for kind in ["guest", "phy"] {
        let bed = Bed::new(kind);
        let ifindex = |bed: &Bed| bed.daemon.get("ports/a")["info"]["ifindex"].as_u64();
        let before = ifindex(&bed);
        bed.daemon.ns.sh("ip link del sw0");
        if kind == "phy" {
            expect_state(&bed.daemon, "a", "failed");
            assert!(state(&bed.daemon, "a").1.contains("sw0"));
            bed.make_pair();
        }
        // The pair of a guest port is made again by the switch.
        wait::expect("another netdev", PATIENCE, || ifindex(&bed).is_some_and(|index| Some(index) != before));
        expect_state(&bed.daemon, "a", "up");
        bed.set_station_up();
        assert!(bed.works(), "{kind}");
        bed.daemon.finish();
    }
}

#[test]
fn a_netdev_that_is_moved_away_and_back_is_taken_up_again() {
    for kind in ["guest", "phy"] {
        let bed = Bed::new(kind);
        let elsewhere = Plain::new(&bed.daemon, "e");
        bed.daemon.ns.sh(&format!("ip link set {} netns {}", bed.near, elsewhere.0));
        if kind == "phy" {
            expect_state(&bed.daemon, "a", "failed");
            let back = format!("ip -n {} link set {} netns {}", elsewhere.0, bed.near, bed.daemon.ns.name());
            shell::run(&mut shell::words(&back));
            expect_state(&bed.daemon, "a", "up");
            assert!(bed.works(), "{kind}");
            // For a moment only, so that it is there again before anybody looks.
            let away = format!("ip -n {} link set {} netns {}", bed.daemon.ns.name(), bed.near, elsewhere.0);
            shell::run(Command::new("sh").args(["-c", &format!("{away} && {back}")]));
            bed.daemon.ns.sh("ip link set sw0 up");
            assert!(bed.works(), "{kind} after a moment");
        } else {
            // The guest's end keeps its name there, so that no other pair can be made.
            wait::expect("it is told", PATIENCE, || state(&bed.daemon, "a").0 == "failed");
        }
        bed.daemon.finish();
    }
}

#[test]
fn a_namespace_that_is_deleted_takes_its_guest_along() {
    let bed = Bed::new("guest");
    bed.daemon.ns.sh(&format!("ip link add nic0 type veth peer name nic1 netns {}", bed.far.0));
    bed.far.delete();
    expect_state(&bed.daemon, "a", "failed");
    wait::expect("the other netdev in it is gone too", PATIENCE, || bed.daemon.ns.find_ifindex("nic0").is_none());
    bed.far.add();
    expect_state(&bed.daemon, "a", "up");
    bed.set_station_up();
    assert!(bed.works());
    bed.daemon.finish();
}

#[test]
fn a_guests_end_is_followed_by_name_and_namespace_over_a_restart() {
    let mut bed = Bed::new("guest");
    bed.far.sh("ip link set eth0 down");
    bed.far.sh("ip link set eth0 name lan0");
    bed.eth = "lan0".to_owned();
    bed.set_station_up();
    expect_spec(&bed.daemon, "a", "guest_ifname", &json!("lan0"));
    assert!(bed.works());
    let new = Plain::new(&bed.daemon, "n");
    bed.far.sh(&format!("ip link set lan0 netns {}", new.0));
    bed.far = new;
    bed.set_station_up();
    expect_spec(&bed.daemon, "a", "netns", &json!(bed.far.0));
    assert!(bed.works());
    // While nobody looks too.
    bed.daemon.stop();
    bed.far.sh("ip link set lan0 down");
    bed.far.sh("ip link set lan0 name wan0");
    bed.eth = "wan0".to_owned();
    bed.set_station_up();
    bed.daemon.launch();
    assert_eq!(spec(&bed.daemon, "a", "guest_ifname"), "wan0");
    assert!(bed.works());
    bed.daemon.finish();
}

#[test]
fn mtu_queues_link_and_offloads_are_followed_told_or_repaired() {
    for kind in ["guest", "phy"] {
        let bed = Bed::new(kind);
        bed.daemon.ns.sh("ip link set sw0 mtu 1400");
        expect_spec(&bed.daemon, "a", "mtu", &json!(1400));
        bed.far.sh(&format!("ethtool -K {} tx on", bed.eth));
        wait::expect("checksums are computed again", PATIENCE, || {
            let mut command = Command::new("ip");
            let features = command.args(["netns", "exec", &bed.far.0, "ethtool", "-k", &bed.eth]);
            shell::text(&shell::output(features)).contains("tx-checksum-ip-generic: off")
        });
        let learned = || bed.daemon.get("fdb").as_array().is_some_and(|rows| rows.iter().any(|row| row["port"] == "a"));
        assert!(bed.works() && learned(), "{kind}");
        bed.far.sh(&format!("ip link set {} down", bed.eth));
        wait::expect("what was learned is forgotten", PATIENCE, || !learned());
        bed.set_station_up();
        assert!(bed.works(), "{kind}");
        if kind == "phy" {
            bed.daemon.ns.sh("ethtool -L sw0 rx 4 tx 4");
            bed.far.sh("ethtool -L eth0 rx 4 tx 4");
            expect_spec(&bed.daemon, "a", "queues", &json!(4));
            expect_state(&bed.daemon, "a", "up");
            assert!(bed.works());
        }
        bed.daemon.finish();
    }
}

#[test]
fn ports_of_components_are_taken_up_again_too() {
    let daemon = Daemon::start("watchspp");
    let [left, right] = ["l", "r"].map(|label| Plain::new(&daemon, label));
    let make = |no: u32, far: &Plain| {
        daemon.ns.sh(&format!("ip link add sw{no} type veth peer name eth0 netns {}", far.0));
        daemon.ns.sh(&format!("ip link set sw{no} up"));
        far.sh(&format!("ip addr add 10.0.0.{}/24 dev eth0", no + 1));
        far.sh("ip link set eth0 up");
    };
    for (no, far) in [(0, &left), (1, &right)] {
        make(no, far);
        let spec =
            json!({ "name": format!("p{no}"), "kind": "phy", "ifname": format!("sw{no}"), "spp": format!("phy:{no}") });
        daemon.ok("POST", "ports", spec);
    }
    for line in ["pri; launch nfv 1", "nfv 1; patch phy:0 phy:1", "nfv 1; patch phy:1 phy:0", "nfv 1; forward"] {
        daemon.ok("POST", "spp/commands", json!({ "line": line }));
    }
    assert!(left.pings("10.0.0.2"));
    daemon.ns.sh("ip link del sw0");
    expect_state(&daemon, "p0", "failed");
    make(0, &left);
    expect_state(&daemon, "p0", "up");
    assert!(left.pings("10.0.0.2"));
    daemon.ns.sh("ip link set sw1 down");
    daemon.ns.sh("ip link set sw1 name other1");
    daemon.ns.sh("ip link set other1 up");
    expect_spec(&daemon, "p1", "ifname", &json!("other1"));
    assert!(left.pings("10.0.0.2"));
    daemon.finish();
}
