//! A drawn buffer as plain text, for reports on a terminal, in a pipe or in a document.

use std::fmt::Write as _;

use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier};
use ratatui::widgets::Widget;

/// Draws `widget` into `width` × `height` cells and prints them as lines, each ending with a newline and without
/// trailing blanks; with `colour` the styles become ANSI sequences, every line ending in the default style.
pub fn to_text(widget: impl Widget, width: u16, height: u16, colour: bool) -> String {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    widget.render(area, &mut buffer);
    let mut text = String::new();
    for row in buffer.content().chunks(usize::from(width.max(1))) {
        let blank = |cell: &Cell| {
            cell.symbol().trim().is_empty() && !cell.modifier.contains(Modifier::REVERSED)
        };
        let end = row.iter().rposition(|cell| !blank(cell)).map_or(0, |last| last + 1);
        let mut style = sequence(&Cell::default());
        for cell in &row[..end] {
            let wanted = sequence(cell);
            if colour && wanted != style {
                let _ = write!(text, "\x1b[0{wanted}m");
                style = wanted;
            }
            text.push_str(cell.symbol());
        }
        if !style.is_empty() {
            text.push_str("\x1b[0m");
        }
        text.push('\n');
    }
    text
}

/// The parameters of a style, each with a leading semicolon. Only what [`crate::theme`] uses.
fn sequence(cell: &Cell) -> String {
    let mut codes = String::new();
    for (modifier, code) in [(Modifier::BOLD, 1), (Modifier::DIM, 2), (Modifier::REVERSED, 7)] {
        if cell.modifier.contains(modifier) {
            let _ = write!(codes, ";{code}");
        }
    }
    let code = match cell.fg {
        Color::Red => 31,
        Color::Green => 32,
        Color::Yellow => 33,
        Color::Blue => 34,
        Color::Magenta => 35,
        Color::Cyan => 36,
        Color::LightRed => 91,
        Color::LightGreen => 92,
        Color::LightYellow => 93,
        Color::LightBlue => 94,
        Color::LightMagenta => 95,
        Color::LightCyan => 96,
        _ => return codes,
    };
    let _ = write!(codes, ";{code}");
    codes
}
