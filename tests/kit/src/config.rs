//! A configuration file with only those sections that the service and the Soft Patch Panel use.

use ctl_service::Declared;
use ctl_spp::SppConfig;
use serde::Deserialize;
use switch::model::{BridgeSettings, DataplaneSettings, PortSpec};

/// Contents of the file. Every part is optional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// As in the daemon's.
    pub dataplane: DataplaneSettings,
    /// As in the daemon's.
    pub bridge: Option<BridgeSettings>,
    /// As in the daemon's.
    pub spp: SppConfig,
    /// As in the daemon's.
    pub port: Vec<PortSpec>,
}

impl Config {
    /// Parses the text of a file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        config.spp.check(config.dataplane.workers as usize)?;
        Ok(config)
    }

    /// The part that concerns the switch itself.
    pub fn declared(&self) -> Declared {
        Declared { bridge: self.bridge.clone(), ports: self.port.clone() }
    }
}
