//! The thread that looks after the entries.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Offload;
use crate::worker::shared::Shared;

/// How often it goes over all entries while there are some.
const SWEEP: Duration = Duration::from_millis(20);
/// How often while packets are dropped because they wait for earlier ones.
const HURRY: Duration = Duration::from_millis(2);
/// How long it rests at least, however often it is rung for.
const REST: Duration = Duration::from_millis(1);

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub struct OffloadThread {
    offload: Arc<Offload>,
    thread: Option<JoinHandle<()>>,
}

impl OffloadThread {
    /// Starts it.
    ///
    /// # Errors
    /// There can be no thread.
    pub fn start(offload: &Arc<Offload>, shared: &Arc<Shared>) -> std::io::Result<Self> {
        let run = {
            let (offload, shared) = (Arc::clone(offload), Arc::downgrade(shared));
            move || {
                while offload.wait() {
                    let Some(shared) = shared.upgrade() else { return };
                    let view = shared.view.load_full();
                    offload.sweep(&view, shared.now.load(Ordering::Relaxed));
                    drop(shared);
                    std::thread::sleep(REST);
                }
            }
        };
        let thread = std::thread::Builder::new().name("xs-flows".to_owned()).spawn(run)?;
        Ok(Self { offload: Arc::clone(offload), thread: Some(thread) })
    }
}

impl Drop for OffloadThread {
    fn drop(&mut self) {
        self.offload.end();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Offload {
    /// Waits until the entries are to be looked at. False at the end.
    fn wait(&self) -> bool {
        let (rung, bell) = &self.bell;
        let has_flows = self.any.load(Ordering::Acquire);
        let mut guard = rung.lock().unwrap_or_else(PoisonError::into_inner);
        while !*guard && !self.has_ended() {
            if has_flows {
                let wait = if self.is_hurried() { HURRY } else { SWEEP };
                guard = bell.wait_timeout(guard, wait).unwrap_or_else(PoisonError::into_inner).0;
                break;
            }
            guard = bell.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        *guard = false;
        !self.has_ended()
    }
}
