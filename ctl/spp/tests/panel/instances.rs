//! Instances on a made-up host.

use std::path::Path;

use ctl_service::state::Store;
use ctl_spp::*;
use kit::{FakeStorage, VF_AND_NFV as TWO, panel, panel_on, receive, spp_of, tables, wait};
use switch::model::*;

const VF: Proc = Proc { kind: ProcType::Vf, id: 1 };
const NFV: Proc = Proc { kind: ProcType::Nfv, id: 2 };

fn port(text: &str) -> PortId {
    text.parse().unwrap()
}

fn start(name: &str, core: u32, kind: ComponentType) -> Change {
    Change::StartComponent { name: name.into(), core, kind }
}

fn attach(name: &str, dir: Dir, text: &str) -> Change {
    Change::Attach { name: name.into(), dir, port: port(text), vlan: VlanEdit::None }
}

fn forward(spp: &Spp, from: &str, to: &str) {
    spp.change(VF, &start("f", 1, ComponentType::Forward)).unwrap();
    spp.change(VF, &attach("f", Dir::Rx, from)).unwrap();
    spp.change(VF, &attach("f", Dir::Tx, to)).unwrap();
}

fn running(spp: &Spp) -> Vec<String> {
    spp.working().0.into_iter().map(|component| component.name).collect()
}

#[test]
fn a_component_runs_with_its_ports_and_goes_with_them() {
    let spp = spp_of(TWO, Store::in_memory(tables()));
    forward(&spp, "phy:0", "ring:3");
    assert_eq!(running(&spp), ["vf 1/f"]);
    assert_eq!(spp.primary_status().unwrap().rings.len(), 1);
    spp.change(VF, &Change::StopComponent { name: "f".into() }).unwrap();
    assert!(running(&spp).is_empty());
    assert!(spp.primary_status().unwrap().rings.is_empty());
}

#[test]
fn a_port_belongs_to_one_component_a_direction() {
    let spp = spp_of(TWO, Store::in_memory(tables()));
    forward(&spp, "phy:0", "ring:3");
    spp.change(VF, &start("g", 1, ComponentType::Merge)).unwrap();
    for (dir, at) in [(Dir::Rx, "phy:0"), (Dir::Tx, "ring:3"), (Dir::Rx, "phy:0nq1")] {
        let why = spp.change(VF, &attach("g", dir, at)).unwrap_err().to_string();
        assert!(why.contains("component f of vf 1"), "{why}");
    }
    spp.change(VF, &attach("g", Dir::Rx, "ring:3")).unwrap();
    for name in ["phy:0", "ring:4"] {
        spp.change(NFV, &Change::AddPort { port: port(name), rings: None }).unwrap();
    }
    let patch = |src, dst| Change::AddPatch(Patch { src: port(src), dst: port(dst) });
    assert!(spp.change(NFV, &patch("phy:0", "ring:4")).is_err());
    spp.change(NFV, &patch("ring:4", "phy:0")).unwrap();
}

#[test]
fn what_is_not_there_is_refused_and_nothing_changes() {
    let spp = spp_of(TWO, Store::in_memory(tables()));
    forward(&spp, "phy:0", "ring:3");
    let before = spp.instances();
    spp.change(VF, &start("f", 1, ComponentType::Merge)).unwrap_err();
    spp.change(VF, &start("g", 0, ComponentType::Merge)).unwrap_err();
    spp.change(VF, &start("g", 3, ComponentType::Merge)).unwrap_err();
    spp.change(VF, &start("g", 1, ComponentType::Mirror)).unwrap_err();
    spp.change(VF, &start("g;", 1, ComponentType::Merge)).unwrap_err();
    spp.change(VF, &attach("h", Dir::Rx, "ring:0")).unwrap_err();
    spp.change(VF, &attach("f", Dir::Rx, "ring:0")).unwrap_err();
    spp.change(VF, &Change::ResetPatches).unwrap_err();
    spp.change(VF, &Change::Detach { name: "h".into(), dir: Dir::Rx, port: port("ring:3") }).unwrap_err();
    spp.change(VF, &attach("f", Dir::Rx, "phy:0")).unwrap_err();
    spp.change(NFV, &Change::AddPort { port: port("phy:1"), rings: None }).unwrap_err();
    spp.change(NFV, &Change::AddPort { port: port("vhost:128"), rings: None }).unwrap_err();
    spp.change(NFV, &Change::AddPort { port: port("memif:0"), rings: None }).unwrap_err();
    spp.change(NFV, &Change::AddPort { port: port("pipe:0"), rings: None }).unwrap_err();
    let nobody = Proc { kind: ProcType::Vf, id: 9 };
    assert_eq!(spp.change(nobody, &Change::ResetPatches), Err(SppError::NotFound("sec_id 9 not found.".into())));
    assert_eq!(spp.instances(), before);
}

#[test]
fn what_spp_takes_for_done_is_done() {
    let spp = spp_of(TWO, Store::in_memory(tables()));
    forward(&spp, "phy:0", "ring:3");
    let before = spp.instances();
    spp.change(VF, &Change::StopComponent { name: "nobody".into() }).unwrap();
    spp.change(VF, &Change::Detach { name: "f".into(), dir: Dir::Rx, port: port("ring:3") }).unwrap();
    assert_eq!(spp.instances(), before);
    let key = EntryKey { vlan: None, mac: None };
    spp.change(VF, &Change::AddEntry(Entry { key, port: port("ring:3") })).unwrap();
    assert_eq!(running(&spp), ["vf 1/f"], "an entry for a port of another component waits for a classifier");
}

#[test]
fn a_tag_that_a_port_adds_can_be_changed_and_nothing_else_by_attaching_it_again() {
    let spp = spp_of(TWO, Store::in_memory(tables()));
    spp.change(VF, &start("c", 1, ComponentType::Classifier)).unwrap();
    let tagged = |vlan| Change::Attach { name: "c".into(), dir: Dir::Tx, port: port("ring:3"), vlan };
    let edit = || spp.instance(VF).unwrap().running.components[0].tx[0].vlan;
    spp.change(VF, &tagged(VlanEdit::Add { vid: 5, pcp: 0 })).unwrap();
    spp.change(VF, &tagged(VlanEdit::Add { vid: 6, pcp: 1 })).unwrap();
    assert_eq!(edit(), VlanEdit::Add { vid: 6, pcp: 1 });
    for vlan in [VlanEdit::None, VlanEdit::Del] {
        let why = spp.change(VF, &tagged(vlan)).unwrap_err().to_string();
        assert!(why.contains("has ring:3 on its tx side already"), "{why}");
    }
    assert_eq!(edit(), VlanEdit::Add { vid: 6, pcp: 1 });
}

#[test]
fn an_instance_has_as_many_ports_as_the_configuration_says() {
    let spp = spp_of(&format!("[spp]\nmax_ports = 3\n{TWO}"), Store::in_memory(tables()));
    let add = |text| spp.change(NFV, &Change::AddPort { port: port(text), rings: None });
    add("phy:0").unwrap();
    add("ring:0").unwrap();
    add("ring:1").unwrap();
    let why = add("ring:2").unwrap_err().to_string();
    assert!(why.contains("3 ports, NICs included") && why.contains("max_ports"), "{why}");
    spp.change(NFV, &Change::DelPort(port("ring:0"))).unwrap();
    add("ring:2").unwrap();
    spp.change(VF, &Change::AddPort { port: port("ring:0"), rings: None }).unwrap();
}

#[test]
fn in_flush_mode_changes_are_held_and_come_into_force_together() {
    let spp = spp_of(TWO, Store::in_memory(tables()));
    spp.set_flush_mode(VF, true).unwrap();
    forward(&spp, "phy:0", "ring:3");
    assert!(running(&spp).is_empty());
    assert!(spp.set_flush_mode(VF, false).is_err());
    // Held changes claim ports too.
    spp.change(NFV, &Change::AddPort { port: port("phy:0"), rings: None }).unwrap();
    spp.change(NFV, &Change::AddPort { port: port("ring:9"), rings: None }).unwrap();
    assert!(spp.change(NFV, &Change::AddPatch(Patch { src: port("phy:0"), dst: port("ring:9") })).is_err());
    spp.flush(VF).unwrap();
    assert_eq!(running(&spp), ["vf 1/f"]);
    assert!(spp.instance(VF).unwrap().staged.is_none());
    spp.change(VF, &Change::StopComponent { name: "f".into() }).unwrap();
    assert_eq!(running(&spp), ["vf 1/f"]);
    spp.discard(VF).unwrap();
    assert_eq!(spp.instance(VF).unwrap().next().components.len(), 1);
}

#[test]
fn a_process_stops_and_starts_all_its_components_at_once() {
    let spp = spp_of(TWO, Store::in_memory(tables()));
    forward(&spp, "phy:0", "ring:3");
    spp.set_flush_mode(VF, true).unwrap();
    spp.change(VF, &start("g", 1, ComponentType::Merge)).unwrap();
    spp.change(VF, &Change::Run(false)).unwrap();
    assert!(running(&spp).is_empty());
    spp.change(VF, &Change::Run(true)).unwrap();
    assert_eq!(running(&spp), ["vf 1/f"], "what is held stays held");
    spp.change(VF, &Change::Run(false)).unwrap();
    spp.flush(VF).unwrap();
    assert!(running(&spp).is_empty(), "a flush starts nothing");
    spp.change(VF, &Change::Run(true)).unwrap();
    assert_eq!(running(&spp), ["vf 1/f", "vf 1/g"]);
}

#[test]
fn who_follows_the_instances_sees_them_come_and_go() {
    let spp = spp_of(TWO, Store::in_memory(tables()));
    let mut names = spp.watch();
    assert_eq!(names.borrow_and_update().len(), 3);
    forward(&spp, "phy:0", "ring:3");
    assert!(!names.has_changed().unwrap());
    let mirror = Proc { kind: ProcType::Mirror, id: 3 };
    spp.launch(Instance::new(mirror, vec![], None)).unwrap();
    assert!(names.borrow_and_update().contains(&mirror));
    spp.end(mirror).unwrap();
    assert!(!names.borrow_and_update().contains(&mirror));
}

#[test]
fn a_core_that_works_must_be_made_idle_before_it_is_set() {
    let spp = spp_of(TWO, Store::in_memory(tables()));
    let attached = |text| Attached { port: port(text), vlan: VlanEdit::None };
    let component = Component {
        name: "one".into(),
        core: 1,
        kind: ComponentType::Forward,
        rx: vec![attached("ring:0")],
        tx: vec![attached("ring:1")],
    };
    let set = Change::SetCore { core: 1, component: Some(component) };
    spp.change(VF, &set).unwrap();
    assert!(spp.change(VF, &set).unwrap_err().to_string().contains("idle"));
    spp.change(VF, &Change::SetCore { core: 1, component: None }).unwrap();
    spp.change(VF, &set).unwrap();
}

#[test]
fn an_entry_must_be_deleted_before_it_is_set() {
    let spp = spp_of(TWO, Store::in_memory(tables()));
    spp.change(VF, &start("c", 1, ComponentType::Classifier)).unwrap();
    let key = EntryKey { vlan: None, mac: Some("fa:16:3e:7d:cc:35".parse().unwrap()) };
    let add = Change::AddEntry(Entry { key, port: port("ring:0") });
    assert!(spp.change(VF, &add).is_err(), "no classifier sends there");
    spp.change(VF, &attach("c", Dir::Tx, "ring:0")).unwrap();
    spp.change(VF, &add).unwrap();
    assert!(spp.change(VF, &add).unwrap_err().to_string().contains("FA:16:3E:7D:CC:35"));
    spp.change(VF, &Change::DelEntry { key, port: Some(port("ring:1")) }).unwrap_err();
    spp.change(VF, &Change::DelEntry { key, port: Some(port("ring:0")) }).unwrap();
    spp.change(VF, &add).unwrap();
}

#[test]
fn instances_outlive_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Store::open(dir.path(), tables()).unwrap();
    let before = {
        let spp = spp_of(TWO, open());
        forward(&spp, "phy:0", "ring:3");
        let launched = Instance::new(Proc { kind: ProcType::Mirror, id: 3 }, vec![4, 5], None);
        spp.launch(launched.clone()).unwrap();
        assert!(spp.launch(launched).is_err());
        spp.instances()
    };
    let spp = spp_of(TWO, open());
    assert_eq!(spp.instances(), before);
    assert_eq!(running(&spp), ["vf 1/f"]);
    spp.end(Proc { kind: ProcType::Mirror, id: 3 }).unwrap();
    drop(spp);
    assert_eq!(spp_of(TWO, open()).instances().len(), before.len() - 1);
}

#[test]
fn a_component_whose_port_is_gone_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Store::open(dir.path(), tables()).unwrap();
    let before = panel(TWO, open());
    forward(&before.2, "phy:0", "ring:3");
    let host = before.0.clone();
    drop(before);
    host.set_missing("eth7", true);
    let (service, spp) = panel_on(&host, TWO, open());
    assert_eq!(service.dataplane().ports(), []);
    spp.retry();
    assert_eq!(spp.instance(VF).unwrap().running.components[0].rx[0].port, port("phy:0"));
}

#[test]
fn a_component_runs_again_if_its_port_was_away_for_a_moment() {
    let (host, service, spp) = panel(TWO, Store::in_memory(tables()));
    forward(&spp, "phy:0", "ring:3");
    host.delete_netdev("eth7");
    wait("the port is lost", || service.dataplane().ports().is_empty());
    assert_eq!(running(&spp), [""; 0]);
    host.add_nic("eth7", 1);
    wait("it is back", || {
        service.retry();
        !service.dataplane().ports().is_empty()
    });
    // Nobody has asked the panel while the port was away.
    spp.retry();
    assert_eq!(running(&spp), ["vf 1/f"]);
}

#[test]
fn a_core_of_another_instance_is_busy() {
    let spp = spp_of(TWO, Store::in_memory(tables()));
    let other = Proc { kind: ProcType::Vf, id: 3 };
    let why = spp.launch(Instance::new(other, vec![0, 2], None)).unwrap_err().to_string();
    assert!(why.contains("core 2 is busy: it belongs to vf 1"), "{why}");
    spp.launch(Instance::new(other, vec![], None)).unwrap();
    let why = spp.change(other, &start("x", 2, ComponentType::Merge)).unwrap_err().to_string();
    assert!(why.contains("core 2 is busy"), "{why}");
    spp.change(other, &start("x", 12, ComponentType::Merge)).unwrap();
}

#[test]
fn a_pipe_stands_for_its_rings() {
    let spp = spp_of(TWO, Store::in_memory(tables()));
    let rings = Some((port("ring:0"), port("ring:1")));
    spp.change(Proc::PRIMARY, &Change::AddPort { port: port("pipe:0"), rings }).unwrap();
    spp.change(NFV, &Change::AddPort { port: port("pipe:0"), rings: None }).unwrap();
    spp.change(NFV, &Change::AddPort { port: port("ring:5"), rings: None }).unwrap();
    spp.change(NFV, &Change::AddPatch(Patch { src: port("ring:5"), dst: port("pipe:0") })).unwrap();
    spp.change(VF, &start("m", 1, ComponentType::Merge)).unwrap();
    assert!(spp.change(VF, &attach("m", Dir::Tx, "ring:1")).is_err(), "the pipe's ring is taken");
    assert!(spp.end(Proc::PRIMARY).is_err(), "its pipe is used");
}

#[test]
fn counters_start_from_zero_at_a_clear() {
    let (host, service, spp) = panel(TWO, Store::in_memory(tables()));
    // No frame is received that nobody takes.
    forward(&spp, "phy:0", "ring:3");
    let counted = || service.dataplane().stats().ports[0].rx.packets;
    receive(&host, "eth7", MacAddr::new([2, 0, 0, 0, 0, 1]), 3);
    wait("the frames are counted", || counted() == 3);
    let received = || spp.primary_status().unwrap().ports.iter().map(|at| (at.port, at.rx)).collect::<Vec<_>>();
    assert_eq!(received(), [(port("phy:0"), 3)]);
    spp.clear_status().unwrap();
    assert_eq!(received(), [(port("phy:0"), 0)]);
}

#[test]
fn a_trace_says_why_nobody_takes_what_waits() {
    use ctl_types::TraceRequest;
    let spp = spp_of(TWO, Store::in_memory(tables()));
    let whys = || {
        let request = TraceRequest { port: "east".into(), hex: Some("00".repeat(60)), ..TraceRequest::default() };
        let steps = spp.trace(&request).unwrap().steps;
        // The switch says that it waits, and the panel why.
        let whys = steps.into_iter().filter(|step| step.stage == "waiting").map(|step| step.detail);
        whys.filter(|why| why.starts_with("phy:0")).collect::<Vec<_>>()
    };
    let say = |line: &str| drop(shell::execute(&spp, line).unwrap());
    assert_eq!(whys(), ["phy:0nq0: no component, patch or capture of any instance receives from it"]);
    say("vf 1; flush on");
    say("vf 1; component start f 1 forward");
    say("vf 1; port add phy:0 rx f");
    assert_eq!(whys(), ["phy:0nq0: component f of vf 1 takes frames from it from the next flush of vf 1 on"]);
    say("vf 1; flush");
    assert_eq!(whys(), ["phy:0nq0: component f of vf 1 has it, and lacks another port, or an entry"]);
    say("vf 1; stop");
    assert_eq!(whys(), ["phy:0nq0: component f of vf 1 has it, and vf 1 is stopped"]);
    say("vf 1; component stop f");
    say("vf 1; flush");
    say("pri; launch pcap 6 -l 0,10 -- -c phy:0");
    assert_eq!(whys(), ["phy:0nq0: the capture of pcap 6 has it, and pcap 6 is stopped"]);
}

const PRIMARY: Proc = Proc::PRIMARY;

/// Launches a capture as an outside spp-ctl does.
fn launch(spp: &Spp, id: u32, directory: &Path) -> Result<run::Outcome, String> {
    let line = format!("launch {id} spp_pcap -- -c ring:{id} --out-dir {}", directory.display());
    let command = words::parse(ProcType::Primary, &line)?;
    run::run(spp, PRIMARY, &command).map_err(|error| error.to_string())
}

#[test]
fn who_is_not_known_has_captures_below_directories_of_the_configuration_only() {
    let outer = tempfile::tempdir().unwrap();
    let [base, more, secret] = ["base", "more", "secret"].map(|name| outer.path().join(name));
    for directory in [&base, &base.join("sub"), &more, &secret] {
        std::fs::create_dir(directory).unwrap();
    }
    std::os::unix::fs::symlink(&secret, base.join("link")).unwrap();
    let config = format!("[spp]\ndirectory = {base:?}\ncapture_directories = [{more:?}]");
    let spp = spp_of(&config, Store::in_memory(tables()));
    for (id, good) in [(1, base.clone()), (2, base.join("sub")), (3, more.clone())] {
        launch(&spp, id, &good).unwrap();
        spp.change(Proc { kind: ProcType::Pcap, id }, &Change::Run(true)).unwrap();
    }
    let before = spp.instances();
    for bad in
        [secret.clone(), base.join("link"), base.join("../secret"), base.join("none"), "/".into(), outer.path().into()]
    {
        let why = launch(&spp, 9, &bad).unwrap_err();
        assert!(why.contains("--out-dir") && why.contains(bad.to_str().unwrap()), "{why}");
        // The refusal must not tell whether something exists elsewhere.
        assert!(why.contains("capture_directories") || bad.ends_with("none"), "{why}");
    }
    assert_eq!(spp.instances(), before);
    // The operator is not confined.
    let line = format!("pri; launch pcap 9 -- -c ring:9 --out-dir {}", secret.display());
    shell::execute(&spp, &line).unwrap();
    // The operator may name a configured directory too.
    shell::execute(&spp, &format!("pri; launch pcap 4 -- -c ring:4 --out-dir {}", base.display())).unwrap();
    // A directory that is swapped for a link later does not lead out.
    spp.change(Proc { kind: ProcType::Pcap, id: 2 }, &Change::Run(false)).unwrap();
    std::fs::remove_dir_all(base.join("sub")).unwrap();
    std::os::unix::fs::symlink(&secret, base.join("sub")).unwrap();
    let why = spp.change(Proc { kind: ProcType::Pcap, id: 2 }, &Change::Run(true)).unwrap_err().to_string();
    assert!(why.contains("is not below"), "{why}");
}

#[test]
fn what_the_configuration_allows_no_more_is_not_written_after_a_restart() {
    let [first, second] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let storage = FakeStorage::default();
    let config = |directory: &Path| format!("[spp]\ndirectory = {directory:?}");
    let pcap = Proc { kind: ProcType::Pcap, id: 1 };
    let before = panel(&config(first.path()), storage.store());
    launch(&before.2, 1, first.path()).unwrap();
    before.2.change(pcap, &Change::Run(true)).unwrap();
    assert_eq!(before.2.working().1[0].error, None);
    drop(before);
    let (_, _service, spp) = panel(&config(second.path()), storage.store());
    let error = spp.working().1.remove(0).error.expect("it is not written");
    assert!(error.contains("is not below"), "{error}");
}

#[test]
fn an_end_that_can_not_be_had_any_more_holds_nothing_else_up() {
    let directory = tempfile::tempdir().unwrap();
    let gone = directory.path().join("gone");
    std::fs::create_dir(&gone).unwrap();
    let storage = FakeStorage::default();
    let config = format!("{TWO}\n[spp]\ndirectory = {:?}", directory.path());
    let before = panel(&config, storage.store());
    launch(&before.2, 7, &gone).unwrap();
    before.2.change(Proc { kind: ProcType::Pcap, id: 7 }, &Change::Run(true)).unwrap();
    forward(&before.2, "phy:0", "ring:3");
    drop(before);
    std::fs::remove_dir_all(&gone).unwrap();
    let (_, _service, spp) = panel(&config, storage.store());
    assert!(running(&spp).contains(&"vf 1/f".to_owned()), "{:?}", running(&spp));
    let error = |spp: &Spp| spp.working().1.into_iter().find_map(|outside| outside.error);
    assert!(error(&spp).is_some_and(|error| error.contains("gone")));
    // Other instances can still be changed, and new ends must exist.
    spp.change(VF, &Change::StopComponent { name: "f".into() }).unwrap();
    forward(&spp, "phy:0", "ring:4");
    assert!(launch(&spp, 8, &gone).is_err());
    std::fs::create_dir(&gone).unwrap();
    spp.retry();
    assert_eq!(error(&spp), None);
    // A stopped capture that is started again counts as a new request.
    spp.change(Proc { kind: ProcType::Pcap, id: 7 }, &Change::Run(false)).unwrap();
    std::fs::remove_dir_all(&gone).unwrap();
    spp.change(Proc { kind: ProcType::Pcap, id: 7 }, &Change::Run(true)).unwrap_err();
    assert_eq!(error(&spp), None);
}
