//! The way out by a bond: the table that its thread has published, in next hops of this worker.

use std::sync::Arc;

use super::next_hops::Hop;
use super::sender::Sender;
use crate::engine::PortNo;
use crate::engine::parse::flow_hash;
use crate::io::umem::Frame;
use crate::model::DropReason;
use crate::worker::bond::{BondShared, BondTable, Place, Way, bucket_of};
use crate::worker::turn::Turn;

/// Frames that a worker keeps for bonds at most. A bucket is held for 30 ms, which is 2,500 frames of 1,514 bytes at
/// 1 Gbit/s, and only one that has been busy for a second is.
const HELD: usize = 4096;

/// The next hops of a bond.
#[derive(Debug)]
pub(super) struct BondHops {
    shared: Arc<BondShared>,
    table: Arc<BondTable>,
    members: Members,
    turns: Turns,
}

/// The next hops to each member: queues of this worker if it has some, else those of others.
#[derive(Debug)]
struct Members(Vec<Vec<Hop>>);

/// Whose turn it is, and how many frames that member still gets.
#[derive(Debug)]
struct Turns {
    turn: usize,
    left: u16,
    random: u32,
}

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Hop(Hop),
    /// It is kept.
    Held,
    /// A copy to each of so many members ([`BondHops::receiver`]).
    All(usize),
    Nowhere,
}

impl BondHops {
    /// Those by the table in force. `by_queue` are the next hops to each queue of the port.
    pub(super) fn new(shared: &Arc<BondShared>, by_queue: &[Hop]) -> Self {
        let table = shared.table();
        let hops = |queues: &std::ops::Range<u32>| {
            let all = by_queue.get(queues.start as usize..queues.end as usize).unwrap_or_default();
            let own: Vec<_> = all.iter().filter(|hop| matches!(hop, Hop::Here(_))).copied().collect();
            if own.is_empty() { all.iter().filter(|hop| **hop != Hop::Nowhere).copied().collect() } else { own }
        };
        let members = Members(table.members.iter().map(|(_, queues)| hops(queues)).collect());
        let turns = Turns { turn: 0, left: 0, random: 0x9e37_79b9 };
        Self { shared: Arc::clone(shared), table, members, turns }
    }

    /// Where a frame of this worker goes.
    pub(super) fn choose(&mut self, frame: &[u8], worker: usize) -> Choice {
        let Self { shared, table, members, turns } = self;
        match &table.way {
            Way::Nowhere => Choice::Nowhere,
            Way::Member(member) => members.hop(*member, flow_hash(frame) as usize),
            Way::Buckets(policy, places) => {
                let bucket = bucket_of(*policy, frame);
                match places[bucket] {
                    Place::Nowhere => Choice::Nowhere,
                    Place::Held => Choice::Held,
                    Place::Member(member) => {
                        shared.count(worker, bucket);
                        members.hop(member.into(), bucket)
                    }
                }
            }
            Way::All(receivers) => Choice::All(receivers.len()),
            Way::InTurn(senders, frames) => {
                let sender = senders.get(turns.next(senders.len(), *frames));
                sender.map_or(Choice::Nowhere, |member| members.hop(*member, 0))
            }
        }
    }

    /// The next hop of a copy, of that flow hash, to one of all members that get one.
    pub(super) fn receiver(&self, number: usize, flow: u32) -> Choice {
        let Way::All(receivers) = &self.table.way else { return Choice::Nowhere };
        receivers.get(number).map_or(Choice::Nowhere, |member| self.members.hop(*member, flow as usize))
    }
}

impl Members {
    fn hop(&self, member: usize, flow: usize) -> Choice {
        match self.0.get(member).map(Vec::as_slice) {
            None | Some([]) => Choice::Nowhere,
            Some(hops) => Choice::Hop(hops[flow % hops.len()]),
        }
    }
}

impl Turns {
    /// Whose turn it is, of so many.
    fn next(&mut self, members: usize, frames: u16) -> usize {
        let count = members.max(1);
        if frames == 0 {
            // xorshift32 (Marsaglia, 2003).
            self.random ^= self.random << 13;
            self.random ^= self.random >> 17;
            self.random ^= self.random << 5;
            return self.random as usize % count;
        }
        if self.left == 0 {
            self.turn = self.turn.wrapping_add(1);
            self.left = frames;
        }
        self.left -= 1;
        self.turn % count
    }
}

impl Sender {
    /// Sends a frame by a bond.
    #[inline(never)]
    pub(super) fn send_by_bond(&mut self, place: usize, mut frame: Frame, port: PortNo, turn: &Turn<'_>) {
        match self.next_hops.bond(place).choose(frame.data(), turn.worker) {
            Choice::Hop(hop) => self.send_by(frame, port, Some(hop), turn),
            Choice::Held if self.held.len() < HELD => {
                // What its sender still has of it may be gone by then.
                self.cache.complete(&mut frame);
                self.held.push_back((port, frame));
            }
            Choice::Held => self.discard(frame, turn.shard_of(port), DropReason::TxRingFull),
            Choice::All(members) => self.send_to_all(place, members, frame, port, turn),
            Choice::Nowhere => self.discard(frame, turn.shard_of(port), DropReason::LinkDown),
        }
    }

    /// Sends a copy of a frame to each member.
    fn send_to_all(&mut self, place: usize, members: usize, mut frame: Frame, port: PortNo, turn: &Turn<'_>) {
        self.cache.complete(&mut frame);
        let (wire, shard, flow) = (frame.wire(), turn.shard_of(port), flow_hash(frame.data()));
        shard.flooded(members.saturating_sub(1), wire);
        for number in 1..members {
            let receiver = self.next_hops.bond(place).receiver(number, flow);
            match self.copy(&frame) {
                Some(copy) => self.send_chosen(receiver, copy, port, turn),
                None => shard.dropped_all(DropReason::NoFrame, wire),
            }
        }
        let receiver = self.next_hops.bond(place).receiver(0, flow);
        self.send_chosen(receiver, frame, port, turn);
    }

    fn send_chosen(&mut self, choice: Choice, frame: Frame, port: PortNo, turn: &Turn<'_>) {
        match choice {
            Choice::Hop(hop) => self.send_by(frame, port, Some(hop), turn),
            _ => self.discard(frame, turn.shard_of(port), DropReason::LinkDown),
        }
    }

    /// Sends what waited for tables of bonds, by those in force. Some may go on waiting.
    pub(super) fn release_held(&mut self, turn: &Turn<'_>) {
        for _ in 0..self.held.len() {
            let Some((port, frame)) = self.held.pop_front() else { break };
            let hop = self.next_hops.fixed(port, None);
            self.send_by(frame, port, hop, turn);
        }
    }
}
