//! Commands in JSON.

use super::*;

/// The answer to a request.
fn ask(link: &mut Link, request: &Value) -> Value {
    serde_json::from_str(&link.send(request.to_string().as_bytes())).unwrap()
}

/// The results of a request's commands: `success`, `invalid` or the error's message.
fn results(answer: &Value) -> Vec<&str> {
    let results = answer["results"].as_array().unwrap().iter();
    results.map(|one| one["error_details"]["message"].as_str().or(one["result"].as_str()).unwrap()).collect()
}

/// A status without what only the command library is told.
fn as_by_words(info: &Value) -> Value {
    let mut info = info.clone();
    info.as_object_mut().unwrap().remove("counts");
    for core in info["core"].as_array_mut().into_iter().flatten() {
        core.as_object_mut().unwrap().remove("status");
    }
    info
}

fn commands(commands: Value) -> Value {
    json!({"commands": commands})
}

/// A request for a classifier on core 1, a forward on core 2, and a flush.
fn set_up() -> Value {
    commands(json!([
        {"command": "add", "ports": ["ring0", "ring1"]},
        {"command": "component", "core": 1, "type": "classifier_mac", "rx_port": "nic0", "tx_port": ["ring0", "ring1"]},
        {"command": "component", "core": 2, "type": "forward", "rx_port": ["ring:0"], "tx_port": ["ring:5"]},
        {"command": "flush"},
        {"command": "classifier_table", "type": "mac", "value": "52:54:00:12:34:56", "port": "ring0"},
        {"command": "classifier_table", "type": "mac", "value": "default", "port": "ring1"},
        {"command": "forward"},
    ]))
}

#[test]
fn a_vf_does_what_a_request_says_and_tells_all_of_it_at_once() {
    let rig = Rig::new();
    let mut vf = rig.link(ProcType::Vf);
    let answer = ask(&mut vf, &set_up());
    assert_eq!(answer, json!({"results": vec![json!({"result": "success"}); 7]}));
    let answer = ask(&mut vf, &commands(json!([{"command": "process"}, {"command": "status"}])));
    assert_eq!(results(&answer), ["success", "success"]);
    assert_eq!((&answer["client_id"], &answer["process_type"]), (&json!(1), &json!("vf")));
    assert_eq!(as_by_words(&answer["info"]), vf.ask("status").unwrap()["info"]);
    let info = &answer["info"];
    assert_eq!(info["counts"], json!({"phy": 1, "vhost": 0, "ring": 3}));
    assert_eq!((&info["core"][0]["status"], &info["core"][1]["status"]), (&json!("running"), &json!("running")));
    assert_eq!((&info["core"][0]["type"], &info["core"][1]["type"]), (&json!("classifier"), &json!("forward")));
    assert_eq!(info["core"][0]["rx_port"][0]["port"], "phy:0");
    let entry = |value: &str, port: &str| json!({"type": "mac", "value": value, "port": port});
    assert_eq!(info["classifier_table"], json!([entry("52:54:00:12:34:56", "ring:0"), entry("default", "ring:1")]));

    let freed = commands(json!([
        {"command": "flush", "mode": "on"},
        {"command": "classifier_table", "type": "mac", "value": "52:54:00:12:34:56", "port": "unuse"},
        {"command": "component", "core": 2, "type": "none"},
        {"command": "status"},
        {"command": "flush"},
        {"command": "stop"},
    ]));
    let answer = ask(&mut vf, &freed);
    assert_eq!(results(&answer), ["success"; 6]);
    assert_eq!(answer["info"]["core"], info["core"], "held until the flush");
    let states = |answer: &Value| -> Vec<Value> {
        answer["info"]["core"].as_array().unwrap().iter().map(|core| core["status"].clone()).collect()
    };
    let after = ask(&mut vf, &commands(json!([{"command": "status"}])));
    assert_eq!(states(&after), ["idling", "idling"], "stopped, and unused");
    assert_eq!(answer["info"]["classifier_table"], info["classifier_table"]);
    let after = vf.ask("status").unwrap()["info"].take();
    assert_eq!(after["core"][1]["type"], "unuse");
    assert_eq!(after["classifier_table"], json!([entry("default", "ring:1")]));
}

#[test]
fn the_documents_example_is_taken() {
    let document = include_str!("../../../../docs/spp.md");
    let (_, section) = document.split_once("### Commands in JSON").unwrap();
    let mut blocks = section.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let rig = Rig::new();
    let answer: Value = serde_json::from_str(&rig.link(ProcType::Vf).send(blocks.next().unwrap().as_bytes())).unwrap();
    assert_eq!(results(&answer), ["success"; 3], "{answer}");
    let shown: Value = serde_json::from_str(blocks.next().unwrap()).unwrap();
    assert_eq!(results(&shown), ["success", "…", "invalid"]);
}

#[test]
fn what_can_t_be_read_does_nothing_and_what_fails_ends_the_request() {
    let rig = Rig::new();
    let mut vf = rig.link(ProcType::Vf);
    let before = vf.ask("status").unwrap();
    let start = json!({"command": "component", "core": 1, "type": "forward"});
    for (wrong, text) in [
        (json!({"command": "patch", "src": "phy:0"}), "unknown variant `patch`"),
        (json!({"command": "component", "core": 1}), "missing field `type`"),
        (json!({"command": "component", "core": -1, "type": "forward"}), "invalid value"),
        (json!({"command": "component", "core": 2, "type": "bridge"}), "Invalid value (component type)"),
        (json!({"command": "component", "core": 2, "type": "forward", "rx_ports": []}), "unknown field `rx_ports`"),
        (json!({"command": "add", "ports": "ring"}), "Invalid value (port)"),
        (json!({"command": "add", "ports": ["ring0\nexit"]}), "Invalid value (port)"),
        (
            json!({"command": "classifier_table", "type": "mac", "value": "default ring:0", "port": "ring0"}),
            "is not one word",
        ),
        (
            json!({"command": "classifier_table", "type": "ip", "value": "default", "port": "ring0"}),
            "Invalid value (type)",
        ),
        (json!("flush"), "Wrong message format"),
    ] {
        let answer = ask(&mut vf, &commands(json!([start, wrong, {"command": "flush"}])));
        let [first, why, last] = results(&answer)[..] else { panic!("{answer}") };
        assert!(first == "invalid" && last == "invalid" && why.contains(text), "{answer}");
        assert_eq!(vf.ask("status"), Ok(before.clone()), "{wrong}");
    }
    let free = json!({"command": "classifier_table", "type": "mac", "value": "default", "port": "unuse"});
    let answer = ask(&mut vf, &commands(json!([start, free, {"command": "flush"}, {"command": "exit"}])));
    let [first, why, flush, exit] = results(&answer)[..] else { panic!("{answer}") };
    assert!(why.contains("no entry"), "{answer}");
    assert_eq!((first, flush, exit), ("success", "invalid", "invalid"));
    assert!(rig.spp.instance(VF).is_ok());
}

#[test]
fn a_request_of_another_form_is_answered_and_the_connection_stays() {
    let rig = Rig::new();
    let mut vf = rig.link(ProcType::Vf);
    let many = commands(json!(vec![json!({"command": "status"}); 33])).to_string();
    let two = commands(json!([{"command": "flush"}])).to_string().repeat(2);
    for request in ["{}", "{\"commands\": []}", "{\"commands\": {}}", "{\"commands\": 1, ", "{commands}", &many, &two] {
        let answer: Value = serde_json::from_str(&vf.send(request.as_bytes())).unwrap();
        assert!(results(&answer)[0].starts_with("Wrong message format"), "{request}: {answer}");
    }
    vf.ask("status").unwrap();
}

#[test]
fn a_request_that_comes_in_parts_or_with_zeros_behind_it_is_one() {
    let rig = Rig::new();
    let mut vf = rig.link(ProcType::Vf);
    let pretty = format!("\n{:#}\n", set_up());
    let (first, rest) = pretty.split_at(pretty.len() / 2);
    vf.stream().write_all(first.as_bytes()).unwrap();
    sleep(Duration::from_millis(50));
    let answer: Value = serde_json::from_str(&vf.send(rest.as_bytes())).unwrap();
    assert_eq!(results(&answer), ["success"; 7]);
    let padded = commands(json!([{"command": "process"}])).to_string() + "\0\0\0";
    let answer: Value = serde_json::from_str(&vf.send(padded.as_bytes())).unwrap();
    assert_eq!(answer["client_id"], 1);
}

#[test]
fn an_nfv_and_a_primary_take_them_too() {
    let rig = Rig::new();
    let mut nfv = rig.link(ProcType::Nfv);
    let answer = ask(
        &mut nfv,
        &commands(json!([{"command": "add", "port": "ring0"}, {"command": "forward"}, {"command": "status"}])),
    );
    assert_eq!(results(&answer), ["success"; 3]);
    assert_eq!(as_by_words(&answer["info"])["ports"], nfv.ask_nfv("status").unwrap()["ports"]);
    assert_eq!(answer["info"]["counts"], json!({"phy": 1, "vhost": 0, "ring": 1}));
    let core = json!([{"core": 3, "type": "unuse", "rx_port": [], "tx_port": [], "status": "idling"}]);
    assert_eq!(answer["info"]["core"], core);
    let patch = commands(json!([{"command": "status"}]));
    nfv.ask_nfv("patch phy:0 ring:0").unwrap();
    let answer_2 = ask(&mut nfv, &patch);
    let core = json!([{"core": 3, "type": "forward", "rx_port": [{"port": "phy:0"}], "tx_port": [{"port": "ring:0"}], "status": "running"}]);
    assert_eq!(answer_2["info"]["core"], core);
    assert_eq!((&answer["info"]["status"], &answer["info"]["ports"]), (&json!("running"), &json!(["phy:0", "ring:0"])));
    let component = json!({"command": "component", "core": 1, "type": "forward"});
    let answer = ask(&mut nfv, &commands(json!([component])));
    assert!(results(&answer)[0].starts_with("Unknown command(component)"), "{answer}");
    let mut primary = rig.ctl.accept_primary();
    let answer = ask(&mut primary, &commands(json!([{"command": "status"}])));
    assert_eq!((results(&answer), answer["info"]["lcores"].is_array()), (vec!["success"], true), "{answer}");
    let answer = ask(&mut nfv, &commands(json!([{"command": "exit"}, {"command": "status"}])));
    assert_eq!(results(&answer), ["success", "invalid"]);
    assert!(nfv.closes());
}
