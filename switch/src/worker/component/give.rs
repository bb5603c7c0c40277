//! The way out: what a component does with a burst, and the ends that it gives frames to.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;
use std::vec::Drain;

use super::{Component, Link, Logic};
use crate::engine::bridge::{Egress, Run, packet_len};
use crate::engine::component::{Table, Target};
use crate::engine::parse::{ETH_HEADER, parse_l2};
use crate::engine::vlan::TagEdit;
use crate::io::umem::{Frame, Umem};
use crate::model::{Count, DropReason};
use crate::worker::ends::OutsideEnd;
use crate::worker::view::PortShared;
use crate::worker::{BURST, Way, Worker};

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
                let mut frames = burst.drain(..);
                while !frames.as_slice().is_empty() {
                    if let Some((frame, target)) = classify(table, &self.umem, &mut frames, outs) {
                        self.carry_to(target, frame, outs, way);
                    }
                }
            }
        }
        for (to, out) in outs.iter_mut().enumerate().filter(|(_, out)| !out.is_empty()) {
            self.give(component, to, out, way);
        }
    }

    /// Puts a frame where it goes, with copies for all ends but the last if there are several.
    fn carry_to(
        &mut self,
        target: Result<Target<'_>, DropReason>,
        frame: Frame,
        outs: &mut [Vec<Frame>],
        way: &Way<'_>,
    ) {
        match target {
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
        let link = &component.tx[to];
        self.edit_tags(component.spec.tx[to].vlan, frames, way);
        if let Link::Port(port, queue) = link {
            let sent = self.give_to_port(port, *queue, frames, way);
            return component.counters.tx.add(sent.packets, sent.bytes);
        }
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
        frames: &mut Vec<Frame>,
        way: &Way<'_>,
    ) -> Count {
        if !self.plan.set.flows.is_empty() {
            let set = Arc::clone(&self.plan.set);
            if let Some(flows) = set.flows_of(port.no).filter(|flows| flows.has_egress()) {
                // Rules go by the tag that the end leaves.
                self.edit_by_rules(flows, frames, way);
            }
        }
        let mtu = port.mtu.load(Ordering::Relaxed) as usize;
        let (mut given, is_any_longer) = measure(frames, mtu + ETH_HEADER);
        if is_any_longer {
            self.sift(frames, |worker, frame| match is_too_long(worker.umem.data(frame), mtu) {
                true => Err((&port.shards[worker.id], DropReason::EgressMtu)),
                false => Ok(()),
            });
            given = count(frames);
        }
        // A run as they are: they need not be staged one by one.
        let egress = Egress::new(port.no, TagEdit::None, queue);
        let run = Run { egress, color: way.color, frames: frames.len(), bytes: given.bytes as usize };
        self.send_run(run, &mut frames.drain(..), way);
        given
    }
}

/// Puts frames, as many as a burst has, where the table says they go, up to one that more is to be done for than to send it.
#[inline(never)]
fn classify<'t>(
    table: &'t Table,
    umem: &Umem,
    frames: &mut Drain<'_, Frame>,
    outs: &mut [Vec<Frame>],
) -> Option<(Frame, Result<Target<'t>, DropReason>)> {
    // Where all of them go is found first: a frame that is put somewhere may need a call for it.
    let (coming, mut targets) = (frames.as_slice(), [0; BURST]);
    let (mut found, mut other) = (0, None);
    while let (Some(frame), Some(place)) = (coming.get(found), targets.get_mut(found)) {
        match table.decide(umem.data(frame)) {
            Ok(Target::One(to)) => *place = to,
            target => {
                other = Some(target);
                break;
            }
        }
        found += 1;
    }
    for to in &targets[..found] {
        let Some(frame) = frames.next() else { break };
        outs[usize::from(*to)].push(frame);
    }
    let target = other?;
    Some((frames.next()?, target))
}

/// How many frames, and their bytes: of less than 65,536 frames, so that their sum fits in 32 bits, which several are summed of at
/// once.
#[inline]
pub(in crate::worker) fn count(frames: &[Frame]) -> Count {
    let bytes = frames.iter().fold(0_u32, |sum, frame| sum.wrapping_add(frame.len() as u32));
    Count { packets: frames.len() as u64, bytes: u64::from(bytes) }
}

/// As [`count`], and whether a frame is longer than `most`; without a branch for each.
#[inline]
fn measure(frames: &[Frame], most: usize) -> (Count, bool) {
    // The highest bit is that of a difference below zero: neither length nor bound has it.
    let most = most.min(usize::from(u16::MAX)) as u32;
    let (mut bytes, mut all) = (0_u32, 0);
    for frame in frames {
        bytes = bytes.wrapping_add(frame.len() as u32);
        all |= most.wrapping_sub(frame.len() as u32);
    }
    (Count { packets: frames.len() as u64, bytes: u64::from(bytes) }, all >> 31 != 0)
}

/// Whether a frame, its tags taken off, is more than an Ethernet header and `mtu` bytes.
pub(super) fn is_too_long(data: &[u8], mtu: usize) -> bool {
    packet_len(parse_l2(data).ok().and_then(|l2| l2.tag), data.len()) > mtu
}
