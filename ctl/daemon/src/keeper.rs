//! Looks after the daemon's directories: a thread that makes locks, state file and records again if they are removed,
//! and tells the service manager. Sockets look after themselves (`ctl-listen`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;

use ctl_service::state::DirLock;
use ctl_service::upkeep::PERIOD;
use ctl_service::{Error, Service};
use sd_notify::NotifyState;

use crate::notify;

/// A locked directory, with its name for the operator.
pub(crate) struct Directory {
    name: &'static str,
    lock: DirLock,
}

impl Directory {
    pub(crate) fn take(name: &'static str, path: &Path) -> Result<Self, Error> {
        Ok(Self { name, lock: DirLock::take(path)? })
    }
}

/// The thread. It ends when this value is dropped.
pub(crate) struct Keeper {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<Vec<Directory>>>,
}

impl Keeper {
    /// Starts it. `rings` is the directory of the files that outlive the data plane.
    pub(crate) fn start(
        service: &Arc<Service>,
        mut directories: Vec<Directory>,
        rings: PathBuf,
    ) -> Result<Self, Error> {
        let (stop, stopped) = channel();
        let service = Arc::clone(service);
        let work = move || {
            let mut told = service.upkeep().summary();
            while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                for Directory { name, lock } in &mut directories {
                    let look = lock.look_after();
                    service.upkeep().note(name, lock.dir(), look);
                }
                service.look_after_files();
                service.upkeep().note("rings_directory", &rings, service.dataplane().look_after_files());
                let summary = service.upkeep().summary();
                if summary != told {
                    notify(NotifyState::Status(&summary));
                    told = summary;
                }
            }
            directories
        };
        let thread = std::thread::Builder::new().name("xs-keeper".to_owned()).spawn(work);
        let thread = thread.map_err(|error| Error::io("starting a thread", error))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }

    /// Ends the thread, which may be at work. The directories stay locked until they are dropped.
    pub(crate) fn end(mut self) -> Vec<Directory> {
        self.join()
    }

    fn join(&mut self) -> Vec<Directory> {
        self.stop = None;
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.join();
    }
}
