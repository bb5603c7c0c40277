//! A configuration file with only those sections that the service and the Soft Patch Panel use.

use ctl_service::Declared;
use ctl_spp::{SppConfig, VhostConfig};
use ctl_types::{DiskSpec, MeterConfig, SwitchConfig};
use serde::Deserialize;
use switch::model::{BridgeSettings, DataplaneSettings, FdbSpec, MeterBinding, PortSpec, RedirectSpec, RuleSpec};

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
    /// As in the daemon's.
    pub fdb: Vec<FdbSpec>,
    /// As in the daemon's.
    pub meter: Vec<MeterConfig>,
    /// As in the daemon's.
    pub binding: Vec<MeterBinding>,
    /// As in the daemon's.
    pub rule: Vec<RuleSpec>,
    /// As in the daemon's.
    pub redirect: Vec<RedirectSpec>,
    /// As in the daemon's.
    pub disk: Vec<DiskSpec>,
}

impl Config {
    /// Parses the text of a file. Sockets for `vhost:N` are in a directory of this process, unless it names another, so
    /// that tests that run side by side have their own.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut config: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        if config.spp.vhost.directory == VhostConfig::default().directory {
            config.spp.vhost.directory = crate::panel::directory().to_owned();
        }
        config.spp.check(config.dataplane.workers as usize)?;
        Ok(config)
    }

    /// The part that concerns the switch itself.
    pub fn declared(&self) -> Declared {
        Declared { config: self.switch_config(), ..Declared::default() }
    }

    /// Ports and tables.
    pub fn switch_config(&self) -> SwitchConfig {
        SwitchConfig {
            bridge: self.bridge.clone(),
            ports: self.port.clone(),
            fdb: self.fdb.clone(),
            meters: self.meter.clone(),
            bindings: self.binding.clone(),
            rules: self.rule.clone(),
            redirects: self.redirect.clone(),
            disks: self.disk.clone(),
        }
    }
}
