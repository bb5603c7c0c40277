//! Leases: which process has the sockets of which port.
//!
//! Each lease is kept in memory and in a file, which the next daemon reads. A lease ends when its process ends, or has
//! closed the sockets. The daemon then closes its own copies. With that the kernel frees the queues and empties the
//! slots of the XSKMAP, and the port is as if it never had a guest.
//!
//! A thread of its own supervises the leases. All methods may be called from any thread.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ctl_types::{GuestHolder, GuestSocket};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use serde::{Deserialize, Serialize};
use switch::io::socket::counters;
use switch::io::sys::is_bound;

use super::process::Process;
use crate::place::Place;

/// Period of checking whether a process still has its sockets, and has bound them.
const PERIOD: Duration = Duration::from_secs(2);
/// The same while a process has not bound its sockets yet.
const BINDING_PERIOD: Duration = Duration::from_millis(100);
/// Time after which a process that has not bound its sockets is told of in the log.
const UNBOUND: Duration = Duration::from_secs(5);
/// Time for sockets to reach the process that will bind them.
const ON_THE_WAY: Duration = Duration::from_secs(60);

/// The file form of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    port: String,
    pid: i32,
    /// As [`Process::started`].
    started: u64,
    /// When the sockets were handed over, in seconds since 1970.
    since: u64,
    /// When they were first seen bound, in seconds since 1970.
    bound_since: Option<u64>,
    /// Inodes of the sockets, in queue order.
    inodes: Vec<u64>,
    /// Whether the guest's end was opened for this lease.
    #[serde(default)]
    opened: bool,
}

#[derive(Debug)]
struct Lease {
    record: Record,
    process: Arc<Process>,
    given: Instant,
    /// Copies of the sockets, in queue order. Empty if an earlier daemon handed them over and they can't be copied
    /// back.
    sockets: Vec<OwnedFd>,
    /// Whether the log tells that it is not bound.
    told: bool,
}

impl Record {
    /// Whether the guest's end was opened for sockets that have not been bound.
    fn is_unused(&self) -> bool {
        self.opened && self.bound_since.is_none()
    }
}

impl Lease {
    /// The reason if the lease is over.
    fn is_over(&self) -> Option<&'static str> {
        if self.process.has_ended() {
            return Some("its process has ended");
        }
        let arrived = self.record.bound_since.is_some() || self.given.elapsed() >= ON_THE_WAY;
        // Inspecting a process is expensive, so this happens only once the sockets should have arrived.
        let closed = || self.process.sockets(&self.record.inodes).is_some_and(|found| found.is_empty());
        (arrived && closed()).then_some("its process has closed them")
    }

    /// Whether its sockets may be bound at any moment.
    fn is_new(&self) -> bool {
        self.record.bound_since.is_none() && self.given.elapsed() < ON_THE_WAY
    }

    fn is_bound(&self) -> bool {
        !self.sockets.is_empty() && self.sockets.iter().all(|socket| is_bound(socket.as_fd()))
    }
}

/// The leases of all ports.
#[derive(Debug)]
pub struct Leases {
    dir: PathBuf,
    /// The directory itself, open so that its identity stays its own.
    place: Mutex<(File, Place)>,
    book: Mutex<BTreeMap<String, Lease>>,
    /// When the last lease of each port ended.
    ended: Mutex<BTreeMap<String, Instant>>,
    /// Ports whose guests' ends were opened for a lease that ended without having been bound.
    unused: Mutex<Vec<String>>,
    /// An eventfd that wakes the supervisor when a lease is added or has ended unbound.
    bell: Arc<OwnedFd>,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Opens the directory of the records, and creates it if needed. Only the daemon's user may learn who is at which port.
fn directory(dir: &Path) -> io::Result<(File, Place)> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    let file = File::open(dir)?;
    let place = Place::of(&file, dir)?;
    Ok((file, place))
}

impl Leases {
    /// Resumes the leases recorded in `dir` that still hold, and starts the supervising thread. The thread ends when
    /// the last reference is dropped. Creates the directory if needed.
    ///
    /// The thread calls `unused` with each port whose guest's end was opened for a lease that was never bound, once
    /// that is over.
    pub fn open(dir: &Path, unused: impl Fn(&str) + Send + 'static) -> io::Result<Arc<Self>> {
        let place = Mutex::new(directory(dir)?);
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let bell = Arc::new(bell);
        let (book, ended, unbound) = (Mutex::default(), Mutex::default(), Mutex::default());
        let leases = Arc::new(Self { dir: dir.to_owned(), place, book, ended, unused: unbound, bell });
        leases.restore()?;
        let weak = Arc::downgrade(&leases);
        std::thread::Builder::new().name("xs-guests".to_owned()).spawn(move || supervise(&weak, &unused))?;
        Ok(leases)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Lease>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory of the records.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes all records again if their directory is not in its place any more. Returns whether it did.
    pub fn restore_records(&self) -> io::Result<bool> {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if place.1.is_taken() {
            return Ok(false);
        }
        *place = directory(&self.dir)?;
        self.lock().values().for_each(|lease| self.write(&lease.record));
        Ok(true)
    }

    fn path(&self, port: &str) -> PathBuf {
        self.dir.join(format!("{port}.json"))
    }

    fn restore(&self) -> io::Result<()> {
        let mut book = self.lock();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let written = path.extension().is_some_and(|extension| extension == "json");
            let record = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
            let port = record.as_ref().filter(|record| record.is_unused()).map(|record| record.port.clone());
            match record.filter(|_| written).and_then(resume) {
                Some(lease) => drop(book.insert(lease.record.port.clone(), lease)),
                None => {
                    self.unused().extend(port);
                    drop(fs::remove_file(&path));
                }
            }
        }
        Ok(())
    }

    fn unused(&self) -> MutexGuard<'_, Vec<String>> {
        self.unused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    /// Writes a lease to its file, for the daemon's user only. Failure costs only the memory of it after a restart.
    fn write(&self, record: &Record) {
        let path = self.path(&record.port);
        let new = path.with_extension("new");
        let bytes = serde_json::to_vec(record).unwrap_or_default();
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new);
        let written = file.and_then(|mut file| file.write_all(&bytes));
        if let Err(error) = written.and_then(|()| fs::rename(&new, &path)) {
            tracing::warn!(port = record.port, %error, "a guest is not known any more after a restart");
        }
    }

    /// The current holder of a port's sockets. Checks the lease first.
    pub fn holder(&self, port: &str) -> Option<GuestHolder> {
        let mut book = self.lock();
        if !self.look_after(book.get_mut(port)?) {
            self.strike(&mut book, port);
        }
        book.get(port).map(describe)
    }

    /// Applies `take` to the copies of a port's sockets, if the port has a lease.
    pub fn with_sockets<T>(&self, port: &str, take: impl FnOnce(&[OwnedFd]) -> T) -> Option<T> {
        self.lock().get(port).map(|lease| take(&lease.sockets))
    }

    /// All holders as last seen, without processes that have ended.
    pub fn holders(&self) -> BTreeMap<String, GuestHolder> {
        let mut book = self.lock();
        let ended = book.iter().filter(|(_, lease)| lease.process.has_ended());
        let ended: Vec<_> = ended.map(|(port, _)| port.clone()).collect();
        ended.iter().for_each(|port| self.strike(&mut book, port));
        book.iter().map(|(port, lease)| (port.clone(), describe(lease))).collect()
    }

    /// Records that a process gets the sockets of a port. Any earlier lease of the port was never bound. `opened` says
    /// whether the guest's end was opened for it.
    pub fn give(&self, port: &str, process: Process, sockets: Vec<OwnedFd>, opened: bool) -> io::Result<()> {
        let record = Record {
            port: port.to_owned(),
            pid: process.pid(),
            started: process.started(),
            since: now(),
            bound_since: None,
            inodes: sockets.iter().map(inode).collect::<io::Result<_>>()?,
            opened,
        };
        self.write(&record);
        let lease = Lease { record, process: Arc::new(process), given: Instant::now(), sockets, told: false };
        self.lock().insert(port.to_owned(), lease);
        self.ring();
        Ok(())
    }

    /// Whether the guest's end of a port was opened for a lease that is there and not bound yet.
    pub fn is_opened_for(&self, port: &str) -> bool {
        self.lock().get(port).is_some_and(|lease| lease.record.is_unused())
    }

    /// When the last lease of a port ended, if there was one.
    pub fn ended(&self, port: &str) -> Option<Instant> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).get(port).copied()
    }

    /// Ends the lease of a port, whoever holds it.
    pub fn end(&self, port: &str) {
        self.strike(&mut self.lock(), port);
    }

    /// Removes a lease and its file.
    fn strike(&self, book: &mut BTreeMap<String, Lease>, port: &str) {
        if let Some(lease) = book.remove(port) {
            if lease.record.is_unused() {
                self.unused().push(port.to_owned());
                self.ring();
            }
            let _ = fs::remove_file(self.path(port));
            self.ended.lock().unwrap_or_else(PoisonError::into_inner).insert(port.to_owned(), Instant::now());
        }
    }

    /// Ends the lease of a port if it is for these sockets.
    pub fn end_of(&self, port: &str, sockets: &[OwnedFd]) {
        let Some(Ok(first)) = sockets.first().map(inode) else { return };
        let mut book = self.lock();
        if book.get(port).is_some_and(|lease| lease.record.inodes.first() == Some(&first)) {
            self.strike(&mut book, port);
        }
    }

    /// Ends the lease of a port whose process has ended or closed the sockets.
    ///
    /// # Errors
    /// The number of the process, if it still has them.
    pub fn release(&self, port: &str) -> Result<(), i32> {
        let mut book = self.lock();
        if let Some(lease) = book.get(port)
            && !lease.process.has_ended()
            && lease.process.sockets(&lease.record.inodes).is_none_or(|found| !found.is_empty())
        {
            return Err(lease.record.pid);
        }
        self.strike(&mut book, port);
        Ok(())
    }

    /// Updates a lease, and notes when its sockets have been bound. False if the lease is over.
    fn look_after(&self, lease: &mut Lease) -> bool {
        if let Some(why) = lease.is_over() {
            tracing::info!(port = lease.record.port, pid = lease.record.pid, "a guest's sockets are free again: {why}");
            return false;
        }
        if lease.record.bound_since.is_none() && lease.is_bound() {
            lease.record.bound_since = Some(now());
            tracing::info!(port = lease.record.port, pid = lease.record.pid, "a guest has bound its sockets");
            self.write(&lease.record);
        }
        if lease.record.bound_since.is_none() && !lease.told && lease.given.elapsed() >= UNBOUND {
            lease.told = true;
            let (port, command) = (&lease.record.port, lease.process.command());
            tracing::warn!(
                port,
                pid = lease.record.pid,
                "{command} was given sockets and has not bound them: nobody gets the guest's packets until it does; end it, or take \
                 them back by `xswitch qemu release {port} --force`"
            );
        }
        true
    }

    /// Updates all leases, or only those that may be bound at any moment. Returns whether there are any of the latter.
    fn sweep(&self, all: bool) -> bool {
        let mut book = self.lock();
        let looked_at = book.iter_mut().filter(|(_, lease)| all || lease.is_new());
        let over = looked_at.filter_map(|(port, lease)| (!self.look_after(lease)).then(|| port.clone()));
        let over: Vec<_> = over.collect();
        over.iter().for_each(|port| self.strike(&mut book, port));
        book.values().any(Lease::is_new)
    }
}

fn inode(socket: &OwnedFd) -> io::Result<u64> {
    Ok(File::from(socket.try_clone()?).metadata()?.ino())
}

/// Resumes the lease of a record, if its process lives and may have the sockets.
fn resume(record: Record) -> Option<Lease> {
    let process = Process::open(record.pid).ok().filter(|process| process.started() == record.started)?;
    let found = process.sockets(&record.inodes);
    let on_the_way = record.bound_since.is_none() && now().saturating_sub(record.since) < ON_THE_WAY.as_secs();
    if !on_the_way && found.as_ref().is_some_and(Vec::is_empty) {
        return None;
    }
    let found = found.unwrap_or_default();
    let copy = |inode: &u64| {
        let (fd, _) = found.iter().find(|(_, found)| found == inode)?;
        process.copy_fd(*fd).ok()
    };
    let sockets = record.inodes.iter().map(copy).collect::<Option<Vec<_>>>().unwrap_or_default();
    if sockets.is_empty() {
        tracing::warn!(
            port = record.port,
            pid = record.pid,
            "the counters of a guest's sockets can't be read any more"
        );
    }
    Some(Lease { record, process: Arc::new(process), given: Instant::now(), sockets, told: false })
}

fn describe(lease: &Lease) -> GuestHolder {
    let socket = |(queue, socket): (u32, &OwnedFd)| {
        let bound = is_bound(socket.as_fd());
        // Only bound sockets are asked for their counters. The holder of an unbound one could be in a call that holds
        // the socket's lock for ever, such as registering memory that nobody provides.
        let counted = if bound { counters(socket.as_fd()).ok() } else { None };
        let xsk = counted.into_iter().flatten().map(|(label, value)| (label.to_owned(), value)).collect();
        GuestSocket { queue, bound, xsk }
    };
    GuestHolder {
        pid: lease.record.pid,
        command: lease.process.command(),
        uid: lease.process.user(),
        since: lease.record.since,
        bound_since: lease.record.bound_since,
        sockets: (0..).zip(&lease.sockets).map(socket).collect(),
    }
}

fn supervise(leases: &Weak<Leases>, unused: &impl Fn(&str)) {
    let mut swept = None;
    loop {
        let Some(held) = leases.upgrade() else { return };
        let all = swept.is_none_or(|at: Instant| at.elapsed() >= PERIOD);
        if all {
            swept = Some(Instant::now());
        }
        let period = if held.sweep(all) { BINDING_PERIOD } else { PERIOD };
        let processes: Vec<_> = held.lock().values().map(|lease| Arc::clone(&lease.process)).collect();
        let bell = Arc::clone(&held.bell);
        let ports = std::mem::take(&mut *held.unused());
        // The supervisor must not keep the leases alive while it waits.
        drop(held);
        ports.iter().for_each(|port| unused(port));
        let mut fds = vec![PollFd::new(&*bell, PollFlags::IN)];
        fds.extend(processes.iter().map(|process| PollFd::new(&**process, PollFlags::IN)));
        let timeout = Timespec { tv_sec: period.as_secs().cast_signed(), tv_nsec: period.subsec_nanos().into() };
        match poll(&mut fds, Some(&timeout)) {
            // A process has ended.
            Ok(1..) if fds[1..].iter().any(|fd| !fd.revents().is_empty()) => swept = None,
            Ok(_) => {}
            Err(_) => std::thread::sleep(BINDING_PERIOD),
        }
        let _ = rustix::io::read(&*bell, &mut [0; 8]);
    }
}
