//! The way out: what holds between the ingress port and a port that a frame is for.

use super::tracer::StepTracer;
use super::verdict::{Decision, FloodVerdict, Verdict};
use crate::engine::PortNo;
use crate::engine::parse::{self, ETH_HEADER, Tag, VLAN_TAG};
use crate::engine::snapshot::{PortPolicy, Snapshot};
use crate::engine::vlan::{self, TagEdit};
use crate::model::{DropReason, Vid};

/// A frame that its ingress port may send.
#[derive(Clone, Copy)]
pub(super) struct AdmittedFrame<'a> {
    pub snap: &'a Snapshot,
    /// Policy of the ingress port.
    pub from: &'a PortPolicy,
    pub ingress: PortNo,
    pub vid: Vid,
    /// Outer tag as the frame came in.
    pub tag: Option<Tag>,
    /// Length in bytes as the frame came in.
    pub len: usize,
}

impl AdmittedFrame<'_> {
    /// Sends it to one port, or to where that port is redirected.
    ///
    /// VLAN mode and isolation are those of `port`, because its frames are what goes there. The MTU is that of the
    /// port that the frame really leaves by.
    #[inline]
    pub(super) fn forward<T: StepTracer>(
        &self,
        port: PortNo,
        queue: Option<u32>,
        tracer: &mut T,
    ) -> Result<Verdict, DropReason> {
        let exit = self.snap.exit(port);
        if exit != port {
            tracer.step("redirect", |name| format!("what would go to {} goes to {}", name(port), name(exit)));
        }
        let edit = self.check(port, exit)?;
        let redirected_from = (exit != port).then_some(port);
        // A queue is one of the port that the rule names.
        Ok(Verdict::Unicast { port: exit, edit, queue: queue.filter(|_| exit == port), redirected_from })
    }

    /// What is done to the frame's tag for `port`, whose frames leave by `exit`. The same for unicast and floods.
    #[inline]
    fn check(&self, port: PortNo, exit: PortNo) -> Result<TagEdit, DropReason> {
        let (Some(to), Some(out)) = (self.snap.port(port), self.snap.port(exit)) else {
            return Err(DropReason::PortGone);
        };
        if self.ingress == port || self.ingress == exit {
            return Err(DropReason::SamePort);
        }
        if self.from.isolated && to.isolated {
            return Err(DropReason::Isolated);
        }
        let edit = vlan::egress(&to.vlan, self.vid, self.tag).ok_or(DropReason::EgressVlan)?;
        // An edit changes length and tags alike, so the frame as it came in decides.
        if packet_len(self.tag, self.len) > out.mtu as usize {
            return Err(DropReason::EgressMtu);
        }
        Ok(edit)
    }

    /// Whether `exit` gets a copy of a flood anyway, so that `port`, which is redirected there, must not send a
    /// second one. It gets one for itself, or for a port before `port` that is redirected there too.
    fn is_served(&self, port: PortNo, exit: PortNo) -> bool {
        let members = self.snap.flood_ports(self.vid);
        if members.binary_search(&exit).is_ok() && self.check(exit, exit).is_ok() {
            return true;
        }
        // With one redirect to `exit` there is no other port to look for. With several, the first is soon found.
        let earlier = members.iter().take_while(|other| **other < port).filter(|other| self.snap.exit(**other) == exit);
        self.snap.is_shared_exit(exit) && earlier.into_iter().any(|other| self.check(*other, exit).is_ok())
    }
}

/// What becomes of `egress` as a receiver of a flooded frame of VLAN `vid`. `tag` and `len` are the frame's outer tag
/// and its length in bytes, as it came in.
#[inline]
pub fn flood_verdict(
    snap: &Snapshot,
    ingress: PortNo,
    egress: PortNo,
    vid: Vid,
    tag: Option<Tag>,
    len: usize,
) -> FloodVerdict {
    let Some(from) = snap.port(ingress) else { return FloodVerdict::Skip };
    let frame = AdmittedFrame { snap, from, ingress, vid, tag, len };
    let port = snap.exit(egress);
    match frame.check(egress, port) {
        Ok(_) if port != egress && frame.is_served(egress, port) => FloodVerdict::Skip,
        Ok(edit) => FloodVerdict::Send { port, edit },
        Err(DropReason::EgressMtu) => FloodVerdict::Drop(DropReason::EgressMtu),
        Err(DropReason::PortGone) if port != egress && snap.port(egress).is_some() => {
            FloodVerdict::Drop(DropReason::PortGone)
        }
        Err(_) => FloodVerdict::Skip,
    }
}

/// Whether `port` gets a frame by what was decided on it, so that a mirror there needs no copy of its own.
///
/// A frame that is dropped for `port` because it is too long counts too: the mirror's copy would be dropped as well.
pub fn is_receiver(snap: &Snapshot, ingress: PortNo, decision: &Decision<'_>, port: PortNo, len: usize) -> bool {
    match decision.verdict {
        Verdict::Unicast { port: exit, .. } => exit == port,
        Verdict::Drop(reason) => reason == DropReason::EgressMtu && decision.drop_port == port,
        Verdict::Flood { vid, tag } => {
            let mut leading_here = snap.flood_ports(vid).iter().filter(|member| snap.exit(**member) == port);
            leading_here.any(|member| flood_verdict(snap, ingress, *member, vid, tag, len) != FloodVerdict::Skip)
        }
    }
}

/// Whether a rule's copy of a frame from `ingress` can go to `mirror`, the port where redirects of the rule's mirror
/// end. VLANs and isolation don't matter to a mirror. `frame` has its headers, and `len` is its whole length in bytes.
///
/// # Errors
/// Why not: `SamePort`, `PortGone` or `EgressMtu`, or what [`parse::parse_l2`] says of the frame.
#[inline]
pub fn mirror_check(
    snap: &Snapshot,
    ingress: PortNo,
    mirror: PortNo,
    frame: &[u8],
    len: usize,
) -> Result<(), DropReason> {
    let tag = parse::parse_l2(frame)?.tag;
    match snap.port(mirror) {
        _ if mirror == ingress => Err(DropReason::SamePort),
        None => Err(DropReason::PortGone),
        Some(port) if packet_len(tag, len) > port.mtu as usize => Err(DropReason::EgressMtu),
        Some(_) => Ok(()),
    }
}

/// Bytes of a frame of `len` bytes that an MTU bounds: all but the Ethernet header and its tags, of which two count
/// at most.
#[inline]
pub(crate) fn packet_len(tag: Option<Tag>, len: usize) -> usize {
    len.saturating_sub(header_len(tag))
}

/// Bytes of Ethernet header and tags.
#[inline]
fn header_len(tag: Option<Tag>) -> usize {
    ETH_HEADER + VLAN_TAG * tag.map_or(0, |tag| 1 + usize::from(tag.stacked))
}

/// Length in bytes of the longest frame with that outer tag that a port of that MTU is sent.
pub(crate) fn max_len_of(tag: Option<Tag>, mtu: u32) -> u16 {
    u16::try_from(header_len(tag).saturating_add(mtu as usize)).unwrap_or(u16::MAX)
}
