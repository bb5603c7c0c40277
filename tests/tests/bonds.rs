//! Bonds of the daemon, with Open vSwitch and Linux bridges at the other end of their links.

use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tests::ovs::Ovs;
use tests::veth::{End, Veth};
use tests::{Daemon, NetNs, shell, wait};

/// The requirement is four seconds. A busy machine gets more.
const PATIENCE: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_secs(5);
const OVS_ADDRESS: &str = "10.77.0.1";
/// Echo requests 10 ms apart.
const PINGS: u32 = 300;

/// A daemon whose bond `bond0` has links `m0` and `m1` to a namespace, where they are `va0` and `va1`.
struct Bed {
    daemon: Daemon,
    far: NetNs,
}

impl Bed {
    fn new(label: &str) -> Self {
        let daemon = Daemon::start(label);
        let far = NetNs::new("far");
        for number in 0..2 {
            let (a, b) = (format!("m{number}"), format!("va{number}"));
            Veth::default().connect(End { ns: &daemon.ns, ifname: &a }, End { ns: &far, ifname: &b });
        }
        // The stack sees what comes in by the links too, and would answer for the bridge with their addresses.
        far.sh("sysctl -qw net.ipv4.conf.all.arp_ignore=1");
        Self { daemon, far }
    }

    fn add(&self, options: Value, more: Value) {
        let mut port = json!({ "name": "bond0", "kind": "bond",
            "bond": { "members": ["m0", "m1"], "options": options } });
        more.as_object().expect("fields").iter().for_each(|(name, value)| port[name] = value.clone());
        self.daemon.ok("POST", "ports", port);
    }

    /// Gives the bridge at the other end an address.
    fn address_bridge(&self) {
        self.far.sh(&format!("ip addr add {OVS_ADDRESS}/24 dev br0"));
        self.far.sh("ip link set br0 up");
    }

    fn bond(&self) -> Value {
        self.daemon.get("ports/bond0")["info"]["bond"].clone()
    }

    fn member(&self, name: &str) -> Value {
        let bond = self.bond();
        let members = bond["members"].as_array().expect("members");
        members.iter().find(|member| member["ifname"] == name).cloned().unwrap_or_default()
    }

    fn distributing(&self) -> usize {
        let bond = self.bond();
        bond["members"].as_array().expect("members").iter().filter(|member| member["distributing"] == true).count()
    }
}

/// A running ping that counts its answers.
struct Pings(Child);

impl Pings {
    fn start(ns: &NetNs, to: &str) -> Self {
        let mut command = ns.command("ping");
        command.args(["-q", "-i", "0.01", "-c", &PINGS.to_string(), "-W", "2", to]);
        Self(command.stdout(Stdio::piped()).spawn().expect("ping"))
    }

    /// Requests that were not answered.
    fn lost(self) -> u32 {
        let said = self.0.wait_with_output().expect("its output");
        let text = shell::text(&said);
        let received = text.split(", ").find_map(|part| part.strip_suffix(" received"));
        PINGS - received.and_then(|count| count.parse::<u32>().ok()).unwrap_or_else(|| panic!("{text}"))
    }
}

#[test]
fn a_bond_of_the_daemon_carries_traffic_to_open_vswitch() {
    let bed = Bed::new("bondovs");
    let ovs = Ovs::bond(&bed.far, &["va0", "va1"], "bond_mode=balance-tcp lacp=active other_config:lacp-time=fast");
    bed.address_bridge();
    bed.add(json!({ "mode": "802.3ad", "lacp_rate": "fast", "xmit_hash_policy": "layer3+4" }), json!({}));
    let guest = bed.daemon.guest("vm", json!({}));
    guest.address("10.77.0.2/24");
    wait::expect("both sides agree", PATIENCE, || {
        let shown = ovs.ask("lacp/show bond0");
        bed.distributing() == 2 && shown.contains("negotiated") && shown.matches(": current attached").count() == 2
    });
    let shown = ovs.ask("lacp/show bond0");
    let system = bed.bond()["lacp"]["system"].as_str().expect("an address").to_owned();
    assert_eq!(shown.matches(&format!("partner sys_id: {system}")).count(), 2, "{shown}");
    let port = bed.member("m0")["lacp"].clone();
    assert_eq!((&port["actor"]["state"], &port["partner"]["state"]), (&json!(63), &json!(63)), "{port}");
    wait::expect("a ping is answered", SOON, || guest.pings(OVS_ADDRESS));

    // A member leaves and comes back, and nothing is lost.
    let pings = Pings::start(&guest.ns, OVS_ADDRESS);
    bed.daemon.ok("PATCH", "ports/bond0", json!({ "bond": { "remove": ["m0"] } }));
    assert_eq!(bed.distributing(), 1);
    bed.daemon.ok("PATCH", "ports/bond0", json!({ "bond": { "add": ["m0"] } }));
    wait::expect("both carry traffic", PATIENCE, || bed.distributing() == 2);
    assert_eq!(pings.lost(), 0, "{}", bed.daemon.log());

    // A cable is pulled. What was on it may be lost, and nothing afterwards.
    let pings = Pings::start(&guest.ns, OVS_ADDRESS);
    std::thread::sleep(Duration::from_millis(500));
    bed.far.sh("ip link set va1 down");
    wait::expect("it is seen", SOON, || bed.distributing() == 1 && bed.member("m1")["link_failures"] == 1);
    let lost = pings.lost();
    assert!(lost <= PINGS / 20, "{lost} of {PINGS} were lost");
    bed.far.sh("ip link set va1 up");
    wait::expect("both carry traffic again", PATIENCE, || bed.distributing() == 2);
    bed.daemon.assert_balanced();
    drop(ovs);
    bed.daemon.finish();
}

#[test]
fn a_shared_bond_negotiates_too_and_the_host_keeps_its_own() {
    let bed = Bed::new("bondshared");
    let ovs = Ovs::bond(&bed.far, &["va0", "va1"], "bond_mode=balance-tcp lacp=active other_config:lacp-time=fast");
    bed.add(json!({ "mode": "802.3ad", "lacp_rate": "fast" }), json!({ "steering": "shared" }));
    wait::expect("both sides agree", PATIENCE, || {
        bed.distributing() == 2 && ovs.ask("lacp/show bond0").contains("negotiated")
    });
    bed.address_bridge();
    let guest = bed.daemon.guest("vm", json!({}));
    guest.address("10.77.0.2/24");
    wait::expect("a ping is answered", SOON, || guest.pings(OVS_ADDRESS));
    bed.daemon.assert_balanced();
    drop(ovs);
    bed.daemon.finish();
}

#[test]
fn a_backup_takes_over_towards_a_bridge() {
    let mut bed = Bed::new("bondbackup");
    // A switch that knows nothing of bonds: it learns from what it is sent.
    // Its address is not to change with its ports.
    for line in [
        "ip link add br0 address 02:00:00:00:77:01 type bridge",
        "ip link set va0 master br0",
        "ip link set va1 master br0",
    ] {
        bed.far.sh(line);
    }
    bed.address_bridge();
    bed.add(json!({ "mode": "active-backup", "num_grat_arp": 3, "primary": "m1" }), json!({}));
    let guest = bed.daemon.guest("vm", json!({}));
    guest.address("10.77.0.2/24");
    assert_eq!(bed.bond()["active"], "m1");
    wait::expect("a ping is answered", SOON, || guest.pings(OVS_ADDRESS));
    let pings = Pings::start(&guest.ns, OVS_ADDRESS);
    std::thread::sleep(Duration::from_millis(300));
    bed.far.sh("ip link set va1 down");
    wait::expect("the other takes over", SOON, || bed.bond()["active"] == "m0");
    let lost = pings.lost();
    assert!(lost <= PINGS / 20, "{lost} of {PINGS} were lost");
    bed.far.sh("ip link set va1 up");
    wait::expect("the primary is active again", SOON, || bed.bond()["active"] == "m1");

    // After a restart it is as before, also if a member is missing meanwhile.
    bed.daemon.kill();
    bed.daemon.ns.sh("ip link del m0");
    bed.daemon.launch();
    let names = |bed: &Bed| bed.bond()["members"].as_array().expect("members").len();
    assert_eq!((names(&bed), &bed.bond()["active"]), (1, &json!("m1")));
    wait::expect("a ping is answered", SOON, || guest.pings(OVS_ADDRESS));
    Veth::default().connect(End { ns: &bed.daemon.ns, ifname: "m0" }, End { ns: &bed.far, ifname: "va0" });
    wait::expect("the member is back", SOON, || names(&bed) == 2);
    bed.daemon.assert_balanced();
    bed.daemon.finish();
}
