//! Components between real ports: a data plane without its daemon, with packet sockets at the guests' ends.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use switch::model::*;
use switch::{ErrorKind, Switch};
use tests::raw::RawSocket;
use tests::{Frame, Mac, NetNs, narrow, wait};

const PATIENCE: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_millis(300);
const CTAG: u16 = 0x8100;

/// A data plane of two workers. It has ports `vhost:0` and so on, whose other ends are in a namespace each.
struct Bed {
    switch: Switch,
    guests: Vec<(RawSocket, NetNs)>,
    host: NetNs,
}

impl Bed {
    fn new(label: &str, ports: usize) -> Self {
        let host = NetNs::new(label);
        let settings = DataplaneSettings { workers: 2, frames: 16_384, ..DataplaneSettings::default() };
        let switch =
            host.run(|| Switch::start(&settings, BridgeSettings::default(), Default::default())).expect("a data plane");
        let mut bed = Self { switch, guests: Vec::new(), host };
        (0..ports).for_each(|no| bed.add(&format!("p{no}"), Some(format!("vhost:{no}"))));
        bed
    }

    /// Adds a port. It is one of the bridge unless it has a name in `spp`.
    fn add(&mut self, name: &str, spp: Option<String>) {
        self.add_port(PortSpec { spp, ..PortSpec::new(name, PortKind::Guest) });
    }

    fn add_port(&mut self, spec: PortSpec) {
        let ns = NetNs::new(&spec.name);
        let spec = PortSpec { netns: Some(ns.name().to_owned()), mac_check: Some(false), ..spec };
        let port = self.host.run(|| self.switch.add_port(spec)).expect("a port");
        let ifname = port.spec.guest_ifname.expect("a guest's end");
        let socket = RawSocket::open(&ns, &ifname);
        self.guests.push((socket, ns));
    }

    fn send(&self, guest: usize, frame: &Frame) {
        self.guests[guest].0.send(frame);
    }

    #[track_caller]
    fn expect(&self, guest: usize, frame: &Frame) {
        assert_eq!(self.guests[guest].0.recv(PATIENCE).as_ref(), Some(frame), "at guest {guest}");
    }

    #[track_caller]
    fn expect_nothing(&self) {
        for (no, (socket, _)) in self.guests.iter().enumerate() {
            assert_eq!(socket.recv(SILENCE), None, "at guest {no}");
        }
    }

    #[track_caller]
    fn assert_balanced(&self) {
        let balanced = || {
            let (stats, audit) = (self.switch.stats(), self.switch.audit());
            assert!(audit.consistent, "{audit:?}");
            (stats.unaccounted_packets, stats.unaccounted_bytes) == (0, 0)
        };
        wait::expect("all frames are accounted for", PATIENCE, balanced);
    }
}

fn end(port: EndPort) -> End {
    End { port, vlan: VlanEdit::None }
}

fn port(no: usize) -> End {
    end(EndPort::Port { name: format!("p{no}"), queue: None })
}

fn ring(no: u32) -> End {
    end(EndPort::Ring(no))
}

fn component(name: &str, worker: usize, kind: ComponentKind, rx: Vec<End>, tx: Vec<End>) -> ComponentSpec {
    ComponentSpec { name: name.to_owned(), worker, kind, rx, tx, table: Vec::new() }
}

fn frame(to: Mac, tag: Option<u16>, mark: u8) -> Frame {
    let frame = Frame::ethernet(Mac::stranger(99), to);
    let frame = match tag {
        Some(vid) => frame.tag(CTAG, 0, vid),
        None => frame,
    };
    frame.payload(0x88b5, &[mark; 50])
}

/// SPP's well-known example: a classifier in front of two VMs, a forward to each, and a merge for the way back.
#[test]
fn frames_go_through_a_classifier_forwards_and_a_merge() {
    use ComponentKind::*;
    let bed = Bed::new("chain", 3);
    (0..2).for_each(|no| bed.switch.add_ring(no, 1024).expect("a ring"));
    let (a, b) = (Mac::stranger(1), Mac::stranger(2));
    let entry = |vlan, mac: Option<Mac>, tx| TableEntry { vlan, mac: mac.map(|mac| MacAddr::new(mac.0)), tx };
    let mut classifier = component("cls", 0, Classifier, vec![port(0)], vec![ring(0), ring(1)]);
    classifier.table = vec![entry(Some(100), Some(a), 0), entry(Some(200), Some(b), 1), entry(Some(200), None, 0)];
    let mut to_a = component("fwd1", 1, Forward, vec![ring(0)], vec![port(1)]);
    let mut to_b = component("fwd2", 1, Forward, vec![ring(1)], vec![port(2)]);
    to_a.tx[0].vlan = VlanEdit::Del;
    to_b.rx[0].vlan = VlanEdit::Del;
    let mut merge = component("merge", 0, Merge, vec![port(1), port(2)], vec![port(0)]);
    merge.rx[1].vlan = VlanEdit::Add { vid: 200, pcp: 5 };
    bed.switch.set_components(vec![classifier, to_a, to_b, merge]).expect("a set");
    bed.send(0, &frame(a, Some(100), 1));
    bed.expect(1, &frame(a, None, 1));
    bed.send(0, &frame(b, Some(200), 2));
    bed.expect(2, &frame(b, None, 2));
    bed.send(0, &frame(a, Some(200), 3));
    bed.expect(1, &frame(a, None, 3));
    bed.send(0, &frame(Mac::BROADCAST, Some(200), 4));
    bed.expect(1, &frame(Mac::BROADCAST, None, 4));
    bed.expect(2, &frame(Mac::BROADCAST, None, 4));
    bed.send(0, &frame(b, Some(100), 5));
    bed.send(0, &frame(b, None, 6));
    bed.send(1, &frame(b, None, 7));
    bed.expect(0, &frame(b, None, 7));
    bed.send(2, &frame(a, None, 8));
    let back = Frame::ethernet(Mac::stranger(99), a).tag(CTAG, 5, 200).payload(0x88b5, &[8; 50]);
    bed.expect(0, &Frame(back.0[..68].to_vec()));
    bed.expect_nothing();
    bed.assert_balanced();
    let stats = bed.switch.stats();
    assert_eq!(stats.components.drops["classifier_miss"].packets, 2);
    assert_eq!(stats.components.flood_copies.packets, 1);
    let queues: Vec<_> = bed.switch.ports().into_iter().map(|port| port.queues[0].worker).collect();
    assert_eq!(queues, [0, 0, 0], "each at the worker of the component that takes its frames");
}

#[test]
fn a_mirror_copies_to_a_second_port() {
    let bed = Bed::new("mirror", 3);
    let mirror = component("m", 1, ComponentKind::Mirror, vec![port(0)], vec![port(1), port(2)]);
    bed.switch.set_components(vec![mirror]).expect("a set");
    for mark in 0..100 {
        bed.send(0, &frame(Mac::stranger(1), None, mark));
    }
    for guest in [1, 2] {
        (0..100).for_each(|mark| bed.expect(guest, &frame(Mac::stranger(1), None, mark)));
    }
    bed.assert_balanced();
}

#[test]
fn the_bridge_and_components_leave_each_other_alone() {
    let mut bed = Bed::new("apart", 2);
    bed.add("b0", None);
    bed.add("b1", None);
    let forward = |name: &str, from| component(name, 0, ComponentKind::Forward, vec![port(from)], vec![port(1 - from)]);
    let bridged = EndPort::Port { name: "b0".to_owned(), queue: None };
    let refused = component("f", 0, ComponentKind::Forward, vec![end(bridged)], Vec::new());
    assert_eq!(bed.switch.set_components(vec![refused]).expect_err("a bridged port").kind(), ErrorKind::Busy);
    // Nobody takes frames from a port without a component.
    bed.send(0, &frame(Mac::BROADCAST, None, 1));
    bed.send(2, &frame(Mac::BROADCAST, None, 2));
    bed.expect(3, &frame(Mac::BROADCAST, None, 2));
    bed.expect_nothing();
    bed.switch.set_components(vec![forward("f", 0), forward("g", 1)]).expect("a set");
    bed.expect(1, &frame(Mac::BROADCAST, None, 1));
    bed.send(1, &frame(Mac::stranger(99), None, 3));
    bed.expect(0, &frame(Mac::stranger(99), None, 3));
    bed.expect_nothing();
    assert!(bed.switch.fdb().iter().all(|row| row.port == "b0"), "{:?}", bed.switch.fdb());
    let fixed = FdbSpec { mac: MacAddr::new([2, 0, 0, 0, 0, 7]), vlan: 0, port: "p0".to_owned() };
    assert_eq!(bed.switch.fdb_add(&fixed).expect_err("no port of the bridge").kind(), ErrorKind::Invalid);
    assert_eq!(bed.switch.trace("p0", 1, &[0; 60], None).expect_err("no such queue").kind(), ErrorKind::NotFound);
    assert_eq!(bed.switch.trace("p0", 0, &[0; 60], None).expect("a trace").outputs, ["p1"]);
    let again = PortSpec { spp: Some("vhost:0".to_owned()), ..PortSpec::new("p9", PortKind::Guest) };
    let again = bed.host.run(|| bed.switch.add_port(again)).expect_err("a name that is taken");
    assert_eq!(again.kind(), ErrorKind::Exists);
    let busy = bed.host.run(|| bed.switch.del_port("p1")).expect_err("a port with components");
    assert_eq!((busy.kind(), busy.to_string().contains("`f`")), (ErrorKind::Busy, true));
    // Its rings can still be opened anew.
    let update = PortUpdate { queue_depth: Some(512), mtu: Some(1400), ..PortUpdate::default() };
    bed.host.run(|| bed.switch.update_port("p1", update)).expect("another depth");
    bed.send(0, &frame(Mac::stranger(5), None, 4));
    bed.expect(1, &frame(Mac::stranger(5), None, 4));
    bed.switch.set_components(Vec::new()).expect("no set");
    bed.host.run(|| bed.switch.del_port("p1")).expect("a port that nobody has");
    bed.assert_balanced();
}

/// Sends numbered frames from guest 0 to guest 1 while `change` runs again and again. All must come, in order.
fn change_under_a_stream(bed: &Bed, frames: u64, change: impl Fn(usize) + Sync) {
    let done = AtomicBool::new(false);
    let changes = std::thread::scope(|scope| {
        let changer = scope.spawn(|| {
            let mut n = 0;
            while !done.load(Ordering::Relaxed) {
                n += 1;
                change(n);
                std::thread::sleep(Duration::from_millis(2));
            }
            n
        });
        let stream = || {
            let (mut sent, mut last) = (0, Instant::now());
            let mut waiting = VecDeque::new();
            while sent < frames || !waiting.is_empty() {
                while sent < frames && waiting.len() < 200 {
                    bed.send(0, &Frame::ethernet(Mac::stranger(1), Mac::stranger(2)).stream(1, sent, 100));
                    waiting.push_back(sent);
                    sent += 1;
                }
                while let Some(frame) = bed.guests[1].0.recv(Duration::from_millis(1)) {
                    let (got, next) = (frame.mark().map(|(_, seq)| seq), waiting.pop_front());
                    if got != next {
                        return Err(format!("{got:?} came, {next:?} was next"));
                    }
                    last = Instant::now();
                }
                if last.elapsed() > PATIENCE {
                    return Err(format!("{waiting:?} did not come"));
                }
            }
            Ok(())
        };
        let result = stream();
        done.store(true, Ordering::Relaxed);
        let changes = changer.join().expect("no panic");
        assert_eq!(result, Ok(()), "{:?}", bed.switch.stats());
        changes
    });
    assert!(changes > 10, "{changes} changes");
    bed.assert_balanced();
}

/// A numbered stream goes from one port to another over a ring. Meanwhile components and their queues change workers,
/// and both components change the tag that marks the frames of a set. A frame that met half of a change would be
/// dropped.
#[test]
fn a_set_that_changes_under_a_stream_loses_nothing() {
    const FRAMES: u64 = 30_000;
    let bed = Bed::new("swap", 2);
    bed.switch.add_ring(0, 1024).expect("a ring");
    let set = |n: usize| {
        let vid = narrow(n % 3 + 1);
        let mut first = component("first", n % 2, ComponentKind::Forward, vec![port(0)], vec![ring(0)]);
        first.tx[0].vlan = VlanEdit::Add { vid, pcp: 0 };
        let mut last = component("last", n / 2 % 2, ComponentKind::Classifier, vec![ring(0)], vec![port(1)]);
        last.table = vec![TableEntry { vlan: Some(vid), mac: None, tx: 0 }];
        last.tx[0].vlan = VlanEdit::Del;
        vec![first, last]
    };
    bed.switch.set_components(set(0)).expect("a set");
    change_under_a_stream(&bed, FRAMES, |n| bed.switch.set_components(set(n)).expect("a set"));
    assert!(bed.switch.components().iter().all(|info| (info.rx.packets, info.dropped.packets) == (FRAMES, 0)));
}

#[test]
fn queues_of_a_port_belong_to_components_of_their_own() {
    let host = NetNs::new("queues");
    let settings = DataplaneSettings { workers: 2, frames: 16_384, ..DataplaneSettings::default() };
    let switch =
        host.run(|| Switch::start(&settings, BridgeSettings::default(), Default::default())).expect("a data plane");
    let spec = PortSpec { queues: Some(2), spp: Some("vhost:3".to_owned()), ..PortSpec::new("p", PortKind::Guest) };
    host.run(|| switch.add_port(spec)).expect("a port");
    let queue = |queue| end(EndPort::Port { name: "p".to_owned(), queue: Some(queue) });
    let set = |a, b| {
        let kind = ComponentKind::Forward;
        let sink = |no| vec![end(EndPort::Null(no))];
        vec![component("a", a, kind, vec![queue(0)], sink(0)), component("b", b, kind, vec![queue(1)], sink(1))]
    };
    for (a, b) in [(0, 1), (1, 0), (1, 1), (0, 0)] {
        switch.set_components(set(a, b)).expect("a set");
        let workers: Vec<_> = switch.ports()[0].queues.iter().map(|queue| queue.worker).collect();
        assert_eq!(workers, [a, b]);
        assert!(switch.audit().consistent);
    }
    let none = component("c", 0, ComponentKind::Forward, vec![queue(2)], Vec::new());
    assert_eq!(switch.set_components(vec![none]).expect_err("no such queue").kind(), ErrorKind::NotFound);
}

fn flow_rule(key: FlowKey, queue: u32) -> FlowRule {
    let (direction, target) = (FlowDirection::Ingress, FlowTarget::Queue(queue));
    FlowRule { id: queue, direction, group: 0, priority: 0, key, edits: Vec::new(), target }
}

#[test]
fn flow_rules_are_for_ports_of_components_and_go_with_them() {
    let mut bed = Bed::new("flowport", 0);
    let spec = || PortSpec { queues: Some(2), spp: Some("vhost:0".to_owned()), ..PortSpec::new("p0", PortKind::Guest) };
    bed.add_port(spec());
    bed.add("bridged", None);
    let rules = vec![flow_rule(FlowKey::default(), 1)];
    let refused = |port: &str, rule: FlowRule| bed.switch.set_flow_rules(port, vec![rule]).expect_err("refused").kind();
    assert_eq!(refused("none", rules[0].clone()), ErrorKind::NotFound);
    assert_eq!(refused("bridged", rules[0].clone()), ErrorKind::Invalid);
    assert_eq!(refused("p0", flow_rule(FlowKey::default(), 2)), ErrorKind::Invalid);
    assert_eq!(bed.switch.flow_rules("none").expect_err("no port").kind(), ErrorKind::NotFound);
    bed.switch.set_flow_rules("p0", rules.clone()).expect("rules");
    assert_eq!(bed.switch.flow_rules("p0").expect("a port"), rules);
    // A frame that nobody takes waits, because no component has any of the port's queues.
    bed.send(0, &frame(Mac::stranger(1), None, 1));
    bed.expect_nothing();
    bed.switch.del_port("p0").expect("no component has it");
    bed.guests.remove(0);
    bed.add_port(spec());
    assert_eq!(bed.switch.flow_rules("p0").expect("a port"), []);
    bed.assert_balanced();
}

/// All frames come in by a queue without a component. They are for a queue that moves with its component from worker to
/// worker.
#[test]
fn frames_that_rules_send_to_a_queue_stay_in_order_while_its_component_and_the_rules_change() {
    const FRAMES: u64 = 20_000;
    let mut bed = Bed::new("flowmove", 0);
    for no in 0..2 {
        let spp = Some(format!("vhost:{no}"));
        bed.add_port(PortSpec { queues: Some(2), spp, ..PortSpec::new(format!("p{no}"), PortKind::Guest) });
    }
    let queue = |no: usize, queue| end(EndPort::Port { name: format!("p{no}"), queue: Some(queue) });
    let all = component("all", 0, ComponentKind::Forward, vec![port(0)], vec![end(EndPort::Null(0))]);
    bed.switch.set_components(vec![all]).expect("a set");
    bed.send(0, &Frame::ethernet(Mac::stranger(1), Mac::stranger(2)).stream(1, 0, 100));
    let received = || bed.switch.stats().ports[0].queues.iter().position(|queue| queue.rx.packets > 0);
    let came_by = wait::until(PATIENCE, received).expect("it came by one of the queues");
    let came_by: u32 = narrow(came_by);
    let set = |n: usize| {
        let take = component("take", n % 2, ComponentKind::Forward, vec![queue(0, 1 - came_by)], vec![queue(1, 0)]);
        bed.switch.set_components(vec![take]).expect("a set");
        // Another rule that no frame matches, or no rule.
        let other = FlowKey { inner_type: Some(Masked::exactly(1)), ..FlowKey::default() };
        let mut rules = vec![flow_rule(FlowKey::default(), 1 - came_by)];
        if n.is_multiple_of(3) {
            rules.insert(0, flow_rule(other, came_by));
        }
        bed.switch.set_flow_rules("p0", rules).expect("rules");
    };
    set(0);
    change_under_a_stream(&bed, FRAMES, set);
    let queues = &bed.switch.stats().ports[0].queues;
    assert_eq!(queues[came_by as usize].rx.packets, FRAMES + 1);
}
