//! Why a target does not hold a stack.

use crate::architecture::{Architecture, Layer};

/// Something of a stack that a target cannot hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// The layers, from 0; none: the whole model.
    pub layers: Vec<usize>,
    /// What they have.
    pub what: String,
    /// What they would have to have; none: nothing near it would do.
    pub change: Option<String>,
}

impl Obstacle {
    /// Of the layers that `has` is true of; none where it is of no layer.
    pub(super) fn of_layers(
        stack: &Architecture,
        what: impl Into<String>,
        change: Option<&str>,
        has: impl Fn(&Layer) -> bool,
    ) -> Option<Self> {
        let layers: Vec<usize> =
            stack.layers().iter().enumerate().filter(|(_, l)| has(l)).map(|(i, _)| i).collect();
        let change = change.map(str::to_owned);
        (!layers.is_empty()).then(|| Self { layers, what: what.into(), change })
    }

    /// Of the whole model.
    pub(super) fn of_model(what: impl Into<String>, change: Option<&str>) -> Self {
        Self { layers: Vec::new(), what: what.into(), change: change.map(str::to_owned) }
    }

    /// One line: which layers, what they have, what would do.
    pub fn text(&self) -> String {
        let place = match self.layers.as_slice() {
            [] => String::new(),
            [one] => format!("layer {one}: "),
            several => format!("layers {}: ", spans(several)),
        };
        let change = self.change.as_ref().map_or(String::new(), |change| format!("; {change}"));
        format!("{place}{}{change}", self.what)
    }
}

/// Ascending numbers as people write them: `0–2, 5`.
fn spans(numbers: &[usize]) -> String {
    let mut spans: Vec<(usize, usize)> = Vec::new();
    for &n in numbers {
        match spans.last_mut() {
            Some((_, last)) if *last + 1 == n => *last = n,
            _ => spans.push((n, n)),
        }
    }
    let span = |&(first, last): &(usize, usize)| {
        if first == last { first.to_string() } else { format!("{first}–{last}") }
    };
    spans.iter().map(span).collect::<Vec<_>>().join(", ")
}
