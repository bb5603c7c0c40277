//! The state file: configuration that was made at run time and outlives the daemon.
//!
//! It is a `redb` database with one table. Each kind of rows has an owner, which registers it ([`Table`]). The value of
//! a row is JSON.
//!
//! A change of any number of rows is one transaction, synced before it is acknowledged. After a crash or a power cut it
//! is there as a whole or not at all. The cost of a change does not depend on the size of the table. An unreadable file
//! is never overwritten.
//!
//! The file is in format 3 of redb, as redb 3 and 4 write it. There is no other to upgrade from.

mod lock;
mod table;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::backends::InMemoryBackend;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

pub use self::lock::DirLock;
pub use self::table::{Row, State, Table, Tables};
use crate::error::Error;

/// Version of the rows' format. It is the only one that this program writes and reads.
const VERSION: &str = "1";
const FILE: &str = "state.redb";
const TABLE: TableDefinition<'_, &str, &str> = TableDefinition::new("state");
/// First bytes of a redb database.
const MAGIC: &[u8; 9] = b"redb\x1a\x0a\xa9\x0d\x0a";
/// Limit of the database's cache, in bytes.
const CACHE: usize = 4 << 20;

type Opener = dyn Fn() -> Result<Database, Error> + Send + Sync;

/// The database. One mutex guards it, so callers on any thread take turns.
pub struct Store {
    path: PathBuf,
    tables: Tables,
    open: Box<Opener>,
    /// `None` after a failed write. redb then refuses everything until the file is opened again.
    database: Mutex<Option<Database>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The row with the version of the rows' format.
fn version() -> Row {
    Row { key: "version".into(), value: Some(VERSION.into()) }
}

fn unusable(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::State { path: path.to_owned(), why: why.to_string() }
}

/// Checks a file's magic number. redb itself would turn an empty file into a database.
fn check_begins(path: &Path) -> Result<(), Error> {
    let mut head = [0; MAGIC.len()];
    match File::open(path).and_then(|mut file| file.read_exact(&mut head)) {
        Ok(()) if head == *MAGIC => Ok(()),
        _ => Err(unusable(path, "it is damaged or no state file")),
    }
}

/// Catches panics while a file is read. redb panics on some inconsistent files, such as truncated ones.
fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    std::panic::catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(unusable(path, "it is damaged")))
}

fn database_error(path: &Path, error: &DatabaseError) -> Error {
    match error {
        DatabaseError::DatabaseAlreadyOpen => unusable(path, "another process has it open"),
        DatabaseError::UpgradeRequired(format) => {
            unusable(path, format_args!("it is in redb's file format {format}, which this xswitchd can't read"))
        }
        error => unusable(path, format_args!("it is damaged or no state file: {error}")),
    }
}

/// A copy in memory of a file that needs repair, repaired.
fn repaired_copy(path: &Path) -> Result<Database, Error> {
    let copy = || -> std::io::Result<InMemoryBackend> {
        let (bytes, memory) = (std::fs::read(path)?, InMemoryBackend::new());
        memory.set_len(bytes.len() as u64)?;
        memory.write(0, &bytes)?;
        Ok(memory)
    };
    let memory = copy().map_err(|error| unusable(path, error))?;
    Database::builder().create_with_backend(memory).map_err(|error| database_error(path, &error))
}

impl Store {
    /// Opens the store in a directory, and creates both if they do not exist. `tables` are the kinds of its rows.
    ///
    /// # Errors
    /// If the directory can't be created, or an existing file is unusable.
    pub fn open(dir: &Path, tables: Tables) -> Result<Self, Error> {
        std::fs::create_dir_all(dir).map_err(|error| Error::io(format!("making {}", dir.display()), error))?;
        let path = dir.join(FILE);
        if !path.exists() {
            // The file is created under another name and then moved, so that the final name always has a complete file.
            let new = dir.join(format!("{FILE}.new"));
            let _ = std::fs::remove_file(&new);
            let database = Database::create(&new).map_err(|error| database_error(&new, &error))?;
            write(&database, &[version()]).map_err(|error| not_kept(&new, error))?;
            drop(database);
            std::fs::rename(&new, &path)
                .and_then(|()| File::open(dir)?.sync_all())
                .map_err(|error| Error::io(format!("making {}", path.display()), error))?;
        }
        let file = path.clone();
        let open = move || {
            check_begins(&file)?;
            guarded(&file, || {
                let database = Database::builder().set_cache_size(CACHE).open(&file);
                database.map_err(|error| database_error(&file, &error))
            })
        };
        Self::with(path, tables, Box::new(open))
    }

    fn with(path: PathBuf, tables: Tables, open: Box<Opener>) -> Result<Self, Error> {
        let database = Mutex::new(Some(open()?));
        Ok(Self { path, tables, open, database })
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
        backend: impl Fn() -> B + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let path = PathBuf::from("backend");
        let open = move || {
            let database = Database::builder().create_with_backend(backend());
            let database = database.map_err(|error| database_error(Path::new("backend"), &error))?;
            write(&database, &[version()]).map_err(|error| not_kept(Path::new("backend"), error))?;
            Ok(database)
        };
        Self::with(path, tables, Box::new(open))
    }

    /// Checks that the state of a directory is usable, without changing anything. It passes if there is none, or if a
    /// running daemon uses it.
    pub fn check(dir: &Path, tables: &Tables) -> Result<(), Error> {
        let path = dir.join(FILE);
        if !path.exists() {
            return Ok(());
        }
        check_begins(&path)?;
        guarded(&path, || match Database::builder().open_read_only(&path) {
            Ok(database) => load(&path, &database, tables).map(drop),
            Err(DatabaseError::DatabaseAlreadyOpen) => Ok(()),
            // A killed daemon left it, and the next one repairs it on opening. Or it is damaged. A copy tells.
            Err(DatabaseError::RepairAborted) => load(&path, &repaired_copy(&path)?, tables).map(drop),
            Err(error) => Err(database_error(&path, &error)),
        })
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn lock(&self) -> MutexGuard<'_, Option<Database>> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open database. Reopens it after a failed write.
    fn opened<'a>(&self, database: &'a mut Option<Database>) -> Result<&'a Database, Error> {
        match database {
            Some(database) => Ok(database),
            None => Ok(database.insert((self.open)()?)),
        }
    }

    /// Reads the state.
    pub fn load(&self) -> Result<State, Error> {
        let mut database = self.lock();
        let database = self.opened(&mut database)?;
        guarded(&self.path, || load(&self.path, database, &self.tables))
    }

    /// Writes rows and syncs. Either all rows are written or none.
    ///
    /// # Errors
    /// [`Error::NotKept`] if it failed. Nothing is changed then.
    pub fn write(&self, rows: &[Row]) -> Result<(), Error> {
        let mut database = self.lock();
        let opened = self.opened(&mut database).map_err(|error| not_kept(&self.path, error))?;
        write(opened, rows).map_err(|error| {
            *database = None;
            not_kept(&self.path, error)
        })
    }
}

fn not_kept(path: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::NotKept { path: path.to_owned(), source: std::io::Error::other(error) }
}

fn write(database: &Database, rows: &[Row]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(TABLE)?;
        for Row { key, value } in rows {
            match (value, key.strip_suffix('*')) {
                (Some(value), _) => drop(table.insert(key.as_str(), value.as_str())?),
                (None, Some(prefix)) => {
                    // `retain` would copy a page per removed row, which is a gigabyte for a full table of rules.
                    let mut keys = Vec::new();
                    for row in table.range(prefix..)? {
                        let key = row?.0.value().to_owned();
                        if !key.starts_with(prefix) {
                            break;
                        }
                        keys.push(key);
                    }
                    for key in &keys {
                        table.remove(key.as_str())?;
                    }
                }
                (None, None) => drop(table.remove(key.as_str())?),
            }
        }
    }
    Ok(transaction.commit()?)
}

fn load(path: &Path, database: &impl ReadableDatabase, tables: &Tables) -> Result<State, Error> {
    let rows = || -> Result<BTreeMap<String, String>, redb::Error> {
        let transaction = database.begin_read()?;
        let table = transaction.open_table(TABLE)?;
        let mut rows = BTreeMap::new();
        for row in table.iter()? {
            let (key, value) = row?;
            rows.insert(key.value().to_owned(), value.value().to_owned());
        }
        Ok(rows)
    };
    let mut rows = rows().map_err(|error| unusable(path, format_args!("it is damaged: {error}")))?;
    match rows.remove("version").as_deref() {
        Some(VERSION) => {}
        version => {
            let version = version.unwrap_or("none");
            return Err(unusable(path, format_args!("its format is version {version}, this xswitchd knows {VERSION}")));
        }
    }
    let mut state = State::default();
    for (key, value) in &rows {
        tables
            .read(&mut state, key, value)
            .map_err(|why| unusable(path, format_args!("row `{}` can't be understood: {why}", key.escape_default())))?;
    }
    Ok(state)
}
