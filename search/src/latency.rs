//! What is timed and how an architecture's latency is composed from it: the keys and entries of the latency table.
//!
//! The profiler measures a [`LatencyKey`]; the store keeps the [`LatencyEntry`]; [`parts`] says which keys an
//! architecture needs, and its latency is their sum.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::architecture::{Architecture, Mixer};

/// The element type of weights and activations. States are fp32 whatever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Dtype {
    /// IEEE single precision.
    #[serde(rename = "fp32")]
    F32,
    /// bfloat16.
    #[serde(rename = "bf16")]
    Bf16,
}

impl Dtype {
    /// Bytes of an element.
    pub fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "fp32",
            Self::Bf16 => "bf16",
        })
    }
}

/// A part of a model that is timed by itself. Blocks include their pre-norm and their residual addition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "part", rename_all = "snake_case")]
pub enum Part {
    /// `x += mixer(norm(x))`.
    Mixer {
        /// Width of the residual stream.
        d_model: u32,
        /// The mixer and its shape.
        mixer: Mixer,
    },
    /// `x += ffn(norm(x))`.
    Ffn {
        /// Width of the residual stream.
        d_model: u32,
        /// Hidden width of the SwiGLU.
        width: u32,
    },
    /// Embedding row, final norm and logits (of the last position only in prefill).
    Head {
        /// Width of the residual stream.
        d_model: u32,
        /// Number of tokens in the vocabulary.
        vocab: u32,
    },
}

/// What the timed model does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// One token for every sequence of the batch, `context` positions already seen.
    Decode {
        /// Positions already seen.
        context: u32,
    },
    /// A prompt of `tokens` positions from an empty state.
    Prefill {
        /// Prompt length.
        tokens: u32,
    },
}

/// The conditions of a timing, all of which change it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Conditions {
    /// The device by name, as the profiler reports it (`cpu: AMD EPYC`).
    pub device: String,
    /// Element type of weights and activations.
    pub dtype: Dtype,
    /// Sequences at once.
    pub batch: u32,
    /// CPU threads; 0 on a GPU.
    pub threads: u32,
    /// Decode or prefill.
    #[serde(flatten)]
    pub phase: Phase,
}

/// One row of the latency table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct LatencyKey {
    /// What is timed.
    #[serde(flatten)]
    pub part: Part,
    /// Under which conditions.
    #[serde(flatten)]
    pub conditions: Conditions,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mixer { d_model, mixer } => write!(f, "d={d_model} {mixer}"),
            Self::Ffn { d_model, width } => write!(f, "d={d_model} ffn({width})"),
            Self::Head { d_model, vocab } => write!(f, "d={d_model} head({vocab})"),
        }
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.phase {
            Phase::Decode { context } => write!(f, "decode at {context}")?,
            Phase::Prefill { tokens } => write!(f, "prefill of {tokens}")?,
        }
        write!(
            f,
            ", batch {}, {}, {} threads, {}",
            self.batch, self.dtype, self.threads, self.device
        )
    }
}

/// The canonical text, which is the key in the store.
impl fmt::Display for LatencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.part, self.conditions)
    }
}

/// A measured time with what is needed to trust it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Timing {
    /// Median over the samples, µs.
    pub median_us: f64,
    /// Half the interquartile range over the samples, µs.
    pub spread_us: f64,
    /// Number of samples.
    pub samples: u32,
    /// Share of the machine that other processes used while this was measured, 0 to 1.
    pub other_load: f64,
    /// Version of the kernels that ran.
    pub kernels: String,
}

impl Timing {
    /// Above this load from other processes a timing is measured again, and marked if it stays so.
    pub const QUIET_LOAD: f64 = 0.05;

    /// Whether other processes disturbed the measurement.
    pub fn is_disturbed(&self) -> bool {
        self.other_load > Self::QUIET_LOAD
    }
}

/// A row of the latency table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LatencyEntry {
    /// What was timed, and under which conditions.
    pub key: LatencyKey,
    /// What came out.
    pub timing: Timing,
}

/// The parts that an architecture is made of, in order, repeats included: its composed latency is the sum over them.
pub fn parts(architecture: &Architecture) -> impl Iterator<Item = Part> + '_ {
    let d_model = architecture.d_model();
    architecture
        .layers()
        .iter()
        .flat_map(move |layer| {
            let mixer = layer.mixer.map(|mixer| Part::Mixer { d_model, mixer });
            let ffn = layer.ffn_width.map(|width| Part::Ffn { d_model, width });
            mixer.into_iter().chain(ffn)
        })
        .chain([Part::Head { d_model, vocab: architecture.vocab() }])
}
