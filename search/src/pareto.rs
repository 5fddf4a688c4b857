//! Pareto mathematics on finite, minimised objectives: dominance, non-dominated sorting, crowding, hypervolume.
//!
//! A value that is not finite cannot become [`Objectives`], so it cannot enter a front.

mod frontier;
mod hypervolume;
mod scale;
mod sorting;

pub use frontier::Frontier;
pub use hypervolume::hypervolume;
pub use scale::{Scale, ScaledAxis};
use smallvec::SmallVec;

pub use sorting::{crowding_distances, front, ranks};

/// The values of one candidate, all finite, all minimised, and none so large or so small that the arithmetic on four of
/// them leaves the doubles: beyond 10⁷⁵ values are equally large, below 10⁻⁷⁵ they are 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Objectives(SmallVec<[f64; 4]>);

/// A value that has no place in a front.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("objective {index} must be finite, got {value}")]
pub struct NotFinite {
    /// Index of the objective, from 0.
    pub index: usize,
    /// What it was.
    pub value: f64,
}

impl Objectives {
    /// Checks that all values are finite, and brings them where doubles are at ease. Negative zero becomes zero, so that
    /// equal values have equal bits.
    ///
    /// # Errors
    /// Names the first value that is NaN or infinite.
    pub fn new(values: impl IntoIterator<Item = f64>) -> Result<Self, NotFinite> {
        let mut values: SmallVec<[f64; 4]> = values.into_iter().collect();
        for (index, value) in values.iter_mut().enumerate() {
            if !value.is_finite() {
                return Err(NotFinite { index, value: *value });
            }
            *value = at_ease(*value) + 0.0;
        }
        Ok(Self(values))
    }

    /// The values.
    pub fn values(&self) -> &[f64] {
        &self.0
    }

    /// Whether it has at most two objectives: a point behind another in lexicographic order is then dominated by one of the
    /// front, if at all, by the last before it.
    fn is_in_a_plane(&self) -> bool {
        self.0.len() <= 2
    }

    /// Whether this is nowhere worse than `other` and somewhere better. Equal values do not dominate each other.
    pub fn dominates(&self, other: &Self) -> bool {
        debug_assert_eq!(self.0.len(), other.0.len());
        let mut better = false;
        for (a, b) in self.0.iter().zip(&other.0) {
            if a > b {
                return false;
            }
            better |= a < b;
        }
        better
    }
}

fn at_ease(value: f64) -> f64 {
    const MOST: f64 = 1e75;
    if value.abs() < MOST.recip() { 0.0 } else { value.clamp(-MOST, MOST) }
}
