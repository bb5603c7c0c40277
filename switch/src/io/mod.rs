//! What frames move through: UMEM and its ledger, rings, AF_XDP sockets, queues in memory, rings of guests.
#![allow(unsafe_code, reason = "system calls, and memory that is shared with the kernel")]

pub mod backend;
pub mod frame_rings;
pub mod memory;
pub mod mmap;
pub mod queue_rings;
pub mod ring;
pub mod socket;
pub mod sys;
pub mod umem;
pub mod vhost;
