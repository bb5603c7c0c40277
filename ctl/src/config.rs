//! The configuration file: settings that are fixed for a run of the daemon, and declared ports.
//!
//! Unknown keys are errors, which name line and key. SIGHUP applies `[bridge]` and `[[port]]`. All other sections need
//! a restart.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use switch::model::{BridgeSettings, Compression, DataplaneSettings, PortSpec};
use switch::resolve;

use crate::companion::server::Access;
use crate::error::Error;
use crate::spp::launch::MAX_LCORE;
use crate::spp::{self, CaptureOptions, DEFAULT_CAPTURE_LIMIT, Instance, PortId, Proc, ProcType};

/// Path that is used if none is named.
pub const DEFAULT_PATH: &str = "/etc/xswitch/xswitch.toml";

/// Contents of the file. Every part is optional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Workers and packet memory. Fixed until a restart.
    pub dataplane: DataplaneSettings,
    /// The bridge. Applied if the state file has no settings yet, and on SIGHUP if it changed.
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
    /// Ports that are added at start and on SIGHUP, unless a port of that name exists.
    pub port: Vec<PortSpec>,
}

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

/// `[dpu]`: the gRPC interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DpuConfig {
    /// Permission bits of the Unix socket, as an octal number in a string.
    pub socket_mode: String,
    /// TCP address to listen on as well, with mutual TLS. Absent for none.
    pub listen: Option<String>,
    /// File of the server's certificate chain (PEM).
    pub certificate: Option<PathBuf>,
    /// File of the server's private key (PEM).
    pub key: Option<PathBuf>,
    /// File of the authority that signs certificates of clients (PEM).
    pub client_ca: Option<PathBuf>,
}

impl Default for DpuConfig {
    fn default() -> Self {
        let ApiConfig { socket_mode } = ApiConfig::default();
        Self { socket_mode, listen: None, certificate: None, key: None, client_ca: None }
    }
}

/// `[guests]`: who may have the sockets of guests' ends, and where these are pinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GuestsConfig {
    /// Users, by name or number, who may have the sockets of every port. Root and the daemon's user may in any case.
    pub users: Vec<String>,
    /// Users, by name or number, who may have the sockets of a port, by the port's name.
    pub ports: BTreeMap<String, Vec<String>>,
    /// Mount point of a BPF file system. It is mounted if needed.
    pub bpffs: PathBuf,
}

impl Default for GuestsConfig {
    fn default() -> Self {
        Self { users: Vec::new(), ports: BTreeMap::new(), bpffs: PathBuf::from("/sys/fs/bpf") }
    }
}

impl GuestsConfig {
    /// The configured users as user ids.
    pub fn access(&self) -> Result<Access, String> {
        let numbers = |at: &str, users: &[String]| -> Result<Vec<u32>, String> {
            users.iter().map(|user| uid_of(user).map_err(|why| format!("{at}: {why}"))).collect()
        };
        let everywhere = numbers("guests.users", &self.users)?;
        let ports = self.ports.iter().map(|(port, users)| {
            resolve::check_name(port).map_err(|error| format!("guests.ports: {error}"))?;
            Ok::<_, String>((port.clone(), numbers(&format!("guests.ports.{port}"), users)?))
        });
        Ok(Access { everywhere, ports: ports.collect::<Result<_, _>>()? })
    }
}

/// User id of a user given by name or number.
pub fn uid_of(user: &str) -> Result<u32, String> {
    if let Ok(uid) = user.parse() {
        return Ok(uid);
    }
    match nix::unistd::User::from_name(user) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err(format!("there is no user `{}`", user.escape_default())),
        Err(errno) => Err(format!("user `{}` can't be looked up: {errno}", user.escape_default())),
    }
}

fn mode(section: &str, text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| format!("{section}.socket_mode: `{text}` is not an octal mode such as 0660"))
}

/// Checks that a value is a socket address. `port` is for the example in the error.
fn address(name: &str, text: &str, port: u16) -> Result<(), String> {
    let parsed = text.parse::<std::net::SocketAddr>();
    parsed.map(drop).map_err(|_| format!("{name}: `{text}` is not an address such as 127.0.0.1:{port}"))
}

/// Checks that a path is absolute, so that it does not depend on the daemon's working directory.
fn absolute(name: &str, path: &Path) -> Result<(), String> {
    let why = || format!("{name}: `{}` is not an absolute path, such as /var/lib/xswitch/pcap", path.display());
    path.is_absolute().then_some(()).ok_or_else(why)
}

impl ApiConfig {
    /// The permission bits.
    pub fn mode(&self) -> Result<u32, String> {
        mode("api", &self.socket_mode)
    }
}

/// `[spp]`: the API of the Soft Patch Panel, and its instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SppConfig {
    /// TCP address of the REST API. Empty for none.
    pub listen: String,
    /// Host names that clients of the REST API may use, besides IP addresses, `localhost` and the machine's name.
    pub hosts: Vec<String>,
    /// Worker of each lcore, by the lcore's number. Other lcores are spread over the workers by number.
    pub cores: BTreeMap<String, usize>,
    /// Directory of the files of `pcap:N` ports, and of captures without a directory of their own.
    pub directory: PathBuf,
    /// More directories in which REST clients and an external spp-ctl may write captures. Subdirectories are included.
    pub capture_directories: Vec<PathBuf>,
    /// An external spp-ctl to register with. Absent for none.
    pub controller: Option<ControllerConfig>,
    /// Instances that exist from the start.
    pub process: Vec<ProcessConfig>,
}

impl Default for SppConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:7777".to_owned(),
            hosts: Vec::new(),
            cores: BTreeMap::new(),
            directory: PathBuf::from("/tmp"),
            capture_directories: Vec::new(),
            controller: None,
            process: Vec::new(),
        }
    }
}

/// `[spp.controller]`: an external spp-ctl, which sees the instances as processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControllerConfig {
    /// IP address of spp-ctl.
    pub address: IpAddr,
    /// TCP port for the primary.
    pub primary_port: u16,
    /// TCP port for all other processes.
    pub secondary_port: u16,
    /// Form of the status of nfv processes.
    pub status_format: StatusFormat,
}

/// Form of the status of an nfv process. spp-ctl requests both forms in the same way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StatusFormat {
    /// The form that spp-ctl reads since the end of 2018.
    #[default]
    Json,
    /// The form before that. It calls classifiers `classifier_mac`.
    Text,
}

impl Default for ControllerConfig {
    fn default() -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            primary_port: 5555,
            secondary_port: 6666,
            status_format: StatusFormat::Json,
        }
    }
}

/// `[[spp.process]]`: an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessConfig {
    /// Type.
    #[serde(rename = "type")]
    pub kind: ProcType,
    /// Client id. The primary has none.
    #[serde(default)]
    pub client_id: u32,
    /// Its lcores, the master core first. If empty, it may use any lcore that no other instance has.
    #[serde(default)]
    pub cores: Vec<u32>,
    /// pcap: the port to capture.
    #[serde(default)]
    pub port: Option<PortId>,
    /// pcap: directory of the files. Default: that of `[spp]`.
    #[serde(default)]
    pub directory: Option<PathBuf>,
    /// pcap: file size in bytes at which the next file begins, at least 1 MiB. Default: 1 GiB.
    #[serde(default)]
    pub limit: Option<u64>,
    /// pcap: `none`, `lz4` or `zstd`. Default: `lz4`.
    #[serde(default)]
    pub compression: Compression,
}

impl ProcessConfig {
    /// Checks what the resulting [`Instance`] does not show any more.
    fn check(&self) -> Result<(), String> {
        if let Some(directory) = &self.directory {
            absolute("directory", directory)?;
        }
        let files = self.directory.is_some() || self.limit.is_some() || self.compression != Compression::default();
        if files && self.kind != ProcType::Pcap {
            return Err("directory, limit and compression are of captures: only a pcap instance has one".to_owned());
        }
        Ok(())
    }
}

impl SppConfig {
    /// Worker of each configured lcore.
    pub fn cores(&self) -> BTreeMap<u32, usize> {
        self.cores.iter().filter_map(|(core, &worker)| Some((core.parse().ok()?, worker))).collect()
    }

    /// The instances.
    pub fn instances(&self) -> Vec<Instance> {
        let instance = |process: &ProcessConfig| {
            let capture = process.port.map(|port| CaptureOptions {
                port,
                directory: process.directory.clone().unwrap_or_else(|| self.directory.clone()),
                limit: process.limit.unwrap_or(DEFAULT_CAPTURE_LIMIT),
                compression: process.compression,
                confined: false,
            });
            Instance::new(Proc { kind: process.kind, id: process.client_id }, process.cores.clone(), capture)
        };
        self.process.iter().map(instance).collect()
    }

    /// Directories in which any client may have captures written.
    pub fn capture_roots(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.directory).chain(&self.capture_directories).map(PathBuf::as_path)
    }

    fn check(&self, workers: usize) -> Result<(), String> {
        if !self.listen.is_empty() {
            address("spp.listen", &self.listen, 7777)?;
        }
        for (core, &worker) in &self.cores {
            if !core.parse::<u32>().is_ok_and(|core| core <= MAX_LCORE) {
                return Err(format!("spp.cores: `{core}` is not the number of a core: 0 to {MAX_LCORE} are"));
            }
            if worker >= workers {
                let last = workers - 1;
                return Err(format!(
                    "spp.cores: core {core}: there is no worker {worker}; the last one is {last}: see `workers` in [dataplane]"
                ));
            }
        }
        let ports = self.controller.as_ref().map(|controller| [controller.primary_port, controller.secondary_port]);
        if ports.is_some_and(|ports| ports.contains(&0)) {
            return Err("spp.controller: 0 is not a port".to_owned());
        }
        absolute("spp.directory", &self.directory)?;
        self.capture_directories.iter().try_for_each(|path| absolute("spp.capture_directories", path))?;
        let mut instances = BTreeMap::new();
        for (process, instance) in self.process.iter().zip(self.instances()) {
            let proc = instance.proc;
            let wrong = |why: String| format!("spp.process: {proc}: {why}");
            process.check().map_err(wrong)?;
            spp::check_launch(&instances, &instance).map_err(|error| wrong(error.to_string()))?;
            instances.insert(proc, instance);
        }
        Ok(())
    }
}

impl DpuConfig {
    /// The permission bits.
    pub fn mode(&self) -> Result<u32, String> {
        mode("dpu", &self.socket_mode)
    }

    fn check(&self) -> Result<(), String> {
        self.mode()?;
        let files = [("certificate", &self.certificate), ("key", &self.key), ("client_ca", &self.client_ca)];
        match &self.listen {
            Some(listen) => {
                address("dpu.listen", listen, 50051)?;
                match files.iter().find(|(_, file)| file.is_none()) {
                    None => Ok(()),
                    Some((name, _)) => {
                        Err(format!("dpu.{name}: dpu.listen needs it: without TLS there is the Unix socket only"))
                    }
                }
            }
            None => match files.iter().find(|(_, file)| file.is_some()) {
                None => Ok(()),
                Some((name, _)) => Err(format!("dpu.{name}: it is of no use without dpu.listen")),
            },
        }
    }
}

impl Config {
    /// Reads the named file. Without a name it reads the default file, or takes the defaults if there is none.
    pub fn load(named: Option<&Path>) -> Result<Self, Error> {
        let path = named.map_or_else(|| PathBuf::from(DEFAULT_PATH), Path::to_owned);
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).map_err(|why| Error::Config { path, why }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => Ok(Self::default()),
            Err(error) => Err(Error::Config { path, why: error.to_string() }),
        }
    }

    /// Parses and checks the text of a file.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        config.api.mode()?;
        config.dpu.check()?;
        config.guests.access()?;
        config.spp.check(config.dataplane.workers as usize)?;
        if config.guests.bpffs.as_os_str().as_encoded_bytes().contains(&b'.') || !config.guests.bpffs.is_absolute() {
            let path = config.guests.bpffs.display();
            return Err(format!("guests.bpffs: {path} is not an absolute path without dots, such as /sys/fs/bpf"));
        }
        if !config.metrics.listen.is_empty() {
            address("metrics.listen", &config.metrics.listen, 9477)?;
        }
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
            ("[[port]]\nname = \"x\"\nkind = \"tap\"\n", "kind"),
        ] {
            let why = Config::parse(text).unwrap_err();
            assert!(why.contains(key), "{key}: {why}");
        }
        assert!(Config::parse("[dataplane]\nworker = 2\n").unwrap_err().contains("line 2"));
    }

    #[test]
    fn what_the_documents_show_is_taken_as_it_is() {
        for document in [include_str!("../../docs/spp.md"), include_str!("../../docs/operators-guide.md")] {
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
        assert!(matches!(Config::load(Some(Path::new("/nonexistent/xswitch.toml"))), Err(Error::Config { .. })));
    }
}
