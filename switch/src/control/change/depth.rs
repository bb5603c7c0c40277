//! Another depth of the rings of a live port: its queues are closed and opened anew.

use std::time::Duration;

use crate::Error;
use crate::control::attach::RingOptions;
use crate::control::core::Core;
use crate::control::ports::LivePort;
use crate::io::umem::FrameCache;
use crate::model::*;
use crate::worker::view::PortShared;

/// How long frames that are staged at a port that goes may take to be sent.
pub(in crate::control) const SEND_GRACE: Duration = Duration::from_millis(100);

/// Counts what a closed queue had received and nobody has taken.
pub(in crate::control) fn count_untaken(port: &PortShared, queue: u32, untaken: Count) {
    // The queue's worker has let go of it, so this is the counters' only writer.
    let shared = &port.queues[queue as usize];
    shared.counters.rx.add(untaken.packets, untaken.bytes);
    port.shards[shared.worker()].dropped_all(DropReason::PortGone, untaken);
}

/// Opens the queues of a port anew with such rings. What comes in meanwhile is dropped and counted by the program. If
/// it can't be done, the port has its old rings again.
pub(super) fn set_rings(core: &Core, port: &mut LivePort, rings: RingOptions) -> Result<(), Error> {
    let before = port.rings;
    // First of all the program sends nothing to the old queues any more, and counts that.
    port.attachment.unplug()?;
    let queues = core.workers.take_back(&port.shared);
    port.attachment.forget_queues();
    let mut cache = core.frame_cache();
    for queue in queues {
        count_untaken(&port.shared, queue.number, queue.backend.close(SEND_GRACE, &mut cache));
    }
    // What the port had is there for it again.
    cache.spill_all();
    let result = open(core, port, rings, &mut cache).map_err(|error| match open(core, port, before, &mut cache) {
        Ok(()) => error,
        Err(again) => Error::new(
            again.kind(),
            format!("{error}; and with the old depth neither ({again}): delete the port and add it anew"),
        ),
    });
    core.recycle(cache);
    result
}

/// Opens all queues of a port that has none, and gives them to their workers.
fn open(core: &Core, port: &mut LivePort, rings: RingOptions, cache: &mut FrameCache) -> Result<(), Error> {
    let queues = port.attachment.reopen(&port.spec, rings, cache)?;
    port.spec.queue_depth = Some(rings.depth);
    port.rings = rings;
    for queue in queues {
        core.workers.add(queue.into_queue(&port.shared));
    }
    Ok(())
}
