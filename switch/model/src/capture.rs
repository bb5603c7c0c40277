//! Captures: frames on their way to one, and the files that they are written to.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Direction of a captured frame, as the switch sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Came in from the port.
    Rx,
    /// Went out to the port.
    Tx,
}

/// A frame on its way to a capture.
#[derive(Clone, Debug)]
pub struct CapturedFrame {
    /// Port number.
    pub vport: u16,
    /// Queue of the port.
    pub queue: u32,
    /// Direction.
    pub direction: Direction,
    /// Time of day, nanoseconds since 1970.
    pub timestamp_ns: u64,
    /// Length on the wire without FCS, in bytes; `data` may hold fewer.
    pub wire_len: u32,
    /// The first bytes, as many as the capture asked for.
    pub data: Vec<u8>,
}

/// How the files of a capture are written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct CaptureFiles {
    /// Directory; it must be there.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub directory: PathBuf,
    /// The directory that `directory` must be in, links followed, or must be; `None`: it may be anywhere.
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    #[serde(default)]
    pub within: Option<PathBuf>,
    /// Start of their names, such as `spp_pcap.20261121101500.phy0`. A number and a suffix follow: `.1.pcap`,
    /// `.1.pcap.lz4`, `.1.pcap.zst`. Until a file is complete its name ends in `.tmp`, as with SPP. Numbers that are
    /// taken are skipped.
    pub stem: String,
    /// How they are compressed.
    pub compression: Compression,
    /// Bytes before compression after which the next file begins, at least 1 MiB. A file is longer by its last frame
    /// at most.
    pub limit: u64,
    /// Bytes kept of each frame, 14–65,535.
    pub snaplen: u32,
}

/// Compression of capture files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// None.
    None,
    /// LZ4 frame format, as SPP writes.
    #[default]
    Lz4,
    /// Zstandard.
    Zstd,
}
