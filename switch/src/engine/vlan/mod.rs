//! VLAN membership of ports and what it does to a frame's tag.
//!
//! The outer tag of a frame, C-tag or S-tag, says its VLAN; no tag or VID 0 (a priority tag) leaves that to the port. Inside
//! the switch a frame keeps its bytes and has a VID, 0 for the untagged segment; what happens to the tag is decided per
//! receiver and applied once, on the way out.
//!
//! - An **access** port of VLAN *v* takes frames without a tag and with a priority tag, and gives those of *v* without tag.
//! - A **trunk** takes frames of its `tagged` VLANs and of its native one with a tag; without a VID they belong to the
//!   native VLAN, or are dropped if there is none. It gives the native VLAN without tag and the others with one: a tag is
//!   kept with PCP, DEI and TPID, a priority tag gets the VID, and else a C-tag with PCP 0 is pushed.
//!
//! An access port drops any tag with a VID, also its own, as Open vSwitch does (`vlan_mode` in ovs-vswitchd.conf.db(5)):
//! whoever tags frames on an access port is misconfigured or tries something. VID 4095 is always dropped. An inner tag is
//! never changed, and no edit lets one take the outer tag's place where VLANs are told apart: an access port does not take a
//! priority tag with another tag behind it, and a trunk keeps the outer tag of a stacked frame of its native VLAN. That
//! stops VLAN hopping by double tagging. (Out of an access port the outer tag of a stacked frame does go, as it does out of
//! the far end of a QinQ tunnel.)
//!
//! Pure functions on plain data; any thread.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use edit::{TagEdit, apply};

use super::drop::DropReason;
use super::parse::{TPID_CTAG, Tag};

mod edit;
#[cfg(test)]
pub(crate) mod tests;

/// A VLAN identifier as the switch uses it: 1–4094, or 0 for the untagged segment.
pub type Vid = u16;
/// Number of VLAN identifiers including 0 and the reserved 4095.
pub const VID_COUNT: usize = 4096;
/// Largest VLAN identifier that a port may use; 4095 is reserved (IEEE 802.1Q-2022, table 9-2).
pub const MAX_VID: Vid = 4094;

/// A set of VLAN identifiers 1–4094. Text form: `all`, `none`, or numbers and ranges such as `10,20-29`.
#[derive(Clone, PartialEq, Eq)]
pub struct VlanSet {
    bits: Box<[u64; VID_COUNT / 64]>,
}

impl VlanSet {
    /// The empty set.
    pub fn none() -> Self {
        Self { bits: Box::new([0; VID_COUNT / 64]) }
    }

    /// Every identifier from 1 to 4094.
    pub fn all() -> Self {
        let mut set = Self::none();
        (1..=MAX_VID).for_each(|vid| set.insert(vid));
        set
    }

    /// Adds `vid`; 0 and what is above 4094 is left out, because no tag can carry it.
    pub fn insert(&mut self, vid: Vid) {
        if (1..=MAX_VID).contains(&vid) {
            self.bits[usize::from(vid) / 64] |= 1 << (vid % 64);
        }
    }

    /// Whether `vid` is in the set.
    #[inline]
    pub fn contains(&self, vid: Vid) -> bool {
        self.bits.get(usize::from(vid) / 64).is_some_and(|word| word >> (vid % 64) & 1 != 0)
    }

    /// The set as bits, VID 0 lowest in the first word.
    pub(crate) fn words(&self) -> &[u64] {
        &self.bits[..]
    }

    /// The identifiers in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Vid> + '_ {
        (0_u16..).step_by(64).zip(self.bits.iter()).flat_map(|(base, &word)| {
            std::iter::successors(Some(word), |left| Some(left & left.wrapping_sub(1)))
                .take_while(|left| *left != 0)
                .map(move |left| base + left.trailing_zeros() as u16)
        })
    }
}

impl fmt::Display for VlanSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::all() {
            return f.write_str("all");
        }
        let mut vid = 1;
        let mut first = true;
        while vid <= MAX_VID {
            if !self.contains(vid) {
                vid += 1;
                continue;
            }
            let start = vid;
            while vid < MAX_VID && self.contains(vid + 1) {
                vid += 1;
            }
            if !first {
                f.write_str(",")?;
            }
            first = false;
            if start == vid {
                write!(f, "{start}")?
            } else {
                write!(f, "{start}-{vid}")?
            }
            vid += 1;
        }
        if first { f.write_str("none") } else { Ok(()) }
    }
}

impl fmt::Debug for VlanSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VlanSet({self})")
    }
}

impl FromStr for VlanSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => return Ok(Self::all()),
            "none" => return Ok(Self::none()),
            _ => {}
        }
        let number = |part: &str| match part.trim().parse::<Vid>() {
            Ok(vid @ 1..=MAX_VID) => Ok(vid),
            _ => Err(format!(
                "`{}` is not a VLAN: numbers from 1 to 4094, ranges such as 20-29, or all are expected",
                part.trim()
            )),
        };
        let mut set = Self::none();
        for part in text.split(',') {
            let (low, high) = match part.split_once('-') {
                Some((low, high)) => (number(low)?, number(high)?),
                None => (number(part)?, number(part)?),
            };
            if low > high {
                return Err(format!("VLAN range `{}` ends before it starts", part.trim()));
            }
            (low..=high).for_each(|vid| set.insert(vid));
        }
        Ok(set)
    }
}

impl Serialize for VlanSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for VlanSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// How a port takes part in VLANs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(tag = "mode", rename_all = "lowercase", deny_unknown_fields)]
pub enum VlanMode {
    /// Frames of one VLAN, without a tag on the port.
    Access {
        /// VLAN 1–4094, or 0 for the untagged segment.
        vid: Vid,
    },
    /// Frames of several VLANs with their tags, those of the native VLAN without.
    Trunk {
        /// VLAN of frames without a tag, 0 (default) for the untagged segment; absent (`null`): such frames are dropped.
        #[serde(default = "untagged_segment")]
        native: Option<Vid>,
        /// VLANs that it carries with a tag; default all.
        #[serde(default = "VlanSet::all")]
        #[cfg_attr(feature = "schema", schema(value_type = String, example = "10,20-29"))]
        tagged: VlanSet,
    },
}

fn untagged_segment() -> Option<Vid> {
    Some(0)
}

impl VlanMode {
    /// Whether frames of `vid` go out of such a port.
    #[inline]
    pub fn is_member(&self, vid: Vid) -> bool {
        match self {
            VlanMode::Access { vid: own } => *own == vid && vid <= MAX_VID,
            VlanMode::Trunk { native, tagged } => (*native == Some(vid) && vid <= MAX_VID) || tagged.contains(vid),
        }
    }
}

/// VLAN of a frame that came in from a port of that mode with that outer tag.
///
/// # Errors
/// `VlanNotAllowed` if such a port does not take such a frame.
#[inline]
pub fn ingress(mode: &VlanMode, tag: Option<Tag>) -> Result<Vid, DropReason> {
    let carried = tag.map_or(0, Tag::vid);
    let vid = match mode {
        VlanMode::Access { vid } => (carried == 0 && !tag.is_some_and(|tag| tag.stacked)).then_some(*vid),
        VlanMode::Trunk { native, .. } if carried == 0 => *native,
        VlanMode::Trunk { native, tagged } => (*native == Some(carried) || tagged.contains(carried)).then_some(carried),
    };
    vid.filter(|vid| *vid <= MAX_VID).ok_or(DropReason::VlanNotAllowed)
}

/// What to do to the tag of a frame of VLAN `vid` that goes out of a port of that mode, `tag` being the outer tag that the
/// frame came in with; `None` if the port is not a member of `vid`.
#[inline]
pub fn egress(mode: &VlanMode, vid: Vid, tag: Option<Tag>) -> Option<TagEdit> {
    if !mode.is_member(vid) {
        return None;
    }
    let (access, native) = match mode {
        VlanMode::Access { .. } => (true, false),
        VlanMode::Trunk { native, .. } => (false, *native == Some(vid)),
    };
    Some(match tag {
        None if access || native => TagEdit::None,
        None => TagEdit::Push { tpid: TPID_CTAG, tci: vid },
        Some(_) if access => TagEdit::Pop,
        // Stacked: the tag stays. Its VID is the native one or 0, which means the same to the other end.
        Some(tag) if native => {
            if tag.stacked {
                TagEdit::None
            } else {
                TagEdit::Pop
            }
        }
        Some(tag) if tag.vid() == 0 => TagEdit::SetTci(tag.tci | vid),
        Some(_) => TagEdit::None,
    })
}
