//! The DPU interface over a data plane of maps: every message, good and bad, one client and many.

mod concurrent;
mod good;
mod messages;
mod random;
mod refusals;
mod restart;
mod rig;
