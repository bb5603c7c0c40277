//! Workers over queues in memory, for which the test plays the kernel.

mod bed;
mod bonds;
mod bridge;
mod components;
mod fairness;
mod flaps;
mod flows;
mod jumbo;
mod mirrors;
mod offload;
mod offloads;
mod rests;
mod trace;
mod turns;

use self::bed::{Bed, DEPTH, SHARED, frame, station};
use super::*;
use crate::engine::PortNo;
use crate::engine::tables::Tables;
use crate::io::umem::HEADROOM;
use crate::model::*;
