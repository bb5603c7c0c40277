//! What components and their ends counted, and since when.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::Control;
use super::super::audit::{self, add_port};
use super::live::{Live, LiveOutside};
use crate::engine::PortNo;
use crate::model::*;
use crate::worker::component::{Component, Counters};

/// What counters were when they were last cleared. Workers alone write counters, so they are never set back themselves.
#[derive(Debug, Default)]
pub struct Baselines {
    /// By name.
    pub components: HashMap<String, ComponentInfo>,
    pub ends: HashMap<EndPort, EndInfo>,
    /// With the generation of the port.
    pub ports: HashMap<PortNo, (u32, PortStats)>,
}

/// `count` without what was there before.
fn since(count: &mut Count, before: Count) {
    count.packets = count.packets.saturating_sub(before.packets);
    count.bytes = count.bytes.saturating_sub(before.bytes);
}

/// What a component counted, in the terms of a port: `rx` came into the switch at its ends, `tx` left there.
pub(super) fn stats_of(counters: &Counters) -> PortStats {
    let mut stats = PortStats { rx: counters.came.read(), tx: counters.left.read(), ..PortStats::default() };
    counters.shard.add_to(&mut stats);
    stats
}

fn info(component: &Component) -> ComponentInfo {
    let mut dropped = Count::default();
    stats_of(&component.counters).drops.values().for_each(|count| dropped.add(*count));
    ComponentInfo {
        name: component.spec.name.clone(),
        worker: component.spec.worker,
        rx: component.counters.rx.read(),
        tx: component.counters.tx.read(),
        dropped,
    }
}

impl Live {
    /// The components' counters since they were cleared.
    pub fn infos(&self) -> Vec<ComponentInfo> {
        let infos = self.running.iter().map(|component| {
            let mut info = info(component);
            if let Some(before) = self.baselines.components.get(&info.name) {
                since(&mut info.rx, before.rx);
                since(&mut info.tx, before.tx);
                since(&mut info.dropped, before.dropped);
            }
            info
        });
        infos.collect()
    }

    /// The ends' counters over their lives.
    fn raw_ends(&self) -> Vec<EndInfo> {
        let only = |packets| Count { packets, bytes: 0 };
        let end = |end, tx, rx, tx_dropped, queued| EndInfo { end, rx, tx, tx_dropped, rx_dropped: only(0), queued };
        let rings = self.rings.iter().map(|(&no, ring)| {
            let [tx, rx, refused] = ring.counts();
            end(EndPort::Ring(no), tx, rx, refused, ring.queued().packets as u32)
        });
        let nulls =
            self.nulls.iter().map(|(&no, null)| end(EndPort::Null(no), null.tx.read(), null.rx.read(), only(0), 0));
        let outside = self.outside.iter().map(|(&no, LiveOutside { end: outside, thread, .. })| {
            let mut tx_dropped = outside.refused.read();
            tx_dropped.packets += thread.tx_dropped();
            let [_, rx, _] = outside.input.counts();
            let queued = outside.input.queued().packets as usize + outside.waiting();
            let info = end(EndPort::Outside(no), outside.tx.read(), rx, tx_dropped, queued as u32);
            EndInfo { rx_dropped: only(thread.rx_dropped()), ..info }
        });
        rings.chain(nulls).chain(outside).collect()
    }

    /// The same since they were cleared.
    pub fn ends(&self) -> Vec<EndInfo> {
        let mut ends = self.raw_ends();
        for info in &mut ends {
            if let Some(before) = self.baselines.ends.get(&info.end) {
                since(&mut info.rx, before.rx);
                since(&mut info.tx, before.tx);
                since(&mut info.tx_dropped, before.tx_dropped);
                since(&mut info.rx_dropped, before.rx_dropped);
            }
        }
        ends
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
        self.running.iter().for_each(|component| audit::retire(&mut sum, stats_of(&component.counters)));
        sum
    }

    /// What is in rings between components, and between ports and components: it came in, and has not gone out.
    pub fn queued(&self) -> Count {
        let mut sum = Count::default();
        self.rings.values().chain(self.flow_rings()).for_each(|ring| sum.add(ring.queued()));
        sum
    }

    /// Takes what a port had counted when it was cleared from its counters.
    pub fn subtract_port(&self, generation: u32, stats: &mut PortStats) {
        let Some((_, before)) = self.baselines.ports.get(&stats.vport).filter(|(of, _)| *of == generation) else {
            return;
        };
        let counts = |stats: &mut PortStats, before: &PortStats| {
            since(&mut stats.rx, before.rx);
            since(&mut stats.tx, before.tx);
            since(&mut stats.flood_copies, before.flood_copies);
            since(&mut stats.mirror_copies, before.mirror_copies);
            since(&mut stats.redirected, before.redirected);
        };
        counts(stats, before);
        stats.vlan_pushes = stats.vlan_pushes.saturating_sub(before.vlan_pushes);
        stats.vlan_pops = stats.vlan_pops.saturating_sub(before.vlan_pops);
        for (reason, count) in &mut stats.drops {
            since(count, before.drops.get(reason).copied().unwrap_or_default());
        }
        stats.drops.retain(|_, count| count.packets > 0);
        for (queue, before) in stats.queues.iter_mut().zip(&before.queues) {
            since(&mut queue.rx, before.rx);
            since(&mut queue.tx, before.tx);
            let kernel = [(&mut queue.xdp, &before.xdp), (&mut queue.xsk, &before.xsk)];
            for (counters, before) in kernel {
                for (name, value) in counters {
                    *value = value.saturating_sub(before.get(name).copied().unwrap_or(0));
                }
            }
        }
    }
}

/// Lets the counters of components, ends and of ports that are for components begin anew.
pub(super) fn clear(control: &mut Control) {
    let live = &mut control.components;
    live.baselines.components =
        live.running.iter().map(|component: &Arc<Component>| (component.spec.name.clone(), info(component))).collect();
    live.baselines.ends = live.raw_ends().into_iter().map(|info| (info.end.clone(), info)).collect();
    let ports = control.ports.iter().filter(|(_, port)| !port.shared.bridged);
    live.baselines.ports = ports
        .map(|(&no, port)| {
            let mut stats = PortStats { queues: port.queue_stats(), ..PortStats::default() };
            add_port(&mut stats, &port.shared);
            (no, (port.shared.generation, stats))
        })
        .collect();
}
