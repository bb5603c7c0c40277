//! What the kernel allows a process: locked memory, capabilities.

/// Number of CAP_IPC_LOCK (`linux/capability.h`), which exempts a process from the limit of locked memory.
pub const CAP_IPC_LOCK: u32 = 14;
/// Packet memory of a socket of QEMU's, in bytes: 8,192 frames of 4,096 (`net/af-xdp.c`).
const UMEM: u64 = 32 << 20;
/// What else of a user's the kernel may count against the same limit.
const MEMLOCK_MARGIN: u64 = 8 << 20;

/// `RLIMIT_MEMLOCK`, in bytes, for a user whose guests in QEMU have that many queues together.
pub fn memlock(queues: u64) -> u64 {
    queues * UMEM + MEMLOCK_MARGIN
}

/// The mask of effective capabilities in `/proc/PID/status`.
pub fn effective_capabilities(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
