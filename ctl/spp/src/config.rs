//! The `[spp]` section of the configuration file: the REST API, an outside spp-ctl, and instances.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use ctl_listen::config::address;
use serde::{Deserialize, Serialize};
use switch::model::{Compression, MAX_END_NO, MAX_SOCKET_PATH, MAX_VHOST_PAIRS};

use crate::change::MAX_PORTS;
use crate::launch::MAX_LCORE;
use crate::{CaptureOptions, DEFAULT_CAPTURE_LIMIT, Instance, PortId, Proc, ProcType, check_launch};

/// `[spp]`: the API of the Soft Patch Panel, and its instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SppConfig {
    /// TCP address of the REST API. Empty: it is off.
    pub listen: String,
    /// Host names that clients of the REST API may use, besides IP addresses, `localhost` and the machine's name.
    pub hosts: Vec<String>,
    /// Worker of each lcore, by the lcore's number. Other lcores are spread over the workers by number.
    pub cores: BTreeMap<String, usize>,
    /// Directory of the files of `pcap:N` ports, and of captures without a directory of their own.
    pub directory: PathBuf,
    /// More directories in which REST clients and an external spp-ctl may write captures. Subdirectories are included.
    pub capture_directories: Vec<PathBuf>,
    /// Sockets of `vhost:N` ports that the Soft Patch Panel makes.
    pub vhost: VhostConfig,
    /// Most ports of one instance, 1 to 254: all NICs, and the ports that were added. SPP has 32.
    pub max_ports: u32,
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
            vhost: VhostConfig::default(),
            max_ports: MAX_PORTS,
            controller: None,
            process: Vec::new(),
        }
    }
}

/// `[spp.vhost]`: the sockets that are made for `vhost:N` when the switch has no port of that name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VhostConfig {
    /// Directory of the sockets. Their names are `sockN`.
    pub directory: PathBuf,
    /// User that a socket belongs to, a name or a number. Absent: the daemon's.
    pub owner: Option<String>,
    /// Group that a socket belongs to, a name or a number. Absent: what the directory gives.
    pub group: Option<String>,
    /// Permission bits of a socket, in octal. Absent: `660`.
    pub mode: Option<String>,
    /// Queue pairs of a port, 1 to 128. It has more if an instance names a higher queue.
    pub queues: u32,
}

impl Default for VhostConfig {
    fn default() -> Self {
        Self { directory: PathBuf::from("/tmp"), owner: None, group: None, mode: None, queues: 1 }
    }
}

impl VhostConfig {
    /// The socket of `vhost:no`.
    pub fn socket(&self, no: u32) -> PathBuf {
        self.directory.join(format!("sock{no}"))
    }

    fn check(&self) -> Result<(), String> {
        absolute("spp.vhost.directory", &self.directory)?;
        if self.socket(MAX_END_NO).as_os_str().len() > MAX_SOCKET_PATH {
            let at = self.directory.display();
            return Err(format!(
                "spp.vhost.directory: `{at}` is too long: sockets have {MAX_SOCKET_PATH} bytes at most"
            ));
        }
        if !(1..=MAX_VHOST_PAIRS).contains(&self.queues) {
            return Err(format!("spp.vhost.queues: {}: 1 to {MAX_VHOST_PAIRS} are possible", self.queues));
        }
        let octal = |mode: &String| u32::from_str_radix(mode, 8).is_ok_and(|mode| mode <= 0o777);
        match self.mode.as_ref().filter(|mode| !octal(mode)) {
            Some(mode) => Err(format!("spp.vhost.mode: `{}` is not an octal mode, such as 660", mode.escape_default())),
            None => Ok(()),
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
    /// The forms that its version takes.
    pub status_format: StatusFormat,
}

/// The forms that a version of spp-ctl takes from an nfv process: of its client id and of its status. spp-ctl asks for
/// all of them in the same way. All but the first call classifiers `classifier_mac`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StatusFormat {
    /// Since 2019: both are JSON.
    #[default]
    Json,
    /// 18.05.1: the id is a number, the status JSON.
    #[serde(rename = "json-number")]
    JsonNumber,
    /// spp-ctl as first merged, in October 2018: the id is a number. The status is a line with the state, and one with
    /// pairs of ports.
    Pairs,
    /// The patch of September 2018: the id is a number. The status is a line for each port.
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
    /// pcap: the port that is captured.
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
    /// Checks what can't be seen in the resulting [`Instance`].
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

    /// The configured instances.
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

    /// Checks the section for a switch with this number of workers.
    ///
    /// # Errors
    /// The wrong key, and why.
    pub fn check(&self, workers: usize) -> Result<(), String> {
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
        self.vhost.check()?;
        if !(1..=MAX_PORTS).contains(&self.max_ports) {
            return Err(format!("spp.max_ports: {}: 1 to {MAX_PORTS} are possible", self.max_ports));
        }
        self.capture_directories.iter().try_for_each(|path| absolute("spp.capture_directories", path))?;
        let mut instances = BTreeMap::new();
        for (process, instance) in self.process.iter().zip(self.instances()) {
            let proc = instance.proc;
            let wrong = |why: String| format!("spp.process: {proc}: {why}");
            process.check().map_err(wrong)?;
            check_launch(&instances, &instance).map_err(|error| wrong(error.to_string()))?;
            instances.insert(proc, instance);
        }
        Ok(())
    }
}

/// Checks that a path is absolute, so that it does not depend on the daemon's working directory.
fn absolute(name: &str, path: &Path) -> Result<(), String> {
    let why = || format!("{name}: `{}` is not an absolute path, such as /var/lib/xswitch/pcap", path.display());
    path.is_absolute().then_some(()).ok_or_else(why)
}
