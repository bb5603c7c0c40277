//! The section `[api]` of the configuration file.

use ctl_listen::config::mode;
use serde::{Deserialize, Serialize};

/// `[api]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiConfig {
    /// Permission bits of the Unix socket, as an octal number in a string.
    pub socket_mode: String,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self { socket_mode: "0660".to_owned() }
    }
}

impl ApiConfig {
    /// The permission bits.
    pub fn mode(&self) -> Result<u32, String> {
        mode("api", &self.socket_mode)
    }
}
