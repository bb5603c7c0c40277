//! Examples about the primary.

use super::{Answer, Difference, Example, Ours, Processes, done};

const ONE: Processes = &[("primary", 0, &[0])];
const RINGS: &[&str] = &[
    r#"PUT /v1/primary/ports {"action": "add", "port": "ring:0"}"#,
    r#"PUT /v1/primary/ports {"action": "add", "port": "ring:1"}"#,
];

/// A ring exists while somebody uses it: a pipe, or an nfv process.
const WITH_NFV: Processes = &[("primary", 0, &[0]), ("nfv", 1, &[])];
const PIPE: &str = r#"PUT /v1/primary/ports {"action": "add", "port": "pipe:0", "rx": "ring:0", "tx": "ring:1"}"#;
const RING_2: &str = r#"PUT /v1/nfvs/1/ports {"action": "add", "port": "ring:2"}"#;
const RING_3: &str = r#"PUT /v1/nfvs/1/ports {"action": "add", "port": "ring:3"}"#;

const CLEAR: &str = "DELETE /v1/primary/status";

const fn added(at: &'static str, json: &'static str) -> Difference {
    Difference { at, ours: Ours::Json(json), why: "it is in the code, and not in the reference" }
}

const MASTER: Difference = added("/master-lcore", "0");
const LCORES: Difference = added("/lcores", "[0]");
const QUEUES: [Difference; 4] = [
    added("/phy_ports/0/nof_queues", r#"{ "rx": 1, "tx": 1 }"#),
    added("/phy_ports/0/flow", "[]"),
    added("/phy_ports/1/nof_queues", r#"{ "rx": 1, "tx": 1 }"#),
    added("/phy_ports/1/flow", "[]"),
];
const PIPES: Difference = Difference {
    at: "/pipes",
    ours: Ours::Json(r#"[{ "id": 0, "rx": 0, "tx": 1 }]"#),
    why: "the reference has them since 2020; here they give the rings",
};
const START_PRIMARY: &str =
    r#"PUT /v1/primary/launch {"client_id": 0, "proc_name": "spp_primary", "eal": {}, "app": {}}"#;
const NOTHING: &str = "the primary had no status in 2018";

const CREATE: &str = r#"POST /v1/primary/flow_rules/port_id/0 { "rule": { "group": 0, "priority": 0, "direction": "ingress", "transfer": true, "pattern": [ "eth dst is 11:22:33:44:55:66 type mask 0xffff", "vlan vid is 100" ], "actions": [ "queue index 1", "of_pop_vlan" ] } }"#;
const VALIDATE: &str = r#"POST /v1/primary/flow_rules/port_id/0/validate { "rule": { "group": 0, "priority": 0, "direction": "ingress", "transfer": true, "pattern": [ "eth dst is 11:22:33:44:55:66 type mask 0xffff", "vlan vid is 100" ], "actions": [ "queue index 1", "of_pop_vlan" ] } }"#;
const DESTROYED: Answer = Answer::Json(r##"{ "result" : "success", "message" : "Flow rule #0 destroyed" }"##, &[]);
const ALL_DESTROYED: Answer = Answer::Json(r#"{ "result" : "success", "message" : "Flow rule all destroyed" }"#, &[]);

pub(super) const EXAMPLES: &[Example] = &[
    Example {
        name: "primary status (2020)",
        processes: WITH_NFV,
        before: &[PIPE, RING_2, CLEAR],
        request: "GET /v1/primary/status",
        answer: Answer::Json(
            r#"{ "lcores": [0],
                 "phy_ports": [{ "id": 0, "rx": 0, "tx": 0, "tx_drop": 0, "eth": "56:48:4f:53:54:00" },
                               { "id": 1, "rx": 0, "tx": 0, "tx_drop": 0, "eth": "56:48:4f:53:54:01" }],
                 "ring_ports": [{ "id": 0, "rx": 0, "rx_drop": 0, "tx": 0, "tx_drop": 0 },
                                { "id": 1, "rx": 0, "rx_drop": 0, "tx": 0, "tx_drop": 0 },
                                { "id": 2, "rx": 0, "rx_drop": 0, "tx": 0, "tx_drop": 0 }],
                 "pipes": [{ "id": 0, "rx": 0, "tx": 1 }] }"#,
            &[MASTER, QUEUES[0], QUEUES[1], QUEUES[2], QUEUES[3]],
        ),
    },
    Example {
        name: "primary status (2019)",
        processes: WITH_NFV,
        before: &[PIPE, RING_2, RING_3, CLEAR],
        request: "GET /v1/primary/status",
        answer: Answer::Json(
            r#"{ "phy_ports": [{ "id": 0, "rx": 0, "tx": 0, "tx_drop": 0, "eth": "56:48:4f:53:54:00" },
                               { "id": 1, "rx": 0, "tx": 0, "tx_drop": 0, "eth": "56:48:4f:53:54:01" }],
                 "ring_ports": [{ "id": 0, "rx": 0, "rx_drop": 0, "tx": 0, "tx_drop": 0 },
                                { "id": 1, "rx": 0, "rx_drop": 0, "tx": 0, "tx_drop": 0 },
                                { "id": 2, "rx": 0, "rx_drop": 0, "tx": 0, "tx_drop": 0 },
                                { "id": 3, "rx": 0, "rx_drop": 0, "tx": 0, "tx_drop": 0 }] }"#,
            &[MASTER, LCORES, QUEUES[0], QUEUES[1], QUEUES[2], QUEUES[3], PIPES],
        ),
    },
    Example {
        name: "primary status (2018)",
        processes: ONE,
        before: &[CLEAR],
        request: "GET /v1/primary/status",
        answer: Answer::Json(
            "{}",
            &[
                Difference { at: "/master-lcore", ours: Ours::Json("0"), why: NOTHING },
                Difference { at: "/lcores", ours: Ours::Json("[0]"), why: NOTHING },
                Difference {
                    at: "/phy_ports",
                    ours: Ours::Json(
                        r#"[{ "id": 0, "rx": 0, "tx": 0, "tx_drop": 0, "eth": "56:48:4f:53:54:00", "nof_queues": { "rx": 1, "tx": 1 }, "flow": [] },
                            { "id": 1, "rx": 0, "tx": 0, "tx_drop": 0, "eth": "56:48:4f:53:54:01", "nof_queues": { "rx": 1, "tx": 1 }, "flow": [] }]"#,
                    ),
                    why: NOTHING,
                },
                Difference { at: "/ring_ports", ours: Ours::Json("[]"), why: NOTHING },
                Difference { at: "/pipes", ours: Ours::Json("[]"), why: NOTHING },
            ],
        ),
    },
    done("primary clear", ONE, &[], CLEAR),
    done("primary forward", ONE, &[], r#"PUT /v1/primary/forward {"action": "start"}"#),
    done("primary port", ONE, &[], RINGS[0]),
    done("primary pipe", ONE, &[], PIPE),
    done("primary patch", ONE, RINGS, r#"PUT /v1/primary/patches {"src": "ring:0", "dst": "ring:1"}"#),
    done("primary patch reset", ONE, RINGS, "DELETE /v1/primary/patches"),
    done("primary exit", ONE, &[], "DELETE /v1/primary"),
    done("primary start again (not SPP's)", ONE, &["DELETE /v1/primary"], START_PRIMARY),
    Example {
        name: "primary start while there is one (not SPP's)",
        processes: ONE,
        before: &[],
        request: START_PRIMARY,
        answer: Answer::Refused("command error: there is a primary already"),
    },
    Example {
        name: "memif",
        processes: WITH_NFV,
        before: &[],
        request: r#"PUT /v1/nfvs/1/ports {"action": "add", "port": "memif:0"}"#,
        answer: Answer::Refused(
            "command error: memif:0: memif is not supported here. A ring (ring:0) connects components, a vhost port (vhost:0) a VM or a container",
        ),
    },
    Example {
        name: "launch nfv, with quotes that are no JSON's",
        processes: ONE,
        before: &[],
        request: r#"PUT /v1/primary/launch {'proc_name': 'spp_nfv', 'client_id': '1', 'eal': {'-m': '512', '-l': '1,2', '--proc-type': 'secondary'}, 'app': {'-s': '192.168.11.59:6666', '-n': '1'}}"#,
        answer: Answer::Refused("Not in json format."),
    },
    done(
        "launch nfv",
        ONE,
        &[],
        r#"PUT /v1/primary/launch {"proc_name": "spp_nfv", "client_id": "1", "eal": {"-m": "512", "-l": "1,2", "--proc-type": "secondary"}, "app": {"-s": "192.168.11.59:6666", "-n": "1"}}"#,
    ),
    done(
        "launch vf",
        ONE,
        &[],
        r#"PUT /v1/primary/launch {"proc_name": "spp_vf", "client_id": "2", "eal": {"-m": "512", "-l": "1,4-7", "--proc-type": "secondary"}, "app": {"-s": "192.168.11.59:6666", "--client-id": "2"}}"#,
    ),
    Example {
        name: "flow validate",
        processes: ONE,
        before: &[],
        request: VALIDATE,
        answer: Answer::Json(r#"{ "result" : "success", "message" : "Flow rule validated" }"#, &[]),
    },
    Example {
        name: "flow create",
        processes: ONE,
        before: &[],
        request: CREATE,
        answer: Answer::Json(r##"{ "result" : "success", "message" : "Flow rule #0 created", "rule_id" : "0" }"##, &[]),
    },
    Example {
        name: "flow destroy all",
        processes: ONE,
        before: &[CREATE],
        request: "DELETE /v1/primary/flow_rule/port_id/0",
        answer: ALL_DESTROYED,
    },
    Example {
        name: "flow destroy all (the path that the code has)",
        processes: ONE,
        before: &[CREATE],
        request: "DELETE /v1/primary/flow_rules/port_id/0",
        answer: ALL_DESTROYED,
    },
    Example {
        name: "flow destroy",
        processes: ONE,
        before: &[CREATE],
        request: "DELETE /v1/primary/flow_rules/0/port_id/0",
        answer: DESTROYED,
    },
    Example {
        name: "flow destroy (the path of the heading)",
        processes: ONE,
        before: &[CREATE],
        request: "DELETE /v1/primary/flow_rule/0/port_id/0",
        answer: DESTROYED,
    },
];
