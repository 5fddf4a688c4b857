//! The screens: what is drawn where. A function of the state alone.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Widget};

use super::rows::StateFilter;
use super::state::{State, Zoom};
use super::{details, frame, table};
use crate::agreement;
use crate::plot::FrontPlot;
use crate::quantity;

/// The smallest terminal that has room for plot and table.
const LEAST: (u16, u16) = (60, 18);
/// From this width on, the details stand beside plot and table all the way down.
const WIDE: u16 = 100;
/// From this width on, they stand beside the plot.
const MEDIUM: u16 = 80;

/// Draws the state.
pub fn view(state: &State, frame: &mut Frame<'_>) {
    let area = frame.area();
    let buffer = frame.buffer_mut();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        too_small(state, area, buffer);
        return;
    }
    let [top, middle, bottom] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)])
            .areas(area);
    frame::header(state, top, buffer);
    frame::footer(state, bottom, buffer);
    match (&state.opened, &state.snapshot) {
        (None, _) => chooser(state, middle, buffer),
        (Some(_), None) => sentence("reading the campaign …", state, middle, buffer),
        (Some(_), Some(_)) => campaign(state, middle, buffer),
    }
    if state.help {
        frame::help(state, middle, buffer);
    }
}

fn too_small(state: &State, area: Rect, buffer: &mut Buffer) {
    let (width, height) = LEAST;
    let lines = [
        format!("a little more room, please: {width}×{height}"),
        format!("this terminal has {}×{}", area.width, area.height),
        "q quits".to_owned(),
    ];
    let top = area.y + area.height.saturating_sub(lines.len() as u16) / 2;
    for (row, line) in lines.iter().take(usize::from(area.height)).enumerate() {
        let text = quantity::shortened(line, usize::from(area.width));
        let left = (area.width - text.chars().count() as u16) / 2;
        let style = if row == 0 { state.theme.heading() } else { state.theme.dim() };
        buffer.set_string(area.x + left, top + row as u16, text, style);
    }
}

fn sentence(text: &str, state: &State, area: Rect, buffer: &mut Buffer) {
    buffer.set_stringn(
        area.x + 1,
        area.y + 1,
        text,
        usize::from(area.width) - 1,
        state.theme.dim(),
    );
}

fn chooser(state: &State, area: Rect, buffer: &mut Buffer) {
    let inner = pane(state, vec![Span::raw("campaigns")], area, buffer);
    match &state.campaigns {
        None => sentence("reading the database …", state, area, buffer),
        Some(campaigns) if campaigns.is_empty() => {
            sentence(
                "no campaign yet; `deltafront run campaign.toml` starts one",
                state,
                area,
                buffer,
            );
        }
        Some(campaigns) => table::campaigns(state, campaigns, inner, buffer),
    }
}

fn campaign(state: &State, area: Rect, buffer: &mut Buffer) {
    match state.zoom {
        Zoom::Plot => return plot(state, area, buffer),
        Zoom::Details => {
            let inner = pane(state, vec![Span::raw("details")], area, buffer);
            return details::page(state, inner, buffer);
        }
        Zoom::None => {}
    }
    if area.width >= WIDE {
        let right = (area.width * 2 / 5).clamp(44, 64);
        let [left, _, right] = Layout::horizontal([
            Constraint::Fill(1),
            Constraint::Length(1),
            Constraint::Length(right),
        ])
        .areas(area);
        let [above, below] = stacked(left, 55);
        plot(state, above, buffer);
        candidates(state, below, buffer);
        let inner = pane(state, vec![Span::raw("selected")], right, buffer);
        details::pane(state, inner, buffer);
    } else if area.width >= MEDIUM {
        let [above, below] = stacked(area, 60);
        let [left, _, right] = Layout::horizontal([
            Constraint::Fill(1),
            Constraint::Length(1),
            Constraint::Length(36),
        ])
        .areas(above);
        plot(state, left, buffer);
        candidates(state, below, buffer);
        let inner = pane(state, vec![Span::raw("selected")], right, buffer);
        details::pane(state, inner, buffer);
    } else {
        let [above, below] = stacked(area, 52);
        plot(state, above, buffer);
        candidates(state, below, buffer);
    }
}

fn stacked(area: Rect, percent: u16) -> [Rect; 2] {
    Layout::vertical([Constraint::Percentage(percent), Constraint::Fill(1)]).areas(area)
}

fn plot(state: &State, area: Rect, buffer: &mut Buffer) {
    let is_history = state.snapshot.as_ref().is_some_and(|s| s.campaign.objectives.len() == 1);
    let mut title = vec![Span::raw(if is_history { "values" } else { "front" })];
    if let Some(snapshot) = state.snapshot.as_ref().filter(|snapshot| snapshot.is_foretold()) {
        let target = quantity::scaled(snapshot.campaign.target_tokens as f64);
        title.push(Span::raw(format!(" foretold for {target} tokens")));
    }
    // How far short trainings are to be trusted, the longest first, as many as there is room for.
    let agreements = state.snapshot.iter().flat_map(|snapshot| snapshot.agreements.iter().rev());
    let pairs = state.snapshot.iter().flat_map(|snapshot| snapshot.predictions.iter().rev());
    for text in pairs.map(agreement::pairs).chain(agreements.filter_map(agreement::short)) {
        let width: usize = title.iter().map(Span::width).sum();
        if width + text.chars().count() + 8 < usize::from(area.width) {
            title.push(Span::styled(format!(" · {text}"), state.theme.dim()));
        }
    }
    let inner = pane(state, title, area, buffer);
    if let Some(snapshot) = &state.snapshot {
        let plot = FrontPlot::new(snapshot, state.theme).select(state.selected);
        let plot = plot.of_marks(state.marks.as_deref());
        plot.keeping(&state.plotted).render(inner, buffer);
    }
}

fn candidates(state: &State, area: Rect, buffer: &mut Buffer) {
    let dim = state.theme.dim();
    let total = state.snapshot.as_ref().map_or(0, |snapshot| state.progress.of(snapshot).all);
    let mut title = vec![Span::raw("candidates ")];
    if state.filter.is_empty() {
        title.push(Span::styled(total.to_string(), dim));
    } else {
        title.push(Span::styled(format!("{} of {total}", state.row_count()), dim));
        if state.filter.state != StateFilter::All {
            title
                .push(Span::styled(format!(" · {}", state.filter.state.name()), state.theme.key()));
        }
        if let Some(kind) = state.filter.mixer {
            title.push(Span::styled(format!(" · with {}", kind.title()), state.theme.mixer(kind)));
        }
        if !state.filter.text.is_empty() {
            title.push(Span::styled(format!(" · “{}”", state.filter.text), state.theme.key()));
        }
    }
    if state.marks.is_some() {
        title.push(Span::styled(" · reading them all …", dim));
    }
    let inner = pane(state, title, area, buffer);
    table::candidates(state, inner, buffer);
}

/// A line above with a title; gives what is below it, a cell narrower on the left.
fn pane(state: &State, title: Vec<Span<'static>>, area: Rect, buffer: &mut Buffer) -> Rect {
    let title: Vec<Span> =
        [Span::raw(" ")].into_iter().chain(title).chain([Span::raw(" ")]).collect();
    let block =
        Block::new().borders(Borders::TOP).border_style(state.theme.dim()).title(Line::from(title));
    let inner = block.inner(area);
    block.render(area, buffer);
    Rect { x: inner.x + 1, width: inner.width.saturating_sub(1), ..inner }
}
