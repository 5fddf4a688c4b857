//! The campaign's answers to single events, told by hand.

use std::collections::BTreeMap;

use search::campaign::{
    Campaign, Candidate, CandidateState, Command, Event, Finish, History, LatencyTable, Settings,
};
use search::cost;
use search::failure::FailureKind;
use search::latency::{Conditions, LatencyEntry, Phase, Throughput, Timing, keys, parts};
use search::metric::Metric;
use search::proposals::{Algorithm, Proposer};
use search::wire::{Evaluate, Evaluation, Measured, Progress, Refusal, Request, Value};

use crate::stacks::{Stacks, at_most, conditions, objectives, settings, uniform, workers};

fn proposer() -> Proposer<search::Architecture> {
    Proposer::new(Algorithm::Random, 1, 2, Vec::new())
}

fn timing() -> Timing {
    Timing {
        median_us: 10.0,
        spread_us: 0.6745,
        samples: 100,
        other_load: 0.0,
        kernels: "test".to_owned(),
        millijoules: None,
    }
}

/// Starts a campaign and answers all its timings; the campaign, and the commands since the last answer.
fn start(
    settings: Settings,
    proposer: Proposer<search::Architecture>,
) -> (Campaign<Stacks>, Vec<Command>) {
    let mut campaign = Campaign::new(settings, Stacks { depth: 2 }, proposer, History::default());
    let commands = campaign.handle(workers(1, 1));
    let commands = timed(&mut campaign, commands);
    (campaign, commands)
}

/// Answers all timings that are asked for; the commands since the last answer.
fn timed(campaign: &mut Campaign<Stacks>, mut commands: Vec<Command>) -> Vec<Command> {
    while let Some(Request::Measure(measure)) = requests(&commands).first() {
        commands = campaign.handle(Event::Timing(Measured { id: measure.id, timing: timing() }));
    }
    commands
}

fn requests(commands: &[Command]) -> Vec<Request> {
    commands
        .iter()
        .filter_map(|c| if let Command::Send(request) = c { Some(request.clone()) } else { None })
        .collect()
}

fn training(commands: &[Command]) -> Evaluate {
    match requests(commands).as_slice() {
        [request] => training_of(request).clone(),
        other => panic!("expected one training, got {other:?}"),
    }
}

fn training_of(request: &Request) -> &Evaluate {
    match request {
        Request::Evaluate(evaluate) => evaluate,
        other => panic!("expected a training, got {other:?}"),
    }
}

fn state(campaign: &Campaign<Stacks>, number: u32) -> CandidateState {
    campaign.candidates().find(|row| row.number == number).expect("it exists").state.clone()
}

fn refusal(id: u64, reason: &str) -> Refusal {
    Refusal::new(id, reason)
}

fn failure(id: u64) -> Event {
    Event::Failed { refusal: refusal(id, "exit status 134"), log: "bad_alloc".to_owned() }
}

fn result(id: u64, bits_per_byte: f64) -> Event {
    let value = Value { mean: bits_per_byte, standard_error: None };
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

#[test]
fn a_failed_training_is_tried_again_and_then_a_row_with_a_reason() {
    let (mut campaign, commands) = start(settings(), proposer());
    let first = training(&commands);
    assert_eq!(first.attempt, 1);
    let second = training(&campaign.handle(failure(first.id)));
    assert_eq!((second.attempt, &second.architecture), (2, &first.architecture));
    // The first attempt's worker speaks again: nobody listens.
    assert_eq!(campaign.handle(result(first.id, 1.0)), []);
    let next = training(&campaign.handle(failure(second.id)));
    assert_ne!(next.architecture, first.architecture);
    let expected = CandidateState::Failed {
        kind: FailureKind::OutOfMemory,
        reason: "exit status 134".to_owned(),
        log: "bad_alloc".to_owned(),
    };
    assert_eq!(state(&campaign, 1), expected);
}

#[test]
fn an_answer_to_another_question_is_a_failed_attempt() {
    let (mut campaign, commands) = start(settings(), proposer());
    let mut id = training(&commands).id;
    for _ in 0..settings().attempts {
        let commands = campaign.handle(Event::Timing(Measured { id, timing: timing() }));
        id = training(&commands).id;
    }
    let CandidateState::Failed { kind, reason, .. } = state(&campaign, 1) else {
        panic!("it failed")
    };
    assert_eq!(kind, FailureKind::Protocol);
    assert!(reason.contains("answered with a time"), "{reason}");
}

#[test]
fn a_time_that_no_clock_tells_is_a_failure() {
    for us in [f64::NAN, f64::INFINITY, f64::MAX, -1.0, 5e-324, 1e-9, 1e13] {
        for of_spread in [false, true] {
            let mut campaign =
                Campaign::new(settings(), Stacks { depth: 2 }, proposer(), History::default());
            let commands = campaign.handle(workers(1, 1));
            let id = match requests(&commands).as_slice() {
                [Request::Measure(measure)] => measure.id,
                other => panic!("expected a timing, got {other:?}"),
            };
            let timing = if of_spread {
                Timing { spread_us: us, ..timing() }
            } else {
                Timing { median_us: us, ..timing() }
            };
            let commands = campaign.handle(Event::Timing(Measured { id, timing }));
            assert!(!commands.iter().any(|c| matches!(c, Command::SaveLatency(_))), "{us}");
            assert_eq!(requests(&commands).len(), 1, "it is asked again");
        }
    }
}

#[test]
fn a_result_that_is_not_finite_is_a_failure() {
    let (mut campaign, mut commands) = start(settings(), proposer());
    for _ in 0..settings().attempts {
        let id = training(&commands).id;
        commands = campaign.handle(result(id, f64::NAN));
    }
    let CandidateState::Failed { reason, .. } = state(&campaign, 1) else { panic!("it failed") };
    assert_eq!(reason, "the result's `bits_per_byte` must be finite, got NaN");
    assert!(campaign.front().is_empty());
}

#[test]
fn what_is_over_a_limit_is_dropped_before_it_is_timed_or_trained() {
    let mut limited = settings();
    limited.limits = at_most(&[("parameters", 20_000.0)]);
    let mut with_reference = proposer();
    with_reference.references = vec![("attention".to_owned(), uniform(3, 4))];
    let (campaign, commands) = start(limited, with_reference);
    let CandidateState::Infeasible { reason } = state(&campaign, 1) else { panic!("too large") };
    assert_eq!(reason, "parameters 45344 is over the limit of 20000");
    assert_eq!(campaign.candidates().next().expect("it").reference.as_deref(), Some("attention"));
    assert!(training(&commands).architecture != uniform(3, 4));

    let mut limited = settings();
    limited.limits = at_most(&[("decode_us", 25.0)]);
    let (campaign, commands) = start(limited, proposer());
    let parts_trained = parts(&training(&commands).architecture).count();
    assert_eq!(parts_trained, 2, "10 µs a part: a head and one more");
    assert!(campaign.candidates().any(|row| row.state
        == CandidateState::Infeasible {
            reason: "decode_us 30 is over the limit of 25".to_owned()
        }));
}

#[test]
fn what_training_shows_to_be_over_a_limit_is_out_and_counts_as_an_evaluation() {
    let mut limited = settings();
    limited.limits = at_most(&[("bits_per_byte", 1.5)]);
    let (mut campaign, mut commands) = start(limited, proposer());
    for bits_per_byte in [2.0, 1.0, 3.0, 1.25] {
        while let Some(Request::Measure(measure)) = requests(&commands).first() {
            commands =
                campaign.handle(Event::Timing(Measured { id: measure.id, timing: timing() }));
        }
        let id = training(&commands).id;
        commands = campaign.handle(result(id, bits_per_byte));
    }
    assert!(matches!(commands.last(), Some(Command::Finish(Finish::Complete))), "{commands:?}");
    let CandidateState::Infeasible { reason } = state(&campaign, 1) else { panic!("too high") };
    assert_eq!(reason, "bits_per_byte 2 is over the limit of 1.500");
    assert_eq!(state(&campaign, 2), CandidateState::Done);
    assert!(campaign.front().iter().all(|number| [2, 4].contains(number)));
}

#[test]
fn an_impossible_limit_ends_the_campaign_with_advice() {
    let mut limited = settings();
    limited.limits = at_most(&[("parameters", 1.0)]);
    let proposer = proposer();
    let mut campaign = Campaign::new(limited, Stacks { depth: 9 }, proposer, History::default());
    let commands = campaign.handle(workers(1, 1));
    let Some(Command::Finish(Finish::Exhausted { reason })) = commands.last() else {
        panic!("expected the end, got {:?}", commands.last())
    };
    assert!(reason.contains("outside the limits"), "{reason}");
}

#[test]
fn an_exhausted_space_ends_after_all_of_it_is_evaluated() {
    let mut many = settings();
    many.evaluations = 1000;
    let mut campaign = Campaign::new(many, Stacks { depth: 1 }, proposer(), History::default());
    let mut commands = campaign.handle(workers(1, 1));
    let mut finish = None;
    for _ in 0..200 {
        let Some(request) = requests(&commands).first().cloned() else { break };
        commands = campaign.handle(match request {
            Request::Measure(m) => Event::Timing(Measured { id: m.id, timing: timing() }),
            Request::Evaluate(e) => result(e.id, 1.0),
            other => panic!("unexpected {other:?}"),
        });
        if let Some(Command::Finish(end)) = commands.last() {
            finish = Some(end.clone());
        }
    }
    assert!(matches!(finish, Some(Finish::Exhausted { .. })), "{finish:?}");
    let done = campaign.candidates().filter(|row| row.state == CandidateState::Done).count();
    assert_eq!(done, 4 * 3, "four mixers, three widths");
}

#[test]
fn failures_in_a_row_end_the_campaign() {
    let (mut campaign, mut commands) = start(settings(), proposer());
    while !matches!(commands.last(), Some(Command::Finish(_))) {
        let id = training(&commands).id;
        commands = campaign.handle(failure(id));
        commands = timed(&mut campaign, commands);
    }
    let gave_up = Finish::GaveUp {
        kind: Some(FailureKind::OutOfMemory),
        reason: "exit status 134".to_owned(),
    };
    assert_eq!(commands.last(), Some(&Command::Finish(gave_up)));
    let failed =
        campaign.candidates().filter(|row| matches!(row.state, CandidateState::Failed { .. }));
    assert_eq!(failed.count(), 3);

    // The fault is not theirs: the next run writes down that they wait again, and tries them.
    let rows: Vec<Candidate> = campaign.candidates().cloned().collect();
    assert!(rows.len() == 3 && rows.iter().all(|row| row.given_up));
    let history = History { candidates: rows, latencies: Vec::new() };
    let mut resumed = Campaign::new(settings(), Stacks { depth: 2 }, proposer(), history);
    let commands = resumed.handle(workers(1, 1));
    for number in 1..=3 {
        let Command::Save(row) = &commands[number - 1] else { panic!("saved first") };
        assert_eq!((row.number, row.given_up, row.failed_attempts), (number as u32, false, 0));
        assert_eq!(row.state, CandidateState::Proposed);
    }
    assert_eq!(training(&timed(&mut resumed, commands)).attempt, 1);
}

#[test]
fn a_stop_waits_for_the_worker_and_leaves_the_training_for_later() {
    let (mut campaign, commands) = start(settings(), proposer());
    let id = training(&commands).id;
    let commands = campaign.handle(Event::StopRequested);
    assert_eq!(commands, [Command::Send(Request::Stop { id })]);
    let commands = campaign.handle(Event::Infeasible(refusal(id, "stopped")));
    assert_eq!(commands, [Command::Finish(Finish::Stopped)]);
    assert_eq!(state(&campaign, 1), CandidateState::Training);
    assert_eq!(campaign.handle(result(id, 1.0)), [], "nothing follows the end");

    // Resumed: the same candidate, number, seed and attempt.
    let rows = campaign.candidates().cloned().collect();
    let history = History { candidates: rows, latencies: Vec::new() };
    let mut resumed = Campaign::new(settings(), Stacks { depth: 2 }, proposer(), history);
    let again = training(&resumed.handle(workers(1, 1)));
    let row = resumed.candidates().next().expect("it");
    assert_eq!((Some(&again.architecture), again.attempt), (row.subject.stack(), 1));
}

#[test]
fn a_second_stop_waits_for_nobody() {
    let (mut campaign, _) = start(settings(), proposer());
    campaign.handle(Event::StopRequested);
    assert_eq!(campaign.handle(Event::StopRequested), [Command::Finish(Finish::Stopped)]);
}

#[test]
fn progress_grows_the_curve() {
    let (mut campaign, commands) = start(settings(), proposer());
    let id = training(&commands).id;
    let progress = |loss| Progress {
        id,
        step: 3,
        tokens: 300,
        tokens_total: 1000,
        loss,
        tokens_per_second: 1e4,
    };
    assert_eq!(campaign.handle(Event::Progress(progress(f64::NAN))), []);
    let commands = campaign.handle(Event::Progress(progress(5.5)));
    assert!(matches!(commands.as_slice(), [Command::SaveProgress(p)] if p.number == 1));
    assert_eq!(campaign.candidates().next().expect("it").curve, [(300, 5.5)]);
}

#[test]
fn throughput_is_taken_at_the_batch_that_fits_and_too_large_a_stack_is_dropped() {
    let (_, conditions) = conditions().swap_remove(0);
    let context = 1;
    let needs = |batch| cost::memory_bytes(&uniform(0, 4), context, batch, conditions.dtype);
    let mut asked = settings();
    asked.throughput = Some(Throughput {
        budget_bytes: Some(needs(7)),
        conditions: Conditions {
            batch: 64,
            phase: Phase::Decode { context },
            ..conditions.clone()
        },
    });
    let (campaign, commands) = start(asked.clone(), proposer());
    training(&commands);
    let row = campaign.candidates().find(|row| row.state == CandidateState::Training).expect("one");
    let read = |name: &str| row.values[&name.into()].mean;
    let batch = read(Metric::LargestBatch.name());
    let stack = row.subject.stack().expect("a stack");
    let parts = f64::from(parts(stack).count() as u32);
    assert!(batch >= 1.0);
    // 10 µs a part, as all timings of these tests
    assert!((read(Metric::Throughput.name()) - batch * 1e6 / (10.0 * parts)).abs() < 1e-6);

    asked.throughput.as_mut().expect("set above").budget_bytes = Some(1000);
    let (campaign, _) = start(asked, proposer());
    assert!(campaign.candidates().all(|row| matches!(&row.state,
        CandidateState::Infeasible { reason } if reason.ends_with("MB, memory_budget_mb is 0"))));
}

#[test]
fn the_composed_error_counts_a_repeated_part_as_often_as_it_occurs() {
    let mut table = LatencyTable::default();
    let (_, conditions) = conditions().swap_remove(0);
    let stack = uniform(0, 4);
    assert_eq!(table.compose(&stack, &conditions), None);
    assert_eq!(table.missing(&stack, &conditions).len(), 3, "mixer, FFN, head");
    for key in keys(&stack, &conditions) {
        table.insert(LatencyEntry { key, timing: timing() });
    }
    let value = table.compose(&stack, &conditions).expect("all timed");
    assert!((value.mean - 90.0).abs() < 1e-9);
    // σ = 1 µs over 100 samples: 0.12533 µs each, four times for mixer and FFN.
    let expected = 0.12533 * (16.0_f64 + 16.0 + 1.0).sqrt();
    assert!((value.standard_error.expect("known") - expected).abs() < 1e-9);
}

#[test]
fn when_the_time_is_over_nothing_more_is_proposed_and_what_was_begun_is_finished() {
    let (mut campaign, commands) = start(settings(), proposer());
    let begun = training(&commands);
    let over = Event::TimeOver { reason: "the 2 hours are over".to_owned() };
    assert_eq!(campaign.handle(over.clone()), []);
    let rows = campaign.candidates().count();
    let mut commands = campaign.handle(result(begun.id, 2.0));
    // Those of the start are trained, too: they were proposed.
    while let [.., Command::Send(Request::Evaluate(next))] = commands.as_slice() {
        let id = next.id;
        commands = campaign.handle(result(id, 2.1));
    }
    assert_eq!(campaign.candidates().count(), rows);
    assert!(rows < 4);
    assert!(campaign.candidates().all(|row| row.state == CandidateState::Done));
    let finish = Finish::Exhausted { reason: "the 2 hours are over".to_owned() };
    assert_eq!(commands.last(), Some(&Command::Finish(finish)));
    assert_eq!(campaign.handle(over), []);
}

#[test]
fn many_trainers_are_given_work_a_part_at_a_time() {
    let settings = Settings {
        evaluations: 300,
        latencies: Vec::new(),
        objectives: objectives(&["bits_per_byte", "parameters"]),
        ..settings()
    };
    let history = History::default();
    let mut campaign = Campaign::new(settings, Stacks { depth: 3 }, proposer(), history);
    let many = || workers(200, 1);
    let mut given = Vec::new();
    loop {
        given.push(requests(&campaign.handle(many())));
        if !campaign.is_behind() {
            break;
        }
    }
    let counts: Vec<usize> = given.iter().map(Vec::len).collect();
    assert!(counts.iter().all(|&count| (1..=128).contains(&count)), "{counts:?}");
    assert!(counts.len() > 2 && counts.iter().sum::<usize>() == 200, "{counts:?}");
    assert!(requests(&campaign.handle(many())).is_empty(), "all have work");
    // Who is done is given what was proposed ahead, one in eight of the trainers at most.
    let proposed = campaign.candidates().count();
    assert!((201..=225).contains(&proposed), "{proposed}");
    let ids: Vec<u64> = given.iter().flatten().map(|of| training_of(of).id).collect();
    for id in ids.iter().take(proposed - 200) {
        let next = requests(&campaign.handle(result(*id, 1.0)));
        assert!(matches!(next[..], [Request::Evaluate(_)]), "{next:?}");
        assert_eq!(campaign.candidates().count(), proposed, "nobody waits for a proposal");
    }
    campaign.handle(result(ids[proposed - 200], 1.0));
    assert!(campaign.candidates().count() > proposed, "then come the next");
}
