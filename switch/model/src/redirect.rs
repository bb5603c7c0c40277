//! Redirects: frames for one port go to another.

use serde::{Deserialize, Serialize};

use super::Count;

/// All frames for the port `src` go to the port `dest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RedirectSpec {
    /// Number of the port that the frames are for.
    pub src: u16,
    /// Number of the port that gets them.
    pub dest: u16,
}

/// A redirect in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RedirectInfo {
    /// The redirect.
    #[serde(flatten)]
    pub spec: RedirectSpec,
    /// Number of the port where the frames end, which differs from `dest` if that is redirected too.
    pub ends_at: u16,
    /// Frames for `src` that a redirect sent elsewhere, since that port was added.
    pub redirected: Count,
}
