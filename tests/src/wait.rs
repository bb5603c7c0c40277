//! Waiting for another process or the kernel: always bounded, never a blind sleep.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Time between two looks.
const STEP: Duration = Duration::from_millis(10);

/// Repeats `probe` until it gives a value or `timeout` is over.
pub fn until<T>(timeout: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + timeout;
    loop {
        if let Some(value) = probe() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        sleep(STEP);
    }
}

/// Does [`until`] for a condition. Panics with `what` if it does not come true.
pub fn expect(what: &str, timeout: Duration, mut probe: impl FnMut() -> bool) {
    assert!(until(timeout, || probe().then_some(())).is_some(), "{what}: not within {timeout:?}");
}
