//! QEMU: its command line, its start, its monitor.

pub mod launch;
pub mod options;
