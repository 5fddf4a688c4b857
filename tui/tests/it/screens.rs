//! Every screen at three sizes.

use db::snapshot::{CampaignState, Candidate, Counts, Snapshot};
use db::{Glance, Mark};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent};
use ratatui::style::{Color, Modifier};
use tui::browse::{Column, Message, Sort, State, StateFilter, Zoom, update, view};
use tui::theme::{Theme, signs};

use crate::sample;

/// 80×24, 120×40, and the smallest that has room.
const SIZES: [(u16, u16); 3] = [(60, 18), (80, 24), (120, 40)];

pub(crate) fn opened(snapshot: Snapshot) -> State {
    let mut state = State::new(Theme::PLAIN, Some(snapshot.campaign.name.clone()));
    update(&mut state, Message::Snapshot(Box::new(snapshot)));
    state
}

fn terminal(state: &State, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view(state, frame)).unwrap();
    terminal
}

/// The characters of the screen, between bars so that blanks at the ends count.
fn screen(state: &State, width: u16, height: u16) -> String {
    let terminal = terminal(state, width, height);
    let cells = terminal.backend().buffer().content();
    let row = |row: &[ratatui::buffer::Cell]| -> String {
        std::iter::once("▏")
            .chain(row.iter().map(ratatui::buffer::Cell::symbol))
            .chain(["▕\n"])
            .collect()
    };
    cells.chunks(usize::from(width)).map(row).collect()
}

fn check(name: &str, state: &State) {
    for (width, height) in SIZES {
        insta::assert_snapshot!(format!("{name}_{width}x{height}"), screen(state, width, height));
    }
}

fn select(state: &mut State, number: u32) {
    state.selected = Some(number);
}

#[test]
fn running() {
    check("running", &opened(sample::running()));
}

/// All that the first screen shows is there before all candidates are read.
#[test]
fn at_a_glance() {
    for mut whole in [sample::running(), sample::maximised(), sample::one_objective("cost")] {
        (whole.agreements, whole.predictions) = (Vec::new(), Vec::new());
        let ranked = whole.candidates.iter().filter_map(|c| Some((c, c.rank?)));
        let values = |c: &Candidate| {
            let objectives = whole.campaign.objectives.iter();
            objectives.filter_map(|of| of.value(&c.row.values)).collect()
        };
        let marks = ranked.map(|(c, rank)| Mark {
            number: c.row.number,
            reference: c.row.reference.clone(),
            values: values(c),
            rank,
        });
        let (marks, counts) = (marks.collect(), Counts::of(&whole.candidates));
        let mut snapshot = whole.clone();
        snapshot.candidates.retain(|candidate| candidate.rank.is_some_and(|rank| rank < 6));
        assert!(snapshot.candidates.len() < whole.candidates.len());
        let glance = Glance { snapshot, marks, counts };
        let mut state = State::new(Theme::PLAIN, Some(whole.campaign.name.clone()));
        update(&mut state, Message::Glance(Box::new(glance)));
        let said = " · reading them all … ";
        let at_first = screen(&state, 60, 18);
        assert!(at_first.contains(said), "{at_first}");
        let rule = format!(" {}", "─".repeat(said.chars().count() - 1));
        let first_rows = at_first.replace(said, &rule);
        assert_eq!(first_rows, screen(&opened(whole.clone()), 60, 18));
        update(&mut state, Message::Snapshot(Box::new(whole.clone())));
        assert_eq!(screen(&state, 120, 40), screen(&opened(whole), 120, 40));
    }
}

#[test]
fn more_is_better() {
    let mut state = opened(sample::maximised());
    check("more_is_better", &state);
    state.sort = Sort { column: Column::Cost, descending: false };
    assert!(screen(&state, 120, 40).contains("tokens/s↓"), "the best first: values fall");
    state.sort.descending = true;
    assert!(screen(&state, 120, 40).contains("tokens/s↑"), "the worst first: values rise");
    state.sort.column = Column::Quality;
    assert!(screen(&state, 120, 40).contains("bits per byte↓"));
}

/// With one objective the plot is of its values, and the best stand first.
#[test]
fn one_objective() {
    let mut state = opened(sample::one_objective("cost"));
    check("one_objective", &state);
    let numbers: Vec<u32> = state.rows().iter().map(|row| row.row.number).collect();
    let cost = |n: &u32| 10.0 + f64::from(n * 37 % 23) - 0.25 * f64::from(*n);
    assert!(numbers[..19].is_sorted_by(|a, b| cost(a) <= cost(b)), "{numbers:?}");
    state = opened(sample::one_objective("-cost"));
    assert!(screen(&state, 120, 40).contains("cost, more is better"));
}

#[test]
fn failed_candidate() {
    let mut state = opened(sample::running());
    select(&mut state, 8);
    check("failed", &state);
}

#[test]
fn candidate_in_training() {
    let mut state = opened(sample::running());
    select(&mut state, 28);
    check("training", &state);
}

#[test]
fn infeasible_candidate() {
    let mut state = opened(sample::running());
    select(&mut state, 6);
    check("infeasible", &state);
}

#[test]
fn details_alone() {
    let mut state = opened(sample::running());
    select(&mut state, 22);
    state.zoom = Zoom::Details;
    check("details", &state);
    select(&mut state, 8);
    check("details_failed", &state);
}

#[test]
fn plot_alone() {
    let mut state = opened(sample::running());
    state.zoom = Zoom::Plot;
    check("plot", &state);
}

#[test]
fn filtered_and_searching() {
    let mut state = opened(sample::running());
    state.filter.state = StateFilter::Done;
    state.filter.mixer = Some(search::architecture::MixerKind::SlidingWindow);
    for key in ['/', 'w', '=', '6', '4'] {
        update(&mut state, Message::Key(KeyEvent::from(KeyCode::Char(key))));
    }
    check("searching", &state);
}

#[test]
fn nothing_fits_the_filter() {
    let mut state = opened(sample::running());
    state.filter.text = "no such stack".to_owned();
    update(&mut state, Message::Key(KeyEvent::from(KeyCode::Home)));
    check("nothing_fits", &state);
}

#[test]
fn empty_campaign() {
    check("empty", &opened(sample::empty()));
}

#[test]
fn one_candidate() {
    check("single", &opened(sample::single()));
}

#[test]
fn extreme_values() {
    let mut state = opened(sample::extreme());
    select(&mut state, 4);
    check("extreme", &state);
}

#[test]
fn help() {
    let mut state = opened(sample::running());
    update(&mut state, Message::Key(KeyEvent::from(KeyCode::Char('?'))));
    check("help", &state);
    let shown = screen(&state, 80, 24);
    for (sign, _, title) in signs(Theme::PLAIN) {
        assert!(shown.contains(sign) && shown.contains(title), "{sign} {title}");
    }
}

#[test]
fn chooser() {
    let mut state = State::new(Theme::PLAIN, None);
    check("reading", &state);
    update(&mut state, Message::Campaigns(Vec::new()));
    check("no_campaign", &state);
    let mut state = State::new(Theme::PLAIN, None);
    update(
        &mut state,
        Message::Campaigns(vec![
            sample::campaign("speeches", CampaignState::Finished),
            sample::campaign("speeches-with-a-budget", CampaignState::Running),
            sample::campaign("laptop", CampaignState::Paused),
        ]),
    );
    check("chooser", &state);
}

#[test]
fn notices() {
    let mut state = opened(sample::running());
    update(&mut state, Message::Exported(Ok("speeches-22.json".to_owned())));
    check("exported", &state);
    update(&mut state, Message::Trouble("cannot read speeches.db: the file is gone".to_owned()));
    check("trouble", &state);
}

#[test]
fn too_small() {
    let state = opened(sample::running());
    for (width, height) in [(59, 18), (60, 17), (30, 6), (9, 2)] {
        insta::assert_snapshot!(format!("small_{width}x{height}"), screen(&state, width, height));
    }
}

#[test]
fn no_size_panics() {
    let mut states: Vec<State> =
        [sample::running(), sample::empty(), sample::single(), sample::extreme()]
            .into_iter()
            .map(opened)
            .collect();
    let with = |change: &dyn Fn(&mut State)| {
        let mut state = opened(sample::running());
        change(&mut state);
        state
    };
    states.push(with(&|state| state.zoom = Zoom::Plot));
    states.push(with(&|state| state.zoom = Zoom::Details));
    states.push(with(&|state| {
        state.zoom = Zoom::Details;
        select(state, 8);
    }));
    states.push(with(&|state| state.help = true));
    states.push(State::new(Theme::COLOUR, None));
    for state in &states {
        for (width, height) in [1, 2, 7, 20, 59, 60, 63, 79, 81, 99, 100, 101, 160, 250]
            .into_iter()
            .flat_map(|width| [1, 2, 3, 5, 17, 18, 19, 23, 31, 60].map(|height| (width, height)))
        {
            terminal(state, width, height);
        }
    }
}

#[test]
fn without_colour_only_weights_are_used() {
    let plain = opened(sample::running());
    let coloured = State { theme: Theme::COLOUR, ..plain.clone() };
    let cells = |state: &State| terminal(state, 120, 40).backend().buffer().content().to_vec();
    assert!(cells(&plain).iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
    assert!(cells(&coloured).iter().any(|cell| cell.fg == Color::Cyan));
    // Neither white nor black nor any background: the terminal's own must show through.
    for cell in cells(&coloured) {
        assert!(
            !matches!(cell.fg, Color::White | Color::Black | Color::Gray | Color::DarkGray),
            "{cell:?}"
        );
        assert_eq!(cell.bg, Color::Reset);
    }
    // The selected row is told apart without colour: exactly one row of the table is inverted.
    let inverted = cells(&plain)
        .chunks(120)
        .filter(|row| row[10].modifier.contains(Modifier::REVERSED))
        .count();
    assert_eq!(inverted, 1);
}

#[test]
fn high_numbers_are_whole() {
    let mut snapshot = sample::running();
    for candidate in &mut snapshot.candidates {
        candidate.row.number += 12_345_600;
    }
    let state = opened(snapshot);
    let first = state.rows()[0].row.number.to_string();
    for (width, height) in SIZES {
        let screen = screen(&state, width, height);
        assert!(screen.contains(&first), "{first} is cut:\n{screen}");
    }
}
