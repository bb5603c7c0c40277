//! Writes the present state as a recipe: lines that make it again. Their order is such that each is accepted.
//!
//! Instances come first. In each, ports come before patches. Held changes come last, after flush mode is on. Only pipes
//! that the primary holds back come earlier, because others may use them already.
//!
//! A table entry needs a component that has its port, but it outlives that component. For such entries the recipe
//! starts a helper classifier, and stops it again before anything else takes ports.

use model::VlanEdit;

use crate::state::SppState;
use crate::words::mac_text;
use crate::{
    Attached, CaptureOptions, Component, DEFAULT_CAPTURE_LIMIT, Dir, Entry, Instance, Patch, PortFlow, PortId, Proc,
    ProcType, Setup,
};

/// Name of the helper classifier. It exists only while the recipe is played.
const HELPER: &str = "for-entries";

/// The lines of the recipe. On the switch that plays it, the instances must be as after their launch, or not exist.
/// The recipe replaces the flow rules of ports that it has rules for.
pub fn save(state: &SppState) -> Vec<String> {
    let instances = &state.instances;
    let mut lines: Vec<_> = instances.iter().filter_map(launch).collect();
    lines.extend(flow_rules(state));
    // Instances with entries for which the helper was needed. Their whole tables are in the recipe by then.
    let mut early = Vec::new();
    for instance in instances {
        let setup = &instance.running;
        if !setup.table.iter().all(|entry| stands(setup, entry))
            && let Some(core) = free_core(instance)
        {
            Recipe { lines: &mut lines, proc: instance.proc }.entries_alone(&setup.table, core);
            early.push(instance.proc);
        }
    }
    // The primary comes first, so its pipes exist before others use them.
    for instance in instances {
        let mut make = Recipe { lines: &mut lines, proc: instance.proc };
        let new = Instance::new(instance.proc, vec![], None).running;
        make.setup(&new, &instance.running, early.contains(&instance.proc), None);
        match (new.running, instance.running.running) {
            (false, true) => make.line(if instance.proc.kind == ProcType::Pcap { "start" } else { "forward" }),
            (true, false) => make.line("stop"),
            _ => {}
        }
        if holds_pipes(instance) {
            make.held(instance);
        }
    }
    for instance in instances.iter().filter(|instance| !holds_pipes(instance)) {
        Recipe { lines: &mut lines, proc: instance.proc }.held(instance);
    }
    lines
}

/// Whether the primary holds pipes back. Others may use them before they are made.
fn holds_pipes(instance: &Instance) -> bool {
    let made = &instance.running.pipes;
    instance.staged.as_ref().is_some_and(|staged| staged.pipes.iter().any(|pipe| !made.contains(pipe)))
}

/// Lines that replace the flow rules of ports. The rules get new numbers, from 0.
fn flow_rules(state: &SppState) -> impl Iterator<Item = String> {
    state.flow.iter().flat_map(|PortFlow { port, rules }| {
        // Rules of a port that is gone are kept, but can't be made again. They become comments.
        let there = state.ports.iter().any(|named| named.port == *port);
        let gone = if there { String::new() } else { format!("# {port} is not there: ") };
        let create = rules.iter().map(move |rule| format!("pri; flow create {port} {}", rule.line));
        let lines = std::iter::once(format!("pri; flow destroy {port} ALL")).chain(create);
        lines.map(move |line| format!("{gone}{line}"))
    })
}

/// How an instance is addressed: `vf 1`, `pri`.
fn address(proc: Proc) -> String {
    if proc.kind == ProcType::Primary { "pri".to_owned() } else { proc.to_string() }
}

/// The line that launches an instance. The primary needs none.
fn launch(instance: &Instance) -> Option<String> {
    let Proc { kind, id } = instance.proc;
    if kind == ProcType::Primary {
        return None;
    }
    let mut line = format!("pri; launch {} {id}", kind.word());
    if !instance.cores.is_empty() {
        let cores: Vec<_> = instance.cores.iter().map(u32::to_string).collect();
        line += &format!(" -l {} --master-lcore {}", cores.join(","), instance.master());
    }
    line += &format!(" -- --client-id {id}");
    if let Some(capture) = &instance.capture {
        line += &format!(" -c {} --out-dir {}", capture.port, capture.directory.display());
        if capture.limit != DEFAULT_CAPTURE_LIMIT {
            line += &format!(" --fsize {}", capture.limit);
        }
        if capture.compression != Default::default() {
            line += &format!(" --compression {}", crate::words::compression_word(capture.compression));
        }
    }
    let blanks = |capture: &CaptureOptions| capture.directory.to_string_lossy().contains(char::is_whitespace);
    if instance.capture.as_ref().is_some_and(blanks) {
        return Some(format!(
            "# no word can have the blanks in the directory of {}: {}",
            instance.proc,
            line.escape_debug()
        ));
    }
    Some(line)
}

/// Whether a component has an entry's port, so that the entry is accepted.
fn stands(setup: &Setup, entry: &Entry) -> bool {
    setup.components.iter().any(|component| component.has(entry.port))
}

/// How many entries at the beginning of `to` come from `from`, in the same order. Entries are added at the end, so the
/// others are new.
fn kept(from: &[Entry], to: &[Entry]) -> usize {
    let mut old = from.iter();
    to.iter().take_while(|entry| old.any(|other| other == *entry)).count()
}

/// A core for the helper classifier. `None`: the instance has only its master core.
fn free_core(instance: &Instance) -> Option<u32> {
    match instance.cores.as_slice() {
        [] => instance.running.components.first().map(|component| component.core).or(Some(0)),
        [_, core, ..] => Some(*core),
        [_] => None,
    }
}

/// Writes the lines of one instance.
struct Recipe<'a> {
    lines: &'a mut Vec<String>,
    proc: Proc,
}

impl Recipe<'_> {
    /// The changes that an instance holds back, after flush mode is on.
    fn held(&mut self, instance: &Instance) {
        if instance.flush_mode {
            self.line("flush on");
        }
        if let Some(staged) = &instance.staged {
            self.setup(&instance.running, staged, false, free_core(instance));
        }
    }

    fn line(&mut self, words: &str) {
        self.lines.push(format!("{}; {words}", address(self.proc)));
    }

    fn entry(&mut self, action: &str, entry: &Entry) {
        let mac = entry.key.mac.map_or_else(|| "default".to_owned(), mac_text);
        let key = entry.key.vlan.map_or_else(|| format!("mac {mac}"), |vlan| format!("vlan {vlan} {mac}"));
        self.line(&format!("classifier_table {action} {key} {}", entry.port));
    }

    /// Lines from one setup to another. If components or patches differ, all are removed and made again, so that their
    /// order is right. With a `core`, a helper classifier may be used for entries.
    fn setup(&mut self, from: &Setup, to: &Setup, table_is_there: bool, core: Option<u32>) {
        if from.patches != to.patches || from.ports != to.ports || from.pipes != to.pipes {
            self.ports(from, to);
        }
        let kept = kept(&from.table, &to.table);
        let mut stay = to.table[..kept].iter().peekable();
        for entry in &from.table {
            if stay.next_if_eq(&entry).is_none() {
                self.entry("del", entry);
            }
        }
        let new = if table_is_there { &[] } else { &to.table[kept..] };
        let components = from.components != to.components;
        if components {
            from.components.iter().for_each(|component| self.line(&format!("component stop {}", component.name)));
        }
        let early = core.filter(|_| !new.iter().all(|entry| stands(to, entry)));
        if let Some(core) = early {
            self.entries_alone(new, core);
        }
        if components {
            to.components.iter().for_each(|component| self.component(component));
        }
        if early.is_none() {
            new.iter().for_each(|entry| self.entry("add", entry));
        }
    }

    /// Adds entries for ports that no classifier will send to.
    fn entries_alone(&mut self, entries: &[Entry], core: u32) {
        self.line(&format!("component start {HELPER} {core} classifier"));
        for entry in entries {
            self.line(&format!("port add {} tx {HELPER}", entry.port));
            self.entry("add", entry);
            self.line(&format!("port del {} tx {HELPER}", entry.port));
        }
        self.line(&format!("component stop {HELPER}"));
    }

    fn ports(&mut self, from: &Setup, to: &Setup) {
        if !from.patches.is_empty() {
            self.line("patch reset");
        }
        from.ports.iter().for_each(|port| self.line(&format!("del {port}")));
        for port in &to.ports {
            let rings = to.pipes.iter().find(|pipe| pipe.port == *port);
            let rings = rings.map_or_else(String::new, |pipe| format!(" {} {}", pipe.rx, pipe.tx));
            self.line(&format!("add {port}{rings}"));
        }
        to.patches.iter().for_each(|Patch { src, dst }| self.line(&format!("patch {src} {dst}")));
    }

    fn component(&mut self, component: &Component) {
        let Component { name, core, kind, .. } = component;
        self.line(&format!("component start {name} {core} {}", kind.word()));
        for dir in [Dir::Rx, Dir::Tx] {
            component.side(dir).iter().for_each(|attached| self.attach(name, dir, attached));
        }
    }

    fn attach(&mut self, name: &str, dir: Dir, Attached { port, vlan }: &Attached) {
        let port: &PortId = port;
        let edit = match vlan {
            VlanEdit::None => String::new(),
            VlanEdit::Add { vid, pcp } => format!(" add_vlantag {vid} {pcp}"),
            VlanEdit::Del => " del_vlantag".to_owned(),
        };
        self.line(&format!("port add {port} {} {name}{edit}", dir.word()));
    }
}
