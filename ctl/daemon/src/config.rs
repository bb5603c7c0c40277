//! The configuration file: settings that are fixed for a run of the daemon, and declared ports, tables and disks.
//!
//! Unknown keys are errors, which name line and key. SIGHUP applies bridge, ports, tables and disks. All other
//! sections need a restart.

use std::path::{Path, PathBuf};

use ctl_companion::GuestsConfig;
use ctl_disks::DisksConfig;
use ctl_grpc::DpuConfig;
use ctl_http::ApiConfig;
use ctl_metrics::MetricsConfig;
use ctl_spp::SppConfig;
use ctl_types::{DiskSpec, MeterConfig, SwitchConfig};
use serde::{Deserialize, Serialize};
use switch::model::{BridgeSettings, DataplaneSettings, FdbSpec, MeterBinding, PortSpec, RedirectSpec, RuleSpec};

/// Path that is used if none is named.
pub const DEFAULT_PATH: &str = "/etc/xswitch/xswitch.toml";

/// Contents of the file. Every part is optional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Workers and packet memory. Fixed until a restart.
    pub dataplane: DataplaneSettings,
    /// The bridge.
    pub bridge: Option<BridgeSettings>,
    /// The Prometheus endpoint.
    pub metrics: MetricsConfig,
    /// The HTTP API.
    pub api: ApiConfig,
    /// The DPU interface.
    pub dpu: DpuConfig,
    /// Processes of guests.
    pub guests: GuestsConfig,
    /// The Soft Patch Panel.
    pub spp: SppConfig,
    /// Where disks may be. Fixed until a restart.
    pub disks: DisksConfig,
    /// Ports.
    pub port: Vec<PortSpec>,
    /// Static FDB entries.
    pub fdb: Vec<FdbSpec>,
    /// Meters.
    pub meter: Vec<MeterConfig>,
    /// Bindings of meters to ports.
    pub binding: Vec<MeterBinding>,
    /// Traffic rules.
    pub rule: Vec<RuleSpec>,
    /// Redirects.
    pub redirect: Vec<RedirectSpec>,
    /// Disks.
    pub disk: Vec<DiskSpec>,
}

/// A configuration file is unusable.
#[derive(Debug, thiserror::Error)]
#[error("configuration {path}: {why}")]
pub struct ConfigError {
    /// File.
    pub path: PathBuf,
    /// Reason, with line and key where they are known.
    pub why: String,
}

impl Config {
    /// The part that concerns the switch itself.
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

    /// Path of the named file, or of the default one.
    pub fn path(named: Option<&Path>) -> PathBuf {
        named.map_or_else(|| PathBuf::from(DEFAULT_PATH), Path::to_owned)
    }

    /// Reads the named file. Without a name it reads the default file, or takes the defaults if there is none.
    pub fn load(named: Option<&Path>) -> Result<Self, ConfigError> {
        let path = Self::path(named);
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).map_err(|why| ConfigError { path, why }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => Ok(Self::default()),
            Err(error) => Err(ConfigError { path, why: error.to_string() }),
        }
    }

    /// Reads and checks the text of a file.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        config.api.mode()?;
        config.dpu.check()?;
        config.guests.access()?;
        config.spp.check(config.dataplane.workers as usize)?;
        config.guests.check()?;
        config.metrics.check()?;
        config.disks.check()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_means_the_defaults() {
        assert_eq!(Config::parse("").unwrap(), Config::default());
        assert_eq!(Config::default().api.mode(), Ok(0o660));
    }

    #[test]
    fn a_whole_file_is_understood() {
        let text = r#"
            [dataplane]
            workers = 2
            cpus = [0, 1]
            [bridge]
            fdb_ageing_seconds = 60
            [metrics]
            listen = ""
            [guests]
            users = ["root", "7001"]
            ports = { vm1 = ["7002"] }
            [[port]]
            name = "uplink"
            kind = "phy"
            ifname = "eth1"
            vlan = { mode = "trunk", tagged = "10,20-29" }
        "#;
        let config = Config::parse(text).unwrap();
        assert_eq!((config.dataplane.workers, config.port[0].name.as_str()), (2, "uplink"));
        let access = config.guests.access().unwrap();
        assert_eq!((access.everywhere, &access.ports["vm1"]), (vec![0, 7001], &vec![7002]));
        assert_eq!(config.bridge.unwrap().fdb_limit, BridgeSettings::default().fdb_limit);
    }

    #[test]
    fn an_error_names_line_and_key() {
        for (text, key) in [
            ("[dataplane]\nworker = 2\n", "worker"),
            ("[bridge]\nfdb_limit = \"many\"\n", "fdb_limit"),
            ("[metrics]\nlisten = \"nowhere\"\n", "metrics.listen"),
            ("[api]\nsocket_mode = \"9\"\n", "api.socket_mode"),
            ("[dpu]\nlisten = \"1.2.3.4:5\"\n", "dpu.certificate"),
            ("[dpu]\nkey = \"x\"\n", "dpu.key"),
            ("[dpu]\nlisten = \"x\"\n", "dpu.listen"),
            ("[guests]\nusers = [\"nobody-of-that-name\"]\n", "guests.users"),
            ("[guests.ports]\nvm1 = [\"nobody-of-that-name\"]\n", "guests.ports.vm1"),
            ("[guests]\nbpffs = \"here\"\n", "guests.bpffs"),
            ("[dpu]\nsocket_mode = \"rw\"\n", "dpu.socket_mode"),
            ("[spp.controller]\nprimary_port = 0\n", "spp.controller"),
            ("[spp]\nlisten = \"nowhere\"\n", "127.0.0.1:7777"),
            ("[spp]\ndirectory = \"pcap\"\n", "spp.directory"),
            ("[spp]\ncores = { \"1024\" = 0 }\n", "0 to 1023"),
            ("[spp]\ncores = { \"2\" = 1 }\n", "`workers`"),
            ("[[spp.process]]\ntype = \"vf\"\nclient_id = 1\ncores = [0, 1024]\n", "vf 1: core 1024"),
            ("[[spp.process]]\ntype = \"vf\"\nclient_id = 1\nlimit = 5\n", "vf 1: directory, limit"),
            ("[[spp.process]]\ntype = \"pcap\"\nclient_id = 1\nport = \"phy:0\"\ndirectory = \"x\"\n", "absolute"),
            ("[[spp.process]]\ntype = \"pcap\"\nclient_id = 1\nport = \"memif:0\"\n", "memif"),
            ("[spp]\ncapture_directories = [\"/a\", \"b\"]\n", "spp.capture_directories"),
            ("[spp.controller]\nstatus_format = \"xml\"\n", "status_format"),
            ("[[port]]\nname = \"x\"\nkind = \"tun\"\n", "kind"),
            ("[disks]\ndirectories = [\"images\"]\n", "disks.directories"),
            ("[disks]\ndirectory = \"/images\"\n", "directory"),
            ("[[disk]]\nname = \"a\"\nszie = 1\n", "szie"),
        ] {
            let why = Config::parse(text).unwrap_err();
            assert!(why.contains(key), "{key}: {why}");
        }
        assert!(Config::parse("[dataplane]\nworker = 2\n").unwrap_err().contains("line 2"));
    }

    #[test]
    fn what_the_documents_show_is_taken_as_it_is() {
        for document in [
            include_str!("../../../docs/spp.md"),
            include_str!("../../../docs/operators-guide.md"),
            include_str!("../../../docs/disks.md"),
        ] {
            let shown: Vec<_> =
                document.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
            assert!(!shown.is_empty());
            for text in shown {
                Config::parse(text).unwrap_or_else(|why| panic!("{text}\n{why}"));
            }
        }
    }

    #[test]
    fn a_named_file_must_be_there() {
        assert!(matches!(Config::load(Some(Path::new("/nonexistent/xswitch.toml"))), Err(ConfigError { .. })));
    }
}
