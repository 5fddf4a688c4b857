//! Numbers as people read them.

use search::campaign::trust::{Extra, Plan};
use search::campaign::{Candidate, Trained};
use search::wire::Value;
use tui::left::{Effort, Pace, words};
use tui::quantity::{bytes, duration, measured, scaled, shortened, significant};

use crate::sample;

#[test]
fn numbers() {
    for (x, expected) in [
        (0.0, "0"),
        (2.3141, "2.314"),
        (187.25, "187.2"),
        (12_840.4, "12840"),
        (0.001_234_5, "0.001234"),
        (1e-7, "1.000e-7"),
        (8.0e12, "8.000e12"),
        (-3.0, "-3.000"),
        (f64::NAN, "–"),
        (f64::INFINITY, "–"),
    ] {
        assert_eq!(significant(x), expected, "{x}");
    }
}

#[test]
fn prefixes() {
    for (x, expected) in [
        (0.0, "0"),
        (63.0, "63"),
        (999.0, "999"),
        (999.6, "1.00 k"),
        (65_536.0, "65.5 k"),
        (99_960.0, "100 k"),
        (9_996.0, "10.0 k"),
        (1_240_000.0, "1.24 M"),
        (3e20, "300000 P"),
    ] {
        assert_eq!(scaled(x), expected, "{x}");
    }
    assert_eq!(bytes(98_304.0), "98.3 kB");
    assert_eq!(bytes(12.0), "12 B");
    assert_eq!(bytes(f64::NAN), "–");
}

#[test]
fn errors_decide_the_digits() {
    let measured = |mean, error| measured(Value { mean, standard_error: error });
    assert_eq!(measured(2.314_159, Some(0.0061)), "2.314 ±0.006");
    assert_eq!(measured(2.314_159, Some(0.0123)), "2.314 ±0.012");
    assert_eq!(measured(2.314_159, Some(0.0199)), "2.31 ±0.02");
    assert_eq!(measured(338.4, Some(2.03)), "338 ±2");
    assert_eq!(measured(338.4, Some(20.3)), "338 ±20");
    assert_eq!(measured(338.4, None), "338.4");
    assert_eq!(measured(338.4, Some(0.0)), "338.4");
    assert_eq!(measured(338.4, Some(f64::NAN)), "338.4");
}

#[test]
fn durations() {
    for (seconds, expected) in [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (363.0, "6 min 03 s"),
        (7_505.0, "2 h 05 min"),
        (987_654.0, "11 d 10 h"),
        (f64::NAN, "–"),
        (-1.0, "–"),
    ] {
        assert_eq!(duration(seconds), expected, "{seconds}");
    }
}

#[test]
fn what_is_left_is_said_no_closer_than_it_is_known() {
    for (seconds, expected) in [
        (4.0, "a few seconds left"),
        (44.0, "about 40 s left"),
        (85.8, "about 90 s left"),
        (95.0, "about 2 min left"),
        (5_900.0, "about 98 min left"),
        (8_900.0, "about 2.5 h left"),
        (10_900.0, "about 3 h left"),
        (100_000.0, "about 28 h left"),
        (987_654.0, "about 11 d left"),
    ] {
        assert_eq!(words(seconds), expected, "{seconds}");
    }
}

#[test]
fn what_is_left_takes_as_long_as_what_is_over_or_until_the_hours_are() {
    let extra = Extra::default();
    let pace = Pace { seconds: 100.0, ended: 10, left: 5, extra, limit_seconds: None };
    assert_eq!(pace.seconds_left(), Some(50.0));
    assert_eq!(Pace { limit_seconds: Some(20.0), ..pace }.seconds_left(), Some(20.0));
    assert_eq!(Pace { limit_seconds: Some(-3.0), ..pace }.seconds_left(), Some(0.0));
    assert_eq!(Pace { limit_seconds: Some(90.0), ..pace }.seconds_left(), Some(50.0));
    for untold in
        [Pace { ended: 2, ..pace }, Pace { left: 0, ..pace }, Pace { seconds: 0.0, ..pace }]
    {
        assert_eq!(untold.seconds_left(), None, "{untold:?}");
    }
}

#[test]
fn extra_trainings_take_their_time_too() {
    let extra = Extra { done: 0.0, left: 10.0 };
    let pace = Pace { seconds: 100.0, ended: 10, left: 5, extra, limit_seconds: None };
    assert_eq!(pace.seconds_left(), Some(150.0));
    // They follow when the hours of the search are over.
    assert_eq!(Pace { limit_seconds: Some(20.0), ..pace }.seconds_left(), Some(120.0));
    // Some of them are over, and nothing else is left.
    let extra = Extra { done: 10.0, left: 2.0 };
    assert_eq!(Pace { left: 0, extra, ..pace }.seconds_left(), Some(10.0));
    let extra = Extra { done: 10.0, left: 0.0 };
    assert_eq!(Pace { left: 0, extra, ..pace }.seconds_left(), None);

    let effort = |trust: Plan, rungs: &[u64]| Effort {
        trust,
        tokens: 1000,
        rungs: rungs.to_vec(),
        promote: 2,
    };
    let mut rows: Vec<Candidate> =
        sample::running().candidates.into_iter().map(|of| of.row).take(4).collect();
    let trained = |tokens, seed| Trained { tokens, seed, ..Trained::default() };
    let trust = Plan { repeats: 6, longer: 2, longer_tokens: 4000, seeds: 1 };
    let none = effort(Plan { seeds: 1, ..Plan::default() }, &[]);
    assert_eq!(none.extra(20, rows.iter()), Extra::default());
    let without = effort(trust, &[]);
    assert_eq!(without.extra(20, rows.iter()), Extra { done: 0.0, left: 14.0 });
    // Its own training is none of them, a repeat and a longer one are.
    let own = rows[0].seed;
    rows[0].trained = vec![trained(1000, own), trained(1000, own + 1), trained(4000, own)];
    assert_eq!(without.extra(20, rows.iter()), Extra { done: 5.0, left: 9.0 });
    // Every candidate from three seeds.
    let three = effort(Plan { seeds: 3, ..Plan::default() }, &[]);
    assert_eq!(three.extra(20, std::iter::empty()), Extra { done: 0.0, left: 40.0 });
    // With rungs an evaluation is 0.25 + 0.25/2 + 0.5/4 = half a training on average.
    let rungs = effort(trust, &[250, 500]);
    assert_eq!(rungs.extra(20, rows.iter()), Extra { done: 10.0, left: 18.0 });
}

#[test]
fn shortening_counts_characters() {
    assert_eq!(shortened("µs per token", 12), "µs per token");
    assert_eq!(shortened("µs per token", 5), "µs p…");
    assert_eq!(shortened("µs", 1), "…");
    assert_eq!(shortened("µs", 0), "");
}
