//! The clock: once a second time goes on, the MAC table ages, and steering sets follow.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::change;
use super::core::Core;
use super::flaps::FlapLog;
use super::state::Control;
use crate::{Error, ErrorKind};

const TICK: Duration = Duration::from_secs(1);

/// The clock's thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Clock {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Clock {
    /// Starts it. It ends with the control that it is for.
    pub fn start(core: &Arc<Core>, control: &Arc<Mutex<Control>>) -> Result<Self, Error> {
        let stop = Arc::<(Mutex<bool>, Condvar)>::default();
        let run = {
            let (stop, core, control) = (Arc::clone(&stop), Arc::downgrade(core), Arc::downgrade(control));
            move || run(&stop, &core, &control)
        };
        let thread = std::thread::Builder::new().name("xs-clock".to_owned()).spawn(run);
        let failed = |error| Error::new(ErrorKind::System, format!("starting the clock thread: {error}"));
        Ok(Self { stop, thread: Some(thread.map_err(failed)?) })
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let (stopped, bell) = &*self.stop;
        *stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        bell.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run((stopped, bell): &(Mutex<bool>, Condvar), core: &Weak<Core>, control: &Weak<Mutex<Control>>) {
    let (start, mut flap_log) = (Instant::now(), FlapLog::default());
    let mut guard = stopped.lock().unwrap_or_else(PoisonError::into_inner);
    while !*guard {
        guard = bell.wait_timeout(guard, TICK).unwrap_or_else(PoisonError::into_inner).0;
        if *guard {
            return;
        }
        let (Some(core), Some(control)) = (core.upgrade(), control.upgrade()) else { return };
        core.shared.now.store(u32::try_from(start.elapsed().as_secs()).unwrap_or(u32::MAX), Ordering::Relaxed);
        let fdb = Arc::clone(&core.shared.view.load().fdb);
        fdb.age(core.now());
        fdb.release(core.now());
        // Control may be busy, or waiting for this thread: the next tick will do.
        if let Ok(mut control) = control.try_lock() {
            let Control { core, views, .. } = &mut *control;
            views.forget(&core.shared);
            change::steer(&control);
            flap_log.tell(&control);
        }
    }
}
