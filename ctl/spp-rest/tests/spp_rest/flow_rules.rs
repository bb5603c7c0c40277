//! Flow rules: numbers, refusals, what the status shows, and restarts.

use serde_json::{Value, json};

use crate::rig::{Answer, Rig};

fn rule(pattern: &[&str], actions: &[&str]) -> String {
    json!({ "rule": { "direction": "ingress", "pattern": pattern, "actions": actions } }).to_string()
}

async fn create(rig: &Rig, body: &str) -> Value {
    let answer = rig.call("POST", "/v1/primary/flow_rules/port_id/0", body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn delete(rig: &Rig, path: &str) -> Value {
    let Answer { status, text, .. } = rig.call("DELETE", &format!("/v1/primary/{path}"), "").await;
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

async fn ids(rig: &Rig) -> Vec<u64> {
    let status = rig.get("/v1/primary/status").await;
    let flow = status["phy_ports"][0]["flow"].as_array().unwrap().clone();
    flow.iter().map(|rule| rule["rule_id"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn rules_are_numbered_per_port_and_deleted_by_number() {
    let rig = Rig::with_queues("");
    let one = rule(&["eth dst is 10:22:33:44:55:66"], &["queue index 1"]);
    for id in 0..3 {
        let message = format!("Flow rule #{id} created");
        let made = json!({ "result": "success", "message": message, "rule_id": id.to_string() });
        assert_eq!(create(&rig, &one).await, made);
    }
    let other = rig.call("POST", "/v1/primary/flow_rules/port_id/1", &one).await.json();
    assert_eq!(other["rule_id"], "0");
    let gone = json!({ "result": "success", "message": "Flow rule #1 destroyed" });
    assert_eq!(delete(&rig, "flow_rules/1/port_id/0").await, gone);
    let missing = json!({ "result": "error", "message": "Flow rule #1 not found" });
    assert_eq!(delete(&rig, "flow_rule/1/port_id/0").await, missing);
    assert_eq!(ids(&rig).await, [0, 2]);
    assert_eq!(create(&rig, &one).await["rule_id"], "3");
    assert_eq!(delete(&rig, "flow_rules/port_id/0").await["message"], "Flow rule all destroyed");
    assert_eq!(ids(&rig).await, [0; 0]);
    assert_eq!(create(&rig, &one).await["rule_id"], "0");
    assert_eq!(rig.get("/v1/primary/status").await["phy_ports"][1]["flow"][0]["rule_id"], 0);
}

#[tokio::test]
async fn a_rule_that_cannot_be_is_told_in_the_answer() {
    let rig = Rig::with_queues("");
    for (body, word) in [
        (rule(&["ipv4"], &["queue index 0"]), "pattern: `ipv4`"),
        (rule(&[], &["queue index 0"]), "no item"),
        (rule(&["eth"], &["drop"]), "actions: `drop`"),
        (rule(&["eth"], &["queue index 4"]), "phy:0 has 4, numbered from 0"),
        (rule(&["eth"], &["jump group 0"]), "jump group 0"),
    ] {
        for (path, what) in [("/validate", "Flow validate error: "), ("", "Flow create error: ")] {
            let answer = rig.call("POST", &format!("/v1/primary/flow_rules/port_id/0{path}"), &body).await;
            let json = answer.json();
            assert_eq!((answer.status, &json["result"]), (200, &json!("error")), "{body}");
            let message = json["message"].as_str().unwrap();
            assert!(message.starts_with(what) && message.contains(word), "{body}: {message}");
            assert!(json.get("rule_id").is_none());
        }
    }
    let nowhere = rig.call("POST", "/v1/primary/flow_rules/port_id/7", &rule(&["eth"], &["queue index 0"])).await;
    assert_eq!(nowhere.json(), json!({ "result": "error", "message": "Flow create error: Invalid port 7" }));
    assert_eq!(delete(&rig, "flow_rules/port_id/7").await, json!({ "result": "error", "message": "Invalid port 7" }));
    assert_eq!(ids(&rig).await, [0; 0]);
}

#[tokio::test]
async fn a_body_without_the_form_of_a_rule_is_a_400() {
    let rig = Rig::with_queues("");
    for (rule, text) in [
        (json!({}), "key(direction) required."),
        (json!({ "group": "1" }), "invalid key(group): 1."),
        (json!({ "group": -1 }), "invalid key(group): -1."),
        (json!({ "priority": 1.5 }), "invalid key(priority): 1.5."),
        (json!({ "direction": "up" }), "invalid key(direction): up."),
        (json!({ "direction": "ingress", "transfer": 1 }), "invalid key(transfer): 1."),
        (json!({ "direction": "ingress" }), "key(pattern) required."),
        (json!({ "direction": "ingress", "pattern": "eth" }), "invalid key(pattern): eth."),
        (json!({ "direction": "ingress", "pattern": ["eth", null] }), "invalid key(pattern): ['eth', None]."),
        (json!({ "direction": "ingress", "pattern": ["eth"] }), "key(actions) required."),
        (json!({ "direction": "ingress", "pattern": ["eth"], "actions": [7] }), "invalid key(actions): [7]."),
    ] {
        let body = json!({ "rule": rule });
        rig.refused(&format!("POST /v1/primary/flow_rules/port_id/0 {body}"), 400, text).await;
        rig.refused(&format!("POST /v1/primary/flow_rule/port_id/0/validate {body}"), 400, text).await;
    }
    rig.refused("POST /v1/primary/flow_rules/port_id/0 {}", 400, "key(rule) required.").await;
    rig.refused(r#"POST /v1/primary/flow_rules/port_id/0 {"rule": []}"#, 400, "invalid key(rule): [].").await;
}

#[tokio::test]
async fn rules_outlive_the_daemon_and_go_with_the_primary() {
    let rig = Rig::with_queues("");
    create(&rig, &rule(&["eth", "vlan vid is 100"], &["queue index 1", "of_pop_vlan"])).await;
    create(&rig, &rule(&["eth"], &["jump group 1"])).await;
    let before = rig.get("/v1/primary/status").await;
    let rig = rig.restart();
    let after = rig.get("/v1/primary/status").await;
    assert_eq!(after["phy_ports"][0]["flow"], before["phy_ports"][0]["flow"]);
    assert_eq!(ids(&rig).await, [0, 1]);
    assert_eq!(create(&rig, &rule(&["eth"], &["queue index 0"])).await["rule_id"], "2");
    rig.ok("DELETE /v1/primary").await;
    let rig = rig.restart();
    assert_eq!(ids(&rig).await, [0; 0]);
}
