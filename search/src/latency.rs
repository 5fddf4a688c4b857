//! What is timed and how an architecture's latency is composed from it: the keys and entries of the latency table.
//!
//! The profiler measures a [`LatencyKey`]; the store keeps the [`LatencyEntry`]; [`keys()`] says which rows an
//! architecture needs, and its latency is their sum.

mod keys;
mod throughput;
mod whole_models;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use crate::architecture::is_zero;
use crate::architecture::{Architecture, Ffn, Mixer, Past};
use crate::value::Value;

pub use keys::{keys, working_set_kib};
pub use throughput::Throughput;
pub use whole_models::WholeModels;

/// The element type of weights. States and activations are fp32 whatever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Dtype {
    /// IEEE single precision.
    #[serde(rename = "fp32")]
    F32,
    /// bfloat16.
    #[serde(rename = "bf16")]
    Bf16,
    /// Weights as 8-bit integers with one factor for each output of a matrix.
    #[serde(rename = "int8")]
    Int8,
    /// Weights as 8-bit floating point (e4m3) with one factor for each output of a matrix: on a GPU.
    #[serde(rename = "fp8")]
    Fp8,
}

impl Dtype {
    /// Bytes of a weight; the factors of 8-bit rows, one for hundreds of weights, are not counted.
    pub fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
            Self::Int8 | Self::Fp8 => 1,
        }
    }

    /// Bytes of an element of an attention cache: bf16 with weights below fp32.
    pub fn cache_element_bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::Int8 | Self::Fp8 => 2,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "fp32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Fp8 => "fp8",
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
        /// Learnt positions before the sequence, if the mixer's time depends on how many: in a cache or in the states of
        /// a log-linear mixer.
        #[serde(default, skip_serializing_if = "is_zero")]
        meta_tokens: u32,
    },
    /// `x += ffn(norm(x))`.
    Ffn {
        /// Width of the residual stream.
        d_model: u32,
        /// The feed-forward network.
        #[serde(flatten)]
        ffn: Ffn,
    },
    /// Embedding row, final norm and logits (of the last position only in prefill).
    Head {
        /// Width of the residual stream.
        d_model: u32,
        /// Number of tokens in the vocabulary.
        vocab: u32,
    },
}

/// A piece of work that shows what this machine can do at best, whatever the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "limit", rename_all = "snake_case")]
pub enum Limit {
    /// Reading so many MiB once.
    Read {
        /// The memory, which decides from which cache it comes.
        mib: u32,
    },
    /// A matrix product in fp32, [`Limit::PRODUCT`].
    Product,
}

impl Limit {
    /// Rows, columns and inner length of the product: large enough to be bound by arithmetic alone.
    pub const PRODUCT: [u32; 3] = [512, 1024, 1024];

    /// How much it is: bytes, or floating-point operations.
    pub fn amount(self) -> f64 {
        match self {
            Self::Read { mib } => f64::from(mib) * f64::from(1 << 20),
            Self::Product => 2.0 * Self::PRODUCT.iter().map(|&n| f64::from(n)).product::<f64>(),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { mib } => write!(f, "reading {mib} MiB"),
            Self::Product => {
                let [rows, columns, inner] = Self::PRODUCT;
                write!(f, "a product of {rows}×{inner} by {inner}×{columns}")
            }
        }
    }
}

impl Part {
    /// A mixer in a model with `meta_tokens`, which count where its time depends on them.
    pub fn mixer(d_model: u32, mixer: Mixer, meta_tokens: u32) -> Self {
        let attends = mixer.pasts().any(|past| matches!(past, Past::Positions { .. }));
        let depends = attends || mixer.levels().is_some();
        Self::Mixer { d_model, mixer, meta_tokens: if depends { meta_tokens } else { 0 } }
    }

    /// The meta tokens before the sequence, where the part's time depends on them.
    pub fn meta_tokens(&self) -> u32 {
        match self {
            Self::Mixer { meta_tokens, .. } => *meta_tokens,
            Self::Ffn { .. } | Self::Head { .. } => 0,
        }
    }
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
    /// Of which size of model: see [`working_set_kib`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub working_set_kib: u32,
    /// Of a mixer, whether an FFN comes next, where its time depends on that: a GPU's decode step of one sequence fetches
    /// the weights of the FFN while the mixer waits for its own results.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub before_ffn: bool,
    /// Under which conditions.
    #[serde(flatten)]
    pub conditions: Conditions,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mixer { d_model, mixer, meta_tokens: 0 } => write!(f, "d={d_model} {mixer}"),
            Self::Mixer { d_model, mixer, meta_tokens } => {
                write!(f, "d={d_model} {mixer} after {meta_tokens} meta tokens")
            }
            Self::Ffn { d_model, ffn } => write!(f, "d={d_model} {ffn}"),
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
        write!(
            f,
            "{}{}; {}",
            self.part,
            if self.before_ffn { " before an FFN" } else { "" },
            self.conditions
        )?;
        if self.working_set_kib > 0 {
            write!(f, "; in a model of about {} KiB", self.working_set_kib)?;
        }
        Ok(())
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
    /// Energy of the device for one token, mJ, where a whole model was timed on a device that counts it: of a decode step
    /// over its sequences, of a prefill over its positions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub millijoules: Option<f64>,
}

impl Timing {
    /// Above this load from other processes a timing is measured again, and marked if it stays so.
    pub const QUIET_LOAD: f64 = 0.05;

    /// The latency that it says, with its spread as the error: what another series would give differs by as much.
    pub fn value(&self) -> Value {
        Value { mean: self.median_us, standard_error: Some(self.spread_us) }
    }

    /// How much longer it took than another, as a factor.
    pub fn over(&self, other: &Self) -> f64 {
        self.median_us / other.median_us
    }

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
    let (d_model, meta_tokens) = (architecture.d_model(), architecture.meta_tokens());
    architecture
        .layers()
        .iter()
        .flat_map(move |layer| {
            let mixer = layer.mixer.map(|mixer| Part::mixer(d_model, mixer, meta_tokens));
            let ffn = layer.ffn.map(|ffn| Part::Ffn { d_model, ffn });
            mixer.into_iter().chain(ffn)
        })
        .chain([Part::Head { d_model, vocab: architecture.vocab() }])
}
