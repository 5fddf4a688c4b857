//! Short texts for people; numbers are in [`tui::quantity`].

use search::wire::Value;
use tui::quantity;

/// A value with its unit: `2.314 ±0.012 bits/byte`, `93.4 ±0.5 µs decode`.
pub(crate) fn value(name: &str, value: Value) -> String {
    format!("{} {}", quantity::named(name, value), quantity::unit(name))
}

/// `1 campaign`, `2 campaigns`.
pub(crate) fn count(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

/// This program as the user called it: what stands in commands that are suggested.
pub(crate) fn program() -> String {
    let called = std::env::args().next().unwrap_or_default();
    if called.contains('/') { quoted(&called) } else { "deltafront".to_owned() }
}

/// A word as it must stand in a shell.
pub(crate) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Rows of cells as lines: columns aligned, two spaces between. A column is aligned to the right if its letter in
/// `align` is `r`.
pub(crate) fn table(align: &str, rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[column] - cell.chars().count());
            if align.as_bytes().get(column) == Some(&b'r') {
                line.push_str(&pad);
                line.push_str(cell);
            } else {
                line.push_str(cell);
                line.push_str(&pad);
            }
            line.push_str("  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_characters() {
        let rows = [["n", "µs"], ["1", "10.5"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table("lr", &rows), "n    µs\n1  10.5\n");
        assert_eq!(table("", &[]), "");
    }

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(quoted("small-1.0"), "small-1.0");
        assert_eq!(quoted("it's mine"), "'it'\\''s mine'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!(count(1, "campaign"), "1 campaign");
        assert_eq!(count(0, "campaign"), "0 campaigns");
    }
}
