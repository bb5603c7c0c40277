//! Ports that fail and come back, with their bindings, redirects and FDB entries.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;

use ctl_service::state::Row;
use ctl_service::*;
use ctl_types::*;
use kit::{Config, FakeHost, FakeStorage, Kept, MISSING_NETDEV, machine_for, start};
use switch::ErrorKind;
use switch::model::*;

const STATION: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 1]);

struct Rig {
    host: FakeHost,
    storage: FakeStorage,
    service: Arc<Service>,
}

impl Rig {
    fn over(storage: FakeStorage, config: &str) -> Self {
        Self::on(machine_for(&[]), storage, config)
    }

    fn on(host: FakeHost, storage: FakeStorage, config: &str) -> Self {
        let config = Config::parse(config).unwrap();
        let service = Service::start(start(&host), storage.store(), &config.declared()).unwrap();
        Self { host, storage, service }
    }

    /// A rig whose state file has these rows.
    fn with(rows: &[Row]) -> Self {
        let storage = FakeStorage::default();
        storage.store().write(rows).unwrap();
        Self::over(storage, "")
    }

    fn restart(self, config: &str) -> Self {
        let Self { host, storage, service } = self;
        drop(service);
        Self::on(host, storage, config)
    }

    /// Ends the service and returns the state that it leaves.
    fn kept(self) -> Kept {
        let Self { storage, service, .. } = self;
        drop(service);
        Kept::load(&storage.store()).unwrap()
    }

    fn add(&self, name: &str) -> PortEntry {
        self.service.add_port(guest(name)).unwrap()
    }

    fn is_up(&self, name: &str) -> bool {
        self.service.port(name).unwrap().state == PortState::Up
    }

    /// Makes the netdev appear, and retries the failed ports.
    fn provide(&self) {
        self.host.set_missing(MISSING_NETDEV, false);
        self.service.retry();
    }
}

/// [`failing`] in a configuration file.
const FAILING: &str = "[[port]]\nname = \"up\"\nkind = \"phy\"\nvport = 0\nifname = \"missing0\"\n";

fn guest(name: &str) -> PortSpec {
    PortSpec::new(name, PortKind::Guest)
}

/// A port `up` with number 0. It fails as long as its netdev is missing.
fn failing() -> PortSpec {
    PortSpec { vport: Some(0), ifname: Some(MISSING_NETDEV.into()), ..PortSpec::new("up", PortKind::Phy) }
}

/// The same port with a netdev that exists.
fn mended() -> PortSpec {
    PortSpec { ifname: Some("eth7".into()), vport: None, ..failing() }
}

fn static_row() -> FdbSpec {
    FdbSpec { mac: STATION, vlan: 5, port: "up".into() }
}

fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn the_number_of_a_failed_port_is_kept_for_it() {
    // `early` comes first in the state and has no number yet. It must not get the number of `up`.
    let rig = Rig::with(&[Row::put::<Ports>(&guest("early")), Row::put::<Ports>(&failing())]);
    assert!(!rig.is_up("up"));
    assert_eq!(rig.service.port("early").unwrap().spec.vport, Some(1));
    assert_eq!(rig.add("vm2").spec.vport, Some(2));
    assert_eq!(kind(rig.service.add_port(PortSpec { vport: Some(0), ..guest("vm0") })), ErrorKind::Exists);
    rig.provide();
    assert_eq!((rig.is_up("up"), rig.service.port("up").unwrap().spec.vport), (true, Some(0)));
}

#[test]
fn the_number_of_a_failed_port_is_free_once_it_is_deleted() {
    let rig = Rig::with(&[Row::put::<Ports>(&failing())]);
    rig.service.del_port("0").unwrap();
    assert_eq!(rig.add("vm1").spec.vport, Some(0));
}

#[test]
fn a_port_in_the_place_of_a_failed_one_gets_its_number_and_its_static_rows() {
    let rig = Rig::with(&[Row::put::<Ports>(&failing()), Row::put::<StaticEntries>(&static_row())]);
    assert_eq!(rig.service.fdb(&FdbFilter::default()).unwrap(), []);
    assert_eq!(rig.service.add_port(mended()).unwrap().spec.vport, Some(0));
    let rows = rig.service.fdb(&FdbFilter::default()).unwrap();
    assert_eq!((rows.len(), rows[0].mac, rows[0].port.as_str()), (1, STATION, "up"));
    let kept = rig.kept();
    assert_eq!((kept.ports.len(), kept.ports[0].ifname.as_deref(), kept.fdb.len()), (1, Some("eth7"), 1));
}

#[test]
fn a_port_in_the_place_of_a_failed_one_leaves_all_as_it_was_if_it_cannot_be_kept() {
    let rig =
        Rig::with(&[Row::put::<Ports>(&failing()), Row::put::<Ports>(&PortSpec { vport: Some(1), ..guest("vm1") })]);
    rig.service.add_meter(MeterSpec::new(7, 1000)).unwrap();
    rig.service.bind_meter(&MeterBinding { vport: 0, direction: MeterDirection::To, meter: 7 }).unwrap();
    // A redirect from the port goes away with it, and one to the port prevents its deletion.
    for redirects in [[(0, 1)], [(1, 0)]] {
        let redirects = redirects.map(|(src, dest)| RedirectSpec { src, dest });
        rig.service.redirect(redirects[0]).unwrap();
        rig.storage.set_full(true);
        let error = rig.service.add_port(mended()).unwrap_err();
        assert!(matches!(error, Error::NotKept { .. }), "{error}");
        rig.storage.set_full(false);
        assert!(!rig.is_up("up"));
        assert_eq!(rig.service.meter_bindings().len(), 1);
        assert_eq!(rig.service.redirects().iter().map(|redirect| redirect.spec).collect::<Vec<_>>(), redirects);
        assert_eq!(kind(rig.service.add_port(PortSpec { vport: Some(0), ..guest("vm0") })), ErrorKind::Exists);
        rig.service.redirect(RedirectSpec { dest: redirects[0].src, ..redirects[0] }).unwrap();
    }
}

#[test]
fn a_port_in_the_place_of_a_failed_one_may_have_another_number_unless_a_redirect_points_to_the_old_one() {
    let rig = Rig::with(&[Row::put::<Ports>(&failing())]);
    rig.add("vm1");
    rig.service.add_meter(MeterSpec::new(7, 1000)).unwrap();
    rig.service.bind_meter(&MeterBinding { vport: 0, direction: MeterDirection::To, meter: 7 }).unwrap();
    rig.service.redirect(RedirectSpec { src: 1, dest: 0 }).unwrap();
    let other = PortSpec { vport: Some(5), ..mended() };
    assert_eq!(kind(rig.service.add_port(other.clone())), ErrorKind::Busy);
    assert!(!rig.is_up("up"));
    rig.service.redirect(RedirectSpec { src: 1, dest: 1 }).unwrap();
    assert_eq!(rig.service.add_port(other).unwrap().spec.vport, Some(5));
    assert_eq!(rig.service.meter_bindings(), [], "they went with the number");
    assert_eq!(rig.add("vm0").spec.vport, Some(0));
    assert_eq!(rig.kept().bindings, []);
}

#[test]
fn a_static_row_of_a_failed_port_can_be_deleted() {
    let rig = Rig::with(&[Row::put::<Ports>(&failing()), Row::put::<StaticEntries>(&static_row())]);
    rig.storage.set_full(true);
    assert!(matches!(rig.service.fdb_del(STATION, 5).unwrap_err(), Error::NotKept { .. }));
    rig.storage.set_full(false);
    rig.service.fdb_del(STATION, 5).unwrap();
    assert_eq!(kind(rig.service.fdb_del(STATION, 5)), ErrorKind::NotFound);
    rig.provide();
    assert!(rig.is_up("up"));
    assert_eq!(rig.service.fdb(&FdbFilter::default()).unwrap(), []);
    assert_eq!(rig.kept().fdb, []);
}

#[test]
fn the_mac_table_is_filtered_by_a_port_number_too() {
    let rig = Rig::with(&[]);
    for (name, last) in [("vm0", 1), ("vm1", 2)] {
        rig.add(name);
        rig.service.fdb_add(FdbSpec { mac: MacAddr::new([2, 0, 0, 0, 0, last]), vlan: 0, port: name.into() }).unwrap();
    }
    let ports = |key: &str| {
        let rows = rig.service.fdb(&FdbFilter { port: Some(key.into()), ..FdbFilter::default() })?;
        Ok::<_, Error>(rows.into_iter().map(|row| row.port).collect::<Vec<_>>())
    };
    assert_eq!((ports("1").unwrap(), ports("vm0").unwrap()), (vec!["vm1".to_owned()], vec!["vm0".to_owned()]));
    assert_eq!(kind(ports("2")), ErrorKind::NotFound);
}

#[test]
fn a_trace_from_a_failed_port_says_why_it_is_not_up() {
    let rig = Rig::with(&[Row::put::<Ports>(&failing())]);
    let request = TraceRequest { port: "up".into(), hex: Some("00".repeat(60)), ..TraceRequest::default() };
    let error = rig.service.trace(&request).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains(MISSING_NETDEV), "{error}");
}

#[test]
fn a_port_of_the_configuration_that_fails_is_listed_and_tried_again() {
    let config = format!("[[port]]\nname = \"up\"\nkind = \"phy\"\nifname = \"{MISSING_NETDEV}\"\n");
    let rig = Rig::over(FakeStorage::default(), &config);
    let listed = rig.service.ports();
    assert_eq!((listed.len(), listed[0].name.as_str(), listed[0].state), (1, "up", PortState::Failed));
    assert!(listed[0].error.as_ref().unwrap().contains(MISSING_NETDEV));
    rig.service.retry();
    assert!(!rig.is_up("up"));
    rig.provide();
    assert!(rig.is_up("up"));
    assert_eq!(rig.kept().ports.len(), 1);
}

#[test]
fn a_failed_port_whose_number_another_has_takes_nothing_from_it() {
    let rig = Rig::with(&[]);
    for name in ["vm0", "vm1"] {
        rig.add(name);
    }
    rig.service.add_meter(MeterSpec::new(7, 1000)).unwrap();
    rig.service.bind_meter(&MeterBinding { vport: 0, direction: MeterDirection::To, meter: 7 }).unwrap();
    rig.service.redirect(RedirectSpec { src: 0, dest: 1 }).unwrap();
    let rig = rig.restart(FAILING);
    assert!(!rig.is_up("up"));
    assert_eq!(rig.service.port_numbered("vport", 0).unwrap().name, "vm0");
    rig.service.del_port("up").unwrap();
    assert_eq!((rig.service.meter_bindings().len(), rig.service.redirects().len()), (1, 1));
    // The other way round: bindings and redirects of the port that is up go with it.
    let rig = rig.restart(FAILING);
    rig.service.del_port("vm0").unwrap();
    assert_eq!((rig.service.meter_bindings().len(), rig.service.redirects().len()), (0, 0));
    let kept = rig.kept();
    assert_eq!((kept.bindings.len(), kept.redirects.len()), (0, 0));
}

#[test]
fn a_uuid_of_a_failed_port_is_taken() {
    let rig = Rig::with(&[Row::put::<Ports>(&PortSpec { uuid: Some("nic-a".into()), ..failing() })]);
    assert_eq!(kind(rig.service.add_port(PortSpec { uuid: Some("nic-a".into()), ..guest("vm1") })), ErrorKind::Exists);
    assert_eq!(
        kind(rig.service.add_port(guest("nic-a"))),
        ErrorKind::Exists,
        "a name stands for a uuid that is absent"
    );
    rig.service.add_port(PortSpec { uuid: Some("nic-a".into()), ..mended() }).unwrap();
}

#[test]
fn a_port_that_a_redirect_points_to_stays_with_all_that_it_has() {
    let rig = Rig::with(&[Row::put::<Ports>(&failing()), Row::put::<StaticEntries>(&static_row())]);
    rig.add("vm1");
    rig.service.fdb_add(FdbSpec { mac: MacAddr::new([2, 0, 0, 0, 0, 9]), vlan: 0, port: "vm1".into() }).unwrap();
    rig.service.add_meter(MeterSpec::new(7, 1000)).unwrap();
    // The failed port first, then the one that is up.
    for (src, dest) in [(1, 0), (0, 1)] {
        rig.service.bind_meter(&MeterBinding { vport: dest, direction: MeterDirection::From, meter: 7 }).unwrap();
        rig.service.redirect(RedirectSpec { src, dest }).unwrap();
        let before = (rig.service.ports(), rig.service.meter_bindings(), rig.storage.bytes());
        assert_eq!(kind(rig.service.del_port(&dest.to_string())), ErrorKind::Busy);
        assert_eq!((rig.service.ports(), rig.service.meter_bindings(), rig.storage.bytes()), before);
        rig.service.redirect(RedirectSpec { src, dest: src }).unwrap();
    }
    rig.service.del_port("0").unwrap();
    rig.service.del_port("1").unwrap();
    assert_eq!(rig.service.meter_bindings(), []);
    let kept = rig.kept();
    assert_eq!((kept.ports, kept.fdb, kept.bindings), (vec![], vec![], vec![]));
}

#[test]
fn ports_of_the_configuration_are_kept_and_numbered_in_its_order() {
    let config = (0..5).map(|n| format!("[[port]]\nname = \"p{n}\"\nkind = \"guest\"\n")).collect::<String>();
    let rig = Rig::over(FakeStorage::default(), &config);
    let numbers: Vec<_> = rig.service.ports().into_iter().map(|port| (port.name, port.spec.vport)).collect();
    assert_eq!(numbers, (0..5).map(|n| (format!("p{n}"), Some(n))).collect::<Vec<_>>());
    let kept = rig.kept().ports;
    assert_eq!(kept.len(), 5);
    assert!(kept.iter().all(|spec| !spec.isolated && spec.vport.is_some()), "{kept:?}");
}
