//! Captures, components, traces and tables on live ports.

use std::time::Duration;

use switch::model::*;
use switch::{CaptureRequest, ErrorKind};

use crate::rig::{Rig, frame, guest, kind, mac, phy, wait};

fn request(ports: &[&str], direction: Option<Direction>) -> CaptureRequest {
    CaptureRequest { ports: ports.iter().map(|&port| port.into()).collect(), direction, snaplen: 65_535 }
}

#[test]
fn a_capture_has_the_frames_of_its_ports_and_ends_with_its_reader() {
    let rig = Rig::new();
    rig.add(PortSpec { mac: Some(mac(1)), ..guest("a") });
    rig.add(PortSpec { mac: Some(mac(2)), ..guest("b") });
    let mut received = rig.switch.capture(request(&["a"], Some(Direction::Rx))).unwrap();
    let mut all = rig.switch.capture(request(&[], None)).unwrap();
    let data = frame(mac(2), mac(1), 5);
    assert!(rig.host.receive("xs0", 0, &data));
    rig.sent("xs1", 1);
    let frames = received.recv(Duration::from_secs(5));
    assert_eq!((frames.len(), frames[0].vport, &frames[0].data), (1, 0, &data));
    let mut seen = Vec::new();
    wait("both sides are captured", || {
        seen.extend(all.recv(Duration::from_millis(10)));
        seen.len() == 2
    });
    drop((received, all));
    assert!(rig.switch.capture(request(&["c"], None)).is_err());
}

#[test]
fn a_port_of_components_is_moved_through_a_tap() {
    let rig = Rig::new();
    rig.add(PortSpec { spp: Some("phy:0".into()), ..phy("up", "eth0") });
    rig.switch.add_outside(0, OutsideSpec::Tap { ifname: "tap0".into() }).unwrap();
    let end = |port| End { port, vlan: VlanEdit::None };
    let port = EndPort::Port { name: "up".into(), queue: None };
    let forward = |name: &str, from: EndPort, to: EndPort| ComponentSpec {
        name: name.into(),
        worker: 0,
        kind: ComponentKind::Forward,
        rx: vec![end(from)],
        tx: vec![end(to)],
        table: Vec::new(),
    };
    let out = forward("out", port.clone(), EndPort::Outside(0));
    let back = forward("back", EndPort::Outside(0), port);
    rig.switch.set_components(vec![out, back]).unwrap();
    let tap = rig.host.tap("tap0").unwrap();
    tap.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let data = frame(mac(1), mac(2), 6);
    assert!(rig.host.receive("eth0", 0, &data));
    let mut buffer = [0; 2048];
    let len = tap.recv(&mut buffer).unwrap();
    assert_eq!(buffer[..len], data);
    tap.send(&data).unwrap();
    assert_eq!(rig.sent("eth0", 1), [data]);
    rig.assert_balanced();
    assert!(rig.switch.del_port("up").is_err(), "a component has it");
    rig.switch.set_components(Vec::new()).unwrap();
    rig.switch.del_outside(0).unwrap();
    rig.switch.del_port("up").unwrap();
    rig.assert_empty();
}

#[test]
fn flow_rules_of_a_port_count_what_meets_them() {
    let rig = Rig::new();
    rig.add(PortSpec { spp: Some("phy:0".into()), ..phy("up", "eth0") });
    assert!(rig.switch.set_flow_rules("vm9", Vec::new()).is_err());
    rig.switch.set_flow_rules("up", Vec::new()).unwrap();
    assert_eq!((rig.switch.flow_rules("up").unwrap(), rig.switch.flow_counts()), (vec![], vec![]));
}

#[test]
fn a_trace_names_the_way_of_a_frame_and_changes_nothing() {
    let rig = Rig::new();
    rig.add(PortSpec { mac: Some(mac(1)), ..guest("a") });
    rig.add(PortSpec { mac: Some(mac(2)), ..guest("b") });
    let report = rig.switch.trace("a", 0, &frame(mac(2), mac(1), 7), None).unwrap();
    assert_eq!(report.outputs, ["b"]);
    assert!(rig.switch.trace("a", 1, &frame(mac(2), mac(1), 7), None).is_err(), "it has one queue");
    assert_eq!(rig.switch.stats().ports[1].tx.packets, 0);
}

#[test]
fn storm_control_holds_for_ports_that_are_there_and_for_later_ones_and_changes_live() {
    let rig = Rig::new();
    let set = |storm_control| rig.switch.set_bridge(BridgeSettings { storm_control, ..BridgeSettings::default() });
    let add = |no: u8, name: &str| rig.add(PortSpec { mac: Some(mac(no)), ..guest(name) });
    for (no, name) in (0..).zip(["a", "b", "c"]) {
        add(no, name);
    }
    set(1).unwrap();
    add(3, "d");
    let storms = |port: usize| rig.switch.stats().ports[port].drops.get("storm").map_or(0, |count| count.packets);
    for (port, ifname) in [(0, "xs0"), (3, "xs3")] {
        for mark in 0..20 {
            assert!(rig.host.receive(ifname, 0, &frame(MacAddr::BROADCAST, mac(port), mark)));
        }
        // Each has a token at most, and takes those of the next second with it.
        wait("a storm is dropped", || storms(port.into()) >= 18);
    }
    set(0).unwrap();
    let before = storms(0);
    assert!(rig.host.receive("xs0", 0, &frame(MacAddr::BROADCAST, mac(0), 99)));
    rig.assert_balanced();
    assert_eq!(storms(0), before);
    assert_eq!(kind(set(1_000_000_001)), ErrorKind::Invalid);
}

#[test]
fn a_meter_holds_for_the_frames_of_its_port() {
    let rig = Rig::new();
    rig.add(PortSpec { mac: Some(mac(1)), ..guest("a") });
    rig.add(PortSpec { mac: Some(mac(2)), ..guest("b") });
    rig.switch.add_meter(MeterSpec { kind: MeterType::Pps, burst: Some(1), ..MeterSpec::new(7, 1) }, false).unwrap();
    rig.switch.bind_meter(&MeterBinding { vport: 0, direction: MeterDirection::From, meter: 7 }).unwrap();
    for mark in 0..5 {
        assert!(rig.host.receive("xs0", 0, &frame(mac(2), mac(1), mark)));
    }
    wait("all are taken", || rig.switch.stats().ports[0].rx.packets == 5);
    assert_eq!(rig.sent("xs1", 1).len(), 1);
    rig.assert_balanced();
}
