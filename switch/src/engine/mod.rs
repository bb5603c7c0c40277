//! The switching engine: pure code from packet bytes to verdict. No I/O, no clock (time is handed in), nothing of the rest of
//! the project but plain data ([`crate::model`], [`crate::counters`]).
//!
//! The way of a frame: [`parse`] reads its layer 2, [`bridge::decide`] asks the immutable [`snapshot`] and the shared MAC
//! table [`fdb`], and says where it goes: by a traffic [`rule`], or by the MAC table. [`vlan`] says what happens to its tag
//! there, [`meter`] whether it is within its rate. [`trace`] runs the same `decide` with an observer that writes the steps
//! down. [`component`] is the other way a frame may take, on which it may meet [`flow`] rules. [`tables`] is where control keeps rules, meters and redirects. Nothing on that way allocates, waits for a lock, logs or makes a system call.
//!
//! The sender of a frame is the adversary: every function here that takes frame bytes is total, for any bytes of any length.
#![forbid(unsafe_code)]

pub mod bridge;
pub mod component;
pub mod fdb;
pub mod flow;
pub mod meter;
pub mod parse;
pub mod rule;
pub mod snapshot;
pub mod tables;
pub mod trace;
pub mod vlan;

pub use crate::model::PortNo;
pub use bridge::{Decision, Egress, Memory, NoObserver, Observer, Scene, Verdict, decide, decide_at, egress_check};
pub use fdb::Fdb;
pub use snapshot::{BridgePolicy, PortPolicy, Snapshot};
