//! The `[spp]` section of the configuration file: the REST API, an outside spp-ctl, and instances.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use ctl_listen::config::address;
use serde::{Deserialize, Serialize};
use switch::model::Compression;

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
