//! The terms of the law, and what it is fitted to.

use serde::Serialize;

/// One training of a stack.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// Which stack: trainings of one stack err together.
    pub stack: u32,
    /// D, layers.
    pub depth: u32,
    /// W, width of the residual stream.
    pub width: u32,
    /// N, tokens.
    pub tokens: u64,
    /// L.
    pub loss: f64,
}

impl Observation {
    pub(super) fn ln_depth(&self) -> f64 {
        f64::from(self.depth).ln()
    }

    pub(super) fn ln_width(&self) -> f64 {
        f64::from(self.width).ln()
    }
}

/// The law; D, W and N as they are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Law {
    /// L0, what no depth and width take away.
    pub floor: f64,
    /// a and α.
    pub depth: Power,
    /// b and β.
    pub width: Power,
    /// c and γ; none: all trainings are of one length, and L0 holds what more data would take away.
    pub tokens: Option<Power>,
}

/// factor · x^−exponent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Power {
    /// Its value at 1.
    pub factor: f64,
    /// How fast it falls.
    pub exponent: f64,
}

impl Power {
    /// Its value at `x`.
    pub fn at(self, x: f64) -> f64 {
        self.factor * x.powf(-self.exponent)
    }
}

impl Law {
    /// The loss of a stack.
    pub fn at(&self, depth: f64, width: f64, tokens: f64) -> f64 {
        let data = self.tokens.map_or(0.0, |power| power.at(tokens));
        self.floor + self.depth.at(depth) + self.width.at(width) + data
    }
}
