//! Plots as SVG text: lines over a logarithmic axis, and bars. They have a white background, so they read on dark pages
//! too.
//!
//! A program has one colour in all plots, from Okabe and Ito's set, which colour-blind people tell apart. Its variants
//! differ in shade and marker. The legend is beside the plot, where it hides nothing. The same data gives the same
//! text.

use plotters::coord::Shift;
use plotters::coord::combinators::BindKeyPoints;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::number::small;
use crate::report::text::{count, number};
use crate::results::Spread;

/// One line of a plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// `x` above 0 and `y`, in the order of `x`.
    pub points: Vec<(f64, f64)>,
}

/// A plot of lines. `x` is logarithmic, and `y` begins at 0.
#[derive(Clone, Debug)]
pub struct Lines<'a> {
    /// Label of the lower axis, with its unit.
    pub x: &'a str,
    /// Label of the left axis, with its unit.
    pub y: &'a str,
    /// The lines.
    pub series: Vec<Series>,
}

/// A chart of horizontal bars in groups.
#[derive(Clone, Debug)]
pub struct Bars<'a> {
    /// Label of a bar's length, with its unit.
    pub x: &'a str,
    /// Names of the bars of each group.
    pub series: Vec<String>,
    /// The groups, from the top down.
    pub groups: Vec<Group>,
}

/// A group of bars, one for each series.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Label of the group.
    pub name: String,
    /// Lengths. The bar shows the median. `None` leaves its place empty.
    pub bars: Vec<Option<Spread>>,
}

const WIDTH: u32 = 900;
const FONT: (&str, u32) = ("sans-serif", 13);
/// Width of a character of [`FONT`]. It is rather too large, because the reader's font is unknown.
const CHARACTER: u32 = 7;
const GRID: RGBColor = RGBColor(222, 222, 222);

const INK: RGBColor = RGBColor(0, 0, 0);
const ORANGE: RGBColor = RGBColor(230, 159, 0);
const SKY: RGBColor = RGBColor(86, 180, 233);
const GREEN: RGBColor = RGBColor(0, 158, 115);
const BLUE: RGBColor = RGBColor(0, 114, 178);
const VERMILION: RGBColor = RGBColor(213, 94, 0);
const PURPLE: RGBColor = RGBColor(204, 121, 167);
/// Programs that are not among [`PROGRAMS`].
const BROWN: RGBColor = RGBColor(115, 77, 38);

/// Programs by the beginning of their devices' names.
const PROGRAMS: [(&str, RGBColor); 6] = [
    ("xswitch", BLUE),
    ("bare AF_XDP forwarder", INK),
    ("XDP devmap", PURPLE),
    ("Linux bridge", GREEN),
    ("Open vSwitch", VERMILION),
    ("testpmd", ORANGE),
];

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Look {
    colour: RGBColor,
    marker: usize,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws lines. `None` if no series has two points.
pub fn lines(plot: &Lines<'_>) -> anyhow::Result<Option<String>> {
    let drawable = |&(x, y): &(f64, f64)| x > 0.0 && x.is_finite() && y.is_finite();
    let series: Vec<Series> = plot
        .series
        .iter()
        .map(|series| Series {
            name: series.name.clone(),
            points: series.points.iter().copied().filter(drawable).collect(),
        })
        .filter(|series| !series.points.is_empty())
        .collect();
    let mut xs: Vec<f64> = series.iter().flat_map(|series| &series.points).map(|&(x, _)| x).collect();
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    let (Some(&left), Some(&right)) = (xs.first(), xs.last()) else { return Ok(None) };
    if series.iter().all(|series| series.points.len() < 2) || left == right {
        return Ok(None);
    }
    let top = series.iter().flat_map(|series| &series.points).map(|&(_, y)| y).fold(0.0, f64::max);
    let looks = looks(&series);
    let mut text = String::new();
    {
        let height = (48 + 22 * pixels(series.len())).max(400).cast_unsigned();
        let root = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE)?;
        let (area, beside) = root.split_horizontally(WIDTH - legend_width(series.iter().map(|series| &series.name)));
        // A little room beside the outermost points.
        let room = (right / left).powf(0.02);
        let across = (left / room..right * room).log_scale().with_key_points(ticks(&xs));
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(58)
            .build_cartesian_2d(across, 0.0..if top > 0.0 { top * 1.06 } else { 1.0 })?;
        chart
            .configure_mesh()
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .x_desc(plot.x)
            .y_desc(plot.y)
            .x_label_formatter(&|x| short(*x))
            .y_label_formatter(&|y| number(*y))
            .y_labels(7)
            .label_style(FONT)
            .axis_desc_style(FONT)
            .draw()?;
        for (series, look) in series.iter().zip(&looks) {
            chart.draw_series(LineSeries::new(series.points.iter().copied(), look.colour.stroke_width(2)))?;
            for point in &series.points {
                root.draw(&marker(chart.plotting_area().map_coordinate(point), *look))?;
            }
        }
        for (row, (series, look)) in series.iter().zip(&looks).enumerate() {
            let y = 24 + 22 * pixels(row);
            beside.draw(&PathElement::new([(0, y), (26, y)], look.colour.stroke_width(2)))?;
            beside.draw(&marker((13, y), *look))?;
            beside.draw(&Text::new(series.name.clone(), (34, y - 7), FONT))?;
        }
        root.present()?;
    }
    Ok(Some(text))
}

/// Draws bars. `None` if there are none.
pub fn bars(plot: &Bars<'_>) -> anyhow::Result<Option<String>> {
    let values = || plot.groups.iter().flat_map(|group| &group.bars).flatten();
    let longest = values().map(|&(_, _, greatest)| greatest).filter(|value| value.is_finite()).fold(0.0, f64::max);
    if values().next().is_none() {
        return Ok(None);
    }
    const BAR: i32 = 13;
    let group = BAR * pixels(plot.series.len()) + 12;
    let height = group * pixels(plot.groups.len());
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, (WIDTH, height.cast_unsigned() + 80)).into_drawing_area();
        root.fill(&WHITE)?;
        bar_legend(&root, &plot.series)?;
        let longest = if longest > 0.0 { longest } else { 1.0 };
        let names = text_width(plot.groups.iter().map(|group| &group.name)) + 16;
        let mut chart = ChartBuilder::on(&root)
            .margin_top(32)
            .margin_right(16)
            .x_label_area_size(48)
            .y_label_area_size(names)
            .build_cartesian_2d(0.0..longest * 1.09, 0.0..f64::from(height))?;
        chart
            .configure_mesh()
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .disable_y_mesh()
            .y_label_formatter(&|_| String::new())
            .set_tick_mark_size(LabelAreaPosition::Left, 0)
            .x_desc(plot.x)
            .x_label_formatter(&|x| number(*x))
            .label_style(FONT)
            .axis_desc_style(FONT)
            .draw()?;
        let (corner, _) = chart.plotting_area().get_pixel_range();
        for (row, Group { name, bars }) in plot.groups.iter().enumerate() {
            // Rows count downwards, and the axis upwards.
            let top = height - group * pixels(row) - 6;
            let middle = chart.plotting_area().map_coordinate(&(0.0, f64::from(top - (group - 12) / 2))).1;
            let right = FONT.into_text_style(&root).pos(Pos::new(HPos::Right, VPos::Center));
            root.draw(&Text::new(name.clone(), (corner.start - 8, middle), right))?;
            for (at, bar) in bars.iter().enumerate() {
                let &Some((median, least, greatest)) = bar else { continue };
                let top = f64::from(top - BAR * pixels(at));
                let bottom = top - f64::from(BAR - 2);
                let middle = (top + bottom) / 2.0;
                chart.draw_series([Rectangle::new([(0.0, top), (median, bottom)], bar_colour(at).filled())])?;
                chart.draw_series([PathElement::new([(least, middle), (greatest, middle)], INK.stroke_width(1))])?;
                let label = EmptyElement::at((greatest, top)) + Text::new(number(median), (5, 1), (FONT.0, 11));
                chart.draw_series([label])?;
            }
        }
        root.present()?;
    }
    Ok(Some(text))
}

fn bar_legend(root: &Area<'_>, series: &[String]) -> anyhow::Result<()> {
    let mut x = 16;
    for (at, name) in series.iter().enumerate() {
        root.draw(&Rectangle::new([(x, 11), (x + 12, 23)], bar_colour(at).filled()))?;
        root.draw(&Text::new(name.clone(), (x + 18, 10), FONT))?;
        x += 18 + text_width([name]).cast_signed() + 16;
    }
    Ok(())
}

fn bar_colour(at: usize) -> RGBColor {
    [BLUE, ORANGE, GREEN, SKY, VERMILION, PURPLE][at % 6]
}

/// A colour for each program, a shade and a marker for each of its variants.
fn looks(series: &[Series]) -> Vec<Look> {
    let program = |name: &str| PROGRAMS.iter().position(|(begin, _)| name.starts_with(begin));
    let mut looks: Vec<Look> = Vec::new();
    for (at, one) in series.iter().enumerate() {
        let of = program(&one.name);
        let variant = series[..at].iter().filter(|other| program(&other.name) == of).count();
        let colour = of.map_or(BROWN, |of| PROGRAMS[of].1);
        looks.push(Look { colour: shade(colour, variant), marker: variant % 4 });
    }
    looks
}

/// The colour itself, a lighter one, a darker one, and so on.
fn shade(colour: RGBColor, variant: usize) -> RGBColor {
    let (toward, share) = [(0, 0.0), (255, 0.5), (90, 0.5)][variant % 3];
    let mix = |part: u8| {
        let mixed = f64::from(part) * (1.0 - share) + f64::from(toward) * share;
        u8::try_from(small(mixed.round())).unwrap_or(u8::MAX)
    };
    RGBColor(mix(colour.0), mix(colour.1), mix(colour.2))
}

/// A disc, a triangle, a square or a rhomb around a pixel.
fn marker((x, y): (i32, i32), look: Look) -> Polygon<(i32, i32)> {
    let corners: &[(i32, i32)] = match look.marker {
        0 => &[(-2, -4), (2, -4), (4, -2), (4, 2), (2, 4), (-2, 4), (-4, 2), (-4, -2)],
        1 => &[(0, -5), (5, 4), (-5, 4)],
        2 => &[(-4, -4), (4, -4), (4, 4), (-4, 4)],
        _ => &[(0, -6), (6, 0), (0, 6), (-6, 0)],
    };
    let corners: Vec<(i32, i32)> = corners.iter().map(|(right, down)| (x + right, y + down)).collect();
    Polygon::new(corners, look.colour.filled())
}

/// Labels of the axis: the points themselves if they are few whole numbers, otherwise powers of ten, otherwise its
/// ends.
fn ticks(xs: &[f64]) -> Vec<f64> {
    let ends = [xs[0], xs[xs.len() - 1]];
    if xs.len() <= 9 && xs.iter().all(|x| x.fract() == 0.0) {
        return xs.to_vec();
    }
    let decades = small(ends[0].log10().ceil())..=small(ends[1].log10().floor());
    let decades: Vec<f64> = decades.map(|power| 10f64.powi(power)).collect();
    if decades.is_empty() { ends.to_vec() } else { decades }
}

/// A label of the axis: `1 k` for 1,000, `1 M` for a million, other numbers in full.
fn short(x: f64) -> String {
    let whole = |unit: f64| x >= unit && (x / unit).fract() == 0.0;
    if whole(1e6) {
        format!("{} M", count(x / 1e6))
    } else if whole(1e3) {
        format!("{} k", count(x / 1e3))
    } else if x.fract() == 0.0 {
        count(x)
    } else {
        number(x)
    }
}

/// A count as a coordinate.
fn pixels(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn text_width<'a>(texts: impl IntoIterator<Item = &'a String>) -> u32 {
    texts.into_iter().map(|text| pixels(text.chars().count()).cast_unsigned() * CHARACTER).max().unwrap_or(0)
}

fn legend_width<'a>(names: impl IntoIterator<Item = &'a String>) -> u32 {
    text_width(names) + 50
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, points: &[(f64, f64)]) -> Series {
        Series { name: name.to_owned(), points: points.to_vec() }
    }

    #[test]
    fn there_is_no_plot_without_a_line_or_a_bar() {
        let draw = |series| lines(&Lines { x: "x", y: "y", series }).expect("drawn").is_some();
        assert!(draw(vec![series("a", &[(1.0, 1.0), (2.0, 0.0)])]));
        assert!(draw(vec![series("zero", &[(1.0, 0.0), (2.0, 0.0)])]));
        for points in [&[][..], &[(1.0, 1.0)], &[(0.0, 1.0), (1.0, 1.0)], &[(1.0, 1.0), (2.0, f64::NAN)]] {
            assert!(!draw(vec![series("a", points)]), "{points:?}");
        }
        let group = |bar| Bars {
            x: "x",
            series: vec!["64 B".to_owned()],
            groups: vec![Group { name: "a".to_owned(), bars: vec![bar] }],
        };
        assert!(bars(&group(Some((1.0, 1.0, 1.0)))).expect("drawn").is_some());
        assert!(bars(&group(Some((0.0, 0.0, 0.0)))).expect("drawn").is_some());
        assert_eq!(bars(&group(None)).expect("drawn"), None);
    }

    #[test]
    fn devices_look_different_and_a_program_keeps_its_colour() {
        let all = crate::names::ALL.map(|name| series(name, &[]));
        let looks = looks(&all);
        for (at, look) in looks.iter().enumerate() {
            assert!(!looks[..at].contains(look), "{}", all[at].name);
        }
        assert_eq!(super::looks(&[series(crate::names::OVS, &[])])[0].colour, VERMILION);
    }

    #[test]
    fn the_axis_is_labelled_where_it_was_measured_if_there_is_room() {
        assert_eq!(ticks(&[2.0, 32.0, 200.0]), [2.0, 32.0, 200.0]);
        assert_eq!(ticks(&[999.7, 10_003.5, 100_001.0]), [1e3, 1e4, 1e5]);
        assert_eq!(ticks(&[2.5, 3.5]), [2.5, 3.5]);
        assert_eq!([1.0, 1024.0, 5e5, 2e6].map(short), ["1", "1,024", "500 k", "2 M"]);
    }

    #[test]
    fn white_is_behind_all_of_it() {
        let svg = lines(&Lines { x: "x", y: "y", series: vec![series("a", &[(1.0, 1.0), (2.0, 2.0)])] });
        let svg = svg.expect("drawn").expect("a line");
        let first = svg.split('<').nth(2).expect("an element");
        assert!(first.starts_with("rect") && first.contains("#FFFFFF"), "{first}");
    }
}
