//! Fixtures of the tests that need a kernel: network namespaces, veth pairs, the daemon under test, guests, crafted frames,
//! and packet generators and sinks of the tests' own.
//!
//! Everything here is a guard: what it makes (a namespace, a process, an XDP program) goes when it is dropped, also when the
//! test panics, so tests can run side by side and leave nothing behind. Fixtures panic with the reason instead of returning
//! errors, because a test that could not be set up has failed.
//!
//! Needs root. The generator, sink and guest programs are loaded by aya, the switch's own by libbpf: each loader is checked
//! by the other.

pub mod companion;
pub mod daemon;
pub mod gensink;
pub mod guest;
pub mod handover;
pub mod http;
pub mod netns;
pub mod packet;
pub mod programs;
pub mod python;
pub mod qemu_double;
pub mod qmp;
pub mod raw;
pub mod shell;
pub mod spp;
pub mod veth;
pub mod wait;
pub mod xsk_guest;

pub use daemon::{Daemon, Guest, Options};
pub use netns::NetNs;
pub use packet::{Frame, Mac};
