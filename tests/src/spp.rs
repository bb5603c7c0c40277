//! A client of the daemon's spp-ctl API, and ports that have names there.

use serde_json::{Value, json};

use crate::daemon::{Daemon, Guest};
use crate::http::{self, Response};
use crate::netns::NetNs;
use crate::veth::{End, Veth};

/// Default address of the API. A daemon under test has a namespace of its own.
const ADDRESS: &str = "127.0.0.1:7777";

/// Sends a request. Returns status, content type and body.
pub fn call(daemon: &Daemon, method: &str, target: &str, body: &str) -> (u16, String, String) {
    let answer = daemon.ns.run(|| http::over_tcp(ADDRESS, method, target, body.as_bytes()));
    let Response { status, head, body } = answer.unwrap_or_else(|error| panic!("{method} {target}: {error}"));
    let kind =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-type: ").map(str::to_owned));
    (status, kind.unwrap_or_default(), String::from_utf8(body).expect("text"))
}

/// Sends a request that must succeed with an empty 204.
pub fn done(daemon: &Daemon, method: &str, target: &str, body: Value) {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let (status, _, answer) = call(daemon, method, target, &text);
    assert_eq!((status, answer.as_str()), (204, ""), "{method} {target} {text}");
}

/// Sends a request that must be refused as bad. Returns the reason.
pub fn refused(daemon: &Daemon, method: &str, target: &str, body: &str) -> String {
    let (status, kind, answer) = call(daemon, method, target, body);
    assert_eq!(status, 400, "{method} {target} {body}: {answer}");
    assert!(kind.starts_with("text/plain"), "{kind}");
    answer
}

/// The answer to a GET.
pub fn get(daemon: &Daemon, target: &str) -> Value {
    let (status, kind, answer) = call(daemon, "GET", target, "");
    assert_eq!((status, kind.as_str()), (200, "application/json"), "GET {target}: {answer}");
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("GET {target}: {error}: {answer}"))
}

/// Starts a component of a vf or mirror instance (`vfs/1`) with ports. A port is `rx phy:0` or `tx ring:0`, or has a
/// tag: `rx phy:0 add 10 3`, `tx ring:0 del`.
pub fn component(daemon: &Daemon, at: &str, name: &str, core: u32, kind: &str, ports: &[&str]) {
    done(daemon, "POST", &format!("/v1/{at}/components"), json!({ "name": name, "core": core, "type": kind }));
    ports.iter().for_each(|port| attach(daemon, at, name, port));
}

/// Gives a component a port, in the form of [`component`].
pub fn attach(daemon: &Daemon, at: &str, name: &str, port: &str) {
    let words: Vec<_> = port.split(' ').collect();
    let mut body = json!({ "action": "attach", "dir": words[0], "port": words[1] });
    let number = |word: &str| word.parse::<u32>().expect("a number");
    match words[2..] {
        [] => {}
        ["add", id, pcp] => body["vlan"] = json!({ "operation": "add", "id": number(id), "pcp": number(pcp) }),
        _ => body["vlan"] = json!({ "operation": "del", "id": 0, "pcp": 0 }),
    }
    done(daemon, "PUT", &format!("/v1/{at}/components/{name}/ports"), body);
}

/// Takes a port, `rx phy:0`, from a component.
pub fn detach(daemon: &Daemon, at: &str, name: &str, port: &str) {
    let (dir, port) = port.split_once(' ').expect("a side and a port");
    let body = json!({ "action": "detach", "dir": dir, "port": port });
    done(daemon, "PUT", &format!("/v1/{at}/components/{name}/ports"), body);
}

/// Adds an entry to the classifier table of a vf instance, or deletes it.
pub fn entry(daemon: &Daemon, at: &str, action: &str, vlan: Option<u16>, mac: &str, port: &str) {
    let kind = if vlan.is_some() { "vlan" } else { "mac" };
    let body = json!({ "action": action, "type": kind, "vlan": vlan, "mac_address": mac, "port": port });
    done(daemon, "PUT", &format!("/v1/{at}/classifier_table"), body);
}

/// A guest at a port `vhost:N`.
pub fn vhost(daemon: &Daemon, no: u32) -> Guest {
    daemon.guest(&format!("v{no}"), json!({ "spp": format!("vhost:{no}") }))
}

/// A network behind the NIC `phy:N`. Its end of the wire is `wire`, in a namespace of its own.
pub fn phy(daemon: &Daemon, no: u32, queues: u32) -> NetNs {
    let ns = NetNs::new(&format!("p{no}"));
    let nic = format!("nic{no}");
    Veth { queues, ..Veth::default() }.connect(End { ns: &daemon.ns, ifname: &nic }, End { ns: &ns, ifname: "wire" });
    let spec =
        json!({ "name": format!("p{no}"), "kind": "phy", "ifname": nic, "queues": queues, "spp": format!("phy:{no}") });
    daemon.ok("POST", "ports", spec);
    ns
}
