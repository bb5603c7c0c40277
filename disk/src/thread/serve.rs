//! Requests: taken from rings, begun, ended.
#![allow(unsafe_code, reason = "operations of the store name memory")]

use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::errno::Errno;
use vhost_user::ring::RingError;

use super::active::Serving;
use super::engine::Engine;
use super::slot::{Step, is_full, written};
use crate::request::{self, Command, Refused, Rules, Status};
use crate::stats::QueueCounters;

/// Shortest wait for limits: the kernel's timer is exact to some microseconds.
const WAIT_LEAST: Duration = Duration::from_micros(10);
/// Longest wait: limits may change meanwhile.
const WAIT_MOST: Duration = Duration::from_millis(100);

impl Engine {
    /// Takes requests of a queue, and shows what was used. Says whether there are more.
    pub(super) fn serve(&mut self, at: usize, now: u64) -> bool {
        self.begin_waiting(at, now);
        let serving = &mut self.queues[at];
        serving.look |= matches!(serving.active.kick, super::Kick::Polled);
        let mut more = false;
        if std::mem::take(&mut serving.look) && serving.may_take(self.paused) {
            if !std::mem::replace(&mut serving.quiet, true) {
                serving.active.queue.disable_kicks();
            }
            more = self.take_all(at, now);
        }
        self.publish(at);
        let serving = &mut self.queues[at];
        if serving.quiet && !more && !serving.broken {
            serving.quiet = false;
            match serving.active.queue.enable_kicks() {
                Ok(there) => more = there && serving.may_take(self.paused),
                Err(error) => self.give_up(at, &error.to_string()),
            }
        }
        let serving = &mut self.queues[at];
        serving.look |= more;
        // The ring itself may be what is gone: then nothing is available any more, and nothing else would tell.
        if !serving.broken && serving.active.queue.queue().memory().is_broken() {
            self.give_up(at, &RingError::MemoryBroken.to_string());
            return false;
        }
        more
    }

    /// Shows the driver what was used.
    fn publish(&mut self, at: usize) {
        if std::mem::take(&mut self.queues[at].unpublished) {
            self.queues[at].active.queue.publish();
            self.call(at);
        }
    }

    /// The guest has broken the ring.
    pub(super) fn give_up(&mut self, at: usize, why: &str) {
        let serving = &mut self.queues[at];
        serving.broken = true;
        self.shared.fail(format!("ring {} is broken: {why}", serving.active.number));
    }

    /// Takes requests while there are some and they may be taken, at most as many as the ring has entries.
    fn take_all(&mut self, at: usize, now: u64) -> bool {
        for _ in 0..self.queues[at].active.queue.queue().size() {
            let serving = &mut self.queues[at];
            if !serving.may_take(self.paused) {
                return false;
            }
            let is_left_over = serving.left_over() > 0;
            let token = self.slots.take(serving.active.queue.queue().memory());
            let Some(slot) = self.slots.get(token) else { return false };
            match serving.active.queue.pop(&mut slot.request) {
                Ok(true) => {}
                Ok(false) => {
                    self.slots.give(token);
                    return false;
                }
                Err(error) => {
                    self.slots.give(token);
                    self.give_up(at, &error.to_string());
                    return false;
                }
            }
            serving.in_flight += 1;
            let counters = counters(&self.shared.counters, serving);
            counters.in_flight.add(1);
            counters.replayed.add(u64::from(is_left_over));
            self.taken(at, token, now);
        }
        true
    }

    /// A request was taken.
    fn taken(&mut self, at: usize, token: u32, now: u64) {
        let Some(slot) = self.slots.get(token) else { return };
        let Some(chain) = slot.request.chain() else { return };
        let serving = &mut self.queues[at];
        let shape = &self.shared.shape;
        let rules = Rules {
            capacity: self.shared.capacity.load(Ordering::Relaxed),
            block: shape.block,
            read_only: shape.read_only,
            features: serving.active.features,
        };
        match request::parse(&chain, &rules, &mut slot.ranges) {
            Ok(command) => {
                slot.start(serving.active.number.into(), command);
                self.admit(at, token, now);
            }
            Err(refused) => {
                counters(&self.shared.counters, serving).refused.add(1);
                if let Refused::Status(status) = refused {
                    request::answer(&chain, status);
                }
                self.used(at, token);
            }
        }
    }

    /// Begins a request, or has it wait for limits.
    fn admit(&mut self, at: usize, token: u32, now: u64) {
        let Some(slot) = self.slots.get(token) else { return };
        let serving = &mut self.queues[at];
        let is_free = self.paused || serving.taker.is_some();
        if let Some((is_write, bytes)) = slot.cost()
            && !is_free
        {
            let waiting = &mut serving.waiting[usize::from(is_write)];
            // Who waits already has seen to it that this thread wakes.
            let taken = if waiting.is_empty() { self.shared.limits.take(is_write, bytes, now) } else { Err(WAIT_MOST) };
            if let Err(wait) = taken {
                waiting.push_back(token);
                counters(&self.shared.counters, serving).limited.add(1);
                return self.wake_in(wait, now);
            }
        }
        slot.began = now;
        self.next(at, token, now);
    }

    /// Begins what has waited for limits long enough. All of it if the queue is to become quiet.
    fn begin_waiting(&mut self, at: usize, now: u64) {
        for direction in 0..2 {
            while let Some(token) = self.queues[at].waiting[direction].front().copied() {
                let is_free = self.paused || self.queues[at].taker.is_some() || self.queues[at].broken;
                let Some(slot) = self.slots.get(token) else { return };
                let (is_write, bytes) = slot.cost().unwrap_or_default();
                slot.began = now;
                if !is_free && let Err(wait) = self.shared.limits.take(is_write, bytes, now) {
                    self.wake_in(wait, now);
                    break;
                }
                self.queues[at].waiting[direction].pop_front();
                self.next(at, token, now);
            }
        }
    }

    /// Has the thread look at waiting requests when limits let one pass, or are looked at anew.
    fn wake_in(&mut self, wait: Duration, now: u64) {
        let wait = wait.clamp(WAIT_LEAST, WAIT_MOST);
        let until = now.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX));
        self.deadline = Some(self.deadline.map_or(until, |earlier| earlier.min(until)));
    }

    /// Begins the next operation of a request, or ends it.
    fn next(&mut self, at: usize, token: u32, now: u64) {
        let durable = self.shared.write_through.load(Ordering::Relaxed);
        loop {
            let Some(slot) = self.slots.get(token) else { return };
            if slot.command == Command::Identify
                && let Some(chain) = slot.request.chain()
            {
                request::identify(&chain, &self.shared.id);
            }
            match slot.next(self.align, durable) {
                Step::Begin(operation, buffers) => {
                    self.begun += 1;
                    // SAFETY: the request keeps the guest's memory mapped until it is used, and the bounce buffer stays
                    // with the slot. Neither is before the operation's result is there.
                    unsafe { self.channel.begin(&mut self.ring, operation, buffers, token) };
                    return;
                }
                Step::Done => return self.finish(at, token, Ok(()), now),
                Step::NeedBounce => {
                    let Some(bounce) = self.bounces.take(token) else { return };
                    slot.bounce = Some(bounce);
                    counters(&self.shared.counters, &self.queues[at]).copied.add(1);
                }
            }
        }
    }

    /// A completion of the store is there.
    pub(super) fn completed(&mut self, token: u32, result: i32, now: u64) {
        let Some(result) = self.channel.advance(&mut self.ring, token, result) else { return };
        self.begun -= 1;
        let Some(slot) = self.slots.get(token) else { return };
        let number = slot.queue;
        let Some(at) = self.queues.iter().position(|serving| usize::from(serving.active.number) == number) else {
            return;
        };
        match result {
            Ok(()) => {
                slot.step_done();
                self.next(at, token, now);
            }
            Err(errno) => self.finish(at, token, Err(errno), now),
        }
    }

    /// Ends a request.
    fn finish(&mut self, at: usize, token: u32, result: Result<(), Errno>, now: u64) {
        let Some(slot) = self.slots.get(token) else { return };
        let counters = counters(&self.shared.counters, &self.queues[at]);
        let direction = match slot.command {
            Command::Read { .. } => Some(&counters.read),
            Command::Write { .. } => Some(&counters.write),
            Command::Flush => Some(&counters.flush),
            Command::Discard => Some(&counters.discard),
            Command::WriteZeroes => Some(&counters.zero),
            Command::Identify => None,
        };
        let status = match result {
            Ok(()) => {
                if let Some(direction) = direction {
                    direction.operations.add(1);
                    direction.bytes.add(slot.bytes());
                    direction.latencies.count(now.saturating_sub(slot.began));
                }
                if let Command::Write { at, len } = slot.command {
                    self.shared.full.wrote(&self.shared.name, at, len.into());
                }
                Status::Ok
            }
            Err(errno) => {
                counters.errors.add(1);
                if is_full(errno) {
                    counters.no_space.add(1);
                    self.shared.full.begin(&self.shared.name, slot.first(), errno);
                }
                Status::IoError
            }
        };
        if let Some(chain) = slot.request.chain() {
            request::answer(&chain, status);
        }
        let bounce = slot.bounce.take();
        self.used(at, token);
        if let Some(next) = bounce.and_then(|bounce| self.bounces.give(bounce)) {
            self.go_on(next, now);
        }
    }

    /// A request that has waited for a bounce buffer may go on.
    fn go_on(&mut self, token: u32, now: u64) {
        let Some(number) = self.slots.get(token).map(|slot| slot.queue) else { return };
        if let Some(at) = self.queues.iter().position(|serving| usize::from(serving.active.number) == number) {
            self.next(at, token, now);
        }
    }

    /// Uses the chain of a request that has its status.
    fn used(&mut self, at: usize, token: u32) {
        let Some(slot) = self.slots.get(token) else { return };
        let serving = &mut self.queues[at];
        let written = slot.request.chain().map_or(0, |chain| written(&chain));
        serving.active.queue.complete(&mut slot.request, written);
        (serving.unpublished, serving.look) = (true, true);
        serving.in_flight -= 1;
        counters(&self.shared.counters, serving).in_flight.sub(1);
        self.slots.give(token);
    }
}

fn counters<'a>(all: &'a [QueueCounters], serving: &Serving) -> &'a QueueCounters {
    // Each queue has some: they are made for as many as are offered.
    &all[usize::from(serving.active.number)]
}
