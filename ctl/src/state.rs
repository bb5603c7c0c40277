//! The state file: what was configured at run time and outlives the daemon.
//!
//! It is replaced as a whole: written beside the old one, synced, renamed over it, and the directory synced. So after a crash
//! or a power cut there is the old state or the new one. A file that can't be read is never overwritten.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use switch::model::{BridgeSettings, FdbSpec, PortSpec};

use crate::error::Error;

/// Version of the format that this program writes, and the only one it reads.
const VERSION: u32 = 1;
const FILE: &str = "state.json";

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    version: u32,
    /// Bridge settings, once they were set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<BridgeSettings>,
    /// Ports, in the order they were added, with every default filled in.
    pub ports: Vec<PortSpec>,
    /// Static rows of the MAC table.
    pub fdb: Vec<FdbSpec>,
}

/// The place of the file.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// The store in a directory, which is made if it is not there.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(dir).map_err(|error| Error::io(format!("making {}", dir.display()), error))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// The file.
    pub fn path(&self) -> PathBuf {
        self.dir.join(FILE)
    }

    /// Reads the state; without a file it is empty.
    pub fn load(&self) -> Result<State, Error> {
        let path = self.path();
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(State { version: VERSION, ..State::default() });
            }
            Err(error) => return Err(Error::State { path, why: error.to_string() }),
        };
        // The version first: a newer format is told from a damaged file.
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let damaged =
            |error: serde_json::Error| Error::State { path: path.clone(), why: format!("it is damaged: {error}") };
        let Version { version } = serde_json::from_slice(&text).map_err(damaged)?;
        if version != VERSION {
            return Err(Error::State {
                path,
                why: format!("its format is version {version}, this xswitchd knows {VERSION}"),
            });
        }
        serde_json::from_slice(&text).map_err(damaged)
    }

    /// Replaces the state on disk.
    pub fn save(&self, state: &State) -> Result<(), Error> {
        self.replace(state).map_err(|source| Error::NotKept { path: self.path(), source })
    }

    fn replace(&self, state: &State) -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".state-").suffix(".tmp").tempfile_in(&self.dir)?;
        serde_json::to_writer_pretty(&mut file, &State { version: VERSION, ..state.clone() })?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(self.path())?;
        File::open(&self.dir)?.sync_all()
    }
}

/// A directory that no other daemon has while this lives.
#[derive(Debug)]
pub struct DirLock {
    _file: Flock<File>,
}

impl DirLock {
    /// Takes a directory, which is made if it is not there.
    pub fn take(dir: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(dir).map_err(|error| Error::io(format!("making {}", dir.display()), error))?;
        let path = dir.join("xswitchd.lock");
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = opened.map_err(|error| Error::io(format!("opening {}", path.display()), error))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                let id = std::process::id().to_string();
                nix::unistd::ftruncate(file.as_fd(), 0)
                    .map_err(std::io::Error::from)
                    .and_then(|()| file.write_all(id.as_bytes()))
                    .map_err(|error| Error::io(format!("writing {}", path.display()), error))?;
                Ok(Self { _file: file })
            }
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                let holder = std::fs::read_to_string(&path).unwrap_or_default();
                Err(Error::InUse { path, holder: if holder.is_empty() { "unknown".to_owned() } else { holder } })
            }
            Err((_, errno)) => Err(Error::io(format!("locking {}", path.display()), errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use switch::model::PortKind;

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let (_dir, store) = store();
        assert_eq!(store.load().unwrap().ports, []);
        let mut state = store.load().unwrap();
        state.ports.push(PortSpec::new("vm1", PortKind::Guest));
        store.save(&state).unwrap();
        assert_eq!(store.load().unwrap(), state);
    }

    #[test]
    fn a_damaged_or_foreign_file_is_refused_and_kept() {
        let (_dir, store) = store();
        for text in ["", "{", "{\"version\": 1, \"ports\": 7}", "{\"version\": 2}", "\0\0\0\0"] {
            std::fs::write(store.path(), text).unwrap();
            let error = store.load().unwrap_err();
            assert!(error.to_string().contains(&store.path().display().to_string()), "{error}");
            assert_eq!(std::fs::read_to_string(store.path()).unwrap(), text);
        }
    }

    #[test]
    fn a_write_that_was_cut_off_leaves_the_old_state() {
        let (dir, store) = store();
        let mut state = store.load().unwrap();
        state.ports.push(PortSpec::new("vm1", PortKind::Guest));
        store.save(&state).unwrap();
        std::fs::write(dir.path().join(".state-cut.tmp"), "{\"version\": 1, \"po").unwrap();
        assert_eq!(store.load().unwrap(), state);
    }

    #[test]
    fn a_state_that_cannot_be_written_is_an_error() {
        let (dir, store) = store();
        std::fs::remove_dir(dir.path()).unwrap();
        assert!(matches!(store.save(&State::default()), Err(Error::NotKept { .. })));
        std::fs::create_dir(dir.path()).unwrap();
    }

    #[test]
    fn a_directory_has_one_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::take(dir.path()).unwrap();
        let error = DirLock::take(dir.path()).unwrap_err();
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        drop(lock);
        DirLock::take(dir.path()).unwrap();
    }
}
