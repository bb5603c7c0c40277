//! Examples about vf processes.

use super::{Answer, Difference, Example, Ours, Processes, done};

const ONE: Processes = &[("vf", 1, &[1, 12])];
const SEVEN: Processes = &[("vf", 1, &[1, 2, 3, 4, 5, 6, 7])];

const START: &str = r#"POST /v1/vfs/1/components {"name": "fwd1", "core": 12, "type": "forward"}"#;
const START_2018: &str = r#"POST /v1/vfs/1/components {"name": "forwarder1", "core": 12, "type": "forward"}"#;
const VHOST: &str = r#"PUT /v1/vfs/1/components/fwd1/ports {"action": "attach", "port": "vhost:0", "dir": "tx"}"#;
const VHOST_2018: &str =
    r#"PUT /v1/vfs/1/components/forwarder1/ports {"action": "attach", "port": "vhost:0", "dir": "tx"}"#;
const CLASSIFIER: &str = r#"POST /v1/vfs/1/components {"name": "c", "core": 12, "type": "classifier"}"#;
const RING: &str = r#"PUT /v1/vfs/1/components/c/ports {"action": "attach", "port": "ring:0", "dir": "tx"}"#;
const TAGGED: &str = r#"PUT /v1/vfs/1/classifier_table {"action": "add", "type": "vlan", "vlan": 475, "mac_address": "FA:16:3E:7D:CC:35", "port": "ring:0"}"#;

/// Requests before the status is read. Names of components depend on the year.
macro_rules! before_status {
    ($there:literal, $back:literal, $classifier:literal, $merge:literal) => {
        &[
            concat!(r#"POST /v1/vfs/1/components {"name": ""#, $there, r#"", "core": 2, "type": "forward"}"#),
            concat!("PUT /v1/vfs/1/components/", $there, r#"/ports {"action": "attach", "port": "ring:0", "dir": "rx"}"#),
            concat!("PUT /v1/vfs/1/components/", $there, r#"/ports {"action": "attach", "port": "vhost:0", "dir": "tx"}"#),
            concat!(r#"POST /v1/vfs/1/components {"name": ""#, $back, r#"", "core": 5, "type": "forward"}"#),
            concat!("PUT /v1/vfs/1/components/", $back, r#"/ports {"action": "attach", "port": "vhost:1", "dir": "rx"}"#),
            concat!("PUT /v1/vfs/1/components/", $back, r#"/ports {"action": "attach", "port": "ring:3", "dir": "tx"}"#),
            concat!(r#"POST /v1/vfs/1/components {"name": ""#, $classifier, r#"", "core": 6, "type": "classifier_mac"}"#),
            concat!("PUT /v1/vfs/1/components/", $classifier, r#"/ports {"action": "attach", "port": "phy:0", "dir": "rx"}"#),
            concat!("PUT /v1/vfs/1/components/", $classifier, r#"/ports {"action": "attach", "port": "ring:0", "dir": "tx"}"#),
            concat!("PUT /v1/vfs/1/components/", $classifier, r#"/ports {"action": "attach", "port": "ring:2", "dir": "tx"}"#),
            concat!(r#"POST /v1/vfs/1/components {"name": ""#, $merge, r#"", "core": 7, "type": "merge"}"#),
            concat!("PUT /v1/vfs/1/components/", $merge, r#"/ports {"action": "attach", "port": "ring:1", "dir": "rx"}"#),
            concat!("PUT /v1/vfs/1/components/", $merge, r#"/ports {"action": "attach", "port": "ring:3", "dir": "rx"}"#),
            concat!("PUT /v1/vfs/1/components/", $merge, r#"/ports {"action": "attach", "port": "phy:0", "dir": "tx"}"#),
            r#"PUT /v1/vfs/1/classifier_table {"action": "add", "type": "mac", "mac_address": "FA:16:3E:7D:CC:35", "port": "ring:0"}"#,
        ]
    };
}

/// The printed status.
macro_rules! status {
    ($ports:literal, $there:literal, $back:literal, $classifier:literal, $kind:literal, $merge:literal) => {
        concat!(
            r#"{ "client-id": 1, "ports": "#,
            $ports,
            r#", "components": [
                { "core": 2, "name": ""#,
            $there,
            r#"", "type": "forward",
                  "rx_port": [{ "port": "ring:0", "vlan": { "operation": "none", "id": 0, "pcp": 0 } }],
                  "tx_port": [{ "port": "vhost:0", "vlan": { "operation": "none", "id": 0, "pcp": 0 } }] },
                { "core": 3, "type": "unuse" },
                { "core": 4, "type": "unuse" },
                { "core": 5, "name": ""#,
            $back,
            r#"", "type": "forward",
                  "rx_port": [{ "port": "vhost:1", "vlan": { "operation": "none", "id": 0, "pcp": 0 } }],
                  "tx_port": [{ "port": "ring:3", "vlan": { "operation": "none", "id": 0, "pcp": 0 } }] },
                { "core": 6, "name": ""#,
            $classifier,
            r#"", "type": ""#,
            $kind,
            r#"",
                  "rx_port": [{ "port": "phy:0", "vlan": { "operation": "none", "id": 0, "pcp": 0 } }],
                  "tx_port": [{ "port": "ring:0", "vlan": { "operation": "none", "id": 0, "pcp": 0 } },
                              { "port": "ring:2", "vlan": { "operation": "none", "id": 0, "pcp": 0 } }] },
                { "core": 7, "name": ""#,
            $merge,
            r#"", "type": "merge",
                  "rx_port": [{ "port": "ring:1", "vlan": { "operation": "none", "id": 0, "pcp": 0 } },
                              { "port": "ring:3", "vlan": { "operation": "none", "id": 0, "pcp": 0 } }],
                  "tx_port": [{ "port": "phy:0", "vlan": { "operation": "none", "id": 0, "pcp": 0 } }] }
            ], "classifier_table": [{ "type": "mac", "value": "FA:16:3E:7D:CC:35", "port": "ring:0" }] }"#
        )
    };
}

/// The printed status of 2019 and 2020.
macro_rules! latest {
    ($kind:literal) => {
        status!(
            r#"["phy:0", "phy:1", "vhost:0", "vhost:1", "ring:0", "ring:1"]"#,
            "fwd0_tx",
            "fwd1_rx",
            "cls",
            $kind,
            "mgr1"
        )
    };
}

const MASTER: Difference =
    Difference { at: "/master-lcore", ours: Ours::Json("1"), why: "it is in the code, and not in the reference" };
const KIND: Difference = Difference {
    at: "/components/4/type",
    ours: Ours::Json(r#""classifier""#),
    why: "its name since 2019; that of 2018 is for an outside spp-ctl of 2018",
};
const RINGS: Difference = Difference {
    at: "/ports",
    ours: Ours::Json(r#"["phy:0", "phy:1", "vhost:0", "vhost:1", "ring:0", "ring:1", "ring:2", "ring:3"]"#),
    why: "two rings that the printed components have are left out",
};

pub(super) const EXAMPLES: &[Example] = &[
    Example {
        name: "vf status (2020)",
        processes: SEVEN,
        before: before_status!("fwd0_tx", "fwd1_rx", "cls", "mgr1"),
        request: "GET /v1/vfs/1",
        answer: Answer::Json(latest!("classifier"), &[MASTER, RINGS]),
    },
    Example {
        name: "vf status (2019)",
        processes: SEVEN,
        before: before_status!("fwd0_tx", "fwd1_rx", "cls", "mgr1"),
        request: "GET /v1/vfs/1",
        answer: Answer::Json(latest!("classifier_mac"), &[MASTER, RINGS, KIND]),
    },
    Example {
        name: "vf status (2018)",
        processes: SEVEN,
        before: before_status!("forward_0_tx", "forward_1_rx", "classifier", "merger"),
        request: "GET /v1/vfs/1",
        answer: Answer::Json(
            status!(
                r#"["phy:0", "phy:1", "vhost:0", "vhost:1", "ring:0", "ring:1", "ring:2", "ring:3"]"#,
                "forward_0_tx",
                "forward_1_rx",
                "classifier",
                "classifier_mac",
                "merger"
            ),
            &[MASTER, KIND],
        ),
    },
    Example {
        name: "vf status with queues (manual of 2020)",
        processes: &[("vf", 1, &[1, 2, 3])],
        before: &[
            r#"POST /v1/vfs/1/components {"name": "cls", "core": 2, "type": "classifier"}"#,
            r#"PUT /v1/vfs/1/components/cls/ports {"action": "attach", "port": "phy:0nq0", "dir": "rx", "vlan": {}}"#,
            r#"PUT /v1/vfs/1/components/cls/ports {"action": "attach", "port": "phy:0nq1", "dir": "tx", "vlan": {}}"#,
            r#"PUT /v1/vfs/1/classifier_table {"action": "add", "type": "mac", "mac_address": "C0:8E:CD:38:BC:E6", "port": "phy:0nq1"}"#,
        ],
        request: "GET /v1/vfs/1",
        answer: Answer::Json(
            r#"{ "client-id": 1,
                 "ports": ["phy:0 nq 0", "phy:0 nq 1", "phy:0 nq 2", "phy:0 nq 3",
                           "phy:1 nq 0", "phy:1 nq 1", "phy:1 nq 2", "phy:1 nq 3"],
                 "components": [
                    { "core": 2, "name": "cls", "type": "classifier",
                      "rx_port": [{ "port": "phy:0 nq 0", "vlan": { "operation": "none", "id": 0, "pcp": 0 } }],
                      "tx_port": [{ "port": "phy:0 nq 1", "vlan": { "operation": "none", "id": 0, "pcp": 0 } }] },
                    { "core": 3, "type": "unuse" }],
                 "classifier_table": [{ "type": "mac", "value": "C0:8E:CD:38:BC:E6", "port": "phy:0 nq 1" }] }"#,
            &[MASTER],
        ),
    },
    done("vf start (2020)", ONE, &[], START),
    done("vf start (2018)", ONE, &[], START_2018),
    done(
        "vf start (overview of 2020)",
        SEVEN,
        &[],
        r#"POST /v1/vfs/1/components {"core": 2, "name": "fwd0_tx", "type": "forward"}"#,
    ),
    done(
        "vf start (overview of 2018)",
        SEVEN,
        &[],
        r#"POST /v1/vfs/1/components {"core": 2, "name": "forward_0_tx", "type": "forward"}"#,
    ),
    done("vf stop (2020)", ONE, &[START], "DELETE /v1/vfs/1/components/fwd1"),
    done("vf stop (2018)", ONE, &[START_2018], "DELETE /v1/vfs/1/components/forwarder1"),
    done(
        "vf attach (2020)",
        ONE,
        &[START],
        r#"PUT /v1/vfs/1/components/fwd1/ports {"action": "attach", "port": "vhost:1", "dir": "rx", "vlan": {"operation": "add", "id": 677, "pcp": 0}}"#,
    ),
    done(
        "vf detach (2020)",
        ONE,
        &[START, VHOST],
        r#"PUT /v1/vfs/1/components/fwd1/ports {"action": "detach", "port": "vhost:0", "dir": "tx"}"#,
    ),
    done(
        "vf attach (the path that the code of 2018 has)",
        ONE,
        &[START_2018],
        r#"PUT /v1/vfs/1/components/forwarder1 {"action": "attach", "port": "vhost:1", "dir": "rx", "vlan": {"operation": "add", "id": 677, "pcp": 0}}"#,
    ),
    done(
        "vf detach (the path that the code of 2018 has)",
        ONE,
        &[START_2018, VHOST_2018],
        r#"PUT /v1/vfs/1/components/forwarder1 {"action": "detach", "port": "vhost:0", "dir": "tx"}"#,
    ),
    Example {
        name: "vf attach again",
        processes: ONE,
        before: &[START, VHOST],
        request: VHOST,
        answer: Answer::Refused("command error: component fwd1 has vhost:0 on its tx side already"),
    },
    done(
        "vf detach what it does not have",
        ONE,
        &[START],
        r#"PUT /v1/vfs/1/components/fwd1/ports {"action": "detach", "port": "vhost:0", "dir": "tx"}"#,
    ),
    done("vf stop what is not there", ONE, &[], "DELETE /v1/vfs/1/components/fwd1"),
    done(
        "vf table add for a port of another component",
        ONE,
        &[START, VHOST],
        r#"PUT /v1/vfs/1/classifier_table {"action": "add", "type": "mac", "mac_address": "FA:16:3E:7D:CC:35", "port": "vhost:0"}"#,
    ),
    done(
        "vf table add",
        ONE,
        &[CLASSIFIER, RING],
        r#"PUT /v1/vfs/1/classifier_table {"action": "add", "type": "mac", "mac_address": "FA:16:3E:7D:CC:35", "port": "ring:0"}"#,
    ),
    done(
        "vf table del",
        ONE,
        &[CLASSIFIER, RING, TAGGED],
        r#"PUT /v1/vfs/1/classifier_table {"action": "del", "type": "vlan", "vlan": 475, "mac_address": "FA:16:3E:7D:CC:35", "port": "ring:0"}"#,
    ),
    done("vf exit", ONE, &[START], "DELETE /v1/vfs/1"),
];
