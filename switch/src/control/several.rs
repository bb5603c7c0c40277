//! Work on several ports at a time: what one waits for the kernel, another uses.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Threads that work at a time, the caller's included. Most of what they do is waiting, much of it in turn
/// (`rtnl_mutex`).
const AT_ONCE: usize = 8;

/// Does `work` with each item, on several threads if there are several, and returns the results in the order of the
/// items.
///
/// # Panics
/// If `work` does.
pub(super) fn each<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    if items.len() <= 1 {
        return items.into_iter().map(work).collect();
    }
    let slots: Vec<_> = items.into_iter().map(|item| (Mutex::new(Some(item)), Mutex::new(None))).collect();
    let next = AtomicUsize::new(0);
    let take_turns = || {
        while let Some((item, result)) = slots.get(next.fetch_add(1, Ordering::Relaxed)) {
            let item = item.lock().unwrap_or_else(PoisonError::into_inner).take();
            let done = item.map(&work);
            *result.lock().unwrap_or_else(PoisonError::into_inner) = done;
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..AT_ONCE.min(slots.len()) {
            scope.spawn(take_turns);
        }
        take_turns();
    });
    // All are there: had one thread panicked, so would this one have done.
    slots.into_iter().filter_map(|(_, result)| result.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_is_worked_on_once_and_the_order_stays() {
        for count in [0, 1, 2, 7, 100] {
            let calls = AtomicUsize::new(0);
            let done = each((0..count).collect(), |n: usize| {
                calls.fetch_add(1, Ordering::Relaxed);
                // Later ones are done first.
                std::thread::sleep(std::time::Duration::from_micros((count - n) as u64 * 10));
                n * 2
            });
            assert_eq!(done, (0..count).map(|n| n * 2).collect::<Vec<_>>());
            assert_eq!(calls.into_inner(), count);
        }
    }

    #[test]
    #[should_panic]
    fn a_panic_is_not_lost() {
        each(vec![1, 2, 3, 4], |n| assert!(n != 3, "three"));
    }
}
