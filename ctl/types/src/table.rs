//! Tables and numbers for people.

/// Columns under headings, padded with spaces. Numbers are aligned to the right.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| (*heading).to_owned()).collect()] }
    }

    /// Adds a row, with as many cells as there are headings.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }

    /// The text, one line per row.
    pub fn render(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let cell = |row: &[String], column: usize| row.get(column).cloned().unwrap_or_default();
        let widths: Vec<_> = (0..columns)
            .map(|column| self.rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or(0))
            .collect();
        let is_number =
            |text: &str| text.is_empty() || text.starts_with(|c: char| c.is_ascii_digit()) && !text.contains(':');
        let numeric: Vec<_> =
            (0..columns).map(|column| self.rows.iter().skip(1).all(|row| is_number(&cell(row, column)))).collect();
        let line = |row: &Vec<String>| {
            let cells: Vec<_> = (0..columns)
                .map(|column| {
                    let (text, width) = (cell(row, column), widths[column]);
                    if numeric[column] && self.rows.len() > 1 {
                        format!("{text:>width$}")
                    } else {
                        format!("{text:<width$}")
                    }
                })
                .collect();
            cells.join("  ").trim_end().to_owned() + "\n"
        };
        self.rows.iter().map(line).collect()
    }
}

/// A rate with a decimal prefix, such as `1.25 M`.
pub fn scaled(value: f64) -> String {
    let prefixes = ["", "k", "M", "G", "T"];
    let mut scaled = value;
    let mut at = 0;
    while scaled >= 1000.0 && at + 1 < prefixes.len() {
        scaled /= 1000.0;
        at += 1;
    }
    if at == 0 { format!("{scaled:.0}") } else { format!("{scaled:.2} {}", prefixes[at]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["PORT", "RX"]);
        table.row(["vm1".to_owned(), "7".to_owned()]);
        table.row(["a-longer-name".to_owned(), "123456".to_owned()]);
        assert_eq!(table.render(), "PORT               RX\nvm1                 7\na-longer-name  123456\n");
    }

    #[test]
    fn rates_are_short() {
        assert_eq!((scaled(0.0), scaled(999.0), scaled(1_250_000.0)), ("0".into(), "999".into(), "1.25 M".into()));
    }
}
