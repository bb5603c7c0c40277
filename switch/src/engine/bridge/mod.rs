//! The learning bridge: where a frame goes (IEEE 802.1Q-2022, clause 8.6, as far as it concerns a VM switch).
//!
//! The way of a frame: is its sender allowed to send it, in which VLAN is it, which traffic rule applies; then by the rule, or
//! by the MAC table, to a port or to all of the VLAN; and last where redirects lead from there. Meters, mirrors and counters
//! are the worker's to see to: a [`Decision`] names the rule.
//!
//! [`decide`] is called by a worker for each frame of a burst, with the snapshot that the worker holds for that burst; it
//! reads the frame's first bytes, the snapshot and the MAC table, and returns a [`Verdict`] of a few words. It changes
//! nothing but the MAC table, which is made for many workers at once. A flood is not expanded here: the worker walks
//! [`Snapshot::flood_ports`] and asks [`egress_check`] for each, since it must stage a copy for each anyway.
//!
//! The same function serves `xswitch trace`: an [`Observer`] hears each step as it is taken. For [`NoObserver`] the calls
//! and the formatting inside them compile to nothing.

use super::PortNo;
use super::fdb::{Fdb, Learn};
use super::parse::{self, Arp, ETH_HEADER, ETHERTYPE_ARP, ETHERTYPE_RARP, L2, Tag, VLAN_TAG};
use super::rule::{Key, Rule, Rules};
use super::snapshot::{PortPolicy, Snapshot};
use super::vlan::{self, TagEdit};
use crate::model::{DropReason, MacAddr, RuleAction, RuleTarget, Vid, VlanMode};

mod course;
mod memory;

pub use course::{Course, Run};
pub use memory::{Memory, Scene};

/// Gives the name of a port.
pub type Names<'a> = &'a dyn Fn(PortNo) -> String;

/// Hears what [`decide`] does.
pub trait Observer {
    /// Whether the source address is learned; false for a trace, which changes nothing.
    const LEARN: bool;

    /// A step was taken: its stage as in [`super::trace::TraceStep::stage`], and what was found, told with the names of ports
    /// and only if wanted.
    fn step(&mut self, stage: &'static str, detail: impl FnOnce(Names<'_>) -> String);

    /// Learns where a station is; the observer may know that this was done a moment ago.
    #[inline]
    fn learn(&mut self, fdb: &Fdb, mac: MacAddr, vid: Vid, port: PortNo, port_limit: u32, now: u32) {
        fdb.learn(mac, vid, port, port_limit, now);
    }

    /// The rule that applies to a frame with that key; the observer may have a cache, or know it already.
    #[inline]
    fn classify<'a>(&mut self, rules: &'a Rules, key: impl FnOnce() -> Key) -> Option<&'a Rule> {
        rules.find(&key()).map(AsRef::as_ref)
    }
}

/// An observer that hears nothing and has no cache.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    const LEARN: bool = true;

    #[inline(always)]
    fn step(&mut self, _stage: &'static str, _detail: impl FnOnce(Names<'_>) -> String) {}
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
        /// Queue of that port; `None`: by flow hash.
        queue: Option<u32>,
        /// The port that it was for, if what would go there is redirected.
        instead_of: Option<PortNo>,
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

/// A verdict, the port that a drop counts at, and the rule that applies.
#[derive(Clone, Copy, Debug)]
pub struct Decision<'a> {
    /// What to do with the frame.
    pub verdict: Verdict,
    /// If it is a drop: the port that it was for if the drop is on the way out (`egress_…`), else the one it came from.
    pub at: PortNo,
    /// The traffic rule that applies, whose counters, meter and mirror are the caller's to see to. Frames that are refused
    /// before rules are looked at have none.
    pub rule: Option<&'a Rule>,
}

/// What becomes of one receiver of a flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Egress {
    /// A copy goes out of `port`: the receiver, or where what would go to it is redirected.
    Send {
        /// That port.
        port: PortNo,
        /// What to do to the copy's tag first.
        edit: TagEdit,
    },
    /// It is none: the port the frame came from, isolated from it, not in the VLAN, gone, or redirected to a port that gets
    /// its copy already or is where the frame came from. Not a drop.
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
pub fn decide_at<'a, O: Observer>(
    snap: &'a Snapshot,
    fdb: &Fdb,
    now: u32,
    ingress: PortNo,
    frame: &[u8],
    observer: &mut O,
) -> Decision<'a> {
    let (l2, vid, from) = match admit(snap, ingress, frame, observer) {
        Ok(admitted) => admitted,
        Err(reason) => return Decision { verdict: Verdict::Drop(reason), at: ingress, rule: None },
    };
    if O::LEARN {
        observer.learn(fdb, l2.src, vid, ingress, from.fdb_limit, now);
    } else {
        observer.step("learn", |name| describe_learning(fdb, l2.src, vid, ingress, &name(ingress)));
    }
    let rules = &snap.rules;
    let rule = if rules.is_empty() { None } else { observer.classify(rules, || Key::read(ingress, frame, &l2)) };
    let here = |verdict| Decision { verdict, at: ingress, rule };
    let way = Way { snap, from, ingress, vid, tag: l2.tag, len: frame.len() };
    let to_port = |port, queue, observer: &mut O| {
        let (verdict, at) = match way.to(port, queue, observer) {
            Ok(verdict) => return here(verdict),
            Err(reason) if reason.is_egress() => (Verdict::Drop(reason), snap.exit(port)),
            Err(reason) => (Verdict::Drop(reason), ingress),
        };
        Decision { verdict, at, rule }
    };
    match rule.map(|rule| &rule.action) {
        Some(RuleAction { target: RuleTarget::Drop, .. }) => return here(Verdict::Drop(DropReason::RuleDrop)),
        Some(RuleAction { target: RuleTarget::Port(port), queue, .. }) => {
            if snap.port(*port).is_none() {
                return here(Verdict::Drop(DropReason::RuleNoPort));
            }
            return to_port(*port, *queue, observer);
        }
        Some(RuleAction { target: RuleTarget::Normal, .. }) | None => {}
    }
    let flood = here(Verdict::Flood { vid, tag: l2.tag });
    if l2.dst.is_group() {
        if is_reserved(l2.dst) {
            if !snap.bridge.forward_reserved {
                observer.step("fdb", |_| format!("{} is reserved for bridges and not forwarded", l2.dst));
                return here(Verdict::Drop(DropReason::ReservedMulticast));
            }
            observer.step("fdb", |_| format!("{} is reserved for bridges, but forward_reserved is set", l2.dst));
        } else {
            observer.step("fdb", |_| format!("{} is a group address: flood VLAN {vid}", l2.dst));
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
        observer.step("fdb", |_| format!("{} is unknown in VLAN {vid}: flood", l2.dst));
        return flood;
    };
    if snap.port(port).is_none() {
        // The port went and its entries are on their way out: the station, if still there, may be anywhere.
        observer.step("fdb", |name| format!("{} was last seen on {}, which is gone: flood", l2.dst, name(port)));
        return flood;
    }
    observer.step("fdb", |name| format!("{} in VLAN {vid} is behind {}", l2.dst, name(port)));
    to_port(port, None, observer)
}

/// Whether a rule's copy of a frame from `ingress` can go to `mirror` (where what would go there ends): not back to where it
/// came from, and not if it is too long. VLANs and isolation don't matter to a mirror.
///
/// # Errors
/// Why not: `SamePort`, `PortGone` or `EgressMtu`.
#[inline]
pub fn mirror_check(snap: &Snapshot, ingress: PortNo, mirror: PortNo, frame: &[u8]) -> Result<(), DropReason> {
    let tag = parse::parse_l2(frame)?.tag;
    match snap.port(mirror) {
        _ if mirror == ingress => Err(DropReason::SamePort),
        None => Err(DropReason::PortGone),
        Some(port) if packet_len(tag, frame.len()) > port.mtu as usize => Err(DropReason::EgressMtu),
        Some(_) => Ok(()),
    }
}

/// A frame on its way from the port that it came in from.
#[derive(Clone, Copy)]
struct Way<'a> {
    snap: &'a Snapshot,
    from: &'a PortPolicy,
    ingress: PortNo,
    vid: Vid,
    tag: Option<Tag>,
    len: usize,
}

impl Way<'_> {
    /// To one port, or where that is redirected to. What the port itself would get is what goes there: its VLAN mode and its
    /// isolation apply, and the MTU of the port that the frame really leaves by.
    #[inline]
    fn to<O: Observer>(&self, port: PortNo, queue: Option<u32>, observer: &mut O) -> Result<Verdict, DropReason> {
        let exit = self.snap.exit(port);
        if exit != port {
            observer.step("redirect", |name| format!("what would go to {} goes to {}", name(port), name(exit)));
        }
        let edit = self.check(port, exit)?;
        let instead_of = (exit != port).then_some(port);
        // A queue is one of the port that the rule names.
        Ok(Verdict::Unicast { port: exit, edit, queue: queue.filter(|_| exit == port), instead_of })
    }

    /// What is done to the frame's tag for `port`, whose frames leave by `exit`.
    #[inline]
    fn check(&self, port: PortNo, exit: PortNo) -> Result<TagEdit, DropReason> {
        let (Some(to), Some(out)) = (self.snap.port(port), self.snap.port(exit)) else {
            return Err(DropReason::PortGone);
        };
        let same = self.ingress == port || self.ingress == exit;
        path(self.from, to, out.mtu, same, self.vid, self.tag, self.len)
    }

    /// Whether `exit` gets its copy of a flood for another port than `port`: for itself, or for an earlier redirected one.
    fn is_served(&self, port: PortNo, exit: PortNo) -> bool {
        let members = self.snap.flood_ports(self.vid);
        if members.binary_search(&exit).is_ok() && self.check(exit, exit).is_ok() {
            return true;
        }
        // Where one redirect alone ends there is no other. Where several do, the first of them is soon found.
        let earlier = members.iter().take_while(|other| **other < port).filter(|other| self.snap.exit(**other) == exit);
        self.snap.is_shared_exit(exit) && earlier.into_iter().any(|other| self.check(*other, exit).is_ok())
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
    let Some(from) = snap.port(ingress) else { return Egress::Skip };
    let way = Way { snap, from, ingress, vid, tag, len };
    let port = snap.exit(egress);
    match way.check(egress, port) {
        Ok(_) if port != egress && way.is_served(egress, port) => Egress::Skip,
        Ok(edit) => Egress::Send { port, edit },
        Err(DropReason::EgressMtu) => Egress::Drop(DropReason::EgressMtu),
        Err(DropReason::PortGone) if port != egress && snap.port(egress).is_some() => {
            Egress::Drop(DropReason::PortGone)
        }
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
        observer.step("ingress", |_| format!("{} cannot be the address of a station", l2.src));
        return Err(DropReason::SourceMacInvalid);
    }
    let Some(from) = snap.port(ingress) else {
        observer.step("ingress", |name| format!("{} does not exist", name(ingress)));
        return Err(DropReason::PortGone);
    };
    let vid = match vlan::ingress(&from.vlan, l2.tag) {
        Ok(vid) => vid,
        Err(reason) => {
            observer.step("vlan", |name| format!("not accepted by {}: {}", name(ingress), describe_mode(&from.vlan)));
            return Err(reason);
        }
    };
    observer.step("vlan", |name| format!("VLAN {vid} by {}: {}", name(ingress), describe_mode(&from.vlan)));
    if from.mac_check {
        check_sender(from, &l2, frame, observer)?;
    } else {
        observer.step("anti-spoof", |_| "off".to_owned());
    }
    Ok((l2, vid, from))
}

/// Compares source address and ARP sender with the port's address.
#[inline]
fn check_sender<O: Observer>(from: &PortPolicy, l2: &L2, frame: &[u8], observer: &mut O) -> Result<(), DropReason> {
    let is_own = |mac: MacAddr| from.mac == Some(mac);
    let own = || from.mac.map_or_else(|| "no address".to_owned(), |mac| mac.to_string());
    if !is_own(l2.src) {
        observer.step("anti-spoof", |_| format!("source {} while the port has {}", l2.src, own()));
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
        observer.step("anti-spoof", |_| format!("ARP sender {} while the port has {}", arp.sender_mac, own()));
        return Err(DropReason::ArpSpoofed);
    }
    observer.step("anti-spoof", |_| format!("sender is {}, as it should", l2.src));
    Ok(())
}

/// The rules between two ports, for unicast and floods alike.
#[inline]
fn path(
    from: &PortPolicy,
    to: &PortPolicy,
    mtu: u32,
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
    // An edit changes length and tags alike, so the frame as it came in decides.
    if packet_len(tag, len) > mtu as usize {
        return Err(DropReason::EgressMtu);
    }
    Ok(edit)
}

/// What of a frame of `len` bytes an MTU bounds: all but the Ethernet header and its tags, of which two count at most.
#[inline]
pub(crate) fn packet_len(tag: Option<Tag>, len: usize) -> usize {
    len.saturating_sub(header_len(tag))
}

/// Bytes of Ethernet header and tags.
#[inline]
fn header_len(tag: Option<Tag>) -> usize {
    ETH_HEADER + VLAN_TAG * tag.map_or(0, |tag| 1 + usize::from(tag.stacked))
}

/// 01:80:c2:00:00:00–0f, which bridges keep to themselves (IEEE 802.1Q-2022, table 8-1).
#[inline]
fn is_reserved(mac: MacAddr) -> bool {
    mac.to_u64() & !0xf == 0x0180_c200_0000
}

fn describe_mode(mode: &VlanMode) -> String {
    match mode {
        VlanMode::Access { vid: 0 } => "access to the untagged segment".to_owned(),
        VlanMode::Access { vid } => format!("access to VLAN {vid}"),
        VlanMode::Trunk { native: Some(native), tagged } => format!("trunk of {tagged}, native {native}"),
        VlanMode::Trunk { native: None, tagged } => format!("trunk of {tagged}, no native VLAN"),
    }
}

fn describe_learning(fdb: &Fdb, src: MacAddr, vid: Vid, ingress: PortNo, name: &str) -> String {
    match fdb.preview(src, vid, ingress) {
        Learn::Learned => format!("{src} in VLAN {vid} is new and would be learned on {name}"),
        Learn::Moved => format!("{src} in VLAN {vid} would move to {name}"),
        Learn::Static => format!("{src} in VLAN {vid} is static and stays where it is"),
        Learn::Known | Learn::Refreshed | Learn::Skipped => format!("{src} in VLAN {vid} is known on {name}"),
    }
}

#[cfg(test)]
mod tests;
