//! Bonds: ports of kind `bond`, by themselves.

use std::collections::BTreeMap;

use model::*;
use serde::{Deserialize, Serialize};

use crate::service::{PortEntry, PortState};

/// A bond to make. What is absent has the default of `PortSpec`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewBond {
    /// Name of its port.
    pub name: String,
    /// As in `BondSpec`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
    /// As in `BondSpec`.
    #[serde(default, deserialize_with = "bond_option_values", skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// As in `PortSpec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// As in `PortSpec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vport: Option<u16>,
    /// As in `PortSpec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// As in `PortSpec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<u32>,
    /// As in `PortSpec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_depth: Option<u32>,
    /// `mode` of `PortSpec`. The mode of the bond is an option.
    #[serde(default)]
    pub xdp_mode: ModeRequest,
    /// As in `PortSpec`.
    #[serde(default)]
    pub steering: Steering,
    /// As in `PortSpec`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// As in `PortSpec`.
    #[serde(default)]
    pub zero_copy: ZeroCopy,
    /// As in `PortSpec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<VlanMode>,
    /// As in `PortSpec`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub isolated: bool,
    /// As in `PortSpec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fdb_limit: Option<u32>,
    /// As in `PortSpec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spp: Option<String>,
}

impl From<NewBond> for PortSpec {
    fn from(bond: NewBond) -> Self {
        PortSpec {
            bond: Some(BondSpec { members: bond.members, options: bond.options }),
            uuid: bond.uuid,
            vport: bond.vport,
            mtu: bond.mtu,
            queues: bond.queues,
            queue_depth: bond.queue_depth,
            mode: bond.xdp_mode,
            steering: bond.steering,
            force: bond.force,
            zero_copy: bond.zero_copy,
            vlan: bond.vlan,
            isolated: bond.isolated,
            fdb_limit: bond.fdb_limit,
            spp: bond.spp,
            ..PortSpec::new(bond.name, PortKind::Bond)
        }
    }
}

/// A configured bond.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct BondEntry {
    /// Name of its port.
    pub name: String,
    /// Number of its port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vport: Option<u16>,
    /// Whether its port is in operation.
    pub state: PortState,
    /// Why it is not in operation, or not as it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Layer 3 MTU in bytes, of all members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Its configuration.
    pub spec: BondSpec,
    /// Configured members whose netdevs are not there, or not usable. They are taken up when they can be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// Its state, if its port is in operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<BondInfo>,
}

impl BondEntry {
    /// The bond of a port. None if it is of another kind.
    pub fn of(port: PortEntry) -> Option<Self> {
        let spec = port.spec.bond?;
        let info = port.info.and_then(|info| info.bond);
        let is_there = |name: &String| info.iter().flat_map(|info| &info.members).any(|member| member.ifname == *name);
        let missing = spec.members.iter().filter(|name| info.is_some() && !is_there(name)).cloned().collect();
        let PortEntry { name, state, error, .. } = port;
        Some(Self { name, vport: port.spec.vport, state, error, mtu: port.spec.mtu, missing, spec, info })
    }
}
