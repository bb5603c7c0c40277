//! The section `[guests]` of the configuration file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use switch::check_name;

use crate::Access;

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
    /// Checks the values.
    ///
    /// # Errors
    /// The key, and what is wrong with its value.
    pub fn check(&self) -> Result<(), String> {
        if self.bpffs.as_os_str().as_encoded_bytes().contains(&b'.') || !self.bpffs.is_absolute() {
            let path = self.bpffs.display();
            return Err(format!("guests.bpffs: {path} is not an absolute path without dots, such as /sys/fs/bpf"));
        }
        Ok(())
    }

    /// The configured users as user ids.
    pub fn access(&self) -> Result<Access, String> {
        let numbers = |at: &str, users: &[String]| -> Result<Vec<u32>, String> {
            users.iter().map(|user| uid_of(user).map_err(|why| format!("{at}: {why}"))).collect()
        };
        let everywhere = numbers("guests.users", &self.users)?;
        let ports = self.ports.iter().map(|(port, users)| {
            check_name(port).map_err(|error| format!("guests.ports: {error}"))?;
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
