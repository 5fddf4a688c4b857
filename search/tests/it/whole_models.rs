//! The latency of a candidate: of its whole model where that was timed, else the corrected sum of its parts.

use std::collections::{BTreeMap, HashSet};

use search::Architecture;
use search::campaign::{
    Campaign, Candidate, CandidateState, Command, Event, Finish, History, Settings,
};
use search::latency::{Conditions, LatencyEntry, Timing, WholeModels, keys};
use search::proposals::{Algorithm, Proposer};
use search::wire::{Evaluation, Measured, Request, Value};

use crate::stacks::{self, DEVICE, Stacks, at_most, conditions};

const PART_US: f64 = 10.0;
/// A device that a command of the user's own times on.
const PHONE: &str = "phone";

fn settings(time_whole_models: WholeModels) -> Settings {
    Settings { evaluations: 14, time_whole_models, ..stacks::settings() }
}

fn timing(median_us: f64) -> Timing {
    Timing {
        median_us,
        spread_us: 0.5,
        samples: 100,
        other_load: 0.0,
        kernels: "test".to_owned(),
        millijoules: None,
    }
}

fn sum_us(stack: &Architecture) -> f64 {
    let (_, decode) = conditions().swap_remove(0);
    PART_US * keys(stack, &decode).count() as f64
}

/// What a campaign asked for, in short: a part, a whole model, one again, a training.
#[derive(Debug, Default)]
struct Heard {
    order: String,
    rows: BTreeMap<u32, Candidate>,
    finish: Option<Finish>,
}

/// Goes through a campaign whose whole models take `over` times the sum of their parts.
fn run(settings: Settings, over: impl Fn(&Architecture) -> f64, history: History) -> Heard {
    run_drifting(settings, over, |_| 1.0, history)
}

/// The same where a model that is timed a second time takes `drift` times as long.
fn run_drifting(
    settings: Settings,
    over: impl Fn(&Architecture) -> f64,
    drift: impl Fn(&Architecture) -> f64,
    history: History,
) -> Heard {
    let mut timed: HashSet<(Architecture, Conditions)> = HashSet::new();
    let proposer = Proposer::new(Algorithm::Random, 1, 10, Vec::new());
    let mut heard = Heard::default();
    for row in &history.candidates {
        heard.rows.insert(row.number, row.clone());
    }
    let mut campaign = Campaign::new(settings, Stacks { depth: 3 }, proposer, history);
    let profilers = [DEVICE, PHONE].map(|device| (device.to_owned(), 1)).into();
    let mut waiting = campaign.handle(Event::Workers { trainers: 1, profilers });
    while !waiting.is_empty() {
        let mut next = Vec::new();
        for command in std::mem::take(&mut waiting) {
            let (word, event) = match command {
                Command::Save(row) => {
                    heard.rows.insert(row.number, row);
                    continue;
                }
                Command::Finish(finish) => {
                    heard.finish = Some(finish);
                    continue;
                }
                Command::Send(Request::Measure(request)) => {
                    ('p', Event::Timing(Measured { id: request.id, timing: timing(PART_US) }))
                }
                Command::Send(Request::MeasureWhole(request)) => {
                    let us = over(&request.architecture) * sum_us(&request.architecture);
                    let what = (request.architecture.clone(), request.conditions);
                    let is_first = timed.insert(what);
                    let drift = if is_first { 1.0 } else { drift(&request.architecture) };
                    let timing = timing(drift * us);
                    let word = if is_first { 'w' } else { 'a' };
                    (word, Event::Timing(Measured { id: request.id, timing }))
                }
                Command::Send(Request::Evaluate(request)) => ('t', trained(request.id)),
                _ => continue,
            };
            heard.order.push(word);
            next.extend(campaign.handle(event));
        }
        waiting = next;
    }
    heard
}

fn trained(id: u64) -> Event {
    let value = Value { mean: 2.0 - 0.001 * id as f64, standard_error: None };
    Event::Result(Evaluation {
        id,
        values: BTreeMap::from([("bits_per_byte".to_owned(), value)]),
        parameters: 1,
        tokens: 1000,
        seconds: 1.0,
        checkpoint: None,
        unsaved: None,
        parts: BTreeMap::new(),
        curve: Vec::new(),
        retrieval: Vec::new(),
    })
}

fn decode(row: &Candidate) -> Value {
    row.values.get("decode_us").copied().expect("it is timed")
}

fn stack(row: &Candidate) -> &Architecture {
    row.subject.stack().expect("a stack")
}

#[test]
fn the_first_few_tell_what_the_sums_of_the_others_are_worth() {
    let heard = run(settings(WholeModels::Front), |_| 1.25, History::default());
    assert_eq!(heard.finish, Some(Finish::Complete));
    let (before, _) = heard.order.split_once('t').expect("something is trained");
    assert_eq!(before.matches('w').count(), 2 * 6, "six stacks, decode and prefill: {before}");
    for row in heard.rows.values() {
        let (value, sum) = (decode(row), sum_us(stack(row)));
        let error = value.standard_error.expect("an error");
        if let Some(whole) = row.whole.get("decode_us") {
            assert_eq!(Some(value.mean), Some(whole.median_us));
            assert!((0.5..0.55).contains(&error), "nothing drifts: {error}");
            assert!((row.sums["decode_us"] - sum).abs() < 1e-9);
        } else {
            assert!((1.18..1.25).contains(&(value.mean / sum)), "{} of {sum}", value.mean);
            assert!(error > 0.01 * sum, "{error}");
            assert!((value.mean - 1.25 * sum).abs() < 2.0 * error, "the error covers the whole");
        }
    }
    assert!(heard.rows.values().any(|row| row.whole.is_empty()));
    let never = run(settings(WholeModels::Never), |_| 1.25, History::default());
    assert!(!never.order.contains('w'));
    let sums = |row: &Candidate| (decode(row).mean - sum_us(stack(row))).abs() < 1e-9;
    assert!(never.rows.values().all(sums), "nothing corrects them");
}

#[test]
fn all_are_timed_before_they_are_trained_where_that_is_asked() {
    for composes in [true, false] {
        let names = conditions().into_iter().map(|(name, _)| name).filter(|_| !composes);
        let all = Settings { whole_only: names.collect(), ..settings(WholeModels::All) };
        let heard = run(all, |_| 1.25, History::default());
        assert_eq!(heard.finish, Some(Finish::Complete));
        assert_eq!(heard.order.matches('w').count(), 2 * heard.rows.len());
        let twice = |row: &&Candidate| !row.earlier.is_empty();
        let again = heard.rows.values().filter(twice).count();
        assert!(again >= 6, "the first six once more at the end, and the front: {again}");
        assert_eq!(heard.order.matches('a').count(), 2 * again);
        assert_eq!(heard.order.contains('p'), composes);
        for row in heard.rows.values() {
            assert!((decode(row).mean - 1.25 * sum_us(stack(row))).abs() < 1e-9);
        }
        let mut trained = 0;
        for (index, _) in heard.order.match_indices('t') {
            trained += 1;
            assert!(heard.order[..index].matches('w').count() >= 2 * trained);
        }
    }
}

#[test]
fn the_first_few_are_timed_once_more_and_what_they_differ_by_is_in_every_latency() {
    // Each takes up to a tenth longer or shorter at the end, as it is.
    let drift = |stack: &Architecture| 0.9 + 0.2 * stacks::chance(&stack.to_string());
    let asked = || settings(WholeModels::Front);
    let heard = run_drifting(asked(), |_| 1.25, drift, History::default());
    assert_eq!(heard.finish, Some(Finish::Complete));
    let last = heard.order.rfind('t').expect("something is trained");
    let (before, after) = heard.order.split_at(last);
    assert!(!before.contains('a') && after.matches('a').count() == 2 * 6, "{}", heard.order);
    let quiet = run(asked(), |_| 1.25, History::default());
    let (mut wholes, mut sums) = (0, 0);
    for (row, same) in heard.rows.values().zip(quiet.rows.values()) {
        let relative = |row: &Candidate| {
            let value = decode(row);
            value.standard_error.expect("an error") / value.mean
        };
        let stack = stack(row);
        assert_eq!(stack, self::stack(same), "proposals are the same");
        if let Some((earlier, later)) = row.timed_twice("decode_us") {
            assert!((earlier.median_us - 1.25 * sum_us(stack)).abs() < 1e-9);
            assert!((later.median_us - drift(stack) * earlier.median_us).abs() < 1e-9);
            assert_eq!(Some(decode(row).mean), Some(later.median_us), "the later one counts");
        }
        if row.whole.contains_key("decode_us") {
            wholes += 1;
            assert!(relative(row) > 0.04 && relative(same) < 0.03, "{row:?}");
        } else {
            sums += 1;
            assert!(relative(row) > 1.2 * relative(same), "{row:?}");
        }
    }
    assert!(wholes > 6 && sums > 0, "{wholes} and {sums}");
    // Nothing is left to time for whoever goes on with it.
    let candidates: Vec<Candidate> = heard.rows.into_values().collect();
    let more = run_drifting(asked(), |_| 1.25, drift, History { candidates, ..History::default() });
    assert_eq!((more.order.as_str(), more.finish), ("", Some(Finish::Complete)));
    assert!(!run(settings(WholeModels::Never), |_| 1.25, History::default()).order.contains('a'));
}

#[test]
fn a_front_of_models_that_are_all_timed_early_is_of_the_same_minutes_too() {
    for composes in [true, false] {
        let names = conditions().into_iter().map(|(name, _)| name).filter(|_| !composes);
        let all = Settings { whole_only: names.collect(), ..settings(WholeModels::All) };
        let ids = all.objectives.clone();
        let heard = run_drifting(all, |_| 1.25, |_| 1.2, History::default());
        assert_eq!(heard.finish, Some(Finish::Complete));
        let mut later = 0;
        for row in heard.rows.values() {
            let us = 1.25 * sum_us(stack(row));
            let is_later = (decode(row).mean - 1.2 * us).abs() < 1e-9;
            assert!(is_later || (decode(row).mean - us).abs() < 1e-9, "{row:?}");
            assert_eq!(is_later, row.earlier.contains_key("decode_us"));
            later += usize::from(is_later);
        }
        assert!(later > 6 && later < heard.rows.len(), "{later}");
        let rows: Vec<&Candidate> = heard.rows.values().collect();
        let of = |row: &Candidate| row.objectives_at(&ids, row.fidelity).expect("it is done");
        for row in &rows {
            let is_behind = |other: &&&Candidate| of(other).dominates(&of(row));
            if !rows.iter().any(|other| is_behind(&other)) {
                assert!(row.earlier.contains_key("decode_us"), "all of the front: {row:?}");
            }
        }
    }
}

#[test]
fn timings_by_other_kernels_are_no_pair() {
    let heard = run(settings(WholeModels::Front), |_| 1.25, History::default());
    let mut candidates: Vec<Candidate> = heard.rows.into_values().collect();
    for row in &mut candidates {
        row.earlier.clear();
        row.whole.values_mut().for_each(|of| of.kernels = "before".to_owned());
    }
    // Those who go on with it have a table of their own kernels only.
    let more = Settings { evaluations: 16, ..settings(WholeModels::Front) };
    let heard = run(more, |_| 1.0, History { candidates, ..History::default() });
    assert_eq!(heard.finish, Some(Finish::Complete));
    let pairs = || heard.rows.values().filter_map(|row| row.timed_twice("decode_us"));
    for (earlier, later) in pairs() {
        assert_eq!(earlier.kernels, later.kernels);
    }
    assert!(heard.rows.len() == 16 && heard.order.contains('p'), "{}", heard.order);
}

#[test]
fn who_is_out_by_a_first_timing_alone_has_no_sum() {
    let names = conditions().into_iter().map(|(name, _)| name);
    let asked = Settings {
        whole_only: names.collect(),
        limits: at_most(&[("decode_us", 60.0)]),
        ..settings(WholeModels::All)
    };
    let heard = run_drifting(asked.clone(), |_| 1.25, |_| 0.9, History::default());
    let is_out = |row: &Candidate| matches!(row.state, CandidateState::Infeasible { .. });
    let out = || heard.rows.values().filter(|row| is_out(row) && !row.earlier.is_empty());
    assert!(out().count() > 0, "some of the first six are over the limit");
    assert!(out().all(|row| row.sum_us("decode_us").is_none()));
    let said: Vec<Value> = out().map(decode).collect();
    let numbers: Vec<u32> = out().map(|row| row.number).collect();
    let candidates = heard.rows.values().cloned().collect();
    let more = run_drifting(asked, |_| 1.25, |_| 0.9, History { candidates, ..History::default() });
    let still = numbers.iter().map(|number| decode(&more.rows[number]));
    assert_eq!(still.collect::<Vec<_>>(), said, "what they were refused by stays");
}

#[test]
fn a_target_without_parts_is_timed_whole_beside_one_that_is_composed() {
    let name = "decode_us.phone";
    let one = settings(WholeModels::Front);
    let mut two = one.clone();
    let (_, decode_here) = two.latencies[0].clone();
    let there = Conditions { device: PHONE.to_owned(), ..decode_here };
    two.latencies.push((name.to_owned(), there));
    two.whole_only.insert(name.to_owned());
    two.objectives.extend(stacks::objectives(&[name]));
    let (one, two) =
        (run(one, |_| 1.25, History::default()), run(two, |_| 1.25, History::default()));
    assert_eq!(two.finish, Some(Finish::Complete));
    let parts = |heard: &Heard| heard.order.matches('p').count();
    assert_eq!(parts(&two), parts(&one), "no part is timed for it");
    for row in two.rows.values() {
        let whole = &row.whole[name];
        assert_eq!(row.values.get(name).map(|value| value.mean), Some(whole.median_us));
        assert!((whole.median_us - 1.25 * sum_us(stack(row))).abs() < 1e-9);
    }
    assert!(two.rows.values().any(|row| !row.whole.contains_key("decode_us")), "sums stay");
}

#[test]
fn who_is_over_a_limit_as_a_whole_is_out() {
    let limit = 85.0;
    let limits = at_most(&[("decode_us", limit)]);
    // The first six are as their sums say; others take half as long again.
    let first: Vec<Architecture> = {
        let asked = Settings { limits: limits.clone(), ..settings(WholeModels::Front) };
        let heard = run(asked, |_| 1.0, History::default());
        heard.rows.values().take(6).map(|row| stack(row).clone()).collect()
    };
    let over = |stack: &Architecture| if first.contains(stack) { 1.0 } else { 1.5 };
    let asked = Settings { limits, ..settings(WholeModels::Front) };
    let heard = run(asked, over, History::default());
    let over_as_a_whole = heard.rows.values().filter(|row| {
        row.whole.get("decode_us").is_some_and(|whole| whole.median_us > limit)
            && row.sums["decode_us"] <= limit
    });
    let mut count = 0;
    for row in over_as_a_whole {
        count += 1;
        assert!(
            matches!(&row.state, CandidateState::Infeasible { reason }
            if reason.starts_with("decode_us ")),
            "{row:?}"
        );
    }
    assert!(count > 0, "{:?}", heard.order);
    let done = heard.rows.values().filter(|row| row.state == CandidateState::Done);
    assert!(done.into_iter().all(|row| decode(row).mean <= limit));
}

#[test]
fn what_older_programs_kept_becomes_what_the_whole_model_took() {
    let before = run(settings(WholeModels::Never), |_| 1.0, History::default());
    let mut candidates: Vec<Candidate> = before.rows.into_values().collect();
    let old = &mut candidates[13];
    old.whole.insert("decode_us".to_owned(), timing(77.0));
    let sum = decode(old).mean;
    assert_eq!(old.sum_us("decode_us"), Some(sum));
    let mut latencies = Vec::new();
    for key in candidates.iter().flat_map(|row| {
        let of = |(_, of): (String, _)| keys(stack(row), &of).collect::<Vec<_>>();
        conditions().into_iter().flat_map(of).collect::<Vec<_>>()
    }) {
        latencies.push(LatencyEntry { key, timing: timing(PART_US) });
    }
    let more = Settings { evaluations: 15, ..settings(WholeModels::Front) };
    let heard = run(more, |_| 1.1, History { candidates, latencies });
    let row = &heard.rows[&14];
    assert_eq!(Some(decode(row).mean), Some(77.0));
    assert_eq!(row.sums.get("decode_us"), Some(&sum));
    // The others are said anew once the first six are timed.
    let told = heard.rows.values().filter(|row| !row.whole.contains_key("decode_us"));
    for row in told {
        let over = decode(row).mean / sum_us(stack(row));
        assert!((1.05..1.1).contains(&over), "{over}");
    }
}
