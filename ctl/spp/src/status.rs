//! Answers to `status`, as spp-ctl's REST API has them. The order of fields is spp-ctl's.
//!
//! REST sends them as they are. The agent puts them into the envelopes that spp-ctl unpacks.

use std::collections::BTreeSet;
use std::path::PathBuf;

use ctl_spp_types::{ShownPort, key_text};
use serde::{Serialize, Serializer};
use switch::model::{EndPort, VlanEdit};

use super::flow::show::Shown;
use super::run::Status;
use super::{
    Attached, Component, ComponentType, Entry, EntryKey, Instance, Patch, PortId, PortType, PrimaryStatus, Proc,
    ProcType, Setup, compile,
};

/// Variants of components that clients differ in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shape {
    /// Whether ports of a mirror have `vlan` too.
    pub all_vlans: bool,
    /// Whether the type of classifiers is `classifier_mac`, as in 2018.
    pub classifier_mac: bool,
}

/// A process in the list of all processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Type.
    pub r#type: ProcType,
    /// Number. The primary has none.
    #[serde(rename = "client-id", skip_serializing_if = "Option::is_none")]
    pub client_id: Option<u32>,
}

impl From<&Proc> for Process {
    fn from(&Proc { kind, id }: &Proc) -> Self {
        Self { r#type: kind, client_id: (kind != ProcType::Primary).then_some(id) }
    }
}

/// The lcores of an instance. If it was given none: those that its components, patches or capture run on.
pub fn lcores(instance: &Instance) -> Vec<u32> {
    let mut cores = instance.cores.clone();
    if cores.is_empty() {
        cores.extend(instance.running.components.iter().map(|component| component.core));
        if matches!(instance.proc.kind, ProcType::Nfv | ProcType::Pcap) {
            cores.push(compile::patch_core(instance));
        }
        cores.push(instance.master());
        cores.sort_unstable();
        cores.dedup();
    }
    cores
}

/// The answer of an instance, by its type.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// The answer of vf and mirror.
    Worker(Worker),
    /// The answer of nfv.
    Nfv(Nfv),
    /// The answer of pcap.
    Pcap(Pcap),
    /// The primary.
    Primary(Primary),
}

impl Answer {
    /// The answer of an instance with this status.
    pub fn of(status: &Status, shape: Shape) -> Self {
        let (instance, nics, files) = match status {
            Status::Primary(status) => return Self::Primary(primary(status)),
            Status::Secondary { instance, nics, files } => (instance, nics, files),
        };
        match instance.proc.kind {
            ProcType::Vf | ProcType::Mirror => Self::Worker(worker(instance, nics, shape)),
            ProcType::Pcap => Self::Pcap(pcap(instance, files)),
            ProcType::Nfv | ProcType::Primary => Self::Nfv(nfv(instance, nics)),
        }
    }
}

/// Held changes. Only shown in flush mode.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flush<T> {
    /// `on`.
    pub mode: &'static str,
    /// What the instance does from the next flush on, if changes are held.
    pub staged: Option<T>,
}

fn flush<T>(instance: &Instance, shown: impl Fn(&Setup) -> T) -> Option<Flush<T>> {
    instance.flush_mode.then(|| Flush { mode: "on", staged: instance.staged.as_ref().map(shown) })
}

fn running(setup: &Setup, idle: &'static str) -> &'static str {
    if setup.running { "running" } else { idle }
}

/// The answer of vf and mirror.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Worker {
    /// Number.
    pub client_id: u32,
    /// `idling` if it was stopped. SPP has no such field, because its vf and mirror can't be stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<&'static str>,
    /// Ports of its components, added ports, and all NICs. In SPP each process has all NICs.
    #[serde(serialize_with = "shown_ports")]
    pub ports: Vec<PortId>,
    /// The master core.
    pub master_lcore: u32,
    /// Components and cores without one, in the order of cores.
    pub components: Vec<WorkerComponent>,
    /// vf: the classifier table.
    #[serde(rename = "classifier_table", skip_serializing_if = "Option::is_none")]
    pub classifier_table: Option<Vec<TableEntry>>,
    /// Held changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flush: Option<Flush<Work>>,
}

/// The part of a vf or mirror that a flush changes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Work {
    #[serde(serialize_with = "shown_ports")]
    ports: Vec<PortId>,
    components: Vec<WorkerComponent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    classifier_table: Option<Vec<TableEntry>>,
}

/// A component, or a core without one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkerComponent {
    core: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rx_port: Option<Vec<WorkerPort>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tx_port: Option<Vec<WorkerPort>>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct WorkerPort {
    port: ShownPort,
    #[serde(skip_serializing_if = "Option::is_none")]
    vlan: Option<Vlan>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Vlan {
    operation: &'static str,
    id: u16,
    pcp: u8,
}

/// An entry of a classifier's table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableEntry {
    r#type: &'static str,
    value: String,
    port: ShownPort,
}

/// The answer of a vf or mirror.
pub fn worker(instance: &Instance, nics: &[PortId], shape: Shape) -> Worker {
    let Work { components, classifier_table, .. } = work(instance, &instance.running, shape);
    Worker {
        client_id: instance.proc.id,
        status: (!instance.running.running).then_some("idling"),
        ports: ports(&instance.running, nics),
        master_lcore: instance.master(),
        components,
        classifier_table,
        flush: flush(instance, |setup| work(instance, setup, shape)),
    }
}

fn work(instance: &Instance, setup: &Setup, shape: Shape) -> Work {
    let vf = instance.proc.kind == ProcType::Vf;
    let shape = Shape { all_vlans: shape.all_vlans || vf, ..shape };
    let used: BTreeSet<_> = setup.components.iter().map(|component| component.core).collect();
    let unused = instance.cores.iter().skip(1).filter(|core| !used.contains(core));
    let mut components: Vec<_> = setup.components.iter().map(|component| shown(component, shape)).collect();
    components.extend(unused.map(|&core| WorkerComponent {
        core,
        name: None,
        // SPP's documents also have `unused`. This is what SPP writes, and what clients look for.
        r#type: "unuse",
        rx_port: None,
        tx_port: None,
    }));
    components.sort_by_key(|component| component.core);
    let entry = |entry: &Entry| {
        let EntryKey { vlan, .. } = entry.key;
        let r#type = if vlan.is_some() { "vlan" } else { "mac" };
        TableEntry { r#type, value: key_text(&entry.key), port: entry.port.shown() }
    };
    let classifier_table = vf.then(|| setup.table.iter().map(entry).collect());
    Work { ports: ports(setup, &[]), components, classifier_table }
}

/// Ports of components, added ports, and these NICs.
pub fn ports(setup: &Setup, nics: &[PortId]) -> Vec<PortId> {
    let attached = setup.components.iter().flat_map(|component| component.rx.iter().chain(&component.tx));
    let own: BTreeSet<_> = attached.map(|attached| attached.port).chain(setup.ports.iter().copied()).collect();
    let own: Vec<_> = own.into_iter().collect();
    offered(nics, &own).chain(own.iter().copied()).collect::<BTreeSet<_>>().into_iter().collect()
}

fn shown(component: &Component, shape: Shape) -> WorkerComponent {
    let vlan = |edit: VlanEdit| match edit {
        VlanEdit::None => Vlan { operation: "none", id: 0, pcp: 0 },
        VlanEdit::Add { vid, pcp } => Vlan { operation: "add", id: vid, pcp },
        VlanEdit::Del => Vlan { operation: "del", id: 0, pcp: 0 },
    };
    let port = |attached: &Attached| WorkerPort {
        port: attached.port.shown(),
        vlan: shape.all_vlans.then(|| vlan(attached.vlan)),
    };
    let r#type = match component.kind {
        ComponentType::Classifier if shape.classifier_mac => "classifier_mac",
        kind => kind.word(),
    };
    WorkerComponent {
        core: component.core,
        name: Some(component.name.clone()),
        r#type,
        rx_port: Some(component.rx.iter().map(port).collect()),
        tx_port: Some(component.tx.iter().map(port).collect()),
    }
}

/// The answer of nfv.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Nfv {
    client_id: u32,
    status: &'static str,
    master_lcore: u32,
    lcores: Vec<u32>,
    #[serde(serialize_with = "shown_ports")]
    ports: Vec<PortId>,
    patches: Vec<ShownPatch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flush: Option<Flush<Patches>>,
}

/// Ports and patches.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Patches {
    #[serde(serialize_with = "shown_ports")]
    ports: Vec<PortId>,
    patches: Vec<ShownPatch>,
}

/// A patch, with ports as SPP shows them.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct ShownPatch {
    src: ShownPort,
    dst: ShownPort,
}

/// Ports that can be patched: all NICs, and the ports that were added.
pub fn patchable(setup: &Setup, nics: &[PortId]) -> Vec<PortId> {
    let nics: Vec<_> = offered(nics, &setup.ports).collect();
    let added = setup.ports.iter().filter(|port| !nics.contains(port));
    nics.iter().chain(added).copied().collect()
}

/// The names of NICs that an instance with these ports is offered. A NIC that it has as a whole is not there queue by
/// queue.
fn offered<'a>(nics: &'a [PortId], has: &'a [PortId]) -> impl Iterator<Item = PortId> + 'a {
    let mut whole = BTreeSet::new();
    nics.iter().copied().filter_map(move |nic| match has.contains(&nic.whole()) {
        true => whole.insert(nic.no).then_some(nic.whole()),
        false => Some(nic),
    })
}

fn patches(setup: &Setup, nics: &[PortId]) -> Patches {
    let shown = |patch: &Patch| ShownPatch { src: patch.src.shown(), dst: patch.dst.shown() };
    Patches { ports: patchable(setup, nics), patches: setup.patches.iter().map(shown).collect() }
}

/// Writes ports as SPP shows them.
fn shown_ports<S: Serializer>(ports: &[PortId], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(ports.iter().map(|port| port.shown()))
}

fn nfv(instance: &Instance, nics: &[PortId]) -> Nfv {
    let Patches { ports, patches: made } = patches(&instance.running, nics);
    let mut lcores = lcores(instance);
    if lcores.len() == 1 {
        // Its patches run on its only lcore. SPP's CLI takes the master away, and wants to show what is left.
        lcores.push(compile::patch_core(instance));
    }
    Nfv {
        client_id: instance.proc.id,
        status: running(&instance.running, "idling"),
        master_lcore: instance.master(),
        lcores,
        ports,
        patches: made,
        flush: flush(instance, |setup| patches(setup, nics)),
    }
}

/// The answer of pcap.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Pcap {
    client_id: u32,
    status: &'static str,
    master_lcore: u32,
    core: Vec<PcapCore>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct PcapCore {
    core: u32,
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rx_port: Option<[WorkerPort; 1]>,
    /// The file that is being written, or an empty text if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    filename: Option<String>,
}

fn pcap(instance: &Instance, files: &[PathBuf]) -> Pcap {
    let core = compile::patch_core(instance);
    let receive = instance.capture.as_ref().map(|capture| PcapCore {
        core,
        role: "receive",
        rx_port: Some([WorkerPort { port: capture.port.shown(), vlan: None }]),
        filename: None,
    });
    let write = PcapCore {
        // Here a thread of its own writes, on any CPU. The core shown is the one that SPP would use.
        core: instance.cores.get(2).copied().unwrap_or(core),
        role: "write",
        rx_port: None,
        filename: Some(files.last().map_or_else(String::new, |file| file.display().to_string())),
    };
    Pcap {
        client_id: instance.proc.id,
        status: running(&instance.running, "idle"),
        master_lcore: instance.master(),
        core: receive.into_iter().chain([write]).collect(),
    }
}

/// The answer of the primary.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Primary {
    #[serde(rename = "master-lcore")]
    master_lcore: u32,
    lcores: Vec<u32>,
    /// Absent if the master core is its only core, until it is started or gets a port.
    #[serde(skip_serializing_if = "Option::is_none")]
    forwarder: Option<Forwarder>,
    phy_ports: Vec<PhyPort>,
    ring_ports: Vec<RingPort>,
    pipes: Vec<PipePort>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flush: Option<Flush<PrimaryStaged>>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Forwarder {
    status: &'static str,
    #[serde(flatten)]
    patches: Patches,
}

/// The part of the primary that a flush changes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PrimaryStaged {
    #[serde(flatten)]
    patches: Patches,
    pipes: Vec<PipePort>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct PhyPort {
    id: u32,
    rx: u64,
    tx: u64,
    tx_drop: u64,
    eth: String,
    nof_queues: Queues,
    flow: Vec<Shown>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Queues {
    rx: u32,
    tx: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct RingPort {
    id: u32,
    rx: u64,
    rx_drop: u64,
    tx: u64,
    tx_drop: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct PipePort {
    id: u32,
    rx: u32,
    tx: u32,
}

fn pipes(setup: &Setup) -> Vec<PipePort> {
    setup.pipes.iter().map(|pipe| PipePort { id: pipe.port.no, rx: pipe.rx.no, tx: pipe.tx.no }).collect()
}

fn primary(status: &PrimaryStatus) -> Primary {
    let PrimaryStatus { instance, ports, rings, flow } = status;
    let setup = &instance.running;
    let nics = status.nics();
    // A pipe is not a port of the forwarder.
    let forwarded = |setup: &Setup| {
        let mut patches = patches(setup, &nics);
        patches.ports.retain(|port| port.kind != PortType::Pipe);
        patches
    };
    let forwarder = Forwarder { status: running(setup, "idling"), patches: forwarded(setup) };
    let forwards =
        instance.cores.len() != 1 || setup.running || setup.ports.iter().any(|port| port.kind != PortType::Pipe);
    let phy_ports = ports.iter().filter(|of| of.port.kind == PortType::Phy).map(|of| PhyPort {
        id: of.port.no,
        rx: of.rx,
        tx: of.tx,
        tx_drop: of.tx_dropped,
        eth: of.mac.unwrap_or_default().to_string(),
        nof_queues: Queues { rx: of.queues, tx: of.queues },
        flow: flow
            .iter()
            .filter(|rules| rules.port == of.port.no)
            .flat_map(|rules| &rules.rules)
            .map(Shown::from)
            .collect(),
    });
    let ring_ports = rings.iter().filter_map(|ring| match ring.end {
        EndPort::Ring(id) => Some(RingPort {
            id,
            rx: ring.rx.packets,
            rx_drop: ring.rx_dropped.packets,
            tx: ring.tx.packets,
            tx_drop: ring.tx_dropped.packets,
        }),
        _ => None,
    });
    Primary {
        master_lcore: instance.master(),
        lcores: lcores(instance),
        forwarder: forwards.then_some(forwarder),
        phy_ports: phy_ports.collect(),
        ring_ports: ring_ports.collect(),
        pipes: pipes(setup),
        flush: flush(instance, |setup| PrimaryStaged { patches: forwarded(setup), pipes: pipes(setup) }),
    }
}
