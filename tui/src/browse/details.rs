//! The selected candidate: what is known of it, its drawing, its training curve, its failure.

use std::borrow::Cow;

use db::snapshot::{Campaign, Candidate};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget, Wrap};
use search::campaign::CandidateState;
use search::latency::Timing;
use search::metric::Metric;
use search::objective::Objective;
use search::subject::{Assignment, Subject};
use search::value::Name;

use super::state::State;
use super::table::standing;
use super::trace::Trace;
use crate::drawing::Drawing;
use crate::quantity;
use crate::retrieval;
use crate::theme::Theme;

/// Lines of the log that a failed candidate left.
pub(super) fn log_lines(candidate: &Candidate) -> u16 {
    match &candidate.row.state {
        CandidateState::Failed { log, .. } => log.lines().count().min(usize::from(u16::MAX)) as u16,
        _ => 0,
    }
}

/// Facts above, then the drawing, then curve or log as far as there is room.
pub(super) fn pane(state: &State, area: Rect, buffer: &mut Buffer) {
    let Some((campaign, candidate)) = subject(state) else { return };
    let candidate = candidate.as_ref();
    let facts = facts(
        candidate,
        campaign,
        state.theme,
        usize::from(area.width),
        area.height < BRIEF_HEIGHT,
    );
    let (top, rest) = cut(area, facts.len() as u16);
    write(&facts, top, buffer);
    let (_, rest) = cut(rest, 1);
    let below = if let Some(drawing) = drawing(state, candidate, campaign) {
        let (above, below) = cut(rest, drawing.height(area.width, rest.height));
        drawing.render(above, buffer);
        cut(below, 1).1
    } else {
        let lines = settings(candidate, state.theme);
        let (above, below) = cut(rest, lines.len() as u16);
        write(&lines, above, buffer);
        cut(below, 1).1
    };
    if log_lines(candidate) > 0 {
        log(state, candidate, below, buffer);
    } else {
        curve(state, candidate, campaign, Rect { height: below.height.min(12), ..below }, buffer);
    }
}

/// The same with a screen of its own: facts and curve on the left, the drawing on the right, the log below.
pub(super) fn page(state: &State, area: Rect, buffer: &mut Buffer) {
    let Some((campaign, candidate)) = subject(state) else { return };
    let candidate = candidate.as_ref();
    if area.width < 90 {
        pane(state, area, buffer);
        return;
    }
    let left = Rect { width: area.width / 2 - 2, ..area };
    let right = Rect { x: area.x + area.width / 2, width: area.width - area.width / 2, ..area };
    let facts = facts(candidate, campaign, state.theme, usize::from(left.width), false);
    let (top, rest) = cut(left, facts.len() as u16);
    write(&facts, top, buffer);
    let (_, rest) = cut(rest, 1);
    if log_lines(candidate) > 0 {
        let (above, below) = cut(rest, rest.height.saturating_sub(8).min(10));
        curve(state, candidate, campaign, above, buffer);
        log(state, candidate, below, buffer);
    } else {
        let (above, rest) = cut(rest, rest.height.min(16));
        curve(state, candidate, campaign, above, buffer);
        let (_, rest) = cut(rest, 1);
        memory(state, candidate, rest, buffer);
    }
    match drawing(state, candidate, campaign) {
        Some(drawing) => drawing.render(right, buffer),
        None => write(&settings(candidate, state.theme), right, buffer),
    }
}

/// The drawing of a stack; a point of a black box has none.
fn drawing<'a>(
    state: &State,
    candidate: &'a Candidate,
    campaign: &Campaign,
) -> Option<Drawing<'a>> {
    let stack = candidate.row.subject.stack()?;
    let drawing = Drawing::new(stack, campaign.latency.decode_context, state.theme);
    Some(drawing.cache_dtype(campaign.latency.dtype))
}

/// The parameters of a point, one a line.
fn settings(candidate: &Candidate, theme: Theme) -> Vec<Line<'static>> {
    let Subject::Point(Assignment(settings)) = &candidate.row.subject else { return Vec::new() };
    settings
        .iter()
        .map(|(name, setting)| {
            let name = quantity::shortened(name, NAME - 1);
            Line::from(vec![
                Span::styled(format!("{name:<NAME$}"), theme.dim()),
                Span::raw(clean(&setting.to_string())),
            ])
        })
        .collect()
}

fn subject(state: &State) -> Option<(&Campaign, Cow<'_, Candidate>)> {
    Some((&state.snapshot.as_ref()?.campaign, state.detailed()?))
}

/// The first `height` rows, and the others.
fn cut(area: Rect, height: u16) -> (Rect, Rect) {
    let height = height.min(area.height);
    (Rect { height, ..area }, Rect { y: area.y + height, height: area.height - height, ..area })
}

fn write(lines: &[Line<'_>], area: Rect, buffer: &mut Buffer) {
    for (row, line) in lines.iter().take(usize::from(area.height)).enumerate() {
        buffer.set_line(area.x, area.y + row as u16, line, area.width);
    }
}

fn curve(
    state: &State,
    candidate: &Candidate,
    campaign: &Campaign,
    area: Rect,
    buffer: &mut Buffer,
) {
    if area.height >= 5 {
        Trace { candidate, tokens: campaign.tokens, theme: state.theme }.render(area, buffer);
    }
}

/// The retrieval SNR of the layers, as many as there is room for.
fn memory(state: &State, candidate: &Candidate, area: Rect, buffer: &mut Buffer) {
    let rows = retrieval::rows(candidate);
    if rows.is_empty() || area.height < 3 {
        return;
    }
    let mut lines = vec![Line::styled(retrieval::TITLE, state.theme.dim())];
    lines.extend(rows.iter().enumerate().map(|(place, row)| {
        let cells: Vec<String> = row.iter().skip(3).map(|cell| format!("{cell:>6}")).collect();
        let name = format!("{:>5} {:<4} {:<7}", row[0], row[1], row[2]);
        let style = if place == 0 { state.theme.dim() } else { Style::new() };
        Line::styled(name + &cells.concat(), style)
    }));
    write(&lines, area, buffer);
}

fn log(state: &State, candidate: &Candidate, area: Rect, buffer: &mut Buffer) {
    let CandidateState::Failed { log, .. } = &candidate.row.state else { return };
    if area.height < 2 {
        return;
    }
    let (head, body) = cut(area, 1);
    write(&[Line::styled("last lines of the worker", state.theme.dim())], head, buffer);
    // Workers may write escape sequences; a screen must not pass them on.
    let lines: Vec<String> = log.lines().map(clean).collect();
    Paragraph::new(lines.join("\n"))
        .wrap(Wrap { trim: false })
        .scroll((state.scroll, 0))
        .render(body, buffer);
}

fn clean(line: &str) -> String {
    line.replace('\t', "    ").replace(|c: char| c.is_control(), "")
}

/// Below this height only the most important facts leave room for the drawing.
const BRIEF_HEIGHT: u16 = 18;
/// Cells of a fact's name.
const NAME: usize = 17;

fn facts(
    candidate: &Candidate,
    campaign: &Campaign,
    theme: Theme,
    width: usize,
    brief: bool,
) -> Vec<Line<'static>> {
    let (sign, mut word, style) = standing(candidate, campaign.tokens, theme);
    if let CandidateState::Failed { kind, .. } = &candidate.row.state {
        word = format!("{word}: {kind}");
    }
    let name = candidate.row.reference.as_ref().map_or(String::new(), |name| format!("  ◆ {name}"));
    let mut lines = vec![Line::from(vec![
        Span::styled(format!("#{}", candidate.row.number), theme.heading()),
        Span::styled(format!("  {sign} {word}"), style),
        Span::styled(name, theme.reference()),
    ])];
    match &candidate.row.state {
        CandidateState::Failed { reason, .. } => {
            lines.extend(wrapped(reason, width, theme.failure()));
        }
        CandidateState::Infeasible { reason } => lines.extend(wrapped(reason, width, Style::new())),
        _ => {}
    }
    if candidate.row.reference.is_none() {
        lines.extend(wrapped(&candidate.row.origin, width, theme.dim()));
    }
    let fact = |name: &str, text: String, note: String| {
        Line::from(vec![
            Span::styled(format!("{:<NAME$}", quantity::shortened(name, NAME - 1)), theme.dim()),
            Span::raw(text),
            Span::styled(note, theme.dim()),
        ])
    };
    for name in value_names(candidate, campaign) {
        let Some(value) = candidate.row.values.get(name) else { continue };
        if brief
            && name != Metric::Parameters.name()
            && !campaign.objectives.iter().any(|objective| objective.name() == name)
        {
            continue;
        }
        let note = if candidate.disturbed.contains(name) { "  disturbed" } else { "" };
        lines.push(fact(&quantity::title(name), quantity::named(name, *value), note.to_owned()));
        if let Some(foretold) = candidate.foretold.get(name) {
            let after = format!("  at {}", quantity::scaled(campaign.target_tokens as f64));
            lines.push(fact(&after, quantity::named(name, *foretold), "  foretold".to_owned()));
        }
        if let Some(timing) = candidate.whole(name) {
            let text = candidate.whole_us(name).map(quantity::measured).unwrap_or_default();
            let note = beside_whole(timing, candidate.row.sum_us(name));
            lines.push(fact("  whole model", text, note));
            if let Some(mj) = timing.millijoules {
                let text = format!("{} mJ a token", quantity::significant(mj));
                lines.push(fact("  energy", text, String::new()));
            }
        }
    }
    if candidate.row.tokens > 0 {
        let tokens = quantity::scaled(candidate.row.tokens as f64);
        let of = if candidate.row.tokens < campaign.tokens {
            format!(" of {}", quantity::scaled(campaign.tokens as f64))
        } else {
            String::new()
        };
        let note = format!("  {}", quantity::duration(candidate.row.train_seconds));
        lines.push(fact("trained", format!("{tokens}{of} tokens"), note));
    }
    if !brief {
        let seed = format!("  seed {}", candidate.row.seed);
        lines.push(fact("identity", candidate.id.to_string(), seed));
    }
    lines
}

/// Objectives first, then what else is known, in an order of their own.
fn value_names<'a>(candidate: &'a Candidate, campaign: &'a Campaign) -> Vec<&'a str> {
    const FIRST: [Metric; 6] = [
        Metric::BitsPerByte,
        Metric::ValidationLoss,
        Metric::DecodeUs,
        Metric::PrefillUs,
        Metric::Parameters,
        Metric::StateBytes,
    ];
    let mut names: Vec<&str> = campaign.objectives.iter().map(Objective::name).collect();
    for name in
        FIRST.map(Metric::name).into_iter().chain(candidate.row.values.keys().map(Name::as_str))
    {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// How far the sum of the parts is from the time of the whole model, and whether that was disturbed.
fn beside_whole(timing: &Timing, sum_us: Option<f64>) -> String {
    let off = sum_us.map(|sum_us| 100.0 * (sum_us / timing.median_us - 1.0));
    let load = if timing.is_disturbed() { ", disturbed" } else { "" };
    match off.filter(|off| off.is_finite()) {
        Some(off) => format!("  parts {off:+.1} %{load}"),
        None => load.to_owned(),
    }
}

/// At most three lines; what is longer ends with `…`.
fn wrapped(text: &str, width: usize, style: Style) -> Vec<Line<'static>> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(quantity::shortened(word, width)),
        }
    }
    if lines.len() > 3 {
        lines.truncate(3);
        let last = format!("{} …", lines[2]);
        lines[2] = quantity::shortened(&last, width);
    }
    lines.into_iter().map(|line| Line::styled(line, style)).collect()
}
