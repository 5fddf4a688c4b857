//! An axis: its range, whether it is logarithmic, where a value falls, and ticks at round numbers.

/// A range of values along one side of a plot.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Axis {
    lo: f64,
    hi: f64,
    log: bool,
    /// Whether the largest value stands at the start.
    reversed: bool,
    /// Whether ticks stand at whole numbers only.
    whole: bool,
}

/// A labelled position.
#[derive(Debug, Clone, PartialEq)]
pub struct Tick {
    /// The value.
    pub value: f64,
    /// What is written beside it.
    pub label: String,
}

/// Part of the range left free beyond the first and the last value.
const MARGIN: f64 = 0.05;

impl Axis {
    /// An axis on which `lo` and `hi` both lie, with a small margin; logarithmic when they are positive and more than
    /// a decade apart. Values that are not finite give the axis from 0 to 1.
    pub fn spanning(lo: f64, hi: f64) -> Self {
        match at_ease(lo, hi) {
            Some((lo, hi)) if lo > 0.0 && hi / lo > 10.0 => {
                let margin = (hi / lo).powf(MARGIN);
                Self { lo: lo / margin, hi: hi * margin, log: true, reversed: false, whole: false }
            }
            _ => Self::linear(lo, hi),
        }
    }

    /// The same, but linear over decades too: for what is counted.
    pub fn linear(lo: f64, hi: f64) -> Self {
        let Some((lo, hi)) = at_ease(lo, hi) else {
            return Self { lo: 0.0, hi: 1.0, log: false, reversed: false, whole: false };
        };
        // A range that doubles cannot resolve, or none at all, is widened around the values.
        let least = (lo.abs().max(hi.abs()) * 1e-6).max(1e-200);
        let margin = if hi - lo > least {
            (hi - lo) * MARGIN
        } else if hi == 0.0 && lo == 0.0 {
            1.0
        } else {
            lo.abs().max(hi.abs()) * MARGIN
        };
        Self { lo: lo - margin, hi: hi + margin, log: false, reversed: false, whole: false }
    }

    /// An axis of a count, from `first` to `last`.
    pub(super) fn counting(first: u32, last: u32) -> Self {
        Self { whole: true, ..Self::linear(f64::from(first), f64::from(last)) }
    }

    /// The same from its largest value to its smallest: for values of which more is better.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { reversed: !self.reversed, ..self }
    }

    /// Whether equal distances are equal ratios.
    pub fn is_log(&self) -> bool {
        self.log
    }

    /// Smallest and largest value.
    pub fn range(&self) -> (f64, f64) {
        (self.lo, self.hi)
    }

    /// Where a value falls: 0 at the start, 1 at the end, outside that beyond them; `None` when it has no place.
    pub fn position(&self, value: f64) -> Option<f64> {
        let at = if self.log {
            (value.ln() - self.lo.ln()) / (self.hi.ln() - self.lo.ln())
        } else {
            (value - self.lo) / (self.hi - self.lo)
        };
        let at = if self.reversed { 1.0 - at } else { at };
        at.is_finite().then_some(at)
    }

    /// At most `most` ticks at round values within the range, from the start of the axis on, all labels different.
    pub fn ticks(&self, most: usize) -> Vec<Tick> {
        if most == 0 {
            return Vec::new();
        }
        let mut ticks = if self.log { self.log_ticks(most) } else { self.linear_ticks(most) };
        if self.reversed {
            ticks.reverse();
        }
        ticks
    }

    fn linear_ticks(&self, most: usize) -> Vec<Tick> {
        let range = self.hi - self.lo;
        let mut exponent = (range / most as f64).log10().floor() as i32 - 1;
        if self.whole {
            exponent = exponent.max(0);
        }
        loop {
            for digit in [1.0, 2.0, 5.0] {
                let step = digit * 10f64.powi(exponent);
                let (first, last) = ((self.lo / step).ceil(), (self.hi / step).floor());
                if last - first + 1.0 <= most as f64 {
                    return (0..=(last - first).max(-1.0) as i64)
                        .filter(|_| last >= first)
                        .map(|i| {
                            let value = (first + i as f64) * step;
                            Tick {
                                value,
                                label: linear_label(
                                    value,
                                    exponent,
                                    self.lo.abs().max(self.hi.abs()),
                                ),
                            }
                        })
                        .collect();
                }
            }
            exponent += 1;
        }
    }

    fn log_ticks(&self, most: usize) -> Vec<Tick> {
        let (first, last) = (self.lo.log10().floor() as i32, self.hi.log10().ceil() as i32);
        let digits: [&[f64]; 4] = [&[1.0, 2.0, 3.0, 5.0], &[1.0, 2.0, 5.0], &[1.0, 3.0], &[1.0]];
        let at = |digits: &[f64], every: i32| -> Vec<f64> {
            (first..=last)
                .filter(|exponent| exponent.rem_euclid(every) == 0)
                .flat_map(|exponent| digits.iter().map(move |digit| digit * 10f64.powi(exponent)))
                .filter(|value| (self.lo..=self.hi).contains(value))
                .collect()
        };
        let decades = last - first + 1;
        let values = digits
            .iter()
            .map(|digits| at(digits, 1))
            .chain((2..=decades.max(2)).map(|every| at(&[1.0], every)))
            .find(|values| values.len() <= most)
            .unwrap_or_default();
        values.into_iter().map(|value| Tick { value, label: log_label(value) }).collect()
    }
}

/// The ends in their order; none when one is not finite. What is next to nothing, or too large for the arithmetic of axes,
/// is drawn where doubles are at ease.
fn at_ease(lo: f64, hi: f64) -> Option<(f64, f64)> {
    let at_ease = |x: f64| if x.abs() < 1e-200 { 0.0 } else { x.clamp(-1e200, 1e200) };
    (lo.is_finite() && hi.is_finite()).then(|| (at_ease(lo.min(hi)), at_ease(hi.max(lo))))
}

/// As many decimals as the step has; a common prefix when every step is a multiple of it.
fn linear_label(value: f64, exponent: i32, largest: f64) -> String {
    // Rounding may leave −0.
    let value = if value == 0.0 { 0.0 } else { value };
    if largest >= 1e12 || exponent < -6 {
        let digits = (largest.log10().floor() as i32 - exponent).clamp(0, 16) as usize;
        return if value == 0.0 { "0".to_owned() } else { format!("{value:.digits$e}") };
    }
    let prefixes = [("G", 9, 1e9), ("M", 6, 1e6), ("k", 3, 1e4)];
    if let Some((prefix, power, _)) =
        prefixes.into_iter().find(|(_, power, from)| largest >= *from && exponent + 2 >= *power)
    {
        let decimals = (power - exponent).max(0) as usize;
        let prefix = if value == 0.0 { "" } else { prefix };
        return format!("{:.decimals$}{prefix}", value / 10f64.powi(power));
    }
    let decimals = (-exponent).max(0) as usize;
    format!("{value:.decimals$}")
}

fn log_label(value: f64) -> String {
    if !(1e-4..1e12).contains(&value) {
        return format!("{value:.0e}");
    }
    for (prefix, power) in [("G", 9), ("M", 6), ("k", 3)] {
        if value >= 0.999_999 * 10f64.powi(power) {
            return format!("{:.0}{prefix}", value / 10f64.powi(power));
        }
    }
    let decimals = (-(value.log10() + 1e-9).floor()).max(0.0) as usize;
    format!("{value:.decimals$}")
}
