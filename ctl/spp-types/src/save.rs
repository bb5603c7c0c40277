//! The present state as a recipe: lines that make it again, in an order in which each of them is taken.
//!
//! Ports come before patches, instances before all. An entry of a classifier's table outlives the classifier that sent to its port; where one
//! did, a classifier is started for the entries' sake and stopped again, before anything else has a port. Held changes come
//! last, after flush mode is on.

use model::VlanEdit;

use crate::state::SppState;
use crate::words::mac_text;
use crate::{
    Attached, CaptureOptions, Component, ComponentType, DEFAULT_CAPTURE_LIMIT, Dir, Entry, Instance, Patch, PortFlow,
    PortId, Proc, ProcType, Setup,
};

/// Name of the component that is there for entries only, while the recipe plays.
const HELPER: &str = "for-entries";

/// The lines, which play on a switch whose instances are as they were when they were launched, if they are there at all. Flow rules of
/// ports that the recipe has some for are replaced.
pub fn save(state: &SppState) -> Vec<String> {
    let instances = &state.instances;
    let mut lines: Vec<_> = instances.iter().filter_map(launch).collect();
    lines.extend(flow_rules(state));
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
    // The primary's pipes are there before anyone uses them.
    for instance in instances {
        let mut make = Recipe { lines: &mut lines, proc: instance.proc };
        let new = Instance::new(instance.proc, vec![], None).running;
        make.setup(&new, &instance.running, early.contains(&instance.proc), None);
        match (new.running, instance.running.running) {
            (false, true) => make.line(if instance.proc.kind == ProcType::Pcap { "start" } else { "forward" }),
            (true, false) => make.line("stop"),
            _ => {}
        }
    }
    for instance in instances {
        let mut make = Recipe { lines: &mut lines, proc: instance.proc };
        if instance.flush_mode {
            make.line("flush on");
        }
        if let Some(staged) = &instance.staged {
            make.setup(&instance.running, staged, false, free_core(instance));
        }
    }
    lines
}

/// Flow rules, in the place of those that a port has. They get their numbers anew, from 0.
fn flow_rules(state: &SppState) -> impl Iterator<Item = String> {
    state.flow.iter().flat_map(|PortFlow { port, rules }| {
        // Rules of a port that is gone are kept, and can't be made.
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

/// Whether a classifier sends to an entry's port.
fn stands(setup: &Setup, entry: &Entry) -> bool {
    let to = |component: &Component| component.tx.iter().any(|attached| attached.port == entry.port);
    setup.components.iter().filter(|component| component.kind == ComponentType::Classifier).any(to)
}

/// How many entries at the beginning of a table were in the one that it was made from, in that order. Entries are added at the end, so
/// the others are new.
fn kept(from: &[Entry], to: &[Entry]) -> usize {
    let mut old = from.iter();
    to.iter().take_while(|entry| old.any(|other| other == *entry)).count()
}

/// A core that a component can be started on.
fn free_core(instance: &Instance) -> Option<u32> {
    match instance.cores.as_slice() {
        [] => instance.running.components.first().map(|component| component.core).or(Some(0)),
        [_, core, ..] => Some(*core),
        [_] => None,
    }
}

/// Writes an instance's lines.
struct Recipe<'a> {
    lines: &'a mut Vec<String>,
    proc: Proc,
}

impl Recipe<'_> {
    fn line(&mut self, words: &str) {
        self.lines.push(format!("{}; {words}", address(self.proc)));
    }

    fn entry(&mut self, action: &str, entry: &Entry) {
        let mac = entry.key.mac.map_or_else(|| "default".to_owned(), mac_text);
        let key = entry.key.vlan.map_or_else(|| format!("mac {mac}"), |vlan| format!("vlan {vlan} {mac}"));
        self.line(&format!("classifier_table {action} {key} {}", entry.port));
    }

    /// From one setup to another. Components and patches are taken down and built anew if they differ, so that their order is right.
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

    /// Entries for whose ports there will be no classifier.
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
