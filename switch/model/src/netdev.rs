//! Netdevs as they were before a port changed them.

use serde::{Deserialize, Serialize};

use crate::MacAddr;

/// A netdev as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetdevBefore {
    /// Name of its network namespace; absent: the switch's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// Index in its namespace.
    pub ifindex: u32,
    /// Name.
    pub ifname: String,
    /// Link-layer address.
    pub mac: MacAddr,
    /// MTU in bytes.
    pub mtu: u32,
    /// Set up by its administrator.
    pub up: bool,
    /// Offloads that were on, of those that leave bytes out of packets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub offloads: Vec<String>,
}

/// The netdevs that a port takes, as they were. Indices mean something until the machine is started again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetdevsBefore {
    /// The switch's netdev.
    pub near: NetdevBefore,
    /// The other end of a veth, where it could be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub far: Option<NetdevBefore>,
}
