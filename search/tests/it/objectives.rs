//! The table of metrics, objectives in both directions, and limits from both sides: in campaign files, and what a campaign
//! makes of them.

use std::collections::{BTreeMap, BTreeSet};

use search::campaign::findings::{agreements, evaluations};
use search::campaign::front::Contenders;
use search::campaign::trust::Plan;
use search::campaign::{
    Campaign, Candidate, CandidateState, Command, Event, Finish, History, Settings,
};
use search::config::{CampaignFile, ConfigError};
use search::latency::Throughput;
use search::limits::{Limit, Limits};
use search::metric::{Direction, Known, Metric};
use search::objective::Objective;
use search::pareto::Scale;
use search::proposals::{Algorithm, Proposer};
use search::value::{Value, Values};
use search::wire::{Evaluation, Measured, Request};

use crate::stacks::{self, Stacks, at_most, chance, conditions, objectives, uniform, workers};

fn value(mean: f64) -> Value {
    Value { mean, standard_error: None }
}

#[test]
fn every_value_that_is_computed_or_timed_has_a_row_and_no_two_rows_a_name() {
    let names: BTreeSet<&str> = Metric::ALL.map(Metric::name).into();
    assert_eq!(names.len(), Metric::ALL.len());
    for metric in Metric::ALL {
        assert_eq!(Metric::named(metric.name()), Some(metric));
    }
    let of = |known: Known| {
        let of = Metric::ALL.into_iter().filter(move |metric| metric.facts().known == known);
        of.map(|metric| metric.name().to_owned()).collect::<BTreeSet<String>>()
    };
    let conditions = conditions();
    let stack = uniform(1, 2);
    let computed =
        search::cost::values(&stack, conditions.iter().map(|(_, conditions)| conditions));
    assert_eq!(computed.into_keys().collect::<BTreeSet<_>>(), of(Known::Formula));
    let latencies = conditions.iter().map(|(name, _)| name.clone());
    let throughput = Throughput::values(3, value(2.0)).map(|(name, _)| name.into());
    assert_eq!(latencies.chain(throughput).collect::<BTreeSet<_>>(), of(Known::Timing));
}

#[test]
fn an_objective_is_its_text() {
    for (text, name, direction) in [
        ("decode_us", "decode_us", Direction::Minimize),
        ("-throughput", "throughput", Direction::Maximize),
        ("-accuracy", "accuracy", Direction::Maximize),
        ("a-b", "a-b", Direction::Minimize),
    ] {
        let objective: Objective = text.parse().expect(text);
        assert_eq!((objective.name(), objective.direction()), (name, direction));
        assert_eq!(objective.to_string(), text);
        let json = serde_json::to_string(&objective).expect("a string");
        assert_eq!(json, format!("{text:?}"));
        assert_eq!(serde_json::from_str::<Objective>(&json).expect(text), objective);
    }
    assert!("".parse::<Objective>().is_err() && "-".parse::<Objective>().is_err());
    let values = Values::from_iter([("accuracy".into(), value(0.75))]);
    let [more, less] = ["-accuracy", "accuracy"].map(|text| text.parse::<Objective>().expect(text));
    assert_eq!((more.minimised(&values), less.minimised(&values)), (Some(-0.75), Some(0.75)));
    assert_eq!(more.value(&values), Some(value(0.75)), "shown as it was measured");
}

/// A file with these objectives and lines under `[search]`.
fn file(objectives: &str, more: &str) -> Result<CampaignFile, ConfigError> {
    CampaignFile::parse(&format!(
        "name = \"c\"\n[data]\ncorpus = \"corpus.txt\"\n[space]\nd_model = [64]\ndepth = {{ min = 2, max = 6 }}\n\
         [space.mixers.gdn]\n[latency]\nmemory_budget_mb = 9\n[[tasks]]\nkind = \"mqar\"\nextrapolate = [2]\n\
         [search]\nobjectives = {objectives}\n{more}\n"
    ))
}

#[test]
fn files_name_what_is_better_with_a_minus_or_by_nature() {
    for (written, meant) in [
        (r#"["bits_per_byte", "-throughput"]"#, ["bits_per_byte", "-throughput"]),
        (r#"["bits_per_byte", "throughput"]"#, ["bits_per_byte", "-throughput"]),
        (r#"["mqar_x2_accuracy", "largest_batch"]"#, ["-mqar_x2_accuracy", "-largest_batch"]),
        (r#"["-mqar_accuracy", "mqar_error"]"#, ["-mqar_accuracy", "mqar_error"]),
        (r#"["-parameters", "decode_us"]"#, ["-parameters", "decode_us"]),
    ] {
        let file = file(written, "").expect(written);
        assert_eq!(file.objectives(), objectives(&meant), "{written}");
    }
    let own = "[evaluator]\ncommand = \"mine\"";
    let own = file(r#"["accuracy", "-reward"]"#, own).expect("an own evaluator");
    assert_eq!(own.objectives(), objectives(&["accuracy", "-reward"]), "no nature is known");
    for (written, message) in [
        (r#"["throughput", "-throughput"]"#, "`-throughput` is listed twice"),
        (r#"["-bits_per_bite"]"#, "did you mean `bits_per_byte`? `bits_per_bite` is not a value"),
        (r#"["-"]"#, "`` is not the name of a value"),
        (r#"["--decode_us"]"#, "`-decode_us` is not the name of a value"),
    ] {
        let error = file(written, "").expect_err(written);
        assert!(error.message.contains(message), "{written}: {}", error.message);
        assert!(error.key.starts_with("search.objectives."), "{}", error.key);
    }
}

#[test]
fn files_limit_values_from_both_sides() {
    let of = |limits: &str| file(r#"["bits_per_byte"]"#, &format!("limits = {limits}"));
    let both =
        of("{ decode_us = 40, parameters = { min = 5, max = 9.5 }, throughput = { min = 1e3 } }");
    let both = both.expect("limits");
    let json = serde_json::to_value(&both.search.limits).expect("JSON");
    let expected = serde_json::json!({
        "decode_us": 40.0, "parameters": { "min": 5.0, "max": 9.5 }, "throughput": { "min": 1e3 },
    });
    assert_eq!(json, expected, "the most alone stays a number");
    let toml = toml::to_string(&both).expect("TOML");
    assert_eq!(CampaignFile::parse(&toml).expect("its own TOML"), both);
    for (written, message) in [
        (
            "{ throughput = 1000 }",
            "more of `throughput` is better, and this would drop the best; the least value \
          allowed is { min = 1000 }",
        ),
        ("{ mqar_accuracy = 0.5 }", "the least value allowed is { min = 0.5 }"),
        ("{ decode_us = {} }", "needs a number, the largest value allowed, or { min = … }"),
        ("{ decode_us = { min = 4, max = 3 } }", "min must be a number up to max, got 4 and 3"),
        ("{ decode_us = { least = 4 } }", "least"),
        ("{ decode_us = \"few\" }", "a number, the largest value allowed, or { min = …, max = … }"),
        ("{ decode_us = 0 }", "must be a number above 0, got 0"),
        ("{ \"-decode_us\" = 4 }", "`-decode_us` is not the name of a value"),
    ] {
        let error = of(written).expect_err(written);
        assert!(error.message.contains(message), "{written}: {}", error.message);
    }
    let budget = "limits = { decode_us = { min = 2 } }\n[trust]\n";
    let mut file = file(r#"["bits_per_byte"]"#, budget).expect("limits");
    file.latency.decode_budget_us = Some(7.0);
    let limits: Limits =
        [("decode_us".to_owned(), Limit { min: Some(2.0), max: Some(7.0) })].into_iter().collect();
    assert_eq!(file.limits(), limits, "the budget is one more");
}

#[test]
fn the_first_limit_that_is_broken_is_said() {
    let mut limits = at_most(&[("a", 2.0), ("b", 1000.0)]);
    limits.add("b", Limit::at_least(0.25));
    let said = |pairs: &[(&str, f64)]| {
        let values = pairs.iter().map(|(name, mean)| ((*name).into(), value(*mean)));
        limits.broken(&values.collect())
    };
    assert_eq!(said(&[("a", 2.0), ("b", 0.25), ("c", 9e9)]), None);
    assert_eq!(said(&[("b", 0.125)]).as_deref(), Some("b 0.125 is under the limit of 0.250"));
    assert_eq!(said(&[("a", 3.0), ("b", 2e4)]).as_deref(), Some("a 3 is over the limit of 2"));
}

const TOKENS: u64 = 1000;

fn settings(texts: &[&str]) -> Settings {
    Settings {
        evaluations: 12,
        objectives: objectives(texts),
        tokens: TOKENS,
        target_tokens: TOKENS,
        promote: 4,
        attempts: 1,
        ..stacks::settings()
    }
}

/// The rows of a campaign that is told `values` of each stack after so many tokens, at its end.
fn rows(
    settings: Settings,
    algorithm: Algorithm,
    values: impl Fn(&str, u64) -> BTreeMap<String, Value>,
) -> (Vec<Candidate>, Vec<u32>) {
    let proposer = Proposer::new(algorithm, settings.seed, 6, Vec::new());
    let mut campaign = Campaign::new(settings, Stacks { depth: 4 }, proposer, History::default());
    let mut commands = campaign.handle(workers(1, 1));
    loop {
        if let Some(Command::Finish(finish)) = commands.last() {
            assert_eq!(*finish, Finish::Complete);
            return (campaign.candidates().cloned().collect(), campaign.front());
        }
        let request = commands.iter().find_map(|command| match command {
            Command::Send(request) => Some(request.clone()),
            _ => None,
        });
        commands = campaign.handle(match request.expect("it goes on") {
            Request::Measure(measure) => {
                // A part takes as long as it is wide: few and small parts are fast.
                let width = format!("{}", measure.part).len() as f64;
                let timing = search::latency::Timing {
                    median_us: width,
                    spread_us: 0.0,
                    samples: 9,
                    other_load: 0.0,
                    kernels: "k".to_owned(),
                    millijoules: None,
                };
                Event::Timing(Measured { id: measure.id, timing })
            }
            Request::Evaluate(evaluate) => Event::Result(Evaluation {
                id: evaluate.id,
                values: values(&evaluate.architecture.to_string(), evaluate.tokens),
                parameters: 1,
                tokens: evaluate.tokens,
                seconds: 1.0,
                checkpoint: Some(format!("/{}/{}", evaluate.id, evaluate.tokens).into()),
                unsaved: None,
                parts: BTreeMap::new(),
                curve: Vec::new(),
                retrieval: Vec::new(),
            }),
            other => panic!("{other:?} is not asked for"),
        });
    }
}

fn score(text: &str, _: u64) -> BTreeMap<String, Value> {
    BTreeMap::from([("score".to_owned(), value(100.0 * chance(text)))])
}

fn of(row: &Candidate, name: &str) -> f64 {
    row.values[&name.into()].mean
}

#[test]
fn a_campaign_finds_the_largest_throughput() {
    let mut asked = settings(&["-throughput", "bits_per_byte"]);
    asked.evaluations = 30;
    let (_, decode) = conditions().swap_remove(0);
    asked.throughput = Some(Throughput { budget_bytes: Some(1 << 22), conditions: decode });
    let bits = |text: &str, _| BTreeMap::from([("bits_per_byte".to_owned(), value(chance(text)))]);
    let (rows, front) = rows(asked.clone(), Algorithm::Evolution, bits);
    let best = |f: fn(&&Candidate, &&Candidate) -> std::cmp::Ordering| {
        rows.iter().min_by(f).expect("rows").number
    };
    let fastest = best(|a, b| of(b, "throughput").total_cmp(&of(a, "throughput")));
    let slowest = best(|a, b| of(a, "throughput").total_cmp(&of(b, "throughput")));
    assert!(front.contains(&fastest) && fastest != slowest);
    // None on the front is beaten in both; everyone else is.
    for a in &rows {
        let is_beaten = rows.iter().any(|b| {
            let (x, y) = (
                of(b, "throughput") - of(a, "throughput"),
                of(a, "bits_per_byte") - of(b, "bits_per_byte"),
            );
            x >= 0.0 && y >= 0.0 && x + y > 0.0
        });
        assert_eq!(front.contains(&a.number), !is_beaten, "candidate {}", a.number);
    }
    let contenders = Contenders::of(rows.iter(), &asked.objectives, asked.target_tokens);
    assert_eq!(contenders.front(), front, "viewers see the front that the search sees");
    let on_front = contenders.ranks().into_iter().filter(|(_, rank)| *rank == 0);
    assert_eq!(on_front.map(|(number, _)| number).collect::<Vec<_>>(), front);
    // Hypervolume grows towards it, up to that of the front.
    let found = evaluations(rows.iter(), &asked.objectives, TOKENS, false);
    let scale = Scale::of(&contenders.points).expect("points");
    let trace = scale.trace(&found);
    assert!(trace.is_sorted() && (trace.last().expect("evaluations") - 1.0).abs() < 1e-9);
    assert!((scale.axes()[0].best + of(&rows[fastest as usize - 1], "throughput")).abs() < 1e-9);

    // From below a limit drops what is slower, before it is trained.
    let half = of(&rows[fastest as usize - 1], "throughput") / 2.0;
    asked.limits.add("throughput", Limit::at_least(half));
    let (rows, _) = self::rows(asked, Algorithm::Evolution, bits);
    let dropped: Vec<&Candidate> =
        rows.iter().filter(|row| matches!(row.state, CandidateState::Infeasible { .. })).collect();
    assert!(!dropped.is_empty() && dropped.len() < rows.len());
    for row in rows.iter().filter(|row| row.values.contains_key("throughput")) {
        assert_eq!(of(row, "throughput") < half, dropped.contains(&row));
        assert_eq!(row.trained.is_empty(), dropped.contains(&row));
    }
    let CandidateState::Infeasible { reason } = &dropped[0].state else { panic!("dropped") };
    assert!(
        reason.starts_with("throughput ") && reason.contains(" is under the limit of "),
        "{reason}"
    );
}

#[test]
fn the_highest_scores_are_trained_on_and_looked_at_for_longer() {
    let mut asked = settings(&["-score"]);
    asked.rungs = vec![100];
    asked.trust = Plan { repeats: 0, longer: 2, longer_tokens: 4 * TOKENS, seeds: 1 };
    asked.promote = 3;
    let (rows, front) = rows(asked.clone(), Algorithm::Random, score);
    let mut order: Vec<&Candidate> = rows.iter().collect();
    order.sort_by(|a, b| of(b, "score").total_cmp(&of(a, "score")));
    let last = order.iter().rposition(|row| row.fidelity == TOKENS).expect("some");
    let is_promoted = |row: &&&Candidate| row.fidelity == TOKENS;
    assert!(order[..2].iter().all(|row| is_promoted(&row)), "the highest are");
    let promoted = order.iter().filter(is_promoted).count();
    assert!(
        promoted < rows.len() / 2,
        "others, of whom few known changes leave a doubt, may be; most are not"
    );
    assert_eq!(front, [order[0].number]);
    // For longer: the best and the worst of those that came to the end.
    let longer: Vec<u32> = rows
        .iter()
        .filter(|row| row.trained.iter().any(|t| t.tokens == 4 * TOKENS))
        .map(|row| row.number)
        .collect();
    let mut expected = vec![order[0].number, order[last].number];
    expected.sort_unstable();
    assert_eq!(longer, expected);
    // One alone is the best.
    asked.trust.longer = 1;
    let (rows, _) = self::rows(asked.clone(), Algorithm::Random, score);
    let longer = rows.iter().find(|row| row.trained.iter().any(|t| t.tokens == 4 * TOKENS));
    assert_eq!(longer.expect("one").number, order[0].number);
    // Orders that agree agree whichever way is better.
    let [found, ..] = &agreements(&rows, &asked.objectives)[..] else { panic!("two fidelities") };
    assert_eq!((found.value.as_str(), found.fewer, found.more), ("score", 100, TOKENS));

    // Who is under a limit at a rung stands behind those within it there.
    let median = of(order[order.len() / 2], "score");
    asked.objectives = objectives(&["score"]);
    asked.limits.add("score", Limit::at_least(median));
    let (rows, _) = self::rows(asked, Algorithm::Random, score);
    for row in rows.iter().filter(|row| row.fidelity == TOKENS) {
        assert!(of(row, "score") >= median, "{row:?}");
    }
}
