//! The examples of SPP's API reference, of 2018 and of 2020, as written: each with what must be there before it, and what it must
//! answer. The line ends of the shell are left out.

use serde_json::{Value, json};

use crate::rig::{Rig, process};

struct Example {
    /// Where it is from, and what it shows.
    name: &'static str,
    instances: String,
    before: &'static [&'static str],
    request: (&'static str, &'static str, &'static str),
    /// `None`: 204 and nothing.
    answer: Option<Value>,
}

fn example(
    name: &'static str,
    instances: String,
    before: &'static [&'static str],
    request: (&'static str, &'static str, &'static str),
    answer: Option<Value>,
) -> Example {
    Example { name, instances, before, request, answer }
}

fn vlan(operation: &str, id: u16, pcp: u8) -> Value {
    json!({ "operation": operation, "id": id, "pcp": pcp })
}

fn ports(names: &[&str]) -> Value {
    names.iter().map(|name| json!({ "port": name, "vlan": vlan("none", 0, 0) })).collect()
}

fn component(core: u32, name: &str, kind: &str, rx: &[&str], tx: &[&str]) -> Value {
    json!({ "core": core, "name": name, "type": kind, "rx_port": ports(rx), "tx_port": ports(tx) })
}

const START: &str = r#"POST /v1/vfs/1/components {"name": "fwd1", "core": 12, "type": "forward"}"#;
const START_2018: &str = r#"POST /v1/vfs/1/components {"name": "forwarder1", "core": 12, "type": "forward"}"#;

/// What the status of a vf is shown for.
const VF_STATUS: &[&str] = &[
    r#"POST /v1/vfs/1/components {"name": "fwd0_tx", "core": 2, "type": "forward"}"#,
    r#"PUT /v1/vfs/1/components/fwd0_tx/ports {"action": "attach", "port": "ring:0", "dir": "rx"}"#,
    r#"PUT /v1/vfs/1/components/fwd0_tx/ports {"action": "attach", "port": "vhost:0", "dir": "tx"}"#,
    r#"POST /v1/vfs/1/components {"name": "fwd1_rx", "core": 5, "type": "forward"}"#,
    r#"PUT /v1/vfs/1/components/fwd1_rx/ports {"action": "attach", "port": "vhost:1", "dir": "rx"}"#,
    r#"PUT /v1/vfs/1/components/fwd1_rx/ports {"action": "attach", "port": "ring:3", "dir": "tx"}"#,
    r#"POST /v1/vfs/1/components {"name": "cls", "core": 6, "type": "classifier_mac"}"#,
    r#"PUT /v1/vfs/1/components/cls/ports {"action": "attach", "port": "phy:0", "dir": "rx"}"#,
    r#"PUT /v1/vfs/1/components/cls/ports {"action": "attach", "port": "ring:0", "dir": "tx"}"#,
    r#"PUT /v1/vfs/1/components/cls/ports {"action": "attach", "port": "ring:2", "dir": "tx"}"#,
    r#"POST /v1/vfs/1/components {"name": "mgr1", "core": 7, "type": "merge"}"#,
    r#"PUT /v1/vfs/1/components/mgr1/ports {"action": "attach", "port": "ring:1", "dir": "rx"}"#,
    r#"PUT /v1/vfs/1/components/mgr1/ports {"action": "attach", "port": "ring:3", "dir": "rx"}"#,
    r#"PUT /v1/vfs/1/components/mgr1/ports {"action": "attach", "port": "phy:0", "dir": "tx"}"#,
    r#"PUT /v1/vfs/1/classifier_table {"action": "add", "type": "mac", "mac_address": "FA:16:3E:7D:CC:35", "port": "ring:0"}"#,
];

/// The documents have `classifier_mac` for a type that SPP itself has long written as `classifier`, and ports that no component has.
fn vf_status() -> Value {
    json!({
        "client-id": 1,
        "ports": ["phy:0", "vhost:0", "vhost:1", "ring:0", "ring:1", "ring:2", "ring:3"],
        "master-lcore": 1,
        "components": [
            component(2, "fwd0_tx", "forward", &["ring:0"], &["vhost:0"]),
            { "core": 3, "type": "unuse" },
            { "core": 4, "type": "unuse" },
            component(5, "fwd1_rx", "forward", &["vhost:1"], &["ring:3"]),
            component(6, "cls", "classifier", &["phy:0"], &["ring:0", "ring:2"]),
            component(7, "mgr1", "merge", &["ring:1", "ring:3"], &["phy:0"]),
        ],
        "classifier_table": [{ "type": "mac", "value": "FA:16:3E:7D:CC:35", "port": "ring:0" }],
    })
}

fn vf() -> Vec<Example> {
    let one = || process("vf", 1, &[1, 12]);
    const CLASSIFIER: &str = r#"POST /v1/vfs/1/components {"name": "c", "core": 12, "type": "classifier"}"#;
    const RING: &str = r#"PUT /v1/vfs/1/components/c/ports {"action": "attach", "port": "ring:0", "dir": "tx"}"#;
    const TAGGED: &str = r#"PUT /v1/vfs/1/classifier_table {"action": "add", "type": "vlan", "vlan": 475, "mac_address": "FA:16:3E:7D:CC:35", "port": "ring:0"}"#;
    const VHOST: &str = r#"PUT /v1/vfs/1/components/fwd1/ports {"action": "attach", "port": "vhost:0", "dir": "tx"}"#;
    let attach =
        r#"{"action": "attach", "port": "vhost:1", "dir": "rx", "vlan": {"operation": "add", "id": 677, "pcp": 0}}"#;
    let detach = r#"{"action": "detach", "port": "vhost:0", "dir": "tx"}"#;
    let port = "/v1/vfs/1/components/fwd1/ports";
    let add = r#"{"action": "add", "type": "mac", "mac_address": "FA:16:3E:7D:CC:35", "port": "ring:0"}"#;
    let del = r#"{"action": "del", "type": "vlan", "vlan": 475, "mac_address": "FA:16:3E:7D:CC:35", "port": "ring:0"}"#;
    let table = "/v1/vfs/1/classifier_table";
    vec![
        example(
            "vf status",
            process("vf", 1, &[1, 2, 3, 4, 5, 6, 7]),
            VF_STATUS,
            ("GET", "/v1/vfs/1", ""),
            Some(vf_status()),
        ),
        example(
            "vf start",
            one(),
            &[],
            ("POST", "/v1/vfs/1/components", r#"{"name": "fwd1", "core": 12, "type": "forward"}"#),
            None,
        ),
        example(
            "vf start (2018)",
            one(),
            &[],
            ("POST", "/v1/vfs/1/components", r#"{"name": "forwarder1", "core": 12, "type": "forward"}"#),
            None,
        ),
        example(
            "vf start (README of 2018)",
            process("vf", 1, &[1, 2]),
            &[],
            ("POST", "/v1/vfs/1/components", r#"{"core": 2, "name": "forward_0_tx", "type": "forward"}"#),
            None,
        ),
        example("vf stop", one(), &[START], ("DELETE", "/v1/vfs/1/components/fwd1", ""), None),
        example("vf attach", one(), &[START], ("PUT", port, attach), None),
        example(
            "vf attach (2018's path)",
            one(),
            &[START_2018],
            ("PUT", "/v1/vfs/1/components/forwarder1", attach),
            None,
        ),
        example("vf detach", one(), &[START, VHOST], ("PUT", port, detach), None),
        example("vf table add", one(), &[CLASSIFIER, RING], ("PUT", table, add), None),
        example("vf table del", one(), &[CLASSIFIER, RING, TAGGED], ("PUT", table, del), None),
        example("vf exit", one(), &[START], ("DELETE", "/v1/vfs/1", ""), None),
    ]
}

fn nfv() -> Vec<Example> {
    let one = || process("nfv", 1, &[1, 2]);
    const RINGS: &[&str] = &[
        r#"PUT /v1/nfvs/1/ports {"action": "add", "port": "ring:0"}"#,
        r#"PUT /v1/nfvs/1/ports {"action": "add", "port": "ring:1"}"#,
    ];
    const STATUS: &[&str] = &[
        r#"PUT /v1/nfvs/1/ports {"action": "add", "port": "phy:0"}"#,
        r#"PUT /v1/nfvs/1/ports {"action": "add", "port": "phy:1"}"#,
        r#"PUT /v1/nfvs/1/ports {"action": "add", "port": "vhost:0"}"#,
        r#"PUT /v1/nfvs/1/ports {"action": "add", "port": "vhost:1"}"#,
        r#"PUT /v1/nfvs/1/ports {"action": "add", "port": "ring:0"}"#,
        r#"PUT /v1/nfvs/1/ports {"action": "add", "port": "ring:1"}"#,
        r#"PUT /v1/nfvs/1/patches {"src": "vhost:0", "dst": "ring:0"}"#,
        r#"PUT /v1/nfvs/1/patches {"src": "ring:1", "dst": "vhost:1"}"#,
        r#"PUT /v1/nfvs/1/forward {"action": "start"}"#,
    ];
    let status = json!({
        "client-id": 1,
        "status": "running",
        "master-lcore": 1,
        "lcores": [1, 2],
        "ports": ["phy:0", "phy:1", "vhost:0", "vhost:1", "ring:0", "ring:1"],
        "patches": [{ "src": "vhost:0", "dst": "ring:0" }, { "src": "ring:1", "dst": "vhost:1" }],
    });
    vec![
        example("nfv status", one(), STATUS, ("GET", "/v1/nfvs/1", ""), Some(status)),
        example("nfv forward", one(), &[], ("PUT", "/v1/nfvs/1/forward", r#"{"action": "start"}"#), None),
        example("nfv port", one(), &[], ("PUT", "/v1/nfvs/1/ports", r#"{"action": "add", "port": "ring:0"}"#), None),
        example(
            "nfv port (2018)",
            one(),
            &[],
            ("PUT", "/v1/nfvs/1/ports", r#"{"action": "add", "port": "vhost:0"}"#),
            None,
        ),
        example(
            "nfv patch",
            one(),
            RINGS,
            ("PUT", "/v1/nfvs/1/patches", r#"{"src": "ring:0", "dst": "ring:1"}"#),
            None,
        ),
        example(
            "nfv patch (2018)",
            one(),
            STATUS.split_at(6).0,
            ("PUT", "/v1/nfvs/1/patches", r#"{"src": "vhost:0", "dst": "ring:0"}"#),
            None,
        ),
        example("nfv patch reset", one(), STATUS, ("DELETE", "/v1/nfvs/1/patches", ""), None),
        example("nfv exit", one(), &[], ("DELETE", "/v1/nfvs/1", ""), None),
    ]
}

fn mirror() -> Vec<Example> {
    let one = || process("mirror", 1, &[1, 12]);
    const START: &str = r#"POST /v1/mirrors/1/components {"name": "mr1", "core": 12, "type": "mirror"}"#;
    const OUT: &str = r#"PUT /v1/mirrors/1/components/mr1/ports {"action": "attach", "port": "ring:0", "dir": "tx"}"#;
    const STATUS: &[&str] = &[
        r#"POST /v1/mirrors/1/components {"name": "mr0", "core": 2, "type": "mirror"}"#,
        r#"PUT /v1/mirrors/1/components/mr0/ports {"action": "attach", "port": "ring:0", "dir": "rx"}"#,
        r#"PUT /v1/mirrors/1/components/mr0/ports {"action": "attach", "port": "ring:1", "dir": "tx"}"#,
        r#"PUT /v1/mirrors/1/components/mr0/ports {"action": "attach", "port": "ring:2", "dir": "tx"}"#,
    ];
    let status = json!({
        "client-id": 1,
        "ports": ["ring:0", "ring:1", "ring:2"],
        "master-lcore": 1,
        "components": [
            {
                "core": 2, "name": "mr0", "type": "mirror",
                "rx_port": [{ "port": "ring:0" }], "tx_port": [{ "port": "ring:1" }, { "port": "ring:2" }],
            },
            { "core": 3, "type": "unuse" },
        ],
    });
    let ports = "/v1/mirrors/1/components/mr1/ports";
    vec![
        example("mirror status", process("mirror", 1, &[1, 2, 3]), STATUS, ("GET", "/v1/mirrors/1", ""), Some(status)),
        example(
            "mirror start",
            one(),
            &[],
            ("POST", "/v1/mirrors/1/components", r#"{"name": "mr1", "core": 12, "type": "mirror"}"#),
            None,
        ),
        example("mirror stop", one(), &[START], ("DELETE", "/v1/mirrors/1/components/mr1", ""), None),
        example(
            "mirror attach",
            one(),
            &[START],
            ("PUT", ports, r#"{"action": "attach", "port": "ring:1", "dir": "rx"}"#),
            None,
        ),
        example(
            "mirror detach",
            one(),
            &[START, OUT],
            ("PUT", ports, r#"{"action": "detach", "port": "ring:0", "dir": "tx"}"#),
            None,
        ),
    ]
}

fn pcap() -> Vec<Example> {
    let one = || format!("{}port = \"phy:0\"\n", process("pcap", 1, &[1, 2, 3]));
    let idle = json!({
        "client-id": 1,
        "status": "idle",
        "master-lcore": 1,
        "core": [
            { "core": 2, "role": "receive", "rx_port": [{ "port": "phy:0" }] },
            { "core": 3, "role": "write", "filename": "" },
        ],
    });
    vec![
        example("pcap status", one(), &[], ("GET", "/v1/pcaps/1", ""), Some(idle)),
        example("pcap start", one(), &[], ("PUT", "/v1/pcaps/1/capture", r#"{"action": "start"}"#), None),
        example("pcap exit", one(), &[], ("DELETE", "/v1/pcaps/1", ""), None),
    ]
}

fn primary() -> Vec<Example> {
    let one = || process("primary", 0, &[0]);
    const RINGS: &[&str] = &[
        r#"PUT /v1/primary/ports {"action": "add", "port": "ring:0"}"#,
        r#"PUT /v1/primary/ports {"action": "add", "port": "ring:1"}"#,
    ];
    // A pipe's rings, and one that a component has.
    const STATUS: &[&str] = &[
        r#"PUT /v1/primary/ports {"action": "add", "port": "pipe:0", "rx": "ring:0", "tx": "ring:1"}"#,
        r#"PUT /v1/nfvs/1/ports {"action": "add", "port": "ring:2"}"#,
        "DELETE /v1/primary/status",
    ];
    let phy = |id: u32| {
        let eth = format!("56:48:4f:53:54:0{id}");
        json!({ "id": id, "rx": 0, "tx": 0, "tx_drop": 0, "eth": eth, "nof_queues": { "rx": 4, "tx": 4 }, "flow": [] })
    };
    let ring = |id: u32| json!({ "id": id, "rx": 0, "rx_drop": 0, "tx": 0, "tx_drop": 0 });
    let status = json!({
        "master-lcore": 0,
        "lcores": [0],
        "phy_ports": [phy(0), phy(1)],
        "ring_ports": [ring(0), ring(1), ring(2)],
        "pipes": [{ "id": 0, "rx": 0, "tx": 1 }],
    });
    let ports = "/v1/primary/ports";
    let pipe = r#"{"action": "add", "port": "pipe:0", "rx": "ring:0", "tx": "ring:1"}"#;
    // The quotes are single ones there, which is no JSON.
    let nfv = r#"{"proc_name": "spp_nfv", "client_id": "1", "eal": {"-m": "512", "-l": "1,2", "--proc-type": "secondary"}, "app": {"-s": "192.168.11.59:6666", "-n": "1"}}"#;
    let vf = r#"{"proc_name": "spp_vf", "client_id": "2", "eal": {"-m": "512", "-l": "1,4-7", "--proc-type": "secondary"}, "app": {"-s": "192.168.11.59:6666", "--client-id": "2"}}"#;
    vec![
        example(
            "primary status",
            one() + &process("nfv", 1, &[]),
            STATUS,
            ("GET", "/v1/primary/status", ""),
            Some(status),
        ),
        example("primary clear", one(), &[], ("DELETE", "/v1/primary/status", ""), None),
        example("primary forward", one(), &[], ("PUT", "/v1/primary/forward", r#"{"action": "start"}"#), None),
        example("primary port", one(), &[], ("PUT", ports, r#"{"action": "add", "port": "ring:0"}"#), None),
        example("primary pipe", one(), &[], ("PUT", ports, pipe), None),
        example(
            "primary patch",
            one(),
            RINGS,
            ("PUT", "/v1/primary/patches", r#"{"src": "ring:0", "dst": "ring:1"}"#),
            None,
        ),
        example("primary patch reset", one(), RINGS, ("DELETE", "/v1/primary/patches", ""), None),
        example("primary exit", one(), &[], ("DELETE", "/v1/primary", ""), None),
        example("launch nfv", one(), &[], ("PUT", "/v1/primary/launch", nfv), None),
        example("launch vf", one(), &[], ("PUT", "/v1/primary/launch", vf), None),
    ]
}

fn flow() -> Vec<Example> {
    let one = String::new;
    let rule = r#"{ "rule": { "group": 0, "priority": 0, "direction": "ingress", "transfer": true, "pattern": [ "eth dst is 11:22:33:44:55:66 type mask 0xffff", "vlan vid is 100" ], "actions": [ "queue index 1", "of_pop_vlan" ] } }"#;
    let success = |message: &str| Some(json!({ "result": "success", "message": message }));
    let created = json!({ "result": "success", "message": "Flow rule #0 created", "rule_id": "0" });
    vec![
        example(
            "flow validate",
            one(),
            &[],
            ("POST", "/v1/primary/flow_rules/port_id/0/validate", rule),
            success("Flow rule validated"),
        ),
        example("flow create", one(), &[], ("POST", "/v1/primary/flow_rules/port_id/0", rule), Some(created)),
        example(
            "flow flush",
            one(),
            &[],
            ("DELETE", "/v1/primary/flow_rule/port_id/0", ""),
            success("Flow rule all destroyed"),
        ),
    ]
}

fn independent() -> Vec<Example> {
    let instances = || process("primary", 0, &[0]) + &process("vf", 1, &[1, 3, 4, 5]) + &process("nfv", 2, &[1, 2]);
    let processes = json!([{ "type": "primary" }, { "type": "vf", "client-id": 1 }, { "type": "nfv", "client-id": 2 }]);
    // In the order of the list of processes.
    let usage = json!([
        { "proc-type": "primary", "master-lcore": 0, "lcores": [0] },
        { "proc-type": "vf", "client-id": 1, "master-lcore": 1, "lcores": [1, 3, 4, 5] },
        { "proc-type": "nfv", "client-id": 2, "master-lcore": 1, "lcores": [1, 2] },
    ]);
    vec![
        example("processes", instances(), &[], ("GET", "/v1/processes", ""), Some(processes)),
        example("cpu usage", instances(), &[], ("GET", "/v1/cpu_usage", ""), Some(usage)),
    ]
}

#[tokio::test]
async fn every_example_of_the_documents_is_answered_as_written() {
    let all = [independent(), vf(), nfv(), mirror(), pcap(), primary(), flow()];
    for Example { name, instances, before, request: (method, path, body), answer } in all.into_iter().flatten() {
        for content_type in
            [None, Some("text/plain"), Some("application/json"), Some("application/x-www-form-urlencoded")]
        {
            let rig = Rig::new(&instances);
            for line in before {
                rig.ok(line).await;
            }
            let said = rig.with_type(content_type, method, path, body.as_bytes().to_vec()).await;
            match &answer {
                None => assert_eq!((said.status, said.text.as_str()), (204, ""), "{name} as {content_type:?}"),
                Some(answer) => {
                    assert_eq!(
                        (said.status, said.content_type.as_str()),
                        (200, "application/json"),
                        "{name}: {said:?}"
                    );
                    assert_eq!(said.json(), *answer, "{name} as {content_type:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn the_order_of_names_is_that_of_spp_ctl() {
    let rig = Rig::new(&process("vf", 1, &[1, 2]));
    let text = rig.call("GET", "/v1/vfs/1", "").await.text;
    let order =
        r#"{"client-id":1,"ports":[],"master-lcore":1,"components":[{"core":2,"type":"unuse"}],"classifier_table":[]}"#;
    assert_eq!(text, order);
}

#[tokio::test]
async fn the_cpus_of_this_machine_are_laid_out() {
    let layout = Rig::new("").get("/v1/cpu_layout").await;
    for socket in layout.as_array().unwrap() {
        assert!(socket["socket_id"].is_u64(), "{socket}");
        for core in socket["cores"].as_array().unwrap() {
            assert!(core["core_id"].is_u64() && !core["lcores"].as_array().unwrap().is_empty(), "{core}");
        }
    }
}
