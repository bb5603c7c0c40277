//! The companion of QEMU: it gives guests' processes the AF_XDP sockets that they may not open themselves, and looks after
//! them.
//!
//! QEMU's `-netdev af-xdp,inhibit=on,sock-fds=…` takes sockets that are neither bound nor have memory, and are in the XSKMAP
//! of a program that is attached. The daemon makes them, and hands them over on the socket `fds.sock` in its run directory
//! ([`ctl_guest`], [`server`]). It keeps a copy of each, for the kernel's counters, for as long as the process lives that got
//! them ([`leases`]): while somebody has a copy the queue is taken, so it closes its own when that process ends.

pub mod leases;
pub mod process;
pub mod server;
