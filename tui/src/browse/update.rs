//! What happens: a message changes the state and gives the effects that the loop then has.

use db::Glance;
use db::snapshot::{Campaign, Candidate, Snapshot};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use search::architecture::MixerKind;
use search::campaign;

use super::progress::Progress;
use super::rows::{Column, Order, StateFilter};
use super::state::{Notice, State, Zoom};
use crate::plot::{Plotted, axes};

/// Something happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// A key was pressed.
    Key(KeyEvent),
    /// The terminal has another size.
    Resized,
    /// The campaigns of the store.
    Campaigns(Vec<Campaign>),
    /// The open campaign, as far as its first screen needs it.
    Glance(Box<Glance>),
    /// The open campaign has changed.
    Snapshot(Box<Snapshot>),
    /// All of a candidate of the open campaign, which the snapshot has in outline.
    Details {
        /// The name of the campaign.
        campaign: String,
        /// The candidate.
        row: Box<campaign::Candidate>,
    },
    /// The store cannot be read now.
    Trouble(String),
    /// An export has ended: the file, or why not.
    Exported(Result<String, String>),
    /// A signal asks for the end.
    Stop,
}

/// Something to do outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Follow this campaign from now on; none: the list of them.
    Follow(Option<String>),
    /// Write the stack of this candidate to a file.
    Export {
        /// Number of the candidate in the open campaign.
        number: u32,
    },
    /// Leave.
    Quit,
}

/// Rows that a page key moves.
const PAGE: i64 = 10;

/// Changes `state` by `message`; pure.
pub fn update(state: &mut State, message: Message) -> Vec<Effect> {
    match message {
        Message::Key(key) if key.kind == KeyEventKind::Release => Vec::new(),
        Message::Key(key) => press(state, key),
        Message::Resized => Vec::new(),
        Message::Campaigns(campaigns) => take_campaigns(state, campaigns),
        Message::Glance(glance) => {
            let Glance { snapshot, marks, counts } = *glance;
            let progress = Progress::counted(&snapshot, counts);
            if take_snapshot(state, snapshot) {
                (state.marks, state.progress) = (Some(marks), progress);
            }
            Vec::new()
        }
        Message::Snapshot(snapshot) => {
            take_snapshot(state, *snapshot);
            Vec::new()
        }
        Message::Details { campaign, row } => {
            if state.opened.as_ref() == Some(&campaign) {
                state.details = Some(row);
            }
            Vec::new()
        }
        Message::Trouble(text) => {
            state.notice = Some(Notice { text, is_trouble: true });
            Vec::new()
        }
        Message::Exported(result) => {
            state.notice = Some(match result {
                Ok(path) => Notice { text: format!("wrote {path}"), is_trouble: false },
                Err(why) => Notice { text: why, is_trouble: true },
            });
            Vec::new()
        }
        Message::Stop => vec![Effect::Quit],
    }
}

/// A store with one campaign opens it at once.
fn take_campaigns(state: &mut State, campaigns: Vec<Campaign>) -> Vec<Effect> {
    let is_first = state.campaigns.is_none();
    let under_cursor =
        state.campaigns.as_ref().and_then(|known| known.get(state.chosen)).map(|c| c.name.clone());
    state.chosen = campaigns
        .iter()
        .position(|campaign| Some(&campaign.name) == under_cursor.as_ref())
        .unwrap_or(state.chosen)
        .min(campaigns.len().saturating_sub(1));
    let only = (is_first && campaigns.len() == 1 && state.opened.is_none())
        .then(|| campaigns[0].name.clone());
    if is_first && only.is_none() {
        // The one at work is what the user came for; else the newest.
        state.chosen = campaigns
            .iter()
            .rposition(|campaign| campaign.state == db::snapshot::CampaignState::Running)
            .unwrap_or(campaigns.len().saturating_sub(1));
    }
    state.campaigns = Some(campaigns);
    only.map_or_else(Vec::new, |name| open(state, name))
}

fn open(state: &mut State, name: String) -> Vec<Effect> {
    state.opened = Some(name.clone());
    forget(state);
    state.selected = None;
    state.zoom = Zoom::None;
    vec![Effect::Follow(Some(name))]
}

fn close(state: &mut State) -> Vec<Effect> {
    state.opened = None;
    forget(state);
    vec![Effect::Follow(None)]
}

fn forget(state: &mut State) {
    state.snapshot = None;
    state.marks = None;
    state.details = None;
    forget_derived(state);
}

/// What is remembered of the candidates that are gone.
fn forget_derived(state: &mut State) {
    state.order = Order::default();
    state.plotted = Plotted::default();
    state.progress = Progress::default();
}

/// The selection stays on its candidate. False for a campaign that is not open.
fn take_snapshot(state: &mut State, snapshot: Snapshot) -> bool {
    if state.opened.as_deref() != Some(snapshot.campaign.name.as_str()) {
        return false; // was on its way when the campaign was closed
    }
    let index = selected_index(state);
    state.snapshot = Some(snapshot);
    state.marks = None;
    forget_derived(state);
    if state.notice.as_ref().is_some_and(|notice| notice.is_trouble) {
        state.notice = None; // the store can be read again
    }
    keep_selection(state, index);
    true
}

fn selected_index(state: &State) -> usize {
    state.row_of(state.selected).unwrap_or(0)
}

/// After the rows changed: the same candidate where it is still shown, else the one at the same place.
fn keep_selection(state: &mut State, index: usize) {
    if state.row_of(state.selected).is_none() {
        let row = index.min(state.row_count().saturating_sub(1));
        let selected = state.some_rows(row, 1).first().map(|row| row.row.number);
        select(state, selected);
    }
}

fn select(state: &mut State, number: Option<u32>) {
    if state.selected != number {
        state.selected = number;
        state.scroll = 0;
    }
}

fn press(state: &mut State, key: KeyEvent) -> Vec<Effect> {
    if key.modifiers.contains(KeyModifiers::CONTROL) && matches!(key.code, KeyCode::Char('c' | 'q'))
    {
        return vec![Effect::Quit];
    }
    state.notice = None;
    if state.help {
        state.help = false;
        return if key.code == KeyCode::Char('q') { vec![Effect::Quit] } else { Vec::new() };
    }
    if state.typing {
        write_search(state, key);
        return Vec::new();
    }
    match key.code {
        KeyCode::Char('q') => vec![Effect::Quit],
        KeyCode::Char('?') | KeyCode::F(1) => {
            state.help = true;
            Vec::new()
        }
        _ if state.opened.is_none() => choose(state, key.code),
        _ => browse(state, key.code),
    }
}

fn write_search(state: &mut State, key: KeyEvent) {
    let index = selected_index(state);
    match key.code {
        KeyCode::Enter => state.typing = false,
        KeyCode::Esc => {
            state.typing = false;
            state.filter.text.clear();
        }
        KeyCode::Backspace => {
            state.filter.text.pop();
        }
        KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => {
            state.filter.text.clear();
        }
        KeyCode::Char(letter) if !key.modifiers.contains(KeyModifiers::CONTROL) => {
            state.filter.text.push(letter);
        }
        _ => {}
    }
    keep_selection(state, index);
}

fn choose(state: &mut State, key: KeyCode) -> Vec<Effect> {
    let count = state.campaigns.as_ref().map_or(0, Vec::len);
    let to = |by: i64| (state.chosen as i64 + by).clamp(0, count.saturating_sub(1) as i64) as usize;
    match key {
        KeyCode::Up | KeyCode::Char('k') => state.chosen = to(-1),
        KeyCode::Down | KeyCode::Char('j') => state.chosen = to(1),
        KeyCode::PageUp => state.chosen = to(-PAGE),
        KeyCode::PageDown => state.chosen = to(PAGE),
        KeyCode::Home | KeyCode::Char('g') => state.chosen = 0,
        KeyCode::End | KeyCode::Char('G') => state.chosen = count.saturating_sub(1),
        KeyCode::Enter | KeyCode::Right | KeyCode::Char('l') => {
            let name = state
                .campaigns
                .as_ref()
                .and_then(|known| known.get(state.chosen))
                .map(|c| c.name.clone());
            return name.map_or_else(Vec::new, |name| open(state, name));
        }
        _ => {}
    }
    Vec::new()
}

fn browse(state: &mut State, key: KeyCode) -> Vec<Effect> {
    let index = selected_index(state);
    match key {
        KeyCode::Up | KeyCode::Char('k') => move_by(state, -1),
        KeyCode::Down | KeyCode::Char('j') => move_by(state, 1),
        KeyCode::PageUp if state.zoom == Zoom::Details => {
            state.scroll = state.scroll.saturating_sub(PAGE as u16);
        }
        KeyCode::PageDown if state.zoom == Zoom::Details => {
            let last = state
                .detailed()
                .map_or(0, |shown| super::details::log_lines(&shown))
                .saturating_sub(1);
            state.scroll = (state.scroll + PAGE as u16).min(last);
        }
        KeyCode::PageUp => move_by(state, -PAGE),
        KeyCode::PageDown => move_by(state, PAGE),
        KeyCode::Home | KeyCode::Char('g') => move_by(state, i64::MIN / 2),
        KeyCode::End | KeyCode::Char('G') => move_by(state, i64::MAX / 2),
        KeyCode::Left | KeyCode::Char('h') => move_along_front(state, -1),
        KeyCode::Right | KeyCode::Char('l') => move_along_front(state, 1),
        KeyCode::Enter => toggle(state, Zoom::Details),
        KeyCode::Char('p') => toggle(state, Zoom::Plot),
        KeyCode::Char('s') => {
            state.sort.column = next(&Column::ALL, state.sort.column);
            state.sort.descending = false;
        }
        KeyCode::Char('r') => state.sort.descending = !state.sort.descending,
        KeyCode::Char('f') => state.filter.state = next(&StateFilter::ALL, state.filter.state),
        KeyCode::Char('m') => {
            let all: Vec<Option<MixerKind>> =
                [None].into_iter().chain(MixerKind::ALL.map(Some)).collect();
            state.filter.mixer = next(&all, state.filter.mixer);
        }
        KeyCode::Char('/') => {
            state.typing = true;
            state.zoom = Zoom::None;
        }
        KeyCode::Char('e') => {
            return state.selected.map_or_else(Vec::new, |number| vec![Effect::Export { number }]);
        }
        KeyCode::Backspace | KeyCode::Char('b') => return close(state),
        KeyCode::Esc if state.zoom != Zoom::None => state.zoom = Zoom::None,
        KeyCode::Esc => state.filter = super::rows::Filter::default(),
        _ => {}
    }
    keep_selection(state, index);
    Vec::new()
}

fn toggle(state: &mut State, zoom: Zoom) {
    state.zoom = if state.zoom == zoom { Zoom::None } else { zoom };
}

fn next<T: PartialEq + Copy>(all: &[T], current: T) -> T {
    let index = all.iter().position(|item| *item == current).unwrap_or(0);
    all[(index + 1) % all.len()]
}

fn move_by(state: &mut State, by: i64) {
    let last = state.row_count().saturating_sub(1) as i64;
    let to = (selected_index(state) as i64).saturating_add(by).clamp(0, last);
    let selected = state.some_rows(to as usize, 1).first().map(|row| row.row.number);
    select(state, selected);
}

/// To the next member of the front by cost, from wherever the selection is.
fn move_along_front(state: &mut State, direction: i64) {
    let Some(snapshot) = &state.snapshot else { return };
    let (x, _) = axes(&snapshot.campaign.objectives);
    // With one objective those who share the best value stand in the order of their proposal.
    let across = |candidate: &Candidate| match &x {
        Some(x) => x.minimised(&candidate.row.values),
        None => Some(f64::from(candidate.row.number)),
    };
    let mut front: Vec<(f64, u32)> = snapshot
        .candidates
        .iter()
        .filter(|candidate| candidate.rank == Some(0))
        .filter_map(|candidate| Some((across(candidate)?, candidate.row.number)))
        .collect();
    front.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let here = front.iter().position(|member| Some(member.1) == state.selected);
    let target = match (here, state.selected().and_then(across)) {
        (Some(index), _) => Some(index as i64 + direction),
        (None, Some(cost)) if direction > 0 => {
            front.iter().position(|member| member.0 >= cost).map(|i| i as i64)
        }
        (None, Some(cost)) => front.iter().rposition(|member| member.0 <= cost).map(|i| i as i64),
        (None, None) => Some(0),
    };
    let Some(target) = target else { return };
    let Some(&(_, number)) = usize::try_from(target).ok().and_then(|target| front.get(target))
    else {
        return;
    };
    // A filter that hides the member would move the selection away at once.
    if state.row_of(Some(number)).is_some() {
        select(state, Some(number));
    }
}
