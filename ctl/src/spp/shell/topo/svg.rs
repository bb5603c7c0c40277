//! The graph as a picture: layout-rs finds the places, this draws.

use layout::core::base::Orientation;
use layout::core::color::Color;
use layout::core::format::{ClipHandle, RenderBackend};
use layout::core::geometry::Point;
use layout::core::style::{LineStyleKind, StyleAttr};
use layout::std_shapes::shapes::{Arrow, Element, LineEndKind, ShapeKind};
use layout::topo::layout::VisualGraph;

use super::dot::{fill, line};
use super::{Graph, Standing};

/// Size of letters, in pixels.
const FONT: usize = 14;
/// Width of a letter and height of a line, about, in pixels.
const LETTER: (f64, f64) = (8.5, 18.0);
/// Free space around what is drawn, in pixels.
const MARGIN: f64 = 10.0;

/// The graph as SVG.
pub fn svg(graph: &Graph) -> String {
    let mut picture = VisualGraph::new(Orientation::LeftToRight);
    let mut handles = Vec::new();
    for node in &graph.nodes {
        let mut lines = node.lines.clone();
        if let Some(proc) = node.proc {
            lines[0] = format!("{proc}: {}", lines[0]);
        }
        let longest = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
        let size = Point::new(longest as f64 * LETTER.0 + 20.0, lines.len() as f64 * LETTER.1 + 10.0);
        let look = look(node.standing, Some(fill(&node.what)));
        let shape = ShapeKind::new_box(&lines.join("\n"));
        let dashes = if node.standing == Standing::Running { "" } else { DASHES };
        let element = Element::create_with_properties(shape, look, Orientation::LeftToRight, size, dashes);
        handles.push(picture.add_node(element));
    }
    for edge in &graph.edges {
        let style = if edge.standing == Standing::Running { LineStyleKind::Normal } else { LineStyleKind::Dashed };
        let (none, arrow) = (LineEndKind::None, LineEndKind::Arrow);
        let arrow = Arrow::new(none, arrow, style, &edge.label, &look(edge.standing, None), &None, &None);
        picture.add_edge(arrow, handles[edge.from], handles[edge.to]);
    }
    let mut canvas = Canvas::default();
    // It lays out no empty graph.
    if !graph.nodes.is_empty() {
        picture.do_it(false, false, false, &mut canvas);
    }
    canvas.document()
}

/// What lines have that are not whole.
const DASHES: &str = "stroke-dasharray=\"5,5\"";

fn look(standing: Standing, fill: Option<&str>) -> StyleAttr {
    StyleAttr::new(Color::fast(line(standing).1), 1, fill.map(Color::fast), 0, FONT)
}

/// Draws boxes, texts and arrows; the graph has nothing else.
#[derive(Default)]
struct Canvas {
    body: String,
    size: (f64, f64),
}

impl Canvas {
    fn reach(&mut self, to: Point) {
        self.size = (self.size.0.max(to.x + MARGIN), self.size.1.max(to.y + MARGIN));
    }

    fn document(&self) -> String {
        let (width, height) = (self.size.0.max(MARGIN), self.size.1.max(MARGIN));
        let mut text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" \
             height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"sans-serif\" font-size=\"{FONT}\">\n"
        );
        for (name, points, at) in [("start", "10 0, 10 7, 0 3.5", 0), ("end", "0 0, 10 3.5, 0 7", 10)] {
            text += &format!(
                "<marker id=\"{name}\" markerWidth=\"10\" markerHeight=\"7\" refX=\"{at}\" refY=\"3.5\" orient=\"auto\">\
                 <polygon points=\"{points}\"/></marker>\n"
            );
        }
        text + &self.body + "</svg>\n"
    }
}

/// `#rrggbb`, which every program that shows SVG knows.
fn color(color: Color) -> String {
    color.to_web_color().chars().take(7).collect()
}

fn escaped(text: &str) -> String {
    let escape = |c: char| match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '"' => "&quot;".to_owned(),
        // XML has no such characters.
        c if c.is_control() => String::new(),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}

impl RenderBackend for Canvas {
    fn draw_rect(&mut self, at: Point, size: Point, look: &StyleAttr, more: Option<String>, _: Option<ClipHandle>) {
        self.reach(at.add(size));
        let fill = look.fill_color.map_or_else(|| "none".to_owned(), color);
        self.body += &format!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"3\" fill=\"{fill}\" stroke=\"{}\" {}/>\n",
            at.x,
            at.y,
            size.x,
            size.y,
            color(look.line_color),
            more.unwrap_or_default()
        );
    }

    fn draw_text(&mut self, at: Point, text: &str, _: &StyleAttr) {
        let lines: Vec<_> = text.lines().collect();
        let top = at.y - (lines.len() as f64 - 1.0) * LETTER.1 / 2.0;
        for (n, line) in lines.into_iter().enumerate() {
            let (y, text) = (top + n as f64 * LETTER.1, escaped(line));
            let place = "text-anchor=\"middle\" dominant-baseline=\"central\"";
            self.reach(Point::new(at.x + line.chars().count() as f64 * LETTER.0 / 2.0, y));
            self.body += &format!("<text x=\"{:.1}\" y=\"{y:.1}\" {place}>{text}</text>\n", at.x);
        }
    }

    fn draw_arrow(
        &mut self,
        path: &[(Point, Point)],
        dashed: bool,
        head: (bool, bool),
        look: &StyleAttr,
        _: Option<String>,
        text: &str,
    ) {
        let [first, second, rest @ ..] = path else { return };
        let mut way = format!(
            "M {:.1} {:.1} C {:.1} {:.1}, {:.1} {:.1}, {:.1} {:.1}",
            first.0.x, first.0.y, first.1.x, first.1.y, second.0.x, second.0.y, second.1.x, second.1.y
        );
        for (control, to) in rest {
            way += &format!(" S {:.1} {:.1}, {:.1} {:.1}", control.x, control.y, to.x, to.y);
        }
        for (a, b) in path {
            self.reach(*a);
            self.reach(*b);
        }
        let mut more = if dashed { format!(" {DASHES}") } else { String::new() };
        for (end, name) in [(head.0, "start"), (head.1, "end")] {
            if end {
                more += &format!(" marker-{name}=\"url(#{name})\"");
            }
        }
        self.body += &format!("<path d=\"{way}\" fill=\"none\" stroke=\"{}\"{more}/>\n", color(look.line_color));
        if !text.is_empty() {
            self.draw_text(first.0.add(second.1).scale(0.5), text, look);
        }
    }

    fn draw_line(&mut self, _: Point, _: Point, _: &StyleAttr, _: Option<String>) {}

    fn draw_circle(&mut self, _: Point, _: Point, _: &StyleAttr, _: Option<String>) {}

    fn create_clip(&mut self, _: Point, _: Point, _: usize) -> ClipHandle {
        0
    }
}
