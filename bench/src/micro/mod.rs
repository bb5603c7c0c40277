//! What the engine costs by itself: no kernel, no netdev, one thread.
//!
//! A [`steps::Case`] is one thing to measure, from the parsing of a frame to a worker's whole turn.
//!
//! | user | what it does |
//! | --- | --- |
//! | Criterion (`cargo bench -p bench`) | times them |
//! | `engine-cost` | counts their instructions and allocations |
//! | a test | holds them to no allocation |
#![allow(clippy::cast_possible_truncation, reason = "constants of some thousands at most")]

pub mod allocations;
pub mod bed;
pub mod callgrind;
pub mod fixtures;
pub mod steps;
