//! The HTTP API on a made-up host: every route, with valid and invalid requests.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use ctl_http::router;
use ctl_service::state::Row;
use ctl_service::{Ports, Service};
use ctl_spp::Spp;
use ctl_types::PortState;
use http_body_util::BodyExt;
use kit::{Config, FakeHost, FakeStorage, MISSING_NETDEV, machine_for, receive, start, wait};
use serde_json::{Value, json};
use switch::model::{DEFAULT_RING_DEPTH, MacAddr, PortKind, PortSpec};
use tower::ServiceExt;

struct Api {
    host: FakeHost,
    storage: FakeStorage,
    service: Arc<Service>,
    router: Router,
}

impl Api {
    fn new() -> Self {
        Self::over(FakeStorage::default(), &Config::default())
    }

    fn over(storage: FakeStorage, config: &Config) -> Self {
        Self::on(machine_for(&config.port), storage, config)
    }

    fn on(host: FakeHost, storage: FakeStorage, config: &Config) -> Self {
        let service = Service::start(start(&host), storage.store(), &config.declared()).unwrap();
        let spp = Spp::start(Arc::clone(&service), &config.spp);
        Self { host, storage, router: router(Arc::clone(&service), spp), service }
    }

    /// A new daemon with the same state.
    fn restart(self) -> Self {
        let Self { host, storage, service, router } = self;
        drop((service, router));
        Self::on(host, storage, &Config::default())
    }

    /// Lets three frames come in from `vm1`, one of them with an address that is not its own.
    fn receive_from_vm1(&self) {
        let own = self.service.port("vm1").unwrap().spec.mac.unwrap();
        receive(&self.host, "xs0", own, 2);
        receive(&self.host, "xs0", STATION, 1);
        let counted = || self.service.dataplane().stats().ports[0].rx.packets == 3;
        wait("the frames are counted", counted);
    }

    async fn call(&self, method: &str, path: &str, body: impl Into<Option<Value>>) -> (u16, Value) {
        let text = body.into().map(|body| body.to_string());
        self.raw(method, path, text.as_deref()).await
    }

    async fn raw(&self, method: &str, path: &str, body: Option<&str>) -> (u16, Value) {
        let request = Request::builder().method(method).uri(format!("/api/v1/{path}"));
        let request = request.header("content-type", "application/json");
        let request = request.body(body.map_or_else(Body::empty, |body| Body::from(body.to_owned()))).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() })
    }
}

/// A station behind the NIC. No port has its address.
const STATION: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 1]);

fn vm(name: &str) -> Value {
    json!({ "name": name, "kind": "guest" })
}

#[tokio::test]
async fn a_port_lives_from_post_to_delete() {
    let api = Api::new();
    let (status, port) = api.call("POST", "ports", vm("vm1")).await;
    assert_eq!((status, &port["name"], &port["state"]), (201, &json!("vm1"), &json!("up")));
    assert_eq!(api.call("GET", "ports", None).await.1.as_array().unwrap().len(), 1);
    assert_eq!(api.call("GET", "ports/vm1", None).await.1["info"]["vport"], 0);
    assert_eq!(api.call("GET", "ports/0", None).await.1["name"], "vm1");
    let (status, port) =
        api.call("PATCH", "ports/vm1", json!({ "mtu": 1400, "vlan": { "mode": "access", "vid": 7 } })).await;
    assert_eq!((status, &port["spec"]["mtu"], &port["spec"]["vlan"]["vid"]), (200, &json!(1400), &json!(7)));
    assert_eq!(api.call("DELETE", "ports/vm1", None).await, (204, Value::Null));
    assert_eq!(api.call("GET", "ports/vm1", None).await.0, 404);
}

#[tokio::test]
async fn bad_requests_say_what_is_wrong_and_change_nothing() {
    let api = Api::new();
    api.call("POST", "ports", vm("vm1")).await;
    let before = (api.call("GET", "ports", None).await, api.storage.bytes());
    let cases = [
        ("POST", "ports", Some("{"), 400, "EINVAL", "line 1"),
        ("POST", "ports", Some("{\"name\": \"x\", \"kind\": \"guest\", \"color\": 1}"), 400, "EINVAL", "color"),
        ("POST", "ports", Some("{\"name\": \"x\"}"), 400, "EINVAL", "kind"),
        ("POST", "ports", Some("{\"name\": 7, \"kind\": \"guest\"}"), 400, "EINVAL", "name"),
        (
            "POST",
            "ports",
            Some("{\"name\": \"x\", \"kind\": \"guest\", \"mac\": \"zz\"}"),
            400,
            "EINVAL",
            "MAC address",
        ),
        (
            "POST",
            "ports",
            Some("{\"name\": \"x\", \"kind\": \"guest\", \"vlan\": {\"mode\": \"trunk\", \"tagged\": \"5000\"}}"),
            400,
            "EINVAL",
            "VLAN",
        ),
        ("POST", "ports", Some("{\"name\": \"vm1\", \"kind\": \"guest\"}"), 409, "EEXIST", "vm1"),
        ("POST", "ports", None, 400, "EINVAL", ""),
        ("PATCH", "ports/vm1", Some("{\"mtu\": 90000}"), 400, "EINVAL", "mtu"),
        ("PATCH", "ports/vm9", Some("{\"mtu\": 1400}"), 404, "ENOENT", "vm9"),
        ("DELETE", "ports/vm9", None, 404, "ENOENT", "vm9"),
        ("GET", "stats?port=vm9", None, 404, "ENOENT", "vm9"),
        ("GET", "stats?colour=1", None, 400, "EINVAL", "colour"),
        ("POST", "fdb", Some("{\"mac\": \"ff:ff:ff:ff:ff:ff\", \"port\": \"vm1\"}"), 400, "EINVAL", "mac"),
        ("POST", "fdb", Some("{\"mac\": \"02:00:00:00:00:01\", \"port\": \"vm9\"}"), 404, "ENOENT", "vm9"),
        ("DELETE", "fdb/nonsense", None, 400, "EINVAL", "mac"),
        ("DELETE", "fdb/02:00:00:00:00:01", None, 404, "ENOENT", "MAC table"),
        ("PATCH", "bridge", Some("{\"fdb_limit\": 1}"), 400, "EINVAL", "fdb_limit"),
        ("POST", "trace", Some("{\"port\": \"vm1\"}"), 400, "EINVAL", "exactly one"),
        ("POST", "trace", Some("{\"port\": \"vm1\", \"hex\": \"0g\"}"), 400, "EINVAL", "hex"),
        ("POST", "trace", Some("{\"port\": \"vm1\", \"packet\": {\"pcp\": 9, \"vlan\": 1}}"), 400, "EINVAL", "pcp"),
        ("POST", "trace", Some("{\"port\": \"vm9\", \"hex\": \"00\"}"), 404, "ENOENT", "vm9"),
        ("GET", "capture?ports=vm9", None, 404, "ENOENT", "vm9"),
        ("GET", "capture?direction=up", None, 400, "EINVAL", "direction"),
        ("GET", "capture?duration=-1", None, 400, "EINVAL", "duration"),
        // Found by fuzzing: the answer to a path that is not UTF-8 was plain text.
        ("GET", "ports/%ff", None, 400, "EINVAL", "UTF-8"),
        ("GET", "nowhere", None, 404, "ENOENT", "path"),
        ("PUT", "ports", None, 405, "EOPNOTSUPP", "method"),
    ];
    for (method, path, body, status, code, text) in cases {
        let answer = api.raw(method, path, body).await;
        assert_eq!(
            (answer.0, answer.1["code"].as_str()),
            (status, Some(code)),
            "{method} {path} {body:?}: {}",
            answer.1
        );
        assert!(answer.1["error"].as_str().unwrap().contains(text), "{method} {path}: {}", answer.1["error"]);
    }
    let after = (api.call("GET", "ports", None).await, api.storage.bytes());
    assert_eq!(before, after);
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused() {
    let api = Api::new();
    let long = format!("{{\"name\": \"{}\"}}", "x".repeat(2 << 20));
    assert_eq!(api.raw("POST", "ports", Some(&long)).await.0, 413);
}

#[tokio::test]
async fn what_was_acknowledged_outlives_the_daemon() {
    let api = Api::new();
    for name in ["vm1", "vm2"] {
        assert_eq!(api.call("POST", "ports", vm(name)).await.0, 201);
    }
    let row = json!({ "mac": "02:00:00:00:00:01", "vlan": 5, "port": "vm2" });
    assert_eq!(api.call("POST", "fdb", row).await.0, 201);
    assert_eq!(api.call("PATCH", "bridge", json!({ "fdb_ageing_seconds": 60 })).await.0, 200);
    api.call("DELETE", "ports/vm1", None).await;
    let api = api.restart();
    let ports = api.call("GET", "ports", None).await.1;
    // vm2 keeps its number, although that of vm1 is free.
    assert_eq!(
        (ports.as_array().unwrap().len(), &ports[0]["name"], &ports[0]["spec"]["vport"]),
        (1, &json!("vm2"), &json!(1))
    );
    assert_eq!(api.call("GET", "fdb", None).await.1[0]["port"], "vm2");
    assert_eq!(api.call("GET", "bridge", None).await.1["fdb_ageing_seconds"], 60);
}

#[tokio::test]
async fn a_change_that_cannot_be_kept_is_undone() {
    let api = Api::new();
    api.call("POST", "ports", vm("vm1")).await;
    api.storage.set_full(true);
    for (method, path, body) in [
        ("POST", "ports", Some(vm("vm2"))),
        ("DELETE", "ports/vm1", None),
        ("PATCH", "ports/vm1", Some(json!({ "isolated": true }))),
        ("POST", "fdb", Some(json!({ "mac": "02:00:00:00:00:01", "port": "vm1" }))),
        ("PATCH", "bridge", Some(json!({ "fdb_ageing_seconds": 60 }))),
    ] {
        let (status, answer) = api.call(method, path, body).await;
        assert_eq!(status, 500, "{method} {path}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains("undone"), "{answer}");
    }
    let ports = api.service.ports();
    assert_eq!((ports.len(), ports[0].name.as_str(), ports[0].spec.isolated), (1, "vm1", false));
    assert_eq!(api.call("GET", "fdb", None).await.1, json!([]));
    assert_eq!(api.call("GET", "bridge", None).await.1["fdb_ageing_seconds"], 300);
    api.storage.set_full(false);
    assert_eq!(api.call("POST", "ports", vm("vm2")).await.0, 201, "it goes on when there is room");
}

#[tokio::test]
async fn a_port_that_cannot_be_restored_is_kept_and_shown_as_failed() {
    let storage = FakeStorage::default();
    let up = PortSpec { vport: Some(3), ifname: Some(MISSING_NETDEV.into()), ..PortSpec::new("up", PortKind::Phy) };
    storage
        .store()
        .write(&[Row::put::<Ports>(&up), Row::put::<Ports>(&PortSpec::new("vm1", PortKind::Guest))])
        .unwrap();
    let api = Api::over(storage, &Config::default());
    let entry = api.service.port("up").unwrap();
    assert_eq!(entry.state, PortState::Failed);
    assert!(entry.error.unwrap().contains(MISSING_NETDEV));
    assert_eq!(api.service.port("vm1").unwrap().state, PortState::Up);
    api.service.retry();
    assert_eq!(api.service.port("up").unwrap().state, PortState::Failed);
    // Adding it again on an existing netdev replaces it. Deleting it removes it for good.
    assert_eq!(api.call("POST", "ports", json!({ "name": "up", "kind": "phy", "ifname": "eth7" })).await.0, 201);
    assert_eq!(api.service.port("up").unwrap().state, PortState::Up);
    assert_eq!(api.call("DELETE", "ports/up", None).await.0, 204);
    assert_eq!(api.service.ports().len(), 1);
}

#[tokio::test]
async fn a_configuration_is_compared_applied_and_exported() {
    let api = Api::new();
    let request = json!({ "config": { "port": [{ "name": "vm1", "kind": "guest" }] } });
    let (status, told) = api.call("POST", "config/diff", request.clone()).await;
    assert_eq!((status, told["changes"][0]["action"].as_str()), (200, Some("add")), "{told}");
    assert_eq!(api.service.ports().len(), 0);
    let (status, told) = api.call("POST", "config/apply", request.clone()).await;
    assert_eq!((status, told["changes"][0]["key"].as_str()), (200, Some("vm1")), "{told}");
    assert_eq!(api.call("POST", "config/apply", request).await.1["changes"], json!([]));
    let (status, exported) = api.call("GET", "config", None).await;
    assert_eq!((status, exported["port"][0]["vport"].as_u64()), (200, Some(0)), "{exported}");
    let (_, told) = api.call("POST", "config/diff", json!({ "config": exported, "prune": true })).await;
    assert_eq!(told["changes"], json!([]));
    let bad = json!({ "config": { "port": [{ "name": "vm2", "kind": "guest" }, { "name": "vm3", "kind": "phy" }] } });
    let (status, error) = api.call("POST", "config/apply", bad).await;
    assert_eq!(status, 400);
    assert!(error["error"].as_str().unwrap().starts_with("port `vm3`: ifname: "), "{error}");
    assert_eq!(api.service.ports().len(), 1);
}

#[tokio::test]
async fn the_openapi_document_has_every_route() {
    let api = Api::new();
    let document = api.call("GET", "openapi.json", None).await.1;
    let mut paths: Vec<_> = document["paths"].as_object().unwrap().keys().cloned().collect();
    paths.sort();
    let expected = [
        "audit",
        "bonds",
        "bonds/{bond}",
        "bridge",
        "capability",
        "capture",
        "config",
        "config/apply",
        "config/diff",
        "disk-stats",
        "disk-stats/{disk}",
        "disks",
        "disks/{disk}",
        "disks/{disk}/pause",
        "disks/{disk}/resume",
        "disks/{disk}/snapshot",
        "doctor",
        "fdb",
        "fdb/flush",
        "fdb/{mac}",
        "flows",
        "link-stats",
        "link-stats/{port}",
        "links",
        "links/{port}",
        "meter-bindings",
        "meter-bindings/{vport}/{direction}",
        "meters",
        "meters/{id}",
        "ports",
        "ports/{port}",
        "redirects",
        "redirects/{src}",
        "rules",
        "rules/batch",
        "rules/{key_index}",
        "spp",
        "spp/commands",
        "spp/doctor",
        "stats",
        "trace",
        "version",
        "workers",
    ];
    assert_eq!(paths, expected.map(|path| format!("/api/v1/{path}")));
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            let uri =
                path.trim_start_matches("/api/v1/").replace("{port}", "vm1").replace("{mac}", "02:00:00:00:00:01");
            let uri = uri.replace("{direction}", "to");
            let uri = ["{vport}", "{id}", "{src}", "{key_index}", "{disk}", "{bond}"]
                .iter()
                .fold(uri, |uri, name| uri.replace(name, "1"));
            let request =
                Request::builder().method(method.to_uppercase().as_str()).uri(format!("/api/v1/{uri}?duration=0"));
            let response = api.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            assert_ne!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        }
    }
    assert!(document["components"]["schemas"]["RuleKey"]["properties"]["dip"].is_object());
    assert!(document["components"]["schemas"]["Instance"]["properties"]["staged"].is_object());
    assert!(document["components"]["schemas"]["PortSpec"]["properties"]["vlan"].is_object());
}

#[tokio::test]
async fn spp_lines_are_carried_out_or_refused() {
    let api = Api::new();
    let say = async |line: &str| api.call("POST", "spp/commands", json!({ "line": line })).await;
    let (status, answer) = say("pri; launch nfv 1").await;
    assert_eq!(
        (status, &answer["text"], &answer["value"]["proc"]["kind"]),
        (200, &json!("Launched nfv 1.\n"), &json!("nfv"))
    );
    say("nfv 1; add ring:2").await;
    let before = api.call("GET", "spp", None).await;
    assert_eq!((before.0, &before.1["instances"][1]["running"]["ports"]), (200, &json!(["ring:2"])));
    for (line, code, name, why) in [
        ("nfv 9; status", 404, "ENOENT", "sec_id 9 not found."),
        ("nfv 1; add ring:2", 400, "EINVAL", "is there already"),
        ("fly", 400, "EINVAL", "no command"),
    ] {
        let (status, error) = say(line).await;
        assert_eq!((status, error["code"].as_str()), (code, Some(name)), "{line}");
        assert!(error["error"].as_str().unwrap().contains(why), "{line}: {error}");
    }
    assert_eq!(api.call("POST", "spp/commands", json!({ "lines": "x" })).await.0, 400);
    assert_eq!(api.call("GET", "spp", None).await, before);
}

#[tokio::test]
async fn meters_rules_and_redirects_live_from_post_to_delete() {
    let api = Api::new();
    for name in ["vm0", "vm1"] {
        api.call("POST", "ports", vm(name)).await;
    }
    assert_eq!(api.call("POST", "meters", json!({ "id": 7, "rate": 1000, "type": "pps" })).await.0, 201);
    let (status, meter) = api.call("PATCH", "meters/7", json!({ "rate": 2000 })).await;
    assert_eq!((status, &meter["spec"]["rate"], &meter["burst"]), (200, &json!(2000), &json!(200)), "{meter}");
    assert_eq!(api.call("PUT", "meter-bindings/1/to", json!({ "meter": 7 })).await, (204, Value::Null));
    assert_eq!(api.call("GET", "meter-bindings", None).await.1[0]["direction"], "to");
    let rule = json!({ "key": { "dip": "10.0.0.0/8", "dl4port": "80/0xfff0" }, "action": { "vid": 1, "meter": 7 } });
    let (status, written) = api.call("POST", "rules", rule.clone()).await;
    assert_eq!((status, &written["key_index"], &written["key"]), (201, &json!(0), &rule["key"]));
    let batch = json!([{ "write": { "key_index": 9, "action": { "vid": "drop" } } }, { "delete": 0 }]);
    assert_eq!(api.call("POST", "rules/batch", batch).await, (204, Value::Null));
    let (_, rules) = api.call("GET", "rules?from=1&limit=5", None).await;
    assert_eq!((rules.as_array().unwrap().len(), &rules[0]["action"]["vid"]), (1, &json!("drop")), "{rules}");
    assert_eq!(api.call("PUT", "redirects/0", json!({ "dest": 1 })).await, (204, Value::Null));
    assert_eq!(api.call("GET", "capability", None).await.1["rules"]["free"], 65_535);
    for (method, path, body, status, code, word) in [
        ("POST", "meters", json!({ "id": 7, "rate": 1 }), 409, "EEXIST", "id"),
        ("POST", "meters", json!({ "id": 8, "rate": 0 }), 400, "EINVAL", "rate"),
        ("POST", "meters", json!({ "id": 8, "rate": -1 }), 400, "EINVAL", "rate"),
        ("POST", "meters", json!({ "id": 8, "rate": 1, "rte": 1 }), 400, "EINVAL", "rte"),
        ("DELETE", "meters/7", Value::Null, 409, "EBUSY", "7"),
        ("DELETE", "meters/8", Value::Null, 404, "ENOENT", "8"),
        ("GET", "meters/x", Value::Null, 400, "EINVAL", "x"),
        ("PUT", "meter-bindings/9/to", json!({ "meter": 7 }), 404, "ENOENT", "vport"),
        ("PUT", "meter-bindings/1/up", json!({ "meter": 7 }), 400, "EINVAL", "up"),
        ("PUT", "rules/3", json!({ "key_index": 4, "action": { "vid": 1 } }), 400, "EINVAL", "key_index"),
        ("PUT", "rules/70000", json!({ "action": { "vid": 1 } }), 400, "EINVAL", "key_index"),
        ("PUT", "rules/3", json!({ "action": { "vid": "vm1" } }), 400, "EINVAL", "vm1"),
        ("PUT", "rules/3", json!({ "key": { "dip": "10.0.0.1/8" }, "action": { "vid": 1 } }), 400, "EINVAL", "dip"),
        ("POST", "rules/batch", json!([{ "delete": 9 }, { "delete": 9 }]), 404, "ENOENT", "change 1"),
        ("POST", "rules/batch", json!([{ "remove": 9 }]), 400, "EINVAL", "remove"),
        ("PUT", "redirects/1", json!({ "dest": 0 }), 409, "ELOOP", "loop"),
        ("DELETE", "redirects/1", Value::Null, 404, "ENOENT", "1"),
        ("DELETE", "ports/vm1", Value::Null, 409, "EBUSY", "redirect"),
    ] {
        let (got, error) = api.call(method, path, Some(body).filter(|body| !body.is_null())).await;
        assert_eq!((got, error["code"].as_str()), (status, Some(code)), "{method} {path}: {error}");
        assert!(error["error"].as_str().unwrap().contains(word), "{method} {path}: {error}");
    }
    assert_eq!(api.call("GET", "rules/9", None).await.0, 200, "the batch that was refused deleted nothing");
    for path in ["redirects/0", "rules/9", "meter-bindings/1/to", "meters/7"] {
        assert_eq!(api.call("DELETE", path, None).await, (204, Value::Null), "{path}");
    }
    assert_eq!(api.call("GET", "capability", None).await.1["meters"], json!({ "total": 65_536, "free": 65_536 }));
}

#[tokio::test]
async fn a_bond_lives_from_post_to_delete() {
    let api = Api::new();
    let new = json!({ "name": "up", "members": ["eth1", "eth2"], "mtu": 1400,
        "options": { "mode": 1, "miimon": 100, "primary": "eth2", "all_slaves_active": true } });
    let (status, bond) = api.call("POST", "bonds", new.clone()).await;
    assert_eq!((status, &bond["state"], &bond["mtu"]), (201, &json!("up"), &json!(1400)), "{bond}");
    assert_eq!((&bond["info"]["mode"], &bond["info"]["active"]), (&json!("active-backup"), &json!("eth2")));
    let option = |bond: &Value, name: &str| bond["info"]["options"][name].clone();
    assert_eq!((option(&bond, "miimon"), option(&bond, "all_slaves_active")), (json!("100"), json!("1")));
    assert_eq!(api.call("POST", "bonds", new).await.0, 409);
    assert_eq!(api.call("GET", "bonds", None).await.1[0]["name"], "up");
    assert_eq!(api.call("GET", "ports/up", None).await.1["spec"]["kind"], "bond");
    let change = json!({ "options": { "updelay": 0 }, "add": ["eth3"], "remove": ["eth2"], "active": "eth3" });
    let refused = api.call("PATCH", "bonds/up", change).await.1;
    assert!(refused["error"].as_str().unwrap().contains("eth3"), "it has no member of that name yet: {refused}");
    let change = json!({ "options": { "updelay": 250 }, "add": ["eth3"], "remove": ["eth2"] });
    let (status, bond) = api.call("PATCH", "bonds/0", change).await;
    assert_eq!((status, &bond["spec"]["members"]), (200, &json!(["eth1", "eth3"])), "{bond}");
    assert_eq!(option(&bond, "updelay"), "200", "rounded");
    for (body, status, code) in [
        (json!({ "options": { "lacprate": "fast" } }), 400, "EINVAL"),
        (json!({ "options": { "lacp_rate": "fast" } }), 409, "EACCES"),
        (json!({ "options": { "mode": "4" } }), 409, "ENOTEMPTY"),
        (json!({ "options": { "ad_select": "count" } }), 409, "EBUSY"),
        (json!({ "options": { "arp_interval": 100 } }), 422, "EOPNOTSUPP"),
        (json!({ "options": { "miimon": 0, "downdelay": 100 } }), 409, "EPERM"),
        (json!({ "remove": ["eth9"] }), 404, "ENOENT"),
        (json!({ "members": [] }), 400, "EINVAL"),
    ] {
        let (answered, error) = api.call("PATCH", "bonds/up", body.clone()).await;
        assert_eq!((answered, error["code"].as_str()), (status, Some(code)), "{body}: {error}");
    }
    api.call("POST", "ports", vm("vm1")).await;
    for path in ["bonds/vm1", "bonds/1", "bonds/x"] {
        let (status, error) = api.call("DELETE", path, None).await;
        assert!(status == 404 && error["error"].as_str().unwrap().contains("there are `up`"), "{path}: {error}");
    }
    let (status, error) = api.call("GET", "links/up", None).await;
    assert!(status == 400 && error["error"].as_str().unwrap().contains("bond show"), "{error}");
    assert_eq!(api.call("DELETE", "bonds/up", None).await.0, 204);
    assert_eq!(api.call("GET", "bonds", None).await.1, json!([]));
}

#[tokio::test]
async fn reads_answer_with_their_types() {
    let api = Api::new();
    api.call("POST", "ports", vm("vm1")).await;
    api.receive_from_vm1();
    assert_eq!(api.call("GET", "stats", None).await.1["ports"][0]["rx"]["packets"], 3);
    assert_eq!(api.call("GET", "stats?port=vm1", None).await.1["ports"][0]["drops"]["mac_spoofed"]["packets"], 1);
    assert_eq!(api.call("GET", "audit", None).await.1["consistent"], true);
    assert_eq!(api.call("GET", "workers", None).await.1[0]["worker"], 0);
    assert_eq!(api.call("GET", "version", None).await.1["name"], "xswitchd");
    // The port's own address was learned.
    assert_eq!(api.call("POST", "fdb/flush", json!({})).await.1, json!({ "flushed": 1 }));
    assert_eq!(api.call("POST", "fdb/flush", json!({})).await.1, json!({ "flushed": 0 }));
    let report = api.call("POST", "trace", json!({ "port": "0", "packet": { "vlan": 5 } })).await.1;
    assert_eq!(report["steps"][0]["detail"], "60 bytes from vm1");
}

#[test]
fn the_scrape_is_clean() {
    use std::io::Write;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let api = Api::new();
    runtime.block_on(api.call("POST", "ports", vm("vm1")));
    let nic = json!({ "name": "nic", "kind": "phy", "ifname": "eth7", "spp": "phy:0" });
    runtime.block_on(api.call("POST", "ports", nic));
    let bond = json!({ "name": "bond0", "members": ["eth8", "eth9"], "options": { "mode": "802.3ad" } });
    assert_eq!(runtime.block_on(api.call("POST", "bonds", bond)).0, 201);
    for line in [
        "pri; launch vf 1",
        "vf 1; component start f 1 forward",
        "vf 1; port add phy:0 rx f",
        "vf 1; port add ring:3 tx f",
        "pri; flow create phy:0 ingress pattern eth / end actions of_pop_vlan / end",
    ] {
        runtime.block_on(api.call("POST", "spp/commands", json!({ "line": line })));
    }
    api.receive_from_vm1();
    // Nobody takes frames from the ring, so one is too many.
    receive(&api.host, "eth7", STATION, DEFAULT_RING_DEPTH as usize + 1);
    let dataplane = api.service.dataplane();
    wait("the ring is full", || dataplane.components().iter().any(|component| component.dropped.packets == 1));
    let free = format!("xswitch_umem_frames{{place=\"free\"}} {}", dataplane.frames().free);
    let text = ctl_metrics::scrape(&api.service);
    for line in [
        "xswitch_port_receive_packets_total{port=\"vm1\"} 3",
        "xswitch_port_dropped_packets_total{port=\"vm1\",reason=\"mac_spoofed\"} 1",
        &free,
        "xswitch_bond_members{port=\"bond0\"} 2",
        "xswitch_bond_member_up{port=\"bond0\",member=\"eth9\"} 1",
        "xswitch_component_rx_packets_total{component=\"vf 1/f\"} 1025",
        "xswitch_component_tx_packets_total{component=\"vf 1/f\"} 1024",
        "xswitch_component_dropped_packets_total{component=\"vf 1/f\",reason=\"ring_full\"} 1",
        "xswitch_component_dropped_bytes_total{component=\"vf 1/f\",reason=\"ring_full\"} 60",
        "xswitch_flow_rule_packets_total{port=\"phy:0\",rule=\"0\"} 1025",
        "xswitch_flow_rule_bytes_total{port=\"phy:0\",rule=\"0\"} 61500",
        "xswitch_ring_rx_packets_total{ring=\"3\"} 0",
        "xswitch_ring_tx_packets_total{ring=\"3\"} 1024",
        "xswitch_ring_tx_dropped_packets_total{ring=\"3\"} 1",
    ] {
        assert!(text.lines().any(|seen| seen == line), "{line} in\n{text}");
    }
    let mut promtool = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("promtool is installed by `make setup`");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}
