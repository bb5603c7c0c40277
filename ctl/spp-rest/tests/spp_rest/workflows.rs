//! Whole configurations, step by step as in SPP's guides.

use serde_json::{Value, json};

use crate::rig::{Rig, process};

fn names(rig: &Rig) -> Vec<String> {
    rig.spp.working().0.into_iter().map(|component| component.name).collect()
}

/// Components of a vf with the ports of each side, as `name: rx > tx`.
fn wiring(status: &Value) -> Vec<String> {
    let side = |component: &Value, side: &str| {
        let ports = component[side].as_array().unwrap().iter();
        ports.map(|port| port["port"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    let components =
        status["components"].as_array().unwrap().iter().filter(|component| component.get("name").is_some());
    components
        .map(|component| {
            let name = component["name"].as_str().unwrap();
            format!("{name}: {} > {}", side(component, "rx_port"), side(component, "tx_port"))
        })
        .collect()
}

/// On each of two NICs, a classifier and a merge with two VMs' ports behind them, over rings.
async fn two_classifiers(rig: &Rig) {
    let mut core = 2;
    for n in 0..2 {
        let (to, from) = (2 * n, 2 * n + 1);
        for (name, kind, ports) in [
            (format!("cls{n}"), "classifier", vec![("rx", format!("phy:{n}")), ("tx", format!("ring:{to}"))]),
            (format!("fwd{n}"), "forward", vec![("rx", format!("ring:{to}")), ("tx", format!("vhost:{n}"))]),
            (format!("back{n}"), "forward", vec![("rx", format!("vhost:{n}")), ("tx", format!("ring:{from}"))]),
            (format!("mgr{n}"), "merge", vec![("rx", format!("ring:{from}")), ("tx", format!("phy:{n}"))]),
        ] {
            let body = json!({ "name": name, "core": core, "type": kind });
            rig.ok(&format!("POST /v1/vfs/1/components {body}")).await;
            for (dir, port) in ports {
                let body = json!({ "action": "attach", "port": port, "dir": dir, "vlan": {} });
                rig.ok(&format!("PUT /v1/vfs/1/components/{name}/ports {body}")).await;
            }
            core += 1;
        }
        let mac = format!("52:54:00:12:34:5{n}");
        let entry = json!({ "action": "add", "type": "mac", "mac_address": mac, "port": format!("ring:{to}") });
        rig.ok(&format!("PUT /v1/vfs/1/classifier_table {entry}")).await;
        let entry = json!({ "action": "add", "type": "vlan", "vlan": "100", "mac_address": "default", "port": format!("ring:{to}") });
        let answer = rig.call("PUT", "/v1/vfs/1/classifier_table", &entry.to_string()).await;
        // There is one table, so the second default of that VLAN is refused.
        assert_eq!(answer.status, if n == 0 { 204 } else { 400 }, "{answer:?}");
    }
}

#[tokio::test]
async fn two_classifiers_feed_forwards_and_merges_over_rings() {
    let rig = Rig::new(&process("vf", 1, &[1, 2, 3, 4, 5, 6, 7, 8, 9]));
    two_classifiers(&rig).await;
    let expected = [
        "cls0: phy:0 > ring:0",
        "fwd0: ring:0 > vhost:0",
        "back0: vhost:0 > ring:1",
        "mgr0: ring:1 > phy:0",
        "cls1: phy:1 > ring:2",
        "fwd1: ring:2 > vhost:1",
        "back1: vhost:1 > ring:3",
        "mgr1: ring:3 > phy:1",
    ];
    let status = rig.get("/v1/vfs/1").await;
    assert_eq!(wiring(&status), expected);
    let table = json!([
        { "type": "mac", "value": "52:54:00:12:34:50", "port": "ring:0" },
        { "type": "vlan", "value": "100/default", "port": "ring:0" },
        { "type": "mac", "value": "52:54:00:12:34:51", "port": "ring:2" },
    ]);
    assert_eq!(status["classifier_table"], table);
    assert_eq!(names(&rig).len(), 8);
    let rings = rig.get("/v1/primary/status").await["ring_ports"].clone();
    assert_eq!(
        rings.as_array().unwrap().iter().map(|ring| ring["id"].as_u64().unwrap()).collect::<Vec<_>>(),
        [0, 1, 2, 3]
    );
    let rig = rig.restart();
    assert_eq!(rig.get("/v1/vfs/1").await, status);
    // Everything can be taken apart again.
    for name in ["cls0", "fwd0", "back0", "mgr0"] {
        rig.ok(&format!("DELETE /v1/vfs/1/components/{name}")).await;
    }
    let left = rig.get("/v1/vfs/1").await;
    assert_eq!(wiring(&left), expected[4..]);
    assert_eq!(left["components"][0], json!({ "core": 2, "type": "unuse" }));
    rig.ok("DELETE /v1/vfs/1").await;
    assert!(names(&rig).is_empty());
    assert_eq!(rig.get("/v1/processes").await, json!([{ "type": "primary" }]));
}

#[tokio::test]
async fn tags_are_set_by_attaching_and_shown() {
    let rig = Rig::with_queues(&process("vf", 1, &[1, 2]));
    rig.ok(r#"POST /v1/vfs/1/components {"name": "f", "core": 2, "type": "forward"}"#).await;
    let f = "/v1/vfs/1/components/f/ports";
    rig.ok(&format!(
        r#"PUT {f} {{"action": "attach", "port": "phy:0nq1", "dir": "rx", "vlan": {{"operation": "del"}}}}"#
    ))
    .await;
    let add =
        r#"{"action": "attach", "port": "ring:0", "dir": "tx", "vlan": {"operation": "add", "id": "101", "pcp": 3}}"#;
    rig.ok(&format!("PUT {f} {add}")).await;
    let component = rig.get("/v1/vfs/1").await["components"][0].clone();
    assert_eq!(
        component["rx_port"],
        json!([{ "port": "phy:0 nq 1", "vlan": { "operation": "del", "id": 0, "pcp": 0 } }])
    );
    assert_eq!(
        component["tx_port"],
        json!([{ "port": "ring:0", "vlan": { "operation": "add", "id": 101, "pcp": 3 } }])
    );
    // Another tag may be named. Without a tag it is the port once more.
    rig.ok(&format!("PUT {f} {}", add.replace("101", "102"))).await;
    let again = format!(r#"PUT {f} {{"action": "attach", "port": "ring:0", "dir": "tx", "vlan": null}}"#);
    rig.refused(&again, 400, "command error: component f has ring:0 on its tx side already").await;
    let component = rig.get("/v1/vfs/1").await["components"][0].clone();
    assert_eq!(component["tx_port"][0]["vlan"]["id"], 102);
    rig.ok(&format!(r#"PUT {f} {{"action": "detach", "port": "ring:0", "dir": "tx"}}"#)).await;
    rig.ok(&again).await;
    let component = rig.get("/v1/vfs/1").await["components"][0].clone();
    assert_eq!(component["tx_port"][0]["vlan"]["operation"], "none");
}

#[tokio::test]
async fn launched_instances_work_and_outlive_the_daemon() {
    let rig = Rig::new("");
    let dir = tempfile::tempdir().unwrap();
    for (kind, id, eal, app) in [
        (
            "spp_vf",
            json!(2),
            json!({ "-l": "1,4-7", "-m": 512, "--proc-type": "secondary" }),
            json!({ "--client-id": 2, "-s": "127.0.0.1:6666", "--vhost-client": "" }),
        ),
        ("spp_nfv", json!("3"), json!({ "-c": "0x6" }), json!({ "-n": "3" })),
        ("spp_mirror", json!(4), json!({ "--lcores": "8,9" }), json!({})),
        (
            "spp_pcap",
            json!(5),
            json!({ "-l": "1,10,11" }),
            json!({ "-c": "phy:0", "--out-dir": dir.path(), "--fsize": "1073741824" }),
        ),
    ] {
        let body = json!({ "proc_name": kind, "client_id": id, "eal": eal, "app": app });
        rig.ok(&format!("PUT /v1/primary/launch {body}")).await;
    }
    rig.ok(r#"PUT /v1/pcaps/5/capture {"action": "start"}"#).await;
    let rig = rig.restart();
    let types = rig.get("/v1/processes").await;
    let types: Vec<_> = types.as_array().unwrap().iter().map(|process| process["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["primary", "vf", "nfv", "mirror", "pcap"]);
    assert_eq!(rig.get("/v1/vfs/2").await["components"].as_array().unwrap().len(), 4);
    assert_eq!(rig.get("/v1/nfvs/3").await["lcores"], json!([1, 2]));
    let pcap = rig.get("/v1/pcaps/5").await;
    assert_eq!((&pcap["status"], &pcap["core"][1]["core"]), (&json!("running"), &json!(11)));
    let file = pcap["core"][1]["filename"].as_str().unwrap();
    let begins = dir.path().join("spp_pcap.").display().to_string();
    // Within a second, the number of the file before the restart is taken.
    let ends = [".phy0.1.1.pcap.lz4", ".phy0.1.2.pcap.lz4"].iter().any(|end| file.ends_with(end));
    assert!(file.starts_with(&begins) && ends, "{file}");
    rig.ok(r#"PUT /v1/pcaps/5/capture {"action": "stop"}"#).await;
    let pcap = rig.get("/v1/pcaps/5").await;
    assert_eq!((&pcap["status"], &pcap["core"][1]["filename"]), (&json!("idle"), &json!("")));
}

/// SPP's CLI expects lcores besides the master core, and a forwarder in the primary.
#[tokio::test]
async fn instances_without_cores_of_their_own_are_shown_as_spps_cli_needs_them() {
    let rig = Rig::new(&(process("nfv", 2, &[]) + &format!("{}port = \"phy:0\"\n", process("pcap", 3, &[]))));
    assert_eq!(rig.get("/v1/nfvs/2").await["lcores"], json!([0, 2]));
    let usage = rig.get("/v1/cpu_usage").await;
    let lcores: Vec<_> = usage.as_array().unwrap().iter().map(|process| process["lcores"].clone()).collect();
    assert_eq!(lcores, [json!([0]), json!([0, 2]), json!([0, 3])]);
    let idle = json!({ "status": "idling", "ports": ["phy:0", "phy:1"], "patches": [] });
    assert_eq!(rig.get("/v1/primary/status").await["forwarder"], idle);
}

#[tokio::test]
async fn a_queue_is_captured_as_spps_cli_asks_for_it() {
    let rig = Rig::with_queues("");
    let app = json!({ "--client-id": "1", "-c": "phy:0 nq 1" });
    let body = json!({ "client_id": "1", "proc_name": "spp_pcap", "eal": { "-l": "1,2,3" }, "app": app });
    rig.ok(&format!("PUT /v1/primary/launch {body}")).await;
    assert_eq!(rig.get("/v1/pcaps/1").await["core"][0]["rx_port"], json!([{ "port": "phy:0 nq 1" }]));
}

#[tokio::test]
async fn the_primary_forwards_between_its_ports() {
    let rig = Rig::new(&process("primary", 0, &[0, 1]));
    let idle = json!({ "status": "idling", "ports": ["phy:0", "phy:1"], "patches": [] });
    assert_eq!(rig.get("/v1/primary/status").await["forwarder"], idle);
    for port in ["phy:0", "ring:0"] {
        rig.ok(&format!("PUT /v1/primary/ports {}", json!({ "action": "add", "port": port }))).await;
    }
    rig.ok(r#"PUT /v1/primary/patches {"src": "phy:0", "dst": "ring:0"}"#).await;
    rig.ok(r#"PUT /v1/primary/forward {"action": "start"}"#).await;
    let busy = json!({
        "status": "running", "ports": ["phy:0", "phy:1", "ring:0"], "patches": [{ "src": "phy:0", "dst": "ring:0" }]
    });
    assert_eq!(rig.get("/v1/primary/status").await["forwarder"], busy);
    assert_eq!(names(&rig).len(), 1);
}

#[tokio::test]
async fn a_netdevs_address_is_shown_where_the_port_names_none() {
    let rig = Rig::new("[[port]]\nname = \"nic9\"\nkind = \"phy\"\nifname = \"eth19\"\nspp = \"phy:9\"\n");
    let ports = rig.get("/v1/primary/status").await["phy_ports"].clone();
    let nine = ports.as_array().unwrap().iter().find(|port| port["id"] == 9).unwrap();
    assert!(nine["eth"] != "00:00:00:00:00:00" && nine["eth"].as_str().unwrap().len() == 17, "{nine}");
}

#[tokio::test]
async fn in_flush_mode_the_status_shows_what_is_held() {
    let rig = Rig::new(&(process("vf", 1, &[1, 2]) + &process("nfv", 2, &[1, 3]) + &process("mirror", 3, &[1, 4])));
    assert!(rig.get("/v1/vfs/1").await.get("flush").is_none());
    for path in ["/v1/vfs/1", "/v1/nfvs/2", "/v1/mirrors/3", "/v1/primary"] {
        rig.ok(&format!(r#"PUT {path}/flush {{"action": "on"}}"#)).await;
    }
    let nothing = json!({ "mode": "on", "staged": null });
    assert_eq!(rig.get("/v1/vfs/1").await["flush"], nothing);
    assert_eq!(rig.get("/v1/primary/status").await["flush"], nothing);
    rig.ok(r#"POST /v1/vfs/1/components {"name": "f", "core": 2, "type": "forward"}"#).await;
    rig.ok(r#"PUT /v1/nfvs/2/ports {"action": "add", "port": "ring:0"}"#).await;
    rig.ok(r#"POST /v1/mirrors/3/components {"name": "m", "core": 4, "type": "mirror"}"#).await;
    let vf = rig.get("/v1/vfs/1").await;
    assert_eq!(vf["components"], json!([{ "core": 2, "type": "unuse" }]));
    let forward = json!({ "core": 2, "name": "f", "type": "forward", "rx_port": [], "tx_port": [] });
    assert_eq!(vf["flush"]["staged"], json!({ "ports": [], "components": [forward], "classifier_table": [] }));
    let staged = json!({ "ports": ["phy:0", "phy:1", "ring:0"], "patches": [] });
    assert_eq!(rig.get("/v1/nfvs/2").await["flush"]["staged"], staged);
    let staged = rig.get("/v1/mirrors/3").await["flush"]["staged"].clone();
    assert_eq!((&staged["components"][0]["name"], staged.get("classifier_table")), (&json!("m"), None));
    let text = "command error: changes are held: flush or discard them first";
    rig.refused(r#"PUT /v1/vfs/1/flush {"action": "off"}"#, 400, text).await;
    rig.ok(r#"PUT /v1/vfs/1/flush {"action": "flush"}"#).await;
    rig.ok(r#"PUT /v1/nfvs/2/flush {"action": "discard"}"#).await;
    let vf = rig.get("/v1/vfs/1").await;
    assert_eq!((&vf["components"][0], &vf["flush"]), (&forward, &nothing));
    assert_eq!(rig.get("/v1/nfvs/2").await["ports"], json!(["phy:0", "phy:1"]));
    rig.ok(r#"PUT /v1/vfs/1/flush {"action": "off"}"#).await;
    assert!(rig.get("/v1/vfs/1").await.get("flush").is_none());
}
