//! Agents with a fake spp-ctl that asks and reads as its code does.

mod broken;
mod fake;
mod in_json;

use std::collections::BTreeMap;
use std::io::Write;
use std::thread::sleep;

use ctl_service::state::Store;
use ctl_spp::Instance;
use kit::{ALL_TYPES as ALL, spp_of, tables, with_queues};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use self::fake::{FakeCtl, Link, Version, own_address};
use super::*;

/// A configuration with a vf and an nfv instance, and a NIC with another number than the first.
fn vf_and_nfv() -> String {
    kit::VF_AND_NFV.replace("phy:0", "phy:4")
}

const VF: Proc = Proc { kind: ProcType::Vf, id: 1 };
const MIRROR: Proc = Proc { kind: ProcType::Mirror, id: 9 };

/// Instances with their agents, and a fake spp-ctl.
struct Rig {
    spp: Arc<Spp>,
    ctl: FakeCtl,
    stop: watch::Sender<bool>,
    agents: JoinHandle<()>,
    runtime: Runtime,
}

impl Rig {
    fn start(config: &str, version: Version, status_format: StatusFormat) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let spp = spp_of(config, Store::in_memory(tables()));
        let ctl = FakeCtl::on(own_address(), [0, 0], version);
        let [primary_port, secondary_port] = ctl.ports();
        let controller = ControllerConfig { address: ctl.address, primary_port, secondary_port, status_format };
        let (stop, stopped) = watch::channel(false);
        let pace = Pace { first: Duration::from_millis(10), most: Duration::from_millis(50) };
        let agents = runtime.spawn(follow(Arc::clone(&spp), controller, pace, stopped));
        Self { spp, ctl, stop, agents, runtime }
    }

    fn new() -> Self {
        Self::start(ALL, Version::Types, StatusFormat::Json)
    }

    fn link(&self, kind: ProcType) -> Link {
        let mut links = self.ctl.accept_secondaries(4);
        let proc = *links.keys().find(|proc| proc.kind == kind).unwrap();
        links.remove(&proc).unwrap()
    }
}

fn refused(result: Result<Value, String>, text: &str) {
    let why = result.unwrap_err();
    assert!(why.contains(text), "{why}");
}

#[test]
fn each_process_registers_with_every_version() {
    // The latest version takes each at once. The one before does not know the form that an nfv tries first.
    for (version, refused) in [(Version::Number, 1), (Version::Types, 0)] {
        let rig = Rig::start(ALL, version, StatusFormat::Json);
        rig.ctl.accept_primary();
        let links = rig.ctl.accept_secondaries(4);
        assert_eq!(links.keys().copied().collect::<Vec<_>>(), rig.spp.processes()[1..]);
        assert_eq!(rig.ctl.refused.get(), refused);
    }
    // To the first two versions, what answers with JSON is a vf.
    for format in [StatusFormat::Text, StatusFormat::Pairs, StatusFormat::JsonNumber] {
        let rig = Rig::start(&vf_and_nfv(), Version::First, format);
        let links = rig.ctl.accept_secondaries(2);
        assert_eq!(links.keys().copied().collect::<Vec<_>>(), rig.spp.processes()[1..], "{format:?}");
        assert_eq!(rig.ctl.refused.get(), 0, "{format:?}");
    }
}

#[test]
fn an_nfv_answers_in_the_form_that_a_version_reads() {
    for (format, version) in [(StatusFormat::Pairs, Version::First), (StatusFormat::JsonNumber, Version::Number)] {
        let rig = Rig::start(&vf_and_nfv(), version, format);
        let mut links = rig.ctl.accept_secondaries(2);
        assert_eq!(rig.ctl.refused.get(), 0);
        let mut nfv = links.remove(&Proc { kind: ProcType::Nfv, id: 2 }).unwrap();
        for command in ["add ring:0", "patch phy:4 ring:0"] {
            nfv.send(command.as_bytes());
        }
        let status = |nfv: &mut Link| nfv.send(b"status");
        if format == StatusFormat::Pairs {
            assert_eq!(status(&mut nfv), "status: idling\nports: 'phy:4-ring:0,ring:0-null'");
            nfv.send(b"forward");
            assert_eq!(status(&mut nfv), "status: running\nports: 'phy:4-ring:0,ring:0-null'");
            nfv.send(b"patch reset");
            nfv.send(b"del ring:0");
            nfv.send(b"del phy:4");
            assert_eq!(status(&mut nfv), "status: running\nports: 'phy:4-null'");
        } else {
            let json: Value = serde_json::from_str(&status(&mut nfv)).unwrap();
            assert_eq!((&json["client-id"], &json["status"]), (&json!(2), &json!("idling")));
            assert_eq!(json["patches"], json!([{"src": "phy:4", "dst": "ring:0"}]));
        }
        let mut vf = links.remove(&VF).unwrap();
        vf.ask("component start c1 1 classifier_mac").unwrap();
        assert_eq!(vf.ask("status").unwrap()["info"]["core"][0]["type"], "classifier_mac", "{format:?}");
    }
}

#[test]
fn a_request_for_what_is_not_there_is_answered_as_spps_processes_do() {
    let rig = Rig::new();
    let mut links = rig.ctl.accept_secondaries(4);
    let mut link = |kind| {
        let proc = *links.keys().find(|proc| proc.kind == kind).unwrap();
        links.remove(&proc).unwrap()
    };
    let mut vf = link(ProcType::Vf);
    vf.ask("component start f1 2 forward").unwrap();
    for done in ["component stop nobody", "port del ring:0 rx f1"] {
        assert_eq!(vf.ask(done), Ok(json!({"results": [{"result": "success"}]})), "{done}");
    }
    refused(vf.ask("port del ring:0 rx nobody"), "no component");
    refused(vf.ask("classifier_table del mac default ring:0"), "no entry");
    // spp-ctl takes this for a success, as it does with SPP's nfv.
    let mut nfv = link(ProcType::Nfv);
    let failed = |command: &str, key: &str, value: Value| json!({"result": "failed", "command": command, key: value});
    assert_eq!(nfv.ask_nfv("del ring:9"), Ok(failed("del", "port", json!("ring:9"))));
    let patch = json!({"src": "phy:0", "dst": "ring:9"});
    assert_eq!(nfv.ask_nfv("patch phy:0 ring:9"), Ok(failed("patch", "ports", patch)));
    assert_eq!(nfv.ask_nfv("add phy:9"), Ok(failed("add", "port", json!("phy:9"))));
    // What could be done, and is not, is a refusal with its reason.
    refused(nfv.ask_nfv("add memif:0"), "memif is not supported");
    assert_eq!(nfv.ask_nfv("status").unwrap()["ports"], json!(["phy:0"]));
}

#[test]
fn queues_have_names_in_a_status() {
    let rig = Rig::start(&with_queues(ALL, 2), Version::Types, StatusFormat::Json);
    let mut links = rig.ctl.accept_secondaries(4);
    let mut link = |kind| {
        let proc = *links.keys().find(|proc| proc.kind == kind).unwrap();
        links.remove(&proc).unwrap()
    };
    let mut vf = link(ProcType::Vf);
    assert_eq!(vf.ask("status").unwrap()["info"]["phy"], json!(["0 nq 0", "0 nq 1"]), "unused ones too");
    vf.ask("component start f1 2 forward").unwrap();
    vf.ask("port add phy:0nq1 rx f1").unwrap();
    let info = vf.ask("status").unwrap()["info"].take();
    assert_eq!(
        (&info["phy"], &info["core"][1]["rx_port"][0]["port"]),
        (&json!(["0 nq 0", "0 nq 1"]), &json!("phy:0 nq 1"))
    );
    let mut nfv = link(ProcType::Nfv);
    nfv.ask_nfv("add ring:0").unwrap();
    nfv.ask_nfv("patch phy:0nq0 ring:0").unwrap();
    let status = nfv.ask_nfv("status").unwrap();
    assert_eq!(status["ports"], json!(["phy:0 nq 0", "phy:0 nq 1", "ring:0"]));
    assert_eq!(status["patches"], json!([{"src": "phy:0 nq 0", "dst": "ring:0"}]));
}

#[test]
fn a_vf_does_what_spp_ctl_sends() {
    let rig = Rig::new();
    let mut vf = rig.link(ProcType::Vf);
    for command in [
        "component start c1 1 classifier",
        "component start f1 2 forward",
        "port add phy:0 rx c1",
        "port add ring:0 tx c1",
        "port add ring:1 tx c1 add_vlantag 100 3",
        "port add ring:0 rx f1",
        "port add ring:5 tx f1 del_vlantag",
        "classifier_table add mac FA:16:3E:7D:CC:35 ring:0",
        "classifier_table add vlan 101 default ring:1",
    ] {
        assert_eq!(vf.ask(command), Ok(json!({"results": [{"result": "success"}]})), "{command}");
    }
    let port = |port: &str, operation: &str, id: u16, pcp: u8| json!({"port": port, "vlan": {"operation": operation, "id": id, "pcp": pcp}});
    let status = json!({"results": [{"result": "success"}], "info": {
        "client-id": 1, "phy": [0], "vhost": [], "ring": [0, 1, 5], "master-lcore": 0,
        "core": [
            {"core": 1, "name": "c1", "type": "classifier", "rx_port": [port("phy:0", "none", 0, 0)],
             "tx_port": [port("ring:0", "none", 0, 0), port("ring:1", "add", 100, 3)]},
            {"core": 2, "name": "f1", "type": "forward", "rx_port": [port("ring:0", "none", 0, 0)],
             "tx_port": [port("ring:5", "del", 0, 0)]},
        ],
        "classifier_table": [
            {"type": "mac", "value": "FA:16:3E:7D:CC:35", "port": "ring:0"},
            {"type": "vlan", "value": "101/default", "port": "ring:1"},
        ],
    }});
    assert_eq!(vf.ask("status"), Ok(status.clone()));

    refused(vf.ask("component start c1 1 merge"), "c1");
    refused(vf.ask("component start g1 7 merge"), "core 7");
    refused(vf.ask("component start g1 1 mirror"), "mirror");
    refused(vf.ask("port add ring:9 rx f1"), "1 rx port");
    refused(vf.ask("classifier_table del mac FA:16:3E:7D:CC:35 ring:1"), "no entry");
    refused(vf.ask("patch phy:0 ring:0"), "Unknown command(patch)");
    assert_eq!(vf.ask("status"), Ok(status), "nothing has changed");

    for command in [
        "classifier_table del mac FA:16:3E:7D:CC:35 ring:0",
        "classifier_table del vlan 101 default ring:1",
        "port del ring:1 tx c1",
        "component stop c1",
    ] {
        vf.ask(command).unwrap();
    }
    let info = vf.ask("status").unwrap()["info"].take();
    assert_eq!((&info["core"][0], &info["classifier_table"]), (&json!({"core": 1, "type": "unuse"}), &json!([])));
}

#[test]
fn a_mirror_and_a_capture_do_what_spp_ctl_sends() {
    let rig = Rig::new();
    let mut links = rig.ctl.accept_secondaries(4);
    let mut link = |kind| {
        let proc = *links.keys().find(|proc| proc.kind == kind).unwrap();
        links.remove(&proc).unwrap()
    };
    let mut mirror = link(ProcType::Mirror);
    for command in ["component start m1 4 mirror", "port add ring:0 rx m1", "port add ring:1 tx m1"] {
        mirror.ask(command).unwrap();
    }
    let info = mirror.ask("status").unwrap()["info"].take();
    assert_eq!((&info["core"][0]["type"], info.get("classifier_table")), (&json!("mirror"), None));

    let mut pcap = link(ProcType::Pcap);
    let status = |state: &str, info: Value| {
        assert_eq!((&info["client-id"], &info["status"]), (&json!(4), &json!(state)));
        assert_eq!(info["core"][0], json!({"core": 5, "role": "receive", "rx_port": [{"port": "phy:0"}]}));
        assert_eq!((&info["core"][1]["core"], &info["core"][1]["role"]), (&json!(6), &json!("write")));
        assert!(info["core"][1]["filename"].is_string());
    };
    status("idle", pcap.ask("status").unwrap()["info"].take());
    pcap.ask("start").unwrap();
    status("running", pcap.ask("status").unwrap()["info"].take());
    pcap.ask("stop").unwrap();
    status("idle", pcap.ask("status").unwrap()["info"].take());
}

#[test]
fn an_nfv_does_what_spp_ctl_sends() {
    let rig = Rig::new();
    let mut nfv = rig.link(ProcType::Nfv);
    let added = json!({"result": "succeeded", "command": "add", "port": "ring:0"});
    assert_eq!(nfv.ask_nfv("add ring:0"), Ok(added));
    nfv.ask_nfv("add phy:0").unwrap();
    let ports = json!({"src": "phy:0", "dst": "ring:0"});
    let patched = json!({"result": "succeeded", "command": "patch", "ports": ports});
    assert_eq!(nfv.ask_nfv("patch phy:0 ring:0"), Ok(patched));
    nfv.ask_nfv("forward").unwrap();
    let status = json!({"client-id": 2, "status": "running", "master-lcore": 0, "lcores": [0, 3],
        "ports": ["phy:0", "ring:0"], "patches": [ports]});
    assert_eq!(nfv.ask_nfv("status"), Ok(status));
    refused(nfv.ask_nfv("add phy"), "Invalid value (port)");
    nfv.ask_nfv("stop").unwrap();
    nfv.ask_nfv("patch reset").unwrap();
    nfv.ask_nfv("del ring:0").unwrap();
    let status = nfv.ask_nfv("status").unwrap();
    assert_eq!((&status["status"], &status["ports"]), (&json!("idling"), &json!(["phy:0"])));
}

/// Client id and state, ports, and patches, as the first spp-ctl reads them.
fn read_text(data: &str) -> (String, Vec<String>, Vec<(String, String)>) {
    let lines: Vec<_> = data.lines().collect();
    assert!(lines.len() >= 3, "{data}");
    let (mut ports, mut outs) = (BTreeMap::new(), Vec::new());
    for line in lines[2..].iter().take_while(|line| line.starts_with("port_id")) {
        let parts: Vec<_> = line.split(',').collect();
        let [id, _, name, out] = parts[..] else { panic!("{line}") };
        let (_, id) = id.split_once(':').unwrap();
        let port = match name.split_once('(') {
            None => format!("phy:{id}"),
            Some(("RING", no)) => format!("ring:{}", no.trim_end_matches(')')),
            Some(("VHOST", no)) => format!("vhost:{}", no.trim_end_matches(')')),
            Some((kind, no)) => format!("{kind}:{}", no.trim_end_matches(')')),
        };
        assert!(ports.insert(id.to_owned(), port).is_none(), "{data}");
        let (_, out) = out.split_once(':').unwrap();
        outs.extend((out != "none").then(|| (id.to_owned(), out.to_owned())));
    }
    let patches = outs.iter().map(|(src, dst)| (ports[src].clone(), ports[dst].clone())).collect();
    (lines[0].to_owned(), ports.into_values().collect(), patches)
}

#[test]
fn the_first_spp_ctl_reads_an_nfv_by_lines() {
    let rig = Rig::start(&vf_and_nfv(), Version::First, StatusFormat::Text);
    let mut links = rig.ctl.accept_secondaries(2);
    let mut nfv = links.remove(&Proc { kind: ProcType::Nfv, id: 2 }).unwrap();
    let (state, ports, patches) = read_text(&nfv.send(b"status"));
    assert_eq!((state.as_str(), ports.len(), patches.len()), ("Client ID 2 Idling", 1, 0));
    for command in ["add ring 0", "add phy 4", "add nullpmd 1", "add phy:4nq0", "patch phy:4 ring:0", "forward"] {
        nfv.send(command.as_bytes());
    }
    let (state, ports, patches) = read_text(&nfv.send(b"status"));
    assert_eq!(state, "Client ID 2 Running");
    let mut ports = ports;
    ports.sort();
    assert_eq!(ports, ["nullpmd:1", "phy:4", "phy:4nq0", "ring:0"]);
    assert_eq!(patches, [("phy:4".to_owned(), "ring:0".to_owned())]);

    let mut vf = links.remove(&VF).unwrap();
    vf.ask("component start c1 1 classifier_mac").unwrap();
    assert_eq!(vf.ask("status").unwrap()["info"]["core"][0]["type"], "classifier_mac");
}

#[test]
fn the_primary_counts_clears_and_launches() {
    let rig = Rig::new();
    let mut primary = rig.ctl.accept_primary();
    rig.ctl.accept_secondaries(4);
    for command in ["add ring:0", "add pipe:0 ring:1 ring:2", "clear"] {
        assert_eq!(primary.ask_nfv(command).unwrap()["result"], "succeeded", "{command}");
    }
    let status = primary.ask_nfv("status").unwrap();
    assert_eq!((&status["master-lcore"], &status["lcores"]), (&json!(0), &json!([0])));
    assert_eq!(status["pipes"], json!([{"id": 0, "rx": 1, "tx": 2}]));
    let ring = json!({"id": 0, "rx": 0, "rx_drop": 0, "tx": 0, "tx_drop": 0});
    assert_eq!((&status["ring_ports"][0], status["ring_ports"].as_array().unwrap().len()), (&ring, 3));
    let nic = &status["phy_ports"][0];
    assert_eq!((&nic["id"], &nic["rx"], &nic["tx"], &nic["tx_drop"]), (&json!(0), &json!(0), &json!(0), &json!(0)));
    assert!(nic["eth"].as_str().unwrap().len() == 17, "{nic}");

    let launch = "launch 9 spp_mirror -l 0,8 -m 512 --proc-type secondary -- --client-id 9 -s 127.0.0.1:6666";
    assert_eq!(primary.ask_nfv(launch).unwrap()["command"], "launch");
    assert_eq!(rig.ctl.accept_secondary().0, MIRROR);
    refused(primary.ask_nfv(launch), "client id 9");
    assert_eq!(rig.spp.instance(MIRROR).unwrap().cores, [0, 8]);
}

#[test]
fn the_primary_has_flow_rules_as_spp_ctl_sends_them() {
    let rig = Rig::new();
    let mut primary = rig.ctl.accept_primary();
    let rule = "ingress pattern eth dst is 02:00:00:00:00:01 / vlan vid is 100 / end actions queue index 0 / of_pop_vlan / end";
    let mut ask = |command: &str| primary.ask_nfv(command).unwrap();
    let validated = json!({"result": "success", "message": "Flow rule validated"});
    assert_eq!(ask(&format!("flow validate phy:0 group 0 priority 1 transfer {rule}")), validated);
    for id in 0..2 {
        let created =
            json!({"result": "success", "message": format!("Flow rule #{id} created"), "rule_id": id.to_string()});
        assert_eq!(ask(&format!("flow create phy:0 {rule}")), created);
    }
    let status = ask("status");
    assert_eq!(status["phy_ports"][0]["flow"][1]["rule_id"], 1);
    assert_eq!(status["phy_ports"][0]["flow"][1]["patterns"][0]["type"], "eth");
    let destroyed = |what: &str| json!({"result": "success", "message": format!("Flow rule {what} destroyed")});
    assert_eq!(ask("flow destroy phy:0 0"), destroyed("#0"));
    for (command, text) in [
        ("flow destroy phy:0 0", "Flow rule #0 not found"),
        (
            "flow create phy:7 ingress pattern eth / end actions queue index 0 / end",
            "Flow create error: Invalid port 7",
        ),
        ("flow validate phy:0 ingress pattern ipv4 / end actions queue index 0 / end", "Flow validate error: "),
        ("flow create ring:0 ingress", "Flow create error: ring:0"),
        ("flow", "Wrong message format: `flow validate|create PORT"),
    ] {
        let answer = ask(command);
        assert_eq!((&answer["result"], answer.get("results")), (&json!("error"), None), "{command}");
        assert!(answer["message"].as_str().unwrap().starts_with(text), "{command}: {answer}");
    }
    assert_eq!(rig.spp.flow_rules(0).len(), 1, "what is refused changes nothing");
    assert_eq!(ask("flow destroy phy:0 ALL"), destroyed("all"));
    assert!(rig.spp.flow_rules(0).is_empty());
}

#[test]
fn held_changes_are_shown_and_flushed() {
    let rig = Rig::new();
    let mut vf = rig.link(ProcType::Vf);
    for command in ["flush on", "component 1 forward rx phy:0 tx ring:0", "component 2 merge rx ring:1 tx ring:2"] {
        vf.ask(command).unwrap();
    }
    let info = vf.ask("status").unwrap()["info"].take();
    assert_eq!(info["core"], json!([{"core": 1, "type": "unuse"}, {"core": 2, "type": "unuse"}]));
    assert_eq!(info["flush"]["staged"]["components"][1]["name"], "core2");
    refused(vf.ask("component 1 merge rx ring:5 tx ring:6"), "idle");
    vf.ask("flush").unwrap();
    let info = vf.ask("status").unwrap()["info"].take();
    assert_eq!((&info["core"][0]["type"], &info["flush"]["staged"]), (&json!("forward"), &Value::Null));
    for command in ["component 1 idle", "flush discard", "stop", "forward"] {
        vf.ask(command).unwrap();
    }
    assert_eq!(vf.ask("status").unwrap()["info"]["core"][0]["type"], "forward");
}

#[test]
fn what_is_no_command_is_answered_and_the_connection_stays() {
    let rig = Rig::new();
    let mut vf = rig.link(ProcType::Vf);
    refused(vf.ask(" "), "Wrong message format");
    refused(vf.ask(&"x".repeat(3000)), "2048 bytes");
    let answer = vf.send(b"status \xff\xfe");
    assert!(answer.contains("not UTF-8"), "{answer}");
    refused(vf.ask(&"\nstatus".repeat(100).replacen('\n', "status", 1)), "32 commands");
    vf.ask("status\0\0\0\0").unwrap();
    let answers = vf.send(b"component start c1 1 merge\r\ncomponent halt c2\nstatus\n");
    let results: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let results: Vec<_> = results.iter().map(|reply| reply["results"][0]["result"].as_str().unwrap()).collect();
    assert_eq!(results, ["success", "error", "success"]);
}

#[test]
fn a_long_status_arrives_whole() {
    let rig = Rig::new();
    let mut vf = rig.link(ProcType::Vf);
    vf.ask("component start c1 1 classifier").unwrap();
    vf.ask("port add ring:0 tx c1").unwrap();
    for n in 0..600 {
        vf.ask(&format!("classifier_table add mac 02:00:00:00:{:02x}:{:02x} ring:0", n / 256, n % 256)).unwrap();
    }
    let status = vf.ask("status").unwrap();
    assert_eq!(status["info"]["classifier_table"].as_array().unwrap().len(), 600);
}

#[test]
fn a_controller_that_comes_back_is_found_again() {
    let mut rig = Rig::new();
    for version in [Version::Types, Version::Number, Version::Types] {
        let links = (rig.ctl.accept_primary(), rig.ctl.accept_secondaries(4));
        let ports = rig.ctl.ports();
        // spp-ctl goes, with its listeners and connections.
        let address = rig.ctl.address;
        let nowhere = FakeCtl::on(own_address(), [0, 0], version);
        drop((std::mem::replace(&mut rig.ctl, nowhere), links));
        sleep(Duration::from_millis(100));
        rig.ctl = FakeCtl::on(address, ports, version);
    }
    let mut links = rig.ctl.accept_secondaries(4);
    assert_eq!(links.keys().copied().collect::<Vec<_>>(), rig.spp.processes()[1..]);
    links.get_mut(&VF).unwrap().ask("status").unwrap();
}

#[test]
fn connections_come_and_go_with_instances() {
    let rig = Rig::new();
    let mut links = rig.ctl.accept_secondaries(4);
    rig.spp.launch(Instance::new(MIRROR, vec![], None)).unwrap();
    let (proc, mut link) = rig.ctl.accept_secondary();
    assert_eq!(proc, MIRROR);
    link.ask("status").unwrap();
    rig.spp.end(MIRROR).unwrap();
    assert!(link.closes());

    let vf = links.get_mut(&VF).unwrap();
    assert_eq!(vf.ask("exit"), Ok(json!({"results": [{"result": "success"}]})));
    assert!(vf.closes());
    assert!(rig.spp.instance(VF).is_err());
    rig.spp.launch(Instance::new(VF, vec![], None)).unwrap();
    assert_eq!(rig.ctl.accept_secondary().0, VF);
}

#[test]
fn all_connections_end_with_the_daemon() {
    let rig = Rig::new();
    let mut primary = rig.ctl.accept_primary();
    let links = rig.ctl.accept_secondaries(4);
    rig.stop.send(true).unwrap();
    rig.runtime.block_on(rig.agents).unwrap();
    assert!(primary.closes() && links.into_values().all(|mut link| link.closes()));
    assert_eq!(Arc::strong_count(&rig.spp), 1);
}
