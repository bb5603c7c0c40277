//! Ports: what a user asks for, what may be changed, and what a live port is.

use serde::{Deserialize, Serialize};

use super::{
    BondInfo, BondSpec, BondUpdate, DEFAULT_BOND_QUEUES, GuestEndInfo, MacAddr, TapInfo, TapSpec, VhostInfo, VhostSpec,
    VlanMode, VlanSet,
};

/// Largest number of ports that one switch can have (vport numbers are `0..MAX_PORTS`).
pub const MAX_PORTS: usize = 1024;
/// Number of a port (vport), below [`MAX_PORTS`].
pub type PortNo = u16;
/// Largest number of queues of one port.
pub const MAX_QUEUES: u32 = 1024;
/// Smallest MTU of a port, in bytes: the least that IPv4 allows (RFC 791).
pub const MIN_MTU: u32 = 68;
/// MTU of a port that names none, in bytes.
pub const DEFAULT_MTU: u32 = 1500;
/// Ring size of a port that names none, in descriptors.
pub const DEFAULT_QUEUE_DEPTH: u32 = 2048;
/// Most MAC addresses learned on a port that names no limit.
pub const DEFAULT_FDB_LIMIT: u32 = 4096;

/// What sits at the other end of a port. The names are the Soft Patch Panel's where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum PortKind {
    /// A veth pair: the switch's AF_XDP sockets on one end, a guest on the other.
    Guest,
    /// A network device of the host: one AF_XDP socket a queue.
    Phy,
    /// A guest whose front end shares its memory and rings (vhost-user).
    Vhost,
    /// Several network devices of the host that are used as one.
    Bond,
    /// A guest whose VMM opens a tap. A veth pair with the switch's AF_XDP sockets is behind it.
    Tap,
}

/// What depends on the kind of a port. Code that needs such a fact asks for it here, so that a new kind is answered
/// in one place.
impl PortKind {
    /// Every kind.
    pub const ALL: [PortKind; 5] = [PortKind::Guest, PortKind::Phy, PortKind::Vhost, PortKind::Tap, PortKind::Bond];

    /// Its name, as JSON, metrics and the command line have it.
    pub const fn name(self) -> &'static str {
        match self {
            PortKind::Guest => "guest",
            PortKind::Phy => "phy",
            PortKind::Vhost => "vhost",
            PortKind::Tap => "tap",
            PortKind::Bond => "bond",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The Soft Patch Panel's word for it, which comes before `:N` in the name of such a port.
    pub const fn spp_word(self) -> &'static str {
        match self {
            PortKind::Guest | PortKind::Vhost | PortKind::Tap => "vhost",
            PortKind::Phy | PortKind::Bond => "phy",
        }
    }

    /// Whether the switch makes a second netdev that is a guest's own. Such a port has a guest's MAC address, and may
    /// be opened for a guest's own sockets.
    pub const fn has_guest_end(self) -> bool {
        matches!(self, PortKind::Guest)
    }

    /// Whether the switch makes a netdev for a guest, which has a name and may be in a namespace.
    pub const fn has_guest_netdev(self) -> bool {
        matches!(self, PortKind::Guest | PortKind::Tap)
    }

    /// Whether its packets come from one netdev, which has a name.
    pub const fn has_netdev(self) -> bool {
        matches!(self, PortKind::Guest | PortKind::Phy | PortKind::Tap)
    }

    /// Whether its packets come from netdevs. Other kinds have no XDP mode, no steering and no rings of the switch's.
    pub const fn has_netdevs(self) -> bool {
        self.has_netdev() || matches!(self, PortKind::Bond)
    }

    /// Whether its netdev may be shared with the host's network stack ([`Steering::Shared`]).
    pub const fn may_share_netdev(self) -> bool {
        matches!(self, PortKind::Phy | PortKind::Bond)
    }

    /// Whether its netdev must take frames for all addresses, because the stations behind other ports have many.
    pub const fn is_promiscuous(self) -> bool {
        matches!(self, PortKind::Phy | PortKind::Bond)
    }

    /// Whether whatever is at the other end has bound all queues as soon as there is carrier. Of other kinds the
    /// kernel is asked which queues are bound.
    pub const fn carrier_binds_queues(self) -> bool {
        matches!(self, PortKind::Phy | PortKind::Bond)
    }

    /// Whether its queues may have a UMEM of their own, so that frames are copied. Those of a NIC may not: frames of
    /// all guests go there, and its driver may move them without a copy. Vhost's take no memory of the kernel.
    pub const fn may_have_own_umem(self) -> bool {
        matches!(self, PortKind::Guest | PortKind::Tap)
    }

    /// Netdev of a port that names none. `None`: its user must name one.
    pub fn default_ifname(self, vport: PortNo) -> Option<String> {
        match self {
            PortKind::Guest | PortKind::Tap => Some(format!("xs{vport}")),
            PortKind::Phy | PortKind::Vhost | PortKind::Bond => None,
        }
    }

    /// Queues of a port that names no number. `None`: as many as its netdev has.
    pub const fn default_queues(self) -> Option<u32> {
        match self {
            PortKind::Guest | PortKind::Vhost | PortKind::Tap => Some(1),
            PortKind::Bond => Some(DEFAULT_BOND_QUEUES),
            PortKind::Phy => None,
        }
    }

    /// Descriptors of each ring of a port that names no number. `None`: the guest says it.
    pub const fn default_queue_depth(self) -> Option<u32> {
        match self {
            PortKind::Guest | PortKind::Phy | PortKind::Tap | PortKind::Bond => Some(DEFAULT_QUEUE_DEPTH),
            PortKind::Vhost => None,
        }
    }

    /// MTU of a port that names none. `None`: what its netdev has.
    pub const fn default_mtu(self) -> Option<u32> {
        match self {
            PortKind::Guest | PortKind::Vhost | PortKind::Tap => Some(DEFAULT_MTU),
            PortKind::Phy | PortKind::Bond => None,
        }
    }

    /// Whether the source addresses of a port that does not say are checked. A guest may not send as another one. The
    /// address of a `vhost` or `tap` guest is known only if its user names it.
    pub const fn default_mac_check(self, has_mac: bool) -> bool {
        match self {
            PortKind::Guest => true,
            PortKind::Phy | PortKind::Bond => false,
            PortKind::Vhost | PortKind::Tap => has_mac,
        }
    }

    /// VLANs of a port that names none. A guest can't choose its VLAN; a NIC carries all of them.
    pub fn default_vlan(self) -> VlanMode {
        match self {
            PortKind::Guest | PortKind::Vhost | PortKind::Tap => VlanMode::Access { vid: 0 },
            PortKind::Phy | PortKind::Bond => VlanMode::Trunk { native: Some(0), tagged: VlanSet::all() },
        }
    }
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
    /// Only those for the MAC addresses and VLANs of the other ports; the rest stays with the host's stack.
    /// Group-addressed frames go to both.
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
    /// The switch's netdev. `phy`: required, must exist. `guest`, `tap`: default `xs<vport>`;
    /// of a `guest` an existing veth end is adopted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ifname: Option<String>,
    /// `guest`: the guest's end of the pair; default `xg<vport>`. `tap`: the tap; default `xt<vport>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_ifname: Option<String>,
    /// `guest`, `tap`: named network namespace (`ip netns`) of the guest's end or the tap; default: the switch's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// MAC address of the guest, unicast; default for `guest`: a stable, locally administered one derived from `uuid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "02:00:00:00:00:01"))]
    pub mac: Option<MacAddr>,
    /// Other ports may have the same `mac`, if they say so too: a service moves between them. Frames go to the port
    /// that last sent from it; default false: a second port with that address is refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared_mac: bool,
    /// Layer 3 MTU in bytes, without Ethernet header and VLAN tag; default 1500 (`phy`: what the netdev has; `bond`:
    /// what its first member has).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Queues, 1–1024; default 1 (`phy`: as many as the netdev has; `bond`: room for those of all members, 64).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<u32>,
    /// Descriptors of each ring, a power of two, 64–32768; default 2048. Not for `vhost`: there the guest says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_depth: Option<u32>,
    /// XDP attach mode.
    #[serde(default)]
    pub mode: ModeRequest,
    /// `phy` and `bond` only: which packets come to the switch.
    #[serde(default)]
    pub steering: Steering,
    /// `phy` and `bond` with steering `all` only: take the netdev although the host has addresses or its default route
    /// there. It loses them while the port is up; default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// Zero-copy binding.
    #[serde(default)]
    pub zero_copy: ZeroCopy,
    /// VLAN mode; default for `guest`: access to the untagged segment; for `phy`: trunk of all VLANs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<VlanMode>,
    /// An isolated port exchanges no frames with other isolated ports; default false.
    #[serde(default)]
    pub isolated: bool,
    /// Drop what does not come from `mac` (Ethernet source, ARP sender); default: true for `guest`, false for `phy`,
    /// and for `vhost` and `tap` true if `mac` is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_check: Option<bool>,
    /// Most MAC addresses learned on this port, at least 1; default 4096.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fdb_limit: Option<u32>,
    /// `guest` only: the guest's end is open for a guest's own AF_XDP sockets (QEMU's), and no kernel stack gets its
    /// packets. Set by itself when sockets are first asked for; default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub guest_sockets: bool,
    /// `vhost` only, and required there: the socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vhost: Option<VhostSpec>,
    /// `vhost` only: virtio feature bits that the guest may be offered; default: all that the switch has. Fixed for the
    /// port's life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature_list: Option<u64>,
    /// `tap` only: who may open the tap; default: the daemon's user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap: Option<TapSpec>,
    /// `bond` only: members and options.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bond: Option<BondSpec>,
    /// The Soft Patch Panel's name of the port, unique: `phy:N` of a `phy` or `bond` port, `vhost:N` of a `guest`,
    /// `vhost` or `tap` port. It is then for components and no port of the bridge; fixed for the port's life. `vlan`,
    /// `isolated`, `mac_check` and `fdb_limit` mean nothing then; `steering` must be `all`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spp: Option<String>,
}

/// Name and uuid of a port that is made for `vhost:no` of the Soft Patch Panel.
pub fn vhost_names(no: u32) -> (String, String) {
    (format!("vhost{no}"), format!("spp-vhost-{no}"))
}

impl PortSpec {
    /// Its identity.
    pub fn uuid(&self) -> &str {
        self.uuid.as_deref().unwrap_or(&self.name)
    }

    /// The number N of a port that the switch has made for `vhost:N` of the Soft Patch Panel, because nobody had added
    /// one. Name and uuid tell it from a port that somebody has added.
    pub fn made_for_vhost(&self) -> Option<u32> {
        let no = self.spp.as_deref()?.strip_prefix("vhost:")?.parse().ok()?;
        let is_so = self.kind == PortKind::Vhost && (self.name.clone(), self.uuid().to_owned()) == vhost_names(no);
        is_so.then_some(no)
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
            shared_mac: false,
            mtu: None,
            queues: None,
            queue_depth: None,
            mode: ModeRequest::Auto,
            steering: Steering::All,
            force: false,
            zero_copy: ZeroCopy::Auto,
            vlan: None,
            isolated: false,
            mac_check: None,
            fdb_limit: None,
            guest_sockets: false,
            vhost: None,
            feature_list: None,
            tap: None,
            bond: None,
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
    /// Takes the port's `mac` away, and so its guest is not known by it; default false. Not for `guest`, which always
    /// has one, not together with `mac`, and not while `mac_check` holds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_mac: bool,
    /// As in [`PortSpec::shared_mac`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_mac: Option<bool>,
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
    /// As in [`PortSpec::tap`]: another owner for an owner, another group for a group. Refused while a VMM has the tap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap: Option<TapSpec>,
    /// `bond` only: other options, members that come and go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bond: Option<BondUpdate>,
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
    /// Whether it has a UMEM of its own, so that frames are copied from and to the shared one.
    #[serde(default)]
    pub own_umem: bool,
}

/// A live port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PortInfo {
    /// As asked, with every default filled in (this is what the state file keeps).
    pub spec: PortSpec,
    /// Port number.
    pub vport: u16,
    /// Index of the switch's netdev; absent if the port has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ifindex: Option<u32>,
    /// XDP mode in force; absent if the port has no netdev.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Why a wish of `auto` ended in generic mode, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode_reason: Option<String>,
    /// Address of the switch's netdev; absent if that is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "02:00:00:00:00:01"))]
    pub mac: Option<MacAddr>,
    /// Whether the switch's netdev has carrier.
    pub link_up: bool,
    /// What keeps the port from its work now, and what to do: somebody else changed its netdevs. Empty if all is well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Largest MTU that this port could be set to now, in bytes, and with it the end of the range that errors name.
    pub max_mtu: u32,
    /// Its queues.
    pub queues: Vec<QueueInfo>,
    /// Queues that the other end has bound now: AF_XDP sockets on the guest's end of a pair, in whatever process; all
    /// of a `phy`'s while it has carrier; open queues of a tap. 0 if the kernel can't tell (sockets: before 6.15).
    #[serde(default)]
    pub active_queues: u32,
    /// MAC addresses learned on it now.
    pub fdb_entries: u32,
    /// `guest` only: the guest's end, once it was opened for a guest's own AF_XDP sockets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_end: Option<GuestEndInfo>,
    /// `vhost` only: the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vhost: Option<VhostInfo>,
    /// `tap` only: the tap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap: Option<TapInfo>,
    /// `bond` only: the bond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bond: Option<BondInfo>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_called_what_json_calls_it() {
        for kind in PortKind::ALL {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{}\"", kind.name()));
            assert_eq!(PortKind::from_name(kind.name()), Some(kind));
        }
        assert_eq!(PortKind::from_name("tap9"), None);
    }
}
