//! Compiles the setups of all instances into one plan for the data plane: rings, outside ends and components.
//!
//! A port belongs to one component in each direction, across all instances. [`check`] finds conflicting claims.
//! Patches and captures become forward components. A pipe stands for its two rings.
//!
//! All of it is pure, except that [`compile`] looks whether a file to be played exists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ctl_spp_types::*;
use switch::model::*;

use super::change::refuse_memif;
use super::error::SppError;
use super::vhost;
use crate::SppConfig;

/// What the data plane is to have, for all instances together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Numbers of the rings.
    pub rings: BTreeSet<u32>,
    /// Outside ends, by number.
    pub outside: BTreeMap<u32, OutsideSpec>,
    /// Ports that are made for `vhost:N`, by number, with their queue pairs.
    pub vhosts: BTreeMap<u32, u32>,
    /// Components.
    pub components: Vec<ComponentSpec>,
}

/// Names of ports of the switch by their SPP names. `None`: the port is configured, and not up.
pub type Ports = BTreeMap<PortId, Option<String>>;

/// What a plan depends on besides the instances.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// The switch's ports, without those that are made for `vhost:N`.
    pub ports: &'a Ports,
    /// Workers of the lcores that the configuration maps. The other lcores go round by their number.
    pub cores: &'a BTreeMap<u32, usize>,
    /// Number of workers.
    pub workers: usize,
    /// Has the directories of `pcap` ports and captures.
    pub config: &'a SppConfig,
    /// When each capture began, for the names of its files: `YYYYMMDDhhmmss`.
    pub started: &'a BTreeMap<Proc, String>,
    /// Ends that can't be made at present, with the reason.
    pub broken: &'a Broken,
}

/// Ends that can't be made at present, by number, with the reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Broken {
    /// Outside ends.
    pub outside: BTreeMap<u32, String>,
    /// Ports for `vhost:N`.
    pub vhosts: BTreeMap<u32, String>,
}

impl Broken {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.outside.is_empty() && self.vhosts.is_empty()
    }
}

impl Surroundings<'_> {
    fn is_broken(&self, port: &EndPort) -> bool {
        matches!(port, EndPort::Outside(no) if self.broken.outside.contains_key(no))
    }

    /// Whether a port is made for this name, because the switch has none.
    fn makes(&self, port: PortId) -> bool {
        !self.ports.contains_key(&port.whole()) && vhost::check(port.whole()).is_ok()
    }

    /// Number of the worker that an lcore is mapped to.
    pub fn worker(&self, core: u32) -> usize {
        worker_of(self.cores, self.workers, core)
    }
}

/// The worker of an lcore: the one that is configured, or else the lcore's number modulo the workers.
pub(super) fn worker_of(named: &BTreeMap<u32, usize>, workers: usize, core: u32) -> usize {
    named.get(&core).copied().unwrap_or(core as usize % workers.max(1))
}

/// A use of a port in one direction.
struct Claim {
    /// Who uses it, for messages: a component or patch, and its instance.
    by: String,
    proc: Proc,
    port: PortId,
    dir: Dir,
}

fn claims_of(proc: Proc, instance: &Instance, setup: &Setup) -> Vec<Claim> {
    let mut claims = Vec::new();
    for component in &setup.components {
        let by = format!("component {} of {proc}", component.name);
        for dir in [Dir::Rx, Dir::Tx] {
            let of = |attached: &Attached| Claim { by: by.clone(), proc, port: attached.port, dir };
            claims.extend(component.side(dir).iter().map(of));
        }
    }
    for &Patch { src, dst } in &setup.patches {
        let by = format!("the patch from {src} to {dst} of {proc}");
        claims.push(Claim { by: by.clone(), proc, port: src, dir: Dir::Rx });
        claims.push(Claim { by, proc, port: dst, dir: Dir::Tx });
    }
    if let Some(capture) = instance.capture.as_ref().filter(|_| setup.running) {
        claims.push(Claim { by: format!("the capture of {proc}"), proc, port: capture.port, dir: Dir::Rx });
    }
    claims
}

/// The ring that a pipe stands for in this direction. Any other port is returned as it is.
fn behind(pipes: &[Pipe], port: PortId, dir: Dir) -> PortId {
    let pipe = pipes.iter().find(|pipe| pipe.port == port);
    pipe.map_or(port, |pipe| if dir == Dir::Rx { pipe.rx } else { pipe.tx })
}

/// Checks a changed instance against the others and against the switch's ports.
///
/// It must not use a port twice in one direction, nor one that another instance uses, running or held. Its ports must
/// exist. Its components must not be on cores of other instances.
///
/// # Errors
/// `Refused`, with the name of the one that has the port or the core.
pub fn check(instances: &BTreeMap<Proc, Instance>, changed: &Instance, ports: &Ports) -> Result<(), SppError> {
    let primary = if changed.proc == Proc::PRIMARY { Some(changed) } else { instances.get(&Proc::PRIMARY) };
    let pipes = primary.map_or_else(Vec::new, |primary| primary.next().pipes.clone());
    let setup = changed.next();
    let mut taken: Vec<Claim> = Vec::new();
    for (proc, other) in instances.iter().filter(|(proc, _)| **proc != changed.proc) {
        for setup in [Some(&other.running), other.staged.as_ref()].into_iter().flatten() {
            taken.extend(claims_of(*proc, other, setup));
        }
    }
    for claim in claims_of(changed.proc, changed, setup) {
        if let Some(other) = taken.iter().find(|other| clash(&pipes, other, &claim)) {
            let verb = if claim.dir == Dir::Rx { "receives from" } else { "sends to" };
            return Err(SppError::refused(format!("{} is in use: {} {verb} it", claim.port, other.by)));
        }
        // What `changed` runs at present is not in the way: the new setup replaces it.
        taken.push(claim);
    }
    for port in setup.ports.iter().copied().chain(taken.iter().filter(|c| c.proc == changed.proc).map(|c| c.port)) {
        check_there(&pipes, ports, port)?;
    }
    for component in &setup.components {
        let has = |other: &&Instance| {
            other.proc != changed.proc
                && (other.cores.contains(&component.core)
                    || other.next().components.iter().any(|theirs| theirs.core == component.core))
        };
        if let Some(other) = instances.values().find(has) {
            return Err(SppError::refused(format!("core {} is busy: it belongs to {}", component.core, other.proc)));
        }
    }
    Ok(())
}

/// Why nobody takes frames from a port, in sentences: who would take them, and what is missing for that.
pub fn why_idle(instances: &BTreeMap<Proc, Instance>, port: PortId) -> Vec<String> {
    let pipes = instances.get(&Proc::PRIMARY).map_or_else(Vec::new, |primary| primary.running.pipes.clone());
    let mut whys = Vec::new();
    for (&proc, instance) in instances {
        let setups = [(Some(&instance.running), false), (instance.staged.as_ref(), true)];
        for (setup, is_held) in setups.into_iter().filter_map(|(setup, is_held)| Some((setup?, is_held))) {
            // A capture makes a claim only while it runs.
            let started = Setup { running: true, ..setup.clone() };
            let wanted = Claim { by: String::new(), proc, port, dir: Dir::Rx };
            for claim in claims_of(proc, instance, &started).iter().filter(|claim| clash(&pipes, claim, &wanted)) {
                let by = &claim.by;
                whys.push(match (is_held, setup.running) {
                    (true, _) if whys.iter().any(|why: &String| why.contains(by)) => continue,
                    (true, _) => format!("{port}: {by} takes frames from it from the next flush of {proc} on"),
                    (false, false) => format!("{port}: {by} has it, and {proc} is stopped"),
                    (false, true) => format!("{port}: {by} has it, and lacks another port, or an entry"),
                });
            }
        }
    }
    if whys.is_empty() {
        whys.push(format!("{port}: no component, patch or capture of any instance receives from it"));
    }
    whys
}

fn clash(pipes: &[Pipe], a: &Claim, b: &Claim) -> bool {
    let (at, bt) = (behind(pipes, a.port, a.dir), behind(pipes, b.port, b.dir));
    let queues = at.queue.is_none() || bt.queue.is_none() || at.queue == bt.queue;
    a.dir == b.dir && at.whole() == bt.whole() && queues
}

fn check_there(pipes: &[Pipe], ports: &Ports, port: PortId) -> Result<(), SppError> {
    match (port.kind, ports.get(&port.whole())) {
        (PortType::Phy | PortType::Vhost, Some(Some(_))) => Ok(()),
        (PortType::Phy | PortType::Vhost, Some(None)) => {
            Err(SppError::Absent(format!("{port} is not there: its port is not up; `xswitch port list` says why")))
        }
        (PortType::Phy, None) => Err(SppError::Absent(format!(
            "{port} is not there: no port of the switch has that name; `xswitch port add NAME --kind phy --ifname IF --spp {}` adds one",
            port.whole()
        ))),
        (PortType::Vhost, None) => vhost::check(port),
        (PortType::Memif, _) => refuse_memif(port),
        (PortType::Pipe, _) if !pipes.iter().any(|pipe| pipe.port == port) => {
            Err(SppError::Absent(format!("{port} is not there: the primary makes pipes")))
        }
        _ => Ok(()),
    }
}

/// The end that a port stands for. `None` if the port does not exist, or no longer does.
fn end(pipes: &[Pipe], around: &Surroundings<'_>, port: PortId, dir: Dir) -> Option<EndPort> {
    let port = behind(pipes, port, dir);
    let of_switch = |name: String| EndPort::Port { name, queue: port.queue };
    match port.kind {
        PortType::Phy => around.ports.get(&port.whole())?.clone().map(of_switch),
        PortType::Vhost if around.makes(port) => {
            (!around.broken.vhosts.contains_key(&port.no)).then(|| of_switch(vhost_names(port.no).0))
        }
        PortType::Vhost => around.ports.get(&port.whole())?.clone().map(of_switch),
        PortType::Ring => Some(EndPort::Ring(port.no)),
        PortType::Nullpmd => Some(EndPort::Null(port.no)),
        PortType::Tap => Some(EndPort::Outside(port.no)),
        PortType::Pcap => Some(EndPort::Outside(PCAP_ENDS + port.no)),
        PortType::Memif | PortType::Pipe => None,
    }
}

/// Name of the tap device of `tap:N`.
pub fn tap_name(no: u32) -> String {
    format!("spp_tap{no}")
}

/// The files of `pcap:N`: the one that is played, and the one that is written.
pub fn pcap_files(directory: &Path, no: u32) -> (PathBuf, PathBuf) {
    (directory.join(format!("spp-rx{no}.pcap")), directory.join(format!("spp-tx{no}.pcap")))
}

/// The plan of all running setups. Ends that do not exist are left out, and their components wait for them.
pub fn compile(instances: &BTreeMap<Proc, Instance>, around: &Surroundings<'_>) -> Plan {
    let mut plan = Plan::default();
    let pipes = instances.get(&Proc::PRIMARY).map_or_else(Vec::new, |primary| primary.running.pipes.clone());
    for (&proc, instance) in instances {
        let setup = &instance.running;
        let named = claims_of(proc, instance, setup).into_iter().map(|claim| claim.port);
        for port in setup.ports.iter().copied().chain(named) {
            provide(&mut plan, &pipes, around, port);
        }
        let end = |port, dir, vlan| {
            let port = end(&pipes, around, port, dir).filter(|port| !around.is_broken(port))?;
            Some(End { port, vlan })
        };
        for component in setup.components.iter().filter(|_| setup.running) {
            plan.components.push(of_component(proc, component, &setup.table, around.worker(component.core), &end));
        }
        // Patches and the capture of an instance share one lcore.
        let core = patch_core(instance);
        let mut forward = |name, rx: Option<End>, tx: Option<End>| {
            let (rx, tx) = (rx.into_iter().collect(), tx.into_iter().collect());
            let worker = around.worker(core);
            plan.components.push(ComponentSpec { name, worker, kind: ComponentKind::Forward, rx, tx, table: vec![] });
        };
        if !setup.running {
            continue;
        }
        for &Patch { src, dst } in &setup.patches {
            let name = format!("{proc}/{src}-{dst}");
            forward(name, end(src, Dir::Rx, VlanEdit::None), end(dst, Dir::Tx, VlanEdit::None));
        }
        if let Some(capture) = &instance.capture {
            let no = capture_end(proc.id);
            let sink = Some(EndPort::Outside(no)).filter(|port| !around.is_broken(port));
            let sink = sink.map(|port| End { port, vlan: VlanEdit::None });
            forward(format!("{proc}/capture"), end(capture.port, Dir::Rx, VlanEdit::None), sink);
            let files = capture_files(capture, around.config, around.started.get(&proc));
            plan.outside.insert(no, OutsideSpec::Capture(files));
        }
    }
    plan
}

/// The lcore that runs an instance's patches or its capture: the first one after the master core. Without such a core
/// it is the master core, and without any the client id.
pub fn patch_core(instance: &Instance) -> u32 {
    instance.cores.get(1).or(instance.cores.first()).copied().unwrap_or(instance.proc.id)
}

/// The configured directory that a confined capture's directory is in. If it is in none, this is the default
/// directory, and the data plane will refuse the capture. The configuration may have changed since the launch.
pub fn capture_root(capture: &CaptureOptions, config: &SppConfig) -> PathBuf {
    let found = config.capture_roots().find(|root| capture.directory.starts_with(root));
    found.unwrap_or(&config.directory).to_owned()
}

fn capture_files(capture: &CaptureOptions, config: &SppConfig, started: Option<&String>) -> CaptureFiles {
    let port = capture.port.to_string().replace(':', "");
    CaptureFiles {
        directory: capture.directory.clone(),
        within: capture.confined.then(|| capture_root(capture, config)),
        // Of SPP's writing threads there is one here: number 1.
        stem: format!("spp_pcap.{}.{port}.1", started.map_or("", String::as_str)),
        compression: capture.compression,
        limit: capture.limit,
        snaplen: u32::from(u16::MAX),
    }
}

/// Adds the ring or outside end that a port needs to the plan.
fn provide(plan: &mut Plan, pipes: &[Pipe], around: &Surroundings<'_>, port: PortId) {
    match port.kind {
        PortType::Ring => {
            plan.rings.insert(port.no);
        }
        PortType::Pipe => {
            let of = pipes.iter().filter(|pipe| pipe.port == port);
            plan.rings.extend(of.flat_map(|pipe| [pipe.rx.no, pipe.tx.no]));
        }
        PortType::Tap => {
            plan.outside.insert(port.no, OutsideSpec::Tap { ifname: tap_name(port.no) });
        }
        PortType::Pcap => {
            let (rx, tx) = pcap_files(&around.config.directory, port.no);
            // A port whose file does not exist receives nothing.
            let rx = Some(rx).filter(|rx| rx.exists());
            plan.outside.insert(PCAP_ENDS + port.no, OutsideSpec::Pcap { rx, tx: Some(tx) });
        }
        PortType::Vhost if around.makes(port) => {
            let pairs = plan.vhosts.entry(port.no).or_insert(around.config.vhost.queues);
            *pairs = port.queue.map_or(*pairs, |queue| (queue + 1).clamp(*pairs, MAX_VHOST_PAIRS));
        }
        PortType::Phy | PortType::Vhost | PortType::Nullpmd | PortType::Memif => {}
    }
}

fn of_component(
    proc: Proc,
    component: &Component,
    table: &[Entry],
    worker: usize,
    end: &impl Fn(PortId, Dir, VlanEdit) -> Option<End>,
) -> ComponentSpec {
    let side = |dir: Dir| -> Vec<(PortId, End)> {
        let there = |attached: &Attached| Some((attached.port, end(attached.port, dir, attached.vlan)?));
        component.side(dir).iter().filter_map(there).collect()
    };
    let (rx, tx) = (side(Dir::Rx), side(Dir::Tx));
    let kind = match component.kind {
        ComponentType::Forward => ComponentKind::Forward,
        ComponentType::Merge => ComponentKind::Merge,
        ComponentType::Classifier => ComponentKind::Classifier,
        ComponentType::Mirror => ComponentKind::Mirror,
    };
    let entry = |entry: &Entry| {
        let at = tx.iter().position(|(port, _)| *port == entry.port)?;
        Some(TableEntry { vlan: entry.key.vlan, mac: entry.key.mac, tx: at })
    };
    let table = if kind == ComponentKind::Classifier { table.iter().filter_map(entry).collect() } else { Vec::new() };
    let ends = |side: Vec<(PortId, End)>| side.into_iter().map(|(_, end)| end).collect();
    ComponentSpec { name: format!("{proc}/{}", component.name), worker, kind, rx: ends(rx), tx: ends(tx), table }
}
