//! Ctrl-C and SIGTERM. The bench stops at its next check, and its guards remove what it made.
#![allow(unsafe_code, reason = "signal handlers")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static WANTED: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_: i32) {
    WANTED.store(true, Ordering::Relaxed);
}

/// Notes the signals from this call on, instead of dying of them.
pub fn listen() {
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only writes an atomic.
        unsafe { sigaction(signal, &action) }.expect("a signal can be listened for");
    }
}

/// Whether a signal came.
pub fn wanted() -> bool {
    WANTED.load(Ordering::Relaxed)
}

/// Fails if a signal came.
///
/// # Errors
/// A signal came.
pub fn check() -> anyhow::Result<()> {
    if wanted() {
        bail!("stopped by a signal");
    }
    Ok(())
}

/// Sleeps, unless a signal comes.
///
/// # Errors
/// A signal came, before or meanwhile.
pub fn sleep(time: Duration) -> anyhow::Result<()> {
    let end = Instant::now() + time;
    loop {
        check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}
