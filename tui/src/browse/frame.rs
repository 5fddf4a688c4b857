//! What frames the screens: the header with the progress, the footer with the keys, the help.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Clear, Widget};

use super::progress::Far;
use super::state::{State, Zoom};
use super::table::campaign_standing;
use crate::left;
use crate::quantity;
use crate::theme::{Theme, signs};

/// One line; what does not fit is left out from the right.
pub(super) fn header(state: &State, area: Rect, buffer: &mut Buffer) {
    let theme = state.theme;
    let mut parts: Vec<Vec<Span>> = vec![vec![Span::styled(" deltafront", theme.heading())]];
    if let Some(snapshot) = &state.snapshot {
        let campaign = &snapshot.campaign;
        let progress = state.progress.of(snapshot);
        let room = usize::from(area.width / 4).max(12);
        let (sign, word, style) = campaign_standing(campaign.state, theme);
        parts.push(vec![Span::raw(quantity::shortened(&campaign.name, room))]);
        parts.push(vec![Span::styled(format!("{sign} {word}"), style)]);
        parts.push(bar(&progress, campaign.evaluations, theme));
        if let Some(seconds) = progress.left_seconds {
            parts.push(vec![Span::raw(left::words(seconds))]);
        }
        if progress.failed > 0 {
            parts.push(vec![Span::styled(format!("{} failed", progress.failed), theme.failure())]);
        }
        if let Some(rate) = progress.per_minute {
            parts.push(vec![Span::styled(format!("{rate:.1} per minute"), theme.dim())]);
        }
        parts.push(vec![Span::styled(
            format!("{} so far", quantity::duration(campaign.active_seconds)),
            theme.dim(),
        )]);
        if progress.infeasible > 0 {
            parts.push(vec![Span::styled(
                format!("{} infeasible", progress.infeasible),
                theme.dim(),
            )]);
        }
    } else if let Some(name) = &state.opened {
        parts.push(vec![Span::raw(name.clone())]);
    }
    let mut line = Line::default();
    for part in parts {
        let width: usize = part.iter().map(Span::width).sum();
        if line.width() + width + 3 > usize::from(area.width) {
            break;
        }
        if line.width() > 0 {
            line.push_span(Span::raw("   "));
        }
        line.extend(part);
    }
    buffer.set_line(area.x, area.y, &line, area.width);
}

fn bar(progress: &Far, total: u32, theme: Theme) -> Vec<Span<'static>> {
    const CELLS: f64 = 12.0;
    let part = f64::from(progress.ended) / f64::from(total.max(1));
    let full = (part.min(1.0) * CELLS).round() as usize;
    vec![
        Span::styled("━".repeat(full), theme.active()),
        Span::styled("─".repeat(CELLS as usize - full), theme.dim()),
        Span::raw(format!(" {}/{total}", progress.ended)),
    ]
}

/// The keys of the screen, most useful first.
fn keys(state: &State) -> &'static [(&'static str, &'static str)] {
    match (state.opened.is_some(), state.zoom) {
        (false, _) => &[("↑↓", "choose"), ("Enter", "open")],
        (true, Zoom::None) => &[
            ("↑↓", "select"),
            ("←→", "along the front"),
            ("Enter", "details"),
            ("/", "search"),
            ("s", "sort"),
            ("f", "state"),
            ("m", "mixer"),
            ("e", "export"),
            ("p", "plot"),
        ],
        (true, Zoom::Plot) => {
            &[("p", "back"), ("←→", "along the front"), ("Enter", "details"), ("e", "export")]
        }
        (true, Zoom::Details) => &[
            ("Enter", "back"),
            ("↑↓", "select"),
            ("←→", "along the front"),
            ("PgDn", "log"),
            ("e", "export"),
        ],
    }
}

/// One line: the search text, a notice, or the keys.
pub(super) fn footer(state: &State, area: Rect, buffer: &mut Buffer) {
    let theme = state.theme;
    if state.typing {
        let line = Line::from(vec![
            Span::styled(" search ", theme.key()),
            Span::raw(state.filter.text.clone()),
            Span::styled(" ", theme.selected()),
            Span::styled("   Enter keeps it, Esc clears it", theme.dim()),
        ]);
        buffer.set_line(area.x, area.y, &line, area.width);
        return;
    }
    if let Some(notice) = &state.notice {
        let style = if notice.is_trouble { theme.failure() } else { theme.active() };
        let text = quantity::shortened(
            &format!(" {}", notice.text.replace('\n', " ")),
            usize::from(area.width),
        );
        buffer.set_string(area.x, area.y, text, style);
        return;
    }
    let always = [("?", "help"), ("q", "quit")];
    let width = |(key, word): &(&str, &str)| key.chars().count() + word.chars().count() + 3;
    let mut room = usize::from(area.width).saturating_sub(always.iter().map(width).sum::<usize>());
    let mut shown = Vec::new();
    for key in keys(state) {
        if width(key) > room {
            break;
        }
        room -= width(key);
        shown.push(*key);
    }
    let spans = shown.into_iter().chain(always).flat_map(|(key, word)| {
        [
            Span::styled(format!(" {key}"), theme.key()),
            Span::styled(format!(" {word} "), theme.dim()),
        ]
    });
    buffer.set_line(area.x, area.y, &Line::from(spans.collect::<Vec<_>>()), area.width);
}

const KEYS: [(&str, &str); 12] = [
    ("↑ ↓  j k", "select a candidate"),
    ("← →  h l", "step along the front"),
    ("PgUp PgDn", "ten rows, or the log in the details"),
    ("g G", "first, last"),
    ("Enter  p", "details of the candidate; the plot alone; back"),
    ("s  r", "sort by the next column; reverse"),
    ("f  m", "show one state; stacks with one mixer"),
    ("/", "search in stacks, origins and names"),
    ("Esc", "back; clear search and filters"),
    ("e", "export the selected stack as JSON"),
    ("b", "back to the campaigns"),
    ("q  Ctrl-C", "quit; a running campaign goes on"),
];

/// Keys, then every sign of a stack, two a line, then the bars.
fn help_lines(theme: Theme) -> Vec<Line<'static>> {
    let keys = KEYS.iter().map(|(key, words)| {
        Line::from(vec![Span::styled(format!(" {key:<11}"), theme.key()), Span::raw(*words)])
    });
    let signs: Vec<_> = signs(theme).collect();
    let signs = signs.chunks(2).map(|pair| {
        let mut spans = vec![Span::raw(" ")];
        for (sign, style, _) in pair {
            spans.push(Span::styled(format!("{sign} "), *style));
        }
        let titles: Vec<&str> = pair.iter().map(|(_, _, title)| *title).collect();
        spans.push(Span::raw(" ".repeat(11 - 2 * pair.len()) + &titles.join(", ")));
        Line::from(spans)
    });
    let bars = Line::from(vec![
        Span::styled(format!(" {:<11}", "±"), theme.key()),
        Span::raw("one standard error; better is down and left"),
    ]);
    keys.chain([Line::default()]).chain(signs).chain([bars]).collect()
}

/// The help over the middle of the screen.
pub(super) fn help(state: &State, area: Rect, buffer: &mut Buffer) {
    let theme = state.theme;
    let mut lines = help_lines(theme);
    let longest = lines.iter().map(Line::width).max().unwrap_or_default() as u16;
    let width = (longest + 2).max(60).min(area.width);
    let height = (lines.len() as u16 + 2).min(area.height);
    let place = Rect::new(
        area.x + (area.width - width) / 2,
        area.y + (area.height - height) / 2,
        width,
        height,
    );
    Clear.render(place, buffer);
    let block = Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(theme.dim())
        .title(Span::styled(" keys and signs ", theme.heading()))
        .title_bottom(Line::styled(" any key closes ", theme.dim()).right_aligned());
    let inner = block.inner(place);
    block.render(place, buffer);
    // Where not all fits, the empty line goes first.
    if usize::from(inner.height) < lines.len() {
        lines.retain(|line| !line.spans.is_empty());
    }
    for (row, line) in lines.into_iter().take(usize::from(inner.height)).enumerate() {
        buffer.set_line(inner.x, inner.y + row as u16, &line, inner.width);
    }
}
