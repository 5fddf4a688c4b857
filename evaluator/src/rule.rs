//! The training rule: what each tensor takes of the base learning rate, how large it is at the start and how it moves, so
//! that one base rate serves every mixer, width and depth. How it was found: `docs/studies/training-rule.md`.
//!
//! Initial sizes of matrices follow their fan-in (muP, arXiv 2203.03466, table 8). Matrices move by Muon, 64 units at a
//! time; everything moves less the wider and the deeper a stack is.

use operators::INITIAL_STD;
use operators::ops::optimizer::Units;
use search::Architecture;
use search::architecture::Layer;
use search::tensors::{Role, TensorSpec};

/// Of this rule among those that there were: a training goes on under the rule that it began under, or not at all.
pub const NUMBER: u32 = search::config::TRAINING_RULE;

/// The width, or number of inputs, at which the base rate is taken as it is, …
const REFERENCE_WIDTH: f64 = 256.0;

/// … and the terms that the residual stream sums there.
const REFERENCE_BRANCHES: f64 = 12.0;

/// Size of the matrices that write to the residual stream, over that of other matrices and the root of the branches.
const WRITER: f64 = 0.25;

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
    let branches = branches(architecture);
    let of_stack = (REFERENCE_WIDTH / width * REFERENCE_BRANCHES / branches).sqrt();
    let matrix = |std: f64, units: Units| Factors {
        initial: std / INITIAL_STD,
        rate: of_stack * (REFERENCE_WIDTH / inputs).sqrt(),
        orthogonal: Some(units),
    };
    match spec.role {
        Role::Reader | Role::Inner => matrix(inputs.powf(-0.5), Units::Rows),
        // Small beside the embeddings, so that a stack begins as a model of single tokens, and smaller the more sum up.
        Role::Writer => matrix(WRITER * (inputs * branches).powf(-0.5), Units::Columns),
        Role::Embedding | Role::MetaTokens | Role::Head => Factors {
            initial: width.powf(-0.5) / INITIAL_STD,
            rate: of_stack * (REFERENCE_WIDTH / width).sqrt(),
            orthogonal: None,
        },
        Role::ConvWeight
        | Role::ConvBias
        | Role::NormWeight
        | Role::ALog
        | Role::DtBias
        | Role::SkipD
        | Role::LevelScale => {
            Factors { initial: 1.0, rate: of_stack * VECTOR_RATE, orthogonal: None }
        }
    }
}

/// Terms that the residual stream sums.
fn branches(architecture: &Architecture) -> f64 {
    let of_layer =
        |layer: &Layer| u32::from(layer.mixer.is_some()) + u32::from(layer.ffn_width.is_some());
    f64::from(architecture.layers().iter().map(of_layer).sum::<u32>()).max(1.0)
}
