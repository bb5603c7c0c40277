//! How many frames each queue of a port is supplied with.

use crate::io::umem::Umem;
use crate::{Error, ErrorKind};

/// Least frames that a queue is supplied with.
const MIN_FILL: u32 = 64;

/// Frames for a queue with rings of that depth, when `free` ones are in the pool and its port has that many queues
/// to come, this one included.
pub(super) fn fill_of(umem: &Umem, free: u32, depth: u32, queues_to_come: u32) -> Result<u32, Error> {
    if free < 2 * MIN_FILL * queues_to_come {
        return Err(Error::new(
            ErrorKind::Full,
            format!(
                "UMEM is used up: {free} of {} frames are free; raise `frames` in [dataplane] and restart, or use fewer queues",
                umem.frames()
            ),
        ));
    }
    // A quarter of UMEM is for frames that are on their way; of the rest each further queue gets a share that leaves
    // something for many more.
    let spare = free.saturating_sub(umem.frames() / 4);
    Ok((spare / 32).clamp(MIN_FILL, depth))
}
