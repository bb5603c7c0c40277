//! The switching engine: pure code from packet to verdict. No I/O, no clock, no kernel, nothing of the rest of the project.
pub mod mac;
pub mod trace;
pub mod vlan;
