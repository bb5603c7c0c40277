//! What the configuration declares is what the switch is, with a real daemon: SIGHUP, restart, `xswitch config`.

use std::io::Write;
use std::process::{Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tests::{Daemon, NetNs, shell, wait};

const DATAPLANE: &str = "[dataplane]\nworkers = 1\nframes = 16384\n";
const PATIENCE: Duration = Duration::from_secs(20);

fn guest(name: &str, ns: &NetNs, vid: u16) -> String {
    let ns = ns.name();
    format!(
        "[[port]]\nname = \"{name}\"\nkind = \"guest\"\nnetns = \"{ns}\"\nvlan = {{ mode = \"access\", vid = {vid} }}\n"
    )
}

fn write(daemon: &Daemon, name: &str, text: &str) {
    std::fs::write(daemon.path(name), format!("{DATAPLANE}{text}")).expect("writing a configuration");
}

/// Has the daemon's file read again, and waits until that is done.
fn reload(daemon: &Daemon, text: &str) {
    write(daemon, "xswitch.toml", text);
    let times = || daemon.log().matches("the configuration was read again").count();
    let before = times();
    kill(Pid::from_raw(daemon.pid()), Signal::SIGHUP).expect("it runs");
    wait::expect("the configuration was read again", PATIENCE, || times() > before);
}

fn vid(daemon: &Daemon, port: &str) -> Value {
    daemon.get(&format!("ports/{port}"))["spec"]["vlan"]["vid"].clone()
}

fn names(daemon: &Daemon) -> Vec<String> {
    let ports = daemon.get("ports");
    let mut names: Vec<_> =
        ports.as_array().expect("ports").iter().map(|port| port["name"].as_str().expect("a name").to_owned()).collect();
    names.sort();
    names
}

/// Runs `xswitch config` on a file of the daemon's directory. Returns the exit code and the output.
fn config(daemon: &Daemon, command: &str, name: &str, more: &str) -> (Option<i32>, String) {
    let output = daemon.cli(&format!("config {command} {} {more}", daemon.path(name).display()));
    (output.status.code(), shell::text(&output))
}

/// Runs `xswitch` with a line of words and an input.
fn piped(daemon: &Daemon, line: &str, input: &[u8]) -> Output {
    let mut command = daemon.cli_command();
    command.args(line.split_whitespace()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("xswitch starts");
    child.stdin.take().expect("an input").write_all(input).expect("it reads");
    child.wait_with_output().expect("it ends")
}

#[test]
fn an_edited_vlan_parts_guests_by_hangup_and_by_restart() {
    let mut daemon = Daemon::start("declared");
    let [one, two] = ["one", "two"].map(NetNs::new);
    let both = |vid| guest("a", &one, 10) + &guest("b", &two, vid);
    reload(&daemon, &both(10));
    one.sh("ip address add 10.0.0.1/24 dev xg0");
    two.sh("ip address add 10.0.0.2/24 dev xg1");
    let pings = || {
        let mut ping = one.command("ping");
        shell::output(ping.args(["-c", "2", "-i", "0.2", "-W", "1", "10.0.0.2"])).status.success()
    };
    assert!(pings());
    reload(&daemon, &both(20));
    assert_eq!((vid(&daemon, "b"), pings()), (json!(20), false));
    daemon.stop();
    write(&daemon, "xswitch.toml", &both(10));
    daemon.launch();
    assert_eq!((vid(&daemon, "b"), pings()), (json!(10), true), "addresses outlive it all");
    daemon.kill();
    write(&daemon, "xswitch.toml", &both(30));
    daemon.launch();
    assert_eq!((vid(&daemon, "b"), pings()), (json!(30), false));
    // What was set at run time holds until then, and the log tells.
    daemon.ok("PATCH", "ports/b", json!({ "vlan": { "mode": "access", "vid": 10 } }));
    assert!(pings());
    reload(&daemon, &both(30));
    assert!(!pings());
    assert!(daemon.log().contains("port b changed: vlan:") && daemon.log().contains("at run time"), "{}", daemon.log());
    // A mistake leaves everything as it was.
    write(&daemon, "xswitch.toml", &(both(10) + "[[rule]]\nkey_index = 1\naction = { vid = 99 }\n"));
    kill(Pid::from_raw(daemon.pid()), Signal::SIGHUP).expect("it runs");
    wait::expect("it is told", PATIENCE, || daemon.log().contains("rule 1: action.vid: there is no vport 99"));
    assert_eq!(vid(&daemon, "b"), 30);
    daemon.finish();
}

#[test]
fn ports_come_and_go_with_the_file() {
    let mut daemon = Daemon::start("comeandgo");
    let [one, two, three] = ["one", "two", "three"].map(NetNs::new);
    reload(&daemon, &(guest("a", &one, 1) + &guest("b", &two, 1)));
    daemon.ok("POST", "ports", json!({ "name": "made", "kind": "guest", "netns": three.name() }));
    reload(&daemon, &(guest("b", &two, 1) + &guest("c", &one, 1)));
    assert_eq!(names(&daemon), ["b", "c", "made"]);
    assert_eq!(daemon.get("ports/c")["spec"]["vport"], 0, "the number is free again");
    daemon.stop();
    write(&daemon, "xswitch.toml", &guest("d", &two, 1));
    daemon.launch();
    assert_eq!(names(&daemon), ["d", "made"]);
    assert!(one.links().iter().all(|link| link["ifname"] == "lo"), "the pair of a port that is gone is left");
    // In another namespace it is another guest.
    reload(&daemon, &guest("d", &one, 1));
    assert_eq!(daemon.get("ports/d")["spec"]["netns"], one.name());
    assert!(one.links().iter().any(|link| link["ifname"] != "lo"));
    daemon.finish();
}

#[test]
fn a_configuration_is_checked_compared_applied_and_exported() {
    let daemon = Daemon::start("config");
    let [one, two] = ["one", "two"].map(NetNs::new);
    let tables = "[bridge]\nfdb_limit = 5000\n[[fdb]]\nmac = \"02:00:00:00:00:01\"\nvlan = 7\nport = \"a\"\n\
        [[meter]]\nid = 7\nrate = 1000\n[[binding]]\nvport = 0\ndirection = \"from\"\nmeter = 7\n\
        [[rule]]\nkey_index = 3\nkey = { dip = \"10.9.0.0/16\", vid = 0 }\naction = { vid = 1, meter = 7 }\n\
        [[redirect]]\nsrc = 0\ndest = 1\n";
    write(&daemon, "a.toml", &(guest("a", &one, 7) + &guest("b", &two, 7) + tables));
    assert_eq!(config(&daemon, "check", "a.toml", "").0, Some(0));
    let (code, said) = config(&daemon, "diff", "a.toml", "");
    assert!(code == Some(2) && said.contains("+ port a\n"), "{said}");
    assert_eq!(names(&daemon), Vec::<String>::new());
    assert_eq!(config(&daemon, "apply", "a.toml", "").0, Some(0));
    for (command, more) in [("diff", ""), ("apply", ""), ("diff", "--prune"), ("apply", "--prune")] {
        let (code, said) = config(&daemon, command, "a.toml", more);
        assert!(code == Some(0) && said.contains("nothing differs"), "{command}: {said}");
    }
    daemon.ok("POST", "ports", json!({ "name": "made", "kind": "guest", "vlan": { "mode": "trunk", "native": null } }));
    let export = |daemon: &Daemon| {
        let output = daemon.cli("config export");
        assert!(output.status.success(), "{}", shell::text(&output));
        String::from_utf8(output.stdout).expect("text")
    };
    let exported = export(&daemon);
    std::fs::write(daemon.path("export.toml"), &exported).expect("writing it");
    assert_eq!(config(&daemon, "check", "export.toml", "").0, Some(0), "{exported}");
    let (code, said) = config(&daemon, "diff", "export.toml", "--prune --json");
    assert_eq!(code, Some(0), "{said}");

    // Rules as they are listed can be loaded again.
    let listed = daemon.cli("--json rule list").stdout;
    assert!(daemon.cli("rule clear").status.success());
    let loaded = piped(&daemon, "rule load -", &listed);
    assert!(loaded.status.success(), "{}", shell::text(&loaded));
    assert_eq!(export(&daemon), exported);

    // All of it in a file makes the same of an empty switch.
    write(&daemon, "empty.toml", "");
    let (code, said) = config(&daemon, "apply", "empty.toml", "--prune");
    assert!(code == Some(0) && said.contains("8 removed"), "{said}");
    assert_eq!(names(&daemon), Vec::<String>::new());
    let applied = piped(&daemon, "config apply -", exported.as_bytes());
    assert!(applied.status.success(), "{}", shell::text(&applied));
    assert_eq!(export(&daemon), exported);

    write(&daemon, "bad.toml", &guest("c", &one, 4095));
    for command in ["check", "diff", "apply"] {
        let (code, said) = config(&daemon, command, "bad.toml", "");
        assert!(code == Some(1) && said.contains("port `c`: vlan: 4095"), "{command}: {said}");
    }
    let (code, said) = config(&daemon, "apply", "nowhere.toml", "");
    assert!(code == Some(1) && said.contains("nowhere.toml"), "{said}");
    assert_eq!(export(&daemon), exported);
    daemon.finish();
}
