//! One disk: what it is to be, what it is, and the thread that makes it so.
//!
//! Calls of storage may take long, or never come back. So all of them are made by a thread of the disk's own, and
//! whoever asks waits for a limited time. What is shown never waits for storage.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ctl_types::{DiskLimits, DiskSpec, DiskState};
use disk::disk::{Disk, DiskError, LOCK_WAIT, Monitor};

use crate::ImageNotice;
use crate::config::DiskSettings;
use crate::error::Error;
use crate::open::{self, Identity, Made, Manner, images_for, is_gone, of_size, open};
use crate::spec::{is_live_change, limit_spec};
use crate::turn::Turn;

/// How long a pause waits for requests in work.
pub(crate) const PAUSE_WAIT: Duration = Duration::from_secs(30);
/// Looks at a disk that is up, of which one looks at its image.
const LOOKS: u32 = 6;

/// What there is to be seen.
#[derive(Debug)]
pub(crate) struct Shown {
    /// What the disk is to be.
    pub spec: DiskSpec,
    pub state: DiskState,
    /// Why it is not what it is to be.
    pub why: Option<String>,
    pub monitor: Option<Monitor>,
    pub identity: Option<Identity>,
    /// A client is making it, and it is not kept yet.
    pub fresh: bool,
    /// It is being deleted.
    pub goes: bool,
    /// Its configuration can't be, so it is not tried.
    pub refused: bool,
}

/// What the disk's thread shares with others.
#[derive(Debug)]
pub(crate) struct Common {
    shown: Mutex<Shown>,
    /// Whoever changes the disk has it, until the change is kept.
    pub turn: Arc<Turn>,
    /// A look is asked for, and has not begun.
    looking: AtomicBool,
}

impl Common {
    pub(crate) fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Job = Box<dyn FnOnce(&mut Work) + Send>;
/// Says which other disk has that image.
pub(crate) type Taken = Arc<dyn Fn(&str, Identity, bool) -> Option<String> + Send + Sync>;

/// What a disk knows of the others and of the daemon.
pub(crate) struct Surroundings {
    pub settings: Arc<DiskSettings>,
    pub taken: Taken,
    pub image_is_there: ImageNotice,
}

/// A disk, from outside. Its thread ends when this is dropped, after what it has to do.
pub(crate) struct Served {
    pub common: Arc<Common>,
    jobs: Sender<Job>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served").field("common", &self.common).finish_non_exhaustive()
    }
}

impl Served {
    /// A disk that is not up yet. With `may_make` an image that is not there is made.
    pub(crate) fn new(spec: DiskSpec, surroundings: Surroundings, may_make: bool) -> Result<Self, Error> {
        let (jobs, receiver): (Sender<Job>, Receiver<Job>) = channel();
        let shown = Shown {
            spec,
            state: DiskState::Starting,
            why: None,
            monitor: None,
            identity: None,
            fresh: false,
            goes: false,
            refused: false,
        };
        let common =
            Arc::new(Common { shown: Mutex::new(shown), turn: Arc::default(), looking: AtomicBool::new(false) });
        let mut work = Work {
            common: Arc::clone(&common),
            surroundings,
            disk: None,
            made: None,
            may_make,
            looks: 0,
            limits: DiskLimits::default(),
        };
        let run = move || {
            receiver.iter().for_each(|job| job(&mut work));
            work.end();
        };
        let thread = std::thread::Builder::new().name("xs-disk-ctl".to_owned()).spawn(run);
        let thread = thread.map_err(|error| Error::system(format!("starting the thread of a disk: {error}")))?;
        Ok(Self { common, jobs, thread: Mutex::new(Some(thread)) })
    }

    pub(crate) fn shown(&self) -> MutexGuard<'_, Shown> {
        self.common.shown()
    }

    /// Has the disk's thread do something. Gives the result, or nothing if it takes longer than `most`. It is done then
    /// too.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        most: Duration,
        job: impl FnOnce(&mut Work) -> T + Send + 'static,
    ) -> Option<T> {
        let (tell, told) = channel();
        self.tell(move |work| {
            let _ = tell.send(job(work));
        });
        told.recv_timeout(most).ok()
    }

    /// The same without waiting.
    pub(crate) fn tell(&self, job: impl FnOnce(&mut Work) + Send + 'static) {
        // The thread lives as long as this.
        let _ = self.jobs.send(Box::new(job));
    }

    /// Has the thread see to it that the disk is what it is to be.
    pub(crate) fn look(&self) {
        if !self.common.looking.swap(true, Ordering::AcqRel) {
            self.tell(Work::look);
        }
    }

    /// Ends the disk. The thread is given, so that somebody can wait for it.
    pub(crate) fn end(self: Arc<Self>) -> Option<JoinHandle<()>> {
        self.shown().goes = true;
        self.thread.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What the disk's thread has.
pub(crate) struct Work {
    common: Arc<Common>,
    surroundings: Surroundings,
    disk: Option<Disk>,
    made: Made,
    may_make: bool,
    looks: u32,
    /// Limits that the disk has. To set them again would fill the buckets.
    limits: DiskLimits,
}

impl Work {
    fn spec(&self) -> DiskSpec {
        self.common.shown().spec.clone()
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(self.spec().path.unwrap_or_default())
    }

    /// Brings the disk up, for the first time.
    pub(crate) fn first(&mut self, lock_wait: Duration) -> Result<(), Error> {
        self.bring_up(Manner { may_make: self.may_make, lock_wait })
    }

    fn bring_up(&mut self, manner: Manner) -> Result<(), Error> {
        let spec = self.spec();
        let opened = open(&spec, &self.surroundings, manner, &mut self.made);
        let mut shown = self.common.shown();
        match opened {
            Ok(opened) => {
                (shown.state, shown.why) = (DiskState::Up, None);
                shown.monitor = Some(opened.disk.monitor());
                shown.identity = Some(opened.identity);
                if shown.spec.size.is_none_or(|size| size < opened.bytes) {
                    shown.spec.size = Some(opened.bytes);
                }
                self.disk = Some(opened.disk);
                self.limits = spec.limits;
                self.may_make = false;
                drop(shown);
                tracing::info!(disk = spec.name, path = spec.path, bytes = opened.bytes, "a disk is up");
                // It may have been changed meanwhile.
                self.settle_and_show();
                Ok(())
            }
            Err(error) => {
                let why = error.to_string();
                if shown.why.as_ref() != Some(&why) {
                    tracing::error!(disk = spec.name, why, "a disk can't be brought up");
                }
                (shown.state, shown.why) = (DiskState::Failed, Some(why));
                Err(error)
            }
        }
    }

    /// Sees to it that the disk is what it is to be.
    fn look(&mut self) {
        self.common.looking.store(false, Ordering::Release);
        if self.common.shown().goes || self.common.shown().refused {
            return;
        }
        if self.disk.is_none() {
            let _ = self.bring_up(Manner { may_make: self.may_make, lock_wait: LOCK_WAIT });
            return;
        }
        self.looks = (self.looks + 1) % LOOKS;
        let (state, identity) = {
            let shown = self.common.shown();
            (shown.state, shown.identity)
        };
        if let Some(disk) = &self.disk {
            disk.look_for_space();
        }
        let settled = self.settle();
        // A reason that stays is shown without a gap, and logged once.
        if self.looks == 0 || state == DiskState::Degraded || settled.is_err() {
            let gone = identity.and_then(|identity| is_gone(&self.path(), identity));
            self.show_problem(gone.or(settled.err().map(|error| error.to_string())));
        }
    }

    fn show_problem(&self, why: Option<String>) {
        let mut shown = self.common.shown();
        if let Some(why) = why.as_ref().filter(|why| shown.why.as_ref() != Some(why)) {
            tracing::error!(disk = shown.spec.name, why, "a disk is not as it should be");
        }
        shown.state = if why.is_some() { DiskState::Degraded } else { DiskState::Up };
        shown.why = why;
    }

    /// Has the disk follow what can be changed while it is served.
    ///
    /// # Errors
    /// It can't grow.
    fn settle(&mut self) -> Result<(), Error> {
        let spec = self.spec();
        let Some(disk) = &self.disk else { return Ok(()) };
        if self.limits != spec.limits {
            disk.set_limits(&limit_spec(&spec.limits));
            self.limits = spec.limits;
        }
        let info = disk.info();
        match (spec.is_paused(), info.paused) {
            (true, false) => drop(disk.pause(Duration::ZERO)),
            (false, true) => disk.resume(),
            _ => {}
        }
        spec.size.filter(|size| *size > info.bytes).map_or(Ok(()), |size| self.grow(size))
    }

    /// The same, and shows why it does not.
    fn settle_and_show(&mut self) {
        if let Err(error) = self.settle() {
            self.show_problem(Some(error.to_string()));
        }
    }

    /// Becomes what `spec` says. What can't be changed in operation makes the disk anew.
    pub(crate) fn become_as_shown(&mut self, before: &DiskSpec) {
        if is_live_change(before, &self.spec()) {
            self.settle_and_show();
            return;
        }
        self.let_go();
        let _ = self.bring_up(Manner { may_make: self.may_make, lock_wait: LOCK_WAIT });
    }

    fn disk(&self) -> Result<&Disk, Error> {
        self.disk.as_ref().ok_or_else(|| {
            let why = self.common.shown().why.clone().unwrap_or_else(|| "it is being brought up".to_owned());
            Error::system(format!("the disk is not up: {why}"))
        })
    }

    pub(crate) fn grow(&self, bytes: u64) -> Result<(), Error> {
        self.disk()?.grow(bytes).map_err(|error| of_size(Error::disk(error, &self.path())))
    }

    /// Pauses the disk. Says whether it is quiet. One that is not up is.
    pub(crate) fn pause(&self) -> Result<(), Error> {
        match self.disk.as_ref().map_or(Ok(()), |disk| disk.pause(PAUSE_WAIT)) {
            Ok(()) => Ok(()),
            Err(DiskError::Slow(most)) => Err(not_quiet(most)),
            Err(error) => Err(Error::disk(error, &self.path())),
        }
    }

    /// Notes limits that somebody else has set.
    pub(crate) fn has_limits(&mut self, limits: DiskLimits) {
        self.limits = limits;
    }

    pub(crate) fn resume(&self) {
        if let Some(disk) = &self.disk {
            disk.resume();
        }
    }

    pub(crate) fn snapshot(&self, to: &Path) -> Result<(), Error> {
        let images = images_for(to, &self.surroundings.settings)?;
        self.disk()?.snapshot(&images, to).map_err(|error| match error {
            DiskError::Invalid(text) => Error::new(model::ErrorKind::Unsupported, format!("path: {text}")),
            error => Error::disk(error, to),
        })
    }

    /// Ends the disk for good. `with_image` takes its image away. So does `undo`, if it was made for this disk.
    pub(crate) fn remove(&mut self, with_image: bool, undo: bool) {
        self.let_go();
        if with_image {
            self.made = Some(self.path());
        }
        if with_image || undo {
            open::take_away(&mut self.made, &self.surroundings.settings);
        }
    }

    fn let_go(&mut self) {
        {
            let mut shown = self.common.shown();
            (shown.monitor, shown.identity) = (None, None);
            shown.state = DiskState::Starting;
        }
        // Requests in work end here.
        self.disk = None;
    }

    fn end(&mut self) {
        self.let_go();
    }
}

/// The answer to a pause that takes longer than `most`.
pub(crate) fn not_quiet(most: Duration) -> Error {
    Error::busy(format!(
        "requests are in work after {most:?}: the disk takes no new ones, and is quiet once the storage has answered"
    ))
}

impl Served {
    /// Shows a disk that can't be, and never tries.
    pub(crate) fn refuse(&self, error: &Error) {
        let mut shown = self.shown();
        tracing::error!(disk = shown.spec.name, %error, "a disk can't be brought up");
        (shown.state, shown.why) = (DiskState::Failed, Some(error.to_string()));
        shown.refused = true;
    }
}
