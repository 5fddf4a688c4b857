//! What a driver asks of a worker.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::architecture::Architecture;
use crate::config::{DataConfig, LatencyConfig, TaskConfig, TrainingConfig};
use crate::contents::Contents;
use crate::latency::{Conditions, LatencyKey, Limit, Part, is_zero};
use crate::parameters::{Assignment, Setting};

/// From the driver to a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "the large one is sent once in a worker's life")]
pub enum Request {
    /// The parts of the campaign file that the worker needs. Paths are absolute.
    Configure(Configure),
    /// Say which models the worker could not compute, and which only slowly, before anything is spent on them.
    Check(Check),
    /// Train a proxy and report its values.
    Evaluate(Evaluate),
    /// Time one part of a model.
    Measure(Measure),
    /// Time a whole model, beside the sum of its parts.
    MeasureWhole(MeasureWhole),
    /// Time what bounds every model: reading memory, or multiplying.
    MeasureLimit(MeasureLimit),
    /// Say what is to be optimised. For black boxes; the first line.
    Space {
        /// The version of the protocol, `PROTOCOL`.
        protocol: u32,
    },
    /// Give the values at a point. For black boxes.
    Eval(Eval),
    /// Give up the evaluation of this id; answered by `infeasible` with reason "stopped".
    Stop {
        /// The request to give up.
        id: u64,
    },
}

/// The settings of a worker's life.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Configure {
    /// For trainers.
    pub data: Option<DataConfig>,
    /// For trainers.
    pub training: Option<TrainingConfig>,
    /// For trainers; none: no tasks. Without `data` they are all there is to train on, and [`Evaluate::tokens`] are
    /// those of all tasks together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskConfig>,
    /// For profilers.
    pub latency: Option<LatencyConfig>,
    /// What the files of `data` must hold, by their keys in the campaign file (`data.corpus`): a trainer that finds
    /// something else there says so by `failed` with id 0, `CONFIGURE_ID`, instead of mixing two texts in one front.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub contents: BTreeMap<String, Contents>,
    /// Folder for checkpoints, which exists. A trainer keeps the tokens of the corpus in its subfolder `tokens`.
    pub checkpoints: Option<PathBuf>,
}

/// Which of these models could not be computed?
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// Echoed in the reply.
    pub id: u64,
    /// The models.
    pub architectures: Vec<Architecture>,
    /// For profilers: what would be timed of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Conditions>,
}

/// Train `architecture` up to `tokens` and validate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evaluate {
    /// Echoed in every reply.
    pub id: u64,
    /// 1 for the first try.
    pub attempt: u32,
    /// What to train, at target scale.
    pub architecture: Architecture,
    /// Fidelity: tokens seen in training at the end of this evaluation, those of earlier rungs included.
    pub tokens: u64,
    /// Seed of initialisation and data order.
    pub seed: u64,
    /// The checkpoint of an earlier rung to go on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_from: Option<PathBuf>,
}

/// Give the values at a point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Eval {
    /// Echoed in the reply.
    pub id: u64,
    /// 1 for the first try.
    pub attempt: u32,
    /// The parameters that are present, by name.
    #[schemars(with = "BTreeMap<String, Setting>")]
    pub parameters: Assignment,
    /// Seed for whatever the black box draws.
    pub seed: u64,
}

/// Time one part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Measure {
    /// Echoed in the reply.
    pub id: u64,
    /// What to time.
    #[serde(flatten)]
    pub part: Part,
    /// Memory in KiB that the model passes through which the part stands for; 0: the profiler chooses.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub working_set_kib: u32,
    /// Of a mixer, whether an FFN comes next: see [`LatencyKey::before_ffn`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub before_ffn: bool,
    /// Under which conditions.
    pub conditions: Conditions,
}

impl Measure {
    /// Asks for a row of the table.
    pub fn of(id: u64, key: LatencyKey) -> Self {
        let LatencyKey { part, working_set_kib, before_ffn, conditions } = key;
        Self { id, part, working_set_kib, before_ffn, conditions }
    }

    /// The row that is asked for.
    pub fn key(self) -> LatencyKey {
        let Self { part, working_set_kib, before_ffn, conditions, .. } = self;
        LatencyKey { part, working_set_kib, before_ffn, conditions }
    }
}

/// Time a whole model with random weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MeasureWhole {
    /// Echoed in the reply.
    pub id: u64,
    /// The model.
    pub architecture: Architecture,
    /// Under which conditions.
    pub conditions: Conditions,
}

/// Time a piece of work that nothing but this machine limits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MeasureLimit {
    /// Echoed in the reply.
    pub id: u64,
    /// The work.
    #[serde(flatten)]
    pub limit: Limit,
    /// CPU threads.
    pub threads: u32,
}
