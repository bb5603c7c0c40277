//! Lines of all processes: what they mean, and what is refused.

use proptest::prelude::*;

use super::*;

const KINDS: [ProcType; 5] = [ProcType::Primary, ProcType::Vf, ProcType::Nfv, ProcType::Mirror, ProcType::Pcap];

fn at(text: &str) -> PortId {
    text.parse().unwrap()
}

fn change(kind: ProcType, line: &str) -> Change {
    match parse(kind, line) {
        Ok(Command::Change(change)) => change,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn every_process_knows_what_all_know() {
    for kind in KINDS {
        for (line, command) in [
            ("_get_client_id", Command::ClientId),
            ("process", Command::ClientId),
            ("status\0\0\0", Command::Status),
            (" exit ", Command::Exit),
            ("stop", Command::Change(Change::Run(false))),
            ("flush", Command::Flush),
            ("flush on", Command::FlushMode(true)),
            ("flush discard", Command::Discard),
        ] {
            assert_eq!(parse(kind, line), Ok(command), "{line}");
        }
    }
}

#[test]
fn components_are_started_and_given_ports() {
    let vf = |line| change(ProcType::Vf, line);
    let (name, kind) = ("c1".to_owned(), ComponentType::Classifier);
    let start = Change::StartComponent { name: name.clone(), core: 3, kind };
    assert_eq!(vf("component start c1 3 classifier"), start);
    assert_eq!(vf("component start c1 3 classifier_mac"), start);
    assert_eq!(vf("component stop c1"), Change::StopComponent { name: name.clone() });
    let attach = |vlan| Change::Attach { name: name.clone(), dir: Dir::Tx, port: at("ring:0"), vlan };
    assert_eq!(vf("port add ring:0 tx c1"), attach(VlanEdit::None));
    assert_eq!(vf("port add ring:0 tx c1 del_vlantag"), attach(VlanEdit::Del));
    assert_eq!(vf("port add ring:0 tx c1 add_vlantag 100 5"), attach(VlanEdit::Add { vid: 100, pcp: 5 }));
    assert_eq!(vf("port del phy:0nq1 rx c1"), Change::Detach { name, dir: Dir::Rx, port: at("phy:0nq1") });
}

#[test]
fn the_command_library_sets_a_core_in_one_word() {
    let Change::SetCore { core: 2, component: Some(component) } =
        change(ProcType::Vf, "component 2 merge rx ring:0 ring:1 tx phy:0")
    else {
        panic!("not a core");
    };
    let ports = |side: &[Attached]| side.iter().map(|attached| attached.port.to_string()).collect::<Vec<_>>();
    assert_eq!(
        (ports(&component.rx), ports(&component.tx)),
        (vec!["ring:0".into(), "ring:1".into()], vec!["phy:0".into()])
    );
    assert_eq!(change(ProcType::Vf, "component 2 idle"), Change::SetCore { core: 2, component: None });
}

#[test]
fn entries_of_both_types_are_added_deleted_and_unused() {
    let mac = Some("fa:16:3e:7d:cc:35".parse().unwrap());
    let key = EntryKey { vlan: None, mac };
    let port = at("ring:0");
    let vf = |line| change(ProcType::Vf, line);
    let add = Change::AddEntry(Entry { key, port });
    assert_eq!(vf("classifier_table add mac FA:16:3E:7D:CC:35 ring:0"), add);
    assert_eq!(vf("classifier_table mac fa-16-3e-7d-cc-35 ring:0"), add);
    let free = Change::DelEntry { key, port: None };
    assert_eq!(vf("classifier_table mac FA:16:3E:7D:CC:35 unuse"), free);
    let delete = Change::DelEntry { key: EntryKey { vlan: Some(101), mac: None }, port: Some(port) };
    assert_eq!(vf("classifier_table del vlan 101 default ring:0"), delete);
    assert!(parse(ProcType::Mirror, "classifier_table add mac default ring:0").is_err());
}

#[test]
fn ports_and_patches_of_nfv_and_primary() {
    for kind in [ProcType::Nfv, ProcType::Primary] {
        let add = Change::AddPort { port: at("ring:0"), rings: None };
        assert_eq!(change(kind, "add ring:0"), add);
        assert_eq!(change(kind, "add ring 0"), add);
        assert_eq!(change(kind, "del ring 0"), Change::DelPort(at("ring:0")));
        let patch = Change::AddPatch(Patch { src: at("phy:0"), dst: at("ring:0") });
        assert_eq!(change(kind, "patch phy:0 ring:0"), patch);
        assert_eq!(change(kind, "patch reset"), Change::ResetPatches);
    }
    let rings = Some((at("ring:0"), at("ring:1")));
    let pipe = Change::AddPort { port: at("pipe:0"), rings };
    assert_eq!(change(ProcType::Primary, "add pipe:0 ring:0 ring:1"), pipe);
}

#[test]
fn the_primary_launches_in_either_order() {
    let sent = "launch 2 spp_vf -l 1,2-3 -m 512 --proc-type secondary -- --client-id 2 -s 127.0.0.1:6666";
    let typed = "launch vf 2 -l 1,2-3 --proc-type secondary -- --client-id 2";
    let launched = parse(ProcType::Primary, sent).unwrap();
    assert_eq!(parse(ProcType::Primary, typed), Ok(launched.clone()));
    let Command::Launch(launch) = launched else { panic!("not a launch") };
    assert_eq!((launch.proc.to_string(), launch.cores), ("vf 2".to_owned(), vec![1, 2, 3]));
    assert_eq!(parse(ProcType::Primary, "clear"), Ok(Command::Clear));
}

#[test]
fn a_queue_may_be_words_of_its_own() {
    let sent = "launch 9 spp_pcap -l 1,2,3 --proc-type secondary -- --client-id 9 -c phy:0 nq 1 --fsize 2097152";
    let Ok(Command::Launch(launch)) = parse(ProcType::Primary, sent) else { panic!("not a launch") };
    assert_eq!((launch.port, launch.limit), (Some(at("phy:0nq1")), 2 << 20));
    assert_eq!(joined("port add phy:0 nq 1 rx  fwd1"), "port add phy:0nq1 rx fwd1");
    assert_eq!(joined("classifier_table add mac default phy:0 nq 1"), "classifier_table add mac default phy:0nq1");
    assert_eq!(joined("component start nq 1 forward"), "component start nq 1 forward");
}

#[test]
fn errors_begin_with_spps_text() {
    for (kind, line, text) in [
        (ProcType::Vf, "", "Wrong message format"),
        (ProcType::Vf, "\0", "Wrong message format"),
        (ProcType::Vf, "status now", "Wrong message format"),
        (ProcType::Vf, "component", "Wrong message format"),
        (ProcType::Vf, "component start c1", "Wrong message format"),
        (ProcType::Vf, "component restart c1", "Invalid value (action)"),
        (ProcType::Vf, "component start c1 -1 forward", "Invalid value (core)"),
        (ProcType::Vf, "component start c1 2 bridge", "Invalid value (component type)"),
        (ProcType::Vf, "component 2 forward phy:0", "Wrong message format"),
        (ProcType::Vf, "port add phy:0 rx", "Wrong message format"),
        (ProcType::Vf, "port add phy rx c1", "Invalid value (port)"),
        (ProcType::Vf, "port add phy:0 up c1", "Invalid value (port rxtx)"),
        (ProcType::Vf, "port put phy:0 rx c1", "Invalid value (action)"),
        (ProcType::Vf, "port add phy:0 rx c1 vlan 1 2", "Invalid value (port vlan operation)"),
        (ProcType::Vf, "port add phy:0 rx c1 add_vlantag 70000 2", "Invalid value (port vid)"),
        (ProcType::Vf, "port add phy:0 rx c1 add_vlantag 1 x", "Invalid value (port pcp)"),
        (ProcType::Vf, "port add phy:0 rx c1 add_vlantag 1", "Wrong message format"),
        (ProcType::Vf, "port del phy:0 rx c1 del_vlantag", "Wrong message format"),
        (ProcType::Vf, "classifier_table add mac 1:2 ring:0", "Invalid value (mac address)"),
        (ProcType::Vf, "classifier_table add ip 1:2 ring:0", "Invalid value (type)"),
        (ProcType::Vf, "classifier_table set mac default ring:0", "Invalid value (action)"),
        (ProcType::Vf, "classifier_table add vlan x default ring:0", "Invalid value (vlan id)"),
        (ProcType::Vf, "classifier_table add", "Wrong message format"),
        (ProcType::Vf, "patch phy:0 phy:1", "Unknown command(patch)"),
        (ProcType::Nfv, "component stop c1", "Unknown command(component)"),
        (ProcType::Nfv, "add", "Wrong message format"),
        (ProcType::Nfv, "patch phy:0", "Wrong message format"),
        (ProcType::Nfv, "clear", "Unknown command(clear)"),
        (ProcType::Pcap, "add ring:0", "Unknown command(add)"),
        (ProcType::Primary, "launch 2", "Wrong message format"),
        (ProcType::Primary, "launch 2 spp_bridge", "Invalid value (launch)"),
        (ProcType::Primary, "launch vf x", "Invalid value (client id)"),
        (ProcType::Primary, "launch vf", "Wrong message format"),
        (ProcType::Vf, "flow list phy:0", "Unknown command(flow)"),
        (ProcType::Primary, "flush now", "Wrong message format"),
    ] {
        let why = parse(kind, line).unwrap_err();
        assert!(why.starts_with(text), "{line}: {why}");
    }
    assert!(parse(ProcType::Vf, &"x".repeat(MAX_LINE + 1)).unwrap_err().starts_with("Wrong message format"));
}

/// Known words in any order, and some unknown ones.
fn words() -> impl Strategy<Value = String> {
    let known = prop::sample::select(
            "_get_client_id status exit flush on off discard forward start stop component port classifier_table add del mac \
             vlan default unuse idle merge mirror rx tx add_vlantag del_vlantag patch reset clear launch spp_vf spp_pcap -- -l -c \
             --fsize=1 1,2-3 0x1e phy:0 phy:0nq1 ring:1 ring 0 pipe:0 4096 99999999999 02:00:00:00:00:01"
                .split(' ')
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        );
    prop::collection::vec(prop_oneof![4 => known, 1 => "\\PC{0,8}"], 0..10).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn any_words_are_read_or_refused(line in words()) {
        for kind in KINDS {
            let _ = parse(kind, &line);
        }
    }

    #[test]
    fn any_text_is_read_or_refused(line in any::<String>()) {
        for kind in KINDS {
            let _ = parse(kind, &line);
        }
    }
}
