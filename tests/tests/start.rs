//! Start with many ports at once: from the configuration, and again with existing netdevs.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use tests::daemon::Guest;
use tests::{Daemon, NetNs, Options, wait};

const PORTS: usize = 200;

/// `[[port]]` blocks of guest ports. Listed ones have the guest's end in that namespace.
fn declared(namespaces: &[(usize, &NetNs)]) -> String {
    let mut text = String::new();
    for n in 0..PORTS {
        write!(text, "[[port]]\nname = \"p{n}\"\nkind = \"guest\"\nqueue_depth = 256\n").expect("text");
        if let Some((_, ns)) = namespaces.iter().find(|(at, _)| *at == n) {
            writeln!(text, "netns = \"{}\"", ns.name()).expect("text");
        }
    }
    text
}

fn specs(daemon: &Daemon) -> Vec<Value> {
    let ports = daemon.get("ports");
    let ports = ports.as_array().expect("ports");
    let failed: Vec<_> = ports.iter().filter(|port| port["state"] != "up").collect();
    assert!(failed.is_empty(), "{failed:?}");
    ports.iter().map(|port| port["spec"].clone()).collect()
}

fn guest(spec: &Value, ns: NetNs) -> Guest {
    let text = |field: &str| spec[field].as_str().expect(field).to_owned();
    Guest { ifname: text("guest_ifname"), mac: text("mac").parse().expect("an address"), name: text("name"), ns }
}

#[test]
fn two_hundred_ports_start_together_pass_traffic_end_and_start_again() {
    let (first, last) = (NetNs::new("first"), NetNs::new("last"));
    let config = declared(&[(0, &first), (PORTS - 1, &last)]);
    let mut daemon = Daemon::with("many", &Options { frames: 32_768, workers: 2, config });
    let before = specs(&daemon);
    let numbers: Vec<_> = before.iter().map(|spec| (spec["name"].clone(), spec["vport"].clone())).collect();
    let expected: Vec<_> = (0..PORTS).map(|n| (json!(format!("p{n}")), json!(n))).collect();
    assert_eq!(numbers, expected, "numbers go in the order of the configuration");
    let workers: Vec<_> = daemon
        .get("ports")
        .as_array()
        .expect("ports")
        .iter()
        .map(|port| port["info"]["queues"][0]["worker"].clone())
        .collect();
    let expected: Vec<_> = (0..PORTS).map(|n| json!(n % 2)).collect();
    assert_eq!(workers, expected, "so do workers");
    let (a, b) = (guest(&before[0], first), guest(&before[PORTS - 1], last));
    a.address("10.0.0.1/24");
    b.address("10.0.0.2/24");
    assert!(a.pings("10.0.0.2"));
    daemon.assert_balanced();
    daemon.stop();
    let xdp = daemon.ns.links().into_iter().find(|link| !link["xdp"].is_null());
    assert_eq!(xdp, None, "a program is left");
    daemon.launch();
    assert_eq!(specs(&daemon), before);
    assert!(a.pings("10.0.0.2"));
    daemon.kill();
    daemon.launch();
    assert_eq!(specs(&daemon), before);
    assert!(a.pings("10.0.0.2"));
    daemon.finish();
}

#[test]
fn of_ports_that_start_together_one_that_fails_stops_no_other() {
    let port = |n: usize, more: &str| format!("[[port]]\nname = \"p{n}\"\nkind = \"guest\"\n{more}\n");
    let config = [port(0, ""), port(1, "ifname = \"lo\""), port(2, "netns = \"xswt-missing\""), port(3, "")].concat();
    let phy = "[[port]]\nname = \"late\"\nkind = \"phy\"\nifname = \"late0\"\nvport = 9\n";
    let config = config + phy;
    let daemon = Daemon::with("some", &Options { config, ..Options::default() });
    let state = |name: &str| {
        let port = daemon.get(&format!("ports/{name}"));
        (port["state"].as_str().expect("a state").to_owned(), port["spec"]["vport"].clone())
    };
    assert_eq!(state("p0"), ("up".to_owned(), json!(0)));
    assert_eq!(state("p3"), ("up".to_owned(), json!(3)));
    for (name, why) in [("p1", "no veth"), ("p2", "xswt-missing"), ("late", "late0")] {
        let port = daemon.get(&format!("ports/{name}"));
        assert_eq!(port["state"], "failed", "{port}");
        assert!(port["error"].as_str().expect("a reason").contains(why), "{port}");
        assert!(daemon.log().contains(&format!("port=\"{name}\"")) || daemon.log().contains(&format!("port={name}")));
    }
    daemon.ns.sh("ip link add late0 type veth peer name late1");
    wait::expect("what was missing is there", Duration::from_secs(20), || state("late").0 == "up");
    assert_eq!(state("late").1, json!(9), "the number that was named is its own");
    daemon.finish();
}
