//! Other files than the daemon's, exports, and what is removed.

use ctl_types::*;
use switch::model::*;

use crate::{Rig, WHOLE, access, guest, told, vlan};

const FILE: Option<&str> = Some("/tmp/a.toml");

#[test]
fn an_export_makes_the_same_switch_of_an_empty_one() {
    let rig = Rig::start(WHOLE);
    let service = &rig.service;
    service.add_port(PortSpec { mtu: Some(1400), ..PortSpec::new("made", PortKind::Guest) }).unwrap();
    service.add_meter(MeterSpec::new(3, 100)).unwrap();
    let to = MeterBinding { vport: 1, direction: MeterDirection::To, meter: 3 };
    service.bind_meter(&to).unwrap();
    service.unbind_meter(1, MeterDirection::To, None).unwrap();
    let exported = service.config();
    assert!(!exported.meters[0].implicit, "{:?}", exported.meters);
    let request = ConfigRequest { config: exported.clone(), ..ConfigRequest::default() };
    assert_eq!(service.diff_config(&request).unwrap().changes, []);
    for text in ["", &(guest("x", "vport = 4") + &guest("a", ""))] {
        let other = Rig::start(text);
        other.service.apply_config(&ConfigRequest { prune: true, ..request.clone() }).unwrap();
        assert_eq!(other.service.config(), exported);
        let again = other.service.apply_config(&ConfigRequest { prune: true, ..request.clone() }).unwrap();
        assert_eq!(again, ConfigChanges::default());
        assert!(other.restart(text).names().contains(&"made".to_owned()));
    }
}

#[test]
fn a_file_takes_away_what_it_declared_before_and_no_more() {
    let rig = Rig::start(&guest("own", ""));
    rig.service.add_port(PortSpec::new("made", PortKind::Guest)).unwrap();
    assert_eq!(told(&rig.apply(&(guest("a", "") + &guest("b", "")), FILE, false)), ["+port a", "+port b"]);
    assert_eq!(told(&rig.apply(&guest("c", ""), Some("/tmp/other.toml"), false)), ["+port c"]);
    assert_eq!(told(&rig.apply(&guest("b", &vlan(3)), FILE, false)), ["-port a", "~port b"]);
    assert_eq!(rig.names(), ["b", "c", "made", "own"]);
    // The daemon's own file has no say in them, before and after a restart.
    assert_eq!(rig.reload(&guest("own", "")).unwrap().changes, []);
    let rig = rig.restart(&guest("own", ""));
    assert_eq!((rig.names().len(), rig.spec("b").vlan), (4, access(3)));
    // From standard input nothing is remembered.
    rig.apply(&guest("d", ""), None, false);
    assert_eq!(told(&rig.apply(&guest("e", ""), None, false)), ["+port e"]);
    assert_eq!(told(&rig.apply("", FILE, false)), ["-port b"]);
}

#[test]
fn the_daemons_own_file_is_applied_as_it_is_read_again() {
    let rig = Rig::start(&(guest("a", "") + &guest("b", "")));
    assert_eq!(told(&rig.apply(&guest("b", ""), Some("/etc/own.toml"), false)), ["-port a"]);
    assert_eq!(rig.reload(&guest("b", "")).unwrap().changes, []);
}

#[test]
fn a_row_of_two_files_is_as_the_last_one_says() {
    let rig = Rig::start(&guest("a", &vlan(1)));
    rig.apply(&guest("a", &vlan(2)), FILE, false);
    assert_eq!(rig.spec("a").vlan, access(2));
    // It is that file's now, and the daemon's again when that is read.
    assert_eq!(told(&rig.reload("").unwrap()), Vec::<String>::new());
    assert_eq!(told(&rig.reload(&guest("a", &vlan(1))).unwrap()), ["~port a"]);
    assert_eq!(told(&rig.apply("", FILE, false)), Vec::<String>::new());
    assert_eq!(told(&rig.reload("").unwrap()), ["-port a"]);
}

#[test]
fn pruning_removes_all_that_the_file_does_not_declare() {
    let rig = Rig::start(WHOLE);
    rig.service.add_port(PortSpec::new("made", PortKind::Guest)).unwrap();
    rig.service.redirect(RedirectSpec { src: 2, dest: 1 }).unwrap();
    assert_eq!(told(&rig.apply(&guest("a", &vlan(10)), FILE, false)), Vec::<String>::new());
    let done = rig.apply(&guest("a", &vlan(10)), FILE, true);
    assert_eq!(done.changes.iter().filter(|it| it.action == ConfigAction::Remove).count(), 11, "{done:#?}");
    assert_eq!((rig.names(), rig.spec("a").vport), (vec!["a".to_owned()], Some(4)));
    let kept = rig.service.config();
    assert_eq!((kept.rules.len(), kept.meters.len(), kept.bridge), (0, 0, Some(BridgeSettings::default())));
    let rig = rig.restart(&guest("own", ""));
    assert_eq!(rig.names(), ["a", "own"]);
}

#[test]
fn what_a_row_made_at_run_time_needs_stays_with_a_warning() {
    let rig = Rig::start(WHOLE);
    rig.service.bind_meter(&MeterBinding { vport: 0, direction: MeterDirection::To, meter: 8 }).unwrap();
    rig.service.redirect(RedirectSpec { src: 0, dest: 4 }).unwrap();
    let file = "[[port]]\nname = \"up\"\nkind = \"phy\"\nvport = 0\nifname = \"eth7\"\n";
    let done = rig.reload(file).unwrap();
    assert_eq!(rig.names(), ["a", "up"]);
    assert_eq!(done.warnings.len(), 2, "{:?}", done.warnings);
    let rig = rig.restart(file);
    assert_eq!((rig.names().len(), rig.service.meters(Page::default()).len()), (2, 1));
    rig.service.redirect(RedirectSpec { src: 0, dest: 0 }).unwrap();
    rig.service.unbind_meter(0, MeterDirection::To, None).unwrap();
    assert_eq!(told(&rig.reload(file).unwrap()), ["-port a", "-meter 8"]);
}
