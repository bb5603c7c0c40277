//! Numbers of outside ends: those of taps come first, then those of `pcap` ports, then those of captures.

use std::path::Path;

use model::{MAX_END_NO, OutsideInfo};

use crate::Instance;

/// The first end of a `pcap` port.
pub const PCAP_ENDS: u32 = 256;
const CAPTURE_ENDS: u32 = 512;
/// Largest client id: a pcap instance has an outside end of its own.
pub const MAX_CLIENT_ID: u32 = MAX_END_NO - CAPTURE_ENDS;

/// Number of the outside end of a pcap instance's capture.
pub fn capture_end(id: u32) -> u32 {
    CAPTURE_ENDS + id
}

/// The file that a capture writes now.
pub(crate) fn capture_file<'a>(instance: &Instance, outside: &'a [OutsideInfo]) -> Option<&'a Path> {
    let no = capture_end(instance.proc.id);
    outside.iter().find(|end| end.no == no)?.files.last().map(AsRef::as_ref)
}
