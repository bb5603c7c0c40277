//! Numbers of outside ends. Taps have the lowest, then come `pcap` ports, then captures.

use std::path::Path;

use model::{MAX_END_NO, OutsideInfo};

use crate::Instance;

/// `pcap:N` has this plus N. `tap:N` has N itself. Both have N up to 255.
pub const PCAP_ENDS: u32 = 256;
/// The capture of a pcap instance has this plus the client id.
const CAPTURE_ENDS: u32 = 512;
/// Largest client id. The capture of that instance has the largest number of an end.
pub const MAX_CLIENT_ID: u32 = MAX_END_NO - CAPTURE_ENDS;

/// Number of the outside end that a pcap instance captures to.
pub fn capture_end(id: u32) -> u32 {
    CAPTURE_ENDS + id
}

/// The file that a capture is writing.
pub(crate) fn capture_file<'a>(instance: &Instance, outside: &'a [OutsideInfo]) -> Option<&'a Path> {
    let no = capture_end(instance.proc.id);
    outside.iter().find(|end| end.no == no)?.files.last().map(AsRef::as_ref)
}
