//! Examples about all processes, and about nfv, mirror and pcap.

use super::{Answer, Difference, Example, Ours, Processes, done};

const MASTER: Difference =
    Difference { at: "/master-lcore", ours: Ours::Json("1"), why: "it is in the code, and not in the reference" };
const LCORES: Difference =
    Difference { at: "/lcores", ours: Ours::Json("[1, 2]"), why: "they are in the code, and not in the reference" };

const NFV: Processes = &[("nfv", 1, &[1, 2])];
const RINGS: &[&str] = &[
    r#"PUT /v1/nfvs/1/ports {"action": "add", "port": "ring:0"}"#,
    r#"PUT /v1/nfvs/1/ports {"action": "add", "port": "ring:1"}"#,
];
const PORTS: &[&str] = &[
    r#"PUT /v1/nfvs/1/ports {"action": "add", "port": "vhost:0"}"#,
    r#"PUT /v1/nfvs/1/ports {"action": "add", "port": "ring:0"}"#,
];
const RUNNING: &[&str] = &[
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
const RUNNING_2018: &[&str] = &[
    RUNNING[0],
    RUNNING[1],
    RUNNING[2],
    RUNNING[3],
    RUNNING[4],
    RUNNING[5],
    r#"PUT /v1/nfvs/1/ports {"action": "add", "port": "ring:2"}"#,
    r#"PUT /v1/nfvs/1/ports {"action": "add", "port": "ring:3"}"#,
    RUNNING[6],
    RUNNING[7],
    RUNNING[8],
];

const MIRROR: Processes = &[("mirror", 1, &[1, 12])];
const MR1: &str = r#"POST /v1/mirrors/1/components {"name": "mr1", "core": 12, "type": "mirror"}"#;
const PCAP: Processes = &[("pcap", 1, &[1, 2, 3])];

pub(super) const EXAMPLES: &[Example] = &[
    Example {
        name: "processes",
        processes: &[("vf", 1, &[]), ("nfv", 2, &[])],
        before: &[],
        request: "GET /v1/processes",
        answer: Answer::Json(
            r#"[{ "type": "primary" }, { "type": "vf", "client-id": 1 }, { "type": "nfv", "client-id": 2 }]"#,
            &[],
        ),
    },
    Example {
        name: "processes (overview of 2020, which leaves some out)",
        processes: &[("vf", 2, &[])],
        before: &[],
        request: "GET /v1/processes",
        answer: Answer::Json(r#"[{"type": "primary"}, {"client-id": 2, "type": "vf"}]"#, &[]),
    },
    Example {
        name: "processes (overview of 2018)",
        processes: &[("vf", 1, &[]), ("vf", 2, &[])],
        before: &[],
        request: "GET /v1/processes",
        answer: Answer::Json(
            r#"[{"type": "primary"}, {"client-id": 1, "type": "vf"}, {"client-id": 2, "type": "vf"}]"#,
            &[],
        ),
    },
    Example {
        name: "cpu layout",
        processes: &[],
        before: &[],
        request: "GET /v1/cpu_layout",
        answer: Answer::Json(
            r#"[{ "cores": [{ "core_id": 1, "lcores": [2, 3] }, { "core_id": 0, "lcores": [0, 1] },
                            { "core_id": 2, "lcores": [4, 5] }, { "core_id": 3, "lcores": [6, 7] }], "socket_id": 0 }]"#,
            &[Difference { at: "", ours: Ours::Shape, why: "the CPUs are those of this machine" }],
        ),
    },
    Example {
        name: "cpu usage",
        processes: &[("primary", 0, &[0]), ("nfv", 2, &[1, 2]), ("vf", 3, &[1, 3, 4, 5])],
        before: &[],
        request: "GET /v1/cpu_usage",
        answer: Answer::Json(
            r#"[{ "proc-type": "primary", "master-lcore": 0, "lcores": [0] },
                { "proc-type": "nfv", "client-id": 2, "master-lcore": 1, "lcores": [1, 2] },
                { "proc-type": "vf", "client-id": 3, "master-lcore": 1, "lcores": [1, 3, 4, 5] }]"#,
            &[],
        ),
    },
    Example {
        name: "nfv status (2020)",
        processes: NFV,
        before: RUNNING,
        request: "GET /v1/nfvs/1",
        answer: Answer::Json(
            r#"{ "client-id": 1, "status": "running",
                 "ports": ["phy:0", "phy:1", "vhost:0", "vhost:1", "ring:0", "ring:1"],
                 "patches": [{ "src": "vhost:0", "dst": "ring:0" }, { "src": "ring:1", "dst": "vhost:1" }] }"#,
            &[MASTER, LCORES],
        ),
    },
    Example {
        name: "nfv status (2018)",
        processes: NFV,
        before: RUNNING_2018,
        request: "GET /v1/nfvs/1",
        answer: Answer::Json(
            r#"{ "client-id": 1, "status": "Running",
                 "ports": ["phy:0", "phy:1", "vhost:0", "vhost:1", "ring:0", "ring:1", "ring:2", "ring:3"],
                 "patches": [{"src": "vhost:0", "dst": "ring:0"}, {"src": "ring:1", "dst": "vhost:1"}] }"#,
            &[
                MASTER,
                LCORES,
                Difference {
                    at: "/status",
                    ours: Ours::Json(r#""running""#),
                    why: "that is how it is written since 2019",
                },
            ],
        ),
    },
    Example {
        name: "nfv status with queues (manual of 2020)",
        processes: NFV,
        before: &[RINGS[0], r#"PUT /v1/nfvs/1/patches {"src": "phy:0nq1", "dst": "ring:0"}"#],
        request: "GET /v1/nfvs/1",
        answer: Answer::Json(
            r#"{ "client-id": 1, "status": "idling",
                 "ports": ["phy:0 nq 0", "phy:0 nq 1", "phy:0 nq 2", "phy:0 nq 3",
                           "phy:1 nq 0", "phy:1 nq 1", "phy:1 nq 2", "phy:1 nq 3", "ring:0"],
                 "patches": [{ "src": "phy:0 nq 1", "dst": "ring:0" }] }"#,
            &[MASTER, LCORES],
        ),
    },
    Example {
        name: "nfv status with one lcore, which SPP's CLI shows as master and slave",
        processes: &[("nfv", 1, &[8])],
        before: &[],
        request: "GET /v1/nfvs/1",
        answer: Answer::Json(
            r#"{ "client-id": 1, "status": "idling", "master-lcore": 8, "lcores": [8, 8],
                 "ports": ["phy:0", "phy:1"], "patches": [] }"#,
            &[],
        ),
    },
    done("nfv forward", NFV, &[], r#"PUT /v1/nfvs/1/forward {"action": "start"}"#),
    done("nfv port (2020)", NFV, &[], r#"PUT /v1/nfvs/1/ports {"action": "add", "port": "ring:0"}"#),
    done("nfv port (2018)", NFV, &[], r#"PUT /v1/nfvs/1/ports {"action": "add", "port": "vhost:0"}"#),
    done("nfv patch (2020)", NFV, RINGS, r#"PUT /v1/nfvs/1/patches {"src": "ring:0", "dst": "ring:1"}"#),
    done("nfv patch (2018)", NFV, PORTS, r#"PUT /v1/nfvs/1/patches {"src": "vhost:0", "dst": "ring:0"}"#),
    done("nfv patch reset", NFV, RUNNING, "DELETE /v1/nfvs/1/patches"),
    done("nfv exit", NFV, RUNNING, "DELETE /v1/nfvs/1"),
    Example {
        name: "mirror status",
        processes: &[("mirror", 1, &[1, 2, 3])],
        before: &[
            r#"POST /v1/mirrors/1/components {"name": "mr0", "core": 2, "type": "mirror"}"#,
            r#"PUT /v1/mirrors/1/components/mr0/ports {"action": "attach", "port": "ring:0", "dir": "rx"}"#,
            r#"PUT /v1/mirrors/1/components/mr0/ports {"action": "attach", "port": "ring:1", "dir": "tx"}"#,
            r#"PUT /v1/mirrors/1/components/mr0/ports {"action": "attach", "port": "ring:2", "dir": "tx"}"#,
        ],
        request: "GET /v1/mirrors/1",
        answer: Answer::Json(
            r#"{ "client-id": 1, "ports": ["phy:0", "phy:1", "ring:0", "ring:1", "ring:2"],
                 "components": [
                    { "core": 2, "name": "mr0", "type": "mirror", "rx_port": [{ "port": "ring:0" }],
                      "tx_port": [{ "port": "ring:1" }, { "port": "ring:2" }] },
                    { "core": 3, "type": "unuse" }] }"#,
            &[MASTER],
        ),
    },
    done("mirror start", MIRROR, &[], MR1),
    done("mirror stop", MIRROR, &[MR1], "DELETE /v1/mirrors/1/components/mr1"),
    done(
        "mirror attach",
        MIRROR,
        &[MR1],
        r#"PUT /v1/mirrors/1/components/mr1/ports {"action": "attach", "port": "ring:1", "dir": "rx"}"#,
    ),
    done(
        "mirror detach",
        MIRROR,
        &[MR1, r#"PUT /v1/mirrors/1/components/mr1/ports {"action": "attach", "port": "ring:0", "dir": "tx"}"#],
        r#"PUT /v1/mirrors/1/components/mr1/ports {"action": "detach", "port": "ring:0", "dir": "tx"}"#,
    ),
    done("mirror exit", MIRROR, &[MR1], "DELETE /v1/mirrors/1"),
    Example {
        name: "pcap status",
        processes: PCAP,
        before: &[r#"PUT /v1/pcaps/1/capture {"action": "start"}"#],
        request: "GET /v1/pcaps/1",
        answer: Answer::Json(
            r#"{ "client-id": 1, "status": "running", "core": [
                    { "core": 2, "role": "receive", "rx_port": [{ "port": "phy:0" }] },
                    { "core": 3, "role": "write", "filename": "/tmp/spp_pcap.20181108110600.ring0.1.2.pcap" }] }"#,
            &[
                MASTER,
                Difference {
                    at: "/core/1/filename",
                    ours: Ours::Like("/*/spp_pcap.20*.phy0.1.1.pcap.lz4"),
                    why: "it has the port of this process and the time of its start, and is compressed",
                },
            ],
        ),
    },
    done("pcap start", PCAP, &[], r#"PUT /v1/pcaps/1/capture {"action": "start"}"#),
    done("pcap exit", PCAP, &[], "DELETE /v1/pcaps/1"),
];
