//! The training rule: what each tensor takes of the base learning rate, and how large it is at the start, so that one
//! base rate serves every mixer, width and depth. How it was found: `docs/studies/training-rule.md`.
//!
//! Sizes and rates of matrices follow their fan-in as muP has it for Adam (arXiv 2203.03466, table 8; for Gated DeltaNet
//! arXiv 2606.04048): an update of Adam is about as large as its rate in every element and points where the inputs point,
//! so that a sum over n inputs moves by n times the rate.

use operators::INITIAL_STD;
use search::Architecture;
use search::architecture::{Layer, Mixer};
use search::config::{LearningRate, TrainingConfig};
use search::tensors::{Role, TensorSpec};

/// The base learning rate of `learning_rate = "auto"`.
pub const BASE_RATE: f64 = 2e-3;

/// Of this rule among those that there were: a training goes on under the rule that it began under, or not at all.
pub const NUMBER: u32 = 1;

/// The number of inputs at which a matrix takes the base rate as it is.
const REFERENCE_INPUTS: f64 = 256.0;

/// Size of the matrices that write to the residual stream, over that of other matrices and the root of the branches.
const WRITER: f64 = 0.25;

/// Rates of vectors and convolutions, which no number of inputs scales.
const VECTOR_RATE: f64 = 0.5;

/// Rates of attention's matrices.
const ATTENTION_RATE: f64 = 0.5;

/// What is special about one tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Factors {
    /// Of the initial values that `operators` gives it.
    pub initial: f64,
    /// Of the base learning rate.
    pub rate: f64,
}

impl Factors {
    /// Nothing is.
    pub const ONE: Self = Self { initial: 1.0, rate: 1.0 };
}

/// The factors of each tensor.
pub type Rule<'a> = &'a dyn Fn(&TensorSpec) -> Factors;

/// The rule.
pub fn factors(spec: &TensorSpec, architecture: &Architecture) -> Factors {
    let inputs = spec.shape[spec.shape.len() - 1] as f64;
    let width = f64::from(architecture.d_model());
    let of_std = |std: f64| std / INITIAL_STD;
    match spec.role {
        Role::Reader | Role::Inner => Factors {
            initial: of_std(inputs.powf(-0.5)),
            rate: REFERENCE_INPUTS / inputs * of_mixer(spec, architecture),
        },
        // Small beside the embeddings, so that a stack begins as a model of single tokens, and smaller the more sum up.
        Role::Writer => Factors {
            initial: of_std(WRITER * (inputs * branches(architecture)).powf(-0.5)),
            rate: REFERENCE_INPUTS / inputs * of_mixer(spec, architecture),
        },
        // A tied embedding is a head, too: between the constant rate of the one and the 1/width of the other.
        Role::Embedding | Role::MetaTokens | Role::Head => {
            Factors { initial: of_std(width.powf(-0.5)), rate: (REFERENCE_INPUTS / width).sqrt() }
        }
        Role::ConvWeight
        | Role::ConvBias
        | Role::NormWeight
        | Role::ALog
        | Role::DtBias
        | Role::SkipD
        | Role::LevelScale => Factors { initial: 1.0, rate: VECTOR_RATE },
    }
}

/// Of the rates of a mixer's matrices: attention, whose scores grow with the product of two of them, takes half.
fn of_mixer(spec: &TensorSpec, architecture: &Architecture) -> f64 {
    let layer = spec.name.strip_prefix("layers.").and_then(|rest| rest.split_once(".mixer."));
    let layer = layer.and_then(|(layer, _)| layer.parse::<usize>().ok());
    let mixer = layer.and_then(|layer| architecture.layers()[layer].mixer);
    if matches!(mixer, Some(Mixer::Attention(_))) { ATTENTION_RATE } else { 1.0 }
}

/// Terms that the residual stream sums.
fn branches(architecture: &Architecture) -> f64 {
    let of_layer =
        |layer: &Layer| u32::from(layer.mixer.is_some()) + u32::from(layer.ffn_width.is_some());
    f64::from(architecture.layers().iter().map(of_layer).sum::<u32>())
}

/// The peak of the base rate.
pub(crate) fn base_rate(config: &TrainingConfig) -> f64 {
    match config.learning_rate {
        LearningRate::Auto => BASE_RATE,
        LearningRate::Base(rate) => rate,
    }
}
