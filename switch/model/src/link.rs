//! Optical ports: the links of `phy` ports and what passed there.

use serde::{Deserialize, Serialize};

use super::{MacAddr, PortStats};

/// Whether both ends of a link may send at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Duplex {
    /// One at a time.
    Half,
    /// Both.
    Full,
}

impl Duplex {
    /// Its word in JSON and in tables.
    pub const fn word(self) -> &'static str {
        match self {
            Duplex::Half => "half",
            Duplex::Full => "full",
        }
    }
}

/// What a driver says of a link (`ETHTOOL_MSG_LINKMODES_GET`, `Documentation/networking/ethtool-netlink.rst`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LinkMode {
    /// Megabits a second. Absent if the driver does not know: the link is down, or the NIC is a virtual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<u32>,
    /// Absent if the driver does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplex: Option<Duplex>,
    /// Whether speed and duplex are negotiated. Absent if the driver does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoneg: Option<bool>,
}

/// What the kernel has counted at a netdev since that exists (`struct rtnl_link_stats64`). Directions are the netdev's.
/// Frames of the host's own stack are among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct NetdevCounters {
    /// Frames received.
    pub rx_packets: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Broken frames received.
    pub rx_errors: u64,
    /// Frames that could not be sent.
    pub tx_errors: u64,
    /// Frames received and dropped by the driver or the kernel.
    pub rx_dropped: u64,
    /// Frames to be sent and dropped by the driver.
    pub tx_dropped: u64,
    /// Frames that the NIC had no buffer for.
    pub rx_missed: u64,
}

/// The link of a `phy` port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LinkInfo {
    /// Number of the optical port: its place among the configured `phy` ports, by their port numbers, from 0.
    pub port_id: u32,
    /// Number of the switch's port.
    pub vport: u16,
    /// Its name.
    pub name: String,
    /// Its netdev.
    pub ifname: String,
    /// Whether the link is up: carrier, and set up.
    pub up: bool,
    /// Speed, duplex and negotiation.
    #[serde(flatten)]
    pub mode: LinkMode,
    /// MTU of the netdev in bytes.
    pub mtu: u32,
    /// Largest MTU that can be set; 0 if the port is not in operation.
    pub max_mtu: u32,
    /// Address of the netdev. Absent if the netdev is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "02:00:00:00:00:01"))]
    pub mac: Option<MacAddr>,
    /// Why the port is not in operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Counters of a `phy` port, as a NIC's driver would have them. `i` came in by the link, `o` left by it. Only frames
/// that the switch took or gave count: with shared steering the host's own are in `netdev` alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LinkStats {
    /// Number of the optical port.
    pub port_id: u32,
    /// Number of the switch's port.
    pub vport: u16,
    /// Its name.
    pub name: String,
    /// Frames received: the sum of the queues.
    pub ipackets: u64,
    /// Frames sent: the sum of the queues.
    pub opackets: u64,
    /// Bytes received: the sum of the queues.
    pub ibytes: u64,
    /// Bytes sent: the sum of the queues.
    pub obytes: u64,
    /// Frames lost because a receive ring was full, nobody took what came by a queue, or the NIC had no buffer.
    pub imissed: u64,
    /// Broken frames received.
    pub ierrors: u64,
    /// Frames that the kernel or the NIC could not send.
    pub oerrors: u64,
    /// Frames lost because the socket had no free frame for them.
    pub rx_nombuf: u64,
    /// The queues, by number.
    pub queues: Vec<LinkQueueStats>,
    /// The kernel's counters of the netdev.
    pub netdev: NetdevCounters,
}

/// Counters of a queue of a `phy` port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LinkQueueStats {
    /// Number of the queue.
    pub queue: u32,
    /// Frames received.
    pub ipackets: u64,
    /// Frames sent.
    pub opackets: u64,
    /// Bytes received.
    pub ibytes: u64,
    /// Bytes sent.
    pub obytes: u64,
    /// Frames received and lost, for whatever reason.
    pub errors: u64,
}

impl LinkStats {
    /// Works them out from what the switch and the kernel have counted.
    pub fn of(port_id: u32, port: &PortStats, netdev: NetdevCounters) -> Self {
        let mut stats = Self {
            port_id,
            vport: port.vport,
            name: port.name.clone(),
            imissed: netdev.rx_missed,
            ierrors: netdev.rx_errors,
            oerrors: netdev.tx_errors + netdev.tx_dropped,
            netdev,
            ..Self::default()
        };
        for queue in &port.queues {
            let program = |name: &str| queue.xdp.get(name).copied().unwrap_or_default();
            let socket = |name: &str| queue.xsk.get(name).copied().unwrap_or_default();
            let missed = program("drop_no_socket") + program("drop_queue") + socket("rx_ring_full");
            let (no_frame, broken) = (socket("rx_dropped"), program("drop_short"));
            stats.ipackets += queue.rx.packets;
            stats.opackets += queue.tx.packets;
            stats.ibytes += queue.rx.bytes;
            stats.obytes += queue.tx.bytes;
            stats.imissed += missed;
            stats.ierrors += broken;
            stats.oerrors += socket("tx_invalid_descs");
            stats.rx_nombuf += no_frame;
            stats.queues.push(LinkQueueStats {
                queue: queue.queue,
                ipackets: queue.rx.packets,
                opackets: queue.tx.packets,
                ibytes: queue.rx.bytes,
                obytes: queue.tx.bytes,
                errors: missed + no_frame + broken,
            });
        }
        stats
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Count, QueueStats};
    use super::*;

    fn queue(queue: u32, rx: u64, tx: u64, lost: u64) -> QueueStats {
        let named = |pairs: &[(&str, u64)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        QueueStats {
            queue,
            rx: Count { packets: rx, bytes: rx * 100 },
            tx: Count { packets: tx, bytes: tx * 60 },
            xdp: named(&[("redirect", rx), ("drop_no_socket", lost), ("drop_queue", 10 * lost), ("drop_short", 2)]),
            xsk: named(&[("rx_dropped", 5), ("rx_ring_full", 100 * lost), ("tx_invalid_descs", 3)]),
        }
    }

    #[test]
    fn totals_are_the_sums_of_the_queues_and_losses_have_one_place() {
        let port = PortStats { vport: 4, name: "up".to_owned(), ..PortStats::default() };
        let port = PortStats { queues: vec![queue(0, 7, 1, 1), queue(1, 11, 2, 4)], ..port };
        let netdev = NetdevCounters { rx_missed: 9, rx_errors: 20, tx_errors: 30, tx_dropped: 1, ..Default::default() };
        let stats = LinkStats::of(2, &port, netdev);
        assert_eq!((stats.port_id, stats.vport, stats.name.as_str()), (2, 4, "up"));
        assert_eq!((stats.ipackets, stats.ibytes, stats.opackets, stats.obytes), (18, 1800, 3, 180));
        assert_eq!((stats.imissed, stats.rx_nombuf), (9 + 111 * 5, 10));
        assert_eq!((stats.ierrors, stats.oerrors), (20 + 4, 31 + 6));
        let errors: Vec<u64> = stats.queues.iter().map(|queue| queue.errors).collect();
        assert_eq!(errors, [111 + 5 + 2, 444 + 5 + 2]);
        assert_eq!(stats.queues[1].queue, 1);
    }

    #[test]
    fn a_link_is_flat_json_and_what_is_unknown_is_left_out() {
        let mode = LinkMode { speed: Some(10_000), duplex: Some(Duplex::Full), autoneg: None };
        assert_eq!(serde_json::to_value(mode).unwrap(), serde_json::json!({ "speed": 10_000, "duplex": "full" }));
        assert_eq!(serde_json::to_value(LinkMode::default()).unwrap(), serde_json::json!({}));
    }
}
