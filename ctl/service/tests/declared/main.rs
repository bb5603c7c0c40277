//! What a configuration declares is what the switch is: at start, read again, and applied from another file.
#![allow(clippy::unwrap_used, reason = "a test")]

mod apply;
mod bonds;
mod random;
mod refusals;
mod reload;

use std::sync::Arc;

use ctl_service::*;
use ctl_types::*;
use kit::{Config, FakeHost, FakeStorage, machine_for, start};
use switch::model::*;

struct Rig {
    host: FakeHost,
    storage: FakeStorage,
    service: Arc<Service>,
}

fn parse(text: &str) -> SwitchConfig {
    Config::parse(text).unwrap().switch_config()
}

impl Rig {
    fn start(text: &str) -> Self {
        Self::on(machine_for(&[]), FakeStorage::default(), parse(text))
    }

    fn on(host: FakeHost, storage: FakeStorage, config: SwitchConfig) -> Self {
        let declared = Declared { file: Some("/etc/own.toml".into()), config, ..Declared::default() };
        let service = Service::start(start(&host), storage.store(), &declared).unwrap();
        Self { host, storage, service }
    }

    fn restart(self, text: &str) -> Self {
        self.restart_with(&parse(text))
    }

    fn restart_with(self, config: &SwitchConfig) -> Self {
        let Self { host, storage, service } = self;
        drop(service);
        Self::on(host, storage, config.clone())
    }

    fn reload(&self, text: &str) -> Result<ConfigChanges, Error> {
        self.service.reload_config(&parse(text))
    }

    fn request(text: &str, file: Option<&str>, prune: bool) -> ConfigRequest {
        ConfigRequest { config: parse(text), prune, file: file.map(str::to_owned) }
    }

    fn apply(&self, text: &str, file: Option<&str>, prune: bool) -> ConfigChanges {
        let request = Self::request(text, file, prune);
        let told = self.service.diff_config(&request).unwrap();
        let done = self.service.apply_config(&request).unwrap();
        assert_eq!(done.changes, told.changes);
        let again = self.service.apply_config(&request).unwrap();
        assert_eq!(again.changes, [], "a second time changes nothing");
        done
    }

    fn spec(&self, name: &str) -> PortSpec {
        self.service.port(name).unwrap().spec
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.service.ports().into_iter().map(|port| port.name).collect();
        names.sort();
        names
    }

    /// The switch as it is.
    fn kept(&self) -> SwitchConfig {
        self.service.config()
    }
}

fn guest(name: &str, more: &str) -> String {
    format!("[[port]]\nname = \"{name}\"\nkind = \"guest\"\n{more}\n")
}

fn vlan(vid: u16) -> String {
    format!("vlan = {{ mode = \"access\", vid = {vid} }}")
}

fn access(vid: u16) -> Option<VlanMode> {
    Some(VlanMode::Access { vid })
}

/// Actions and keys, as `+port a`.
fn told(changes: &ConfigChanges) -> Vec<String> {
    let sign = |action| match action {
        ConfigAction::Add => "+",
        ConfigAction::Change => "~",
        ConfigAction::Replace => "-/+",
        ConfigAction::Remove => "-",
    };
    changes.changes.iter().map(|it| format!("{}{} {}", sign(it.action), it.section.name(), it.key)).collect()
}

/// A file with rows of every section.
const WHOLE: &str = r#"
[bridge]
fdb_limit = 99
[[port]]
name = "a"
kind = "guest"
vport = 4
vlan = { mode = "access", vid = 10 }
[[port]]
name = "b"
kind = "guest"
vport = 2
vlan = { mode = "trunk", native = "none", tagged = "10,20-29" }
[[port]]
name = "up"
kind = "phy"
vport = 0
ifname = "eth7"
[[fdb]]
mac = "02:00:00:00:00:01"
vlan = 10
port = "b"
[[meter]]
id = 7
rate = 1000
[[meter]]
id = 8
rate = 10
type = "pps"
implicit = false
[[binding]]
vport = 4
direction = "from"
meter = 7
[[rule]]
key_index = 3
key = { vid = 4, dip = "10.0.0.0/8" }
action = { vid = 2, qid = 0, meter = 7, mirror = 0 }
[[rule]]
key_index = 9
action = { vid = "drop" }
[[redirect]]
src = 4
dest = 2
"#;
