//! VLAN identifiers, sets of them, and how a port takes part in VLANs.
//!
//! VID 0 stands for the untagged segment. VID 4095 is reserved (IEEE 802.1Q-2022, table 9-2).

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

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

    /// Adds `vid`. 0, and what is above 4094, is left out, because no tag can carry it.
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
    pub fn words(&self) -> &[u64] {
        &self.bits[..]
    }

    /// The identifiers in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Vid> + '_ {
        let words = (0_u16..).step_by(64).zip(self.bits.iter()).filter(|(_, word)| **word != 0);
        words.flat_map(|(base, word)| (base..base + 64).filter(move |vid| word >> (vid % 64) & 1 != 0))
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
        /// VLAN of frames without a tag, 0 (default) for the untagged segment; `null`, or `"none"`: such frames are
        /// dropped.
        #[serde(default = "untagged_segment", deserialize_with = "vid_or_none")]
        native: Option<Vid>,
        /// VLANs that it carries with a tag; default all.
        #[serde(default = "VlanSet::all")]
        #[cfg_attr(feature = "schema", schema(value_type = String, example = "10,20-29"))]
        tagged: VlanSet,
    },
}

impl VlanMode {
    /// Whether such a port and one of mode `other` are members of the same VLAN.
    pub fn overlaps(&self, other: &Self) -> bool {
        (0..=MAX_VID).any(|vid| self.is_member(vid) && other.is_member(vid))
    }

    /// Whether frames of `vid` go out of such a port.
    #[inline]
    pub fn is_member(&self, vid: Vid) -> bool {
        match self {
            VlanMode::Access { vid: own } => *own == vid && vid <= MAX_VID,
            VlanMode::Trunk { native, tagged } => (*native == Some(vid) && vid <= MAX_VID) || tagged.contains(vid),
        }
    }
}

fn untagged_segment() -> Option<Vid> {
    Some(0)
}

/// A VID, `null`, or `"none"` for the same. TOML has no `null`.
fn vid_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vid>, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Word {
        None,
    }
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a VLAN number, or \"none\", is expected")]
    enum Native {
        Vid(Vid),
        Word(Word),
    }
    Ok(match Option::deserialize(deserializer)? {
        Some(Native::Vid(vid)) => Some(vid),
        Some(Native::Word(Word::None)) | None => None,
    })
}
