//! State that the threads of an outside end share with those who ask about it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A direction through an outside end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Towards components.
    In,
    /// From components.
    Out,
}

/// The state of an outside end.
#[derive(Debug, Default)]
pub struct State {
    stop: AtomicBool,
    files: Mutex<Vec<PathBuf>>,
    errors: Mutex<[Option<String>; 2]>,
    pub rx_dropped: AtomicU64,
    pub tx_dropped: AtomicU64,
}

impl State {
    /// Tells the threads to stop.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Whether the threads must stop.
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Sets what is wrong in one direction, or that nothing is (`None`). A new error is logged.
    pub fn set_error(&self, way: Way, error: Option<String>) {
        let mut errors = lock(&self.errors);
        if errors[way as usize] != error {
            if let Some(error) = &error {
                tracing::warn!("outside end: {error}");
            }
            errors[way as usize] = error;
        }
    }

    /// What is wrong in one or both directions.
    pub fn error(&self) -> Option<String> {
        let errors: Vec<_> = lock(&self.errors).iter().flatten().cloned().collect();
        (!errors.is_empty()).then(|| errors.join("; "))
    }

    /// Adds a file that was begun.
    pub fn add_file(&self, path: PathBuf) {
        lock(&self.files).push(path);
    }

    /// The files, oldest first.
    pub fn files(&self) -> Vec<PathBuf> {
        lock(&self.files).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
