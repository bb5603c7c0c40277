//! The state file: configuration that was made at run time and outlives the daemon.
//!
//! It is a `redb` database with one table. Each kind of rows has an owner, which registers it ([`Table`]). The value of
//! a row is JSON.
//!
//! A change of any number of rows is one transaction, synced before it is acknowledged. After a crash or a power cut it
//! is there as a whole or not at all. The cost of a change does not depend on the size of the table.
//!
//! An unreadable file is never written to: it is looked at through an overlay first. All rows are in memory too. So a
//! file that is removed, replaced or written to by others is written anew, in full. If that fails, changes are refused.
//!
//! The file is in format 3 of redb, as redb 3 and 4 write it. There is no other to upgrade from.

mod file;
mod lock;
mod overlay;
mod rows;
mod table;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::backends::InMemoryBackend;
use redb::{Database, StorageBackend};

pub use self::file::make_directory;
use self::file::{StateFile, database_error, guarded, is_open, verify};
pub use self::lock::DirLock;
use self::rows::{Rows, apply, parse, read, version, write};
pub use self::table::{Row, State, Table, Tables};
use crate::error::Error;

const FILE: &str = "state.redb";

/// Where the database is.
enum Source {
    File(StateFile),
    /// A test's storage.
    Backend(Box<dyn Fn() -> Result<Database, Error> + Send>),
}

impl Source {
    fn open(&self) -> Result<Database, Error> {
        match self {
            Self::File(file) => file.open_database(),
            Self::Backend(open) => open(),
        }
    }
}

struct Inner {
    source: Source,
    /// `None` after a failed write. redb then refuses everything until the file is opened again.
    database: Option<Database>,
    /// All rows.
    rows: Rows,
    /// The last write failed.
    failed: bool,
}

/// The database. One mutex guards it, so callers on any thread take turns.
pub struct Store {
    path: PathBuf,
    tables: Tables,
    inner: Mutex<Inner>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}

fn unusable(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::State { path: path.to_owned(), why: why.to_string() }
}

fn not_kept(path: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::NotKept { path: path.to_owned(), source: std::io::Error::other(error) }
}

impl Store {
    /// Opens the store in a directory, and creates both if they do not exist. `tables` are the kinds of its rows.
    ///
    /// # Errors
    /// If the directory can't be created, or an existing file is unusable. Such a file is not written to.
    pub fn open(dir: &Path, tables: Tables) -> Result<Self, Error> {
        make_directory(dir)?;
        let path = dir.join(FILE);
        let file = if path.exists() {
            verify(&path, &tables)?;
            StateFile::open(&path)?
        } else {
            StateFile::make(&path, &[version()])?
        };
        Self::with(path, tables, Source::File(file))
    }

    fn with(path: PathBuf, tables: Tables, source: Source) -> Result<Self, Error> {
        let database = source.open()?;
        let rows = guarded(&path, || read(&path, &database))?;
        let mut inner = Inner { source, database: Some(database), rows, failed: false };
        inner.written();
        Ok(Self { path, tables, inner: Mutex::new(inner) })
    }

    /// A store without a file.
    #[doc(hidden)]
    pub fn in_memory(tables: Tables) -> Self {
        Self::with_backend(tables, InMemoryBackend::new).expect("memory can be written")
    }

    /// A store on a test's storage, which may fail. `backend` returns the same storage each time.
    #[doc(hidden)]
    pub fn with_backend<B: StorageBackend>(
        tables: Tables,
        backend: impl Fn() -> B + Send + 'static,
    ) -> Result<Self, Error> {
        let path = PathBuf::from("backend");
        let open = move || {
            let database = Database::builder().create_with_backend(backend());
            let database = database.map_err(|error| database_error(Path::new("backend"), &error))?;
            write(&database, &[version()]).map_err(|error| not_kept(Path::new("backend"), error))?;
            Ok(database)
        };
        Self::with(path, tables, Source::Backend(Box::new(open)))
    }

    /// Checks that the state of a directory is usable, without changing anything. It passes if there is none, or if a
    /// running daemon uses it.
    pub fn check(dir: &Path, tables: &Tables) -> Result<(), Error> {
        let path = dir.join(FILE);
        if !path.exists() || is_open(&path) { Ok(()) } else { verify(&path, tables) }
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the state.
    pub fn load(&self) -> Result<State, Error> {
        parse(&self.path, &self.lock().rows, &self.tables)
    }

    /// Writes rows and syncs. Either all rows are written or none.
    ///
    /// # Errors
    /// [`Error::NotKept`] if it failed. Nothing is changed then.
    pub fn write(&self, rows: &[Row]) -> Result<(), Error> {
        let mut inner = self.lock();
        inner.make_again(&self.path)?;
        inner.write(&self.path, rows)
    }

    /// Writes the file anew if it is not in its place any more. Returns whether it did. After a failed write it tries
    /// whether writing works again.
    ///
    /// # Errors
    /// [`Error::NotKept`] if changes would be refused.
    pub fn look_after(&self) -> Result<bool, Error> {
        let mut inner = self.lock();
        let made = inner.make_again(&self.path)?;
        if inner.failed {
            inner.write(&self.path, &[version()])?;
        }
        Ok(made)
    }
}

impl Inner {
    /// The open database. Reopens it after a failed write.
    fn opened(&mut self) -> Result<&Database, Error> {
        match &mut self.database {
            Some(database) => Ok(database),
            none => Ok(none.insert(self.source.open()?)),
        }
    }

    fn write(&mut self, path: &Path, rows: &[Row]) -> Result<(), Error> {
        let opened = self.opened().map_err(|error| not_kept(path, error));
        let result = opened.and_then(|database| write(database, rows).map_err(|error| not_kept(path, error)));
        self.failed = result.is_err();
        match &result {
            Ok(()) => apply(&mut self.rows, rows),
            Err(_) => self.database = None,
        }
        self.written();
        result
    }

    /// Notes that this daemon has written to the file.
    fn written(&mut self) {
        if let Source::File(file) = &mut self.source {
            file.written();
        }
    }

    /// Writes the file anew if it is not in its place, or somebody has written to it.
    fn make_again(&mut self, path: &Path) -> Result<bool, Error> {
        match &self.source {
            Source::File(file) if !file.is_in_place() => {}
            _ => return Ok(false),
        }
        let rows = self.rows.iter().map(|(key, value)| Row { key: (**key).into(), value: Some((**value).into()) });
        let rows: Vec<_> = rows.collect();
        let made = path.parent().map_or(Ok(()), make_directory).and_then(|()| {
            let file = StateFile::make(path, &rows)?;
            Ok((file.open_database()?, file))
        });
        let (database, file) = made.map_err(|error| not_kept(path, error))?;
        let old = self.database.replace(database);
        self.source = Source::File(file);
        // Closing writes to its file, which is nowhere, or full of somebody else's bytes.
        let _ = guarded(path, || {
            drop(old);
            Ok(())
        });
        self.written();
        Ok(true)
    }
}
