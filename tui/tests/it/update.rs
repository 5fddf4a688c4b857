//! What keys and news do to the state.

use db::snapshot::CampaignState;
use proptest::prelude::*;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use search::campaign::CandidateState;
use tui::browse::{Column, Effect, Message, State, StateFilter, Zoom, update};
use tui::theme::Theme;

use crate::sample;
use crate::screens::opened;

fn press(state: &mut State, key: KeyCode) -> Vec<Effect> {
    update(state, Message::Key(KeyEvent::from(key)))
}

fn letters(state: &mut State, letters: &str) {
    for letter in letters.chars() {
        press(state, KeyCode::Char(letter));
    }
}

fn numbers(state: &State) -> Vec<u32> {
    state.rows().iter().map(|row| row.row.number).collect()
}

#[test]
fn the_front_comes_first_by_latency() {
    let state = opened(sample::running());
    let front: Vec<u32> =
        state.rows().iter().filter(|row| row.rank == Some(0)).map(|row| row.row.number).collect();
    assert_eq!(front, [9, 12, 14, 16, 19, 21, 17, 26, 18, 27, 24, 23, 22]);
    assert_eq!(numbers(&state)[..front.len()], front);
    assert_eq!(state.selected, Some(front[0]));
}

#[test]
fn the_selection_stays_on_its_candidate_while_the_campaign_goes_on() {
    let mut state = opened(sample::running());
    state.selected = Some(28);
    let mut later = sample::running();
    later.revision += 1;
    let candidate = &mut later.candidates[27];
    candidate.row.state = CandidateState::Done;
    candidate.rank = Some(0);
    update(&mut state, Message::Snapshot(Box::new(later)));
    assert_eq!(state.selected, Some(28));
}

#[test]
fn a_candidate_that_leaves_the_filter_hands_the_selection_to_its_place() {
    let mut state = opened(sample::running());
    state.filter.state = StateFilter::Pending;
    state.selected = Some(28);
    assert_eq!(numbers(&state).len(), 3);
    let place = numbers(&state).iter().position(|&n| n == 28).unwrap();
    let mut later = sample::running();
    later.candidates[27].row.state = CandidateState::Done;
    update(&mut state, Message::Snapshot(Box::new(later)));
    assert_eq!(state.selected, Some(numbers(&state)[place.min(1)]));
}

#[test]
fn sorting_by_every_column() {
    let mut state = opened(sample::running());
    for column in Column::ALL {
        assert_eq!(state.sort.column, column);
        for descending in [false, true] {
            assert_eq!(state.sort.descending, descending);
            let rows = state.rows();
            assert_eq!(rows.len(), 30);
            let name = match column {
                Column::Quality => Some("bits_per_byte"),
                Column::Cost => Some("decode_us"),
                Column::Parameters => Some("parameters"),
                Column::Front | Column::Number => None,
            };
            if let Some(name) = name {
                let values: Vec<Option<f64>> =
                    rows.iter().map(|row| row.row.values.get(name).map(|v| v.mean)).collect();
                let known: Vec<f64> = values.iter().copied().flatten().collect();
                assert!(
                    values[..known.len()].iter().all(Option::is_some),
                    "unknown values stand last"
                );
                let sorted =
                    known.windows(2).all(|w| if descending { w[0] >= w[1] } else { w[0] <= w[1] });
                assert!(sorted, "{column:?} {descending} {known:?}");
            }
            press(&mut state, KeyCode::Char('r'));
        }
        press(&mut state, KeyCode::Char('s'));
    }
}

#[test]
fn filters_combine_and_escape_clears_them() {
    let mut state = opened(sample::running());
    letters(&mut state, "ffmm");
    assert_eq!(state.filter.state, StateFilter::Done);
    assert!(
        state.rows().iter().all(|row| row.row.state == CandidateState::Done
            && row.row.subject.to_string().contains("swa("))
    );
    assert!(!state.rows().is_empty());
    assert!(state.rows().iter().any(|row| Some(row.row.number) == state.selected));
    letters(&mut state, "/w=64 ");
    press(&mut state, KeyCode::Enter);
    assert!(!state.typing);
    assert!(state.rows().iter().all(|row| row.row.subject.to_string().contains("w=64")));
    press(&mut state, KeyCode::Esc);
    assert!(state.filter.is_empty());
    assert_eq!(state.rows().len(), 30);
}

#[test]
fn keys_are_letters_while_typing() {
    let mut state = opened(sample::running());
    letters(&mut state, "/q?se");
    assert_eq!(state.filter.text, "q?se");
    assert!(!state.help);
    press(&mut state, KeyCode::Backspace);
    assert_eq!(state.filter.text, "q?s");
    let quit =
        update(&mut state, Message::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)));
    assert_eq!(quit, [Effect::Quit]);
    press(&mut state, KeyCode::Esc);
    assert_eq!((state.typing, state.filter.text.as_str()), (false, ""));
}

#[test]
fn walking_along_the_front() {
    let mut state = opened(sample::running());
    let front: Vec<u32> =
        state.rows().iter().filter(|row| row.rank == Some(0)).map(|row| row.row.number).collect();
    for expected in &front[1..] {
        press(&mut state, KeyCode::Right);
        assert_eq!(state.selected, Some(*expected));
    }
    press(&mut state, KeyCode::Right);
    assert_eq!(state.selected, front.last().copied(), "the end of the front is the end");
    // The largest throughput is the smallest latency.
    let mut more = opened(sample::maximised());
    for expected in &front[1..] {
        press(&mut more, KeyCode::Right);
        assert_eq!(more.selected, Some(*expected));
    }
    // From a dominated candidate to the nearest member on that side.
    state.selected = Some(10);
    press(&mut state, KeyCode::Left);
    let left = state.selected().unwrap();
    assert!(
        left.rank == Some(0) && left.row.values[&"decode_us".into()].mean <= 143.0,
        "{}",
        left.row.number
    );
}

#[test]
fn one_campaign_opens_itself_and_several_are_offered() {
    let mut state = State::new(Theme::PLAIN, None);
    let only = vec![sample::campaign("only", CampaignState::Finished)];
    assert_eq!(
        update(&mut state, Message::Campaigns(only)),
        [Effect::Follow(Some("only".to_owned()))]
    );

    let mut state = State::new(Theme::PLAIN, None);
    let several = vec![
        sample::campaign("old", CampaignState::Finished),
        sample::campaign("at work", CampaignState::Running),
        sample::campaign("new", CampaignState::Paused),
    ];
    assert_eq!(update(&mut state, Message::Campaigns(several.clone())), []);
    assert_eq!(state.chosen, 1, "the running one is under the cursor");
    // A campaign that appears does not move the cursor off its campaign.
    let mut more = several;
    more.insert(0, sample::campaign("oldest", CampaignState::Finished));
    update(&mut state, Message::Campaigns(more));
    assert_eq!(state.chosen, 2);
    assert_eq!(press(&mut state, KeyCode::Enter), [Effect::Follow(Some("at work".to_owned()))]);
    // A snapshot of another campaign that was on its way is not shown.
    update(&mut state, Message::Snapshot(Box::new(sample::running())));
    assert_eq!(state.snapshot, None);
    assert_eq!(press(&mut state, KeyCode::Char('b')), [Effect::Follow(None)]);
    assert_eq!(state.opened, None);
}

#[test]
fn export_names_the_selected_candidate() {
    let mut state = opened(sample::running());
    state.selected = Some(22);
    assert_eq!(press(&mut state, KeyCode::Char('e')), [Effect::Export { number: 22 }]);
    update(&mut state, Message::Exported(Err("the disk is full".to_owned())));
    assert!(state.notice.as_ref().is_some_and(|notice| notice.is_trouble));
    press(&mut state, KeyCode::Down);
    assert_eq!(state.notice, None);
    let mut nothing = opened(sample::empty());
    assert_eq!(press(&mut nothing, KeyCode::Char('e')), []);
}

#[test]
fn help_zoom_and_quit() {
    let mut state = opened(sample::running());
    press(&mut state, KeyCode::Char('?'));
    assert!(state.help);
    press(&mut state, KeyCode::Down);
    assert!(!state.help);
    press(&mut state, KeyCode::Enter);
    assert_eq!(state.zoom, Zoom::Details);
    press(&mut state, KeyCode::Char('p'));
    assert_eq!(state.zoom, Zoom::Plot);
    press(&mut state, KeyCode::Esc);
    assert_eq!(state.zoom, Zoom::None);
    let release = KeyEvent { kind: KeyEventKind::Release, ..KeyEvent::from(KeyCode::Char('q')) };
    assert_eq!(update(&mut state, Message::Key(release)), []);
    assert_eq!(press(&mut state, KeyCode::Char('q')), [Effect::Quit]);
    assert_eq!(update(&mut state, Message::Stop), [Effect::Quit]);
}

proptest! {
    /// Whatever is pressed, something that is shown is selected.
    #[test]
    fn the_selection_is_always_shown(keys in prop::collection::vec(0usize..20, 0..60)) {
        let mut state = opened(sample::running());
        for key in keys {
            let code = [
                KeyCode::Up, KeyCode::Down, KeyCode::Left, KeyCode::Right, KeyCode::Home, KeyCode::End,
                KeyCode::PageUp, KeyCode::PageDown, KeyCode::Enter, KeyCode::Esc, KeyCode::Backspace,
                KeyCode::Char('s'), KeyCode::Char('r'), KeyCode::Char('f'), KeyCode::Char('m'), KeyCode::Char('/'),
                KeyCode::Char('6'), KeyCode::Char('p'), KeyCode::Char('e'), KeyCode::Char('?'),
            ][key];
            press(&mut state, code);
            if state.snapshot.is_none() {
                return Ok(());
            }
            let rows = numbers(&state);
            prop_assert_eq!(state.selected.is_some(), !rows.is_empty());
            prop_assert!(state.selected.is_none_or(|selected| rows.contains(&selected)));
        }
    }
}
