//! Tap ports: what a user asks for, and what a VMM has made of its tap.

use serde::{Deserialize, Serialize};

/// Most queues of a tap (`MAX_TAP_QUEUES` of the kernel).
pub const MAX_TAP_QUEUES: u32 = 256;

/// Who may open the tap of a port. Without owner and group it is the daemon's user alone. With both, a process must be
/// the owner's and in the group. A process with CAP_NET_ADMIN may always.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TapSpec {
    /// User that may open it, a name or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Group whose members may open it, a name or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

impl TapSpec {
    /// What a port keeps of it: one that names nobody is as none.
    pub fn if_named(self) -> Option<Self> {
        (self != Self::default()).then_some(self)
    }

    /// Whether a live tap can be for whom `to` says: a user takes the place of a user, a group that of a group. The
    /// kernel can't take either away (`TUNSETOWNER`, `TUNSETGROUP`).
    pub fn can_become(&self, to: &Self) -> bool {
        // Without both it is the daemon's user.
        let has = |spec: &Self| (spec.owner.is_some() || spec.group.is_none(), spec.group.is_some());
        has(self) == has(to)
    }
}

/// A port's tap as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TapInfo {
    /// Queues that a VMM has open and in use; 0: no VMM has the tap.
    pub open_queues: u32,
    /// Whether the VMM puts virtio-net headers before packets: it may leave checksums and segments to the kernel.
    pub vnet_hdr: bool,
    /// User that may open it, as a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<u32>,
    /// Group whose members may open it, as a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<u32>,
    /// Frames for the guest that the kernel dropped since the tap was made: the VMM did not take them in time.
    #[serde(default)]
    pub dropped: u64,
}
