//! A real daemon's spp-ctl REST API, over TCP.

use std::io::Write;
use std::net::TcpStream;

use serde_json::{Value, json};
use tests::{Daemon, Options, http};

const ADDRESS: &str = "127.0.0.1:7777";

fn call(daemon: &Daemon, method: &str, path: &str, body: &Value) -> (u16, String) {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let answer = daemon.ns.run(|| http::over_tcp(ADDRESS, method, path, &body).expect("the API answers"));
    (answer.status, String::from_utf8(answer.body).expect("text"))
}

fn get(daemon: &Daemon, path: &str) -> Value {
    let (status, text) = call(daemon, "GET", path, &Value::Null);
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn instances_are_launched_over_tcp_and_outlive_the_daemon() {
    let mut daemon = Daemon::start("spp-rest");
    daemon.ns.sh("ip link add nic0 type veth peer name wire0");
    daemon.ns.sh("ip link set nic0 up");
    daemon.ns.sh("ip link set wire0 up");
    daemon.ok("POST", "ports", json!({ "name": "nic0", "kind": "phy", "ifname": "nic0", "spp": "phy:0" }));
    let port = &get(&daemon, "/v1/primary/status")["phy_ports"][0];
    let links = daemon.ns.links();
    let link = links.iter().find(|link| link["ifname"] == "nic0").expect("it is there");
    assert_eq!((&port["id"], &port["eth"]), (&json!(0), &link["address"]), "{port}");
    let body = json!({ "client_id": 1, "proc_name": "spp_vf", "eal": { "-l": "0,1" }, "app": { "--client-id": 1 } });
    assert_eq!(call(&daemon, "PUT", "/v1/primary/launch", &body), (204, String::new()));
    // Endless heads delay nobody, and the daemon's end does not wait for them.
    let mut stalled = daemon.ns.run(|| TcpStream::connect(ADDRESS).expect("it listens"));
    stalled.write_all(b"GET /v1/processes HTTP/1.1\r\n").expect("it takes that");
    let processes = json!([{ "type": "primary" }, { "type": "vf", "client-id": 1 }]);
    assert_eq!(get(&daemon, "/v1/processes"), processes);
    daemon.stop();
    daemon.launch();
    assert_eq!(get(&daemon, "/v1/processes"), processes);
    assert_eq!(get(&daemon, "/v1/vfs/1")["components"], json!([{ "core": 1, "type": "unuse" }]));
    assert_eq!(call(&daemon, "DELETE", "/v1/vfs/1", &Value::Null), (204, String::new()));
    assert_eq!(call(&daemon, "GET", "/v1/vfs/1", &Value::Null), (404, "sec_id 1 not found.".to_owned()));
    daemon.finish();
}

#[test]
fn nobody_listens_where_none_is_wanted() {
    let config = "[spp]\nlisten = \"\"".to_owned();
    let daemon = Daemon::with("spp-none", &Options { config, ..Options::default() });
    assert!(daemon.ns.run(|| TcpStream::connect(ADDRESS).is_err()));
    daemon.finish();
}
