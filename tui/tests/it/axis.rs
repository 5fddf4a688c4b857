//! Axes: ticks at round values, inside, apart.

use proptest::prelude::*;
use tui::plot::Axis;

fn labels(lo: f64, hi: f64, most: usize) -> Vec<String> {
    Axis::spanning(lo, hi).ticks(most).into_iter().map(|tick| tick.label).collect()
}

#[test]
fn round_labels() {
    assert_eq!(labels(2.19, 2.87, 5), ["2.2", "2.4", "2.6", "2.8"]);
    assert_eq!(labels(0.0, 1.0, 6), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
    assert_eq!(labels(-3.0, 3.0, 7), ["-3", "-2", "-1", "0", "1", "2", "3"]);
    assert_eq!(labels(70.0, 412.0, 8), ["100", "150", "200", "250", "300", "350", "400"]);
    assert_eq!(labels(1e6, 5e6, 5), ["1M", "2M", "3M", "4M", "5M"]);
    assert_eq!(labels(10e6, 50e6, 5), ["10M", "20M", "30M", "40M", "50M"]);
    assert_eq!(labels(1e-9, 5e-9, 5), ["1e-9", "2e-9", "3e-9", "4e-9", "5e-9"]);
}

#[test]
fn a_reversed_axis_begins_with_its_largest_value() {
    for (lo, hi) in [(2.0, 3.0), (4.0, 1200.0)] {
        let (axis, reversed) = (Axis::spanning(lo, hi), Axis::spanning(lo, hi).reversed());
        assert_eq!((reversed.range(), reversed.is_log()), (axis.range(), axis.is_log()));
        let at = |axis: &Axis, value| axis.position(value).expect("a place");
        assert!(at(&reversed, hi) < 0.1 && at(&reversed, lo) > 0.9);
        assert!((at(&axis, 2.5 * lo) + at(&reversed, 2.5 * lo) - 1.0).abs() < 1e-12);
        let mut ticks = reversed.ticks(6);
        assert!(ticks.windows(2).all(|pair| pair[0].value > pair[1].value));
        ticks.reverse();
        assert_eq!(ticks, axis.ticks(6));
    }
}

#[test]
fn more_than_a_decade_is_logarithmic() {
    assert!(!Axis::spanning(10.0, 100.0).is_log());
    assert!(Axis::spanning(10.0, 101.0).is_log());
    assert!(!Axis::spanning(0.0, 1000.0).is_log());
    assert!(!Axis::spanning(-1.0, 1000.0).is_log());
    assert_eq!(labels(4.0, 1200.0, 8), ["5", "10", "20", "50", "100", "200", "500", "1k"]);
    assert_eq!(labels(4.0, 1200.0, 3), ["10", "100", "1k"]);
    assert_eq!(labels(1e-12, 1e12, 5), ["1e-10", "1e-5", "1", "100k", "10G"]);
}

#[test]
fn degenerate_ranges_have_a_place_for_their_value() {
    for value in [0.0, 1.0, -7.5, 1e-300, 1e300, f64::MAX, f64::MIN_POSITIVE] {
        let axis = Axis::spanning(value, value);
        let (lo, hi) = axis.range();
        assert!(lo < hi, "{value}: {axis:?}");
        assert!(axis.position(value).is_some(), "{value}: {axis:?}");
        assert!(!axis.ticks(6).is_empty(), "{value}: {axis:?}");
    }
    assert_eq!(Axis::spanning(f64::NAN, 1.0).range(), (0.0, 1.0));
    assert_eq!(Axis::spanning(1.0, f64::INFINITY).range(), (0.0, 1.0));
    assert_eq!(Axis::spanning(0.0, 1.0).position(f64::NAN), None);
    assert_eq!(Axis::spanning(1.0, 100.0).position(-1.0), None);
}

/// Finite numbers of every magnitude that results can have, and beyond.
fn number() -> impl Strategy<Value = f64> {
    (-1.0..1.0f64, -15..15i32).prop_map(|(mantissa, exponent)| mantissa * 10f64.powi(exponent))
}

proptest! {
    #[test]
    fn ticks_are_inside_apart_and_few(a in number(), b in number(), most in 1usize..30) {
        let axis = Axis::spanning(a, b);
        let (lo, hi) = axis.range();
        let ticks = axis.ticks(most);
        prop_assert!(ticks.len() <= most);
        let slack = (hi - lo) * 1e-9;
        for tick in &ticks {
            prop_assert!(tick.value >= lo - slack && tick.value <= hi + slack, "{tick:?} outside {axis:?}");
        }
        for pair in ticks.windows(2) {
            prop_assert!(pair[0].value < pair[1].value);
            prop_assert_ne!(&pair[0].label, &pair[1].label);
        }
        if most >= 4 && !axis.is_log() {
            prop_assert!(!ticks.is_empty(), "{axis:?}");
        }
        if most >= 6 {
            prop_assert!(ticks.len() >= 2, "{axis:?} {ticks:?}");
        }
    }

    #[test]
    fn linear_ticks_are_evenly_spaced(a in number(), b in number(), most in 3usize..30) {
        let axis = Axis::spanning(a, b);
        prop_assume!(!axis.is_log());
        let (lo, hi) = axis.range();
        let values: Vec<f64> = axis.ticks(most).iter().map(|tick| tick.value).collect();
        for three in values.windows(3) {
            let bend = (three[2] - three[1]) - (three[1] - three[0]);
            prop_assert!(bend.abs() <= 1e-6 * (hi - lo), "{values:?}");
        }
    }

    #[test]
    fn labels_say_the_value(a in number(), b in number(), most in 1usize..12) {
        let axis = Axis::spanning(a, b);
        let (lo, hi) = axis.range();
        for tick in axis.ticks(most) {
            let (digits, factor) = match tick.label.chars().last() {
                Some('k') => (&tick.label[..tick.label.len() - 1], 1e3),
                Some('M') => (&tick.label[..tick.label.len() - 1], 1e6),
                Some('G') => (&tick.label[..tick.label.len() - 1], 1e9),
                _ => (tick.label.as_str(), 1.0),
            };
            let read = digits.parse::<f64>().unwrap() * factor;
            let tolerance = if axis.is_log() { 1e-6 * tick.value.abs() } else { 1e-3 * (hi - lo) };
            prop_assert!((read - tick.value).abs() <= tolerance, "{tick:?} on {axis:?}");
        }
    }

    #[test]
    fn both_ends_lie_on_the_axis(a in number(), b in number()) {
        let axis = Axis::spanning(a, b);
        for value in [a, b] {
            let at = axis.position(value).unwrap();
            prop_assert!((0.0..=1.0).contains(&at), "{value} at {at} on {axis:?}");
        }
        let (at_a, at_b) = (axis.position(a).unwrap(), axis.position(b).unwrap());
        prop_assert!((a < b) <= (at_a <= at_b));
    }
}
