//! A campaign of many candidates: what is read and what is held does not grow beyond what is shown.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use db::snapshot::CampaignKind;
use db::{Access, Change, NewCampaign, Owner, RunEnd, Store};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent};
use search::campaign::{Candidate, CandidateState, Trained};
use search::value::{Value, Values};
use tui::browse::{Message, State, update, view};
use tui::theme::Theme;

use super::harness::{Running, World};

const COUNT: u32 = 10_000;

/// Settings of a black box, as `optimize` keeps them.
const SETTINGS: &str = r#"
[optimize]
command = "false"
evaluations = 10000
workers = 1
seed = 0
algorithm = "random"
start = 10
attempts = 1
give_up_after = 20
[space]
objectives = ["cost", { name = "speed", direction = "maximize" }]
[[space.parameters]]
name = "x"
type = "integer"
low = 0
high = 1000000
"#;

/// Most of a point against the other objective, so that the front is long too.
fn candidate(number: u32) -> Candidate {
    let at = f64::from(number).mul_add(0.618_034, 0.0).fract();
    let off = f64::from(number * 7919 % 1009) / 1009.0;
    let value = |mean| Value { mean, standard_error: None };
    let values = Values::from_iter([
        ("cost".into(), value(1.0 + at + 0.1 * off)),
        ("speed".into(), value(7.0 + at - off * off)),
    ]);
    let trained = Trained {
        tokens: 1,
        seed: 0,
        values: values.clone(),
        parts: BTreeMap::new(),
        seconds: 0.01,
    };
    Candidate {
        number,
        subject: format!("{{\"x\":{}}}", number * 7).parse().expect("a point"),
        reference: None,
        origin: "random".to_owned(),
        state: CandidateState::Done,
        failed_attempts: 0,
        given_up: false,
        values,
        fidelity: 1,
        trained: vec![trained],
        whole: BTreeMap::new(),
        earlier: BTreeMap::new(),
        sums: BTreeMap::new(),
        curve: Vec::new(),
        retrieval: Vec::new(),
        seed: 0,
        tokens: 1,
        train_seconds: 0.01,
        checkpoint: None,
    }
}

async fn make(path: &Path) -> Store {
    let store = Store::open(path, Access::ReadWrite).await.expect("a new file");
    let new = NewCampaign {
        name: "black-box".to_owned(),
        config_toml: SETTINGS.to_owned(),
        config_folder: "/".to_owned(),
        seed: 0,
        evaluations: COUNT,
        tokens: 0,
        target_tokens: 0,
        kind: CampaignKind::BlackBox,
        objectives: ["cost", "-speed"].map(|text| text.parse().expect("a name")).to_vec(),
        latency: search::config::LatencyConfig::default(),
    };
    store.create_campaign(&new).await.expect("a new campaign");
    let run = store.begin_run("black-box", &Owner::current(), "0").await.expect("a free campaign");
    let changes: Vec<Change> = (1..=COUNT).map(|n| Change::Candidate(candidate(n))).collect();
    store.apply(&run, &changes).await.expect("room for them");
    store.end_run(&run, RunEnd::Finished).await.expect("our run");
    store
}

#[test]
fn ten_thousand_candidates_are_shown_in_bounds() {
    let world = World::new("many");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let (outline, details) = runtime.block_on(async {
        let store = make(&world.folder.join("deltafront.db")).await;
        let outline = store.outline("black-box").await.expect("a campaign");
        let details = store.candidate("black-box", 77).await.expect("a campaign");
        store.close().await;
        (outline, details.expect("a candidate"))
    });
    // A debug build is about five times slower than the program, and other tests run beside.
    for (words, seconds) in
        [(&["list"][..], 5), (&["show"], 10), (&["report"], 20), (&["show", "--json"], 20)]
    {
        let (begin, mut peak) = (Instant::now(), 0);
        let mut command = world.command(words);
        let mut run = Running(command.stdout(Stdio::null()).spawn().expect("the program starts"));
        while run.is_alive() {
            peak = run.peak_memory_kib().unwrap_or(0).max(peak);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(run.code(), 0, "{words:?}");
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(seconds), "{words:?} took {took:?}");
        assert!(peak < 120 << 10, "{words:?} held {peak} KiB");
    }

    // Of the screens: a key that changes no order sorts nothing.
    let mut state = State::new(Theme::PLAIN, Some("black-box".to_owned()));
    update(&mut state, Message::Snapshot(Box::new(outline)));
    let mut terminal = Terminal::new(TestBackend::new(120, 40)).expect("a terminal");
    for (key, sorts) in [
        (KeyCode::Down, 0),
        (KeyCode::End, 0),
        (KeyCode::Right, 0),
        (KeyCode::Char('s'), 1),
        (KeyCode::Char('r'), 1),
        (KeyCode::Char('f'), 1),
        (KeyCode::Char('/'), 0),
        (KeyCode::Char('7'), 0),
        (KeyCode::Char('0'), 0),
        (KeyCode::Backspace, 1),
    ] {
        let (before, begin) = (state.order.sorts(), Instant::now());
        update(&mut state, Message::Key(KeyEvent::from(key)));
        terminal.draw(|frame| view(&state, frame)).expect("a screen");
        assert_eq!(state.order.sorts() - before, sorts, "{key:?}");
        let took = begin.elapsed();
        assert!(took < Duration::from_millis(700), "{key:?} took {took:?}");
    }
    // What the page of one candidate shows is read for that one.
    update(&mut state, Message::Key(KeyEvent::from(KeyCode::Esc)));
    state.selected = Some(77);
    assert!(state.detailed().expect("a selection").row.trained.is_empty());
    let (campaign, row) = ("another".to_owned(), Box::new(details));
    update(&mut state, Message::Details { campaign, row: row.clone() });
    assert!(state.detailed().expect("a selection").row.trained.is_empty(), "of another campaign");
    update(&mut state, Message::Details { campaign: "black-box".to_owned(), row });
    assert_eq!(state.detailed().expect("a selection").row, candidate(77));
}
