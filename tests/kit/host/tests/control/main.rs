//! Control on a made-up host: ports come up, carry frames, change, fail and go.
#![allow(clippy::unwrap_used, reason = "a test")]

mod bonds;
mod fail;
mod follow;
mod guests;
mod host_addresses;
mod observe;
mod ports;
mod rig;
mod same_mac;
mod steering;
mod taps;
mod update;
