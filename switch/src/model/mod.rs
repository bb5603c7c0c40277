//! What the switch is told and what it tells: the plain data that crosses between the data plane and whoever manages it.
//!
//! Every type here is serialisable, and its JSON form is the form of the HTTP API, of `--json` and of the state file: field
//! names are in snake case, absent optional fields are left out, MAC addresses are `aa:bb:cc:dd:ee:ff`, VLAN sets are
//! `"all"` or lists such as `"10,20-29"`. Nothing here holds a lock, a file descriptor or a reference to a running switch.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::engine::drop::DropReason;
pub use crate::engine::mac::MacAddr;
pub use crate::engine::trace::{TraceEnd, TraceFate, TraceReport, TraceStep};
pub use crate::engine::vlan::{VlanMode, VlanSet};

mod component;
mod flow;
mod masked;
mod tables;

pub use component::*;
pub use flow::*;
pub use masked::{Masked, MaskedIp, MaskedMac};
pub use tables::*;

/// Largest number of ports that one switch can have (vport numbers are `0..MAX_PORTS`).
pub const MAX_PORTS: usize = 1024;
/// Largest number of queues of one port.
pub const MAX_QUEUES: u32 = 64;
/// Smallest MTU of a port, in bytes: the least that IPv4 allows (RFC 791).
pub const MIN_MTU: u32 = 68;
/// MTU of a port that names none, in bytes.
pub const DEFAULT_MTU: u32 = 1500;
/// Ring size of a port that names none, in descriptors.
pub const DEFAULT_QUEUE_DEPTH: u32 = 2048;

/// What sits at the other end of a port. The names are the Soft Patch Panel's where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum PortKind {
    /// A veth pair: the switch's AF_XDP sockets on one end, a guest on the other.
    Guest,
    /// A network device of the host: one AF_XDP socket a queue.
    Phy,
}

/// XDP attach mode that is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ModeRequest {
    /// Native if the driver and the MTU allow it, else generic.
    #[default]
    Auto,
    /// In the driver, or an error that says why not.
    Native,
    /// After the kernel has built its socket buffer: works on any netdev, slower.
    Generic,
}

/// XDP attach mode in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The driver runs the program.
    Native,
    /// The network core runs the program on socket buffers.
    Generic,
}

/// Which packets of a netdev go to the switch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Steering {
    /// All of them.
    #[default]
    All,
    /// Only those for the MAC addresses and VLANs of the other ports; the rest stays with the host's stack. Group-addressed
    /// frames go to both.
    Shared,
}

/// Zero-copy binding that is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ZeroCopy {
    /// If the driver has it.
    #[default]
    Auto,
    /// Or an error.
    On,
    /// Never.
    Off,
}

/// A port as its user asks for it: absent fields take the defaults that each one names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PortSpec {
    /// Unique name: 1–128 characters of `A-Z a-z 0-9 . _ : -`, first one a letter or digit.
    pub name: String,
    /// Unique identity that the manager of the guests gives it: 1–128 characters; default: its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// What is at the other end.
    pub kind: PortKind,
    /// Port number, `0..1024`; default: the lowest free one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vport: Option<u16>,
    /// The switch's netdev. `phy`: required, must exist. `guest`: default `xs<vport>`; an existing veth end is adopted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ifname: Option<String>,
    /// `guest` only: the guest's end of the pair; default `xg<vport>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_ifname: Option<String>,
    /// `guest` only: named network namespace (`ip netns`) that the guest's end is moved to; default: it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// MAC address of the guest, unicast; default for `guest`: a stable, locally administered one derived from `uuid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "02:00:00:00:00:01"))]
    pub mac: Option<MacAddr>,
    /// Layer 3 MTU in bytes, without Ethernet header and VLAN tag; default 1500 (`phy`: what the netdev has).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Queues, 1–64; default 1 (`phy`: as many as the netdev has).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<u32>,
    /// Descriptors of each ring, a power of two, 64–32768; default 2048.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_depth: Option<u32>,
    /// XDP attach mode.
    #[serde(default)]
    pub mode: ModeRequest,
    /// `phy` only: which packets come to the switch.
    #[serde(default)]
    pub steering: Steering,
    /// Zero-copy binding.
    #[serde(default)]
    pub zero_copy: ZeroCopy,
    /// VLAN mode; default for `guest`: access to the untagged segment; for `phy`: trunk of all VLANs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<VlanMode>,
    /// An isolated port exchanges no frames with other isolated ports; default false.
    #[serde(default)]
    pub isolated: bool,
    /// Drop what does not come from `mac` (Ethernet source, ARP sender); default: true for `guest`, false for `phy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_check: Option<bool>,
    /// Most MAC addresses learned on this port, at least 1; default 4096.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fdb_limit: Option<u32>,
    /// `guest` only: the guest's end is open for a guest's own AF_XDP sockets (QEMU's), and no kernel stack gets its packets.
    /// Set by itself when sockets are first asked for; default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub guest_sockets: bool,
    /// The Soft Patch Panel's name of the port, unique: `phy:N` of a `phy` port, `vhost:N` of a `guest` port. It is then for
    /// components and no port of the bridge; fixed for the port's life. `vlan`, `isolated`, `mac_check` and `fdb_limit` mean
    /// nothing then; `steering` must be `all`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spp: Option<String>,
}

impl PortSpec {
    /// Its identity.
    pub fn uuid(&self) -> &str {
        self.uuid.as_deref().unwrap_or(&self.name)
    }

    /// A port of that name and kind with every default.
    pub fn new(name: impl Into<String>, kind: PortKind) -> Self {
        Self {
            name: name.into(),
            uuid: None,
            kind,
            vport: None,
            ifname: None,
            guest_ifname: None,
            netns: None,
            mac: None,
            mtu: None,
            queues: None,
            queue_depth: None,
            mode: ModeRequest::Auto,
            steering: Steering::All,
            zero_copy: ZeroCopy::Auto,
            vlan: None,
            isolated: false,
            mac_check: None,
            fdb_limit: None,
            guest_sockets: false,
            spp: None,
        }
    }
}

/// Changes to a live port; absent fields stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PortUpdate {
    /// As in [`PortSpec::mtu`]; set on both ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// As in [`PortSpec::mac`]; a guest that uses another one is told apart only by `mac_check`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "02:00:00:00:00:01"))]
    pub mac: Option<MacAddr>,
    /// As in [`PortSpec::vlan`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<VlanMode>,
    /// As in [`PortSpec::isolated`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated: Option<bool>,
    /// As in [`PortSpec::mac_check`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_check: Option<bool>,
    /// As in [`PortSpec::fdb_limit`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fdb_limit: Option<u32>,
    /// As in [`PortSpec::queue_depth`]. The queues are opened anew: what comes in during that moment is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_depth: Option<u32>,
    /// As in [`PortSpec::guest_sockets`]; refused while a guest has sockets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_sockets: Option<bool>,
    /// As in [`PortSpec::queues`]; a live port keeps the number that it has, and another one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<u32>,
}

/// A queue of a live port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct QueueInfo {
    /// Queue of the netdev, 0-based.
    pub queue: u32,
    /// Worker that polls it, 0-based.
    pub worker: usize,
    /// Whether the driver moves frames without a copy.
    pub zero_copy: bool,
}

/// A live port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PortInfo {
    /// As asked, with every default filled in (this is what the state file keeps).
    pub spec: PortSpec,
    /// Port number.
    pub vport: u16,
    /// Index of the switch's netdev.
    pub ifindex: u32,
    /// XDP mode in force.
    pub mode: Mode,
    /// Why a wish of `auto` ended in generic mode, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode_reason: Option<String>,
    /// Address of the switch's netdev; absent if that is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "02:00:00:00:00:01"))]
    pub mac: Option<MacAddr>,
    /// Whether the switch's netdev has carrier.
    pub link_up: bool,
    /// Largest MTU that this port could be set to now, in bytes, and with it the end of the range that errors name.
    pub max_mtu: u32,
    /// Its queues.
    pub queues: Vec<QueueInfo>,
    /// Queues that the other end has bound now: AF_XDP sockets on the guest's end of a pair, in whatever process; all of a
    /// `phy`'s while it has carrier. 0 if the kernel can't tell (before 6.15).
    #[serde(default)]
    pub active_queues: u32,
    /// MAC addresses learned on it now.
    pub fdb_entries: u32,
    /// `guest` only: the guest's end, once it was opened for a guest's own AF_XDP sockets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_end: Option<GuestEndInfo>,
}

/// The guest's end of a port, open for a guest's own AF_XDP sockets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct GuestEndInfo {
    /// XDP mode in force there.
    pub mode: Mode,
    /// Why a wish of `auto` ended in generic mode, if it did since the daemon started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode_reason: Option<String>,
    /// Path of the pinned XSKMAP, in which the slot of a queue has the queue's number.
    pub map_path: String,
    /// Packets for the guest, by queue.
    pub queues: Vec<GuestQueue>,
}

/// Packets for a guest, by what the program on its end did with them, since that was attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct GuestQueue {
    /// Queue of the guest's end, 0-based.
    pub queue: u32,
    /// To a socket that was bound; what that loses for lack of room is in the socket's own counters.
    pub redirect: u64,
    /// Dropped: nobody had a socket.
    pub drop_no_socket: u64,
    /// Dropped: somebody had a socket and had not bound it yet (counted as `redirect` by kernels before 6.2).
    pub drop_unbound: u64,
}

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
    /// Frames that were for this port and went elsewhere by a redirect.
    #[serde(default)]
    pub redirected: Count,
    /// VLAN tags pushed on frames that came from this port; each adds 4 bytes.
    pub vlan_pushes: u64,
    /// VLAN tags popped from frames that came from this port; each takes 4 bytes.
    pub vlan_pops: u64,
    /// Drops by reason, those that are zero left out. A drop on the way in counts at the port it came from, a drop on the way
    /// out (`egress_…`, `tx_ring_full`, …) at the port it was for.
    pub drops: BTreeMap<String, Count>,
    /// The same as the NIC at the other end would count it.
    #[serde(default)]
    pub nic: NicStats,
    /// Its queues.
    pub queues: Vec<QueueStats>,
}

/// Counters of a port as the NIC at its other end would have them: `rx` was delivered to the guest, `tx` was sent by it.
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

/// All counters of the switch and their sum check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct StatsReport {
    /// Live ports, by number.
    pub ports: Vec<PortStats>,
    /// What ports that are gone had counted (one sum; its `queues` is empty).
    pub retired: PortStats,
    /// What components counted beside the ports (one sum): `rx` came in at null and outside ends, `tx` went out there; their copies,
    /// tags and drops.
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
    /// Frames that went in and are not accounted for as out or dropped: in + copies − out − dropped − in rings. Zero when no
    /// frame is on its way.
    pub unaccounted_packets: i64,
    /// The same in bytes, VLAN tags pushed and popped taken into account.
    pub unaccounted_bytes: i64,
}

/// How a MAC address came into the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum FdbKind {
    /// Seen as a source address; ages.
    Learned,
    /// Configured; stays and never moves.
    Static,
}

/// A row of the MAC table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FdbEntry {
    /// MAC address.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "02:00:00:00:00:01"))]
    pub mac: MacAddr,
    /// VLAN, 0 for the untagged segment.
    pub vlan: u16,
    /// Name of the port.
    pub port: String,
    /// Learned or static.
    pub kind: FdbKind,
    /// Seconds since a frame from it was last seen; 0 for a static one.
    pub age_seconds: u32,
}

/// A static row as a user asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct FdbSpec {
    /// Unicast MAC address.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "02:00:00:00:00:01"))]
    pub mac: MacAddr,
    /// VLAN 0–4094, 0 (the default) for the untagged segment.
    #[serde(default)]
    pub vlan: u16,
    /// Name of the port.
    pub port: String,
}

/// Settings of the bridge component that may change while it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct BridgeSettings {
    /// Most MAC addresses in all, 16–1,000,000; default 131,072.
    pub fdb_limit: u32,
    /// Seconds after which an address that was not seen again is forgotten, 1–1,000,000; default 300 (IEEE 802.1Q).
    pub fdb_ageing_seconds: u32,
    /// Forward 01:80:c2:00:00:00–0f (STP, LACP, pause, LLDP), which a bridge keeps to itself (IEEE 802.1D table 7-10); default
    /// false: dropped with reason `reserved_multicast`.
    pub forward_reserved: bool,
}

impl Default for BridgeSettings {
    fn default() -> Self {
        Self { fdb_limit: 131_072, fdb_ageing_seconds: 300, forward_reserved: false }
    }
}

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
    /// Sleep or spin.
    pub poll: PollMode,
    /// Microseconds that a worker looks for work at least before it sleeps, with [`PollMode::Adaptive`]: 0–1,000,000, default 50.
    /// Frames that follow each other sooner find it awake.
    pub spin_us: u32,
    /// Microseconds that it looks for work at most, as long as that finds frames: 0–1,000,000, default 2,000. It costs up to as
    /// much CPU time for each frame. With no more than `spin_us`, that is how long it always looks.
    pub spin_max_us: u32,
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
            poll: PollMode::Adaptive,
            spin_us: 50,
            spin_max_us: 2000,
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
}

/// A worker thread as it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct WorkerInfo {
    /// Number, 0-based.
    pub worker: usize,
    /// CPU that it is pinned to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<usize>,
    /// Port queues that it polls.
    pub queues: usize,
    /// Bursts that held at least one frame.
    pub bursts: u64,
    /// Frames taken in.
    pub packets: u64,
    /// Turns of the loop that found nothing.
    pub idle_polls: u64,
    /// Times that it went to sleep.
    pub sleeps: u64,
    /// How it found the rules that apply to frames.
    #[serde(default)]
    pub lookups: LookupCounts,
}

/// How a worker found the rules that apply to frames; while there are no rules, nothing is looked up. Where much has to be, it is looked up for a
/// whole burst first, frames among it that are refused then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LookupCounts {
    /// The whole decision on the flow was remembered.
    pub remembered: u64,
    /// By the exact-match cache.
    pub cached: u64,
    /// By the tables of all masks.
    pub searched: u64,
}

/// Where the frames of UMEM are, as the ledger has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FramePlaces {
    /// Free: in the pool or in a worker's cache.
    pub free: u32,
    /// With the kernel to be filled: fill rings, received but not yet taken.
    pub rx: u32,
    /// With the kernel to be sent: tx and completion rings.
    pub tx: u32,
    /// In a worker's hands, on their way from one to another, or in a ring between components.
    pub in_transit: u32,
}

/// Where the frames of UMEM are. The sum of all places is `frames` at any moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FrameAudit {
    /// Frames in all.
    pub frames: u32,
    /// Free: in the pool or in a worker's cache.
    pub free: u32,
    /// With the kernel to be filled: fill rings, received but not yet taken.
    pub rx: u32,
    /// With the kernel to be sent: tx and completion rings.
    pub tx: u32,
    /// On their way from one worker to another, or in a ring between components.
    pub in_transit: u32,
    /// Whether the two ledgers (per place and per frame) agree and every frame is in exactly one place.
    pub consistent: bool,
    /// Disagreements, in words; empty when consistent.
    pub problems: Vec<String>,
    /// Whether UMEM is on reserved huge pages.
    pub huge_pages: bool,
}

/// Direction of a captured frame, as the switch sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Came in from the port.
    Rx,
    /// Went out to the port.
    Tx,
}

/// A frame on its way to a capture.
#[derive(Clone, Debug)]
pub struct CapturedFrame {
    /// Port number.
    pub vport: u16,
    /// Queue of the port.
    pub queue: u32,
    /// Direction.
    pub direction: Direction,
    /// Time of day, nanoseconds since 1970.
    pub timestamp_ns: u64,
    /// Length on the wire without FCS, in bytes; `data` may hold fewer.
    pub wire_len: u32,
    /// The first bytes, as many as the capture asked for.
    pub data: Vec<u8>,
}
