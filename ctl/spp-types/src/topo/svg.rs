//! Writes the graph as an SVG picture.

use super::dot::{fill, line};
use super::place::{Point, place};
use super::{Edge, Graph, Node, Standing};

/// Font size, in pixels.
const FONT: usize = 14;
/// Approximate width of a letter and height of a line, in pixels.
const LETTER: Point = (8.0, 18.0);
/// How far the control points of an arrow's curves are from its points, in pixels.
const BEND: f64 = 50.0;

/// The graph as SVG.
pub fn svg(graph: &Graph) -> String {
    let lines: Vec<_> = graph.nodes.iter().map(lines).collect();
    let size = |lines: &Vec<String>| {
        let longest = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
        (longest as f64 * LETTER.0 + 20.0, lines.len() as f64 * LETTER.1 + 10.0)
    };
    let sizes: Vec<_> = lines.iter().map(size).collect();
    let arrows: Vec<_> = graph.edges.iter().map(|edge| (edge.from, edge.to)).collect();
    let places = place(&sizes, &arrows);
    let (width, height) = places.size;
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"sans-serif\" font-size=\"{FONT}\" text-anchor=\"middle\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <marker id=\"end\" markerWidth=\"10\" markerHeight=\"8\" refX=\"10\" refY=\"4\" orient=\"auto\"><polygon points=\"0 0, 10 4, 0 8\"/></marker>\n"
    );
    for (edge, points) in graph.edges.iter().zip(&places.arrows) {
        text += &arrow(edge, points);
    }
    for (at, node) in graph.nodes.iter().enumerate() {
        text += &boxed(node, &lines[at], places.boxes[at], sizes[at]);
    }
    text + "</svg>\n"
}

/// The lines in a node's box.
fn lines(node: &Node) -> Vec<String> {
    let mut lines = node.lines.clone();
    if let (Some(proc), Some(first)) = (node.proc, lines.first_mut()) {
        *first = format!("{proc}: {first}");
    }
    lines
}

fn dashes(standing: Standing) -> &'static str {
    if standing == Standing::Running { "" } else { " stroke-dasharray=\"5,5\"" }
}

fn boxed(node: &Node, lines: &[String], at: Point, size: Point) -> String {
    let (color, fill) = (line(node.standing).1, fill(&node.what));
    let mut text = format!(
        "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"3\" fill=\"{fill}\" stroke=\"{color}\"{}/>\n",
        at.0,
        at.1,
        size.0,
        size.1,
        dashes(node.standing)
    );
    let top = at.1 + 5.0 + LETTER.1 / 2.0;
    for (line, n) in lines.iter().zip(0..) {
        let y = top + f64::from(n) * LETTER.1;
        text +=
            &format!("<text x=\"{:.1}\" y=\"{y:.1}\" dy=\"0.35em\">{}</text>\n", at.0 + size.0 / 2.0, escaped(line));
    }
    text
}

fn arrow(edge: &Edge, points: &[Point]) -> String {
    let [first, rest @ ..] = points else { return String::new() };
    let mut way = format!("M {:.1} {:.1}", first.0, first.1);
    let mut before = first;
    for point in rest {
        // The curve is horizontal at both ends, whichever way the arrow goes.
        let bend = if point.0 >= before.0 { BEND } else { -BEND };
        let (out, into) = (before.0 + bend, point.0 - bend);
        way += &format!(" C {out:.1} {:.1}, {into:.1} {:.1}, {:.1} {:.1}", before.1, point.1, point.0, point.1);
        before = point;
    }
    let color = line(edge.standing).1;
    let dashes = dashes(edge.standing);
    let mut text = format!("<path d=\"{way}\" fill=\"none\" stroke=\"{color}\"{dashes} marker-end=\"url(#end)\"/>\n");
    if let (false, Some(next)) = (edge.label.is_empty(), rest.first()) {
        let (x, y) = ((first.0 + next.0) / 2.0, (first.1 + next.1) / 2.0 - LETTER.1 / 2.0);
        text += &format!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" dy=\"0.35em\" font-size=\"11\">{}</text>\n",
            escaped(&edge.label)
        );
    }
    text
}

fn escaped(text: &str) -> String {
    let escape = |c: char| match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        // XML does not allow control characters.
        c if c.is_control() => String::new(),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}
