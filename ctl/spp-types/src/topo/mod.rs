//! The graph of ports, components and patches that `topo` shows.
//!
//! Nodes are ports, components and captures. Edges are the ways of frames between them. The graph has what runs and
//! what is held, and each part says which it is. It is written as [`text()`], [`dot()`] or [`svg()`].

mod dot;
mod place;
mod svg;
mod text;

use std::collections::{HashMap, HashSet};

use model::VlanEdit;

pub use self::dot::dot;
pub use self::svg::svg;
pub use self::text::text;
use crate::state::SppState;
use crate::{Attached, Component, Dir, Instance, Patch, PortId, PortType, Proc, Setup};

/// Second line of a missing port.
const MISSING: &str = "not there";

/// Whether a part is in force or held, and whether it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is in force and stays.
    Running,
    /// It is in force, but moves no frames. Its instance is stopped, or one side has no port that exists.
    Idle,
    /// The next flush adds it.
    Added,
    /// The next flush removes it.
    Removed,
}

impl Standing {
    /// As the graph says it.
    pub const fn word(self) -> &'static str {
        match self {
            Standing::Running => "running",
            Standing::Idle => "idle",
            Standing::Added => "from the next flush on",
            Standing::Removed => "until the next flush",
        }
    }

    /// The standing of a part that is in the running setup, in the next one, or in both.
    fn of(running: bool, next: bool) -> Self {
        match (running, next) {
            (true, false) => Standing::Removed,
            (false, true) => Standing::Added,
            _ => Standing::Running,
        }
    }
}

/// What a node stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The port that a key names.
    Port,
    /// A component of an instance.
    Component {
        /// Name.
        name: String,
        /// Type.
        kind: &'static str,
        /// Lcore.
        core: u32,
    },
    /// A capture into files.
    Capture,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Unique name: `phy:0`, `vf 1/fwd1`, `pcap 3/capture`.
    pub id: String,
    /// What it stands for.
    pub what: What,
    /// Lines for its box. The first is its name.
    pub lines: Vec<String>,
    /// Its instance. A port has none.
    pub proc: Option<Proc>,
    /// Its standing.
    pub standing: Standing,
    /// Whether it is a `phy` or `vhost` port that no port of the switch has as its SPP name.
    pub missing: bool,
}

/// An edge: frames go from one node to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Index of the node that it leaves.
    pub from: usize,
    /// Index of the node that it enters.
    pub to: usize,
    /// What happens to tags, or the instance of a patch. May be empty.
    pub label: String,
    /// Its instance.
    pub proc: Proc,
    /// Whether it is a patch.
    pub patch: bool,
    /// Its standing.
    pub standing: Standing,
}

/// The graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    /// Nodes.
    pub nodes: Vec<Node>,
    /// Edges.
    pub edges: Vec<Edge>,
    /// Indices of nodes, by their unique names.
    places: HashMap<String, usize>,
    /// SPP names that ports of the switch have.
    named: HashSet<PortId>,
}

impl Graph {
    /// The graph of a state.
    pub fn of(state: &SppState) -> Self {
        let named = state.ports.iter().map(|named| named.port).collect();
        let mut graph = Self { named, ..Self::default() };
        for named in &state.ports {
            let at = graph.port(named.port, Standing::Running);
            graph.nodes[at].lines.push(named.name.clone());
        }
        for instance in &state.instances {
            graph.ports_of(instance);
            graph.components_of(instance);
            graph.patches_of(instance);
            graph.capture_of(instance, state);
        }
        graph
    }

    /// Edges that enter a node (`Rx`) or leave it (`Tx`).
    pub fn edges_of(&self, node: usize, dir: Dir) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(move |edge| if dir == Dir::Rx { edge.to == node } else { edge.from == node })
    }

    /// Whether a port exists. Only `phy` and `vhost` can be missing: the other types are made when they are used.
    fn there(&self, port: PortId) -> bool {
        !matches!(port.kind, PortType::Phy | PortType::Vhost) || self.named.contains(&port.whole())
    }

    /// The index of the node with this name, which is made if need be.
    fn node(&mut self, id: String, make: impl FnOnce(String) -> Node) -> usize {
        if let Some(&at) = self.places.get(&id) {
            return at;
        }
        self.places.insert(id.clone(), self.nodes.len());
        self.nodes.push(make(id));
        self.nodes.len() - 1
    }

    /// The node of a port. Users of a port may differ in standing. Then it counts as running.
    fn port(&mut self, port: PortId, standing: Standing) -> usize {
        let standing = if standing == Standing::Idle { Standing::Running } else { standing };
        let whole = port.queue.and_then(|_| self.places.get(&port.whole().to_string()).copied());
        let missing = !self.there(port);
        let name = whole.and_then(|at| self.nodes[at].lines.get(1).cloned()).or(missing.then(|| MISSING.to_owned()));
        let at = self.node(port.to_string(), |id| Node {
            lines: std::iter::once(id.clone()).chain(name).collect(),
            id,
            what: What::Port,
            proc: None,
            standing,
            missing,
        });
        let node = &mut self.nodes[at];
        if node.standing != standing {
            node.standing = Standing::Running;
        }
        at
    }

    fn edge(&mut self, from: usize, to: usize, label: String, proc: Proc, standing: Standing) {
        self.edges.push(Edge { from, to, label, proc, patch: false, standing });
    }

    fn ports_of(&mut self, instance: &Instance) {
        for (port, standing) in both(instance, |setup| &setup.ports) {
            self.port(port, standing);
        }
        for (pipe, standing) in both(instance, |setup| &setup.pipes) {
            let (rx, at, tx) =
                (self.port(pipe.rx, standing), self.port(pipe.port, standing), self.port(pipe.tx, standing));
            self.edge(rx, at, String::new(), instance.proc, standing);
            self.edge(at, tx, String::new(), instance.proc, standing);
        }
    }

    fn components_of(&mut self, instance: &Instance) {
        let (now, next) = (&instance.running, instance.next());
        let named = |setup: &Setup, name: &str| setup.components.iter().find(|other| other.name == name).cloned();
        let mut all: Vec<&Component> = now.components.iter().collect();
        all.extend(next.components.iter().filter(|component| named(now, &component.name).is_none()));
        for component in all {
            let name = &component.name;
            let (old, new) = (named(now, name), named(next, name));
            let mut standing = Standing::of(old.is_some(), new.is_some());
            let there = |attached: &Attached| self.there(attached.port);
            let lacks = !component.rx.iter().any(there) || !component.tx.iter().any(there);
            if standing == Standing::Running && (lacks || !now.running) {
                standing = Standing::Idle;
            }
            let what = |component: &Component| format!("{}, core {}", component.kind.word(), component.core);
            let mut lines = vec![name.clone(), what(component)];
            let other = new.as_ref().map(what).filter(|new| *new != lines[1]);
            lines.extend(other.map(|new| format!("{new}: {}", Standing::Added.word())));
            let kind = What::Component { name: name.clone(), kind: component.kind.word(), core: component.core };
            let at = self.node(format!("{}/{name}", instance.proc), |id| Node {
                id,
                what: kind,
                lines,
                proc: Some(instance.proc),
                standing,
                missing: false,
            });
            for dir in [Dir::Rx, Dir::Tx] {
                let side = |of: &Option<Component>| of.as_ref().map_or_else(Vec::new, |of| of.side(dir).clone());
                for (Attached { port, vlan }, own) in union(&side(&old), &side(&new)) {
                    let own = if own == Standing::Running { standing } else { own };
                    let port = self.port(port, own);
                    let (from, to) = if dir == Dir::Rx { (port, at) } else { (at, port) };
                    self.edge(from, to, vlan_text(vlan), instance.proc, own);
                }
            }
        }
    }

    fn patches_of(&mut self, instance: &Instance) {
        for (Patch { src, dst }, mut standing) in both(instance, |setup| &setup.patches) {
            let works = instance.running.running && self.there(src) && self.there(dst);
            if standing == Standing::Running && !works {
                standing = Standing::Idle;
            }
            let (from, to) = (self.port(src, standing), self.port(dst, standing));
            let (proc, label) = (instance.proc, instance.proc.to_string());
            self.edges.push(Edge { from, to, label, proc, patch: true, standing });
        }
    }

    fn capture_of(&mut self, instance: &Instance, state: &SppState) {
        let Some(capture) = &instance.capture else { return };
        let works = instance.running.running && self.there(capture.port);
        let standing = if works { Standing::Running } else { Standing::Idle };
        let from = self.port(capture.port, standing);
        let file = crate::ends::capture_file(instance, &state.outside).map(|file| file.display().to_string());
        let line = file.unwrap_or_else(|| "no file".to_owned());
        let at = self.node(format!("{}/capture", instance.proc), |id| Node {
            id,
            what: What::Capture,
            lines: vec!["capture".to_owned(), line],
            proc: Some(instance.proc),
            standing,
            missing: false,
        });
        self.edge(from, at, String::new(), instance.proc, standing);
    }
}

/// What happens to VLAN tags, in words.
pub fn vlan_text(vlan: VlanEdit) -> String {
    match vlan {
        VlanEdit::None => String::new(),
        VlanEdit::Add { vid, pcp } => format!("add VLAN {vid} PCP {pcp}"),
        VlanEdit::Del => "del VLAN".to_owned(),
    }
}

/// What an instance has in its running or its next setup, each with its standing.
fn both<T: Copy + PartialEq>(instance: &Instance, of: impl Fn(&Setup) -> &Vec<T>) -> Vec<(T, Standing)> {
    union(of(&instance.running), of(instance.next()))
}

fn union<T: Copy + PartialEq>(now: &[T], next: &[T]) -> Vec<(T, Standing)> {
    let old = now.iter().map(|&one| (one, Standing::of(true, next.contains(&one))));
    let new = next.iter().filter(|one| !now.contains(one)).map(|&one| (one, Standing::Added));
    old.chain(new).collect()
}
