//! Changes at random: the switch's view stays the kernel's, and ports that nobody touches lose nothing.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::random::Random;
use tests::stream::while_streaming;
use tests::{Daemon, shell, wait};

use crate::{PATIENCE, Plain};

/// Does something to one of the netdevs, or asks the switch for something. Much of it fails, which is right.
fn do_something(daemon: &Daemon, random: &mut Random, spaces: &[Plain]) {
    let quietly = |line: &str| drop(shell::output(&mut shell::words(line)));
    let ns = daemon.ns.name();
    let near = format!("t{}", random.below(3));
    let space = &random.one_of(spaces).0;
    let other = &random.one_of(spaces).0;
    match random.below(14) {
        0 => quietly(&format!("ip -n {ns} link del {near}")),
        1 | 2 => quietly(&format!("ip -n {ns} link add {near} type veth peer name e{near} netns {space}")),
        3 => quietly(&format!("ip -n {ns} link set {near} down")),
        4 => quietly(&format!("ip -n {ns} link set {near} up")),
        5 => quietly(&format!("ip -n {ns} link set {near} mtu {}", 1000 + random.below(800))),
        6 => {
            quietly(&format!("ip -n {ns} link set {near} down"));
            quietly(&format!("ip -n {ns} link set {near} name t{}", random.below(3)));
            quietly(&format!("ip -n {ns} link set {near} up"));
        }
        7 => quietly(&format!("ip -n {ns} link set {near} netns {space}")),
        8 => quietly(&format!("ip -n {space} link set {near} netns {ns}")),
        9 => quietly(&format!("ip -n {space} link set e{near} netns {other}")),
        10 => {
            quietly(&format!("ip netns del {space}"));
            quietly(&format!("ip netns add {space}"));
        }
        11 => {
            let body = json!({ "name": format!("phy-{near}"), "kind": "phy", "ifname": near });
            daemon.call("POST", "ports", &body);
        }
        12 => {
            let body = json!({ "name": format!("vm-{near}"), "kind": "guest", "netns": space });
            daemon.call("POST", "ports", &body);
        }
        _ => {
            let kind = if random.below(2) == 0 { "phy" } else { "vm" };
            daemon.call("DELETE", &format!("ports/{kind}-{near}"), &Value::Null);
        }
    }
}

/// At rest the switch's view is the kernel's.
fn check_rest(daemon: &Daemon) {
    let agrees = || {
        let links = daemon.ns.links();
        let find = |index: &Value| links.iter().find(|link| link["ifindex"] == *index);
        let ports = daemon.get("ports");
        ports.as_array().expect("a list").iter().all(|port| match port["state"].as_str() {
            Some("failed") => port["error"].as_str().is_some_and(|why| !why.is_empty()),
            _ => find(&port["info"]["ifindex"]).is_some_and(|link| {
                let flags = link["flags"].to_string();
                let degraded = port["state"] == "degraded";
                link["ifname"] == port["spec"]["ifname"]
                    && (link["mtu"] == port["spec"]["mtu"] || degraded)
                    && port["info"]["link_up"] == json!(flags.contains("LOWER_UP") && flags.contains("\"UP\""))
                    && (flags.contains("\"UP\"") || degraded)
                    && !link["xdp"].is_null()
            }),
        })
    };
    wait::expect("the switch's view is the kernel's", PATIENCE, agrees);
    daemon.assert_balanced();
}

#[test]
fn random_changes_leave_a_view_that_is_the_kernels_and_nothing_behind() {
    let seed = 0x5eed_0000 + u64::from(std::process::id());
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    let mut daemon = Daemon::start("random");
    let spaces = ["x", "y"].map(|label| Plain::new(&daemon, label));
    for round in 0..8 {
        for _ in 0..25 {
            do_something(&daemon, &mut random, &spaces);
        }
        check_rest(&daemon);
        match round % 3 {
            1 => {
                daemon.stop();
                daemon.launch();
                check_rest(&daemon);
            }
            2 => {
                daemon.kill();
                daemon.launch();
                check_rest(&daemon);
            }
            _ => {}
        }
    }
    let ports = daemon.get("ports");
    for port in ports.as_array().expect("a list") {
        daemon.ok("DELETE", &format!("ports/{}", port["name"].as_str().expect("a name")), Value::Null);
    }
    let of_switch = |link: &&Value| link["ifalias"].as_str().is_some_and(|alias| alias.starts_with("xswitch"));
    assert_eq!(daemon.ns.links().iter().filter(of_switch).count(), 0, "pairs are left");
    assert_eq!(daemon.get("audit")["free"], daemon.get("audit")["frames"]);
    daemon.finish();
}

#[test]
fn a_stream_between_two_others_loses_nothing_while_the_world_changes() {
    let seconds = std::env::var("XSWITCH_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(120);
    let daemon = Daemon::start("soak");
    let (a, b) = (daemon.guest("one", json!({})), daemon.guest("two", json!({})));
    let spaces = ["x", "y"].map(|label| Plain::new(&daemon, label));
    while_streaming(&a, &b, |is_whole| {
        let mut random = Random(0x50a4 + u64::from(std::process::id()));
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end && is_whole() {
            do_something(&daemon, &mut random, &spaces);
        }
    });
    check_rest(&daemon);
    daemon.finish();
}
