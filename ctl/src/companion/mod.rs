//! The companion of QEMU: gives unprivileged guest processes the AF_XDP sockets of their ports, and supervises them.
//!
//! QEMU's `-netdev af-xdp,inhibit=on,sock-fds=…` takes sockets that are unbound, have no UMEM, and are entries in the
//! XSKMAP of an attached program. The daemon creates them and hands them over on the socket `fds.sock` in its run
//! directory ([`ctl_guest`], [`server`]).
//!
//! The daemon keeps a copy of each socket while the receiving process lives ([`leases`]). It reads the kernel's
//! counters through the copy. A queue stays taken as long as any copy exists, so the daemon closes its own when the
//! process ends.

pub mod leases;
pub mod process;
pub mod server;
