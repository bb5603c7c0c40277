//! Input and output: UMEM, rings, AF_XDP sockets, netdevs and their settings, taps, capture.
#![allow(unsafe_code, reason = "system calls, and memory that is shared with the kernel")]

pub mod backend;
pub mod ethtool;
pub mod frame_rings;
pub mod memory;
pub mod mmap;
pub mod netdev;
pub mod netns;
pub mod packet;
pub mod ring;
pub mod socket;
pub mod sys;
pub mod tun;
pub mod umem;
pub mod xsk_queues;
