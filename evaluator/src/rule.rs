//! The training rule: what each tensor takes of the base learning rate, how large it is at the start and how it moves, so
//! that one base rate serves every mixer, width and depth. How it was found: `docs/studies/training-rule.md`.
//!
//! Sizes and rates of matrices follow their fan-in as muP has it for Adam (arXiv 2203.03466, table 8; for Gated DeltaNet
//! arXiv 2606.04048): an update of Adam is about as large as its rate in every element and points where the inputs point,
//! so that a sum over n inputs moves by n times the rate. Attention's matrices move by Muon: under AdamW attention learns
//! to look back far later than the other mixers learn anything.

use operators::INITIAL_STD;
use search::Architecture;
use search::architecture::{Layer, Mixer};
use search::config::{LearningRate, TrainingConfig};
use search::tensors::{Role, TensorSpec};

use crate::schedule::tokens_per_step;

/// The base learning rate of `learning_rate = "auto"` at 2¹¹ tokens a step and 2²⁰ tokens in all.
pub const BASE_RATE: f64 = 2e-3;

/// Of this rule among those that there were: a training goes on under the rule that it began under, or not at all.
pub const NUMBER: u32 = 1;

/// The number of inputs at which a matrix takes the base rate as it is.
const REFERENCE_INPUTS: f64 = 256.0;

/// Size of the matrices that write to the residual stream, over that of other matrices and the root of the branches.
const WRITER: f64 = 0.25;

/// Rates of vectors and convolutions, which no number of inputs scales.
const VECTOR_RATE: f64 = 0.5;

/// Rates of attention's matrices, of as many inputs as above: of Muon, whose steps are 0.2 in root mean square.
const ATTENTION_RATE: f64 = 2.0;

/// What is special about one tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Factors {
    /// Of the initial values that `operators` gives it.
    pub initial: f64,
    /// Of the base learning rate.
    pub rate: f64,
    /// Whether it is a matrix that moves by Muon instead of AdamW.
    pub orthogonal: bool,
}

impl Factors {
    /// Nothing is.
    pub const ONE: Self = Self { initial: 1.0, rate: 1.0, orthogonal: false };
}

/// The factors of each tensor.
pub type Rule<'a> = &'a dyn Fn(&TensorSpec) -> Factors;

/// The rule.
pub fn factors(spec: &TensorSpec, architecture: &Architecture) -> Factors {
    let inputs = spec.shape[spec.shape.len() - 1] as f64;
    let width = f64::from(architecture.d_model());
    let of_matrix = |std: f64| {
        let initial = std / INITIAL_STD;
        let of_inputs = REFERENCE_INPUTS / inputs;
        if is_of_attention(spec, architecture) {
            // an orthogonal matrix has no direction in which all inputs add up: the root is enough
            Factors { initial, rate: ATTENTION_RATE * of_inputs.sqrt(), orthogonal: true }
        } else {
            Factors { initial, rate: of_inputs, orthogonal: false }
        }
    };
    match spec.role {
        Role::Reader | Role::Inner => of_matrix(inputs.powf(-0.5)),
        // Small beside the embeddings, so that a stack begins as a model of single tokens, and smaller the more sum up.
        Role::Writer => of_matrix(WRITER * (inputs * branches(architecture)).powf(-0.5)),
        // A tied embedding is a head, too: between the constant rate of the one and the 1/width of the other.
        Role::Embedding | Role::MetaTokens | Role::Head => Factors {
            initial: width.powf(-0.5) / INITIAL_STD,
            rate: (REFERENCE_INPUTS / width).sqrt(),
            orthogonal: false,
        },
        Role::ConvWeight
        | Role::ConvBias
        | Role::NormWeight
        | Role::ALog
        | Role::DtBias
        | Role::SkipD
        | Role::LevelScale => Factors { initial: 1.0, rate: VECTOR_RATE, orthogonal: false },
    }
}

/// Whether the tensor is inside an attention mixer, full or over a window.
fn is_of_attention(spec: &TensorSpec, architecture: &Architecture) -> bool {
    let layer = spec.name.strip_prefix("layers.").and_then(|rest| rest.split_once(".mixer."));
    let layer = layer.and_then(|(layer, _)| layer.parse::<usize>().ok());
    let mixer = layer.and_then(|layer| architecture.layers()[layer].mixer);
    matches!(mixer, Some(Mixer::Attention(_)))
}

/// Terms that the residual stream sums.
fn branches(architecture: &Architecture) -> f64 {
    let of_layer =
        |layer: &Layer| u32::from(layer.mixer.is_some()) + u32::from(layer.ffn_width.is_some());
    f64::from(architecture.layers().iter().map(of_layer).sum::<u32>())
}

/// The peak of the base rate. What `"auto"` means grows with the root of the tokens of a step, by which the gradient's
/// noise falls (arXiv 2205.10287), and falls with the fourth root of all tokens (arXiv 2409.19913 finds 0.32 for their
/// power).
pub(crate) fn base_rate(config: &TrainingConfig) -> f64 {
    match config.learning_rate {
        LearningRate::Base(rate) => rate,
        LearningRate::Auto => {
            let (step, all) = (tokens_per_step(config) as f64, config.tokens.max(1) as f64);
            BASE_RATE * (step / 2048.0).sqrt() * (all / 1_048_576.0).powf(-0.25)
        }
    }
}
