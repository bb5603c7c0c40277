//! Learned addresses are kept for the next daemon, so that a restart causes no flooding.
//!
//! They are in a file of the run directory, which is empty after a reboot. The file's modification time is when its
//! contents were last valid. At that time no entry was older than the ageing time.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use switch::model::*;

use crate::Service;

/// The pause after a save is this many times the duration of the save.
const REST: u32 = 20;

/// The file, and a hash of its contents.
#[derive(Debug)]
pub struct LearnedFile {
    path: PathBuf,
    written: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    contents: Option<u64>,
    not_before: Option<Instant>,
}

impl LearnedFile {
    /// The file at `path`. It may be missing.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), written: Mutex::default() }
    }

    fn load(&self, ageing: Duration) -> Vec<FdbEntry> {
        let read = || -> std::io::Result<Vec<FdbEntry>> {
            let age = SystemTime::now().duration_since(std::fs::metadata(&self.path)?.modified()?).unwrap_or_default();
            if age >= ageing {
                return Ok(Vec::new());
            }
            Ok(serde_json::from_slice(&std::fs::read(&self.path)?)?)
        };
        read().unwrap_or_else(|error| {
            if error.kind() != std::io::ErrorKind::NotFound {
                tracing::warn!(path = %self.path.display(), %error, "learned addresses are not restored");
            }
            Vec::new()
        })
    }

    fn save(&self, rows: impl FnOnce() -> Vec<FdbEntry>, at_once: bool) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let started = Instant::now();
        if !at_once && written.not_before.is_some_and(|moment| started < moment) {
            return;
        }
        let rows = rows();
        let mut hasher = DefaultHasher::new();
        rows.iter().for_each(|row| (row.mac, row.vlan, &row.port).hash(&mut hasher));
        let contents = hasher.finish();
        let result = if written.contents == Some(contents) {
            let file = File::options().write(true).open(&self.path);
            file.and_then(|file| file.set_modified(SystemTime::now()))
        } else {
            let new = self.path.with_extension("new");
            let bytes = serde_json::to_vec(&rows).unwrap_or_default();
            // Only the daemon's user may read the addresses of guests.
            let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new);
            file.and_then(|mut file| file.write_all(&bytes)).and_then(|()| std::fs::rename(&new, &self.path))
        };
        written.contents = match result {
            Ok(()) => Some(contents),
            Err(error) => {
                tracing::debug!(path = %self.path.display(), %error, "learned addresses are not kept");
                None
            }
        };
        written.not_before = Some(Instant::now() + REST * started.elapsed());
    }
}

impl Service {
    /// Relearns the addresses of an earlier daemon, unless they have aged out.
    pub fn restore_learned(&self, file: &LearnedFile) {
        let ageing = Duration::from_secs(self.dataplane.bridge().fdb_ageing_seconds.into());
        let rows = file.load(ageing);
        let learned = self.dataplane.relearn(&rows);
        if !rows.is_empty() {
            tracing::info!(learned, kept = rows.len(), "addresses that were learned before the restart");
        }
    }

    /// Saves the learned addresses for the next daemon. Without `at_once` it may skip this time.
    pub fn keep_learned(&self, file: &LearnedFile, at_once: bool) {
        let learned = || self.dataplane.fdb().into_iter().filter(|row| row.kind == FdbKind::Learned).collect();
        file.save(learned, at_once);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: u8) -> FdbEntry {
        let mac = MacAddr::new([2, 0, 0, 0, 0, n]);
        FdbEntry { mac, vlan: 0, port: "vm1".into(), kind: FdbKind::Learned, age_seconds: 3, held: false }
    }

    const LONG: Duration = Duration::from_secs(300);

    #[test]
    fn what_was_true_a_moment_ago_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let file = LearnedFile::at(&dir.path().join("fdb.json"));
        assert_eq!(file.load(LONG), []);
        file.save(|| vec![row(1), row(2)], true);
        assert_eq!(file.load(LONG), [row(1), row(2)]);
        file.save(|| vec![row(2)], true);
        assert_eq!(file.load(LONG), [row(2)]);
    }

    #[test]
    fn what_was_true_too_long_ago_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = LearnedFile::at(&dir.path().join("fdb.json"));
        file.save(|| vec![row(1)], true);
        let set = |ago: Duration| {
            let opened = std::fs::File::options().write(true).open(&file.path).unwrap();
            opened.set_modified(SystemTime::now() - ago).unwrap();
        };
        set(LONG);
        assert_eq!(file.load(LONG), []);
        // The same entries are valid once more.
        file.save(|| vec![row(1)], true);
        assert_eq!(file.load(LONG), [row(1)]);
    }

    #[test]
    fn a_damaged_file_is_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = LearnedFile::at(&dir.path().join("fdb.json"));
        std::fs::write(&file.path, b"[{").unwrap();
        assert_eq!(file.load(LONG), []);
        file.save(|| vec![row(1)], true);
        assert_eq!(file.load(LONG), [row(1)]);
    }

    #[test]
    fn a_long_table_is_not_written_all_the_time() {
        let dir = tempfile::tempdir().unwrap();
        let file = LearnedFile::at(&dir.path().join("fdb.json"));
        let slow = || {
            std::thread::sleep(Duration::from_millis(50));
            vec![row(1)]
        };
        file.save(slow, false);
        file.save(|| unreachable!("it is not time yet"), false);
    }
}
