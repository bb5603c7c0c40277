//! Metric families, as text in Prometheus' exposition format.
//!
//! Series are written as text at once. 65,536 meters have 400,000 series, and a structure for each would take ten times
//! the memory of its line.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

/// Content type of the text.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

pub(crate) type Labels<'a> = &'a [(&'a str, &'a str)];

/// Families under construction, by name.
#[derive(Default)]
pub(crate) struct Families(BTreeMap<&'static str, String>);

impl Families {
    pub(crate) fn counter(&mut self, name: &'static str, help: &str, labels: Labels<'_>, value: u64) {
        self.series(name, help, "counter", labels, value);
    }

    pub(crate) fn gauge(&mut self, name: &'static str, help: &str, labels: Labels<'_>, value: f64) {
        self.series(name, help, "gauge", labels, value);
    }

    /// A histogram. `buckets` have their ends, and how many were not above these. `all` is the sum of all values, and
    /// their number.
    pub(crate) fn histogram(
        &mut self,
        name: &'static str,
        help: &str,
        labels: Labels<'_>,
        buckets: &[(f64, u64)],
        all: (f64, u64),
    ) {
        let text = self.family(name, help, "histogram");
        let ends = buckets.iter().map(|(end, count)| (end.to_string(), *count));
        for (end, count) in ends.chain([("+Inf".to_owned(), all.1)]) {
            let labels: Vec<_> = labels.iter().copied().chain([("le", end.as_str())]).collect();
            line(text, &format!("{name}_bucket"), &labels, count);
        }
        line(text, &format!("{name}_sum"), labels, all.0);
        line(text, &format!("{name}_count"), labels, all.1);
    }

    fn series(&mut self, name: &'static str, help: &str, kind: &str, labels: Labels<'_>, value: impl Display) {
        line(self.family(name, help, kind), name, labels, value);
    }

    fn family(&mut self, name: &'static str, help: &str, kind: &str) -> &mut String {
        self.0.entry(name).or_insert_with(|| format!("# HELP {name} {}\n# TYPE {name} {kind}\n", escaped(help, false)))
    }

    /// The whole text, families by name.
    pub(crate) fn finish(self) -> String {
        let mut whole = String::with_capacity(self.0.values().map(String::len).sum());
        // A family's own text goes as soon as it was copied.
        self.0.into_values().for_each(|text| whole.push_str(&text));
        whole
    }
}

fn line(text: &mut String, name: &str, labels: Labels<'_>, value: impl Display) {
    text.push_str(name);
    for (no, (label, value)) in labels.iter().enumerate() {
        text.push(if no == 0 { '{' } else { ',' });
        // Writing to a String can't fail.
        let _ = write!(text, "{label}=\"{}\"", escaped(value, true));
    }
    let end = if labels.is_empty() { "" } else { "}" };
    let _ = writeln!(text, "{end} {value}");
}

/// A help text or a label's value with its escapes.
fn escaped(text: &str, quotes: bool) -> impl Display {
    struct Escaped<'a>(&'a str, bool);
    impl Display for Escaped<'_> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            let mut rest = self.0;
            let special = |char| char == '\\' || char == '\n' || (char == '"' && self.1);
            while let Some(at) = rest.find(special) {
                f.write_str(&rest[..at])?;
                f.write_str(match rest.as_bytes()[at] {
                    b'\n' => "\\n",
                    b'"' => "\\\"",
                    _ => "\\\\",
                })?;
                rest = &rest[at + 1..];
            }
            f.write_str(rest)
        }
    }
    Escaped(text, quotes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_a_family_are_together_and_values_are_escaped() {
        let mut families = Families::default();
        families.counter("b_total", "Of \"b\"\\.", &[("port", "a\"b\\c\nd")], u64::MAX);
        families.gauge("a", "Of a.", &[], 0.5);
        families.counter("b_total", "", &[("port", "x"), ("queue", "1")], 1);
        let text = "# HELP a Of a.\n# TYPE a gauge\na 0.5\n\
                    # HELP b_total Of \"b\"\\\\.\n# TYPE b_total counter\n\
                    b_total{port=\"a\\\"b\\\\c\\nd\"} 18446744073709551615\nb_total{port=\"x\",queue=\"1\"} 1\n";
        assert_eq!(families.finish(), text);
    }
}
