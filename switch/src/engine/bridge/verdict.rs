//! What is decided on a frame.

use crate::engine::PortNo;
use crate::engine::parse::Tag;
use crate::engine::rule::Rule;
use crate::engine::vlan::TagEdit;
use crate::model::{DropReason, Vid};

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Drop it.
    Drop(DropReason),
    /// Send it out of one port.
    Unicast {
        /// That port.
        port: PortNo,
        /// What to do to its tag first.
        edit: TagEdit,
        /// Queue of that port; `None`: by flow hash.
        queue: Option<u32>,
        /// The port that the frame was for, if a redirect leads from there to `port`.
        redirected_from: Option<PortNo>,
    },
    /// Send it to every port of a VLAN for which [`flood_verdict`](super::flood_verdict) says so. If there is none, the
    /// caller drops it as `NoDestination`.
    Flood {
        /// The VLAN.
        vid: Vid,
        /// Outer tag that the frame has now.
        tag: Option<Tag>,
    },
}

/// A verdict, the port that a drop counts at, and the rule that applies.
#[derive(Clone, Copy, Debug)]
pub struct Decision<'a> {
    /// What to do with the frame.
    pub verdict: Verdict,
    /// The port that a drop counts at. For reasons of the egress (`egress_…`) it is the port that the frame was for,
    /// else the ingress port.
    pub drop_port: PortNo,
    /// The traffic rule that applies. Its counters, meter and mirror are the caller's to see to. A frame that is
    /// refused before the rules has none.
    pub rule: Option<&'a Rule>,
}

/// What becomes of one receiver of a flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloodVerdict {
    /// A copy goes out of `port`: the receiver, or the port that the receiver is redirected to.
    Send {
        /// That port.
        port: PortNo,
        /// What to do to the copy's tag first.
        edit: TagEdit,
    },
    /// It gets no copy, and that is no drop. It is the ingress port, isolated from it, not in the VLAN, or gone. Or
    /// it is redirected to a port that gets a copy already, or that the frame came from.
    Skip,
    /// It would get a copy, but for this reason. The drop counts at the receiver.
    Drop(DropReason),
}
