//! The table of candidates and the list of campaigns.

use db::snapshot::{Campaign, CampaignState, Candidate};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use search::campaign::CandidateState;

use search::metric::Metric;
use search::objective::Objective;

use super::rows::{Column, Sort};
use super::state::State;
use crate::plot::{axes, cost};
use crate::theme::Theme;
use crate::{drawing, quantity};

/// Where a candidate stands: a sign, a word, a style.
pub(super) fn standing(candidate: &Candidate, tokens: u64, theme: Theme) -> (char, String, Style) {
    match &candidate.row.state {
        CandidateState::Proposed => ('○', "waiting".to_owned(), theme.dim()),
        CandidateState::Training if candidate.row.tokens == 0 => {
            ('◌', "next".to_owned(), theme.active())
        }
        CandidateState::Training => {
            let percent = 100.0 * candidate.row.tokens as f64 / tokens.max(1) as f64;
            ('▸', format!("{:.0} %", percent.min(100.0).floor()), theme.active())
        }
        CandidateState::Done if candidate.rank == Some(0) => {
            ('●', "front".to_owned(), theme.front())
        }
        CandidateState::Done if candidate.row.fidelity < tokens && candidate.rank.is_none() => {
            let at = quantity::scaled(candidate.row.fidelity as f64);
            ('∘', format!("at {at}"), theme.dim())
        }
        CandidateState::Done => ('·', "done".to_owned(), Style::new()),
        CandidateState::Infeasible { .. } => ('–', "infeasible".to_owned(), theme.dim()),
        CandidateState::Failed { .. } => ('✗', "failed".to_owned(), theme.failure()),
    }
}

/// A column of the table.
struct Field {
    title: String,
    width: usize,
    column: Option<Column>,
    right: bool,
    /// Of a value of which more is better: the best first is the largest first.
    is_maximised: bool,
}

/// The table, its title line included.
pub(super) fn candidates(state: &State, area: Rect, buffer: &mut Buffer) {
    let Some(snapshot) = &state.snapshot else { return };
    if area.height < 2 {
        return;
    }
    let theme = state.theme;
    let (x, (_, y)) = (cost(&snapshot.campaign), axes(&snapshot.campaign.objectives));
    let is_of_stacks = !snapshot.campaign.is_black_box();
    let highest = snapshot.candidates.last().map_or(0, |candidate| candidate.row.number);
    let fields = fields(usize::from(area.width), highest, (x.as_ref(), &y), is_of_stacks);
    heads(&fields, state.sort, area, buffer, theme);
    let count = state.row_count();
    let area = Rect { y: area.y + 1, height: area.height - 1, ..area };
    if count == 0 {
        let text = if snapshot.candidates.is_empty() {
            "no candidate is proposed yet"
        } else {
            "no candidate fits the filter; Esc clears it"
        };
        buffer.set_stringn(
            area.x + 1,
            area.y,
            text,
            usize::from(area.width).saturating_sub(1),
            theme.dim(),
        );
        return;
    }
    let selected = state.row_of(state.selected).unwrap_or(0);
    let height = usize::from(area.height);
    let first = first_visible(selected, count, height);
    for (row, candidate) in (first..).zip(state.some_rows(first, height)) {
        let at = area.y + (row - first) as u16;
        let (sign, word, style) = standing(candidate, snapshot.campaign.tokens, theme);
        let value = |of: &Objective| {
            let value = of.value(&candidate.row.values);
            value.map_or(String::new(), |value| quantity::significant(value.mean))
        };
        let mut column = area.x;
        for (index, field) in fields.iter().enumerate() {
            let room = field.width;
            if index == fields.len() - 1 {
                let name = candidate.row.reference.as_deref().unwrap_or_default();
                let strip = match candidate.row.subject.stack() {
                    Some(stack) => drawing::strip(stack, room, theme),
                    None => Line::raw(quantity::shortened(&candidate.row.subject.words(), room)),
                };
                let (end, _) = buffer.set_line(column, at, &strip, room as u16);
                let left = usize::from(area.right().saturating_sub(end + 1));
                buffer.set_stringn(
                    end + 1,
                    at,
                    quantity::shortened(name, left),
                    left,
                    theme.reference(),
                );
                break;
            }
            let (text, style) = match (index, field.column) {
                (0, _) => (candidate.row.number.to_string(), theme.dim()),
                (1, _) => (quantity::shortened(&format!("{sign} {word}"), room), style),
                (_, Some(Column::Quality)) => (value(&y), Style::new()),
                (_, Some(Column::Cost)) => (x.as_ref().map_or(String::new(), value), Style::new()),
                _ => {
                    let parameters = candidate.row.values.get(Metric::Parameters.name());
                    (parameters.map_or(String::new(), |p| quantity::scaled(p.mean)), Style::new())
                }
            };
            let text = if field.right { format!("{text:>room$}") } else { text };
            buffer.set_stringn(column, at, text, room, style);
            column += room as u16 + 2;
        }
        if row == selected {
            buffer.set_style(Rect { y: at, height: 1, ..area }, theme.selected());
        }
    }
}

/// The selection stays in the middle where the table is longer than its area.
fn first_visible(selected: usize, count: usize, height: usize) -> usize {
    selected.saturating_sub(height / 2).min(count.saturating_sub(height))
}

/// `highest`: the highest number of a candidate, which has to fit.
fn fields(
    width: usize,
    highest: u32,
    (x, y): (Option<&Objective>, &Objective),
    is_of_stacks: bool,
) -> Vec<Field> {
    let field = |title: &str, width: usize, column, right| Field {
        title: title.to_owned(),
        width,
        column,
        right,
        is_maximised: false,
    };
    let value = |of: &Objective, column| {
        let title = quantity::title(of.name());
        let field = field(&title, title.chars().count().max(7), Some(column), true);
        Field { is_maximised: of.is_maximised(), ..field }
    };
    let mut fields = vec![
        field("#", highest.to_string().len().max(4), Some(Column::Number), true),
        field("state", if width >= 60 { 12 } else { 9 }, Some(Column::Front), false),
    ];
    fields.push(value(y, Column::Quality));
    fields.extend(x.map(|x| value(x, Column::Cost)));
    if width >= 56 && is_of_stacks {
        fields.push(field("params", 7, Some(Column::Parameters), true));
    }
    let used: usize = fields.iter().map(|field| field.width + 2).sum();
    let subject = if is_of_stacks { "stack" } else { "parameters" };
    fields.push(field(subject, width.saturating_sub(used), None, false));
    fields
}

fn heads(fields: &[Field], sort: Sort, area: Rect, buffer: &mut Buffer, theme: Theme) {
    let mut column = area.x;
    for field in fields {
        let width = field.width;
        let sorted = field.column == Some(sort.column);
        let arrow = if sort.descending == field.is_maximised { '↑' } else { '↓' };
        let title = if sorted {
            format!("{}{arrow}", quantity::shortened(&field.title, width))
        } else {
            field.title.clone()
        };
        // A right-aligned head may grow by its arrow into the gap on its left.
        let style = if sorted { theme.heading() } else { theme.dim() };
        let length = title.chars().count() as u16;
        let start = if field.right {
            (column + width as u16).saturating_sub(length).max(area.x)
        } else {
            column
        };
        buffer.set_stringn(
            start,
            area.y,
            title,
            usize::from(area.right().saturating_sub(start)),
            style,
        );
        column += width as u16 + 2;
    }
}

/// A campaign's state: a sign, a word, a style.
pub(super) fn campaign_standing(state: CampaignState, theme: Theme) -> (char, &'static str, Style) {
    match state {
        CampaignState::Running => ('●', "running", theme.active()),
        CampaignState::Paused => ('‖', "paused", theme.reference()),
        CampaignState::Finished => ('✓', "finished", Style::new()),
    }
}

/// The chooser.
pub(super) fn campaigns(state: &State, campaigns: &[Campaign], area: Rect, buffer: &mut Buffer) {
    let theme = state.theme;
    let height = usize::from(area.height);
    let first = first_visible(state.chosen, campaigns.len(), height);
    let widest = campaigns.iter().map(|campaign| campaign.name.chars().count()).max().unwrap_or(0);
    let room = widest.min(usize::from(area.width) / 2);
    for (index, campaign) in campaigns.iter().enumerate().skip(first).take(height) {
        let (sign, word, style) = campaign_standing(campaign.state, theme);
        let name = quantity::shortened(&campaign.name, room);
        let objectives: Vec<String> =
            campaign.objectives.iter().map(quantity::objective_title).collect();
        let line = Line::from(vec![
            Span::raw(format!(" {name:<room$}  ")),
            Span::styled(format!("{sign} {word:<9}"), style),
            Span::raw(format!(
                "{:>4} {}  ",
                campaign.evaluations,
                if campaign.is_black_box() { "points" } else { "stacks" }
            )),
            Span::styled(
                format!("{:>14}  ", quantity::duration(campaign.active_seconds)),
                theme.dim(),
            ),
            Span::styled(objectives.join(" and "), theme.dim()),
        ]);
        let at = area.y + (index - first) as u16;
        buffer.set_line(area.x, at, &line, area.width);
        if index == state.chosen {
            buffer.set_style(Rect { y: at, height: 1, ..area }, theme.selected());
        }
    }
}
