//! A daemon that is killed in the middle of a command.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tests::Daemon;

use crate::{Plain, expect_state};

#[test]
fn a_killed_add_is_undone_or_finished() {
    let mut daemon = Daemon::start("killedadd");
    let far = Plain::new(&daemon, "f");
    daemon.ns.sh("ip link add p0 type veth peer name p1 mtu 1420");
    daemon.ns.sh("ip link set p0 mtu 1430");
    let links = |daemon: &Daemon| -> BTreeSet<String> {
        let kept = |link: &Value| {
            let of = |field: &str| link[field].to_string();
            format!("{} {} {} {}", of("ifname"), of("mtu"), of("address"), link["flags"].to_string().contains("\"UP\""))
        };
        daemon.ns.links().iter().map(kept).collect()
    };
    let offloads = |daemon: &Daemon| daemon.ns.sh("ethtool -k p1");
    let before = (links(&daemon), offloads(&daemon));
    let mut outcomes = BTreeSet::new();
    // Times from before the first step to after the last one.
    for step in 0..24_u32 {
        let body = json!({
            "name": "a", "kind": "guest", "ifname": "p0", "netns": far.0, "mac": "02:00:00:00:00:77", "mtu": 1400,
        });
        let socket = daemon.path("run/api.sock");
        let add = std::thread::spawn(move || {
            let _ = tests::http::over_unix(&socket, "POST", "/api/v1/ports", body.to_string().as_bytes());
        });
        std::thread::sleep(Duration::from_micros(u64::from(step) * 700));
        daemon.kill();
        add.join().expect("the client ends");
        daemon.launch();
        let there = daemon.get("ports").as_array().is_some_and(|ports| !ports.is_empty());
        outcomes.insert(there);
        if there {
            expect_state(&daemon, "a", "up");
            daemon.ok("DELETE", "ports/a", Value::Null);
            // What was acknowledged was the user's wish. The pair is made anew for the next round.
            daemon.ns.sh("ip link del p0");
            daemon.ns.sh("ip link add p0 type veth peer name p1 mtu 1420");
            daemon.ns.sh("ip link set p0 mtu 1430");
        } else {
            let after = (links(&daemon), offloads(&daemon));
            assert_eq!(after.0.len(), before.0.len(), "step {step}: {after:?}");
            assert!(after.0.iter().any(|link| link.contains("\"p0\" 1430") && link.ends_with("false")), "{after:?}");
            assert!(after.0.iter().any(|link| link.contains("\"p1\" 1420") && link.ends_with("false")), "{after:?}");
            assert_eq!(after.1, before.1, "step {step}");
        }
    }
    assert!(outcomes.contains(&false), "no add was interrupted");
    daemon.finish();
}

#[test]
fn a_killed_add_or_del_of_a_made_pair_leaves_no_pair_without_a_port() {
    let mut daemon = Daemon::start("killedpair");
    for step in 0..16_u32 {
        let socket = daemon.path("run/api.sock");
        let work = std::thread::spawn(move || {
            let body = json!({ "name": "a", "kind": "guest" }).to_string();
            let _ = tests::http::over_unix(&socket, "POST", "/api/v1/ports", body.as_bytes());
            let _ = tests::http::over_unix(&socket, "DELETE", "/api/v1/ports/a", b"");
        });
        std::thread::sleep(Duration::from_millis(u64::from(step) * 3));
        daemon.kill();
        work.join().expect("the client ends");
        daemon.launch();
        let ports = daemon.get("ports").as_array().map_or(0, Vec::len);
        let links = daemon.ns.links();
        let is_ours = |link: &&Value| link["ifname"].as_str().is_some_and(|name| name.starts_with("xs"));
        assert_eq!(links.iter().filter(is_ours).count(), ports, "step {step}");
        if ports == 1 {
            daemon.ok("DELETE", "ports/a", Value::Null);
        }
    }
    daemon.finish();
}

#[test]
fn a_killed_set_leaves_what_was_or_what_was_asked_for() {
    let mut daemon = Daemon::start("killedset");
    let far = Plain::new(&daemon, "f");
    let specs = [(1400, "02:00:00:00:00:71"), (1300, "02:00:00:00:00:72")].map(|(mtu, mac)| (json!(mtu), json!(mac)));
    let (mtu, mac) = &specs[0];
    let port =
        daemon.ok("POST", "ports", json!({ "name": "a", "kind": "guest", "netns": far.0, "mac": mac, "mtu": mtu }));
    let eth = port["spec"]["guest_ifname"].as_str().expect("a name").to_owned();
    let near = port["spec"]["ifname"].as_str().expect("a name").to_owned();
    let link = |ns: &str, name: &str| {
        let output = Command::new("ip").args(["-n", ns, "-j", "link", "show", name]).output().expect("ip runs");
        let links: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        (links[0]["mtu"].clone(), links[0]["address"].clone())
    };
    let mut seen = BTreeSet::new();
    let mut at = 0;
    for step in 0..24_u32 {
        let (mtu, mac) = specs[1 - at].clone();
        let body = json!({ "mtu": mtu, "mac": mac, "queue_depth": if at == 0 { 512 } else { 1024 } });
        let socket = daemon.path("run/api.sock");
        let set = std::thread::spawn(move || {
            let _ = tests::http::over_unix(&socket, "PATCH", "/api/v1/ports/a", body.to_string().as_bytes());
        });
        std::thread::sleep(Duration::from_micros(u64::from(step) * 500));
        daemon.kill();
        set.join().expect("the client ends");
        daemon.launch();
        expect_state(&daemon, "a", "up");
        let spec = daemon.get("ports/a")["spec"].clone();
        let now = (spec["mtu"].clone(), spec["mac"].clone());
        let found = specs.iter().position(|spec| *spec == now);
        let found = found.unwrap_or_else(|| panic!("step {step}: half of the change is there: {now:?}"));
        seen.insert(found != at);
        at = found;
        assert_eq!(link(&far.0, &eth), now, "step {step}: the guest's end is not what the port says");
        assert_eq!(link(daemon.ns.name(), &near).0, now.0, "step {step}: the switch's end is not what the port says");
    }
    assert!(seen.contains(&false), "no change was interrupted");
    daemon.finish();
}
