//! The width at which a reference stack is as fast as another stack, found by timing few widths.

use super::shape::ReferenceShape;
use super::stack::Reference;
use crate::architecture::Architecture;

/// Timings until the nearest is taken.
const TIMINGS: usize = 10;
/// A stack within this part of the wanted latency is as fast.
const NEAR: f64 = 0.02;
/// How the latency is expected to grow with the width, between the vectors' and the matrices' share.
const POWER: f64 = 1.5;
/// Narrowest and widest scale that is tried.
const SCALES: (f64, f64) = (1.0 / 64.0, 64.0);

/// A search for the scale of a shape: ask for the next stack to time ([`Self::ask`]), tell its latency ([`Self::tell`]).
///
/// A wider stack is slower but for noise: the scale that is wanted lies between the widest that was too fast and the
/// narrowest that was too slow.
#[derive(Debug, Clone)]
pub struct EqualLatency {
    reference: Reference,
    shape: ReferenceShape,
    wanted_us: f64,
    scale: f64,
    /// Scales known to be too narrow, and too wide.
    bounds: (f64, f64),
    /// Each stack that was timed, with its latency in µs.
    timed: Vec<(Architecture, f64)>,
}

impl EqualLatency {
    /// Of `reference`, from `shape` on, for a latency above 0.
    pub fn new(reference: Reference, shape: ReferenceShape, wanted_us: f64) -> Self {
        Self { reference, shape, wanted_us, scale: 1.0, bounds: SCALES, timed: Vec::new() }
    }

    /// The stack to time next; none when the nearest is found.
    pub fn ask(&mut self) -> Option<Architecture> {
        let is_near = |(_, us): &(Architecture, f64)| self.error(*us).abs() <= NEAR.ln_1p();
        if self.timed.len() >= TIMINGS || self.timed.iter().any(is_near) {
            return None;
        }
        // Scales that round to a stack that was timed need no timing.
        for _ in 0..2 * TIMINGS {
            let stack = self.reference.build(&self.shape.scaled(self.scale)).ok()?;
            let Some((_, us)) = self.timed.iter().find(|(timed, _)| *timed == stack) else {
                return Some(stack);
            };
            self.narrow(*us);
        }
        None
    }

    /// The latency of the stack that [`Self::ask`] gave.
    pub fn tell(&mut self, stack: Architecture, us: f64) {
        self.timed.push((stack, us));
        self.narrow(us);
    }

    /// The stack nearest to the latency, and its own.
    pub fn nearest(&self) -> Option<&(Architecture, f64)> {
        self.timed.iter().min_by(|a, b| self.error(a.1).abs().total_cmp(&self.error(b.1).abs()))
    }

    /// Logarithm of a latency over the wanted one.
    fn error(&self, us: f64) -> f64 {
        (us / self.wanted_us).ln()
    }

    /// Moves to the next scale after one that took `us`.
    fn narrow(&mut self, us: f64) {
        let error = self.error(us);
        if error > 0.0 {
            self.bounds.1 = self.bounds.1.min(self.scale);
        } else {
            self.bounds.0 = self.bounds.0.max(self.scale);
        }
        let (low, high) = self.bounds;
        let guess = self.scale * (-error / POWER).exp();
        // A guess next to a bound would creep.
        let (least, most) = (low * (high / low).powf(0.1), high * (low / high).powf(0.1));
        let has_both = low > SCALES.0 && high < SCALES.1;
        self.scale = if has_both && !(least..=most).contains(&guess) {
            (low * high).sqrt()
        } else {
            guess.clamp(low, high)
        };
    }
}
