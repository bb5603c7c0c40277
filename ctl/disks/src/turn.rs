//! One operation at a time.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A right that one has at a time.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    taken: Mutex<bool>,
    given_back: Condvar,
}

/// The right. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Held(Arc<Turn>);

impl Turn {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes it. Waits at most so long for another one's.
    pub(crate) fn take(self: &Arc<Self>, most: Duration) -> Option<Held> {
        let waited = self.given_back.wait_timeout_while(self.lock(), most, |taken| *taken);
        let (mut taken, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *taken {
            return None;
        }
        *taken = true;
        drop(taken);
        Some(Held(Arc::clone(self)))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        *self.0.lock() = false;
        self.0.given_back.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_it_at_a_time() {
        let turn = Arc::new(Turn::default());
        let held = turn.take(Duration::ZERO).unwrap();
        assert!(turn.take(Duration::from_millis(1)).is_none());
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| turn.take(Duration::from_secs(60)).is_some());
            drop(held);
            assert!(waiter.join().unwrap());
        });
        assert!(turn.take(Duration::ZERO).is_some());
    }
}
