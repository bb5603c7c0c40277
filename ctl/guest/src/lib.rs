//! The hand-over of a guest's sockets, for both sides of it.
//!
//! QEMU's `-netdev af-xdp,inhibit=on,sock-fds=…` takes sockets that are unbound, have no UMEM, and are entries in the
//! XSKMAP of an attached program. The daemon creates them, and hands them over on the socket `fds.sock` in its run
//! directory. [`protocol`] has the messages, [`client`] is the side of a launcher, and [`limits`] says what a guest
//! process needs of the kernel.
//!
//! The daemon's server and programs that start guests depend on this crate. Calls block the calling thread.
#![forbid(unsafe_code)]

pub mod client;
pub mod limits;
pub mod protocol;
