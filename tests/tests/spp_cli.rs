//! `xswitch spp` against a daemon's API on a made-up host.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use ctl_http::router;
use ctl_listen::{ApiSocket, serve};
use ctl_service::state::Store;
use ctl_spp::Spp;
use kit::{FakeHost, VF_AND_NFV, panel, receive, tables, wait};
use serde_json::Value;
use switch::model::{DEFAULT_RING_DEPTH, MacAddr};
use tokio::sync::watch;

/// A served API. It ends with this value.
struct Served {
    dir: tempfile::TempDir,
    host: FakeHost,
    spp: Arc<Spp>,
    _stop: watch::Sender<bool>,
    _runtime: tokio::runtime::Runtime,
}

impl Served {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (host, service, spp) = panel(VF_AND_NFV, Store::in_memory(tables()));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (stop, stopped) = watch::channel(false);
        runtime.block_on(async {
            let socket = ApiSocket::bind(&dir.path().join("api.sock"), 0o600).unwrap();
            tokio::spawn(serve(socket, router(service, Arc::clone(&spp)), stopped));
        });
        Self { dir, host, spp, _stop: stop, _runtime: runtime }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(tests::programs::product("xswitch"));
        command.arg("--run-dir").arg(self.dir.path()).args(words).stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> (i32, String, String) {
        told(self.command(words).output().unwrap())
    }

    /// Output of a call that must succeed.
    fn say(&self, words: &[&str]) -> String {
        let (code, out, err) = self.run(words);
        assert_eq!((code, err.as_str()), (0, ""), "{words:?}");
        out
    }

    fn file(&self, name: &str, text: &str) -> String {
        let file = self.dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    }
}

fn told(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_line_is_carried_out_however_it_is_quoted() {
    let served = Served::new();
    let started = "Succeeded to start component 'fwd1' on core:2\n";
    assert_eq!(served.say(&["spp", "vf 1; component start fwd1 2 forward"]), started);
    assert_eq!(served.say(&["spp", "vf", "1;", "port", "add", "phy:0", "rx", "fwd1"]), "Succeeded to add port\n");
    assert_eq!(served.say(&["spp", "vf", "1", "port", "add", "ring:0", "tx", "fwd1"]), "Succeeded to add port\n");
    let launched =
        served.say(&["spp", "pri", "launch", "pcap", "3", "-l", "0,5", "--", "--client-id", "3", "-c", "ring:0"]);
    assert_eq!(launched, "Launched pcap 3.\n");
    assert!(served.say(&["spp", "vf 1; status"]).contains("'fwd1' (type: forward)"));
    let value: Value = serde_json::from_str(&served.say(&["spp", "--json", "vf 1; status"])).unwrap();
    assert_eq!(value["running"]["components"][0]["rx"][0]["port"], "phy:0");
}

#[test]
fn a_refusal_is_told_on_stderr_and_by_the_exit_code() {
    let served = Served::new();
    for (line, why) in [
        ("vf 9; status", "sec_id 9 not found."),
        ("vf 1; component start x 0 forward", "master core"),
        ("nonsense", "is no command"),
    ] {
        let (code, out, err) = served.run(&["spp", line]);
        assert_eq!((code, out.as_str()), (1, ""), "{line}");
        assert!(err.starts_with("xswitch: ") && err.contains(why), "{line}: {err}");
    }
}

const RECIPE: &str = "\
# a forwarder
vf 1; component start fwd1 2 forward

vf 1; port add phy:0 rx fwd1
vf 1; port add phy:9 tx fwd1
vf 1; port add ring:0 tx fwd1
";

#[test]
fn a_recipe_ends_at_the_line_that_fails() {
    let served = Served::new();
    let file = served.file("bad.rcp", RECIPE);
    let (code, out, err) = served.run(&["spp", "--file", &file]);
    assert_eq!((code, out.lines().count()), (1, 2));
    assert!(err.starts_with(&format!("xswitch: {file}:5: phy:9 is not there")), "{err}");
    let components = served.spp.instances()[1].running.components.clone();
    assert!(components[0].tx.is_empty(), "the line after it was not played");
}

#[test]
fn a_recipe_may_come_from_another_system() {
    let served = Served::new();
    let file = served.file("dos.rcp", "\u{feff}nfv 2; add ring:0\r\n\r\n// c\r\nnfv 2; patch phy:0 ring:0\r\n");
    assert_eq!(served.say(&["spp", "--file", &file]), "Add ring:0.\nPatch ports (phy:0 -> ring:0).\n");
    let empty = served.file("empty.rcp", "");
    assert_eq!(served.say(&["spp", "--file", &empty]), "");
    let binary = served.dir.path().join("binary.rcp");
    std::fs::write(&binary, b"nfv 2; status\xff\n").unwrap();
    let (code, out, err) = served.run(&["spp", "--file", binary.to_str().unwrap()]);
    assert!(code == 1 && out.is_empty() && err.contains("UTF-8"), "{err}");
}

#[test]
fn a_recipe_may_go_on_after_a_line_that_fails() {
    let served = Served::new();
    let file = served.file("bad.rcp", RECIPE);
    let (code, out, err) = served.run(&["spp", "--file", &file, "--keep-going"]);
    assert_eq!((code, out.lines().count(), err.lines().count()), (1, 3, 2));
    assert!(err.contains(":5: ") && err.contains("1 of the 4 lines"), "{err}");
    assert_eq!(served.spp.instances()[1].running.components[0].tx.len(), 1);
}

#[test]
fn a_recipe_comes_from_standard_input_too() {
    let served = Served::new();
    let mut child = served.command(&["spp", "--json", "--file", "-"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"nfv 2; add phy:0\nnfv 2; hello\n").unwrap();
    let (code, out, err) = told(child.wait_with_output().unwrap());
    let answer: Value = serde_json::from_str(out.trim()).unwrap();
    assert_eq!((code, answer["line"].as_u64(), &answer["value"]["running"]["ports"][0]), (1, Some(1), &"phy:0".into()));
    assert!(err.contains("standard input:2: Unknown command(hello)"), "{err}");
    let (code, _, err) = served.run(&["spp", "--file", "/nonexistent/x.rcp"]);
    assert!(code == 1 && err.contains("/nonexistent/x.rcp"), "{err}");
}

#[test]
fn what_is_saved_can_be_played_elsewhere() {
    let served = Served::new();
    let lines = "vf 1; component start f 2 forward\nvf 1; port add phy:0 rx f del_vlantag\nnfv 2; add ring:1\nnfv 2; forward\nvf 1; flush on\n\
                 vf 1; port add ring:1 tx f\n\
                 pri; flow create phy:0 egress transfer pattern eth type is 0x8100 / vlan pcp is 3 / end actions of_pop_vlan / end\n";
    served.say(&["spp", "--file", &served.file("a.rcp", lines)]);
    let recipe = served.dir.path().join("saved.rcp");
    served.say(&["spp", "save", "-o", recipe.to_str().unwrap()]);
    let other = Served::new();
    other.say(&["spp", "--file", recipe.to_str().unwrap()]);
    assert_eq!(other.spp.instances(), served.spp.instances());
    assert_eq!(other.spp.flow_rules(0), served.spp.flow_rules(0));
    assert_eq!(other.say(&["spp", "save"]), std::fs::read_to_string(&recipe).unwrap());
}

#[test]
fn the_graph_is_written_in_the_form_that_is_asked_for() {
    let served = Served::new();
    served.say(&["spp", "vf 1; component start f 2 forward"]);
    for words in [vec!["spp", "topo"], vec!["spp", "topo", "term"], vec!["spp", "topo", "--format", "text"]] {
        assert!(served.say(&words).starts_with("INSTANCE"), "{words:?}");
    }
    assert!(served.say(&["spp", "topo", "--format", "dot"]).starts_with("digraph spp {"));
    for (name, begin) in [("a.svg", "<?xml"), ("a.dot", "digraph"), ("a.txt", "INSTANCE")] {
        let file = served.dir.path().join(name);
        assert_eq!(served.say(&["spp", "topo", "-o", file.to_str().unwrap()]), "");
        assert!(std::fs::read_to_string(&file).unwrap().starts_with(begin), "{name}");
    }
    let json = |words: &[&str]| serde_json::from_str::<Value>(&served.say(words)).unwrap();
    assert_eq!(json(&["spp", "--json", "topo"]), json(&["spp", "topo", "--json"]));
    assert_eq!(json(&["spp", "topo", "--json"])["instances"][1]["running"]["components"][0]["name"], "f");
    assert!(json(&["--json", "spp", "save"]).as_array().unwrap().contains(&"vf 1; component start f 2 forward".into()));
    let (code, _, err) = served.run(&["spp", "topo", "--json", "--format", "svg"]);
    assert!(code == 1 && err.contains("one of them"), "{err}");
    let (code, _, err) = served.run(&["spp", "topo", "a.png"]);
    assert!(code == 1 && err.contains("--format") && !Path::new("a.png").exists(), "{err}");
}

#[test]
fn ports_show_their_spp_names() {
    let served = Served::new();
    let list = served.say(&["port", "list"]);
    assert!(list.lines().next().unwrap().ends_with("SPP") && list.contains("phy:0"), "{list}");
    assert!(
        served.say(&["port", "show", "east"]).lines().any(|line| line.starts_with("SPP") && line.ends_with("phy:0"))
    );
}

#[test]
fn stats_has_components_rings_and_flow_rules_and_of_a_port_those_that_are_its_own() {
    let served = Served::new();
    for line in [
        "vf 1; component start in 1 forward",
        "vf 1; port add phy:0 rx in",
        "vf 1; port add ring:3 tx in",
        "vf 1; component start far 2 forward",
        "vf 1; port add ring:4 rx far",
        "pri; flow create phy:0 ingress pattern eth / end actions of_pop_vlan / end",
    ] {
        served.say(&["spp", line]);
    }
    // Nobody takes frames from the ring, so one is too many.
    receive(&served.host, "eth7", MacAddr::new([2, 0, 0, 0, 0, 1]), DEFAULT_RING_DEPTH as usize + 1);
    wait("the ring is full", || served.spp.working().0.iter().any(|component| component.dropped.packets == 1));
    let all = served.say(&["stats"]);
    let squeezed = |text: &str| {
        let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.lines().map(line).collect::<Vec<_>>()
    };
    for line in [
        "vf 1/in forward 0 port `east` ring 3 1025 61500 1024 61440 1",
        "vf 1/far forward (lacks ends) 0 ring 4 0 0 0 0 0",
        "ring 3 1024 0 1 1024",
        "ring 4 0 0 0 0",
        "east 0 1025 61500",
        "vf 1/in ring_full 1 60",
    ] {
        assert!(squeezed(&all).iter().any(|seen| seen == line), "{line} in\n{all}");
    }
    let of_port = served.say(&["stats", "east"]);
    assert!(of_port.contains("vf 1/in") && of_port.contains("ring 3") && of_port.contains("FLOW RULE"), "{of_port}");
    assert!(!of_port.contains("far") && !of_port.contains("ring 4"), "{of_port}");
    let shown = served.say(&["port", "show", "east"]);
    assert!(shown.contains("vf 1/in") && shown.contains("ring 3") && !shown.contains("far"), "{shown}");
    let report: Value = serde_json::from_str(&served.say(&["--json", "stats", "east"])).unwrap();
    assert_eq!(report["running"].as_array().unwrap().len(), 1);
    assert_eq!(report["running"][0]["drops"]["ring_full"]["packets"], 1);
    assert_eq!(report["flow_rules"][0]["rule"], 0);
}
