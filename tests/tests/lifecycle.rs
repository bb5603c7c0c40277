//! Start, end and violent end of the daemon: what it keeps, what it refuses, what it leaves.

use std::time::Duration;

use serde_json::{Value, json};
use tests::gensink::Sink;
use tests::{Daemon, Frame, Mac, Options, shell, wait};

#[test]
fn a_killed_daemon_starts_again_with_everything() {
    let mut daemon = Daemon::start("kill");
    let (a, b) = (
        daemon.guest("a", json!({ "vlan": { "mode": "access", "vid": 7 } })),
        daemon.guest("b", json!({ "vlan": { "mode": "access", "vid": 7 } })),
    );
    a.address("10.0.0.1/24");
    b.address("10.0.0.2/24");
    daemon.ok("POST", "fdb", json!({ "mac": "02:00:00:00:00:09", "vlan": 7, "port": "b" }));
    daemon.ok("PATCH", "bridge", json!({ "fdb_ageing_seconds": 77 }));
    let specs = |daemon: &Daemon| {
        daemon.get("ports").as_array().expect("ports").iter().map(|port| port["spec"].clone()).collect::<Vec<_>>()
    };
    let before = specs(&daemon);
    for _ in 0..3 {
        assert!(a.pings("10.0.0.2"));
        daemon.kill();
        daemon.launch();
        assert_eq!(specs(&daemon), before);
        assert!(
            daemon.get("ports").as_array().expect("ports").iter().all(|port| port["state"] == "up"),
            "{}",
            daemon.get("ports")
        );
        assert_eq!(daemon.get("bridge")["fdb_ageing_seconds"], 77);
        assert_eq!(daemon.get("fdb?vlan=7&mac=02:00:00:00:00:09")[0]["port"], "b");
    }
    assert!(a.pings("10.0.0.2"));
    // The pairs still belong to it, so they go with their ports.
    daemon.ok("DELETE", "ports/a", Value::Null);
    assert!(daemon.ns.find_ifindex("xs0").is_none());
    daemon.finish();
}

#[test]
fn a_damaged_state_file_is_refused_and_kept() {
    let mut daemon = Daemon::start("damaged");
    daemon.guest("a", json!({}));
    daemon.stop();
    let path = daemon.path("state/state.redb");
    let whole = std::fs::read(&path).expect("a state file");
    for damaged in [&whole[..whole.len() / 2], b"", b"{}", b"{\"version\": 99}"] {
        std::fs::write(&path, damaged).expect("writing it");
        let output = shell::output(&mut daemon.command());
        let said = shell::text(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("state.redb") && said.contains("left as it is"), "{said}");
        assert_eq!(std::fs::read(&path).expect("it is there"), damaged);
    }
    std::fs::write(&path, &whole).expect("writing it");
    daemon.launch();
    assert_eq!(daemon.get("ports")[0]["name"], "a");
    daemon.finish();
}

#[test]
fn two_daemons_do_not_share_a_directory() {
    let daemon = Daemon::start("twice");
    let output = shell::output(&mut daemon.command());
    let said = shell::text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("process {}", daemon.pid())), "{said}");
    assert_eq!(daemon.get("version")["name"], "xswitchd", "the first one is unharmed");
    daemon.finish();
}

#[test]
fn a_bad_configuration_is_refused_with_line_and_key() {
    let mut daemon = Daemon::start("config");
    daemon.stop();
    for (text, says) in [
        ("[dataplane]\nworker = 1\n", "worker"),
        ("[dataplane]\nframes = 1000\n", "frames: 1000 is not a power of two"),
        ("[dataplane]\nworkers = 1\ncpus = [4095]\n", "CPU 4095"),
        ("[bridge]\nfdb_limit = 1\n", "fdb_limit"),
        ("[metrics]\nlisten = \"203.0.113.1:1\"\n", "metrics.listen"),
        ("[spp]\nlisten = \"203.0.113.1:1\"\n", "spp.listen"),
    ] {
        std::fs::write(daemon.path("xswitch.toml"), text).expect("writing it");
        let output = shell::output(&mut daemon.command());
        let said = shell::text(&output);
        assert_eq!(output.status.code(), Some(1), "{text}: {said}");
        assert!(said.contains(says), "{text}: {said}");
    }
}

#[test]
fn a_hangup_takes_up_what_can_change() {
    let daemon = Daemon::start("hangup");
    let text = "[dataplane]\nworkers = 1\nframes = 16384\n[bridge]\nfdb_ageing_seconds = 42\n[[port]]\nname = \"declared\"\nkind = \"guest\"\n";
    std::fs::write(daemon.path("xswitch.toml"), text).expect("writing it");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(daemon.pid()), nix::sys::signal::Signal::SIGHUP)
        .expect("it runs");
    wait::expect("the declared port", Duration::from_secs(5), || {
        daemon.call("GET", "ports/declared", &Value::Null).0 == 200
    });
    assert_eq!(daemon.get("bridge")["fdb_ageing_seconds"], 42);
    daemon.finish();
}

#[test]
fn a_port_whose_netdev_is_not_there_yet_comes_up_when_it_is() {
    let mut daemon = Daemon::start("late");
    daemon.ns.sh("ip link add up0 type veth peer name up1");
    daemon.ns.sh("ip link set up1 up");
    daemon.ok("POST", "ports", json!({ "name": "up", "kind": "phy", "ifname": "up0" }));
    daemon.stop();
    daemon.ns.sh("ip link del up0");
    daemon.launch();
    let port = daemon.get("ports/up");
    assert_eq!(port["state"], "failed", "{port}");
    assert!(port["error"].as_str().expect("a reason").contains("up0"), "{port}");
    daemon.ns.sh("ip link add up0 type veth peer name up1");
    daemon.ns.sh("ip link set up1 up");
    wait::expect("the port is up", Duration::from_secs(15), || daemon.get("ports/up")["state"] == "up");
    daemon.finish();
}

#[test]
fn a_netdev_that_is_deleted_under_its_port_harms_no_other() {
    let daemon = Daemon::start("pulled");
    let (a, b, c) = (daemon.guest("a", json!({})), daemon.guest("b", json!({})), daemon.guest("c", json!({})));
    b.address("10.0.0.2/24");
    c.address("10.0.0.3/24");
    // All ports share the UMEM registration of the first port's socket.
    daemon.ns.sh("ip link del xs0");
    drop(a);
    assert!(b.pings("10.0.0.3"));
    let told = daemon.get("doctor").to_string();
    assert!(told.contains("xs0 is gone"), "{told}");
    daemon.ok("DELETE", "ports/a", Value::Null);
    let d = daemon.guest("d", json!({}));
    d.address("10.0.0.4/24");
    assert!(d.pings("10.0.0.2"));
    daemon.finish();
}

#[test]
fn guests_that_delete_their_netdevs_keep_no_packet_memory() {
    let daemon = Daemon::with("memory", &Options { frames: 4096, ..Options::default() });
    let [a, b] = ["a", "b"].map(|name| daemon.guest(name, json!({})));
    let gone = ["c", "d", "e", "f"].map(|name| daemon.guest(name, json!({ "queue_depth": 1024 })));
    for guest in &gone {
        guest.ns.sh(&format!("ip link del {}", guest.ifname));
    }
    // Each would keep a ringful of flooded frames. Together that would be all frames.
    let raw = a.raw();
    for n in 0..1500_u16 {
        raw.send(&Frame::ethernet(a.mac, Mac::BROADCAST).payload(0x88b5, &[n.to_le_bytes()[0]; 46]));
        if n % 16 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    wait::expect("nothing waits to be sent", Duration::from_secs(5), || daemon.get("audit")["tx"] == 0);
    for name in ["c", "d", "e", "f"] {
        wait::expect("its pair is made again", Duration::from_secs(15), || {
            daemon.get(&format!("ports/{name}"))["state"] == "up"
        });
    }
    a.address("10.0.0.1/24");
    b.address("10.0.0.2/24");
    assert!(a.pings("10.0.0.2"));
    daemon.finish();
}

#[test]
fn a_port_that_cannot_be_had_leaves_a_pair_that_was_there() {
    let daemon = Daemon::start("twopairs");
    // The netdev of another daemon: made by a switch, with an XDP program of its own.
    daemon.ns.sh("ip link add xs0 type veth peer name xg0");
    daemon.ns.sh("ip link set xs0 alias xswitch up");
    daemon.ns.sh("ip link set xg0 up");
    let others = Sink::attach(&daemon.ns, "xs0");
    let (status, error) = daemon.call("POST", "ports", &json!({ "name": "p0", "kind": "guest" }));
    assert_eq!((status, error["code"].as_str()), (409, Some("EBUSY")), "{error}");
    assert!(daemon.ns.find_ifindex("xs0").is_some(), "the other's pair is gone");
    drop(others);
    daemon.finish();
}
