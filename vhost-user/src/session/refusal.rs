//! Why a request is refused.

use thiserror::Error;

use super::memory::MemoryError;
use crate::message::{Code, Invalid};

/// Why a request is refused. It says what was wrong, for the log.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The message is no request.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The request belongs to a protocol feature that is not offered.
    #[error("its protocol feature is not offered")]
    NotOffered,
    /// Features are set that are not offered.
    #[error("features {0:#x} are not offered")]
    Features(u64),
    /// Features change while a ring is in use.
    #[error("features {0:#x} can't change while a ring runs and is enabled")]
    FeaturesInUse(u64),
    /// The device has fewer rings.
    #[error("ring {ring} is out of range, there are {rings}")]
    NoRing {
        /// Which was named.
        ring: u8,
        /// How many there are.
        rings: u16,
    },
    /// The ring must be stopped or disabled for that.
    #[error("ring {0} runs and is enabled, it must be stopped or disabled first")]
    RingRuns(u8),
    /// A ring can't have that size.
    #[error("a ring of {0} entries, 1 to 32768 are possible")]
    RingSize(u32),
    /// The memory can't be so.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A log or record of that size or offset is not possible, or has no descriptor.
    #[error("{0}: no descriptor, no length, or beyond the end of all files")]
    Area(&'static str),
    /// A guest can't have that MTU.
    #[error("an MTU of {mtu}, 68 to {max} are possible")]
    Mtu {
        /// What was wanted.
        mtu: u64,
        /// The largest.
        max: u16,
    },
    /// The status has 8 bits.
    #[error("status {0:#x} has more than 8 bits")]
    Status(u64),
    /// The device refuses.
    #[error("the device refuses")]
    Device,
    /// The device can't go on.
    #[error("{0}")]
    Failed(String),
    /// The device has not said where a ring was.
    #[error("ring {0} was not stopped")]
    NotStopped(u8),
}

impl Refusal {
    /// The session can't go on, whatever the request was.
    pub(super) fn is_fatal(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::NotStopped(_))
    }
}

/// A refused request's name, or its number.
pub(super) fn name(code: u32) -> String {
    Code::of(code).map_or_else(|| format!("request {code}"), |code| code.to_string())
}
