//! The hand-over of a guest's sockets, as both ends of it see it.
//!
//! QEMU's `-netdev af-xdp,inhibit=on,sock-fds=…` takes sockets that are neither bound nor have memory, and are in the
//! XSKMAP of a program that is attached. The daemon makes them, and hands them over on the socket `fds.sock` in its run
//! directory. [`protocol`] is what is said there, [`client`] asks as a launcher of guests does, [`limits`] is what a
//! guest's process needs of the kernel.
//!
//! The daemon's server and programs that start guests depend on this crate. Calls block the thread that makes them.
#![forbid(unsafe_code)]

pub mod client;
pub mod limits;
pub mod protocol;
