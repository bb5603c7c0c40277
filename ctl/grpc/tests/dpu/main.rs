//! The DPU interface on a made-up host: every message, valid and invalid, with one client and with many.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test")]

mod bonds;
mod concurrent;
mod disks;
mod good;
mod messages;
mod optical;
mod random;
mod refusals;
mod restart;
mod rig;
mod shared_mac;
