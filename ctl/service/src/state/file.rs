//! The state file on disk: made complete or not at all, for the daemon's user only, and looked at before it is touched.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use redb::backends::FileBackend;
use redb::{Database, DatabaseError, StorageError};

use super::overlay::Overlay;
use super::rows::{parse, read, write};
use super::{Row, Tables, not_kept, unusable};
use crate::error::Error;
use crate::place::Place;

/// First bytes of a redb database.
const MAGIC: &[u8; 9] = b"redb\x1a\x0a\xa9\x0d\x0a";
/// Limit of the database's cache, in bytes.
const CACHE: usize = 4 << 20;

/// The file. It stays open, so the database can be opened again even if the file was removed.
#[derive(Debug)]
pub(super) struct StateFile {
    file: File,
    place: Place,
    /// Length and time of change after the last write of this daemon.
    stamp: Option<(u64, SystemTime)>,
}

/// Length and time of change of a file.
fn stamp(file: &File) -> Option<(u64, SystemTime)> {
    let meta = file.metadata().ok()?;
    Some((meta.len(), meta.modified().ok()?))
}

/// Creates a directory of the daemon, if it does not exist. Only the daemon's user may write there.
///
/// # Errors
/// If it can't be created.
pub fn make_directory(dir: &Path) -> Result<(), Error> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(dir);
    made.map_err(|error| Error::io(format!("making {}", dir.display()), error))
}

/// Checks a file's magic number. redb itself would turn an empty file into a database.
fn check_begins(path: &Path, file: &File) -> Result<(), Error> {
    let mut head = [0; MAGIC.len()];
    match file.read_exact_at(&mut head, 0) {
        Ok(()) if head == *MAGIC => Ok(()),
        _ => Err(unusable(path, "it is damaged or no state file")),
    }
}

/// Catches panics while a file is read. redb panics on some inconsistent files, such as truncated ones.
pub(super) fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    std::panic::catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(unusable(path, "it is damaged")))
}

pub(super) fn database_error(path: &Path, error: &DatabaseError) -> Error {
    match error {
        DatabaseError::DatabaseAlreadyOpen => unusable(path, "another process has it open"),
        DatabaseError::UpgradeRequired(format) => {
            unusable(path, format_args!("it is in redb's file format {format}, which this xswitchd can't read"))
        }
        error => unusable(path, format_args!("it is damaged or no state file: {error}")),
    }
}

/// Whether a database has the file open.
pub(super) fn is_open(path: &Path) -> bool {
    std::panic::catch_unwind(|| {
        matches!(Database::builder().open_read_only(path), Err(DatabaseError::DatabaseAlreadyOpen))
    })
    .unwrap_or(false)
}

/// Checks that a file is usable, without writing to it: format, checksums of all pages, and all rows. A file that a
/// killed daemon left is repaired in memory first.
pub(super) fn verify(path: &Path, tables: &Tables) -> Result<(), Error> {
    let unreadable = |error: std::io::Error| unusable(path, error);
    check_begins(path, &File::open(path).map_err(unreadable)?)?;
    guarded(path, || {
        let overlay = Overlay::open(path).map_err(unreadable)?;
        let mut builder = Database::builder();
        let mut database =
            builder.set_cache_size(CACHE).create_with_backend(overlay).map_err(|error| database_error(path, &error))?;
        parse(path, &read(path, &database)?, tables)?;
        match database.check_integrity() {
            Ok(true) => Ok(()),
            Ok(false) => Err(unusable(path, "it is damaged: its pages do not fit together")),
            Err(DatabaseError::Storage(StorageError::Io(error))) => Err(unusable(path, error)),
            Err(error) => Err(database_error(path, &error)),
        }
    })
}

/// A path beside `path`.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// Creates a file for the daemon's user only. One that was left there is removed.
fn create(path: &Path) -> std::io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

impl StateFile {
    /// Opens an existing file for writing. It is for the daemon's user only from then on.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |error| Error::io(format!("opening {}", path.display()), error);
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.permissions().mode() & 0o077 == 0 {
            return Self::of(file, path).map_err(failed);
        }
        // Others may have the file open and locked. A copy is free of that.
        let copy = || -> std::io::Result<File> {
            let real = path.canonicalize()?;
            let new = with_suffix(&real, "new");
            let mut copy = create(&new)?;
            std::io::copy(&mut &file, &mut copy)?;
            copy.sync_all()?;
            std::fs::rename(new, real)?;
            Ok(copy)
        };
        let copy = copy().or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "the state file was open to other users, and can't be copied");
            file.set_permissions(PermissionsExt::from_mode(0o600)).map(|()| file)
        });
        copy.and_then(|file| Self::of(file, path)).map_err(failed)
    }

    fn of(file: File, path: &Path) -> std::io::Result<Self> {
        let place = Place::of(&file, path)?;
        Ok(Self { file, place, stamp: None })
    }

    /// Makes a file with these rows. It is created under another name and then moved, so that the final name always has
    /// a complete file. A file that is there is kept under a third name.
    pub(super) fn make(path: &Path, rows: &[Row]) -> Result<Self, Error> {
        let new = with_suffix(path, "new");
        Self::make_as(path, &new, rows).inspect_err(|_| {
            // On a full disk its room is needed.
            let _ = std::fs::remove_file(&new);
        })
    }

    fn make_as(path: &Path, new: &Path, rows: &[Row]) -> Result<Self, Error> {
        let failed = |error| Error::io(format!("making {}", path.display()), error);
        let file = create(new).map_err(failed)?;
        let made = Self::of(file, path).map_err(failed)?;
        write(&made.database(new)?, rows).map_err(|error| not_kept(new, error))?;
        let in_place = || {
            made.file.sync_all()?;
            if path.exists() {
                let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                std::fs::rename(path, with_suffix(path, &format!("found-{seconds}")))?;
            }
            std::fs::rename(new, path)?;
            path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
        };
        in_place().map_err(failed)?;
        Ok(made)
    }

    /// Opens the database in the file, wherever that is now.
    pub(super) fn open_database(&self) -> Result<Database, Error> {
        let path = self.place.path();
        let file = self.file.try_clone().map_err(|error| unusable(path, error))?;
        check_begins(path, &file)?;
        self.database(path)
    }

    fn database(&self, path: &Path) -> Result<Database, Error> {
        let file = self.file.try_clone().map_err(|error| unusable(path, error))?;
        guarded(path, || {
            let backend = FileBackend::new(file).map_err(|error| database_error(path, &error))?;
            let database = Database::builder().set_cache_size(CACHE).create_with_backend(backend);
            database.map_err(|error| database_error(path, &error))
        })
    }

    /// Notes that this daemon has written.
    pub(super) fn written(&mut self) {
        self.stamp = stamp(&self.file);
    }

    /// Whether the file is still where it was opened, and nobody else has written to it.
    pub(super) fn is_in_place(&self) -> bool {
        self.place.is_taken() && self.stamp == stamp(&self.file)
    }
}
