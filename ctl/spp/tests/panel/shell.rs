//! Lines on a made-up host: answers, refusals, and recipes that make the same state again.

use std::sync::Arc;

use ctl_service::state::Store;
use ctl_spp::shell::execute;
use ctl_spp::*;
use kit::{VF_AND_NFV as TWO, spp_of, tables, with_queues};
use proptest::prelude::*;

/// Configuration of a VM's port.
const VM: &str = r#"
    [[port]]
    name = "vm"
    kind = "guest"
    spp = "vhost:0"
"#;

pub(super) fn spp() -> Arc<Spp> {
    // Lines name the second queue of the NIC too.
    spp_of(&format!("{}{VM}", with_queues(TWO, 2)), Store::in_memory(tables()))
}

pub(super) fn say(spp: &Spp, line: &str) -> String {
    execute(spp, line).unwrap_or_else(|error| panic!("{line}: {error}")).text
}

pub(super) fn say_all(spp: &Spp, lines: &[&str]) {
    for line in lines {
        say(spp, line);
    }
}

const VF: [&str; 9] = [
    "vf 1; component start cls 1 classifier_mac",
    "vf 1; port add phy:0 rx cls",
    "vf 1; port add ring:0 tx cls",
    "vf 1; port add ring:1 tx cls add_vlantag 101 3",
    "vf 1; classifier_table add mac 52:54:00:01:00:01 ring:0",
    "vf 1; classifier_table add vlan 101 default ring:1",
    "vf 1; component start fwd 2 forward",
    "vf 1; port add ring:0 rx fwd del_vlantag",
    "vf 1; port add vhost:0 tx fwd",
];

#[test]
fn answers_are_what_spps_cli_prints() {
    let spp = spp();
    for (line, answer) in [
        ("", ""),
        ("# nothing", ""),
        ("vf 1; component start fw1 1 forward", "Succeeded to start component 'fw1' on core:1\n"),
        ("vf 1; port add phy:0 rx fw1", "Succeeded to add port\n"),
        ("vf 1; port add vhost:0 tx fw1 add_vlantag 101 3", "Succeeded to add port\n"),
        ("vf 1; port del phy:0 rx fw1", "Succeeded to del port\n"),
        ("vf 1; port add phy:0 nq 1 rx fw1", "Succeeded to add port\n"),
        ("vf 1; component stop fw1", "Succeeded to delete component 'fw1'\n"),
        ("vf 1; component start c 1 classifier", "Succeeded to start component 'c' on core:1\n"),
        ("vf 1; port add ring:0 tx c", "Succeeded to add port\n"),
        ("vf 1; classifier_table add mac default ring:0", "Succeeded to add\n"),
        ("vf 1; classifier_table del mac default ring:0", "Succeeded to del\n"),
        ("nfv 2; add ring:5", "Add ring:5.\n"),
        ("sec 2; add phy:0", "Add phy:0.\n"),
        ("sec 2;patch phy:0 ring:5", "Patch ports (phy:0 -> ring:5).\n"),
        ("nfv 2; forward", "Start forwarding.\n"),
        ("nfv 2; stop", "Stop forwarding.\n"),
        ("nfv 2; patch reset", "Clear all of patches.\n"),
        ("nfv 2; del ring:5", "Delete ring:5.\n"),
        ("pri; add pipe:0 ring:8 ring:9", "Add pipe:0.\n"),
        ("pri; clear", "Clear port statistics.\n"),
        ("pri; launch mirror 3 -l 0,5 -m 512 -- --client-id 3 -s 127.0.0.1:6666", "Launched mirror 3.\n"),
        ("mirror 3; component start m 5 mirror", "Succeeded to start component 'm' on core:5\n"),
        ("pri; launch pcap 4 -l 0,6 -- -c phy:0 --fsize 1048576", "Launched pcap 4.\n"),
        ("pcap 4; start", "Start packet capture.\n"),
        ("pcap 4; stop", "Stop packet capture.\n"),
        ("pcap 4; exit", "Exit pcap 4.\n"),
        ("vf 1; flush on", "Changes are held until flush.\n"),
        ("vf 1; component stop c", "Succeeded to delete component 'c'; it is held until flush.\n"),
        ("vf 1; flush", "Flushed.\n"),
        (
            "vf 1; component start c 1 classifier",
            "Succeeded to start component 'c' on core:1; it is held until flush.\n",
        ),
        ("vf 1; flush discard", "Discarded.\n"),
        ("vf 1; flush off", "Changes come into force at once.\n"),
        ("bye sec", "Closing secondary ...\nExit vf 1.\nExit nfv 2.\nExit mirror 3.\n"),
        ("bye all", "Closing secondary ...\nClosing primary ...\nExit primary\n"),
    ] {
        assert_eq!(say(&spp, line), answer, "{line}");
    }
}

#[test]
fn status_shows_what_there_is() {
    let spp = spp();
    assert_eq!(
        say(&spp, "status"),
        "- spp-ctl:\n  - address: 127.0.0.1:7777\n- primary:\n  - status: running\n- secondary:\n  - processes:\n    1: nfv:2\n    2: vf:1\n"
    );
    assert_eq!(say(&spp, "server list"), "  1: 127.0.0.1:7777 *\n");
    say_all(&spp, &VF);
    say_all(&spp, &["nfv 2; add ring:5", "nfv 2; add vhost:0", "nfv 2; patch vhost:0 ring:5"]);
    assert_eq!(
        say(&spp, "vf 1; status"),
        "\
Basic Information:
  - client-id: 1
  - ports: [phy:0, vhost:0, ring:0, ring:1]
  - lcore_ids:
    - master: 0
    - slaves: [1, 2]
Classifier Table:
  - 52:54:00:01:00:01, ring:0
  - 101/default, ring:1
Components:
  - core:1 'cls' (type: classifier)
    - rx: phy:0
    - tx: ring:0
    - tx: ring:1 (add VLAN 101 PCP 3)
  - core:2 'fwd' (type: forward)
    - rx: ring:0 (del VLAN)
    - tx: vhost:0
"
    );
    assert_eq!(
        say(&spp, "nfv 2; status"),
        "- status: idling\n- lcore_ids:\n  - master: 0\n- ports:\n  - phy:0 nq 0\n  - phy:0 nq 1\n  - ring:5\n  - vhost:0 -> ring:5\n"
    );
    say_all(&spp, &["vf 1; flush on", "vf 1; component stop fwd"]);
    let held = say(&spp, "vf 1; status");
    assert!(held.contains("'fwd'") && held.ends_with("  - core:2 '' (type: unuse)\n"), "{held}");
    let primary = say(&spp, "pri; status");
    for part in
        ["- forwarder:\n  - status: idling\n", "  - physical ports:\n", "  - vhost ports:\n", "  - ring ports:\n"]
    {
        assert!(primary.contains(part), "{part} in {primary}");
    }
    assert_eq!(execute(&spp, "vf 1; status").unwrap().value["proc"]["kind"], "vf");
    assert_eq!(execute(&spp, "pri; status").unwrap().value["rings"].as_array().unwrap().len(), 3);
    assert_eq!(execute(&spp, "status").unwrap().value["processes"][1]["client-id"], 1);
}

#[test]
fn nics_can_be_patched_without_being_added() {
    let spp = spp();
    let queues = "- status: idling\n- lcore_ids:\n  - master: 0\n- ports:\n  - phy:0 nq 0\n  - phy:0 nq 1\n";
    assert_eq!(say(&spp, "nfv 2; status"), queues);
    // A loop, as in SPP's use cases.
    assert_eq!(say(&spp, "nfv 2; patch phy:0 phy:0"), "Patch ports (phy:0 -> phy:0).\n");
    assert!(say(&spp, "nfv 2; status").ends_with("- ports:\n  - phy:0 -> phy:0\n"));
    say_all(&spp, &["nfv 2; patch reset", "nfv 2; add ring:0", "nfv 2; patch ring:0 phy:0", "nfv 2; forward"]);
    assert!(say(&spp, "nfv 2; status").ends_with("- ports:\n  - phy:0\n  - ring:0 -> phy:0\n"));
    assert_saved(&spp).unwrap();
    assert!(say(&spp, "pri; status").contains("- forwarder:\n  - status: idling\n  - ports:\n    - phy:0 nq 0\n"));
    // A missing port is still refused, and so is one that must be added first.
    for (line, why) in
        [("nfv 2; patch phy:7 ring:0", "phy:7 is not there"), ("nfv 2; patch vhost:0 phy:0", "add it first")]
    {
        let told = execute(&spp, line).unwrap_err().to_string();
        assert!(told.contains(why), "{line}: {told}");
    }
}

#[test]
fn a_component_may_be_stopped_in_the_words_of_spps_documents() {
    let spp = spp();
    for line in ["vf 1; component stop cls 1 classifier_mac", "vf 1; component stop cls"] {
        say_all(&spp, &VF);
        assert_eq!(say(&spp, line), "Succeeded to delete component 'cls'\n");
        say_all(&spp, &["vf 1; component stop fwd", "vf 1; classifier_table del mac 52:54:00:01:00:01 unuse"]);
        say(&spp, "vf 1; classifier_table del vlan 101 default unuse");
    }
    assert!(execute(&spp, "vf 1; component stop cls 1 now").is_err());
}

#[test]
fn an_instance_with_its_master_core_alone_says_what_it_lacks() {
    let spp = spp();
    say(&spp, "pri; launch vf 8 -l 7");
    for core in [7, 8] {
        let told = execute(&spp, &format!("vf 8; component start f {core} forward")).unwrap_err().to_string();
        assert!(told.contains("vf 8 has only its master core, 7"), "{told}");
    }
}

/// The steps of a command library, in the order of its document: add ports, set what cores do, set entries. Nothing
/// takes effect before the flush. A core is set again only when it is idle, an entry only when it is unused.
#[test]
fn the_command_librarys_way_is_understood_from_end_to_end() {
    let spp = spp();
    say(&spp, "vf 1; flush on");
    say_all(
        &spp,
        &["vf 1; add ring:0", "vf 1; add vhost:0", "vf 1; component 1 classifier rx phy:0 tx ring:0 vhost:0"],
    );
    say_all(
        &spp,
        &["vf 1; component 2 forward rx vhost:0 tx phy:0", "vf 1; classifier_table mac 52:54:00:01:00:01 vhost:0"],
    );
    assert_eq!(spp.working().0.len(), 0, "nothing works before flush");
    let held = say(&spp, "vf 1; status");
    assert!(
        held.contains("  - ports: [phy:0 nq 0, phy:0 nq 1]\n") && held.contains("From the next flush on:"),
        "{held}"
    );
    say_all(&spp, &["vf 1; flush", "vf 1; stop"]);
    let status = say(&spp, "vf 1; status");
    assert!(status.contains("  - status: idling\n  - ports: [phy:0, vhost:0, ring:0]\n"), "{status}");
    say(&spp, "vf 1; forward");
    for (line, why) in [
        ("vf 1; component 2 merge rx ring:0 vhost:0 tx phy:0", "make it idle first"),
        ("vf 1; classifier_table mac 52:54:00:01:00:01 ring:0", "delete it first"),
        ("vf 1; add ring:0", "already"),
        ("vf 1; add phy:7", "phy:7 is not there"),
    ] {
        let told = execute(&spp, line).unwrap_err().to_string();
        assert!(told.contains(why), "{line}: {told}");
    }
    say_all(&spp, &["vf 1; component 2 idle", "vf 1; component 2 merge rx ring:0 vhost:0 tx phy:0"]);
    say_all(
        &spp,
        &["vf 1; classifier_table mac 52:54:00:01:00:01 unuse", "vf 1; classifier_table mac 52:54:00:01:00:01 ring:0"],
    );
    let kinds = || spp.instances()[1].running.components.iter().map(|component| component.kind).collect::<Vec<_>>();
    assert_eq!(kinds(), [ComponentType::Classifier, ComponentType::Forward], "what was is there until flush");
    say(&spp, "vf 1; flush");
    assert_eq!(kinds(), [ComponentType::Classifier, ComponentType::Merge]);
    assert_saved(&spp).unwrap();
}

#[test]
fn a_line_that_is_refused_says_why_and_changes_nothing() {
    let spp = spp();
    say_all(&spp, &VF);
    let before = spp.state();
    for (line, why) in [
        ("hello", "no command"),
        ("vf 9; status", "sec_id 9 not found. There are primary, vf 1 and nfv 2."),
        ("vf 2; status", "sec_id 2 not found. There are"),
        ("sec 9; status", "sec_id 9 not found."),
        ("vf 1; fly", "Unknown command(fly): vf has status, component,"),
        ("nfv 2; Status", "Unknown command(Status): nfv has status, add,"),
        ("bye", "bye sec"),
        ("pri; add pipe:0 ring:8", "add pipe:N RXRING TXRING"),
        ("pri; launch vm 8", "vf, nfv, mirror, pcap and primary"),
        ("pri; launch vf 8 -l 2000", "0 to 1023"),
        ("pri; launch pcap 8 -l 0 -- -c memif:0", "memif"),
        ("vf 1; component start x 1024 forward", "0 to 1023"),
        ("vf 1; port add ring:5 tx cls add_vlantag 4095 0", "0 to 4094"),
        ("vf 1; port add ring:5 tx cls add_vlantag 1 8", "0 to 7"),
        ("vf 1; classifier_table add vlan 70000 default ring:0", "0 to 4094"),
        ("vf 1; del phy:0", "phy:0 was not added; NICs are there"),
        ("pri; flow list phy:9", "Invalid port 9"),
        ("vf 1; component start fwd 1 forward", "already"),
        ("vf 1; component start x 0 forward", "master core"),
        ("vf 1; component start x 1 bridge", "component type"),
        ("vf 1; port del ring:0 rx nobody", "no component"),
        ("vf 1; port add ring:0 tx cls", "cls has ring:0 on its tx side already"),
        ("vf 1; classifier_table add mac default ring:9", "no component has ring:9"),
        ("pri; launch primary 1", "the primary has no client id"),
        ("vf 1; port add phy:0 rx fwd", "1 rx port"),
        ("vf 1; port add phy:7 tx cls", "not there"),
        ("vf 1; port add memif:0 tx cls", "memif"),
        ("vf 1; classifier_table add mac 52:54:00:01:00:01 ring:1", "delete it first"),
        ("nfv 2; patch phy:0 ring:0", "add it first"),
        ("nfv 2; component start x 1 forward", "Unknown command"),
        ("pri; launch vf 1 -l 0,9", "belongs to vf 1"),
        ("pri; launch vf 8 -l 0,1", "core 1 is busy"),
        ("pri; launch pcap 8 -l 0", "port"),
        ("vf 1; flush now", "flush"),
    ] {
        let told = execute(&spp, line).unwrap_err().to_string();
        assert!(told.contains(why), "{line}: {told}");
        assert_eq!(spp.state(), before, "{line}");
    }
}

#[test]
fn an_instance_that_was_configured_may_be_launched_by_a_recipe() {
    let spp = spp();
    assert_eq!(say(&spp, "pri; launch vf 1 -l 0,1-2 -- --client-id 1"), "Launched vf 1.\n");
    say_all(&spp, &VF);
    assert!(execute(&spp, "pri; launch vf 1 -l 0,1-2 -- --client-id 1").is_err());
}

pub(super) const FLOW: &str = "pri; flow create phy:0 ingress group 1 pattern eth dst is 10:22:33:44:55:66 / vlan vid is 100 / end actions \
                    queue index 0 / of_pop_vlan / end";

#[test]
fn flow_rules_are_made_shown_and_destroyed() {
    let spp = spp();
    assert_eq!(say(&spp, &FLOW.replace("create", "validate")), "Flow rule validated\n");
    assert!(spp.flow_rules(0).is_empty());
    assert_eq!(say(&spp, FLOW), "Flow rule #0 created\n");
    assert_eq!(
        say(&spp, "pri; flow list phy:0"),
        "ID      Group   Prio    Attr    Rule\n0       1       0       i--     ETH VLAN => QUEUE OF_POP_VLAN\n"
    );
    let shown = say(&spp, "pri; flow status phy:0 0");
    for part in [
        "  1       0        true    false  false\n",
        "      - dst: 10:22:33:44:55:66\n",
        "  - queue:\n    - index: 0\n  - of_pop_vlan:\n",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    for (line, why) in [
        ("pri; flow", "flow validate"),
        ("pri; flow list ring:0", "only a phy port"),
        ("pri; flow list nic", "is not a port"),
        ("pri; flow status phy:0 7", "no flow rule #7"),
        ("pri; flow destroy phy:0 7", "#7 not found"),
        ("pri; flow destroy phy:0 x", "is no number"),
        ("pri; flow create phy:0 pattern eth / end actions queue index 0 / end", "ingress or egress"),
        ("pri; flow create phy:0 ingress pattern eth / end actions", "flow validate"),
        ("pri; flow create phy:0 ingress pattern eth / end actions queue index 0 / end more", "behind the end"),
        ("pri; flow create phy:0 ingress colour pattern eth / end actions queue index 0 / end", "no attribute"),
        ("pri; flow create phy:9 ingress pattern eth / end actions queue index 0 / end", "Invalid port"),
    ] {
        let told = execute(&spp, line).unwrap_err().to_string();
        assert!(told.contains(why), "{line}: {told}");
        assert_eq!(spp.flow_rules(0).len(), 1, "{line}");
    }
    say(&spp, FLOW);
    assert_eq!(say(&spp, "pri; flow destroy phy:0 0"), "Flow rule #0 destroyed\n");
    assert_eq!(say(&spp, "pri; flow destroy phy:0 ALL"), "Flow rule all destroyed\n");
    assert!(spp.flow_rules(0).is_empty());
}

pub(super) fn assert_saved(spp: &Spp) -> Result<(), TestCaseError> {
    let recipe = save(&spp.state());
    let again = self::spp();
    for line in &recipe {
        let played = execute(&again, line);
        prop_assert!(played.is_ok(), "{line}: {played:?}\n{recipe:#?}");
    }
    prop_assert_eq!(again.instances(), spp.instances(), "{:#?}", recipe);
    // The recipe's rules have new numbers.
    let rules = |spp: &Spp| spp.flow_rules(0).into_iter().map(|numbered| numbered.rule).collect::<Vec<_>>();
    prop_assert_eq!(rules(&again), rules(spp));
    prop_assert_eq!(save(&again.state()), recipe);
    Ok(())
}

#[test]
fn an_entry_that_outlived_its_classifier_is_saved_too() {
    let spp = spp();
    say_all(&spp, &VF);
    say_all(
        &spp,
        &["vf 1; component stop cls", "nfv 2; add ring:0", "nfv 2; add vhost:0", "nfv 2; patch vhost:0 ring:0"],
    );
    assert_saved(&spp).unwrap();
    say_all(&spp, &["vf 1; flush on", "vf 1; component stop fwd", "vf 1; component start c 2 classifier"]);
    say_all(
        &spp,
        &["vf 1; port add ring:7 tx c", "vf 1; classifier_table add mac default ring:7", "vf 1; component stop c"],
    );
    say_all(&spp, &["vf 1; classifier_table del mac 52:54:00:01:00:01 ring:0"]);
    assert_saved(&spp).unwrap();
}

#[test]
fn a_recipe_with_flow_rules_can_be_played_again_and_passes_over_ports_that_are_gone() {
    let spp = spp();
    say_all(&spp, &[FLOW, FLOW, "pri; flow destroy phy:0 0"]);
    let mut state = spp.state();
    assert_eq!(state.flow[0].rules[0].rule_id, 1);
    let recipe = save(&state);
    for line in recipe.iter().filter(|line| line.contains("flow")) {
        say(&spp, line);
    }
    assert_eq!(save(&spp.state()), recipe, "in place of those that are there");
    assert!(say(&spp, "pri; flow status phy:0 0").ends_with("Matched:\n  - packets: 0\n  - bytes: 0\n"));
    state.ports.clear();
    let gone: Vec<_> = save(&state).into_iter().filter(|line| line.contains("flow")).collect();
    assert!(
        gone.len() == 2 && gone.iter().all(|line| line.starts_with("# phy:0 is not there: pri; flow ")),
        "{gone:?}"
    );
}

/// Lines of which many are accepted and many refused.
fn line() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    let port = prop::sample::select(vec![
        "phy:0",
        "vhost:0",
        "phy:0nq1",
        "ring:0",
        "ring:1",
        "ring:2",
        "tap:0",
        "nullpmd:0",
        "pipe:0",
    ]);
    let vf = (
        prop::sample::select(vec!["vf 1", "vf 5", "mirror 3"]),
        prop::sample::select(vec![
            "component start N 1 forward",
            "component start N 2 classifier",
            "component start N 2 classifier",
            "component start N 7 mirror",
            "component start N 8 merge",
            "component stop N",
            "port add P rx N",
            "port add P tx N",
            "port add P tx N",
            "port add P tx N add_vlantag 7 3",
            "port add P rx N del_vlantag",
            "port del P tx N",
            "classifier_table add mac default P",
            "classifier_table add mac 02:00:00:00:00:01 P",
            "classifier_table add vlan 9 02:00:00:00:00:01 P",
            "classifier_table del mac default P",
            "flush on",
            "flush",
            "flush discard",
            "flush off",
            "stop",
            "start",
        ]),
    );
    let nfv = (
        prop::sample::select(vec!["nfv 2", "nfv 4", "pri"]),
        prop::sample::select(vec![
            "add P",
            "add P ring:5 ring:6",
            "del P",
            "patch P ring:2",
            "patch ring:1 P",
            "patch reset",
            "forward",
            "stop",
            "flush on",
            "flush",
        ]),
    );
    let flow = (
        prop::sample::select(vec!["ingress", "egress", "group 1 priority 7 ingress transfer"]),
        prop::sample::select(vec![
            "eth",
            "vlan",
            "eth dst is 02:00:00:00:00:01 src spec 02:00:00:00:00:02 src prefix 24",
            "eth type is 0x8100 / vlan tci spec 0xffff tci mask 0xf000",
            "eth type mask 0xffff / vlan pcp is 5 dei is 1 vid spec 7 vid mask 0xff",
            "vlan vid is 100 inner_type is 0x0800",
            "vlan tci is 7",
        ]),
        prop::sample::select(vec![
            "queue index 0",
            "queue index 0 / of_pop_vlan",
            "jump group 2",
            "of_push_vlan ethertype 0x88a8 / of_set_vlan_vid vlan_vid 100 / of_set_vlan_pcp vlan_pcp 3",
        ]),
    );
    let flow = flow.prop_map(|(attributes, pattern, actions)| {
        format!("pri; flow create phy:0 {attributes} pattern {pattern} / end actions {actions} / end")
    });
    let whole = prop::sample::select(vec![
        ("", "pri; flow destroy phy:0 1"),
        ("", "pri; flow destroy phy:0 ALL"),
        ("", "pri; launch mirror 3 -l 0,7"),
        ("", "pri; launch vf 5 -l 3,8,9"),
        ("", "pri; launch nfv 4"),
        ("", "pri; launch pcap 6 -l 0,10 -- -c phy:0 --out-dir /tmp --fsize 2000000 --compression zstd"),
        ("", "pcap 6; start"),
        ("", "pcap 6; flush on"),
        ("", "nfv 4; exit"),
        ("", "vf 5; exit"),
    ]);
    let others = (prop_oneof![6 => vf, 3 => nfv, 1 => whole], name, port).prop_map(|((who, what), name, port)| {
        if who.is_empty() { what.to_owned() } else { format!("{who}; {what}").replace('N', name).replace('P', port) }
    });
    prop_oneof![9 => others, 1 => flow]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_saved_recipe_makes_the_same_instances(lines in prop::collection::vec(line(), 0..60)) {
        let spp = spp();
        for line in &lines {
            let before = spp.instances();
            if execute(&spp, line).is_err() {
                prop_assert_eq!(spp.instances(), before, "{}", line);
            }
        }
        assert_saved(&spp)?;
    }
}
