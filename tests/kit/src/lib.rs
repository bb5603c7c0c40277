//! Shared parts of the tests of management: a running switch on a made-up host, storage that can be full, the
//! Soft Patch Panel on both, every method of the DPU interface by name, and the examples of SPP's references.
//!
//! Product crates use it in `[dev-dependencies]` only. Unit tests of a crate that the kit depends on can't use it,
//! because that crate would be linked twice. Such tests are integration tests.
#![forbid(unsafe_code)]

mod calls;
mod config;
mod kept;
mod machine;
mod panel;
pub mod reference;
mod storage;

pub use self::calls::{METHODS, Said, call, state_of};
pub use self::config::Config;
pub use self::kept::{Kept, tables};
pub use self::machine::{MISSING_NETDEV, machine_for, receive, start, start_sized};
pub use self::panel::{ALL_TYPES, VF_AND_NFV, own_directory, panel, panel_on, spp_of, with_queues};
pub use self::storage::FakeStorage;
pub use kit_host::{Call, FakeHost, Fate, wait};
