//! The way out: what a component does with a burst, and the ends that it gives frames to.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::{Component, Link, Logic};
use crate::engine::bridge::{Course, Run, packet_len};
use crate::engine::component::{Table, Target, tag_edit};
use crate::engine::drop::DropReason;
use crate::engine::parse::{ETH_HEADER, parse_l2};
use crate::engine::vlan::TagEdit;
use crate::io::umem::Frame;
use crate::model::{Count, VlanEdit};
use crate::worker::ends::OutsideEnd;
use crate::worker::view::PortShared;
use crate::worker::{Way, Worker};

impl Worker {
    /// Does with a burst what the component does.
    pub(super) fn treat(
        &mut self,
        component: &Component,
        burst: &mut Vec<Frame>,
        outs: &mut [Vec<Frame>],
        way: &Way<'_>,
    ) {
        match &component.logic {
            Logic::First => self.give(component, 0, burst, way),
            Logic::All => {
                for out in outs.iter_mut().take(component.tx.len()).skip(1) {
                    for frame in &*burst {
                        way.shard.mirrored(frame.len());
                        self.copy_to(frame, out, way);
                    }
                }
                self.give(component, 0, burst, way);
            }
            Logic::Lookup(table) => {
                for frame in burst.drain(..) {
                    self.classify(table, frame, outs, way);
                }
            }
        }
        for (to, out) in outs.iter_mut().enumerate().filter(|(_, out)| !out.is_empty()) {
            self.give(component, to, out, way);
        }
    }

    /// Puts a frame where the table says it goes, with copies for all ends but the last if there are several.
    fn classify(&mut self, table: &Table, frame: Frame, outs: &mut [Vec<Frame>], way: &Way<'_>) {
        match table.decide(self.umem.data(&frame)) {
            Ok(Target::One(to)) => outs[usize::from(to)].push(frame),
            Ok(Target::All([others @ .., last])) => {
                way.shard.flooded(others.len(), frame.len());
                for to in others {
                    self.copy_to(&frame, &mut outs[usize::from(*to)], way);
                }
                outs[usize::from(*last)].push(frame);
            }
            nowhere => self.discard(frame, way.shard, nowhere.err().unwrap_or(DropReason::ClassifierMiss)),
        }
    }

    fn copy_to(&mut self, frame: &Frame, out: &mut Vec<Frame>, way: &Way<'_>) {
        match self.copy(frame) {
            Some(copy) => out.push(copy),
            None => way.shard.dropped(DropReason::NoFrame, frame.len()),
        }
    }

    /// Gives frames to a sending end.
    fn give(&mut self, component: &Component, to: usize, frames: &mut Vec<Frame>, way: &Way<'_>) {
        let (link, edit) = (&component.tx[to], component.spec.tx[to].vlan);
        if let Link::Port(port, queue) = link {
            let sent = self.give_to_port(port, *queue, edit, frames, way);
            return component.counters.tx.add(sent.packets, sent.bytes);
        }
        self.edit_tags(edit, frames, way);
        let all = count(frames);
        let given = match link {
            Link::Ring(ring) => {
                ring.put(frames);
                let refused = count(frames);
                if refused.packets > 0 {
                    ring.refused(refused);
                    way.shard.dropped_all(DropReason::RingFull, refused);
                }
                if let Some(reader) =
                    ring.reader().filter(|reader| *reader != self.id && !self.to_wake.contains(reader))
                {
                    self.to_wake.push(reader);
                }
                Count { packets: all.packets - refused.packets, bytes: all.bytes - refused.bytes }
            }
            Link::Null(null) => {
                null.tx.add(all.packets, all.bytes);
                component.counters.left.add(all.packets, all.bytes);
                all
            }
            Link::Outside(outside) => {
                let taken = self.show(outside, frames, way);
                component.counters.left.add(taken.packets, taken.bytes);
                taken
            }
            Link::Port(..) => Count::default(),
        };
        component.counters.tx.add(given.packets, given.bytes);
        frames.drain(..).for_each(|frame| self.cache.put(frame));
    }

    /// Puts copies of frames into the queue of an outside end; returns how many had room. The rest are counted as dropped.
    fn show(&mut self, outside: &OutsideEnd, frames: &[Frame], way: &Way<'_>) -> Count {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX);
        let (mut taken, mut refused) = (Count::default(), Count::default());
        for frame in frames {
            let fits = outside.offer(self.umem.data(frame), now);
            let one = Count { packets: 1, bytes: frame.len() as u64 };
            if fits { taken.add(one) } else { refused.add(one) }
        }
        outside.tx.add(taken.packets, taken.bytes);
        if refused.packets > 0 {
            outside.refused.add(refused.packets, refused.bytes);
            way.shard.dropped_all(DropReason::OutsideFull, refused);
        }
        taken
    }

    /// Sends frames to a port by the way that the bridge's go: its meter, its queues, its worker.
    fn give_to_port(
        &mut self,
        port: &Arc<PortShared>,
        queue: Option<u32>,
        edit: VlanEdit,
        frames: &mut Vec<Frame>,
        way: &Way<'_>,
    ) -> Count {
        let mut edit = edit;
        if let Some(flows) = self.plan.flows_of(port.no).filter(|flows| flows.has_egress()).map(Arc::clone) {
            // Rules go by the tag that the end leaves.
            self.edit_tags(edit, frames, way);
            edit = VlanEdit::None;
            self.edit_by_rules(&flows, frames, way);
        }
        let mtu = port.mtu.load(Ordering::Relaxed) as usize;
        if frames.iter().any(|frame| frame.len() > mtu + ETH_HEADER) {
            self.sift(frames, |worker, frame| match is_too_long(worker.umem.data(frame), mtu) {
                true => Err((&port.shards[worker.id], DropReason::EgressMtu)),
                false => Ok(()),
            });
        }
        if edit == VlanEdit::None {
            // A run as they are: they need not be staged one by one.
            let given = count(frames);
            let course = Course::new(port.no, TagEdit::None, queue);
            let run = Run { course, color: way.color, frames: frames.len(), bytes: given.bytes as usize };
            self.send_run(run, &mut frames.drain(..), way);
            return given;
        }
        let mut given = Count::default();
        for frame in frames.drain(..) {
            match tag_edit(edit, self.umem.data(&frame)) {
                Ok(edit) => {
                    let bytes = frame.len() as u64;
                    given.add(Count { packets: 1, bytes: bytes.saturating_add_signed(i64::from(edit.grows_by())) });
                    self.output(frame, Course::new(port.no, edit, queue), way);
                }
                Err(reason) => self.discard(frame, way.shard, reason),
            }
        }
        self.depart(way);
        given
    }
}

pub(super) fn count(frames: &[Frame]) -> Count {
    Count { packets: frames.len() as u64, bytes: frames.iter().map(|frame| frame.len() as u64).sum() }
}

/// Whether a frame, its tags taken off, is more than an Ethernet header and `mtu` bytes.
pub(super) fn is_too_long(data: &[u8], mtu: usize) -> bool {
    packet_len(parse_l2(data).ok().and_then(|l2| l2.tag), data.len()) > mtu
}
