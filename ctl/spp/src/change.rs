//! Changes to what one instance does.
//!
//! All of it is pure, and checked against this instance alone. [`compile`](super::compile) checks against the other
//! instances and against the switch's ports.

use ctl_spp_types::*;
use switch::model::VlanEdit;

use super::error::SppError;
use super::launch::MAX_LCORE;

/// Longest name of a component, in bytes. SPP has the same limit.
pub const MAX_NAME: usize = 127;
/// Most components of one instance.
pub const MAX_COMPONENTS: usize = 1024;
/// Most ports on one side of a component.
pub const MAX_SIDE: usize = 256;
/// Most ports of one instance, NICs included. The configuration may say less. DPDK can't have more.
pub const MAX_PORTS: u32 = 254;
/// Most entries in the classifier table of one instance.
pub const MAX_ENTRIES: usize = 65_536;

/// A change to one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Start a component.
    StartComponent {
        /// Name.
        name: String,
        /// Lcore.
        core: u32,
        /// Type.
        kind: ComponentType,
    },
    /// Stop a component, if there is one of that name. Its ports are free then.
    StopComponent {
        /// Name.
        name: String,
    },
    /// Give a component a port, or another tag to add at a port that it has.
    Attach {
        /// Component.
        name: String,
        /// Side.
        dir: Dir,
        /// Port.
        port: PortId,
        /// What happens to VLAN tags there.
        vlan: VlanEdit,
    },
    /// Take a port from a component, if it has it.
    Detach {
        /// Component.
        name: String,
        /// Side.
        dir: Dir,
        /// Port.
        port: PortId,
    },
    /// Set what a core does in one step, as SPP's command library asks for it. A busy core must be made idle first.
    SetCore {
        /// Lcore.
        core: u32,
        /// The component that it runs, with its ports. `None` makes the core idle.
        component: Option<Component>,
    },
    /// Add an entry to the classifier table.
    AddEntry(Entry),
    /// Delete an entry of the classifier table.
    DelEntry {
        /// Its key.
        key: EntryKey,
        /// If given, the entry must have this port.
        port: Option<PortId>,
    },
    /// Add a port to an instance.
    AddPort {
        /// Port.
        port: PortId,
        /// The two rings of a pipe: the application receives from the first and sends to the second.
        rings: Option<(PortId, PortId)>,
    },
    /// Remove a port that was added.
    DelPort(PortId),
    /// Patch one port to another.
    AddPatch(Patch),
    /// Remove all patches.
    ResetPatches,
    /// Start or stop forwarding: all components and patches, or the capture.
    Run(bool),
}

fn refused<T>(why: impl Into<String>) -> Result<T, SppError> {
    Err(SppError::refused(why))
}

/// Refuses the one type of port that SPP has and the switch lacks.
pub(crate) fn refuse_memif(port: PortId) -> Result<(), SppError> {
    if port.kind == PortType::Memif {
        return refused(format!(
            "{port}: memif is not supported here. A ring (ring:{no}) connects components, a vhost port (vhost:{no}) a VM or a container",
            no = port.no
        ));
    }
    Ok(())
}

impl Change {
    /// Applies the change to `setup`, a copy of [`Instance::next`].
    ///
    /// # Errors
    /// `Refused` with the reason. `setup` may be half changed then: the caller drops it.
    pub fn make(&self, instance: &Instance, setup: &mut Setup) -> Result<(), SppError> {
        self.check_type(instance.proc)?;
        match self {
            Change::StartComponent { name, core, kind } => {
                let component = Component { name: name.clone(), core: *core, kind: *kind, rx: vec![], tx: vec![] };
                start(instance, setup, component)
            }
            Change::StopComponent { name } => {
                // As in SPP, there may be no such component.
                setup.components.retain(|component| component.name != *name);
                Ok(())
            }
            Change::Attach { name, dir, port, vlan } => attach(find(setup, name)?, *dir, *port, *vlan),
            Change::Detach { name, dir, port } => {
                // As in SPP, the component may not have the port.
                find(setup, name)?.side_mut(*dir).retain(|attached| attached.port != *port);
                Ok(())
            }
            Change::SetCore { core, component } => set_core(instance, setup, *core, component.as_ref()),
            Change::AddEntry(entry) => add_entry(setup, *entry),
            Change::DelEntry { key, port } => {
                let at = setup
                    .table
                    .iter()
                    .position(|entry| entry.key == *key && port.is_none_or(|port| entry.port == port));
                match at {
                    Some(at) => {
                        setup.table.remove(at);
                        Ok(())
                    }
                    None => Err(SppError::Absent(format!(
                        "the classifier table has no entry {}{}",
                        key_text(key),
                        port.map_or_else(String::new, |port| format!(" for {port}"))
                    ))),
                }
            }
            Change::AddPort { port, rings } => add_port(instance.proc, setup, *port, *rings),
            Change::DelPort(port) => del_port(setup, *port),
            Change::AddPatch(patch) => add_patch(instance.proc, setup, *patch),
            Change::ResetPatches => {
                setup.patches.clear();
                Ok(())
            }
            Change::Run(run) => {
                setup.running = *run;
                Ok(())
            }
        }
    }

    /// Checks that the type of the instance takes such a change at all.
    fn check_type(&self, proc: Proc) -> Result<(), SppError> {
        use ProcType::{Mirror, Nfv, Primary, Vf};
        let (takers, what): (&[ProcType], _) = match self {
            Change::StartComponent { .. }
            | Change::StopComponent { .. }
            | Change::Attach { .. }
            | Change::Detach { .. }
            | Change::SetCore { .. } => (&[Vf, Mirror], "components"),
            Change::AddEntry(_) | Change::DelEntry { .. } => (&[Vf], "a classifier table"),
            Change::AddPort { .. } | Change::DelPort(_) => (&[Vf, Mirror, Nfv, Primary], "ports of its own"),
            Change::AddPatch(_) | Change::ResetPatches => (&[Nfv, Primary], "patches"),
            Change::Run(_) => return Ok(()),
        };
        if takers.contains(&proc.kind) { Ok(()) } else { refused(format!("{proc} has no {what}")) }
    }
}

fn position(setup: &Setup, name: &str) -> Result<usize, SppError> {
    let found = setup.components.iter().position(|component| component.name == name);
    found.ok_or_else(|| SppError::Absent(format!("there is no component `{}`", name.escape_default())))
}

fn find<'a>(setup: &'a mut Setup, name: &str) -> Result<&'a mut Component, SppError> {
    let at = position(setup, name)?;
    Ok(&mut setup.components[at])
}

/// Adds a component to the setup. The name keeps to what paths and recipes can carry.
fn start(instance: &Instance, setup: &mut Setup, component: Component) -> Result<(), SppError> {
    let Component { name, core, kind, .. } = &component;
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b';' | b'"' | b'\\');
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(plain) {
        return refused(format!(
            "`{}` is not a name for a component: 1 to {MAX_NAME} visible ASCII characters without / ; \" \\ are",
            name.escape_default()
        ));
    }
    if setup.components.iter().any(|other| other.name == *name) {
        return refused(format!("there is a component `{name}` already: stop it first"));
    }
    if setup.components.len() >= MAX_COMPONENTS {
        return refused(format!("{} has {MAX_COMPONENTS} components, and can't have more", instance.proc));
    }
    match (instance.proc.kind, kind) {
        (ProcType::Mirror, ComponentType::Mirror) => {}
        (ProcType::Vf, ComponentType::Mirror) | (ProcType::Mirror, _) => {
            return refused(format!("{} has no components of type {}", instance.proc, kind.word()));
        }
        _ => {}
    }
    check_core(instance, *core)?;
    setup.components.push(component);
    Ok(())
}

/// Checks that components of the instance may run on the core, by the instance's own list of cores.
fn check_core(instance: &Instance, core: u32) -> Result<(), SppError> {
    if core > MAX_LCORE {
        return refused(format!("core {core}: 0 to {MAX_LCORE} are possible"));
    }
    match instance.cores.as_slice() {
        [] => Ok(()),
        [master] => refused(format!(
            "{} has only its master core, {master}, which runs nothing: it needs others, `-l {master},…` when it is launched",
            instance.proc
        )),
        [master, ..] if *master == core => {
            refused(format!("core {core} is the master core of {}: components run on the others", instance.proc))
        }
        cores if cores.contains(&core) => Ok(()),
        cores => {
            let list: Vec<_> = cores[1..].iter().map(u32::to_string).collect();
            refused(format!("core {core} does not belong to {}: it has {}", instance.proc, list.join(", ")))
        }
    }
}

/// Gives a component a port, within the limits of the component's type.
fn attach(component: &mut Component, dir: Dir, port: PortId, vlan: VlanEdit) -> Result<(), SppError> {
    if let VlanEdit::Add { vid, pcp } = vlan
        && (vid > 4094 || pcp > 7)
    {
        return refused(format!("VLAN {vid} with PCP {pcp}: 0 to 4094 and 0 to 7 are possible"));
    }
    refuse_memif(port)?;
    let (kind, name) = (component.kind, component.name.clone());
    let side = component.side_mut(dir);
    if let Some(attached) = side.iter_mut().find(|attached| attached.port == port) {
        // As in SPP, a port that adds a tag may be given another tag. Otherwise it can't be attached again.
        if matches!((attached.vlan, vlan), (VlanEdit::Add { .. }, VlanEdit::Add { .. })) {
            attached.vlan = vlan;
            return Ok(());
        }
        return refused(format!("component {name} has {port} on its {} side already", dir.word()));
    }
    let most = match (kind, dir) {
        (ComponentType::Forward, _) | (ComponentType::Merge, Dir::Tx) => 1,
        (ComponentType::Classifier | ComponentType::Mirror, Dir::Rx) => 1,
        (ComponentType::Mirror, Dir::Tx) => 2,
        (ComponentType::Merge, Dir::Rx) | (ComponentType::Classifier, Dir::Tx) => MAX_SIDE,
    };
    if side.len() >= most {
        return refused(format!(
            "component {name} is a {} and has {most} {} already",
            kind.word(),
            ports_of(dir, most)
        ));
    }
    side.push(Attached { port, vlan });
    Ok(())
}

fn ports_of(dir: Dir, count: usize) -> String {
    format!("{} port{}", dir.word(), if count == 1 { "" } else { "s" })
}

fn set_core(instance: &Instance, setup: &mut Setup, core: u32, component: Option<&Component>) -> Result<(), SppError> {
    let Some(component) = component else {
        check_core(instance, core)?;
        setup.components.retain(|other| other.core != core);
        return Ok(());
    };
    if let Some(other) = setup.components.iter().find(|other| other.core == core) {
        return refused(format!("core {core} runs component {}: make it idle first", other.name));
    }
    let empty = Component { rx: vec![], tx: vec![], ..component.clone() };
    start(instance, setup, empty)?;
    let new = find(setup, &component.name)?;
    for dir in [Dir::Rx, Dir::Tx] {
        for attached in component.side(dir) {
            attach(new, dir, attached.port, attached.vlan)?;
        }
    }
    Ok(())
}

/// Adds a table entry. A key occurs once, and a component must have the port, as in SPP. The entry applies to
/// classifiers that send to the port. It outlives all of them.
fn add_entry(setup: &mut Setup, entry: Entry) -> Result<(), SppError> {
    let Entry { key, port } = entry;
    if let Some(vlan) = key.vlan.filter(|vlan| *vlan > 4094) {
        return refused(format!("VLAN {vlan}: 0 to 4094 are possible"));
    }
    if let Some(mac) = key.mac.filter(|mac| mac.octets() == [0; 6] || mac.is_group()) {
        return refused(format!("{}: an entry needs the address of one station, or `default`", mac_text(mac)));
    }
    if let Some(old) = setup.table.iter().find(|old| old.key == key) {
        return refused(format!("the classifier table has {} for {}: delete it first", key_text(&key), old.port));
    }
    if !setup.components.iter().any(|component| component.has(port)) {
        return Err(SppError::Absent(format!("no component has {port}: attach it to a classifier as a tx port first")));
    }
    if setup.table.len() >= MAX_ENTRIES {
        return refused(format!("the classifier table has {MAX_ENTRIES} entries, and can't have more"));
    }
    setup.table.push(entry);
    Ok(())
}

/// Adds a port. Only the primary makes pipes. Other instances add a pipe by its name, without rings.
fn add_port(proc: Proc, setup: &mut Setup, port: PortId, rings: Option<(PortId, PortId)>) -> Result<(), SppError> {
    if setup.ports.contains(&port) {
        return refused(format!("{port} is there already"));
    }
    refuse_memif(port)?;
    match (port.kind, rings) {
        (PortType::Pipe, Some(_)) if proc != Proc::PRIMARY => {
            return refused(format!("{port}: the primary makes pipes; add it there with its rings, then here without"));
        }
        (PortType::Pipe, Some((rx, tx))) => {
            if let Some(wrong) = [rx, tx].into_iter().find(|ring| ring.kind != PortType::Ring) {
                return refused(format!("{port} is made of two rings: {wrong} is none"));
            }
            if rx == tx {
                return refused(format!("{port} needs two rings: {rx} can't be both"));
            }
            setup.pipes.push(Pipe { port, rx, tx });
        }
        (PortType::Pipe, None) if proc == Proc::PRIMARY => {
            return refused(format!("{port} needs its rings: rx and tx"));
        }
        (_, Some(_)) => return refused(format!("{port}: only a pipe has rings")),
        (_, None) => {}
    }
    setup.ports.push(port);
    Ok(())
}

fn del_port(setup: &mut Setup, port: PortId) -> Result<(), SppError> {
    if !setup.ports.contains(&port) {
        return Err(SppError::Absent(match port.kind {
            PortType::Phy => format!("{port} was not added; NICs are there without being added"),
            _ => format!("{port} is not there"),
        }));
    }
    if let Some(patch) = setup.patches.iter().find(|patch| patch.src == port || patch.dst == port) {
        return refused(format!("{port} is patched ({} to {}): reset the patches first", patch.src, patch.dst));
    }
    setup.ports.retain(|other| *other != port);
    setup.pipes.retain(|pipe| pipe.port != port);
    Ok(())
}

/// Adds a patch. A port is the source of one patch at most, and the destination of one at most.
fn add_patch(proc: Proc, setup: &mut Setup, patch: Patch) -> Result<(), SppError> {
    let Patch { src, dst } = patch;
    for port in [src, dst] {
        match port.kind {
            _ if setup.ports.contains(&port) => {}
            // In SPP NICs are there from the start, without being added.
            PortType::Phy => add_port(proc, setup, port, None)?,
            _ => return Err(SppError::Absent(format!("{port} is not there: add it first"))),
        }
    }
    if let Some(old) = setup.patches.iter().find(|old| old.src == src) {
        if old.dst == dst {
            return refused(format!("{src} is patched to {dst} already"));
        }
        return refused(format!("{src} is patched to {}: reset the patches first", old.dst));
    }
    if let Some(old) = setup.patches.iter().find(|old| old.dst == dst) {
        return refused(format!("{dst} is patched from {}: reset the patches first", old.src));
    }
    setup.patches.push(patch);
    Ok(())
}
