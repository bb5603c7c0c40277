//! Any request is answered in the API's form. A refused one changes nothing.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::rig::Rig;

const PATHS: [(&str, &str); 26] = [
    ("POST", "/v1/vfs/1/components"),
    ("DELETE", "/v1/vfs/1/components/a"),
    ("PUT", "/v1/vfs/1/components/a"),
    ("PUT", "/v1/vfs/1/components/a/ports"),
    ("PUT", "/v1/vfs/1/components/b/ports"),
    ("PUT", "/v1/vfs/1/classifier_table"),
    ("PUT", "/v1/vfs/1/flush"),
    ("DELETE", "/v1/vfs/1"),
    ("PUT", "/v1/nfvs/2/forward"),
    ("PUT", "/v1/nfvs/2/ports"),
    ("PUT", "/v1/nfvs/2/patches"),
    ("DELETE", "/v1/nfvs/2/patches"),
    ("PUT", "/v1/nfvs/2/flush"),
    ("POST", "/v1/mirrors/3/components"),
    ("PUT", "/v1/mirrors/3/components/a/ports"),
    ("PUT", "/v1/pcaps/4/capture"),
    ("PUT", "/v1/primary/forward"),
    ("PUT", "/v1/primary/ports"),
    ("PUT", "/v1/primary/patches"),
    ("PUT", "/v1/primary/launch"),
    ("DELETE", "/v1/primary/status"),
    ("POST", "/v1/primary/flow_rules/port_id/0"),
    ("POST", "/v1/primary/flow_rules/port_id/0/validate"),
    ("DELETE", "/v1/primary/flow_rules/0/port_id/0"),
    ("DELETE", "/v1/primary/flow_rules/port_id/0"),
    ("DELETE", "/v1/primary"),
];

const KEYS: [&str; 21] = [
    "action",
    "port",
    "dir",
    "vlan",
    "name",
    "core",
    "type",
    "mac_address",
    "src",
    "dst",
    "rx",
    "tx",
    "operation",
    "id",
    "pcp",
    "client_id",
    "proc_name",
    "eal",
    "app",
    "-l",
    "-c",
];

const WORDS: [&str; 33] = [
    "attach",
    "detach",
    "add",
    "del",
    "start",
    "stop",
    "on",
    "off",
    "flush",
    "discard",
    "rx",
    "tx",
    "none",
    "forward",
    "merge",
    "classifier",
    "classifier_mac",
    "mirror",
    "mac",
    "vlan",
    "default",
    "02:00:00:00:00:01",
    "phy:0",
    "phy:0nq1",
    "vhost:0",
    "ring:0",
    "ring:1",
    "pipe:0",
    "tap:1",
    "a",
    "b",
    "spp_vf",
    "spp_pcap",
];

/// The right word for a key, most of the time.
fn likely(key: &'static str) -> BoxedStrategy<Value> {
    let of = |words: &'static [&'static str]| prop::sample::select(words).prop_map(|word| json!(word)).boxed();
    match key {
        "action" => of(&WORDS[..10]),
        "port" | "src" | "dst" | "rx" | "tx" | "-c" => of(&WORDS[22..29]),
        "dir" => of(&["rx", "tx"]),
        "name" => of(&["a", "b"]),
        "core" => prop_oneof![Just(json!(2)), Just(json!(3)), Just(json!(4))].boxed(),
        "type" => of(&WORDS[13..20]),
        "mac_address" => of(&["default", "02:00:00:00:00:01"]),
        "operation" => of(&["add", "del", "none"]),
        "client_id" | "id" | "pcp" => (0_u32..9).prop_map(|number| json!(number)).boxed(),
        "proc_name" => of(&["spp_vf", "spp_pcap", "spp_nfv", "spp_mirror"]),
        "-l" => of(&["1,20", "1,21-22", "2"]),
        "vlan" => prop_oneof![
            (0_u32..5000).prop_map(|vid| json!(vid)),
            (0_u32..5000, 0_u32..9).prop_map(|(id, pcp)| json!({ "operation": "add", "id": id, "pcp": pcp })),
            Just(json!({ "operation": "del" })),
            Just(json!({}))
        ]
        .boxed(),
        "eal" | "app" => {
            prop_oneof![Just(json!({ "-l": "1,20" })), Just(json!({ "-c": "phy:1" })), Just(json!({}))].boxed()
        }
        _ => of(&WORDS),
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(|flag| json!(flag)),
        any::<i64>().prop_map(|number| json!(number)),
        any::<f64>().prop_map(|number| json!(number)),
        prop::sample::select(&WORDS[..]).prop_map(|word| json!(word)),
        "\\PC{0,12}".prop_map(|text| json!(text)),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec((prop::sample::select(&KEYS[..]), inner), 0..4).prop_map(|pairs| {
                Value::Object(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            }),
        ]
    })
}

fn rule() -> impl Strategy<Value = Value> {
    let pattern = prop::sample::select(
        &["eth", "eth dst is 02:00:00:00:00:01", "vlan vid is 7", "eth type mask 0xffff", "x"][..],
    );
    let action = prop::sample::select(&["queue index 1", "queue index 9", "of_pop_vlan", "jump group 1", "x"][..]);
    let (pattern, actions) = (prop::collection::vec(pattern, 0..3), prop::collection::vec(action, 0..3));
    (prop::sample::select(&["ingress", "egress"][..]), pattern, actions).prop_map(
        |(direction, pattern, actions)| json!({ "direction": direction, "pattern": pattern, "actions": actions }),
    )
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let field = |key: &'static str| prop_oneof![8 => likely(key).prop_map(Some), 1 => any_json().prop_map(Some), 1 => Just(None)];
    // A body with all keys. Each request takes those that it knows.
    let fields = KEYS.map(|key| field(key).prop_map(move |value| (key, value))).to_vec();
    let whole = (fields, prop_oneof![8 => rule(), 1 => any_json()]).prop_map(|(fields, rule)| {
        let known = fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        let mut map: Map<_, _> = known.collect();
        map.insert("rule".to_owned(), rule);
        Value::Object(map).to_string().into_bytes()
    });
    prop_oneof![
        12 => whole,
        2 => any_json().prop_map(|json| json.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn any_requests_are_answered_and_refusals_change_nothing(
        requests in prop::collection::vec((prop::sample::select(&PATHS[..]), body()), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let rig = Rig::with_queues("");
            for (kind, id, cores, app) in [
                ("spp_vf", 1, "1,2,3", json!({})),
                ("spp_nfv", 2, "1,6", json!({})),
                ("spp_mirror", 3, "1,4", json!({})),
                ("spp_pcap", 4, "1,8", json!({ "-c": "phy:1" })),
            ] {
                let body = json!({ "proc_name": kind, "client_id": id, "eal": { "-l": cores }, "app": app });
                rig.ok(&format!("PUT /v1/primary/launch {body}")).await;
            }
            let mut before = rig.all().await;
            for ((method, path), body) in requests {
                let answer = rig.with_type(None, method, path, body.clone()).await;
                let body = String::from_utf8_lossy(&body);
                let after = rig.all().await;
                match answer.status {
                    200 => assert_eq!(answer.content_type, "application/json", "{method} {path} {body}"),
                    204 => assert_eq!(answer.text, "", "{method} {path} {body}"),
                    400 | 404 => {
                        assert_eq!(answer.content_type, "text/plain", "{method} {path} {body}");
                        assert!(!answer.text.is_empty(), "{method} {path} {body}");
                        assert_eq!(after, before, "{method} {path} {body}: {}", answer.text);
                    }
                    status => panic!("{status}: {method} {path} {body}: {}", answer.text),
                }
                before = after;
            }
            // A restart does not change the answers. Counters and times of captures start over, so they are left out.
            let rig = rig.restart();
            for (path, said) in before.iter().filter(|(path, _)| !path.contains("primary") && !path.contains("pcaps")) {
                assert_eq!(rig.call("GET", path, "").await, *said, "{path}");
            }
        });
    }
}
