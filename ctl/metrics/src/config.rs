//! The section `[metrics]` of the configuration file.

use ctl_listen::config::address;
use serde::{Deserialize, Serialize};

/// `[metrics]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// TCP address of the endpoint. Empty for none.
    pub listen: String,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9477".to_owned() }
    }
}

impl MetricsConfig {
    /// Checks the values.
    ///
    /// # Errors
    /// The key, and what is wrong with its value.
    pub fn check(&self) -> Result<(), String> {
        if self.listen.is_empty() { Ok(()) } else { address("metrics.listen", &self.listen, 9477) }
    }
}
