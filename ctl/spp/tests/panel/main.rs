//! The Soft Patch Panel over the fake data plane.
#![allow(clippy::unwrap_used, reason = "a test")]

mod doctor;
mod instances;
mod shell;
mod topo;
