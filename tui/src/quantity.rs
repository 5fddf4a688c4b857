//! Numbers as people read them.

use std::borrow::Cow;

use search::metric::{Facts, Form, Metric};
use search::objective::Objective;
use search::value::Value;

/// What a value is called on screen, by its name in the store.
pub fn title(name: &str) -> Cow<'_, str> {
    called(name, |facts| facts.title)
}

/// What a value is called on an axis, where there is room for its unit.
pub fn axis_title(name: &str) -> Cow<'_, str> {
    called(name, |facts| facts.axis)
}

/// What stands behind a number.
pub fn unit(name: &str) -> Cow<'_, str> {
    called(name, |facts| facts.unit)
}

/// By the table of metrics, with the target behind it where it is one's; another value is called by its name.
fn called(name: &str, word: impl Fn(Facts) -> &'static str) -> Cow<'_, str> {
    match Metric::of(name) {
        Some((metric, Some(target))) => format!("{} ({target})", word(metric.facts())).into(),
        Some((metric, None)) => word(metric.facts()).into(),
        None => name.into(),
    }
}

/// What an objective is called in headings: with an arrow where more of it is better.
pub fn objective_title(objective: &Objective) -> String {
    let arrow = if objective.is_maximised() { " ↑" } else { "" };
    format!("{}{arrow}", title(objective.name()))
}

/// Four significant digits, without an exponent where that is readable: `0.1234`, `2.314`, `187.2`, `12840`.
pub fn significant(x: f64) -> String {
    if !x.is_finite() {
        return "–".to_owned();
    }
    if x == 0.0 {
        return "0".to_owned();
    }
    let magnitude = x.abs().log10().floor();
    if (-4.0..9.0).contains(&magnitude) {
        let decimals = (3.0 - magnitude).clamp(0.0, 7.0) as usize;
        format!("{x:.decimals$}")
    } else {
        format!("{x:.3e}")
    }
}

/// `1.24 M`: three digits and a decimal prefix.
pub fn scaled(x: f64) -> String {
    prefixed(x, &["", "k", "M", "G", "T", "P"])
}

/// `98.3 kB`: three digits, decimal prefixes.
pub fn bytes(x: f64) -> String {
    prefixed(x, &["B", "kB", "MB", "GB", "TB", "PB"])
}

fn prefixed(x: f64, units: &[&str]) -> String {
    if !x.is_finite() {
        return "–".to_owned();
    }
    let mut x = x;
    let mut unit = 0;
    // 999.5 is shown as 1.00 of the next unit, not as 1000 of this one.
    while x.abs() >= 999.5 && unit + 1 < units.len() {
        x /= 1000.0;
        unit += 1;
    }
    let number = if x.abs() >= 1e6 {
        format!("{x:.2e}")
    } else if unit == 0 || x.abs() >= 99.95 {
        format!("{x:.0}")
    } else if x.abs() >= 9.995 {
        format!("{x:.1}")
    } else {
        format!("{x:.2}")
    };
    format!("{number} {}", units[unit]).trim_end().to_owned()
}

/// `2.314 ±0.006`: the error has one digit, two when the first is a 1, and the mean as many decimals.
pub fn measured(value: Value) -> String {
    let Value { mean, standard_error } = value;
    match standard_error {
        // Less than that is rounding.
        Some(error) if error > 1e-12 * mean.abs() && error.is_finite() && mean.is_finite() => {
            let magnitude = error.log10().floor();
            let leading = error / 10f64.powf(magnitude);
            let decimals =
                (if leading < 1.95 { 1.0 } else { 0.0 } - magnitude).clamp(0.0, 9.0) as usize;
            if mean.abs() >= 1e9 || error >= 1e9 {
                format!("{} ±{}", significant(mean), significant(error))
            } else {
                format!("{mean:.decimals$} ±{error:.decimals$}")
            }
        }
        _ => significant(mean),
    }
}

/// A value by its name: parameters and bytes with prefixes, all else as measured.
pub fn named(name: &str, value: Value) -> String {
    match Form::of(name) {
        Form::Bytes => bytes(value.mean),
        Form::Scaled => scaled(value.mean),
        Form::Measured => measured(value),
    }
}

/// `48 s`, `6 min 03 s`, `2 h 05 min`, `3 d 4 h`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "–".to_owned();
    }
    let s = seconds.round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {:02} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// Shortens to `width` characters, the last of which is then `…`.
pub fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        short.push('…');
    }
    short
}
