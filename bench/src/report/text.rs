//! Numbers and tables of the report.

use crate::number::small;
use crate::results::Spread;

/// A number with three significant digits and a comma between thousands: `0.970`, `12.3`, `65,500`. A dash if there is
/// none.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    // Rounding may carry into one more digit. So the digits before the point are those of the rounded value.
    let places = 2 - small(value.abs().log10().floor());
    let scale = 10f64.powi(places);
    let rounded = (value * scale).round() / scale;
    match usize::try_from(2 - small(rounded.abs().log10().floor())) {
        Ok(places @ 1..) => format!("{rounded:.places$}"),
        _ => count(rounded),
    }
}

/// A whole number with a comma between thousands: `65,536`.
pub fn count(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = if value < 0.0 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `median (least–greatest)`, each times `scale`.
pub fn range((median, least, greatest): Spread, scale: f64) -> String {
    format!("{} ({}–{})", number(median * scale), number(least * scale), number(greatest * scale))
}

/// The value as `text` formats it, or a dash.
pub fn or_dash<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "–".to_owned(), text)
}

/// A table in Markdown: a line of headings, then the rows. The first column is aligned to the left, the others to the
/// right.
pub fn table<H: AsRef<str>>(headings: &[H], rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = String>| {
        let cells: Vec<String> = cells.collect();
        text += &format!("| {} |\n", cells.join(" | "));
    };
    line(&mut headings.iter().map(|cell| escaped(cell.as_ref())));
    line(&mut (0..headings.len()).map(|column| if column == 0 { "---".to_owned() } else { "---:".to_owned() }));
    for row in rows {
        line(&mut row.iter().map(|cell| escaped(cell)));
    }
    text + "\n"
}

/// A cell whose text can't end the cell.
fn escaped(cell: &str) -> String {
    cell.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_significant_digits() {
        for (value, text) in [
            (0.0, "0"),
            (0.97, "0.970"),
            (0.01234, "0.0123"),
            (0.9999, "1.00"),
            (1.0, "1.00"),
            (12.34, "12.3"),
            (99.96, "100"),
            (999.6, "1,000"),
            (65_536.0, "65,500"),
            (12_345_678.0, "12,300,000"),
            (-1234.0, "-1,230"),
            (f64::NAN, "–"),
            (f64::INFINITY, "–"),
        ] {
            assert_eq!(number(value), text, "{value}");
        }
        assert_eq!(count(65_536.0), "65,536");
        assert_eq!(count(100.0), "100");
    }

    #[test]
    fn a_table_has_a_line_per_row_and_keeps_its_columns() {
        let text = table(&["device", "a|b"], &[vec!["x".to_owned(), "1|2".to_owned()]]);
        assert_eq!(text, "| device | a\\|b |\n| --- | ---: |\n| x | 1\\|2 |\n\n");
    }
}
