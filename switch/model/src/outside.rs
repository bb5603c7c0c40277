//! Outside ends: what components exchange frames with beside ports and rings.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::CaptureFiles;

/// What an outside end is joined to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum OutsideSpec {
    /// A tap device of the host (`/dev/net/tun`), made with that name and up; it goes with the end.
    Tap {
        /// Its name.
        ifname: String,
    },
    /// Files in pcap or pcapng form: components are given the frames of one, once, and what they send is written to
    /// the other.
    Pcap {
        /// File to read; `None`: no frames come.
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
        rx: Option<PathBuf>,
        /// File to write (pcap, replaced if it is there); `None`: frames are discarded.
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
        tx: Option<PathBuf>,
    },
    /// A capture: what components send is written to files one after another.
    Capture(CaptureFiles),
}

/// An outside end as it works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct OutsideInfo {
    /// Number.
    pub no: u32,
    /// What it was told.
    pub spec: OutsideSpec,
    /// Capture: the files written so far, the current one last, by the names that they have when they are complete.
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub files: Vec<PathBuf>,
    /// What went wrong outside (a disk that is full, a tap that is gone), if something has.
    pub error: Option<String>,
}
