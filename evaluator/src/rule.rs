//! The training rule: what each tensor takes of the base learning rate, how large it is at the start and how it moves, so
//! that one base rate serves every mixer, width and depth. How it was found: `docs/studies/training-rule.md`.
//!
//! How large it is at the start is [`search::initial`]'s. Matrices move by Muon, 64 units at a time; everything moves less
//! the wider and the deeper a stack is.

use operators::ops::optimizer::Units;
use search::Architecture;
use search::initial;
use search::tensors::{Role, TensorSpec};

/// Of this rule among those that there were: a training goes on under the rule that it began under, or not at all.
pub const NUMBER: u32 = search::config::TRAINING_RULE;

/// The width, or number of inputs, at which the base rate is taken as it is, …
const REFERENCE_WIDTH: f64 = 256.0;

/// … and the terms that the residual stream sums there.
const REFERENCE_BRANCHES: f64 = 12.0;

/// Rates of vectors and convolutions, which no number of inputs scales.
const VECTOR_RATE: f64 = 0.5;

/// What is special about one tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Factors {
    /// Of the initial values that `operators` gives it.
    pub initial: f64,
    /// Of the base learning rate.
    pub rate: f64,
    /// The units of a matrix that moves by Muon; none: it moves by AdamW.
    pub orthogonal: Option<Units>,
}

impl Factors {
    /// Nothing is.
    pub const ONE: Self = Self { initial: 1.0, rate: 1.0, orthogonal: None };
}

/// The factors of each tensor.
pub type Rule<'a> = &'a dyn Fn(&TensorSpec) -> Factors;

/// The rule.
pub fn factors(spec: &TensorSpec, architecture: &Architecture) -> Factors {
    let inputs = spec.shape[spec.shape.len() - 1] as f64;
    let width = f64::from(architecture.d_model());
    let initial = initial::factor(spec, architecture);
    let of_stack = (REFERENCE_WIDTH / width * REFERENCE_BRANCHES / architecture.branches()).sqrt();
    let matrix = |units: Units| Factors {
        initial,
        rate: of_stack * (REFERENCE_WIDTH / inputs).sqrt(),
        orthogonal: Some(units),
    };
    match spec.role {
        Role::Reader | Role::Inner => matrix(Units::Rows),
        Role::Writer => matrix(Units::Columns),
        Role::Embedding | Role::MetaTokens | Role::Head => {
            Factors { initial, rate: of_stack * (REFERENCE_WIDTH / width).sqrt(), orthogonal: None }
        }
        Role::ConvWeight
        | Role::ConvBias
        | Role::NormWeight
        | Role::ALog
        | Role::DtBias
        | Role::SkipD
        | Role::LevelScale
        | Role::PhaseScale
        | Role::Bias
        | Role::Temperature => Factors { initial, rate: of_stack * VECTOR_RATE, orthogonal: None },
    }
}
