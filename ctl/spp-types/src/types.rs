//! What an instance is told to do, as the state file keeps it.
//!
//! SPP calls an instance a process. These are plain data. The daemon checks them when it changes them.

use std::fmt;
use std::path::PathBuf;

use model::{Compression, MacAddr, VlanEdit};
use serde::{Deserialize, Serialize};

use crate::port::PortId;

/// Bytes after which a capture begins its next file, unless a limit is given. SPP has the same default.
pub const DEFAULT_CAPTURE_LIMIT: u64 = 1 << 30;

/// Types of instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ProcType {
    /// Patches between ports, and the counters of all ports.
    Primary,
    /// Components: forward, merge and classifier.
    Vf,
    /// Patches between ports.
    Nfv,
    /// Components that copy frames.
    Mirror,
    /// Captures a port into files.
    Pcap,
}

impl ProcType {
    /// The keyword in commands and answers.
    pub const fn word(self) -> &'static str {
        match self {
            ProcType::Primary => "primary",
            ProcType::Vf => "vf",
            ProcType::Nfv => "nfv",
            ProcType::Mirror => "mirror",
            ProcType::Pcap => "pcap",
        }
    }
}

/// An instance's name. There is one primary, with number 0 as in spp-ctl. The others have unique numbers, whatever
/// their types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Proc {
    /// Type.
    pub kind: ProcType,
    /// Client id: 0 for the primary, else from 1 on.
    pub id: u32,
}

impl Proc {
    /// The primary.
    pub const PRIMARY: Proc = Proc { kind: ProcType::Primary, id: 0 };
}

impl fmt::Display for Proc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ProcType::Primary => f.write_str("primary"),
            kind => write!(f, "{} {}", kind.word(), self.id),
        }
    }
}

/// Types of components.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ComponentType {
    /// One port to one other.
    Forward,
    /// Many ports to one.
    Merge,
    /// One port to many, by destination address.
    Classifier,
    /// One port to two.
    Mirror,
}

impl ComponentType {
    /// The keyword in commands and answers.
    pub const fn word(self) -> &'static str {
        match self {
            ComponentType::Forward => "forward",
            ComponentType::Merge => "merge",
            ComponentType::Classifier => "classifier",
            ComponentType::Mirror => "mirror",
        }
    }
}

/// Side of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Dir {
    /// It receives from the port.
    Rx,
    /// It sends to the port.
    Tx,
}

impl Dir {
    /// The keyword in commands and answers.
    pub const fn word(self) -> &'static str {
        match self {
            Dir::Rx => "rx",
            Dir::Tx => "tx",
        }
    }
}

/// A port of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Attached {
    /// Its name.
    pub port: PortId,
    /// What happens to VLAN tags there.
    pub vlan: VlanEdit,
}

/// A component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Component {
    /// Name, unique in its instance.
    pub name: String,
    /// Lcore that it runs on. The configuration maps lcores to workers.
    pub core: u32,
    /// What it does at present.
    pub kind: ComponentType,
    /// Ports that it receives from.
    pub rx: Vec<Attached>,
    /// Ports that it sends to.
    pub tx: Vec<Attached>,
}

impl Component {
    /// The ports of one side.
    pub fn side(&self, dir: Dir) -> &Vec<Attached> {
        match dir {
            Dir::Rx => &self.rx,
            Dir::Tx => &self.tx,
        }
    }

    /// Whether it has the port, on whatever side.
    pub fn has(&self, port: PortId) -> bool {
        self.rx.iter().chain(&self.tx).any(|attached| attached.port == port)
    }

    /// The ports of one side, to be changed.
    pub fn side_mut(&mut self, dir: Dir) -> &mut Vec<Attached> {
        match dir {
            Dir::Rx => &mut self.rx,
            Dir::Tx => &mut self.tx,
        }
    }
}

/// Key of an entry in a classifier table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct EntryKey {
    /// VID, 0 to 4094, of an entry of type `vlan`. `None`: type `mac`, for untagged frames.
    pub vlan: Option<u16>,
    /// Destination address. `None`: `default`, for frames without an entry of their own.
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "02:00:00:00:00:01"))]
    pub mac: Option<MacAddr>,
}

/// An entry of an instance's classifier table. It applies to each classifier of the instance that sends to its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Entry {
    /// Its key.
    pub key: EntryKey,
    /// Where frames go.
    pub port: PortId,
}

/// A patch: all frames of one port go to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Patch {
    /// Where frames come from.
    pub src: PortId,
    /// Where they go.
    pub dst: PortId,
}

/// A pipe and its two rings, seen from the application behind the pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Pipe {
    /// The pipe's name.
    pub port: PortId,
    /// Ring that the application receives from.
    pub rx: PortId,
    /// Ring that the application sends to.
    pub tx: PortId,
}

/// What an instance does. Each type of instance uses a part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Setup {
    /// vf, mirror: components, in the order of their start.
    pub components: Vec<Component>,
    /// vf: the classifier table. Entries are in the order in which they were added.
    pub table: Vec<Entry>,
    /// Ports that were added. Components of vf and mirror may have other ports too.
    pub ports: Vec<PortId>,
    /// nfv, primary: patches.
    pub patches: Vec<Patch>,
    /// primary: the pipes among the ports.
    pub pipes: Vec<Pipe>,
    /// Whether the instance forwards, or captures (pcap). vf and mirror forward from the start.
    pub running: bool,
}

/// How a pcap instance captures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CaptureOptions {
    /// Port whose frames are captured. They go nowhere else.
    pub port: PortId,
    /// Directory of the files.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub directory: PathBuf,
    /// Bytes after which the next file begins.
    pub limit: u64,
    /// Compression of the files.
    #[serde(default)]
    pub compression: Compression,
    /// Whether REST or an outside spp-ctl asked for the capture. Its directory must then be in, or below, one that the
    /// configuration names.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub confined: bool,
}

/// An instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// Name.
    pub proc: Proc,
    /// Its lcores. The first is the master core, which runs nothing. If the list is empty, the instance may use every
    /// lcore that no other instance has.
    pub cores: Vec<u32>,
    /// pcap: how it captures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<CaptureOptions>,
    /// Whether changes are held until `flush`.
    #[serde(default)]
    pub flush_mode: bool,
    /// What it does at present.
    pub running: Setup,
    /// What it does from the next `flush` on, if changes are held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<Setup>,
}

impl Instance {
    /// An instance without components, patches and ports.
    pub fn new(proc: Proc, cores: Vec<u32>, capture: Option<CaptureOptions>) -> Self {
        let running = matches!(proc.kind, ProcType::Vf | ProcType::Mirror);
        let running = Setup { running, ..Setup::default() };
        Self { proc, cores, capture, flush_mode: false, running, staged: None }
    }

    /// The setup that the next change edits: the held one, or else the running one.
    pub fn next(&self) -> &Setup {
        self.staged.as_ref().unwrap_or(&self.running)
    }

    /// The master core, or 0 if none was named.
    pub fn master(&self) -> u32 {
        self.cores.first().copied().unwrap_or(0)
    }
}
