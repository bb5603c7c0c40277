//! A disk: a store, a socket, and the threads that serve it.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};
use thiserror::Error;
use vhost_user::socket::Place;

use crate::config::Shape;
use crate::device::Device;
use crate::device::endpoint::{Endpoint, Request, SessionInfo};
use crate::image::{ImageError, Images};
use crate::limits::{LimitSpec, Limits};
use crate::request::ID_LEN;
use crate::space::Full;
use crate::stats::QueueCounters;
use crate::store::Store;
use crate::thread::{Shared, Thread};

/// How long a disk should wait for the image's lock after a restart. A daemon that was killed has it while the kernel
/// ends its operations.
pub const LOCK_WAIT: Duration = Duration::from_secs(10);

/// Most queues of a disk: the protocol has 8 bits for them.
pub const MAX_QUEUES: u16 = 256;
/// Largest ring, in entries.
pub const MAX_DEPTH: u16 = 32_768;

/// Free bytes of a storage that was full, with which it is not any more.
const ENOUGH: u64 = 4 << 20;

/// What a disk is to be.
#[derive(Clone, Debug)]
pub struct DiskSpec {
    /// Its name, for logs.
    pub name: String,
    /// What the guest sees as the serial number: the first 20 bytes of this.
    pub serial: String,
    /// Queues, 1 to 256.
    pub max_queue: u16,
    /// Largest ring in entries, a power of two up to 32,768.
    pub queue_depth: u16,
    /// Bytes of a block: 512 or 4096.
    pub block: u32,
    /// The guest can't write.
    pub read_only: bool,
    /// Where its socket is.
    pub place: Place,
    /// Threads that serve its queues, 1 to `max_queue`.
    pub threads: u16,
    /// CPUs of these threads, in turn. They run anywhere if there are none.
    pub cpus: Vec<usize>,
    /// Limits.
    pub limits: LimitSpec,
    /// It takes no requests until it is resumed.
    pub paused: bool,
    /// Its image is locked only while a guest uses it, so that the guest can migrate to another machine with it.
    pub shared_storage: bool,
    /// How long it waits for the image's lock, which another disk may have.
    pub lock_wait: Duration,
}

/// Why there is no disk, or why it does not do what it was asked to.
#[derive(Debug, Error)]
pub enum DiskError {
    /// A number can't be.
    #[error("{0}")]
    Invalid(String),
    /// Another disk has the image.
    #[error("another disk has the image")]
    InUse,
    /// The kernel refuses.
    #[error("{step}: {error}")]
    Failed {
        /// What was tried.
        step: &'static str,
        /// Why.
        error: io::Error,
    },
    /// A snapshot can't be made.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// It takes longer than the caller wanted to wait. It happens later.
    #[error("not done after {0:?}; it will be once the storage answers")]
    Slow(Duration),
}

/// What there is to be seen of a disk.
#[derive(Clone, Debug)]
pub struct DiskInfo {
    /// Bytes.
    pub bytes: u64,
    /// It takes no requests.
    pub paused: bool,
    /// There was no space for the last write that failed.
    pub full: bool,
    /// The host's page cache is not used.
    pub direct: bool,
    /// Writes are durable before they are used: the driver knows of no cache.
    pub write_through: bool,
    /// The session.
    pub session: SessionInfo,
}

/// A disk that is served. It ends when this is dropped, after the requests in work.
#[derive(Debug)]
pub struct Disk {
    // In this order they end: threads first, then the right to the store.
    endpoint: Endpoint,
    _ownership: Ownership,
    shared: Arc<Shared>,
    paused: Arc<AtomicBool>,
    direct: bool,
}

/// A disk to look at, without a right to it. It never waits for storage, and outlives the disk.
#[derive(Clone, Debug)]
pub struct Monitor {
    shared: Arc<Shared>,
    session: Arc<Mutex<SessionInfo>>,
    paused: Arc<AtomicBool>,
    direct: bool,
}

impl Monitor {
    /// What there is to be seen.
    pub fn info(&self) -> DiskInfo {
        DiskInfo {
            bytes: self.shared.capacity.load(Ordering::Relaxed),
            paused: self.paused.load(Ordering::Relaxed),
            full: self.shared.full.is_on(),
            direct: self.direct,
            write_through: self.shared.write_through.load(Ordering::Relaxed),
            session: self.session.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Counters, by queue.
    pub fn counters(&self) -> &[QueueCounters] {
        &self.shared.counters
    }

    /// Changes the disk's limits, while it runs.
    pub fn set_limits(&self, spec: &LimitSpec) {
        self.shared.limits.set(spec);
    }
}

/// The right to use a store, which ends with this.
#[derive(Debug)]
struct Ownership(Arc<dyn Store>);

impl Drop for Ownership {
    fn drop(&mut self) {
        self.0.disown();
    }
}

impl DiskSpec {
    fn check(&self, store: &dyn Store) -> Result<u64, DiskError> {
        let invalid = |text: String| Err(DiskError::Invalid(text));
        let properties = store.properties();
        if self.max_queue == 0 || self.max_queue > MAX_QUEUES {
            return invalid(format!("max_queue {} is not from 1 to {MAX_QUEUES}", self.max_queue));
        }
        if !self.queue_depth.is_power_of_two() || self.queue_depth < 2 || self.queue_depth > MAX_DEPTH {
            return invalid(format!("queue_depth {} is no power of two from 2 to {MAX_DEPTH}", self.queue_depth));
        }
        if self.block != 512 && self.block != 4096 {
            return invalid(format!("blocks have 512 or 4096 bytes, not {}", self.block));
        }
        if self.threads == 0 || self.threads > self.max_queue {
            return invalid(format!("{} threads for {} queues", self.threads, self.max_queue));
        }
        if properties.offset_align > self.block {
            let (block, align) = (self.block, properties.offset_align);
            return invalid(format!("the image takes multiples of {align} bytes only: blocks of {block} can't be"));
        }
        let bytes = properties.bytes - properties.bytes % u64::from(self.block);
        if bytes == 0 {
            return invalid("the image has no bytes".to_owned());
        }
        Ok(bytes)
    }
}

impl Disk {
    /// Serves a store as a disk.
    ///
    /// # Errors
    /// A number can't be, another disk has the store, or the kernel refuses something. Nothing is left then.
    pub fn start(spec: DiskSpec, store: Arc<dyn Store>) -> Result<Self, DiskError> {
        let capacity = spec.check(&*store)?;
        let failed = |step| move |error| DiskError::Failed { step, error };
        if !spec.shared_storage {
            store.own(spec.lock_wait).map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => DiskError::InUse,
                _ => DiskError::Failed { step: "locking the image", error },
            })?;
        }
        // It is taken later, or never, of a disk on shared storage. To give it back then does no harm.
        let ownership = Ownership(Arc::clone(&store));
        let properties = store.properties();
        let mut id = [0; ID_LEN];
        id.iter_mut().zip(spec.serial.bytes()).for_each(|(to, from)| *to = from);
        let alarm = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC);
        let shared = Arc::new(Shared {
            name: spec.name.clone(),
            id,
            shape: Shape {
                queues: spec.max_queue,
                queue_depth: spec.queue_depth,
                block: spec.block,
                physical_block: properties.physical_block.max(spec.block),
                optimal_io: properties.optimal_io,
                read_only: spec.read_only,
                discard: properties.discard && !spec.read_only,
            },
            store: Arc::clone(&store),
            capacity: AtomicU64::new(capacity),
            write_through: AtomicBool::new(false),
            limits: Limits::new(&spec.limits),
            counters: (0..spec.max_queue).map(|_| QueueCounters::default()).collect(),
            full: Full::default(),
            epoch: Instant::now(),
            alarm: alarm.map_err(|errno| DiskError::Failed { step: "making an event", error: errno.into() })?,
            failure: Mutex::new(None),
        });
        let paused = spec.paused;
        let device = {
            let (shared, spec) = (Arc::clone(&shared), spec.clone());
            move || {
                let cpu = |number: usize| spec.cpus.get(number % spec.cpus.len().max(1)).copied();
                let start = |number: usize| Thread::start(&shared, number, spec.paused, cpu(number));
                let threads = (0..usize::from(spec.threads)).map(start).collect::<io::Result<Vec<_>>>()?;
                Ok(Device::new(Arc::clone(&shared), threads, spec.shared_storage))
            }
        };
        let endpoint = Endpoint::start(&spec.name, spec.place, device);
        let endpoint = endpoint.map_err(failed("starting the disk"))?;
        let paused = Arc::new(AtomicBool::new(paused));
        Ok(Self { endpoint, _ownership: ownership, shared, paused, direct: properties.direct })
    }

    /// Makes it greater. The guest sees it within a second.
    ///
    /// # Errors
    /// It would become smaller, or the store can't be that great. Then nothing has changed.
    pub fn grow(&self, bytes: u64) -> Result<(), DiskError> {
        let (answer, answered) = channel();
        self.endpoint.ask(Request::Grow(bytes, answer));
        answered.recv().unwrap_or_else(|_| Err("the disk goes".to_owned())).map_err(DiskError::Invalid)
    }

    /// Ends the requests in work. Later ones wait in their rings. Returns when the disk is quiet.
    ///
    /// # Errors
    /// Requests in work take longer than `most`. The disk is paused all the same.
    pub fn pause(&self, most: Duration) -> Result<(), DiskError> {
        let (answer, answered) = channel();
        self.paused.store(true, Ordering::Relaxed);
        self.endpoint.ask(Request::Pause(answer));
        answered.recv_timeout(most).map_err(|_| DiskError::Slow(most))
    }

    /// Takes requests again, those first that have waited. Returns at once if storage is slow.
    pub fn resume(&self) {
        let (answer, answered) = channel();
        self.paused.store(false, Ordering::Relaxed);
        self.endpoint.ask(Request::Resume(answer));
        let _ = answered.recv_timeout(Duration::from_secs(1));
    }

    /// Changes its limits, while it runs.
    pub fn set_limits(&self, spec: &LimitSpec) {
        self.shared.limits.set(spec);
    }

    /// Copies it as it is now to a new image. What the guest has written and flushed is in it.
    ///
    /// # Errors
    /// The file system can't share blocks, the store is no file, or the name is taken.
    pub fn snapshot(&self, images: &Images, path: &Path) -> Result<(), DiskError> {
        let Some(file) = self.shared.store.file() else {
            return Err(DiskError::Invalid("only files have snapshots".to_owned()));
        };
        self.shared.store.sync().map_err(|error| DiskError::Failed { step: "flushing before the snapshot", error })?;
        Ok(images.snapshot(file, path)?)
    }

    /// Ends the alarm of a full storage if there is room by now. Waits for the storage.
    pub fn look_for_space(&self) {
        if self.shared.full.is_on() && self.shared.store.free().is_some_and(|bytes| bytes >= ENOUGH) {
            self.shared.full.end(&self.shared.name);
        }
    }

    /// The disk to look at.
    pub fn monitor(&self) -> Monitor {
        let (shared, paused) = (Arc::clone(&self.shared), Arc::clone(&self.paused));
        Monitor { shared, session: self.endpoint.session(), paused, direct: self.direct }
    }

    /// What there is to be seen.
    pub fn info(&self) -> DiskInfo {
        self.monitor().info()
    }

    /// Counters, by queue.
    pub fn counters(&self) -> &[QueueCounters] {
        &self.shared.counters
    }
}
