//! Plain data that crosses between the data plane and its managers: specs, infos, counters, reports.
//!
//! Almost every type is serialisable. Its JSON form is the form of the HTTP API, of `--json` and of the state file:
//! - Field names are in snake case. Absent optional fields are left out.
//! - MAC addresses are `aa:bb:cc:dd:ee:ff`. VLAN sets are `"all"` or lists such as `"10,20-29"`.
//! - The DPU interface calls port numbers `vid` and queues `qid`. Those names live in serde attributes only.
//!
//! Nothing here holds a lock, a file descriptor or a reference to a running switch. The crate depends on no other of
//! the project's crates, so clients and command-line tools can use it without the data plane.
//!
//! With feature `schema` the types have OpenAPI schemas. Their doc comments are then the descriptions in the OpenAPI
//! document.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::expect_used))]

mod bond;
mod bridge;
mod capture;
mod component;
mod dataplane;
mod drop;
mod error;
mod flow_offload;
mod flow_rule;
mod frames;
mod guest_end;
mod link;
mod mac;
mod masked;
mod meter;
mod netdev;
mod outside;
mod port;
mod redirect;
mod rule;
mod stats;
mod tap;
mod trace;
mod vhost;
mod vlan;
mod worker;

pub use bond::{
    BondInfo, BondLacpInfo, BondMemberInfo, BondPartyInfo, BondPortInfo, BondSpec, BondUpdate, DEFAULT_BOND_QUEUES,
    MAX_BOND_MEMBERS, bond_option_values,
};
pub use bridge::{BridgeSettings, DEFAULT_STORM_CONTROL, FdbEntry, FdbKind, FdbSpec, HeldAddress};
pub use capture::{CaptureFiles, CapturedFrame, Compression, Direction};
pub use component::{
    ComponentInfo, ComponentKind, ComponentSpec, DEFAULT_RING_DEPTH, End, EndInfo, EndPort, MAX_END_NO, TableEntry,
    VlanEdit,
};
pub use dataplane::{
    Capacity, DEFAULT_MASKS, DEFAULT_PORTS, DEFAULT_TABLE_SIZE, DataplaneSettings, HugePages, KERNEL_BYTES_A_FRAME,
    MAX_FRAMES, MAX_TABLE_SIZE, MIN_FILL, OWN_UMEM_FRAMES, PollMode, Usage,
};
pub use drop::DropReason;
pub use error::ErrorKind;
pub use flow_offload::{
    FLOW_SLOTS, FlowOffload, FlowOffloadInfo, FlowTableReport, MAX_FLOW_SLOTS, OffloadState, OffloadedFlow,
};
pub use flow_rule::{
    FlowCount, FlowDirection, FlowEdit, FlowKey, FlowRule, FlowTarget, MAX_FLOW_PUSHES, MAX_FLOW_RULES,
};
pub use frames::{FrameAudit, FramePlaces};
pub use guest_end::{GuestEndInfo, GuestQueue};
pub use link::{Duplex, LinkInfo, LinkMode, LinkQueueStats, LinkStats, NetdevCounters};
pub use mac::MacAddr;
pub use masked::{Masked, MaskedIp, MaskedMac};
pub use meter::{MeterBinding, MeterDirection, MeterInfo, MeterMode, MeterSpec, MeterType, MeterUpdate};
pub use netdev::{NetdevBefore, NetdevsBefore};
pub use outside::{OutsideInfo, OutsideSpec};
pub use port::{
    DEFAULT_FDB_LIMIT, DEFAULT_MTU, DEFAULT_QUEUE_DEPTH, MAX_PORTS, MAX_QUEUES, MIN_MTU, Mode, ModeRequest, PortInfo,
    PortKind, PortNo, PortSpec, PortUpdate, QueueInfo, Steering, ZeroCopy, vhost_names,
};
pub use redirect::{RedirectInfo, RedirectSpec};
pub use rule::{IpType, RuleAction, RuleChange, RuleInfo, RuleKey, RuleSpec, RuleTarget};
pub use stats::{Count, NicStats, PortStats, QueueStats, StatsReport};
pub use tap::{MAX_TAP_QUEUES, TapInfo, TapSpec};
pub use trace::{TraceEnd, TraceFate, TraceReport, TraceStep};
pub use vhost::{
    MAX_SOCKET_PATH, MAX_VHOST_PAIRS, SocketRole, VIRTIO_EVENT_IDX, VIRTIO_NET_MRG_RXBUF, VhostInfo, VhostSpec,
    virtio_net_features,
};
pub use vlan::{MAX_VID, VID_COUNT, Vid, VlanMode, VlanSet};
pub use worker::{LookupCounts, WorkerInfo};
