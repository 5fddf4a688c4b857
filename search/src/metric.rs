//! The values that deltafront itself knows of a candidate, by name: what people call each, in which unit, which way is better,
//! when it is known and how it is printed.
//!
//! One table, [`Metric::facts`]. Whoever names, prints, orders or checks a value asks it; a new value is one variant and
//! one row. Values of tasks and of own evaluators stand in no table: their names are what people read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which way is better.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Less.
    #[default]
    Minimize,
    /// More.
    Maximize,
}

/// From when on a value is known of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// At once: it follows from the architecture by formula.
    Formula,
    /// When the parts of the architecture are timed, before it is trained.
    Timing,
    /// When it is trained, on text.
    Text,
    /// When it is trained, on tasks.
    Tasks,
    /// When it is trained, on whatever.
    Training,
}

/// How a number is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// With its standard error, or four digits.
    Measured,
    /// Three digits and a decimal prefix: `1.24 M`.
    Scaled,
    /// The same in bytes: `98.3 kB`.
    Bytes,
}

impl Form {
    /// Of a value by its name; one that is in no table tells by its ending.
    pub fn of(name: &str) -> Self {
        match Metric::of(name) {
            Some((metric, _)) => metric.facts().form,
            None if name.ends_with("bytes") => Self::Bytes,
            None if name.ends_with("flops") => Self::Scaled,
            None => Self::Measured,
        }
    }
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// In campaign files, on the wire and in the store.
    pub name: &'static str,
    /// In headings.
    pub title: &'static str,
    /// Along an axis, where there is room for the unit.
    pub axis: &'static str,
    /// Behind a number: `2.314 bits/byte`.
    pub unit: &'static str,
    /// Which way is better, unless an objective says otherwise.
    pub direction: Direction,
    /// From when on it is known.
    pub known: Known,
    /// How its numbers are printed.
    pub form: Form,
}

/// A value that deltafront itself knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Metric {
    /// Validation loss in bits for each byte of text.
    BitsPerByte,
    /// The same for each token, of token files whose text is unknown.
    BitsPerToken,
    /// Validation loss, nats per token.
    ValidationLoss,
    /// The weighted mean of the errors of all tasks of a campaign.
    TasksError,
    /// What the best memory among the mixers reads back of the longest sequence it was asked about, in decibels.
    RetrievalSnr,
    /// Latency of a decode step, µs.
    DecodeUs,
    /// Latency of a prefill, µs.
    PrefillUs,
    /// Trainable parameters.
    Parameters,
    /// Those of them that a token is multiplied by.
    ActiveParameters,
    /// Operations of a decode step.
    DecodeFlops,
    /// Operations of a prefill.
    PrefillFlops,
    /// Bytes of all weights.
    WeightBytes,
    /// Bytes of the recurrent states of a sequence.
    StateBytes,
    /// Bytes of the KV caches of a sequence.
    CacheBytes,
    /// Bytes of weights, states and caches together.
    MemoryBytes,
    /// Tokens per second at the largest batch that fits the memory budget.
    Throughput,
    /// That batch.
    LargestBatch,
}

impl Metric {
    /// Every metric, in the order in which lists name them.
    pub const ALL: [Self; 17] = [
        Self::BitsPerByte,
        Self::BitsPerToken,
        Self::ValidationLoss,
        Self::TasksError,
        Self::RetrievalSnr,
        Self::DecodeUs,
        Self::PrefillUs,
        Self::Parameters,
        Self::ActiveParameters,
        Self::DecodeFlops,
        Self::PrefillFlops,
        Self::WeightBytes,
        Self::StateBytes,
        Self::CacheBytes,
        Self::MemoryBytes,
        Self::Throughput,
        Self::LargestBatch,
    ];

    /// The latencies of a model, which are composed of timed parts and timed of whole models too.
    pub const LATENCIES: [Self; 2] = [Self::DecodeUs, Self::PrefillUs];

    /// The table.
    pub const fn facts(self) -> Facts {
        use Form::{Bytes, Measured, Scaled};
        match self {
            Self::BitsPerByte => Facts {
                axis: "validation bits per byte",
                unit: "bits/byte",
                ..less("bits_per_byte", "bits per byte", Known::Text, Measured)
            },
            Self::BitsPerToken => Facts {
                axis: "validation bits per token",
                unit: "bits/token",
                ..less("bits_per_token", "bits per token", Known::Text, Measured)
            },
            Self::ValidationLoss => Facts {
                axis: "validation loss, nats per token",
                ..less("validation_loss", "validation loss", Known::Text, Measured)
            },
            Self::TasksError => less("tasks_error", "tasks_error", Known::Tasks, Measured),
            Self::RetrievalSnr => Facts {
                axis: "retrieval SNR of the best memory, dB",
                unit: "dB",
                direction: Direction::Maximize,
                ..less("retrieval_snr_db", "retrieval SNR, dB", Known::Training, Measured)
            },
            Self::DecodeUs => Facts {
                axis: "decode latency, µs per token",
                unit: "µs decode",
                ..less("decode_us", "decode µs", Known::Timing, Measured)
            },
            Self::PrefillUs => Facts {
                axis: "prefill latency, µs",
                unit: "µs prefill",
                ..less("prefill_us", "prefill µs", Known::Timing, Measured)
            },
            Self::Parameters => less("parameters", "parameters", Known::Formula, Scaled),
            Self::ActiveParameters => {
                less("active_parameters", "active parameters", Known::Formula, Scaled)
            }
            Self::DecodeFlops => less("decode_flops", "decode FLOPs", Known::Formula, Scaled),
            Self::PrefillFlops => less("prefill_flops", "prefill FLOPs", Known::Formula, Scaled),
            Self::WeightBytes => less("weight_bytes", "weight bytes", Known::Formula, Bytes),
            Self::StateBytes => less("state_bytes", "state bytes", Known::Formula, Bytes),
            Self::CacheBytes => less("cache_bytes", "KV cache bytes", Known::Formula, Bytes),
            Self::MemoryBytes => less("memory_bytes", "memory bytes", Known::Formula, Bytes),
            Self::Throughput => Facts {
                axis: "throughput, tokens per second",
                direction: Direction::Maximize,
                ..less("throughput", "tokens/s", Known::Timing, Measured)
            },
            Self::LargestBatch => Facts {
                direction: Direction::Maximize,
                ..less("largest_batch", "batch", Known::Timing, Measured)
            },
        }
    }

    /// The name in campaign files, on the wire and in the store.
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// The metric of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }

    /// The name of a latency on one of several targets: `decode_us` on that of `[latency]` itself, `decode_us.gpu` on the
    /// target `gpu`.
    pub fn on(self, target: Option<&str>) -> String {
        let name = self.name();
        target.map_or_else(|| name.to_owned(), |target| format!("{name}.{target}"))
    }

    /// The metric that a name is of, and the target where it is the latency on one: `decode_us.gpu`.
    pub fn of(name: &str) -> Option<(Self, Option<&str>)> {
        if let Some(metric) = Self::named(name) {
            return Some((metric, None));
        }
        let (name, target) = name.split_once('.')?;
        let metric = Self::named(name).filter(|metric| metric.is_latency())?;
        Some((metric, Some(target)))
    }

    /// Whether it is known before a token is trained.
    pub fn is_known_before_training(self) -> bool {
        matches!(self.facts().known, Known::Formula | Known::Timing)
    }

    /// Whether it is a latency of the model.
    pub fn is_latency(self) -> bool {
        Self::LATENCIES.contains(&self)
    }
}

/// A row of a value of which less is better, called the same in headings, on axes and behind numbers.
const fn less(name: &'static str, title: &'static str, known: Known, form: Form) -> Facts {
    Facts { name, title, axis: title, unit: title, direction: Direction::Minimize, known, form }
}
