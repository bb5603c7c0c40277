//! What there is to be seen of disks.

use ctl_types::{DiskCount, DiskEntry, DiskInfo, DiskQueueStats, DiskState, DiskStats, DiskTransport};
use disk::disk::Monitor;
use disk::stats::{DirectionCounters, QueueCounters, class_end};

use crate::served::Shown;

pub(crate) fn entry(shown: &Shown) -> DiskEntry {
    let info = shown.monitor.as_ref().map(info);
    let full = info.as_ref().is_some_and(|info| info.full);
    let (state, error) = match (shown.state, &shown.why) {
        // What keeps it from being made is the answer to who makes it. It goes then.
        _ if shown.fresh => (DiskState::Starting, None),
        (DiskState::Up, _) if full => {
            let text = "there was no space for a write: the guest got an error";
            (DiskState::Degraded, Some(text.to_owned()))
        }
        (state, why) => (state, why.clone()),
    };
    let pvf_id = shown.spec.pvf_id.unwrap_or_default();
    DiskEntry { name: shown.spec.name.clone(), pvf_id, state, error, spec: shown.spec.clone(), info }
}

fn info(monitor: &Monitor) -> DiskInfo {
    let info = monitor.info();
    let transport = match (info.paused, info.session.connected, info.session.active_queues) {
        (true, ..) => DiskTransport::Paused,
        (false, false, _) => DiskTransport::Disconnected,
        (false, true, 0) => DiskTransport::Negotiated,
        (false, true, _) => DiskTransport::Running,
    };
    DiskInfo {
        bytes: info.bytes,
        transport,
        connected: info.session.connected,
        active_queues: u32::try_from(info.session.active_queues).unwrap_or(u32::MAX),
        features: info.session.features,
        protocol_features: info.session.protocol_features,
        sessions: info.session.sessions,
        last_error: info.session.last_error,
        paused: info.paused,
        full: info.full,
        direct: info.direct,
        write_through: info.write_through,
    }
}

pub(crate) fn stats(shown: &Shown) -> DiskStats {
    let queues = shown.monitor.as_ref().map(|monitor| (0..).zip(monitor.counters()).map(queue).collect());
    let (name, pvf_id) = (shown.spec.name.clone(), shown.spec.pvf_id.unwrap_or_default());
    DiskStats { name, pvf_id, queues: queues.unwrap_or_default() }
}

fn queue((queue, counters): (u32, &QueueCounters)) -> DiskQueueStats {
    DiskQueueStats {
        queue,
        read: count(&counters.read),
        write: count(&counters.write),
        flush: count(&counters.flush),
        discard: count(&counters.discard),
        zero: count(&counters.zero),
        errors: counters.errors.get(),
        no_space: counters.no_space.get(),
        refused: counters.refused.get(),
        limited: counters.limited.get(),
        copied: counters.copied.get(),
        replayed: counters.replayed.get(),
        in_flight: counters.in_flight.get(),
    }
}

fn count(counters: &DirectionCounters) -> DiskCount {
    let classes = counters.latencies.read();
    let seen = classes.iter().enumerate().filter(|(_, count)| **count > 0);
    DiskCount {
        operations: counters.operations.get(),
        bytes: counters.bytes.get(),
        nanoseconds: counters.latencies.total.get(),
        latencies: seen.map(|(class, count)| (class_end(class), *count)).collect(),
    }
}
