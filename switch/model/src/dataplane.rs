//! Settings that are fixed from the start of a data plane to its end: threads, packet memory, sizes of tables.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{FLOW_SLOTS, FlowOffload, MAX_PORTS};

/// When a worker that finds no work goes to sleep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum PollMode {
    /// After a while without a packet; see [`DataplaneSettings::spin_us`].
    #[default]
    Adaptive,
    /// Never: lowest latency, a whole core each.
    Busy,
}

/// Whether UMEM sits on huge pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum HugePages {
    /// If enough are free; otherwise transparent huge pages, as far as the kernel has some at hand.
    #[default]
    Auto,
    /// Reserved ones, or an error.
    On,
    /// None are asked for.
    Off,
}

/// Settings of the data plane that are fixed from its start to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct DataplaneSettings {
    /// Worker threads, 1–64; default 1.
    pub workers: usize,
    /// CPUs that the workers are pinned to, in worker order; empty (default): not pinned; else one for each worker.
    pub cpus: Vec<usize>,
    /// Frames of UMEM, a power of two, 1,024–1,048,576; default 65,536 (256 MiB at 4,096 bytes a frame).
    pub frames: u32,
    /// Bytes of a frame, 2048 or 4096 (default). 256 of them are headroom for XDP.
    pub frame_size: u32,
    /// Huge pages for UMEM.
    pub huge_pages: HugePages,
    /// Queues of guests that share UMEM, so that their frames are not copied; default 32. Each further one has a UMEM
    /// of its own, if that takes less memory ([`DataplaneSettings::has_own_umems`]). Queues of NICs always share.
    pub shared_queues: u32,
    /// Sleep or spin.
    pub poll: PollMode,
    /// Microseconds that a worker looks for work at least before it sleeps, with [`PollMode::Adaptive`]: 0–1,000,000,
    /// default 50. Frames that follow each other sooner find it awake.
    pub spin_us: u32,
    /// Microseconds that it looks for work at most, as long as that finds frames: 0–1,000,000, default 2,000. It
    /// costs up to as much CPU time for each frame. With no more than `spin_us`, that is how long it always looks.
    pub spin_max_us: u32,
    /// Whether flows that were decided go on in the kernel; default `off`.
    pub flow_offload: FlowOffload,
    /// Flows that the kernel's table has room for, 64–1,048,576; default 16,384. The next power of two is taken.
    pub flow_slots: u32,
    /// How many ports, meters and rules there can be.
    pub capacity: Capacity,
}

impl Default for DataplaneSettings {
    fn default() -> Self {
        Self {
            workers: 1,
            cpus: Vec::new(),
            frames: 65_536,
            frame_size: 4096,
            huge_pages: HugePages::Auto,
            shared_queues: 32,
            poll: PollMode::Adaptive,
            spin_us: 50,
            spin_max_us: 2000,
            flow_offload: FlowOffload::default(),
            flow_slots: FLOW_SLOTS,
            capacity: Capacity::default(),
        }
    }
}

impl DataplaneSettings {
    /// How long a worker looks for work before it sleeps, at least and at most; `None`: it never sleeps.
    pub fn spin(&self) -> Option<RangeInclusive<Duration>> {
        let us = |us: u32| Duration::from_micros(us.into());
        match self.poll {
            PollMode::Busy => None,
            PollMode::Adaptive => Some(us(self.spin_us)..=us(self.spin_us.max(self.spin_max_us))),
        }
    }

    /// Frames that no port is given to receive with: a quarter, for frames on their way and for copies.
    pub fn reserved_frames(&self) -> u32 {
        self.frames / 4
    }

    /// Bytes of UMEM.
    pub fn umem_bytes(&self) -> u64 {
        u64::from(self.frames) * u64::from(self.frame_size)
    }

    /// Bytes that the kernel takes for a queue that shares UMEM.
    pub fn kernel_bytes(&self) -> u64 {
        u64::from(self.frames) * KERNEL_BYTES_A_FRAME
    }

    /// Bytes of a queue's own UMEM, and those that the kernel takes for it.
    pub fn own_umem_bytes(&self) -> (u64, u64) {
        let frames = u64::from(OWN_UMEM_FRAMES);
        (frames * u64::from(self.frame_size), frames * KERNEL_BYTES_A_FRAME)
    }

    /// Whether guests' queues beyond `shared_queues` have a UMEM of their own: it takes less memory than sharing does.
    pub fn has_own_umems(&self) -> bool {
        let (umem, kernel) = self.own_umem_bytes();
        umem + kernel < self.kernel_bytes()
    }

    /// Of `capacity.ports` guests with one queue those that share UMEM.
    pub fn sharing_ports(&self) -> u32 {
        let ports = self.capacity.ports;
        if self.has_own_umems() { ports.min(self.shared_queues) } else { ports }
    }

    /// Frames that each of `capacity.ports` ports of one queue has to receive with at least. Half of what ports have is
    /// shared out evenly.
    pub fn least_fill(&self) -> u32 {
        let even = (self.frames - self.reserved_frames()) / self.capacity.ports.max(1);
        (even / 2).max(MIN_FILL)
    }

    /// Queues that the frames are enough for, at the least that each needs.
    pub fn most_queues(&self) -> u32 {
        (self.frames - self.reserved_frames()) / MIN_FILL
    }
}

/// Most frames of UMEM that can be configured.
pub const MAX_FRAMES: u32 = 1 << 20;
/// Least frames that a queue is supplied with to receive.
pub const MIN_FILL: u32 = 64;
/// Frames of a queue's own UMEM: half of them to receive with, half to send with. With frames of 4,096 bytes that is a
/// huge page. Rings of fewer descriptors than half of them have fewer frames.
pub const OWN_UMEM_FRAMES: u32 = 512;
/// Bytes that the kernel takes for each frame of the UMEM that a queue is bound with, for each queue anew
/// (`struct xdp_buff_xsk`, `xp_create_and_assign_umem` in `net/xdp/xsk_buff_pool.c`).
pub const KERNEL_BYTES_A_FRAME: u64 = 128;
/// Meters and rules that a switch can have when nothing else is configured.
pub const DEFAULT_TABLE_SIZE: u32 = 65_536;
/// Most meters, and most rules, that can be configured.
pub const MAX_TABLE_SIZE: u32 = 1 << 20;
/// Distinct masks of rules when nothing else is configured.
pub const DEFAULT_MASKS: u32 = 1024;
/// Ports that a switch can have when nothing else is configured.
pub const DEFAULT_PORTS: u32 = 256;

/// How many of each there can be; fixed from start to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Capacity {
    /// Ports, 1–1024; default 256. Port numbers are `0..ports`.
    pub ports: u32,
    /// Meters, 1–1,048,576; default 65,536.
    pub meters: u32,
    /// Traffic rules, 1–1,048,576; default 65,536. `key_index` is `0..rules`.
    pub rules: u32,
    /// Distinct masks of the rules, 1–65,536; default 1,024. A frame of a flow that is not cached may cost a probe
    /// for each, so this bounds what a guest can cost.
    pub rule_masks: u32,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { ports: DEFAULT_PORTS, meters: DEFAULT_TABLE_SIZE, rules: DEFAULT_TABLE_SIZE, rule_masks: DEFAULT_MASKS }
    }
}

impl Capacity {
    /// Number of places in a table by port number.
    pub fn port_slots(self) -> usize {
        (self.ports as usize).min(MAX_PORTS)
    }
}

/// Size and room of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Usage {
    /// Entries that there can be.
    pub total: u32,
    /// Entries that can still be added.
    pub free: u32,
}
