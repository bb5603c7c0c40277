//! The daemon's own file, edited: read again, and after a restart.

use ctl_types::*;
use switch::model::*;

use crate::{Rig, WHOLE, access, guest, told, vlan};

#[test]
fn an_edited_vlan_is_in_force_after_a_restart_and_when_the_file_is_read_again() {
    let rig = Rig::start(&guest("a", &vlan(10)));
    assert_eq!(told(&rig.reload(&guest("a", &vlan(20))).unwrap()), ["~port a"]);
    assert_eq!(rig.spec("a").vlan, access(20));
    let rig = rig.restart(&guest("a", &vlan(30)));
    assert_eq!(rig.service.dataplane().port("a").unwrap().spec.vlan, access(30));
    // Without a VLAN it is that of any guest.
    let rig = rig.restart(&guest("a", ""));
    assert_eq!(rig.spec("a").vlan, access(0));
    rig.reload(&guest("a", &vlan(40))).unwrap();
    rig.reload(&guest("a", "")).unwrap();
    assert_eq!(rig.spec("a").vlan, access(0));
    assert_eq!(rig.names(), ["a"]);
}

#[test]
fn every_field_that_can_is_changed_in_operation() {
    let rig = Rig::start(&guest("a", ""));
    let ifindex = rig.service.port("a").unwrap().info.unwrap().ifindex;
    let more = "mtu = 1400\nmac = \"02:00:00:00:00:07\"\nisolated = true\nmac_check = false\nfdb_limit = 9\nqueue_depth = 64\n";
    for done in [rig.reload(&guest("a", more)).unwrap(), rig.reload(&guest("a", "")).unwrap()] {
        assert_eq!(told(&done), ["~port a"]);
        assert_eq!(done.changes[0].fields.len(), 6, "{done:?}");
    }
    assert_eq!(rig.service.port("a").unwrap().info.unwrap().ifindex, ifindex, "its netdev is the same");
    assert_eq!(rig.spec("a").mac, Some(MacAddr::derived_from("a")));
}

#[test]
fn a_field_that_cannot_be_changed_makes_the_port_anew_with_all_that_it_had() {
    let rig = Rig::start(WHOLE);
    rig.service.redirect(RedirectSpec { src: 0, dest: 4 }).unwrap();
    let before = rig.kept();
    let edited = WHOLE.replace("vport = 4\nvlan", "vport = 4\nmode = \"generic\"\nvlan");
    let done = rig.reload(&edited).unwrap();
    assert_eq!((told(&done), done.changes[0].fields[0].field.as_str()), (vec!["-/+port a".to_owned()], "mode"));
    let mut after = rig.kept();
    assert_eq!(after.ports[0].mode, ModeRequest::Generic);
    after.ports[0].mode = ModeRequest::Auto;
    assert_eq!(after, before);
    let rig = rig.restart(WHOLE);
    assert_eq!(rig.kept(), before);
}

#[test]
fn a_port_that_vanishes_from_the_file_goes_and_one_made_at_run_time_stays() {
    let rig = Rig::start(&(guest("a", "") + &guest("b", "")));
    rig.service.add_port(PortSpec::new("made", PortKind::Guest)).unwrap();
    let done = rig.reload(&(guest("a", "") + &guest("c", ""))).unwrap();
    assert_eq!(told(&done), ["-port b", "+port c"]);
    assert_eq!(rig.names(), ["a", "c", "made"]);
    let rig = rig.restart(&guest("c", ""));
    assert_eq!(rig.names(), ["c", "made"]);
    assert!(rig.host.link("xs0").is_none(), "the pair went with its port");
    let rig = rig.restart("");
    assert_eq!(rig.names(), ["made"]);
}

#[test]
fn numbers_stay_whatever_comes_and_goes() {
    let rig = Rig::start(&(guest("a", "") + &guest("b", "") + &guest("c", "")));
    rig.reload(&(guest("d", "") + &guest("c", "") + &guest("b", &vlan(5)))).unwrap();
    let number = |rig: &Rig, name: &str| rig.spec(name).vport.unwrap();
    let numbers = |rig: &Rig| ["b", "c", "d"].map(|name| number(rig, name));
    assert_eq!(numbers(&rig), [1, 2, 0], "the new one has the lowest free number");
    let rig = rig.restart(&(guest("c", "vport = 9") + &guest("b", "") + &guest("d", "")));
    assert_eq!(numbers(&rig), [1, 9, 0]);
    // Two swap.
    rig.reload(&(guest("c", "vport = 1") + &guest("b", "vport = 9") + &guest("d", ""))).unwrap();
    assert_eq!(numbers(&rig), [9, 1, 0]);
}

#[test]
fn what_was_changed_at_run_time_holds_until_the_file_is_taken_again() {
    let rig = Rig::start(WHOLE);
    let before = rig.kept();
    let change = |rig: &Rig| {
        rig.service.update_port("a", PortUpdate { vlan: access(99), ..PortUpdate::default() }).unwrap();
        rig.service.update_bridge(&BridgeUpdate { fdb_limit: Some(77), ..BridgeUpdate::default() }).unwrap();
        rig.service.del_rule(9).unwrap();
        rig.service.update_meter(7, &MeterUpdate { rate: Some(5), ..MeterUpdate::default() }).unwrap();
        rig.service.fdb_del(MacAddr::new([2, 0, 0, 0, 0, 1]), 10).unwrap();
        rig.service.redirect(RedirectSpec { src: 4, dest: 0 }).unwrap();
        rig.service.unbind_meter(4, MeterDirection::From, None).unwrap();
    };
    change(&rig);
    let done = rig.reload(WHOLE).unwrap();
    let expected =
        ["~bridge ", "~port a", "+fdb 10/02:00:00:00:00:01", "~meter 7", "+binding 4/from", "+rule 9", "~redirect 4"];
    assert_eq!(told(&done), expected);
    assert!(done.changes.iter().all(|change| change.run_time), "{done:?}");
    assert_eq!(rig.kept(), before);
    change(&rig);
    let rig = rig.restart(WHOLE);
    assert_eq!(rig.kept(), before);
    // An edit is no change at run time.
    let done = rig.reload(&WHOLE.replace("rate = 1000", "rate = 1001")).unwrap();
    assert!(told(&done) == ["~meter 7"] && !done.changes[0].run_time, "{done:?}");
}

#[test]
fn a_file_without_a_section_leaves_what_was_made_at_run_time() {
    let rig = Rig::start("");
    let service = &rig.service;
    service.update_bridge(&BridgeUpdate { fdb_limit: Some(77), ..BridgeUpdate::default() }).unwrap();
    service.add_port(PortSpec::new("a", PortKind::Guest)).unwrap();
    service.add_meter(MeterSpec::new(1, 100)).unwrap();
    service
        .write_rule(RuleWrite {
            key_index: Some(5),
            key: RuleKey::default(),
            action: RuleAction::to(RuleTarget::Normal),
        })
        .unwrap();
    let before = rig.kept();
    assert_eq!(rig.reload("").unwrap().changes, []);
    let rig = rig.restart("").restart("");
    assert_eq!(rig.kept(), before);
    // The bridge is declared, and then no more.
    let rig = rig.restart("[bridge]\nfdb_limit = 50\n");
    assert_eq!(rig.kept().bridge.unwrap().fdb_limit, 50);
    let rig = rig.restart("");
    assert_eq!(rig.kept().bridge, Some(BridgeSettings::default()));
}

#[test]
fn every_section_is_changed_and_taken_away() {
    let rig = Rig::start(WHOLE);
    assert_eq!(rig.kept().meters[0].spec.id, 7);
    let edited = WHOLE
        .replace("rate = 10\ntype = \"pps\"", "rate = 20\ntype = \"kbps\"")
        .replace("id = 7\nrate = 1000", "id = 7\nrate = 64\ntype = \"pps\"")
        .replace("vlan = 10\nport = \"b\"", "vlan = 10\nport = \"a\"")
        .replace("direction = \"from\"", "direction = \"to\"")
        .replace("qid = 0, ", "")
        .replace("dest = 2", "dest = 0");
    let done = rig.reload(&edited).unwrap();
    let expected = [
        "~fdb 10/02:00:00:00:00:01",
        "-/+meter 7",
        "-/+meter 8",
        "-binding 4/from",
        "+binding 4/to",
        "~rule 3",
        "~redirect 4",
    ];
    assert_eq!(told(&done), expected);
    let kept = rig.kept();
    assert_eq!((kept.meters[0].spec.kind, kept.meters[0].implicit), (MeterType::Pps, false));
    assert_eq!(kept.rules[0].action.meter, Some(7));
    assert_eq!(rig.service.fdb(&FdbFilter::default()).unwrap()[0].port, "a");
    let rig = rig.restart(&edited);
    assert_eq!(rig.kept(), kept);
    assert_eq!(told(&rig.reload("").unwrap()).len(), 11);
    assert_eq!(rig.kept(), SwitchConfig { bridge: Some(BridgeSettings::default()), ..SwitchConfig::default() });
    let rig = rig.restart("");
    assert_eq!(rig.kept(), SwitchConfig { bridge: Some(BridgeSettings::default()), ..SwitchConfig::default() });
}
