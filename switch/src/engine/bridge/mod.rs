//! The learning bridge: where a frame goes (IEEE 802.1Q-2022, clause 8.6, as far as it concerns a VM switch).
//!
//! [`decide`] is called by a worker for each frame of a burst, with the snapshot that the worker holds for that burst; it
//! reads the frame's first bytes, the snapshot and the MAC table, and returns a [`Verdict`] of a few words. It changes
//! nothing but the MAC table, which is made for many workers at once. A flood is not expanded here: the worker walks
//! [`Snapshot::flood_ports`] and asks [`egress_check`] for each, since it must stage a copy for each anyway.
//!
//! The same function serves `xswitch trace`: an [`Observer`] hears each step as it is taken. For [`NoObserver`] the calls
//! and the formatting inside them compile to nothing.

use super::PortNo;
use super::drop::DropReason;
use super::fdb::{Fdb, Learn};
use super::mac::MacAddr;
use super::parse::{self, Arp, ETH_HEADER, ETHERTYPE_ARP, ETHERTYPE_RARP, L2, Tag, VLAN_TAG};
use super::snapshot::{PortPolicy, Snapshot};
use super::vlan::{self, TagEdit, Vid};

/// Hears what [`decide`] does.
pub trait Observer {
    /// Whether the source address is learned; false for a trace, which changes nothing.
    const LEARN: bool;

    /// A step was taken: its stage as in [`super::trace::TraceStep::stage`], and what was found, computed only if wanted.
    fn step(&mut self, stage: &'static str, detail: impl FnOnce() -> String);
}

/// The observer of the hot path: hears nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    const LEARN: bool = true;

    #[inline(always)]
    fn step(&mut self, _stage: &'static str, _detail: impl FnOnce() -> String) {}
}

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
    },
    /// Send it to every port of a VLAN for which [`egress_check`] says so; if there is none, the caller drops it as
    /// `NoDestination`.
    Flood {
        /// The VLAN.
        vid: Vid,
        /// Outer tag that the frame has now.
        tag: Option<Tag>,
    },
}

/// A verdict, and the port that a drop counts at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What to do with the frame.
    pub verdict: Verdict,
    /// If it is a drop: the port that it was for if the drop is on the way out (`egress_…`), else the one it came from.
    pub at: PortNo,
}

/// What becomes of one receiver of a flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Egress {
    /// It gets a copy with this edit.
    Send(TagEdit),
    /// It is none: the port the frame came from, isolated from it, not in the VLAN, or gone. Not a drop.
    Skip,
    /// It would be one, but for this reason; counts at the receiver.
    Drop(DropReason),
}

/// Decides where a frame that came in from `ingress` goes, and learns its source address at time `now` (seconds).
#[inline]
pub fn decide<O: Observer>(
    snap: &Snapshot,
    fdb: &Fdb,
    now: u32,
    ingress: PortNo,
    frame: &[u8],
    observer: &mut O,
) -> Verdict {
    decide_at(snap, fdb, now, ingress, frame, observer).verdict
}

/// As [`decide`], and names the port that a drop counts at.
#[inline]
pub fn decide_at<O: Observer>(
    snap: &Snapshot,
    fdb: &Fdb,
    now: u32,
    ingress: PortNo,
    frame: &[u8],
    observer: &mut O,
) -> Decision {
    let here = |verdict| Decision { verdict, at: ingress };
    let (l2, vid, from) = match admit(snap, ingress, frame, observer) {
        Ok(admitted) => admitted,
        Err(reason) => return here(Verdict::Drop(reason)),
    };
    if O::LEARN {
        fdb.learn(l2.src, vid, ingress, from.fdb_limit, now);
    } else {
        observer.step("learn", || describe_learning(fdb, l2.src, vid, ingress));
    }
    let flood = here(Verdict::Flood { vid, tag: l2.tag });
    if l2.dst.is_group() {
        if is_reserved(l2.dst) {
            if !snap.bridge.forward_reserved {
                observer.step("fdb", || format!("{} is reserved for bridges and not forwarded", l2.dst));
                return here(Verdict::Drop(DropReason::ReservedMulticast));
            }
            observer.step("fdb", || format!("{} is reserved for bridges, but forward_reserved is set", l2.dst));
        } else {
            observer.step("fdb", || format!("{} is a group address: flood VLAN {vid}", l2.dst));
        }
        return flood;
    }
    let port = if !O::LEARN && l2.dst == l2.src && fdb.preview(l2.src, vid, ingress) != Learn::Static {
        // A frame to its own sender, which would have been learned just now.
        Some(ingress)
    } else {
        fdb.lookup(l2.dst, vid)
    };
    let Some(port) = port else {
        observer.step("fdb", || format!("{} is unknown in VLAN {vid}: flood", l2.dst));
        return flood;
    };
    let Some(to) = snap.port(port) else {
        // The port went and its entries are on their way out: the station, if still there, may be anywhere.
        observer.step("fdb", || format!("{} was last seen on port {port}, which is gone: flood", l2.dst));
        return flood;
    };
    observer.step("fdb", || format!("{} in VLAN {vid} is behind port {port}", l2.dst));
    match path(from, to, ingress == port, vid, l2.tag, frame.len()) {
        Ok(edit) => here(Verdict::Unicast { port, edit }),
        Err(reason @ (DropReason::EgressVlan | DropReason::EgressMtu)) => {
            Decision { verdict: Verdict::Drop(reason), at: port }
        }
        Err(reason) => here(Verdict::Drop(reason)),
    }
}

/// What becomes of `egress` as a receiver of a flooded frame of VLAN `vid` with outer tag `tag` and `len` bytes, as it came
/// in.
#[inline]
pub fn egress_check(
    snap: &Snapshot,
    ingress: PortNo,
    egress: PortNo,
    vid: Vid,
    tag: Option<Tag>,
    len: usize,
) -> Egress {
    let (Some(from), Some(to)) = (snap.port(ingress), snap.port(egress)) else {
        return Egress::Skip;
    };
    match path(from, to, ingress == egress, vid, tag, len) {
        Ok(edit) => Egress::Send(edit),
        Err(DropReason::EgressMtu) => Egress::Drop(DropReason::EgressMtu),
        Err(_) => Egress::Skip,
    }
}

/// Everything up to the MAC table: whether the port may send this frame, and in which VLAN it then is.
#[inline]
fn admit<'a, O: Observer>(
    snap: &'a Snapshot,
    ingress: PortNo,
    frame: &[u8],
    observer: &mut O,
) -> Result<(L2, Vid, &'a PortPolicy), DropReason> {
    let l2 = parse::parse_l2(frame)?;
    if !l2.src.is_unicast() {
        observer.step("ingress", || format!("{} cannot be the address of a station", l2.src));
        return Err(DropReason::SourceMacInvalid);
    }
    let Some(from) = snap.port(ingress) else {
        observer.step("ingress", || format!("port {ingress} does not exist"));
        return Err(DropReason::PortGone);
    };
    let vid = match vlan::ingress(&from.vlan, l2.tag) {
        Ok(vid) => vid,
        Err(reason) => {
            observer.step("vlan", || format!("not accepted by port {ingress}: {}", describe_mode(&from.vlan)));
            return Err(reason);
        }
    };
    observer.step("vlan", || format!("VLAN {vid} by port {ingress}: {}", describe_mode(&from.vlan)));
    if from.mac_check {
        check_sender(from, &l2, frame, observer)?;
    } else {
        observer.step("anti-spoof", || "off".to_owned());
    }
    Ok((l2, vid, from))
}

/// Compares source address and ARP sender with the port's address.
#[inline]
fn check_sender<O: Observer>(from: &PortPolicy, l2: &L2, frame: &[u8], observer: &mut O) -> Result<(), DropReason> {
    let is_own = |mac: MacAddr| from.mac == Some(mac);
    let own = || from.mac.map_or_else(|| "no address".to_owned(), |mac| mac.to_string());
    if !is_own(l2.src) {
        observer.step("anti-spoof", || format!("source {} while the port has {}", l2.src, own()));
        return Err(DropReason::MacSpoofed);
    }
    // Behind a second tag too: the receiver of a QinQ tunnel takes it off.
    let (ethertype, offset) = match parse::inner_tag(frame, l2) {
        Some((_, ethertype, offset)) => (ethertype, offset),
        None => (l2.ethertype, l2.payload_offset()),
    };
    if matches!(ethertype, ETHERTYPE_ARP | ETHERTYPE_RARP)
        && let Ok(Some(arp)) = Arp::read(frame.get(offset..).unwrap_or_default())
        && !is_own(arp.sender_mac)
    {
        observer.step("anti-spoof", || format!("ARP sender {} while the port has {}", arp.sender_mac, own()));
        return Err(DropReason::ArpSpoofed);
    }
    observer.step("anti-spoof", || format!("sender is {}, as it should", l2.src));
    Ok(())
}

/// The rules between two ports, for unicast and floods alike.
#[inline]
fn path(
    from: &PortPolicy,
    to: &PortPolicy,
    same: bool,
    vid: Vid,
    tag: Option<Tag>,
    len: usize,
) -> Result<TagEdit, DropReason> {
    if same {
        return Err(DropReason::SamePort);
    }
    if from.isolated && to.isolated {
        return Err(DropReason::Isolated);
    }
    let edit = vlan::egress(&to.vlan, vid, tag).ok_or(DropReason::EgressVlan)?;
    // MTU plus Ethernet header plus 4 bytes for each tag of the frame as it goes out, two at most, bound its length then.
    // An edit changes length and tags alike, so the frame as it came in decides it as well.
    let tags = tag.map_or(0, |tag| 1 + usize::from(tag.stacked));
    if len.saturating_sub(ETH_HEADER + VLAN_TAG * tags) > to.mtu as usize {
        return Err(DropReason::EgressMtu);
    }
    Ok(edit)
}

/// 01:80:c2:00:00:00–0f, which bridges keep to themselves (IEEE 802.1Q-2022, table 8-1).
#[inline]
fn is_reserved(mac: MacAddr) -> bool {
    matches!(mac.0, [0x01, 0x80, 0xc2, 0, 0, 0..=0x0f])
}

fn describe_mode(mode: &vlan::VlanMode) -> String {
    match mode {
        vlan::VlanMode::Access { vid: 0 } => "access to the untagged segment".to_owned(),
        vlan::VlanMode::Access { vid } => format!("access to VLAN {vid}"),
        vlan::VlanMode::Trunk { native: Some(native), tagged } => format!("trunk of {tagged}, native {native}"),
        vlan::VlanMode::Trunk { native: None, tagged } => format!("trunk of {tagged}, no native VLAN"),
    }
}

fn describe_learning(fdb: &Fdb, src: MacAddr, vid: Vid, ingress: PortNo) -> String {
    match fdb.preview(src, vid, ingress) {
        Learn::Learned => format!("{src} in VLAN {vid} is new and would be learned on port {ingress}"),
        Learn::Moved => format!("{src} in VLAN {vid} would move to port {ingress}"),
        Learn::Static => format!("{src} in VLAN {vid} is static and stays where it is"),
        Learn::Known | Learn::Refreshed | Learn::Skipped => format!("{src} in VLAN {vid} is known on port {ingress}"),
    }
}

#[cfg(test)]
mod tests;
