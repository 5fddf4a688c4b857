//! What must hold whatever is read: it is taken, or refused with a reason. `fuzz/targets` looks for bytes for which it does not,
//! `corpora` beside this file has those that are tried with every change.

use std::collections::BTreeMap;

use rand::SeedableRng;
use search::Architecture;
use search::campaign::{Campaign, Command, Event, History, Quiet, Settings};
use search::config::CampaignFile;
use search::cost;
use search::proposals::{Algorithm, Proposer, SearchRng};
use search::tensors::{self, TensorSpec};
use search::wire::{Refusal, Reply, Request};

use crate::stacks::{Stacks, at_most, conditions, settings, workers};

/// A campaign file: what is taken has a space that gives stacks of its own.
pub(crate) fn campaign_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let file = match CampaignFile::parse(text) {
        Ok(file) => file,
        Err(error) => return assert!(!error.to_string().is_empty(), "a reason"),
    };
    let json = serde_json::to_string(&file).expect("a campaign file is JSON");
    assert_eq!(serde_json::from_str::<CampaignFile>(&json).expect("it was written"), file);
    let space = file.space().expect("it was checked");
    let mut rng = SearchRng::seed_from_u64(file.seed);
    let one = space.sample(&mut rng);
    let (other, _) = space.mutate(&one, &mut rng);
    for stack in [&one, &other, &space.recombine(&one, &other, &mut rng)] {
        space.contains(stack).unwrap_or_else(|why| panic!("{stack}: {why}"));
        assert!(space.encode(stack).iter().all(|x| x.is_finite()));
    }
    assert!(file.target_tokens() >= file.tokens());
    assert!(!file.objectives().is_empty());
    assert_eq!(file.stacks().count(), file.search.stacks.len());
    assert_eq!(file.references().len(), file.search.references.len());
}

/// The text of a stack: what is taken is written as what is read again, and has costs.
pub(crate) fn text_form(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let stack: Architecture = match text.parse() {
        Ok(stack) => stack,
        Err(error) => return assert!(!error.to_string().is_empty(), "a reason"),
    };
    let canonical = stack.to_string();
    assert_eq!(canonical.parse::<Architecture>().as_ref(), Ok(&stack), "{canonical}");
    let json = serde_json::to_string(&stack).expect("a stack is JSON");
    assert_eq!(serde_json::from_str::<Architecture>(&json).expect("it was written"), stack);
    let conditions = conditions();
    let costs = cost::values(&stack, conditions.iter().map(|(_, conditions)| conditions));
    assert!(costs.iter().all(|(_, value)| value.is_finite() && *value >= 0.0), "{costs:?}");
    // Tensors are listed one by one.
    if stack.layers().len() <= 64 {
        let of_all: u64 = tensors::tensors(&stack).iter().map(TensorSpec::elements).sum();
        assert_eq!(of_all, tensors::parameters(&stack), "{canonical}");
    }
}

/// Lines of the wire protocol: what is taken is written as what is read again.
pub(crate) fn wire(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for line in text.lines() {
        match Request::parse(line) {
            Ok(request) => {
                let written = request.to_line().expect("it was read");
                assert_eq!(Request::parse(&written).as_ref(), Ok(&request), "{written}");
            }
            Err(error) => assert!(!error.reason.is_empty()),
        }
        match Reply::parse(line) {
            Ok(reply) => {
                let written = reply.to_line().expect("it was read");
                assert_eq!(Reply::parse(&written).as_ref(), Ok(&reply), "{written}");
            }
            Err(error) => assert!(!error.reason.is_empty()),
        }
    }
}

/// What workers say to a campaign, a line each: whatever it is, the campaign keeps rows that make sense. A line that is no
/// message is a failure of what was asked last.
pub(crate) fn replies(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let settings = Settings {
        evaluations: 12,
        rungs: vec![100],
        limits: at_most(&[("decode_us", 100.0), ("parameters", 60_000.0)]),
        quiet: Quiet::default(),
        ..settings()
    };
    let proposer = Proposer::new(Algorithm::Evolution, 1, 3, Vec::new());
    let mut campaign = Campaign::new(settings, Stacks { depth: 2 }, proposer, History::default());
    let mut rows = BTreeMap::new();
    let mut asked = 0;
    let mut lines = text.lines();
    let mut event = Some(workers(2, 1));
    while let Some(happened) = event {
        for command in campaign.handle(happened) {
            match command {
                Command::Save(row) => drop(rows.insert(row.number, row)),
                Command::Send(Request::Measure(of)) => asked = of.id,
                Command::Send(Request::Evaluate(of)) => asked = of.id,
                _ => {}
            }
        }
        event = lines.next().map(|line| event_of(line, asked));
    }
    for row in campaign.candidates() {
        // What is known of one under way follows from what is saved.
        let is_saved = !row.state.is_final() || rows.get(&row.number) == Some(row);
        assert!(is_saved, "what is in memory is what was saved: {row:?}");
        assert!(row.values.values().all(|value| value.mean.is_finite()), "{row:?}");
    }
    for number in campaign.front() {
        assert!(rows[&number].fidelity > 0);
    }
}

/// What a driver makes of a line, which may name the request that was asked last by 0.
fn event_of(line: &str, asked: u64) -> Event {
    let failed =
        |reason: &str| Event::Failed { refusal: Refusal::new(asked, reason), log: String::new() };
    let or_last = |id: u64| if id == 0 { asked } else { id };
    match Reply::parse(line) {
        Ok(Reply::Progress(mut of)) => {
            of.id = or_last(of.id);
            Event::Progress(of)
        }
        Ok(Reply::Result(mut of)) => {
            of.id = or_last(of.id);
            Event::Result(of)
        }
        Ok(Reply::Timing(mut of)) => {
            of.id = or_last(of.id);
            Event::Timing(of)
        }
        Ok(Reply::Values(values)) => Event::Values { values, seconds: 1.0 },
        Ok(Reply::Infeasible(mut of)) => {
            of.id = or_last(of.id);
            Event::Infeasible(of)
        }
        Ok(Reply::Failed(refusal)) => Event::Failed { refusal, log: String::new() },
        Ok(Reply::Hello(_)) => Event::Lost { id: asked },
        Ok(Reply::Checked(of)) => Event::HandedBack { id: or_last(of.id) },
        Ok(Reply::Space(_)) => failed("not asked"),
        Err(error) => failed(&error.reason),
    }
}
