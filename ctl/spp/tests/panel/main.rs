//! The Soft Patch Panel on a made-up host.
#![allow(clippy::unwrap_used, reason = "a test")]

mod as_spp;
mod doctor;
mod instances;
mod shell;
mod topo;
mod vhost;
