//! Where links and maps of guests' ends are pinned.

use std::path::PathBuf;

use crate::model::PortNo;

/// The place of a switch on a BPF file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinPlace {
    /// Where a BPF file system is, or is to be mounted.
    pub mount: PathBuf,
    /// The switch's own directory below it, which no other switch may use. It has no dot (BPF file systems allow none).
    pub instance: String,
}

impl PinPlace {
    fn root(&self) -> PathBuf {
        self.mount.join("xswitch").join(&self.instance)
    }

    /// The directory of a port.
    pub(super) fn of(&self, no: PortNo) -> PathBuf {
        self.root().join(no.to_string())
    }

    /// Numbers of ports that have a directory.
    pub(super) fn ports(&self) -> Vec<PortNo> {
        let Ok(entries) = std::fs::read_dir(self.root()) else { return Vec::new() };
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
    }
}
