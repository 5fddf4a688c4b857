//! Text from elsewhere, made fit for a terminal.

/// Without what would move a terminal's cursor, change its colours or its title: escape sequences are dropped, other
/// control characters shown as U+FFFD; tabs and line ends stay.
pub fn printable(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => skip_sequence(&mut rest),
            '\n' | '\t' => plain.push(c),
            c if c.is_control() => plain.push('\u{fffd}'),
            c => plain.push(c),
        }
    }
    plain
}

/// What belongs to an escape that was just read (ECMA-48): `[` up to a letter, `]` up to a bell or a string's end, else
/// one character.
fn skip_sequence(rest: &mut std::str::Chars<'_>) {
    match rest.next() {
        Some('[') => {
            rest.by_ref().find(|c| ('@'..='~').contains(c));
        }
        Some(']' | 'P' | '^' | '_') => {
            while let Some(c) = rest.next() {
                if c == '\u{7}' {
                    return;
                }
                if c == '\u{1b}' {
                    rest.next();
                    return;
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn only_text_is_left() {
        let cases = [
            ("plain ä→\tx\ny", "plain ä→\tx\ny"),
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("\u{1b}]0;title\u{7}after", "after"),
            ("\u{1b}]0;title\u{1b}\\after", "after"),
            ("\u{1b}[2J\u{1b}[Hgone", "gone"),
            ("bell \u{7}, back \u{8}", "bell \u{fffd}, back \u{fffd}"),
            ("\u{9b}31m", "\u{fffd}31m"),
            ("end \u{1b}", "end "),
        ];
        for (text, plain) in cases {
            assert_eq!(printable(text), plain, "{text:?}");
        }
    }
}
