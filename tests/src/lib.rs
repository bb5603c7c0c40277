//! Fixtures of the tests that need a kernel: network namespaces, veth pairs, the daemon, guests, crafted frames, and
//! the tests' own packet generators and sinks.
//!
//! Every fixture is a guard. A namespace, process or XDP program goes on drop, also when the test panics. So tests can
//! run side by side and leave nothing behind. Fixtures panic with the reason instead of returning errors, because a
//! test without its set-up has failed.
//!
//! Needs root. aya loads the generator, sink and guest programs, while libbpf loads the switch's own. So each loader
//! checks the other.
#![allow(unsafe_code, reason = "system calls of fixtures")]

pub mod companion;
pub mod daemon;
pub mod disk_guest;
pub mod gensink;
pub mod guest;
pub mod handover;
pub mod http;
pub mod netns;
pub mod number;
pub mod ovs;
pub mod packet;
pub mod programs;
pub mod python;
pub mod qemu_double;
pub mod qmp;
pub mod random;
pub mod raw;
pub mod shell;
pub mod spp;
pub mod stream;
pub mod tap;
pub mod testpmd;
pub mod veth;
pub mod wait;
pub mod xsk_guest;

pub use daemon::{Daemon, Guest, Options};
pub use netns::NetNs;
pub use number::narrow;
pub use packet::{Frame, Mac};
