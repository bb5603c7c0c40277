//! What components and their ends counted.

use std::sync::Arc;

use super::live::{Live, LiveOutside};
use crate::control::sums::retire;
use crate::counters::as_count;
use crate::model::*;
use crate::worker::component::{Component, Counters, PortFlows};

/// What a component counted, in the terms of a port: `rx` came into the switch at its ends, `tx` left there.
pub fn stats_of(counters: &Counters) -> PortStats {
    let mut stats = PortStats { rx: counters.came.read(), tx: counters.left.read(), ..PortStats::default() };
    counters.shard.add_to(&mut stats);
    stats
}

fn info(component: &Component) -> ComponentInfo {
    let (mut dropped, drops) = (Count::default(), stats_of(&component.counters).drops);
    drops.values().for_each(|count| dropped.add(*count));
    let ends = |ends: &[End]| ends.iter().map(|end| end.port.clone()).collect();
    ComponentInfo {
        name: component.spec.name.clone(),
        worker: component.spec.worker,
        kind: component.spec.kind,
        ready: component.is_ready(),
        from: ends(&component.spec.rx),
        to: ends(&component.spec.tx),
        rx: component.counters.rx.read(),
        tx: component.counters.tx.read(),
        dropped,
        drops,
    }
}

impl Live {
    /// The components' counters.
    pub fn infos(&self) -> Vec<ComponentInfo> {
        self.running.iter().map(|component| info(component)).collect()
    }

    /// The ends' counters over their lives.
    pub fn ends(&self) -> Vec<EndInfo> {
        let only = |packets| Count { packets, bytes: 0 };
        let end = |end, tx, rx, tx_dropped, queued| EndInfo { end, rx, tx, tx_dropped, rx_dropped: only(0), queued };
        let rings = self.rings.iter().map(|(&no, ring)| {
            let [tx, rx, refused] = ring.counts();
            end(EndPort::Ring(no), tx, rx, refused, as_count(ring.queued().packets))
        });
        let nulls =
            self.nulls.iter().map(|(&no, null)| end(EndPort::Null(no), null.tx.read(), null.rx.read(), only(0), 0));
        let outside = self.outside.iter().map(|(&no, LiveOutside { end: outside, thread, .. })| {
            let mut tx_dropped = outside.refused.read();
            tx_dropped.packets += thread.tx_dropped();
            let [_, rx, _] = outside.input.counts();
            let queued = as_count(outside.input.queued().packets) + as_count(outside.waiting());
            let info = end(EndPort::Outside(no), outside.tx.read(), rx, tx_dropped, queued);
            EndInfo { rx_dropped: only(thread.rx_dropped()), ..info }
        });
        rings.chain(nulls).chain(outside).collect()
    }

    /// The flow rules' counters.
    pub fn flow_counts(&self, name_of: impl Fn(PortNo) -> String) -> Vec<FlowCount> {
        let of_port = |flows: &Arc<PortFlows>| {
            let port = name_of(flows.port.no);
            let count = |(rule, matched)| FlowCount { port: port.clone(), rule, matched };
            flows.counts().map(count).collect::<Vec<_>>()
        };
        self.flows.iter().flatten().flat_map(of_port).collect()
    }

    /// The outside ends.
    pub fn outside_infos(&self) -> Vec<OutsideInfo> {
        let info = |(&no, outside): (&u32, &LiveOutside)| OutsideInfo {
            no,
            spec: outside.spec.clone(),
            files: outside.thread.files(),
            error: outside.thread.error(),
        };
        self.outside.iter().map(info).collect()
    }

    /// What all components counted, those that are gone too, in the terms of a port.
    pub fn sum(&self) -> PortStats {
        let mut sum = PortStats { name: "components".to_owned(), ..self.retired.clone() };
        self.running.iter().for_each(|component| retire(&mut sum, stats_of(&component.counters)));
        sum
    }

    /// What is in rings between components, and between ports and components: it came in, and has not gone out.
    pub fn queued(&self) -> Count {
        let mut sum = Count::default();
        self.rings.values().chain(self.flow_rings()).for_each(|ring| sum.add(ring.queued()));
        sum
    }
}
