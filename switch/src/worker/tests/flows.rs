//! Flow rules on ports with several queues.

use super::components::{TO, component, forward, tagged};
use super::*;
use crate::worker::component::{Component, Flows, Link, PortFlows};

/// Queues of each port.
const QUEUES: usize = 3;

pub(super) fn rule(direction: FlowDirection, vid: u32, edits: &[FlowEdit], target: FlowTarget) -> FlowRule {
    let key = FlowKey { tci: Some(Masked { value: vid, mask: 0xfff }), ..FlowKey::default() };
    FlowRule { id: vid, direction, group: 0, priority: 0, key, edits: edits.to_vec(), target }
}

/// Frames of that VLAN to that queue.
fn to_queue(vid: u32, queue: u32) -> FlowRule {
    rule(FlowDirection::Ingress, vid, &[], FlowTarget::Queue(queue))
}

impl Bed {
    /// Ports 0 and 1 with three queues each. Workers have them in turn.
    fn queued(workers: usize) -> Self {
        Self::with_queues(workers, &[], 2, QUEUES)
    }

    fn queue(&self, port: usize, queue: u32) -> Link {
        match self.port(port) {
            Link::Port(port, _) => Link::Port(port, Some(queue)),
            other => other,
        }
    }

    pub(super) fn flows(&self, port: usize, rules: &[FlowRule], before: Option<&PortFlows>) -> Arc<PortFlows> {
        let Link::Port(shared, _) = self.port(port) else { panic!("a port") };
        Arc::new(PortFlows::new(&shared, rules, before, self.workers.len()))
    }

    /// Puts components and the rules of ports in force, as control does.
    pub(super) fn run_flows(&mut self, components: Vec<Component>, of_ports: &[&Arc<PortFlows>]) {
        let mut flows: Vec<Option<Arc<PortFlows>>> = vec![None; 2];
        for flow in of_ports {
            for (queue, _) in flow.port.queues.iter().enumerate() {
                let has = |component: &&Component| {
                    component.rx.iter().any(|link| match link {
                        Link::Port(port, one) => {
                            Arc::ptr_eq(port, &flow.port) && one.is_none_or(|one| one as usize == queue)
                        }
                        _ => false,
                    })
                };
                let reader = components.iter().find(has).map(|component| component.spec.worker);
                flow.rings_to(queue as u32).iter().for_each(|ring| ring.set_reader(reader));
            }
            flows[usize::from(flow.port.no)] = Some(Arc::clone(flow));
        }
        self.run_with(components, Flows::new(flows));
    }

    fn receive(&mut self, queue: usize, frame: &[u8]) {
        assert!(self.kernels[queue].receive(frame));
    }

    /// What went out of queues 0 to 2 of port 1.
    fn out(&mut self) -> [Vec<Vec<u8>>; QUEUES] {
        let sent = self.settle();
        std::array::from_fn(|queue| sent[QUEUES + queue].clone())
    }
}

#[test]
fn a_rule_sends_frames_to_the_component_that_has_the_queue_on_any_worker() {
    for workers in [1, 2, 3] {
        let mut bed = Bed::queued(workers);
        let flows = bed.flows(0, &[to_queue(7, 1), to_queue(8, 0)], None);
        let make = |queue: u32| forward(queue as usize % workers, bed.queue(0, queue), bed.queue(1, queue));
        let components = vec![make(0), make(1)];
        let counters: Vec<_> = components.iter().map(|component| Arc::clone(&component.counters)).collect();
        bed.run_flows(components, &[&flows]);
        let frames: Vec<_> = (0..4).map(|mark| tagged(TO, Some(7), mark, 60)).collect();
        let (other, plain) = (tagged(TO, Some(8), 9, 60), tagged(TO, None, 9, 60));
        frames.iter().for_each(|frame| bed.receive(0, frame));
        bed.receive(0, &other);
        bed.receive(0, &plain);
        let out = bed.out();
        assert_eq!(out[0], [other.clone(), plain.clone()]);
        assert_eq!(out[1], frames, "in order");
        // By the queue where they belong already, by another, and by one that no component has.
        for queue in 0..3 {
            bed.receive(queue, &frames[0]);
            bed.receive(queue, &other);
            assert_eq!(bed.out(), [vec![other.clone()], vec![frames[0].clone()], vec![]]);
        }
        assert_eq!(counters.iter().map(|counters| counters.rx.read().packets).collect::<Vec<_>>(), [5, 7]);
        // That one's frames without a rule have no end.
        bed.receive(2, &plain);
        assert!(bed.out().concat().is_empty());
        assert_eq!(bed.dropped(DropReason::FlowNobody), 1);
        bed.assert_balanced();
    }
}

#[test]
fn a_component_of_the_whole_port_has_the_ends_of_all_queues() {
    let mut bed = Bed::queued(1);
    let flows = bed.flows(0, &[to_queue(7, 2)], None);
    bed.run_flows(vec![forward(0, bed.port(0), bed.queue(1, 0))], &[&flows]);
    let frame = tagged(TO, Some(7), 1, 60);
    (0..3).for_each(|queue| bed.receive(queue, &frame));
    assert_eq!(bed.out()[0], vec![frame; 3]);
    bed.assert_balanced();
}

#[test]
fn what_is_for_a_queue_that_no_component_has_is_dropped() {
    let mut bed = Bed::queued(2);
    let flows = bed.flows(0, &[to_queue(7, 1)], None);
    bed.run_flows(vec![forward(0, bed.queue(0, 0), bed.queue(1, 0))], &[&flows]);
    let frames = [tagged(TO, Some(7), 1, 60), tagged(TO, Some(8), 1, 60)];
    frames.iter().for_each(|frame| bed.receive(0, frame));
    // Nobody has an end that a rule names, so this one waits, as without rules.
    bed.receive(1, &frames[1]);
    assert_eq!(bed.out(), [vec![frames[1].clone()], vec![], vec![]]);
    assert_eq!(bed.dropped(DropReason::FlowNobody), 1);
    assert!(!bed.workers[1].has_work());
    bed.run_flows(vec![forward(1, bed.queue(0, 1), bed.queue(1, 1))], &[&flows]);
    assert!(bed.workers[1].has_work());
    assert_eq!(bed.out(), [vec![], vec![frames[1].clone()], vec![]]);
    bed.assert_balanced();
}

#[test]
fn frames_that_wait_for_a_component_are_for_the_next_one_and_too_many_are_dropped() {
    let mut bed = Bed::queued(2);
    let flows = bed.flows(0, &[to_queue(7, 1)], None);
    let components = |bed: &Bed| (0..2).map(|no| forward(no as usize, bed.queue(0, no), bed.queue(1, no))).collect();
    let all: Vec<Component> = components(&bed);
    bed.run_flows(all, &[&flows]);
    let ring = Arc::clone(&flows.rings_to(1)[0]);
    // Only worker 0 turns.
    bed.receive(0, &tagged(TO, Some(7), 1, 60));
    bed.workers[0].turn();
    assert_eq!(ring.queued().packets, 1);
    assert!(bed.workers[1].has_work());
    let all = components(&bed);
    bed.run_flows(all, &[&flows]);
    assert_eq!(bed.out()[1], [tagged(TO, Some(7), 1, 60)]);
    let rules = [to_queue(7, 1)];
    let small = Arc::new(PortFlows::with_depth(&flows.port, &rules, None, 2, 4));
    let all = components(&bed);
    bed.run_flows(all, &[&small]);
    (0..6).for_each(|mark| bed.receive(0, &tagged(TO, Some(7), mark, 60)));
    bed.workers[0].turn();
    assert_eq!(bed.dropped(DropReason::FlowRingFull), 2);
    assert_eq!(bed.out()[1], (0..4).map(|mark| tagged(TO, Some(7), mark, 60)).collect::<Vec<_>>());
    bed.assert_balanced();
}

#[test]
fn tags_are_edited_where_frames_come_in_and_where_they_go_out() {
    use FlowDirection::{Egress, Ingress};
    use FlowEdit::{Pcp, Pop, Push, Vid};
    for workers in [1, 2] {
        let mut bed = Bed::queued(workers);
        let ingress = bed.flows(
            0,
            &[
                rule(Ingress, 7, &[Pop], FlowTarget::Queue(1)),
                rule(Ingress, 8, &[Vid(9), Pcp(5)], FlowTarget::Normal),
                rule(Egress, 8, &[Pop], FlowTarget::Normal),
            ],
            None,
        );
        let egress = bed.flows(1, &[rule(Egress, 9, &[Push(0x88a8), Vid(100)], FlowTarget::Normal)], None);
        let edit = VlanEdit::Add { vid: 9, pcp: 1 };
        let ends = (vec![(bed.queue(0, 1), VlanEdit::None)], vec![(bed.queue(1, 1), edit)]);
        let adds = component(workers - 1, ComponentKind::Forward, ends.0, ends.1, Vec::new());
        bed.run_flows(vec![forward(0, bed.queue(0, 0), bed.queue(1, 0)), adds], &[&ingress, &egress]);
        bed.receive(0, &tagged(TO, Some(7), 1, 100));
        bed.receive(0, &tagged(TO, Some(8), 2, 100));
        bed.receive(0, &tagged(TO, Some(6), 3, 100));
        let out = bed.out();
        let outer = |frame: Vec<u8>| [&frame[..12], &[0x88, 0xa8, 0, 100], &frame[12..]].concat();
        // The end adds its tag before the rules look.
        assert_eq!(out[1], [outer(tagged(TO, Some(1 << 13 | 9), 1, 100))]);
        assert_eq!(out[0], [outer(tagged(TO, Some(5 << 13 | 9), 2, 100)), tagged(TO, Some(6), 3, 100)]);
        bed.assert_balanced();
    }
}

#[test]
fn the_mtu_holds_for_what_egress_rules_leave() {
    let mut bed = Bed::queued(1);
    // Two tags do not count.
    let push = |vid, tags| rule(FlowDirection::Egress, vid, &vec![FlowEdit::Push(0x8100); tags], FlowTarget::Normal);
    let pop = rule(FlowDirection::Egress, 8, &[FlowEdit::Pop], FlowTarget::Normal);
    let flows = bed.flows(1, &[push(6, 1), push(7, 2), pop], None);
    bed.run_flows(vec![forward(0, bed.queue(0, 0), bed.queue(1, 0))], &[&flows]);
    for vid in [6, 7, 8] {
        bed.receive(0, &tagged(TO, Some(vid), vid as u8, 1518));
    }
    let lens: Vec<_> = bed.out()[0].iter().map(|frame| (frame.len(), frame[100])).collect();
    assert_eq!(lens, [(1522, 6), (1514, 8)]);
    assert_eq!(bed.dropped(DropReason::EgressMtu), 1);
    bed.assert_balanced();
}

#[test]
fn rings_are_kept_with_what_is_in_them_when_rules_change() {
    let mut bed = Bed::queued(2);
    let first = bed.flows(0, &[to_queue(7, 1)], None);
    let make = |bed: &Bed| (0..2).map(|no| forward(no as usize, bed.queue(0, no), bed.queue(1, no))).collect();
    let components: Vec<Component> = make(&bed);
    bed.run_flows(components, &[&first]);
    let frame = tagged(TO, Some(7), 1, 60);
    bed.receive(0, &frame);
    bed.workers[0].turn();
    let rules = [to_queue(7, 0)];
    let second = bed.flows(0, &rules, Some(&first));
    let components: Vec<Component> = make(&bed);
    bed.run_flows(components, &[&second]);
    bed.receive(1, &frame);
    assert_eq!(bed.out(), [vec![frame.clone()], vec![frame.clone()], vec![]]);
    let (third, old) = second.without_old_rings(&rules);
    assert_eq!((old.len(), third.rings_to(1).len(), third.rings_to(0).len()), (2, 0, 2));
    let components: Vec<Component> = make(&bed);
    bed.run_flows(components, &[&Arc::new(third)]);
    bed.receive(1, &frame);
    assert_eq!(bed.out(), [vec![frame], vec![], vec![]]);
    bed.assert_balanced();
}

#[test]
fn rules_count_what_meets_them_on_any_worker_and_go_on_when_others_change() {
    let mut bed = Bed::queued(2);
    let pop = FlowRule { id: 90, ..rule(FlowDirection::Ingress, 8, &[FlowEdit::Pop], FlowTarget::Normal) };
    let egress = rule(FlowDirection::Egress, 7, &[FlowEdit::Pop], FlowTarget::Normal);
    let mut rules = vec![pop.clone(), to_queue(7, 1)];
    let first = bed.flows(0, &rules, None);
    let out = bed.flows(1, std::slice::from_ref(&egress), None);
    let make =
        |bed: &Bed| -> Vec<_> { (0..2).map(|no| forward(no as usize, bed.queue(0, no), bed.queue(1, no))).collect() };
    let components = make(&bed);
    bed.run_flows(components, &[&first, &out]);
    // Queues 0 and 1 are at different workers.
    for queue in 0..2 {
        bed.receive(queue, &tagged(TO, Some(7), 1, 60));
        bed.receive(queue, &tagged(TO, Some(8), 2, 100));
        bed.receive(queue, &tagged(TO, Some(9), 3, 60));
    }
    bed.out();
    let count = |packets, bytes| Count { packets, bytes };
    // With the length that they had when they met it.
    assert_eq!(first.counts().collect::<Vec<_>>(), [(90, count(2, 200)), (7, count(2, 120))]);
    assert_eq!(out.counts().collect::<Vec<_>>(), [(7, count(2, 120))]);
    // Other rules before and behind it. Then another rule of the same number.
    rules = vec![to_queue(9, 0), pop.clone(), to_queue(5, 1)];
    let second = bed.flows(0, &rules, Some(&first));
    assert_eq!(second.counts().collect::<Vec<_>>(), [(9, count(0, 0)), (90, count(2, 200)), (5, count(0, 0))]);
    let components = make(&bed);
    bed.run_flows(components, &[&second, &out]);
    bed.receive(0, &tagged(TO, Some(8), 2, 100));
    bed.out();
    let (third, _) = second.without_old_rings(&rules);
    assert_eq!(third.counts().nth(1), Some((90, count(3, 300))));
    let changed = FlowRule { edits: vec![FlowEdit::Vid(1)], ..pop };
    let fourth = bed.flows(0, &[changed], Some(&third));
    assert_eq!(fourth.counts().collect::<Vec<_>>(), [(90, count(0, 0))]);
    bed.assert_balanced();
}
