//! Memory and CPU time of processes, and children that end with their guard.

use std::process::Child;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::wait;

/// A child process. When it is dropped it gets SIGTERM, and SIGKILL after five seconds.
#[derive(Debug)]
pub struct Process(pub Child);

impl Process {
    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_some()) {
            return;
        }
        let _ = kill(Pid::from_raw(self.pid()), Signal::SIGTERM);
        if wait::until(Duration::from_secs(5), || self.0.try_wait().ok().flatten()).is_none() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Resident memory of a process in bytes, with shared pages and huge pages.
///
/// # Errors
/// There is no such process.
pub fn resident(pid: i32) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kilobytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).context("a process has memory")?;
        anyhow::Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()?)
    };
    Ok((kilobytes("VmRSS:")? + kilobytes("HugetlbPages:").unwrap_or(0)) * 1024)
}

/// CPU time of a process's present threads in seconds, by the scheduler's clock.
///
/// # Errors
/// There is no such process.
pub fn cpu_seconds(pid: i32) -> anyhow::Result<f64> {
    let mut sum = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end meanwhile.
        let text = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        sum += text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum as f64 / 1e9)
}
