//! Redirects: what would go to one port goes to another.

use serde::{Deserialize, Serialize};

use super::Count;

/// All that would go to `src` goes to `dest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RedirectSpec {
    /// Number of the port that it would go to.
    pub src: u16,
    /// Number of the port that gets it.
    pub dest: u16,
}

/// A redirect as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RedirectInfo {
    /// The redirect.
    #[serde(flatten)]
    pub spec: RedirectSpec,
    /// Port where it ends when `dest` is redirected too.
    pub ends_at: u16,
    /// Frames that went elsewhere because of a redirect of `src`, since that port was added.
    pub redirected: Count,
}
