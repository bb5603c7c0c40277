//! What an instance (a process, in SPP's words) is told to do, as it is kept.

use std::fmt;
use std::path::PathBuf;

use model::{Compression, MacAddr, VlanEdit};
use serde::{Deserialize, Serialize};

use crate::port::PortId;

/// Capture files begin anew after that many bytes unless told otherwise (SPP's default).
pub const DEFAULT_CAPTURE_LIMIT: u64 = 1 << 30;

/// Types of instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ProcType {
    /// Patches between ports, and the statistics of all.
    Primary,
    /// Components forward, merge and classifier.
    Vf,
    /// Patches between ports.
    Nfv,
    /// Components that copy.
    Mirror,
    /// Captures a port into files.
    Pcap,
}

impl ProcType {
    /// Its word.
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

/// An instance's name. The primary, of which there is one, has number 0, as in spp-ctl; the others share one space of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Proc {
    /// Type.
    pub kind: ProcType,
    /// Client id.
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
    /// One port to another.
    Forward,
    /// Many ports to one.
    Merge,
    /// One port to many, by address.
    Classifier,
    /// One port to two.
    Mirror,
}

impl ComponentType {
    /// Its word.
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
    /// Its word.
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
    /// Which one.
    pub port: PortId,
    /// What happens to tags there.
    pub vlan: VlanEdit,
}

/// A component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Component {
    /// Name, unique in its instance.
    pub name: String,
    /// Lcore that it runs on.
    pub core: u32,
    /// What it does.
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

    /// The same, to be changed.
    pub fn side_mut(&mut self, dir: Dir) -> &mut Vec<Attached> {
        match dir {
            Dir::Rx => &mut self.rx,
            Dir::Tx => &mut self.tx,
        }
    }
}

/// What an entry of a classifier's table is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct EntryKey {
    /// VLAN of type `vlan`; `None`: type `mac`, untagged frames.
    pub vlan: Option<u16>,
    /// Address; `None`: `default`, what has no entry of its own.
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "02:00:00:00:00:01"))]
    pub mac: Option<MacAddr>,
}

/// An entry of an instance's classifier table. It works in each classifier that sends to its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Entry {
    /// What it is found by.
    pub key: EntryKey,
    /// Where frames go.
    pub port: PortId,
}

/// A patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Patch {
    /// Where frames come from.
    pub src: PortId,
    /// Where they go.
    pub dst: PortId,
}

/// The rings of a pipe, seen from the application that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Pipe {
    /// The pipe's name.
    pub port: PortId,
    /// Ring that is received from.
    pub rx: PortId,
    /// Ring that is sent to.
    pub tx: PortId,
}

/// What an instance does. Each type of instance uses some of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Setup {
    /// vf, mirror: components, in the order in which they were started.
    pub components: Vec<Component>,
    /// vf: the classifier table, in the order in which entries were added.
    pub table: Vec<Entry>,
    /// Ports that were added; components of vf and mirror may have others.
    pub ports: Vec<PortId>,
    /// nfv, primary: patches.
    pub patches: Vec<Patch>,
    /// primary: pipes among the ports.
    pub pipes: Vec<Pipe>,
    /// Whether it forwards; pcap: whether it captures. vf and mirror do from the start.
    pub running: bool,
}

/// How a pcap instance captures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CaptureOptions {
    /// Port whose frames are captured, and go nowhere else.
    pub port: PortId,
    /// Directory of the files.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub directory: PathBuf,
    /// Bytes after which the next file begins.
    pub limit: u64,
    /// Compression of the files.
    #[serde(default)]
    pub compression: Compression,
    /// Whether REST or an outside spp-ctl asked for it: the directory must be among those that the configuration lets them have.
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
    /// Its lcores, the master core first, which runs nothing. None: it may use any that no other instance has.
    pub cores: Vec<u32>,
    /// pcap: how it captures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<CaptureOptions>,
    /// Whether changes are held until `flush`.
    #[serde(default)]
    pub flush_mode: bool,
    /// What it does.
    pub running: Setup,
    /// What it is to do from the next `flush` on, if that is something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<Setup>,
}

impl Instance {
    /// One that does nothing.
    pub fn new(proc: Proc, cores: Vec<u32>, capture: Option<CaptureOptions>) -> Self {
        let running = matches!(proc.kind, ProcType::Vf | ProcType::Mirror);
        let running = Setup { running, ..Setup::default() };
        Self { proc, cores, capture, flush_mode: false, running, staged: None }
    }

    /// What a change is made to.
    pub fn next(&self) -> &Setup {
        self.staged.as_ref().unwrap_or(&self.running)
    }

    /// The master core, or 0 if none was named.
    pub fn master(&self) -> u32 {
        self.cores.first().copied().unwrap_or(0)
    }
}
