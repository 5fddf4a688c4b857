//! What a worker says.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::failure::FailureKind;
use crate::latency::Timing;
use crate::metric::Direction;
use crate::objective::Objective;
use crate::parameters::Parameter;
use crate::value::Value;

/// From a worker to the driver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Reply {
    /// The first line.
    Hello(Hello),
    /// How an evaluation goes; at most a few a second.
    Progress(Progress),
    /// The end of an evaluation that worked.
    Result(Evaluation),
    /// The end of a measurement that worked.
    Timing(Measured),
    /// What cannot be computed.
    Checked(Checked),
    /// What a black box optimises.
    Space(SpaceReply),
    /// The values at a point.
    Values(Values),
    /// The request cannot be done, and trying again would not help.
    Infeasible(Refusal),
    /// The request failed.
    Failed(Refusal),
}

impl Reply {
    /// The request that it is to.
    pub fn id(&self) -> Option<u64> {
        match self {
            Self::Hello(_) | Self::Space(_) => None,
            Self::Checked(reply) => Some(reply.id),
            Self::Values(reply) => Some(reply.id),
            Self::Progress(reply) => Some(reply.id),
            Self::Result(reply) => Some(reply.id),
            Self::Timing(reply) => Some(reply.id),
            Self::Infeasible(reply) | Self::Failed(reply) => Some(reply.id),
        }
    }
}

/// Who the worker is and what it can do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Hello {
    /// Must equal `PROTOCOL`, the version of this protocol.
    pub protocol: u32,
    /// Name and version.
    pub worker: String,
    /// Requests it answers: `evaluate`, `measure`, `measure_whole`, `check`.
    pub can: Vec<String>,
    /// Device by name, as it stands in `device` of `Conditions`.
    pub device: String,
    /// Version of the kernels, as it stands in [`Timing::kernels`]: older rows of the latency table are not used.
    /// Profilers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernels: Option<String>,
}

/// What cannot be computed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Checked {
    /// The request.
    pub id: u64,
    /// Models that cannot be computed, by the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Remark>,
    /// Models that are computed by a slower way than others, by what that is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slow: Vec<Remark>,
}

/// What is to be said of some of the models that were asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Remark {
    /// Their places in the request, from 0.
    pub of: Vec<usize>,
    /// One sentence.
    pub reason: String,
}

impl Remark {
    /// Remarks on the models at these places, the same ones in one.
    pub fn gathered(remarks: impl IntoIterator<Item = (usize, String)>) -> Vec<Self> {
        let mut gathered: Vec<Self> = Vec::new();
        for (place, reason) in remarks {
            match gathered.iter_mut().find(|remark| remark.reason == reason) {
                Some(remark) => remark.of.push(place),
                None => gathered.push(Self { of: vec![place], reason }),
            }
        }
        gathered
    }
}

/// How an evaluation goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    /// The evaluation.
    pub id: u64,
    /// Optimiser steps done.
    pub step: u64,
    /// Tokens seen.
    pub tokens: u64,
    /// Tokens at the end.
    pub tokens_total: u64,
    /// Training loss of the last step, nats per token.
    pub loss: f64,
    /// Training speed since the last progress.
    pub tokens_per_second: f64,
}

/// What a black box optimises.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpaceReply {
    /// Its parameters; a condition names an earlier one.
    pub parameters: Vec<Parameter>,
    /// One to four objectives.
    pub objectives: Vec<ObjectiveSpec>,
}

/// An objective as a black box names it: its name alone, or with a direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ObjectiveSpec {
    /// Minimised.
    Name(String),
    /// With its direction.
    Directed {
        /// The name of a value.
        name: String,
        /// Which way is better.
        #[serde(default)]
        direction: Direction,
    },
}

impl ObjectiveSpec {
    /// The name of its value.
    pub fn value_name(&self) -> &str {
        match self {
            Self::Name(name) | Self::Directed { name, .. } => name,
        }
    }

    /// The objective.
    pub fn objective(&self) -> Objective {
        match self {
            Self::Directed { name, direction } => Objective::new(name, *direction),
            Self::Name(name) => Objective::new(name, Direction::Minimize),
        }
    }
}

/// The values at a point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Values {
    /// The request.
    pub id: u64,
    /// Every objective, and whatever else is worth keeping: a number, or a [`Value`] with its standard error.
    #[serde(deserialize_with = "plain_or_measured")]
    #[schemars(with = "BTreeMap<String, PlainOrMeasured>")]
    pub values: BTreeMap<String, Value>,
}

impl Values {
    /// The same as the end of an evaluation that took so many seconds: a black box trains nothing that is known here.
    pub fn evaluation(self, seconds: f64) -> Evaluation {
        Evaluation {
            id: self.id,
            values: self.values,
            parameters: 0,
            tokens: 0,
            seconds,
            checkpoint: None,
            unsaved: None,
            parts: BTreeMap::new(),
            curve: Vec::new(),
            retrieval: Vec::new(),
        }
    }
}

/// A value as a black box gives it.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a value is a number or {\"mean\": …, \"standard_error\": …}")]
enum PlainOrMeasured {
    /// Without a standard error.
    Plain(f64),
    Measured(Value),
}

/// Numbers as values without a standard error.
fn plain_or_measured<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Value>, D::Error> {
    let values: BTreeMap<String, PlainOrMeasured> = Deserialize::deserialize(deserializer)?;
    let value = |either| match either {
        PlainOrMeasured::Plain(mean) => Value { mean, standard_error: None },
        PlainOrMeasured::Measured(value) => value,
    };
    Ok(values.into_iter().map(|(name, either)| (name, value(either))).collect())
}

/// The end of an evaluation that worked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evaluation {
    /// The evaluation.
    pub id: u64,
    /// Values by name: `bits_per_byte`, `validation_loss`, …
    pub values: BTreeMap<String, Value>,
    /// Trainable parameters of what was trained.
    pub parameters: u64,
    /// Tokens seen in training, earlier rungs included.
    pub tokens: u64,
    /// Seconds of this evaluation.
    pub seconds: f64,
    /// Of values on held-out text, by name, the mean in each of so many equal parts of it, the same parts for every
    /// candidate; at most [`PARTS_MAX`]. With them two candidates are compared on the same text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, Vec<f32>>,
    /// Where the next rung can go on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<PathBuf>,
    /// Why there is no checkpoint though there should be one, a full disk say: the values stand, but the campaign pauses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsaved: Option<String>,
    /// Training loss against tokens, (tokens, nats per token).
    #[serde(default)]
    pub curve: Vec<(u64, f64)>,
    /// How well each layer's memory reads back what it stored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retrieval: Vec<LayerRetrieval>,
}

/// The retrieval SNR of one layer's memory (arXiv 2505.19488): the power of the value that is read with its key over the
/// power of what other pairs add to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LayerRetrieval {
    /// Index of the layer, from 0.
    pub layer: u32,
    /// Which memory of it.
    #[serde(default, skip_serializing_if = "Memory::is_mixer")]
    pub memory: Memory,
    /// The SNR against the number of stored pairs, (pairs, SNR), pairs rising.
    pub snr: Vec<(u32, f64)>,
    /// The same of reads with the model's own queries, or inputs, of which the pair that each reads most of stands for what it
    /// asks for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queries: Vec<(u32, f64)>,
}

/// A memory of a layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Memory {
    /// The mixer's, of what was read.
    #[default]
    Mixer,
    /// The feed-forward network's, of its weights.
    Ffn,
}

impl Memory {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
    fn is_mixer(&self) -> bool {
        *self == Self::Mixer
    }
}

impl LayerRetrieval {
    /// Every point, (pairs, SNR).
    pub fn points(&self) -> impl Iterator<Item = &(u32, f64)> {
        self.snr.iter().chain(&self.queries)
    }
}

/// Parts of the held-out text that a result may tell apart.
pub const PARTS_MAX: usize = 64;

/// The end of a measurement that worked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Measured {
    /// The measurement.
    pub id: u64,
    /// What came out.
    #[serde(flatten)]
    pub timing: Timing,
}

/// Why a request did not work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Refusal {
    /// The request.
    pub id: u64,
    /// One sentence.
    pub reason: String,
    /// Of a failure, which kind it is, where the worker knows: `out_of_memory`, `diverged`, `timeout`, `crashed`, `protocol`,
    /// `setup`, `invalid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<FailureKind>,
}

impl Refusal {
    /// For this reason.
    pub fn new(id: u64, reason: impl Into<String>) -> Self {
        Self { id, reason: reason.into(), kind: None }
    }

    /// For this reason, which is of this kind.
    pub fn of(kind: FailureKind, id: u64, reason: impl Into<String>) -> Self {
        Self { kind: Some(kind), ..Self::new(id, reason) }
    }
}
