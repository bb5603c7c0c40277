//! Limits that the kernel sets a process: locked memory and capabilities.

/// Number of CAP_IPC_LOCK (`linux/capability.h`), which exempts a process from the limit of locked memory.
pub const CAP_IPC_LOCK: u32 = 14;
/// Packet memory of one AF_XDP socket of QEMU, in bytes: 8,192 frames of 4,096 (`net/af-xdp.c`).
const UMEM: u64 = 32 << 20;
/// Room for other memory that the kernel counts against the same user's limit, in bytes.
const MEMLOCK_MARGIN: u64 = 8 << 20;

/// `RLIMIT_MEMLOCK`, in bytes, for a user whose QEMU guests have `queues` queues in all.
pub fn memlock(queues: u64) -> u64 {
    queues * UMEM + MEMLOCK_MARGIN
}

/// The mask of effective capabilities in `/proc/PID/status`.
pub fn effective_capabilities(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
