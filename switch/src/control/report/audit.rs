//! The whereabouts of all frames.

use crate::control::core::Core;
use crate::control::state::Control;
use crate::counters::as_count;
use crate::io::queue_rings::OwnFrames;
use crate::io::umem::Whereabouts;
use crate::model::*;
use crate::worker::QueueHoldings;

/// Where all frames are, as they are counted without stopping anybody.
pub(in crate::control) fn frames(core: &Core) -> FramePlaces {
    let Whereabouts { free, held, rx, tx } = core.umem().whereabouts();
    FramePlaces { free, rx, tx, in_transit: held }
}

/// Where all frames are, and whether everybody agrees on it.
pub(in crate::control) fn audit(control: &Control) -> FrameAudit {
    let core = &control.core;
    let umem = core.umem();
    // The gate's threads stand still while the gate is closed, the workers while they are paused. A pause is to be
    // short.
    let taps = core.gate.pass();
    let in_rings = || control.components.all_rings().map(|ring| as_count(ring.queued().packets)).sum::<u32>();
    let check = || umem.check_tails().and_then(|()| umem.check_chains());
    let (holdings, census, pooled, in_rings, long) =
        core.workers.pause(|holdings| (holdings, umem.census(), umem.pool_len(), in_rings(), check()));
    let mut audit = FrameAudit { frames: umem.frames(), huge_pages: umem.is_huge(), ..FrameAudit::default() };
    audit.free = pooled + as_count(taps.len());
    audit.in_transit = in_rings;
    drop(taps);
    for worker in holdings {
        audit.free += worker.cached;
        audit.in_transit += worker.in_transit;
        for QueueHoldings { port, queue, counted: (rx, tx), owners, own } in worker.queues {
            if let Some(own) = own {
                audit.own += own.all;
                if !own.is_balanced() {
                    let OwnFrames { all, free, .. } = own;
                    audit.problems.push(format!(
                        "queue {queue} of {} has {all} frames of its own, of which {free} are free, {rx} to be filled and \
                         {tx} to be sent",
                        port.name
                    ));
                }
                continue;
            }
            let ledger = (census.at(owners.0), census.at(owners.1));
            audit.rx += rx;
            audit.tx += tx;
            if (rx, tx) != ledger {
                audit.problems.push(format!(
                    "queue {queue} of {} counts {rx} frames to be filled and {tx} to be sent, the ledger {} and {}",
                    port.name, ledger.0, ledger.1
                ));
            }
        }
    }
    let mut compare = |what: &str, counted: u32, ledger: u32| {
        if counted != ledger {
            audit.problems.push(format!("{counted} frames are counted {what}, the ledger says {ledger}"));
        }
    };
    compare("free", audit.free, census.free());
    compare("with the kernel", audit.rx + audit.tx, census.placed());
    compare("on their way", audit.in_transit, census.held());
    // A packet of several chunks is counted once.
    audit.in_transit += census.chained();
    let sum = audit.free + audit.rx + audit.tx + audit.in_transit;
    if sum != audit.frames {
        audit.problems.push(format!("{sum} frames are somewhere, there are {}", audit.frames));
    }
    audit.problems.extend(long.err());
    audit.consistent = audit.problems.is_empty();
    audit
}
