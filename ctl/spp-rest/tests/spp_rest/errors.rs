//! Refusals: the code, the text, and that nothing has changed.

use axum::body::{Body, Bytes};
use axum::http::Request;
use tokio_stream::StreamExt;
use tower::ServiceExt;

use crate::rig::{Rig, process};

fn rig() -> Rig {
    let pcap = format!("{}port = \"phy:1\"\n", process("pcap", 4, &[1, 8]));
    Rig::new(&(process("vf", 1, &[1, 2, 3]) + &process("nfv", 2, &[1, 6]) + &process("mirror", 3, &[1, 7]) + &pcap))
}

#[tokio::test]
async fn bodies_are_refused_with_spp_ctls_words() {
    let rig = rig();
    rig.ok(r#"POST /v1/vfs/1/components {"name": "f", "core": 2, "type": "forward"}"#).await;
    let before = rig.all().await;
    let f = "PUT /v1/vfs/1/components/f/ports";
    let table = "PUT /v1/vfs/1/classifier_table";
    for (line, text) in [
        ("POST /v1/vfs/1/components", "Not in json format."),
        ("POST /v1/vfs/1/components {'name': 'f'}", "Not in json format."),
        ("POST /v1/vfs/1/components {", "Not in json format."),
        ("POST /v1/vfs/1/components []", "key(name) required."),
        ("POST /v1/vfs/1/components 7", "key(name) required."),
        ("POST /v1/vfs/1/components {}", "key(name) required."),
        (r#"POST /v1/vfs/1/components {"name": "x"}"#, "key(core) required."),
        (r#"POST /v1/vfs/1/components {"name": "x", "core": 2}"#, "key(type) required."),
        (r#"POST /v1/vfs/1/components {"name": 7, "core": 2, "type": "merge"}"#, "invalid key(name): 7."),
        (r#"POST /v1/vfs/1/components {"name": null, "core": 2, "type": "merge"}"#, "invalid key(name): None."),
        (r#"POST /v1/vfs/1/components {"name": "x", "core": "2", "type": "merge"}"#, "invalid key(core): 2."),
        (r#"POST /v1/vfs/1/components {"name": "x", "core": -1, "type": "merge"}"#, "invalid key(core): -1."),
        (r#"POST /v1/vfs/1/components {"name": "x", "core": true, "type": "merge"}"#, "invalid key(core): True."),
        (r#"POST /v1/vfs/1/components {"name": "x", "core": 2, "type": "mirror"}"#, "invalid key(type): mirror."),
        (r#"POST /v1/mirrors/3/components {"name": "x", "core": 7, "type": "merge"}"#, "invalid key(type): merge."),
    ] {
        rig.refused(line, 400, text).await;
    }
    for (body, text) in [
        ("{}", "key(action) required."),
        (r#"{"action": "attach"}"#, "key(port) required."),
        (r#"{"action": "attach", "port": "ring:0"}"#, "key(dir) required."),
        (r#"{"action": "add", "port": "ring:0", "dir": "rx"}"#, "invalid key(action): add."),
        (r#"{"action": "attach", "port": "ring:0", "dir": "up"}"#, "invalid key(dir): up."),
        (r#"{"action": "attach", "port": "nic:0", "dir": "rx"}"#, "invalid key(port): nic:0."),
        (r#"{"action": "attach", "port": "ring", "dir": "rx"}"#, "invalid key(port): ring."),
        (r#"{"action": "attach", "port": "ring:", "dir": "rx"}"#, "invalid key(port): ring:."),
        (r#"{"action": "attach", "port": "phy:0nq", "dir": "rx"}"#, "invalid key(port): phy:0nq."),
        (r#"{"action": "attach", "port": 7, "dir": "rx"}"#, "invalid key(port): 7."),
        (
            r#"{"action": "attach", "port": "ring:0", "dir": "rx", "vlan": {"operation": "swap"}}"#,
            "invalid key(vlan): {'operation': 'swap'}.",
        ),
        (
            r#"{"action": "attach", "port": "ring:0", "dir": "rx", "vlan": {"operation": "add", "id": 1}}"#,
            "invalid key(vlan): {'id': 1, 'operation': 'add'}.",
        ),
        (
            r#"{"action": "attach", "port": "ring:0", "dir": "rx", "vlan": ["add", null]}"#,
            "invalid key(vlan): ['add', None].",
        ),
        (
            r#"{"action": "attach", "port": "ring:5000", "dir": "rx"}"#,
            "command error: ring:5000: the largest number is 1023",
        ),
        (
            r#"{"action": "attach", "port": "memif:0", "dir": "rx"}"#,
            "command error: memif:0: memif is not supported here. A ring (ring:0) connects components, a vhost port (vhost:0) a VM or a container",
        ),
    ] {
        rig.refused(&format!("{f} {body}"), 400, text).await;
    }
    for (body, text) in [
        ("{}", "key(action) required."),
        (r#"{"action": "add"}"#, "key(type) required."),
        (r#"{"action": "add", "type": "mac"}"#, "key(port) required."),
        (r#"{"action": "add", "type": "mac", "port": "ring:0"}"#, "key(mac_address) required."),
        (
            r#"{"action": "set", "type": "mac", "port": "ring:0", "mac_address": "default"}"#,
            "invalid key(action): set.",
        ),
        (r#"{"action": "add", "type": "ip", "port": "ring:0", "mac_address": "default"}"#, "invalid key(type): ip."),
        (r#"{"action": "add", "type": "mac", "port": "x", "mac_address": "default"}"#, "invalid key(port): x."),
        (r#"{"action": "add", "type": "mac", "port": "ring:0", "mac_address": "x"}"#, "invalid key(mac_address): x."),
        (r#"{"action": "add", "type": "mac", "port": "ring:0", "mac_address": 1}"#, "invalid key(mac_address): 1."),
        (
            r#"{"action": "add", "type": "vlan", "port": "ring:0", "mac_address": "default"}"#,
            "invalid key(vlan): None.",
        ),
        (
            r#"{"action": "add", "type": "vlan", "vlan": "x", "port": "ring:0", "mac_address": "default"}"#,
            "invalid key(vlan): x.",
        ),
    ] {
        rig.refused(&format!("{table} {body}"), 400, text).await;
    }
    for (line, text) in [
        ("PUT /v1/nfvs/2/forward {}", "key(action) required."),
        (r#"PUT /v1/nfvs/2/forward {"action": "go"}"#, "invalid key(action): go."),
        ("PUT /v1/nfvs/2/ports {}", "key(action) required."),
        (r#"PUT /v1/nfvs/2/ports {"action": "add"}"#, "key(port) required."),
        (r#"PUT /v1/nfvs/2/ports {"action": "attach", "port": "ring:0"}"#, "invalid key(action): attach."),
        ("PUT /v1/nfvs/2/patches {}", "key(src) required."),
        (r#"PUT /v1/nfvs/2/patches {"src": "ring:0"}"#, "key(dst) required."),
        (r#"PUT /v1/nfvs/2/patches {"src": "ring:0", "dst": "ring"}"#, "invalid key(port): ring."),
        ("PUT /v1/nfvs/2/flush {}", "key(action) required."),
        (r#"PUT /v1/nfvs/2/flush {"action": "now"}"#, "invalid key(action): now."),
        ("PUT /v1/pcaps/4/capture {}", "key(action) required."),
        (r#"PUT /v1/pcaps/4/capture {"action": "pause"}"#, "invalid key(action): pause."),
        (r#"PUT /v1/primary/ports {"action": "add", "port": "pipe:0"}"#, "invalid key(rx): None."),
        (
            r#"PUT /v1/primary/ports {"action": "add", "port": "pipe:0", "rx": "ring:0", "tx": "phy:0"}"#,
            "invalid key(tx): phy:0.",
        ),
        ("PUT /v1/primary/launch {}", "key(client_id) required."),
        (r#"PUT /v1/primary/launch {"client_id": 9}"#, "key(proc_name) required."),
        (r#"PUT /v1/primary/launch {"client_id": 9, "proc_name": "spp_vf"}"#, "key(eal) required."),
        (r#"PUT /v1/primary/launch {"client_id": 9, "proc_name": "spp_vf", "eal": {}}"#, "key(app) required."),
        (
            r#"PUT /v1/primary/launch {"client_id": "x", "proc_name": "spp_vf", "eal": {}, "app": {}}"#,
            "invalid key(client_id): x.",
        ),
        (
            r#"PUT /v1/primary/launch {"client_id": 9, "proc_name": "spp_vm", "eal": {}, "app": {}}"#,
            "invalid key(proc_name): spp_vm.",
        ),
        (
            r#"PUT /v1/primary/launch {"client_id": 9, "proc_name": "spp_vf", "eal": {"-l": "a"}, "app": {}}"#,
            "invalid key(-l): a.",
        ),
        (
            r#"PUT /v1/primary/launch {"client_id": 9, "proc_name": "spp_vf", "eal": [], "app": {}}"#,
            "invalid key(eal): [].",
        ),
        (
            r#"PUT /v1/primary/launch {"client_id": 9, "proc_name": "spp_vf", "eal": {}, "app": {"--client-id": 8}}"#,
            "invalid key(--client-id): 8.",
        ),
        (
            r#"PUT /v1/primary/launch {"client_id": 9, "proc_name": "spp_pcap", "eal": {}, "app": {}}"#,
            "key(-c) required.",
        ),
        (
            r#"PUT /v1/primary/launch {"client_id": 9, "proc_name": "spp_pcap", "eal": {}, "app": {"-c": "phy:0", "--out-dir": "/nonexistent"}}"#,
            "command error: --out-dir: /nonexistent is not below /tmp; capture_directories in [spp] of the configuration allows others",
        ),
        (
            r#"PUT /v1/primary/launch {"client_id": 9, "proc_name": "spp_pcap", "eal": {}, "app": {"-c": "phy:0", "--fsize": "1k"}}"#,
            "invalid key(--fsize): 1k.",
        ),
        (
            r#"PUT /v1/primary/launch {"client_id": 9, "proc_name": "spp_pcap", "eal": {}, "app": {"-c": "phy:0", "--fsize": "1000"}}"#,
            "command error: a capture file of 1000 bytes: 1048576 are the least",
        ),
        (
            r#"PUT /v1/primary/launch {"client_id": 1, "proc_name": "spp_nfv", "eal": {}, "app": {}}"#,
            "command error: client id 1 belongs to vf 1",
        ),
        (
            r#"PUT /v1/primary/launch {"client_id": 9, "proc_name": "spp_nfv", "eal": {"-l": "1,2"}, "app": {}}"#,
            "command error: core 2 is busy: it belongs to vf 1",
        ),
    ] {
        rig.refused(line, 400, text).await;
    }
    assert_eq!(rig.all().await, before);
}

#[tokio::test]
async fn what_an_instance_refuses_is_a_command_error() {
    let rig = rig();
    rig.ok(r#"POST /v1/vfs/1/components {"name": "f", "core": 2, "type": "forward"}"#).await;
    rig.ok(r#"PUT /v1/vfs/1/components/f/ports {"action": "attach", "port": "phy:0", "dir": "rx"}"#).await;
    let before = rig.all().await;
    for (line, word) in [
        (r#"POST /v1/vfs/1/components {"name": "f", "core": 2, "type": "merge"}"#, "already"),
        (r#"POST /v1/vfs/1/components {"name": "g", "core": 1, "type": "merge"}"#, "master core"),
        (r#"POST /v1/vfs/1/components {"name": "g", "core": 6, "type": "merge"}"#, "does not belong"),
        (r#"POST /v1/vfs/1/components {"name": "g h", "core": 2, "type": "merge"}"#, "not a name"),
        (r#"PUT /v1/vfs/1/components/g/ports {"action": "attach", "port": "ring:0", "dir": "rx"}"#, "no component `g`"),
        (
            r#"PUT /v1/vfs/1/components/f/ports {"action": "attach", "port": "phy:7", "dir": "tx"}"#,
            "phy:7 is not there",
        ),
        (
            r#"PUT /v1/vfs/1/components/f/ports {"action": "attach", "port": "ring:1", "dir": "rx"}"#,
            "1 rx port already",
        ),
        (
            r#"PUT /v1/vfs/1/components/f/ports {"action": "attach", "port": "phy:0", "dir": "rx"}"#,
            "has phy:0 on its rx side already",
        ),
        (
            r#"PUT /v1/vfs/1/classifier_table {"action": "add", "type": "mac", "mac_address": "default", "port": "ring:0"}"#,
            "no component has ring:0",
        ),
        (
            r#"PUT /v1/vfs/1/classifier_table {"action": "del", "type": "mac", "mac_address": "default", "port": "ring:0"}"#,
            "has no entry default",
        ),
        (r#"PUT /v1/nfvs/2/ports {"action": "del", "port": "ring:0"}"#, "is not there"),
        (r#"PUT /v1/nfvs/2/patches {"src": "ring:0", "dst": "ring:1"}"#, "is not there"),
        (r#"PUT /v1/primary/ports {"action": "del", "port": "ring:0"}"#, "is not there"),
    ] {
        let (method, rest) = line.split_once(' ').unwrap();
        let (path, body) = rest.split_once(' ').unwrap_or((rest, ""));
        let answer = rig.call(method, path, body).await;
        assert_eq!((answer.status, answer.content_type.as_str()), (400, "text/plain"), "{line}: {answer:?}");
        assert!(answer.text.starts_with("command error: ") && answer.text.contains(word), "{line}: {}", answer.text);
    }
    assert_eq!(rig.all().await, before);
}

#[tokio::test]
async fn what_is_not_there_is_a_404_and_a_wrong_method_a_405() {
    let rig = rig();
    for (line, text) in [
        ("GET /", "Not found: '/'"),
        ("GET /v1", "Not found: '/v1'"),
        ("GET /v2/processes", "Not found: '/v2/processes'"),
        ("GET /v1/vfs", "Not found: '/v1/vfs'"),
        ("GET /v1/vfs/one", "Not found: '/v1/vfs/one'"),
        ("GET /v1/vfs/1/", "Not found: '/v1/vfs/1/'"),
        ("PUT /v1/mirrors/3/classifier_table {}", "Not found: '/v1/mirrors/3/classifier_table'"),
        ("PUT /v1/pcaps/4/flush {}", "Not found: '/v1/pcaps/4/flush'"),
        ("POST /v1/primary/flow_rules/port_id/x {}", "Not found: '/v1/primary/flow_rules/port_id/x'"),
        ("GET /v1/vfs/9", "sec_id 9 not found."),
        // The client id belongs to an instance of another type.
        ("GET /v1/vfs/2", "sec_id 2 not found."),
        ("GET /v1/vfs/-1", "sec_id -1 not found."),
        ("GET /v1/vfs/99999999999", "sec_id 99999999999 not found."),
        ("DELETE /v1/nfvs/9", "sec_id 9 not found."),
        // The path is checked before the body.
        ("POST /v1/vfs/9/components {", "sec_id 9 not found."),
    ] {
        rig.refused(line, 404, text).await;
    }
    for line in ["POST /v1/processes {}", "PUT /v1/vfs/1 {}", "GET /v1/vfs/1/components", "GET /v1/primary/launch"] {
        rig.refused(line, 405, "Method not allowed.").await;
    }
    rig.ok("DELETE /v1/primary/").await;
    for line in [
        "GET /v1/primary/status",
        "DELETE /v1/primary/status",
        "DELETE /v1/primary",
        r#"PUT /v1/primary/forward {"action": "start"}"#,
        "DELETE /v1/primary/patches",
        r#"PUT /v1/primary/launch {"client_id": 9, "proc_name": "spp_vf", "eal": {}, "app": {}}"#,
        "DELETE /v1/primary/flow_rules/port_id/0",
        r#"POST /v1/primary/flow_rules/port_id/0 {"rule": {"direction": "ingress", "pattern": ["eth"], "actions": ["queue index 0"]}}"#,
    ] {
        rig.refused(line, 404, "primary not found.").await;
    }
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused() {
    let rig = rig();
    let body = format!("{{\"name\": \"{}\"}}", "x".repeat(ctl_spp_rest::MAX_BODY));
    let text = format!("the body is longer than {} bytes", ctl_spp_rest::MAX_BODY);
    rig.refused(&format!("POST /v1/vfs/1/components {body}"), 413, &text).await;
}

#[tokio::test]
async fn a_long_value_is_not_repeated_in_full() {
    let rig = rig();
    let body = format!("{{\"name\": \"x\", \"core\": \"{}\", \"type\": \"merge\"}}", "\u{e9}".repeat(1000));
    let text = format!("invalid key(core): {}....", "\u{e9}".repeat(200));
    rig.refused(&format!("POST /v1/vfs/1/components {body}"), 400, &text).await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_not_waited_for() {
    let first = tokio_stream::once(Ok::<_, std::io::Error>(Bytes::from_static(b"{")));
    let body = Body::from_stream(first.chain(tokio_stream::pending()));
    let request = Request::post("/v1/vfs/1/components").body(body).unwrap();
    let answer = rig().router.oneshot(request).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["content-type"].to_str().unwrap()), (408, "text/plain"));
}
