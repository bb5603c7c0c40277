//! A configuration is applied in full, or nothing changes.

use ctl_service::Error;
use ctl_types::*;
use kit::{Call, Fate, MISSING_NETDEV};
use nix::errno::Errno;
use switch::ErrorKind;
use switch::model::*;

use crate::{Rig, WHOLE, guest, vlan};

#[test]
fn a_file_that_cannot_be_applied_in_full_changes_nothing() {
    let rig = Rig::start(WHOLE);
    rig.service.add_port(PortSpec { vport: Some(11), ..PortSpec::new("made", PortKind::Guest) }).unwrap();
    let (before, bytes, calls) = (rig.kept(), rig.storage.bytes(), rig.host.calls().len());
    let edited = WHOLE.replace("vid = 10 }", "vid = 20 }").replace("fdb_limit = 99", "fdb_limit = 98");
    for (more, says) in [
        (guest("c", "vport = 4"), "port `c`: vport: 4 belongs"),
        (guest("c", "vport = 11"), "vport: 11 belongs"),
        (guest("c", "uuid = \"made\""), "uuid: `made`"),
        (guest("c", "queue_depth = 65"), "port `c`: queue_depth: 65"),
        (guest("c", &vlan(4095)), "port `c`: vlan: 4095"),
        (guest("a", ""), "port `a`: name: "),
        (
            "[[fdb]]\nmac = \"02:00:00:00:00:02\"\nport = \"c\"\n".into(),
            "fdb 0/02:00:00:00:00:02: port: there is no port `c`",
        ),
        ("[[fdb]]\nmac = \"03:00:00:00:00:02\"\nport = \"a\"\n".into(), "fdb 0/03:00:00:00:00:02: mac: "),
        ("[[meter]]\nid = 9\nrate = 0\n".into(), "meter 9: rate: "),
        ("[[meter]]\nid = 7\nrate = 1\n".into(), "meter 7: it is declared twice"),
        ("[[binding]]\nvport = 4\ndirection = \"to\"\nmeter = 9\n".into(), "binding 4/to: meter: there is no meter 9"),
        ("[[binding]]\nvport = 5\ndirection = \"to\"\nmeter = 7\n".into(), "binding 5/to: vport: there is no vport 5"),
        ("[[rule]]\nkey_index = 1\naction = { vid = 5 }\n".into(), "rule 1: action.vid: there is no vport 5"),
        ("[[rule]]\nkey_index = 1\naction = { vid = 4, qid = 1 }\n".into(), "rule 1: action.qid: 1 "),
        ("[[rule]]\nkey_index = 1\naction = { vid = \"drop\", meter = 9 }\n".into(), "rule 1: action.meter: "),
        ("[[rule]]\nkey_index = 99999\naction = { vid = \"drop\" }\n".into(), "rule 99999: key_index: "),
        ("[[redirect]]\nsrc = 2\ndest = 4\n".into(), "redirect of vport 2"),
        ("[[redirect]]\nsrc = 2\ndest = 5\n".into(), "redirect 2: dest: there is no vport 5"),
    ] {
        let error = rig.reload(&(edited.clone() + &more)).unwrap_err().to_string();
        assert!(error.contains(says), "{more}: {error}");
        let request = Rig::request(&(edited.clone() + &more), None, false);
        assert_eq!(rig.service.diff_config(&request).unwrap_err().to_string(), error);
        assert_eq!((rig.kept(), rig.storage.bytes()), (before.clone(), bytes.clone()), "{more}");
    }
    let mtu = rig.reload(&edited.replace("vport = 4\nvlan", "vport = 4\nmtu = 90000\nvlan")).unwrap_err();
    assert!(mtu.to_string().starts_with("port `a`: mtu: 90000"), "{mtu}");
    let gone = rig.reload(&edited.replace("eth7", MISSING_NETDEV)).unwrap_err();
    assert!(gone.to_string().starts_with("port `up`: ifname: "), "{gone}");
    assert_eq!(rig.kept(), before);
    assert!(rig.host.calls()[calls..].iter().all(|(call, _)| *call != Call::Attach), "no netdev was touched");
}

#[test]
fn a_step_that_fails_and_a_full_disk_lead_back_to_what_was() {
    let rig = Rig::start(WHOLE);
    let before = rig.kept();
    // All sections change, a port goes, one is made anew, and one comes.
    let edited = WHOLE
        .replace("name = \"b\"", "name = \"c\"")
        .replace("port = \"b\"", "port = \"c\"")
        .replace("vport = 4\nvlan", "vport = 4\nmode = \"generic\"\nvlan")
        .replace("fdb_limit = 99", "fdb_limit = 98")
        .replace("rate = 1000", "rate = 5\ntype = \"pps\"")
        .replace("key_index = 9", "key_index = 10")
        .replace("src = 4\ndest = 2", "src = 2\ndest = 4");
    rig.storage.set_full(true);
    let error = rig.reload(&edited).unwrap_err();
    assert!(matches!(error, Error::NotKept { .. }), "{error}");
    rig.storage.set_full(false);
    assert_eq!(rig.kept(), before);
    assert!(rig.service.ports().iter().all(|port| port.state == PortState::Up));
    for call in [Call::Attach, Call::OpenQueue] {
        rig.host.set_fate(call, Fate::FailsOnce(Errno::EIO));
        let error = rig.reload(&edited).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::System, "{error}");
        assert_eq!(rig.kept(), before, "{call:?}");
        assert!(rig.service.ports().iter().all(|port| port.state == PortState::Up));
    }
    let done = rig.reload(&edited).unwrap();
    assert_eq!(rig.reload(&edited).unwrap().changes, []);
    assert_eq!(done.changes.len(), 10, "{done:#?}");
}

#[test]
fn a_new_port_may_wait_for_its_netdev() {
    let text = format!("[[port]]\nname = \"late\"\nkind = \"phy\"\nvport = 6\nifname = \"{MISSING_NETDEV}\"\n");
    let tables =
        "[[fdb]]\nmac = \"02:00:00:00:00:02\"\nport = \"late\"\n[[rule]]\nkey_index = 1\naction = { vid = 6 }\n";
    let rig = Rig::start("");
    let done = rig.reload(&(text.clone() + tables)).unwrap();
    assert!(done.warnings[0].contains("port `late` is not up: ifname: "), "{:?}", done.warnings);
    assert_eq!(rig.service.port("late").unwrap().state, PortState::Failed);
    let done = rig.reload(&(text.clone() + tables)).unwrap();
    assert_eq!((done.changes.len(), done.warnings.len()), (0, 1), "{done:?}");
    // Its netdev is another one.
    rig.host.add_nic("eth9", 1);
    let done = rig.reload(&(text.replace(MISSING_NETDEV, "eth9") + tables)).unwrap();
    assert_eq!(done.warnings, Vec::<String>::new());
    assert_eq!((rig.spec("late").vport, rig.service.fdb(&FdbFilter::default()).unwrap().len()), (Some(6), 1));
    let rig = rig.restart("");
    assert_eq!(rig.names(), Vec::<String>::new());
}

#[test]
fn a_start_goes_on_with_what_is_possible() {
    let rig = Rig::start("");
    rig.service.add_port(PortSpec { vport: Some(3), ..PortSpec::new("made", PortKind::Guest) }).unwrap();
    let text = guest("a", "vport = 3") + &guest("b", &vlan(7)) + "[[redirect]]\nsrc = 3\ndest = 9\n";
    let rig = rig.restart(&text);
    assert_eq!(rig.names(), ["a", "b", "made"]);
    let failed = rig.service.port("a").unwrap();
    assert!(failed.error.as_ref().is_some_and(|why| why.starts_with("vport: 3")), "{failed:?}");
    assert_eq!((rig.service.port_numbered("vport", 3).unwrap().name.as_str(), rig.spec("b").vport), ("made", Some(0)));
    // A mistake that the file alone shows is told at once.
    let declared = ctl_service::Declared { config: crate::parse(&guest("a", &vlan(4095))), ..Default::default() };
    let storage = kit::FakeStorage::default();
    let error = ctl_service::Service::start(kit::start(&rig.host), storage.store(), &declared).unwrap_err();
    assert!(error.to_string().starts_with("port `a`: vlan: 4095"), "{error}");
}
