//! Counters of queues, ports and the switch as a whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ComponentInfo, DropReason, EndInfo, FlowCount};

/// Packets and their bytes, on the Ethernet frame without FCS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Count {
    /// Frames.
    pub packets: u64,
    /// Bytes of those frames.
    pub bytes: u64,
}

impl Count {
    /// Adds `other` to this count.
    pub fn add(&mut self, other: Count) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// What one queue counted, in the switch, in its XDP program and in the kernel's socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct QueueStats {
    /// Queue of the netdev.
    pub queue: u32,
    /// Frames that the switch took from the queue.
    pub rx: Count,
    /// Frames that the switch gave to the queue.
    pub tx: Count,
    /// What the XDP program did, by outcome (`redirect`, `pass`, `drop_…`), in packets.
    pub xdp: BTreeMap<String, u64>,
    /// The kernel's counters of the AF_XDP socket (`XDP_STATISTICS`), by their field names.
    pub xsk: BTreeMap<String, u64>,
}

/// What a port counted since it was added. Directions are the switch's: `rx` came in from the port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PortStats {
    /// Port number.
    pub vport: u16,
    /// Port name.
    pub name: String,
    /// Frames taken from the port.
    pub rx: Count,
    /// Frames given to the port.
    pub tx: Count,
    /// Further copies made because a frame of this port was flooded: with k receivers, k − 1.
    pub flood_copies: Count,
    /// Copies made by rules' mirrors of frames of this port.
    #[serde(default)]
    pub mirror_copies: Count,
    /// Frames for this port that a redirect sent elsewhere.
    #[serde(default)]
    pub redirected: Count,
    /// VLAN tags pushed on frames that came from this port; each adds 4 bytes.
    pub vlan_pushes: u64,
    /// VLAN tags popped from frames that came from this port; each takes 4 bytes.
    pub vlan_pops: u64,
    /// Drops by reason, those that are zero left out. A drop on the way in counts at the port it came from, a drop on
    /// the way out (`egress_…`, `tx_ring_full`, …) at the port it was for.
    pub drops: BTreeMap<String, Count>,
    /// The same as the NIC at the other end would count it.
    #[serde(default)]
    pub nic: NicStats,
    /// Its queues.
    pub queues: Vec<QueueStats>,
}

impl PortStats {
    /// Works out [`PortStats::nic`] from the other counters.
    pub fn nic(&self) -> NicStats {
        let mut nic = NicStats {
            rx_packets: self.tx.packets,
            tx_packets: self.rx.packets,
            rx_bytes: self.tx.bytes,
            tx_bytes: self.rx.bytes,
            ..NicStats::default()
        };
        for reason in DropReason::ALL {
            let packets = self.drops.get(reason.label()).map_or(0, |count| count.packets);
            match reason {
                reason if reason.is_error() => nic.tx_error += packets,
                reason if reason.is_egress() => nic.rx_drop += packets,
                _ => nic.tx_drop += packets,
            }
        }
        for queue in &self.queues {
            let of = |counters: &BTreeMap<String, u64>, names: &[&str]| -> u64 {
                names.iter().filter_map(|name| counters.get(*name)).sum()
            };
            nic.tx_drop += of(&queue.xdp, &["drop_no_socket", "drop_queue"]);
            nic.tx_drop += of(&queue.xsk, &["rx_dropped", "rx_ring_full"]);
            nic.tx_error += of(&queue.xdp, &["drop_short"]);
            nic.rx_error += of(&queue.xsk, &["tx_invalid_descs"]);
        }
        nic
    }
}

/// Counters of a port as the NIC at its other end would have them: `rx` was delivered to the guest, `tx` was sent by
/// it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct NicStats {
    /// Frames delivered.
    pub rx_packets: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes delivered.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames that were for it and were dropped: its MTU, its meter, its ring, …
    pub rx_drop: u64,
    /// Frames that it sent and that were dropped: by the switch's rules and checks, or because a ring was full.
    pub tx_drop: u64,
    /// Frames for it that the kernel refused to send.
    pub rx_error: u64,
    /// Frames that it sent and that were broken.
    pub tx_error: u64,
}

/// All counters of the switch and their sum check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct StatsReport {
    /// Live ports, by number.
    pub ports: Vec<PortStats>,
    /// Sum of what ports that are gone had counted. Its `queues` is empty.
    pub retired: PortStats,
    /// Sum of what components counted beside the ports: `rx` came in at null and outside ends, `tx` went out there.
    /// Also their copies, tag edits and drops.
    #[serde(default)]
    pub components: PortStats,
    /// Components that run, one by one.
    #[serde(default)]
    pub running: Vec<ComponentInfo>,
    /// Rings, null and outside ends.
    #[serde(default)]
    pub ends: Vec<EndInfo>,
    /// Flow rules.
    #[serde(default)]
    pub flow_rules: Vec<FlowCount>,
    /// Frames that went in and did not go out, were not dropped and are not in rings: in + copies − out − dropped −
    /// in rings. Zero when no frame is on its way.
    pub unaccounted_packets: i64,
    /// The same in bytes, with pushed and popped VLAN tags taken into account.
    pub unaccounted_bytes: i64,
}
