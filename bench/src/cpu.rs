//! Placement of threads on CPUs, and CPU time by kind.
//!
//! The generator is pinned to one CPU and the device to another. Softirq work runs on the sender's CPU, and is charged
//! there. So what the device's port receives is processed on the generator's CPU: the XDP program, the copy into an
//! AF_XDP socket, all of a bridge or a devmap redirect. What the sink receives is processed on the device's CPU. So the
//! two shares belong together, and a device's own work is not all on its CPU.
//!
//! The shares come from `/proc/stat`. The kernel may count in samples (a tick of 4 ms at 250 Hz). Over a second that is
//! exact to a percent or so. The generator spins between the packets of a paced load, except for few packets whose
//! round trips are timed. Its share of user and system says nothing then.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::results::CpuShare;

/// CPU of the generator, and of all softirq work of what it sends.
pub const GENERATOR: usize = 0;
/// CPU of the device under test, and of all softirq work of what it sends.
pub const DEVICE: usize = 1;

/// Puts a thread (0: the calling one) on one CPU.
pub(crate) fn pin(thread: i32, cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).expect("a CPU number");
    sched_setaffinity(Pid::from_raw(thread), &set).expect("a thread may choose among its CPUs");
}

/// Keeps the calling thread, and threads that it starts, on one CPU until it is dropped.
#[derive(Debug)]
pub(crate) struct Pinned {
    before: CpuSet,
}

impl Pinned {
    pub(crate) fn new(cpu: usize) -> Self {
        let before = sched_getaffinity(Pid::from_raw(0)).expect("a thread knows its CPUs");
        pin(0, cpu);
        Self { before }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // The mask was valid before.
        let _ = sched_setaffinity(Pid::from_raw(0), &self.before);
    }
}

/// A reading of a CPU's counters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    user: u64,
    system: u64,
    softirq: u64,
}

impl Clock {
    pub(crate) fn read(cpu: usize) -> Self {
        let text = std::fs::read_to_string("/proc/stat").expect("/proc is mounted");
        let name = format!("cpu{cpu} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name)).expect("the CPU is there");
        let ticks: Vec<u64> = line.split_whitespace().map(|word| word.parse().expect("a number of ticks")).collect();
        // user nice system idle iowait irq softirq …
        Self { user: ticks[0] + ticks[1], system: ticks[2], softirq: ticks[5] + ticks[6] }
    }

    /// Shares of the CPU between an earlier reading and this one, `seconds` apart.
    pub(crate) fn since(self, before: Self, seconds: f64) -> CpuShare {
        // USER_HZ is 100 on every architecture that the bench runs on.
        let share = |now: u64, then: u64| now.saturating_sub(then) as f64 / 100.0 / seconds;
        CpuShare {
            user: share(self.user, before.user),
            system: share(self.system, before.system),
            softirq: share(self.softirq, before.softirq),
        }
    }
}
