//! The disks of a daemon: which there are, and how they are made, changed, deleted and watched.
//!
//! A disk is what its [`DiskSpec`] says, as soon and as long as that is possible. One whose image is gone is kept as
//! failed with the reason, and is tried again by [`Disks::retry`]. The caller keeps specs over restarts: changes are
//! given to it before they are acknowledged.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`Disks`], `table` | all disks, by number |
//! | `change` | operations that clients ask for: they wait, for a limited time |
//! | `declared` | what a configuration asks for: it waits for nothing |
//! | `served` | one disk and its thread |
//! | `open` | bringing a disk up |
//! | `spec`, `config` | what may be. Pure |
//! | `show`, `doctor` | what is |
//!
//! Whatever touches storage is done by a thread of that disk. No caller waits for storage without a limit, and no lock
//! is held meanwhile, but a disk's own turn. So a disk that hangs delays neither ports nor other disks.
//!
//! This crate knows neither the switch nor the state file. The service orders and keeps what is done here.
#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "small numbers of tests"))]
#![forbid(unsafe_code)]

mod change;
mod config;
mod declared;
mod doctor;
mod error;
mod open;
mod served;
mod show;
mod spec;
mod table;
mod turn;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ctl_types::{DiskEntry, DiskSpec, DiskStats};
use model::Usage;

pub use self::change::Deletion;
pub use self::config::{DiskSettings, DisksConfig};
pub use self::declared::{Turns, check_all};
pub use self::doctor::check_machine;
pub use self::error::Error;
use self::served::{Served, Surroundings};
pub use self::spec::{SECTOR, complete, declared as complete_declared, is_live_change};
use self::table::Table;

/// How long disks may take to end when the daemon does.
const END_WAIT: Duration = Duration::from_secs(10);

/// Hears that a disk which may make its image has one now. It gets the name. The disk is not served yet, and an error
/// keeps it from being served. From then on the image is not made again: a guest may have written to it.
///
/// A thread of the disk calls it, without a lock.
pub type ImageNotice = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// All disks. Any thread may call it.
pub struct Disks {
    settings: Arc<DiskSettings>,
    table: Arc<Table>,
    image_is_there: ImageNotice,
}

impl Disks {
    /// No disks yet. `image_is_there` hears of images before their disks are served.
    pub fn new(settings: DiskSettings, image_is_there: ImageNotice) -> Self {
        Self { settings: Arc::new(settings), table: Arc::default(), image_is_there }
    }

    /// Where disks may be, and what they are if they don't say.
    pub fn settings(&self) -> &DiskSettings {
        &self.settings
    }

    /// Disks that there can be, and how many can still be made.
    pub fn usage(&self) -> Usage {
        let used = u32::try_from(self.table.lock().len()).unwrap_or(u32::MAX);
        Usage { total: self.settings.capacity, free: self.settings.capacity.saturating_sub(used) }
    }

    /// What all disks are to be, by name. Those that a client is still making are not among them.
    pub fn specs(&self) -> Vec<DiskSpec> {
        let kept = |served: &Arc<Served>| {
            let shown = served.shown();
            (!shown.fresh).then(|| shown.spec.clone())
        };
        let mut specs: Vec<_> = self.all().iter().filter_map(kept).collect();
        specs.sort_by(|one, other| one.name.cmp(&other.name));
        specs
    }

    /// Threads that serve all disks.
    pub fn threads(&self) -> u32 {
        self.specs().iter().map(|spec| spec.threads.unwrap_or(self.settings.threads)).sum()
    }

    /// All disks, by number.
    pub fn entries(&self) -> Vec<DiskEntry> {
        self.all().iter().map(|served| show::entry(&served.shown())).collect()
    }

    /// A disk, by name or number.
    ///
    /// # Errors
    /// There is none.
    pub fn entry(&self, key: &str) -> Result<DiskEntry, Error> {
        Ok(show::entry(&self.table.find(key)?.shown()))
    }

    /// Counters of all disks, by number.
    pub fn stats(&self) -> Vec<DiskStats> {
        self.all().iter().map(|served| show::stats(&served.shown())).collect()
    }

    /// Counters of a disk, by name or number.
    ///
    /// # Errors
    /// There is none.
    pub fn stats_of(&self, key: &str) -> Result<DiskStats, Error> {
        Ok(show::stats(&self.table.find(key)?.shown()))
    }

    /// Has disks that are not up be tried again, and looks at the others. Waits for nothing.
    pub fn retry(&self) {
        self.all().iter().for_each(|served| served.look());
    }

    /// What a disk knows of the others and of the daemon.
    fn surroundings(&self) -> Surroundings {
        Surroundings {
            settings: Arc::clone(&self.settings),
            taken: self.table.taken(),
            image_is_there: Arc::clone(&self.image_is_there),
        }
    }

    /// Disks that are not being deleted.
    fn all(&self) -> Vec<Arc<Served>> {
        self.table.all()
    }
}

impl std::fmt::Debug for Disks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disks").field("settings", &self.settings).field("table", &self.table).finish_non_exhaustive()
    }
}

impl Drop for Disks {
    /// Ends all disks side by side, after the requests in work. A disk whose storage does not answer is left to the
    /// end of the process.
    fn drop(&mut self) {
        let all = std::mem::take(&mut *self.table.lock());
        let threads: Vec<_> = all
            .into_values()
            .filter_map(|served| {
                let name = served.shown().spec.name.clone();
                Some((name, served.end()?))
            })
            .collect();
        let until = Instant::now() + END_WAIT;
        for (name, thread) in threads {
            while !thread.is_finished() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(2));
            }
            if !thread.is_finished() {
                tracing::error!(disk = name, "the disk's storage does not answer: the disk is left");
            }
        }
    }
}
