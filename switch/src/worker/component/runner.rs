//! Takes a burst of each intake, and has its component do its work.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::dispatch::Dispatch;
use super::plan::{Inlet, Intake, Plan};
use super::steering::Steering;
use crate::engine::meter::Color;
use crate::io::umem::{Frame, FrameCache};
use crate::model::{Count, DropReason};
use crate::worker::debt::{Debt, Found, cost_of_frames};
use crate::worker::egress::{Egress, Queue};
use crate::worker::frames::{BURST, count, sift, total_len};
use crate::worker::set::{PortFlows, Set};
use crate::worker::turn::{SendContext, Turn};
use crate::worker::view::PortShared;

/// Bytes of the frames that a null end gives.
const NULL_LEN: usize = 64;

/// The components of a worker.
#[derive(Debug, Default)]
pub(in crate::worker) struct Runner {
    /// Number of the set.
    epoch: u64,
    set: Arc<Set>,
    plan: Plan,
    burst_runner: BurstRunner,
}

/// Runs one burst. It keeps what any burst needs.
#[derive(Debug, Default)]
struct BurstRunner {
    steering: Steering,
    /// What goes to each sending end of the component whose burst it is. Empty between bursts.
    outs: Vec<Vec<Frame>>,
}

impl Runner {
    /// Number of the set in force here.
    pub(in crate::worker) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Picks up a newer set of components, and says that the old one is no longer used here.
    pub(in crate::worker) fn refresh(&mut self, turn: &Turn<'_>, egress: &mut Egress) {
        let epoch = turn.shared.components.epoch();
        if epoch != self.epoch {
            self.epoch = epoch;
            self.set = turn.shared.components.in_force();
            self.rebuild(turn, egress);
            turn.me().components_seen.store(epoch, Ordering::Release);
        }
    }

    /// Works out the intakes anew, for the components and queues that there are.
    pub(in crate::worker) fn rebuild(&mut self, turn: &Turn<'_>, egress: &mut Egress) {
        self.plan = Plan::new(&self.set, egress.queues_mut(), turn.worker);
        let (outs, most) = (&mut self.burst_runner.outs, self.plan.most_outs());
        if outs.len() < most {
            outs.resize_with(most, || Vec::with_capacity(BURST));
        }
    }

    /// Whether an intake has something.
    pub(in crate::worker) fn has_work(&self, queues: &[Queue]) -> bool {
        self.plan.has_work(queues)
    }

    /// What intakes have cost too much.
    pub(in crate::worker) fn debts(&mut self) -> impl Iterator<Item = &mut Debt> {
        self.plan.intakes.iter_mut().map(|intake| &mut intake.debt)
    }

    /// One burst of each intake that is not in debt. `burst` is empty before and after.
    pub(in crate::worker) fn run(
        &mut self,
        burst: &mut Vec<Frame>,
        turn: &Turn<'_>,
        egress: &mut Egress,
        found: &mut Found,
    ) {
        let Self { set, plan, burst_runner, .. } = self;
        for intake in &mut plan.intakes {
            if intake.debt.turn(egress.is_forgiving()) == 0 {
                found.passed_over();
                continue;
            }
            let before = egress.spent();
            let taken = burst_runner.run_intake(intake, set, burst, turn, egress);
            intake.debt.charge(cost_of_frames(taken) + egress.spent().wrapping_sub(before));
            found.took(taken);
        }
        for (slot, flows) in &plan.untaken {
            found.took(burst_runner.run_untaken(*slot, flows, burst, turn, egress));
        }
    }
}

impl BurstRunner {
    fn run_intake(
        &mut self,
        intake: &Intake,
        set: &Set,
        burst: &mut Vec<Frame>,
        turn: &Turn<'_>,
        egress: &mut Egress,
    ) -> usize {
        let Intake { component, from, vlan, .. } = intake;
        match from {
            Inlet::Queue(slot, ..) => {
                egress.receive(*slot, burst);
            }
            Inlet::Ring(ring) => {
                ring.take(burst, BURST);
            }
            Inlet::Outside(outside) => {
                outside.input.take(burst, BURST);
            }
            Inlet::Null(_) => make_empty_frames(burst, egress.cache()),
        }
        let taken = burst.len();
        if taken == 0 {
            return 0;
        }
        let cx = turn.burst(&component.counters.shard);
        let mut came = count(burst);
        turn.me().counters.took_burst(taken);
        match from {
            Inlet::Queue(slot, port, flows) => {
                let own = admit(*slot, port, burst, came, &cx, egress);
                if let Some(flows) = flows {
                    self.steering.steer(flows, own, true, burst, turn, egress);
                    came = count(burst);
                }
            }
            Inlet::Ring(_) => {}
            Inlet::Null(null) => {
                null.rx.add(came.packets, came.bytes);
                component.counters.came.add(came.packets, came.bytes);
            }
            Inlet::Outside(_) => component.counters.came.add(came.packets, came.bytes),
        }
        component.counters.rx.add(came.packets, came.bytes);
        let mut dispatch = Dispatch { component, set, steering: &mut self.steering, cx: &cx, egress };
        dispatch.edit_tags(*vlan, burst);
        dispatch.treat(burst, &mut self.outs);
        taken
    }

    /// A burst of a queue that no component has: rules may send it to one that one has.
    fn run_untaken(
        &mut self,
        slot: usize,
        flows: &PortFlows,
        burst: &mut Vec<Frame>,
        turn: &Turn<'_>,
        egress: &mut Egress,
    ) -> usize {
        let taken = egress.receive(slot, burst);
        if taken > 0 {
            let cx = turn.burst(turn.shard(&flows.port));
            let came = count(burst);
            turn.me().counters.took_burst(taken);
            let own = admit(slot, &flows.port, burst, came, &cx, egress);
            self.steering.steer(flows, own, false, burst, turn, egress);
        }
        taken
    }
}

/// Counts a burst in from a queue, shows it to who captures there, and asks the meter of what the port sends. Returns
/// the queue's number.
fn admit(
    slot: usize,
    port: &PortShared,
    burst: &mut Vec<Frame>,
    came: Count,
    cx: &SendContext<'_>,
    egress: &mut Egress,
) -> u32 {
    let number = egress.refill(slot);
    cx.turn.count_in(burst, came, port, number, egress.umem());
    let Some(meter) = cx.turn.view.meters.from(port.no) else { return number };
    if cx.takes_all(meter, burst.len(), total_len(came)) {
        return number;
    }
    // The port's own counters: what it sends too much is not the component's doing.
    let shard = &port.shards[cx.turn.worker];
    sift(burst, egress.cache(), |frame| {
        let len = frame.packet_len();
        match cx.color(meter, frame, len, Color::Green) {
            Color::Red => Err((shard, DropReason::MeterFrom)),
            Color::Green | Color::Yellow => Ok(()),
        }
    });
    number
}

/// Frames as a null end gives them, as many as a burst has and there are.
fn make_empty_frames(burst: &mut Vec<Frame>, cache: &mut FrameCache) {
    while burst.len() < BURST {
        let Some(mut frame) = cache.take() else { break };
        let start = frame.start();
        frame.chunk_mut()[start..start + NULL_LEN].fill(0);
        frame.set(start, NULL_LEN);
        burst.push(frame);
    }
}
