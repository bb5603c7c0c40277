//! A queue pair of a vhost-user port: the guest's rings, and frames that are copied to and from them.
//!
//! A [`VhostPair`] is shared. The control thread puts rings in and takes them out, as the guest's front end says. The
//! worker has the [`VhostQueue`], and uses the rings that are there. Each ring is behind a lock, which the worker takes
//! once a burst and never waits for. So a ring that control has taken out is not touched any more.
//!
//! A packet is copied once on its way in and once on its way out. Frames come from a small stock, because the guest
//! has none of them: only what was copied and not taken yet is out.
//!
//! Of a longer packet only the head is copied on its way in, as long as most packets go to other guests. The
//! [rest](crate::io::umem::Rests) goes from guest to guest. Its sender has its buffers back at the end of the burst.
//!
//! A guest may leave a checksum, or cutting into segments, to the switch (`copy`). A guest that is sent such a packet
//! gets it as it is, if it takes that. If not, it gets what would be on a wire (`long`).

mod copy;
mod long;
#[cfg(test)]
mod offload_tests;
mod pair;
mod queue;
#[cfg(test)]
mod rest_tests;
#[cfg(test)]
pub(crate) mod test_guest;
#[cfg(test)]
mod tests;

pub use self::pair::{RunningRing, VhostPair, Way};
pub use self::queue::{STOCK, VhostQueue};
