//! A worker's whole turn.

use std::hint::black_box;

use switch::engine::bridge::{BurstContext, FlowCache};
use switch::engine::fdb::Fdb;
use switch::engine::snapshot::Snapshot;
use switch::worker::Worker;

use super::{BURSTS, Case, WHOLE_TURN, nothing};
use crate::micro::bed::{Bed, Device, FLOWS, PassThrough, learner, pass_through, snapshot, worker};
use crate::micro::fixtures::{BURST, mac_table, udp4};

const GROUP: &str = "turn";

struct Bridge {
    snapshot: Snapshot,
    fdb: Fdb,
    cache: FlowCache,
    frames: Vec<Vec<u8>>,
}

impl Bridge {
    fn new() -> Self {
        let frames = (0..FLOWS).map(|n| udp4(1 + n, n)).collect();
        Self { snapshot: snapshot(), fdb: mac_table(FLOWS), cache: FlowCache::default(), frames }
    }

    fn decide(&mut self) {
        for _ in 0..BURSTS {
            self.cache.begin_burst();
            let context = BurstContext { snap: &self.snapshot, fdb: &self.fdb, now: 0, ingress: 0, worker: 0 };
            for frame in &self.frames {
                black_box(self.cache.decide(&context, black_box(frame)));
            }
        }
    }
}

pub(super) fn cases() -> Vec<Case> {
    let frames = BURSTS * FLOWS as usize;
    vec![
        Case::new(GROUP, "decide, 10,000 rules", frames, Bridge::new, nothing, Bridge::decide),
        Case::new(GROUP, "pass-through", BURST, pass_through, Bed::kernel_turn, |bed: &mut Bed<PassThrough>| {
            bed.device.turn()
        }),
        Case::new(GROUP, WHOLE_TURN, BURST, worker, Bed::kernel_turn, |bed: &mut Bed<Worker>| {
            Device::turn(&mut bed.device)
        }),
        Case::new(GROUP, "learning only", BURST, learner, Bed::kernel_turn, |bed: &mut Bed<Worker>| {
            Device::turn(&mut bed.device)
        }),
    ]
}
