//! The alarm of a full storage.
//!
//! A guest goes on writing where it has blocks already, while writes to new places fail. So not every write that works
//! ends the alarm. A write at the place of the last failure does. So does free space, which is looked for now and
//! then: the guest may never write there again.

use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;

/// No write has failed.
const NOWHERE: u64 = u64::MAX;

/// The alarm.
#[derive(Debug)]
pub struct Full {
    /// First byte of the last write for which there was no space. [`NOWHERE`] if the alarm is off.
    at: AtomicU64,
}

impl Default for Full {
    fn default() -> Self {
        Self { at: AtomicU64::new(NOWHERE) }
    }
}

impl Full {
    /// Whether there was no space for a write.
    pub fn is_on(&self) -> bool {
        self.at.load(Ordering::Relaxed) != NOWHERE
    }

    /// There was no space for a write that begins at that byte. `name` is the disk's, for the log.
    pub fn begin(&self, name: &str, at: u64, errno: Errno) {
        if self.at.swap(at.min(NOWHERE - 1), Ordering::Relaxed) == NOWHERE {
            tracing::warn!(disk = name, %errno, "no space for what the guest writes");
        }
    }

    /// So many bytes were written.
    pub fn wrote(&self, name: &str, at: u64, len: u64) {
        let failed = self.at.load(Ordering::Relaxed);
        if failed != NOWHERE && failed >= at && failed - at < len {
            self.end(name);
        }
    }

    /// Nothing is known any more.
    pub fn forget(&self) {
        self.at.store(NOWHERE, Ordering::Relaxed);
    }

    /// There is space.
    pub fn end(&self, name: &str) {
        if self.at.swap(NOWHERE, Ordering::Relaxed) != NOWHERE {
            tracing::info!(disk = name, "there is space again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_at_the_place_of_the_failure_ends_the_alarm_and_no_other_does() {
        let full = Full::default();
        full.wrote("test", 0, 4096);
        assert!(!full.is_on());
        full.begin("test", 8192, Errno::ENOSPC);
        for (at, len) in [(0, 8192), (8193, 4096), (1 << 40, 512)] {
            full.wrote("test", at, len);
            assert!(full.is_on(), "{at}, {len}");
        }
        full.begin("test", 0, Errno::EDQUOT);
        full.wrote("test", 8192, 512);
        assert!(full.is_on(), "another write has failed since");
        full.wrote("test", 0, 512);
        assert!(!full.is_on());
        full.begin("test", u64::MAX, Errno::ENOSPC);
        assert!(full.is_on());
        full.end("test");
        assert!(!full.is_on());
    }
}
