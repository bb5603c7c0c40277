//! A configuration file, as far as it concerns ports and tables.

use ctl_types::{DiskSpec, MeterConfig, SwitchConfig};
use model::*;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// Contents of the file. Sections of the daemon alone are not looked at. `config check` does.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    bridge: Option<BridgeSettings>,
    port: Vec<PortSpec>,
    fdb: Vec<FdbSpec>,
    meter: Vec<MeterConfig>,
    binding: Vec<MeterBinding>,
    rule: Vec<RuleSpec>,
    redirect: Vec<RedirectSpec>,
    disk: Vec<DiskSpec>,
    #[serde(rename = "dataplane")]
    _dataplane: IgnoredAny,
    #[serde(rename = "metrics")]
    _metrics: IgnoredAny,
    #[serde(rename = "api")]
    _api: IgnoredAny,
    #[serde(rename = "dpu")]
    _dpu: IgnoredAny,
    #[serde(rename = "guests")]
    _guests: IgnoredAny,
    #[serde(rename = "spp")]
    _spp: IgnoredAny,
    #[serde(rename = "disks")]
    _disks: IgnoredAny,
}

impl File {
    /// Reads the text of a file. An error has line and key.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())
    }

    /// What it declares.
    pub(super) fn switch_config(self) -> SwitchConfig {
        SwitchConfig {
            bridge: self.bridge,
            ports: self.port,
            fdb: self.fdb,
            meters: self.meter,
            bindings: self.binding,
            rules: self.rule,
            redirects: self.redirect,
            disks: self.disk,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_of_the_daemon_are_left_out_and_unknown_ones_refused() {
        let text =
            "[dataplane]\nworkers = 2\n[spp.controller]\naddress = \"::1\"\n[[port]]\nname = \"a\"\nkind = \"guest\"\n";
        assert_eq!(File::parse(text).unwrap().switch_config().ports.len(), 1);
        for (text, key) in [
            ("[[prot]]\n", "prot"),
            ("[[port]]\nname = \"a\"\nkind = \"guest\"\nvlna = 3\n", "vlna"),
            ("[[meter]]\nid = 1\nrate = 2\nbust = 3\n", "bust"),
            ("[[rule]]\nkey_index = 1\nkye = {}\naction = { vid = \"drop\" }\n", "kye"),
        ] {
            let why = File::parse(text).unwrap_err();
            assert!(why.contains(key) && why.contains("line"), "{why}");
        }
    }
}
