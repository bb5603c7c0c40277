//! Writes the graph for a terminal.

use ctl_types::table::Table;

use super::{Edge, Graph, Node, Standing, What};
use crate::Dir;

/// The graph as a table, with a row for each component, patch and capture. Pipes, and ports with their names in the
/// switch, follow in lines of their own.
pub fn text(graph: &Graph) -> String {
    let mut table = Table::new(&["INSTANCE", "COMPONENT", "TYPE", "CORE", "FROM", "TO", "STATE"]);
    let mut procs: Vec<_> = graph.nodes.iter().filter_map(|node| node.proc).collect();
    procs.extend(graph.edges.iter().filter(|edge| edge.patch).map(|edge| edge.proc));
    procs.sort();
    procs.dedup();
    for proc in procs {
        for (at, node) in graph.nodes.iter().enumerate().filter(|(_, node)| node.proc == Some(proc)) {
            let (name, kind, core) = match &node.what {
                What::Component { name, kind, core } => (name.as_str(), *kind, core.to_string()),
                What::Capture | What::Port => ("", "capture", String::new()),
            };
            let side = |dir: Dir| {
                let port = |edge: &Edge| port(graph, node, edge, if dir == Dir::Rx { edge.from } else { edge.to });
                graph.edges_of(at, dir).map(port).collect::<Vec<_>>().join(", ")
            };
            let to = if node.what == What::Capture { node.lines[1].clone() } else { side(Dir::Tx) };
            let (name, kind) = (name.to_owned(), kind.to_owned());
            table.row([proc.to_string(), name, kind, core, side(Dir::Rx), to, node.standing.word().to_owned()]);
        }
        for edge in graph.edges.iter().filter(|edge| edge.patch && edge.proc == proc) {
            let port = |at: usize| graph.nodes[at].id.clone();
            let (patch, state) = ("patch".to_owned(), edge.standing.word().to_owned());
            table.row([proc.to_string(), String::new(), patch, String::new(), port(edge.from), port(edge.to), state]);
        }
    }
    let mut text = table.render();
    for edge in graph.edges.iter().filter(|edge| !edge.patch && edge.proc.kind == crate::ProcType::Primary) {
        let (from, to) = (&graph.nodes[edge.from], &graph.nodes[edge.to]);
        text += &format!("pipe: {} -> {}{}\n", from.id, to.id, note(edge.standing));
    }
    for (at, node) in graph.nodes.iter().enumerate().filter(|(_, node)| node.what == What::Port) {
        let used = [Dir::Rx, Dir::Tx].into_iter().any(|dir| graph.edges_of(at, dir).next().is_some());
        let name = match node.lines.get(1) {
            Some(why) if node.missing => format!(" is {why}"),
            Some(name) => format!(" is port {name}"),
            None => String::new(),
        };
        match (used, name.is_empty()) {
            (true, true) => {}
            (true, false) => text += &format!("{}{name}\n", node.id),
            (false, _) => text += &format!("{}{name}, unused{}\n", node.id, note(node.standing)),
        }
    }
    text
}

fn note(standing: Standing) -> String {
    match standing {
        Standing::Running => String::new(),
        other => format!(" ({})", other.word()),
    }
}

/// A port of a component. `+` and `-` mark a port that the next flush adds or removes, unless the component shares its
/// standing.
fn port(graph: &Graph, component: &Node, edge: &Edge, at: usize) -> String {
    let mark = match edge.standing {
        same if same == component.standing => "",
        Standing::Added => "+",
        Standing::Removed => "-",
        _ => "",
    };
    let label = if edge.label.is_empty() { String::new() } else { format!(" ({})", edge.label) };
    format!("{mark}{}{label}", graph.nodes[at].id)
}
