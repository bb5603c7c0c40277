//! The counters of a program.

use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::error::Error;
use crate::skeleton::types::xsw_counters;

/// Packets of one queue by outcome, since the program was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounters {
    /// Redirected to the queue's AF_XDP socket.
    pub redirect: u64,
    /// Passed to the host's stack: not for the switch.
    pub pass: u64,
    /// Passed to the host's stack: group-addressed on a shared NIC.
    pub pass_group: u64,
    /// Dropped: the queue has no socket.
    pub drop_no_socket: u64,
    /// Dropped: shorter than an Ethernet header.
    pub drop_short: u64,
    /// Dropped: came in on a queue that the port does not have. Counted at queue 0.
    pub drop_queue: u64,
    /// Dropped: the guest's socket is not bound yet.
    pub drop_unbound: u64,
    /// Done as the flow table says: sent out of another port, or dropped.
    pub flow: u64,
    /// Dropped: its flow moves to the flow table, and the switch is busy with earlier packets of it.
    pub drop_moving: u64,
}

impl QueueCounters {
    /// Label and value of each counter, in the order of `enum xsw_outcome`.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("redirect", self.redirect),
            ("pass", self.pass),
            ("pass_group", self.pass_group),
            ("drop_no_socket", self.drop_no_socket),
            ("drop_short", self.drop_short),
            ("drop_queue", self.drop_queue),
            ("drop_unbound", self.drop_unbound),
            ("flow", self.flow),
            ("drop_moving", self.drop_moving),
        ]
        .into_iter()
    }

    /// Reads the counters of the first `queues` queues from the map of a program on `ifname`.
    pub(crate) fn read(counters: &MapHandle, queues: u32, ifname: &str) -> Result<Vec<Self>, Error> {
        let row = |queue: u32| {
            let rows = counters.lookup_percpu(&queue.to_ne_bytes(), MapFlags::ANY);
            let rows = rows.map_err(|error| Error::system(format!("reading counters of {ifname}"), &error))?;
            Ok(Self::sum(rows.iter().flatten().map(Vec::as_slice)))
        };
        (0..queues).map(row).collect()
    }

    /// Sums the rows of all CPUs. A row is numbers in the machine's byte order.
    fn sum<'a>(rows: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut sums = [0u64; size_of::<xsw_counters>() / size_of::<u64>()];
        for row in rows {
            for (sum, bytes) in sums.iter_mut().zip(row.chunks_exact(size_of::<u64>())) {
                *sum += bytes.try_into().map_or(0, u64::from_ne_bytes);
            }
        }
        let [redirect, pass, pass_group, drop_no_socket, drop_short, drop_queue, drop_unbound, flow, drop_moving, ..] =
            sums;
        Self { redirect, pass, pass_group, drop_no_socket, drop_short, drop_queue, drop_unbound, flow, drop_moving }
    }
}
