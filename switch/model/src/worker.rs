//! Worker threads as they run.

use serde::{Deserialize, Serialize};

/// A worker thread as it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct WorkerInfo {
    /// Number, 0-based.
    pub worker: usize,
    /// CPU that it is pinned to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<usize>,
    /// Port queues that it polls.
    pub queues: usize,
    /// Bursts that held at least one frame.
    pub bursts: u64,
    /// Frames taken in.
    pub packets: u64,
    /// Turns of the loop that found nothing.
    pub idle_polls: u64,
    /// Times that it went to sleep.
    pub sleeps: u64,
    /// How it found the rules that apply to frames.
    #[serde(default)]
    pub lookups: LookupCounts,
}

/// How a worker found the rules that apply to frames. While there are no rules, nothing is looked up. A worker that
/// prefetches looks up a whole burst at once, with the frames that are refused later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LookupCounts {
    /// Frames whose whole decision was in the flow cache.
    #[serde(rename = "remembered")]
    pub flow_cache: u64,
    /// Lookups that the exact-match cache answered.
    #[serde(rename = "cached")]
    pub exact_match: u64,
    /// Lookups that the classifier answered.
    #[serde(rename = "searched")]
    pub classifier: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_names_of_lookups_are_those_of_the_api() {
        let counts = LookupCounts { flow_cache: 1, exact_match: 2, classifier: 3 };
        let json = r#"{"remembered":1,"cached":2,"searched":3}"#;
        assert_eq!(serde_json::to_string(&counts).unwrap(), json);
        assert_eq!(serde_json::from_str::<LookupCounts>(json).unwrap(), counts);
    }
}
