//! The switching engine: pure code from packet bytes to a verdict. It has no I/O and no clock: time is handed in. Of
//! the rest of the project it knows plain data only ([`crate::model`], [`crate::counters`]).
//!
//! | module | what it is |
//! | --- | --- |
//! | [`parse`] | frame bytes → headers |
//! | [`bridge`] | the decision on a frame, and the flow cache in front of it |
//! | [`rule`] | traffic rules: classifier, subtables, exact-match cache |
//! | [`fdb`] | the MAC table, shared by all workers |
//! | [`snapshot`] | the immutable policy that a decision is made by |
//! | [`vlan`] | what happens to a frame's tag |
//! | [`meter`], [`storm`] | whether a frame is within its rate, and a flood within its port's |
//! | [`component`], [`flow`] | the other way of a frame: components and their flow rules |
//! | [`tables`] | rules, meters and redirects as control changes them |
//! | [`trace`] | the same decision, step by step in words |
//!
//! Nothing on the way of a frame allocates, waits for a lock, logs or makes a system call.
//!
//! The sender of a frame is the adversary. Every function here that takes frame bytes is total, for any bytes of any
//! length.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::expect_used))]

pub(crate) mod bits;
pub mod bridge;
pub mod component;
pub mod fdb;
pub mod flow;
pub mod meter;
pub mod parse;
pub mod rule;
pub mod snapshot;
pub mod storm;
pub mod tables;
pub mod trace;
pub mod vlan;

pub use crate::model::PortNo;
