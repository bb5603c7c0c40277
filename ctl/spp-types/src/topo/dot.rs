//! Writes the graph in the language of Graphviz.

use super::{Graph, Node, Standing, What};

/// The graph as a file for `dot`. The components of an instance are a cluster.
pub fn dot(graph: &Graph) -> String {
    let mut text = "digraph spp {\n  rankdir=LR;\n  node [shape=box, style=filled, fontname=\"sans-serif\"];\n  \
                    edge [fontname=\"sans-serif\"];\n"
        .to_owned();
    let mut procs: Vec<_> = graph.nodes.iter().filter_map(|node| node.proc).collect();
    procs.dedup();
    for node in graph.nodes.iter().filter(|node| node.proc.is_none()) {
        text += &format!("  {}\n", node_line(node));
    }
    for (n, proc) in procs.into_iter().enumerate() {
        text += &format!("  subgraph cluster_{n} {{\n    label={};\n", quoted(&proc.to_string()));
        for node in graph.nodes.iter().filter(|node| node.proc == Some(proc)) {
            text += &format!("    {}\n", node_line(node));
        }
        text += "  }\n";
    }
    for edge in &graph.edges {
        let (from, to) = (quoted(&graph.nodes[edge.from].id), quoted(&graph.nodes[edge.to].id));
        let (style, color) = line(edge.standing);
        let label = quoted(&edge.label);
        text += &format!("  {from} -> {to} [label={label}, style={style}, color={color}];\n");
    }
    text + "}\n"
}

fn node_line(node: &Node) -> String {
    let (style, color) = line(node.standing);
    let label: Vec<_> = node.lines.iter().map(|line| escaped(line)).collect();
    format!(
        "{} [label=\"{}\", style=\"filled,{style}\", color={color}, fillcolor={}];",
        quoted(&node.id),
        label.join("\\n"),
        fill(&node.what)
    )
}

/// Style and colour of the lines of a node or an edge.
pub(super) const fn line(standing: Standing) -> (&'static str, &'static str) {
    match standing {
        Standing::Running => ("solid", "black"),
        Standing::Idle => ("dashed", "gray"),
        Standing::Added => ("dashed", "forestgreen"),
        Standing::Removed => ("dashed", "firebrick"),
    }
}

/// Colour of a node's box.
pub(super) const fn fill(what: &What) -> &'static str {
    match what {
        What::Port => "lightyellow",
        What::Component { .. } => "lightblue",
        What::Capture => "lavender",
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text))
}
