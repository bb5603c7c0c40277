//! The Soft Patch Panel on a made-up host.
#![allow(clippy::unwrap_used, reason = "a test")]

mod doctor;
mod instances;
mod shell;
mod topo;
