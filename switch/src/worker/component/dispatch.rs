//! What a component does with a burst, and the ends that it gives frames to.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;
use std::vec::Drain;

use super::steering::Steering;
use crate::counters::PortShard;
use crate::engine::bridge::{self, Run};
use crate::engine::component::{Table, Target, tag_edit};
use crate::engine::meter::Color;
use crate::engine::parse::ETH_HEADER;
use crate::engine::vlan::TagEdit;
use crate::io::umem::Frame;
use crate::model::{Count, DropReason, VlanEdit};
use crate::worker::egress::Egress;
use crate::worker::ends::{OutsideEnd, Ring};
use crate::worker::frames::{BURST, Left, count, edit_tag, is_too_long, measure, sift, total_len};
use crate::worker::set::{Component, Link, Logic, Set};
use crate::worker::turn::SendContext;
use crate::worker::view::PortShared;

/// A burst in the hands of a component.
pub(super) struct Dispatch<'a> {
    pub(super) component: &'a Component,
    pub(super) set: &'a Set,
    pub(super) steering: &'a mut Steering,
    pub(super) cx: &'a SendContext<'a>,
    pub(super) egress: &'a mut Egress,
}

impl Dispatch<'_> {
    /// Does with a burst what the component does. `outs` has a place for each sending end. All are empty before and
    /// after.
    pub(super) fn treat(&mut self, burst: &mut Vec<Frame>, outs: &mut [Vec<Frame>]) {
        let component = self.component;
        match &component.logic {
            Logic::First => self.give(0, burst),
            Logic::All => {
                let each = count(burst);
                for out in outs.iter_mut().take(component.tx.len()).skip(1) {
                    self.cx.source.mirrored(each);
                    for frame in &*burst {
                        self.copy_to(frame, out);
                    }
                    self.egress.charge_copies(out.len());
                }
                self.give(0, burst);
            }
            Logic::Lookup(table) => {
                let mut frames = burst.drain(..);
                while !frames.as_slice().is_empty() {
                    if let Some((frame, target)) = classify(table, &mut frames, outs) {
                        self.carry_to(target, frame, outs);
                    }
                }
            }
        }
        for (to, out) in outs.iter_mut().enumerate().filter(|(_, out)| !out.is_empty()) {
            self.give(to, out);
        }
    }

    /// Puts a frame where it goes. If that is several ends, all but the last get copies.
    fn carry_to(&mut self, target: Result<Target<'_>, DropReason>, frame: Frame, outs: &mut [Vec<Frame>]) {
        let source = self.cx.source;
        match target {
            Ok(Target::One(to)) => outs[usize::from(to)].push(frame),
            Ok(Target::All([others @ .., last])) => {
                source.flooded(others.len(), frame.wire());
                for to in others {
                    let copies = self.copy_to(&frame, &mut outs[usize::from(*to)]);
                    self.egress.charge_copies(copies);
                }
                outs[usize::from(*last)].push(frame);
            }
            nowhere => self.egress.discard(frame, source, nowhere.err().unwrap_or(DropReason::ClassifierMiss)),
        }
    }

    /// Puts a copy of a frame into `out`, if one is free. Returns how many copies are to be charged.
    #[inline(always)]
    fn copy_to(&mut self, frame: &Frame, out: &mut Vec<Frame>) -> usize {
        match self.egress.copy_uncharged(frame) {
            Some(copy) => out.push(copy),
            None => {
                self.cx.source.dropped(DropReason::NoFrame, frame.packet_len());
                return 0;
            }
        }
        1
    }

    /// Edits the tags of a burst in place. What has no usable layer 2 is dropped.
    pub(super) fn edit_tags(&mut self, edit: VlanEdit, burst: &mut Vec<Frame>) {
        if edit == VlanEdit::None {
            return;
        }
        let source = self.cx.source;
        let mut done = 0;
        while let Some((bad, reason)) = edit_all(edit, &mut burst[done..], source) {
            done += bad;
            let frame = burst.remove(done);
            self.egress.discard(frame, source, reason);
        }
    }

    /// Gives frames to a sending end.
    fn give(&mut self, to: usize, frames: &mut Vec<Frame>) {
        let component = self.component;
        self.edit_tags(component.spec.tx[to].vlan, frames);
        let given = match &component.tx[to] {
            Link::Port(port, queue) => self.give_to_port(port, *queue, frames),
            Link::Ring(ring) => self.give_to_ring(ring, frames),
            Link::Null(null) => {
                let all = count(frames);
                null.tx.add(all.packets, all.bytes);
                component.counters.left.add(all.packets, all.bytes);
                all
            }
            Link::Outside(outside) => {
                let taken = self.show(outside, frames);
                component.counters.left.add(taken.packets, taken.bytes);
                taken
            }
        };
        component.counters.tx.add(given.packets, given.bytes);
        frames.drain(..).for_each(|frame| self.egress.cache().put(frame));
    }

    /// Puts the first of `frames` into a ring. Returns how many had room. The rest stay there, and count as dropped.
    fn give_to_ring(&mut self, ring: &Ring, frames: &mut Vec<Frame>) -> Count {
        let given = ring.put(frames);
        if !frames.is_empty() {
            let refused = count(frames);
            ring.refused(refused);
            self.cx.source.dropped_all(DropReason::RingFull, refused);
        }
        if let Some(reader) = ring.reader().filter(|reader| *reader != self.cx.turn.worker) {
            self.egress.wake(reader);
        }
        given
    }

    /// Puts copies of frames into the queue of an outside end. Returns how many had room. The rest count as dropped.
    fn show(&self, outside: &OutsideEnd, frames: &[Frame]) -> Count {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX);
        let (mut taken, mut refused) = (Count::default(), Count::default());
        for frame in frames {
            let (len, umem) = (frame.packet_len(), self.egress.umem());
            let fits = outside.offer(len, umem.pieces(frame), now);
            let one = Count { packets: 1, bytes: len as u64 };
            if fits { taken.add(one) } else { refused.add(one) }
        }
        outside.tx.add(taken.packets, taken.bytes);
        if refused.packets > 0 {
            outside.refused.add(refused.packets, refused.bytes);
            self.cx.source.dropped_all(DropReason::OutsideFull, refused);
        }
        taken
    }

    /// Sends frames to a port as the bridge does: its meter, its queues, its worker. Returns how many were short
    /// enough.
    fn give_to_port(&mut self, port: &Arc<PortShared>, queue: Option<u32>, frames: &mut Vec<Frame>) -> Count {
        if let Some(flows) = self.set.flows_of(port.no).filter(|flows| flows.has_egress()) {
            // Rules go by the tag that the end leaves.
            self.steering.edit(flows, frames, self.cx);
        }
        let mtu = port.mtu.load(Ordering::Relaxed) as usize;
        let egress = bridge::Egress::new(port.no, TagEdit::None, queue);
        let (given, is_any_longer) = measure(frames, mtu + ETH_HEADER);
        if is_any_longer {
            return self.give_fitting(port, egress, mtu, frames);
        }
        self.send_all(egress, given, frames, self.cx);
        given
    }

    /// Sends those of some frames that are short enough. Some may have several chunks.
    #[cold]
    fn give_fitting(
        &mut self,
        port: &PortShared,
        egress: bridge::Egress,
        mtu: usize,
        frames: &mut Vec<Frame>,
    ) -> Count {
        let shard = self.cx.turn.shard(port);
        sift(frames, self.egress.cache(), |frame| match is_too_long(frame.data(), frame.packet_len(), mtu) {
            true => Err((shard, DropReason::EgressMtu)),
            false => Ok(()),
        });
        let given = count(frames);
        self.send_all(egress, given, frames, &SendContext { left: Left::of(frames), ..*self.cx });
        given
    }

    #[inline]
    fn send_all(&mut self, egress: bridge::Egress, all: Count, frames: &mut Vec<Frame>, cx: &SendContext<'_>) {
        let run = Run { egress, color: Color::Green, frames: frames.len(), bytes: total_len(all) };
        self.egress.send_run(run, &mut frames.drain(..), cx);
    }
}

/// Edits the tags of frames in place, up to one that can't be edited. Returns its place, and what is wrong with it.
#[inline(never)]
fn edit_all(edit: VlanEdit, frames: &mut [Frame], source: &PortShard) -> Option<(usize, DropReason)> {
    // A loop for each kind of edit, so that no frame asks for the kind.
    match edit {
        VlanEdit::None => None,
        VlanEdit::Add { vid, pcp } => edit_each(frames, source, |data| tag_edit(VlanEdit::Add { vid, pcp }, data)),
        VlanEdit::Del => edit_each(frames, source, |data| tag_edit(VlanEdit::Del, data)),
    }
}

#[inline(always)]
fn edit_each(
    frames: &mut [Frame],
    source: &PortShard,
    edit: impl Fn(&[u8]) -> Result<TagEdit, DropReason>,
) -> Option<(usize, DropReason)> {
    for (at, frame) in frames.iter_mut().enumerate() {
        // An arm for each edit: within it the kind is known, and no frame pays for selecting it.
        match edit(frame.data()) {
            Ok(TagEdit::None) => {}
            Ok(TagEdit::Push { tpid, tci }) => edit_tag(frame, TagEdit::Push { tpid, tci }, source),
            Ok(TagEdit::Pop) => edit_tag(frame, TagEdit::Pop, source),
            Ok(TagEdit::SetTci(tci)) => edit_tag(frame, TagEdit::SetTci(tci), source),
            Err(reason) => return Some((at, reason)),
        }
    }
    None
}

/// Puts frames where the table says they go, up to one that needs more than to be sent. Returns that one, and where it
/// goes.
#[inline(never)]
fn classify<'t>(
    table: &'t Table,
    frames: &mut Drain<'_, Frame>,
    outs: &mut [Vec<Frame>],
) -> Option<(Frame, Result<Target<'t>, DropReason>)> {
    // Where all of them go is found first: a frame that is put somewhere may need a call for it.
    let (coming, mut targets) = (frames.as_slice(), [0; BURST]);
    let (mut found, mut other) = (0, None);
    while let (Some(frame), Some(place)) = (coming.get(found), targets.get_mut(found)) {
        match table.decide(frame.data()) {
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
