//! Taking ports down, one or many: from the inside out, and each step waits until the other side has let go.

use super::depth::{SEND_GRACE, count_untaken};
use super::{flows, steer};
use crate::control::attach::Remains;
use crate::control::ports::LivePort;
use crate::control::several::each;
use crate::control::state::Control;
use crate::control::sums::{add_port, retire};
use crate::model::*;

/// Removes ports; returns what those that there are have left outside.
pub(in crate::control) fn remove_ports(control: &mut Control, numbers: &[PortNo]) -> Vec<Remains> {
    let ports: Vec<_> = numbers.iter().filter_map(|&no| control.ports.remove(no)).collect();
    let ports = each(ports, |mut port| {
        port.attachment.detach();
        port
    });
    flows::forget(control, numbers);
    steer::look_up_host(control);
    // No worker sends to the ports any more, and none learns for them.
    control.publish();
    let core = &control.core;
    core.shared.quiesce();
    // What the kernel has done for them is counted before they are counted for the last time.
    core.settle_flows();
    for port in &ports {
        control.fdb.flush_port(port.shared.no);
    }
    // The rings' ends are ours again. What other workers had handed over for them finds nobody, and is dropped there.
    let taken_back = |port: LivePort| {
        let queues = core.workers.take_back(&port.shared);
        (port, queues)
    };
    let ports = ports.into_iter().map(taken_back).collect();
    let removed = each(ports, |(LivePort { shared, attachment, .. }, queues)| {
        let mut cache = core.frame_cache();
        let remains = attachment.into_remains();
        for queue in queues {
            count_untaken(&shared, queue.number, queue.backend.close(SEND_GRACE, &mut cache));
        }
        core.recycle(cache);
        let mut stats = PortStats::default();
        add_port(&mut stats, &shared);
        (stats, remains)
    });
    let mut remains = Vec::with_capacity(removed.len());
    for (stats, left) in removed {
        retire(&mut control.retired, stats);
        remains.push(left);
    }
    steer::steer(control);
    remains
}
