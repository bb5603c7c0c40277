//! `[disks]` of the configuration file. It is fixed until a restart.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Disks that there can be, if the configuration names no number.
const DEFAULT_CAPACITY: u32 = 256;
/// Most disks that a configuration may ask for.
const MAX_CAPACITY: u32 = 1024;
/// Bytes of a new image, if nothing else is said. A client of the DPU interface can't say how large a new disk is to
/// be, and disks only grow. So it is small.
const DEFAULT_SIZE: u64 = 1 << 20;

/// `[disks]`: where disks may be, and what they are if they don't say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DisksConfig {
    /// Directories that images may lie in. New ones without a path are made in the first. Default: `disks` in the
    /// state directory, which is made.
    pub directories: Option<Vec<PathBuf>>,
    /// Block devices that may be images, by absolute path.
    pub devices: Vec<PathBuf>,
    /// Directory of the sockets of disks that name none. Default: `disks` in the run directory, which is made.
    pub socket_directory: Option<PathBuf>,
    /// Disks that there can be: `total_pvf_cnt` of the DPU interface, 1 to 1024.
    pub capacity: u32,
    /// Bytes of new images for which nothing else is said. A multiple of 4096.
    pub default_size: u64,
    /// Threads that serve the queues of a disk.
    pub threads: u32,
    /// CPUs of these threads, in turn. Default: any.
    pub cpus: Vec<usize>,
}

impl Default for DisksConfig {
    fn default() -> Self {
        Self {
            directories: None,
            devices: Vec::new(),
            socket_directory: None,
            capacity: DEFAULT_CAPACITY,
            default_size: DEFAULT_SIZE,
            threads: 1,
            cpus: Vec::new(),
        }
    }
}

impl DisksConfig {
    /// Checks what does not depend on the machine.
    ///
    /// # Errors
    /// The key, and what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let absolute = |key: &str, path: &Path| match is_plain(path) {
            true => Ok(()),
            false => Err(format!("disks.{key}: `{}` is not an absolute path without `.` and `..`", path.display())),
        };
        self.directories.iter().flatten().try_for_each(|path| absolute("directories", path))?;
        self.devices.iter().try_for_each(|path| absolute("devices", path))?;
        self.socket_directory.iter().try_for_each(|path| absolute("socket_directory", path))?;
        if self.directories.as_ref().is_some_and(Vec::is_empty) && self.devices.is_empty() {
            return Err("disks.directories: without a directory and a block device there can be no disks".to_owned());
        }
        if !(1..=MAX_CAPACITY).contains(&self.capacity) {
            return Err(format!("disks.capacity: {} is out of range, 1 to {MAX_CAPACITY} are possible", self.capacity));
        }
        if self.default_size == 0 || !self.default_size.is_multiple_of(4096) {
            return Err(format!("disks.default_size: {} is no multiple of 4096 above 0", self.default_size));
        }
        if self.threads == 0 || self.threads > 256 {
            return Err(format!("disks.threads: {} is out of range, 1 to 256 are possible", self.threads));
        }
        crate::spec::check_cpus("disks.cpus", &self.cpus).map_err(|error| error.to_string())
    }

    /// The same with the daemon's own directories where it names none.
    pub fn settings(&self, run_dir: &Path, state_dir: &Path) -> DiskSettings {
        let own = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let (sockets, images) = (own(run_dir.join("disks")), own(state_dir.join("disks")));
        let mut made = BTreeSet::new();
        let directories = self.directories.clone().unwrap_or_else(|| {
            made.insert(images.clone());
            vec![images]
        });
        let socket_directory = self.socket_directory.clone().unwrap_or_else(|| {
            made.insert(sockets.clone());
            sockets
        });
        DiskSettings { directories, socket_directory, made, ..self.clone().into() }
    }
}

/// Whether a path is absolute, and has neither `.` nor `..`.
pub(crate) fn is_plain(path: &Path) -> bool {
    use std::path::Component;
    path.is_absolute()
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
        && path.to_str().is_some_and(|text| !text.split('/').any(|part| part == "."))
}

/// Where disks may be, and what they are if they don't say. The default has no place for any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSettings {
    /// Directories that images may lie in.
    pub directories: Vec<PathBuf>,
    /// Block devices that may be images.
    pub devices: Vec<PathBuf>,
    /// Directory of sockets.
    pub socket_directory: PathBuf,
    /// Directories that are made if they are not there, because they are the daemon's own.
    pub made: BTreeSet<PathBuf>,
    /// Disks that there can be.
    pub capacity: u32,
    /// Bytes of new images.
    pub default_size: u64,
    /// Threads of a disk.
    pub threads: u32,
    /// Their CPUs.
    pub cpus: Vec<usize>,
}

impl From<DisksConfig> for DiskSettings {
    fn from(config: DisksConfig) -> Self {
        Self {
            directories: config.directories.unwrap_or_default(),
            devices: config.devices,
            socket_directory: config.socket_directory.unwrap_or_default(),
            made: BTreeSet::new(),
            capacity: config.capacity,
            default_size: config.default_size,
            threads: config.threads,
            cpus: config.cpus,
        }
    }
}

impl Default for DiskSettings {
    fn default() -> Self {
        DisksConfig::default().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_is_refused_with_its_key() {
        for (text, key) in [
            ("directories = [\"images\"]", "directories"),
            ("directories = [\"/a/../b\"]", "directories"),
            ("directories = [\"/a/./b\"]", "directories"),
            ("directories = []", "directories"),
            ("devices = [\"sda\"]", "devices"),
            ("socket_directory = \"x\"", "socket_directory"),
            ("capacity = 0", "capacity"),
            ("capacity = 1025", "capacity"),
            ("default_size = 0", "default_size"),
            ("default_size = 512", "default_size"),
            ("threads = 0", "threads"),
            ("threads = 257", "threads"),
            ("cpus = [100000]", "cpus"),
        ] {
            let config: DisksConfig = toml::from_str(text).unwrap();
            let why = config.check().unwrap_err();
            assert!(why.starts_with(&format!("disks.{key}: ")), "{text}: {why}");
        }
        assert_eq!(toml::from_str::<DisksConfig>("").unwrap().check(), Ok(()));
        assert!(toml::from_str::<DisksConfig>("directory = []").is_err());
    }

    #[test]
    fn only_the_daemons_own_directories_are_made() {
        let settings = DisksConfig::default().settings(Path::new("/run/x"), Path::new("/state"));
        assert_eq!(settings.directories, [Path::new("/state/disks")]);
        assert_eq!(settings.made, BTreeSet::from(["/run/x/disks".into(), "/state/disks".into()]));
        let named: DisksConfig = toml::from_str("directories = [\"/a\"]\nsocket_directory = \"/s\"").unwrap();
        let settings = named.settings(Path::new("/run/x"), Path::new("/state"));
        assert!(settings.made.is_empty() && settings.socket_directory == Path::new("/s"));
    }
}
