//! The state file: configuration that was made at run time and outlives the daemon.
//!
//! It is a `redb` database with one table. Each port, static FDB entry, meter, binding, rule, redirect, SPP instance
//! and SPP port with flow rules has a row. The value of a row is JSON.
//!
//! A change of any number of rows is one transaction, synced before it is acknowledged. After a crash or a power cut it
//! is there as a whole or not at all. The cost of a change does not depend on the size of the table. An unreadable file
//! is never overwritten.
//!
//! The file is in format 3 of redb, as redb 3 and 4 write it. There is no other to upgrade from.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::fcntl::{Flock, FlockArg};
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::spp::flow::PortRules;
use crate::spp::{Instance, Proc};
use switch::model::{
    BridgeSettings, FdbSpec, MacAddr, MeterBinding, MeterDirection, MeterSpec, PortSpec, RedirectSpec, RuleSpec,
};

/// Version of the rows' format. It is the only one that this program writes and reads.
const VERSION: &str = "1";
const FILE: &str = "state.redb";
const TABLE: TableDefinition<'_, &str, &str> = TableDefinition::new("state");
/// First bytes of a redb database.
const MAGIC: &[u8; 9] = b"redb\x1a\x0a\xa9\x0d\x0a";
/// Limit of the database's cache, in bytes.
const CACHE: usize = 4 << 20;

/// A meter's row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeterRecord {
    /// As configured.
    pub spec: MeterSpec,
    /// Whether it was never bound or named by a rule. It then applies to frames from the vport of its number.
    pub implicit: bool,
}

/// The whole state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Bridge settings, if they were set at run time.
    pub bridge: Option<BridgeSettings>,
    /// `[bridge]` of the configuration file, as last applied.
    pub bridge_configured: Option<BridgeSettings>,
    /// Ports, ordered by name, with every default filled in. Ports that never came up lack the defaults.
    pub ports: Vec<PortSpec>,
    /// Static FDB entries.
    pub fdb: Vec<FdbSpec>,
    /// Meters.
    pub meters: Vec<MeterRecord>,
    /// Bindings of meters to ports.
    pub bindings: Vec<MeterBinding>,
    /// Traffic rules, ordered by index.
    pub rules: Vec<RuleSpec>,
    /// Redirects.
    pub redirects: Vec<RedirectSpec>,
    /// Instances of the Soft Patch Panel.
    pub instances: Vec<Instance>,
    /// Flow rules of its ports.
    pub flow_rules: Vec<PortRules>,
}

/// A row to write or remove. A key that ends with `*` removes all rows with that prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    key: String,
    value: Option<String>,
}

impl Row {
    fn put(key: String, value: &impl Serialize) -> Self {
        // Plain data with text keys always serializes.
        Self { key, value: Some(serde_json::to_string(value).unwrap_or_default()) }
    }

    fn remove(key: String) -> Self {
        Self { key, value: None }
    }

    fn version() -> Self {
        Self { key: "version".into(), value: Some(VERSION.into()) }
    }

    /// Bridge settings made at run time. `None` removes the row.
    pub fn bridge(bridge: Option<&BridgeSettings>) -> Self {
        bridge.map_or_else(|| Self::remove("bridge".into()), |bridge| Self::put("bridge".into(), bridge))
    }

    /// Bridge settings of the configuration file. `None` removes the row.
    pub fn bridge_configured(bridge: Option<&BridgeSettings>) -> Self {
        let key = "bridge-configured".to_owned();
        bridge.map_or_else(|| Self::remove(key.clone()), |bridge| Self::put(key.clone(), bridge))
    }

    /// A port.
    pub fn port(spec: &PortSpec) -> Self {
        Self::put(format!("port/{}", spec.name), spec)
    }

    /// Removes a port.
    pub fn no_port(name: &str) -> Self {
        Self::remove(format!("port/{name}"))
    }

    /// A static FDB entry.
    pub fn fdb(row: &FdbSpec) -> Self {
        Self::put(format!("fdb/{}/{}", row.vlan, row.mac), row)
    }

    /// Removes a static FDB entry.
    pub fn no_fdb(mac: MacAddr, vlan: u16) -> Self {
        Self::remove(format!("fdb/{vlan}/{mac}"))
    }

    /// A meter.
    pub fn meter(record: &MeterRecord) -> Self {
        Self::put(format!("meter/{:010}", record.spec.id), record)
    }

    /// Removes a meter.
    pub fn no_meter(id: u32) -> Self {
        Self::remove(format!("meter/{id:010}"))
    }

    /// A binding.
    pub fn binding(binding: &MeterBinding) -> Self {
        Self { value: Self::put(String::new(), binding).value, ..Self::no_binding(binding.vport, binding.direction) }
    }

    /// Removes the binding of a port and direction.
    pub fn no_binding(vport: u16, direction: MeterDirection) -> Self {
        Self::remove(format!("binding/{vport:05}/{direction:?}"))
    }

    /// A rule.
    pub fn rule(rule: &RuleSpec) -> Self {
        Self::put(format!("rule/{:010}", rule.key_index), rule)
    }

    /// Removes a rule.
    pub fn no_rule(index: u32) -> Self {
        Self::remove(format!("rule/{index:010}"))
    }

    /// Removes all rules.
    pub fn no_rules() -> Self {
        Self::remove("rule/*".into())
    }

    /// A redirect. One of a port to itself removes the row.
    pub fn redirect(redirect: &RedirectSpec) -> Self {
        let key = format!("redirect/{:05}", redirect.src);
        if redirect.src == redirect.dest { Self::remove(key) } else { Self::put(key, redirect) }
    }

    /// An instance.
    pub fn instance(instance: &Instance) -> Self {
        Self { value: Self::put(String::new(), instance).value, ..Self::no_instance(instance.proc) }
    }

    /// Removes an instance.
    pub fn no_instance(proc: Proc) -> Self {
        Self::remove(format!("spp/{}/{:05}", proc.kind.word(), proc.id))
    }

    /// Flow rules of a port. An empty list removes the row.
    pub fn flow_rules(rules: &PortRules) -> Self {
        let key = format!("flow/{:05}", rules.port);
        if rules.rules.is_empty() { Self::remove(key) } else { Self::put(key, rules) }
    }

    /// Removes all flow rules.
    pub fn no_flow_rules() -> Self {
        Self::remove("flow/*".into())
    }
}

type Opener = dyn Fn() -> Result<Database, Error> + Send + Sync;

/// The database. One mutex guards it, so callers on any thread take turns.
pub struct Store {
    path: PathBuf,
    open: Box<Opener>,
    /// `None` after a failed write. redb then refuses everything until the file is opened again.
    database: Mutex<Option<Database>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
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

impl Store {
    /// Opens the store in a directory, and creates both if they do not exist.
    ///
    /// # Errors
    /// If the directory can't be created, or an existing file is unusable.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(dir).map_err(|error| Error::io(format!("making {}", dir.display()), error))?;
        let path = dir.join(FILE);
        if !path.exists() {
            // The file is created under another name and then moved, so that the final name always has a complete file.
            let new = dir.join(format!("{FILE}.new"));
            let _ = std::fs::remove_file(&new);
            let database = Database::create(&new).map_err(|error| database_error(&new, &error))?;
            write(&database, &[Row::version()]).map_err(|error| not_kept(&new, error))?;
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
        Self::with(path, Box::new(open))
    }

    fn with(path: PathBuf, open: Box<Opener>) -> Result<Self, Error> {
        let database = Mutex::new(Some(open()?));
        Ok(Self { path, open, database })
    }

    /// A store without a file.
    #[doc(hidden)]
    pub fn in_memory() -> Self {
        Self::with_backend(redb::backends::InMemoryBackend::new).expect("memory can be written")
    }

    /// A store on a test's storage, which may fail. `backend` returns the same storage each time.
    #[doc(hidden)]
    pub fn with_backend<B: redb::StorageBackend>(
        backend: impl Fn() -> B + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let path = PathBuf::from("backend");
        let open = move || {
            let database = Database::builder().create_with_backend(backend());
            let database = database.map_err(|error| database_error(Path::new("backend"), &error))?;
            write(&database, &[Row::version()]).map_err(|error| not_kept(Path::new("backend"), error))?;
            Ok(database)
        };
        Self::with(path, Box::new(open))
    }

    /// Checks that the state of a directory is usable, without changing anything. It passes if there is none, or if a
    /// running daemon uses it.
    pub fn check(dir: &Path) -> Result<(), Error> {
        let path = dir.join(FILE);
        if !path.exists() {
            return Ok(());
        }
        check_begins(&path)?;
        guarded(&path, || match Database::builder().open_read_only(&path) {
            Ok(database) => load(&path, &database).map(drop),
            Err(DatabaseError::DatabaseAlreadyOpen) => Ok(()),
            // A killed daemon left it. The next one repairs it on opening.
            Err(DatabaseError::RepairAborted) => Ok(()),
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
        guarded(&self.path, || load(&self.path, database))
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

fn load(path: &Path, database: &impl ReadableDatabase) -> Result<State, Error> {
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
        let read = match key.split('/').next().unwrap_or_default() {
            "bridge" => one(value).map(|bridge| state.bridge = Some(bridge)),
            "bridge-configured" => one(value).map(|bridge| state.bridge_configured = Some(bridge)),
            "port" => one(value).map(|port| state.ports.push(port)),
            "fdb" => one(value).map(|row| state.fdb.push(row)),
            "meter" => one(value).map(|meter| state.meters.push(meter)),
            "binding" => one(value).map(|binding| state.bindings.push(binding)),
            "rule" => one(value).map(|rule| state.rules.push(rule)),
            "redirect" => one(value).map(|redirect| state.redirects.push(redirect)),
            "spp" => one(value).map(|instance| state.instances.push(instance)),
            "flow" => one(value).map(|rules| state.flow_rules.push(rules)),
            _ => Err("nothing of that name is known".to_owned()),
        };
        read.map_err(|why| unusable(path, format_args!("row `{}` can't be understood: {why}", key.escape_default())))?;
    }
    Ok(state)
}

fn one<T: DeserializeOwned>(value: &str) -> Result<T, String> {
    serde_json::from_str(value).map_err(|error| error.to_string())
}

/// Exclusive use of a directory among daemons, for as long as this value lives.
#[derive(Debug)]
pub struct DirLock {
    _file: Flock<File>,
}

impl DirLock {
    /// Takes a directory, and creates it if it does not exist.
    pub fn take(dir: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(dir).map_err(|error| Error::io(format!("making {}", dir.display()), error))?;
        let path = dir.join("xswitchd.lock");
        // Follows no symbolic link that another user may have put there.
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).custom_flags(libc::O_NOFOLLOW);
        let opened = options.open(&path);
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
    use switch::model::{FlowDirection, PortKind, RuleAction, RuleKey, RuleTarget};

    use super::*;
    use crate::spp::flow::{NumberedRule, Rule, parse};

    fn rule(key_index: u32) -> RuleSpec {
        RuleSpec { key_index, key: RuleKey::default(), action: RuleAction::to(RuleTarget::Drop) }
    }

    fn flow_rules() -> PortRules {
        let item = parse::pattern(&["eth dst is 02:00:00:00:00:01".into(), "vlan vid is 7".into()]);
        let rule = Rule {
            direction: FlowDirection::Ingress,
            group: 1,
            priority: 2,
            transfer: true,
            pattern: item.unwrap(),
            actions: parse::actions(&["queue index 1".into(), "of_pop_vlan".into()]).unwrap(),
        };
        PortRules { port: 3, rules: vec![NumberedRule { rule_id: 9, rule }] }
    }

    fn whole() -> State {
        let meter = MeterSpec::new(4_000_000_000, 64);
        State {
            bridge: Some(BridgeSettings::default()),
            bridge_configured: Some(BridgeSettings { fdb_limit: 99, ..BridgeSettings::default() }),
            ports: vec![PortSpec::new("vm1", PortKind::Guest)],
            fdb: vec![FdbSpec { mac: MacAddr::new([2, 0, 0, 0, 0, 1]), vlan: 7, port: "vm1".into() }],
            meters: vec![MeterRecord { spec: meter, implicit: true }],
            bindings: vec![MeterBinding { vport: 3, direction: MeterDirection::To, meter: 4_000_000_000 }],
            rules: vec![rule(9), rule(10), rule(65_535)],
            redirects: vec![RedirectSpec { src: 1, dest: 2 }],
            instances: vec![Instance::new(Proc::PRIMARY, vec![0, 1], None)],
            flow_rules: vec![flow_rules()],
        }
    }

    fn rows(state: &State) -> Vec<Row> {
        let mut rows =
            vec![Row::bridge(state.bridge.as_ref()), Row::bridge_configured(state.bridge_configured.as_ref())];
        rows.extend(state.ports.iter().map(Row::port));
        rows.extend(state.fdb.iter().map(Row::fdb));
        rows.extend(state.meters.iter().map(Row::meter));
        rows.extend(state.bindings.iter().map(Row::binding));
        rows.extend(state.rules.iter().map(Row::rule));
        rows.extend(state.redirects.iter().map(Row::redirect));
        rows.extend(state.instances.iter().map(Row::instance));
        rows.extend(state.flow_rules.iter().map(Row::flow_rules));
        rows
    }

    #[test]
    fn what_was_written_is_loaded_and_what_was_removed_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.load().unwrap(), State::default());
        store.write(&rows(&whole())).unwrap();
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.load().unwrap(), whole());
        Store::check(dir.path()).unwrap();
        let gone = [
            Row::bridge(None),
            Row::bridge_configured(None),
            Row::no_port("vm1"),
            Row::no_fdb(MacAddr::new([2, 0, 0, 0, 0, 1]), 7),
            Row::no_meter(4_000_000_000),
            Row::no_binding(3, MeterDirection::To),
            Row::no_rule(9),
            Row::redirect(&RedirectSpec { src: 1, dest: 1 }),
            Row::no_instance(Proc::PRIMARY),
            Row::flow_rules(&PortRules { rules: Vec::new(), ..flow_rules() }),
        ];
        store.write(&gone).unwrap();
        assert_eq!(store.load().unwrap(), State { rules: vec![rule(10), rule(65_535)], ..State::default() });
        store.write(&[Row::no_rules(), Row::rule(&rule(1))]).unwrap();
        assert_eq!(store.load().unwrap().rules, [rule(1)]);
    }

    #[test]
    fn a_damaged_or_foreign_file_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        drop(Store::open(dir.path()).unwrap());
        let path = dir.path().join(FILE);
        let good = std::fs::read(&path).unwrap();
        let zeros = vec![0; good.len()];
        for bytes in [&b"{\"version\": 1}"[..], &[7; 9000], &good[..good.len() / 2], &zeros] {
            std::fs::write(&path, bytes).unwrap();
            let error = Store::open(dir.path()).and_then(|store| store.load()).unwrap_err();
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
            assert!(Store::check(dir.path()).is_err());
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "it is left as it was");
        }
    }

    #[test]
    fn clearing_many_rules_takes_little_room() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.write(&(0..20_000).map(|n| Row::rule(&rule(n))).collect::<Vec<_>>()).unwrap();
        let size = || std::fs::metadata(store.path()).unwrap().len();
        let before = size();
        store.write(&[Row::no_rules()]).unwrap();
        assert!(size() <= 2 * before, "{} bytes after {before}", size());
        assert_eq!(store.load().unwrap(), State::default());
    }

    #[test]
    fn a_newer_format_and_an_unknown_row_are_refused() {
        for row in [
            Row { key: "version".into(), value: Some("2".into()) },
            Row { key: "disk/1".into(), value: Some("{}".into()) },
            Row { key: "rule/1".into(), value: Some("{\"key_index\": 1}".into()) },
        ] {
            let store = Store::in_memory();
            store.write(&[row]).unwrap();
            assert!(matches!(store.load(), Err(Error::State { .. })));
        }
    }

    #[test]
    fn a_write_that_fails_changes_nothing_and_later_ones_work() {
        let storage = crate::fake::FakeStorage::default();
        let store = storage.store();
        store.write(&rows(&whole())).unwrap();
        storage.set_full(true);
        for _ in 0..2 {
            assert!(matches!(store.write(&[Row::no_rules()]), Err(Error::NotKept { .. })));
        }
        storage.set_full(false);
        assert_eq!(store.load().unwrap(), whole());
        store.write(&[Row::no_rules()]).unwrap();
        drop(store);
        assert_eq!(storage.store().load().unwrap(), State { rules: Vec::new(), ..whole() });
    }

    #[test]
    fn a_file_that_was_being_made_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("state.redb.new"), [0; 4096]).unwrap();
        assert_eq!(Store::open(dir.path()).unwrap().load().unwrap(), State::default());
    }

    #[test]
    fn a_check_makes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        Store::check(&state).unwrap();
        assert!(!state.exists());
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
