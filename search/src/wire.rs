//! The wire protocol between the driver and every worker: one JSON object a line, requests on the worker's stdin,
//! replies on its stdout. The worker's stderr is its log.
//!
//! A worker says [`Reply::Hello`] first. The driver may say [`Request::Configure`] once, then any number of requests.
//! Every request that carries an `id` is answered by exactly one final reply with that `id`
//! (`result`, `timing`, `checked`, `infeasible` or `failed`), with any number of `progress` lines before it.
//! A `configure` is answered only if it cannot be used: by `failed` with [`CONFIGURE_ID`].
//!
//! A black box is a worker that says nothing first: it is asked for its [`Request::Space`] and answers with
//! [`Reply::Space`], then for values at points of it, one [`Request::Eval`] at a time, each answered by `values`,
//! `infeasible` or `failed`. It may pass over requests that it does not know.
//!
//! End of input means: finish nothing, exit. A line that does not parse, a value that is not finite, silence beyond the
//! timeout, or an exit counts as a failed attempt.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::architecture::Architecture;
use crate::config::{DataConfig, LatencyConfig, TaskConfig, TrainingConfig};
use crate::contents::Contents;
use crate::failure::FailureKind;
use crate::latency::{Conditions, LatencyKey, Limit, Part, Timing, is_zero};
use crate::objective::Objective;
use crate::parameters::{Assignment, Parameter};

pub use crate::metric::Direction;
pub use crate::value::Value;

/// The version of this protocol. A worker of another version is refused.
pub const PROTOCOL: u32 = 1;

/// The id of the `failed` that answers a [`Request::Configure`] which cannot be used (a missing corpus, say): nothing the
/// driver could evaluate would succeed, so it should end the campaign with that reason. Evaluations have other ids.
pub const CONFIGURE_ID: u64 = 0;

/// From the driver to a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
        /// The version of the protocol, [`PROTOCOL`].
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
    /// something else there says so by `failed` with [`CONFIGURE_ID`], instead of mixing two texts in one front.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub contents: BTreeMap<String, Contents>,
    /// Folder for checkpoints, which exists. A trainer keeps the tokens of the corpus in its subfolder `tokens`.
    pub checkpoints: Option<PathBuf>,
}

/// Which of these models could not be computed?
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Eval {
    /// Echoed in the reply.
    pub id: u64,
    /// 1 for the first try.
    pub attempt: u32,
    /// The parameters that are present, by name.
    pub parameters: Assignment,
    /// Seed for whatever the black box draws.
    pub seed: u64,
}

/// Time one part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasureWhole {
    /// Echoed in the reply.
    pub id: u64,
    /// The model.
    pub architecture: Architecture,
    /// Under which conditions.
    pub conditions: Conditions,
}

/// Time a piece of work that nothing but this machine limits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeasureLimit {
    /// Echoed in the reply.
    pub id: u64,
    /// The work.
    #[serde(flatten)]
    pub limit: Limit,
    /// CPU threads.
    pub threads: u32,
}

/// From a worker to the driver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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

/// Who the worker is and what it can do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Must equal [`PROTOCOL`].
    pub protocol: u32,
    /// Name and version.
    pub worker: String,
    /// Requests it answers: `evaluate`, `measure`, `measure_whole`, `check`.
    pub can: Vec<String>,
    /// Device by name, as it stands in [`Conditions::device`].
    pub device: String,
    /// Version of the kernels, as it stands in [`Timing::kernels`]: older rows of the latency table are not used.
    /// Profilers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernels: Option<String>,
}

/// What cannot be computed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpaceReply {
    /// Its parameters; a condition names an earlier one.
    pub parameters: Vec<Parameter>,
    /// One to four objectives.
    pub objectives: Vec<ObjectiveSpec>,
}

/// An objective as a black box names it: its name alone, or with a direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Values {
    /// The request.
    pub id: u64,
    /// Every objective, and whatever else is worth keeping: a number, or a [`Value`] with its standard error.
    #[serde(deserialize_with = "plain_or_measured")]
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

/// Numbers as values without a standard error.
fn plain_or_measured<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Value>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a value is a number or {\"mean\": …, \"standard_error\": …}")]
    enum Either {
        Plain(f64),
        Measured(Value),
    }
    let values: BTreeMap<String, Either> = Deserialize::deserialize(deserializer)?;
    let value = |either| match either {
        Either::Plain(mean) => Value { mean, standard_error: None },
        Either::Measured(value) => value,
    };
    Ok(values.into_iter().map(|(name, either)| (name, value(either))).collect())
}

/// The end of an evaluation that worked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerRetrieval {
    /// Index of the layer, from 0.
    pub layer: u32,
    /// The SNR against the number of stored pairs, (pairs, SNR), pairs rising.
    pub snr: Vec<(u32, f64)>,
}

/// Parts of the held-out text that a result may tell apart.
pub const PARTS_MAX: usize = 64;

/// The end of a measurement that worked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The measurement.
    pub id: u64,
    /// What came out.
    #[serde(flatten)]
    pub timing: Timing,
}

/// Why a request did not work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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

/// A line that is no message of this protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; the line was: {line}")]
pub struct WireError {
    /// What is wrong with it.
    pub reason: String,
    /// The offending line; a long one is cut.
    pub line: String,
}

/// Characters that are kept of an offending line.
const LINE_KEPT: usize = 1000;

impl WireError {
    fn new(line: &str, reason: String) -> Self {
        let mut kept: String = line.trim_end().chars().take(LINE_KEPT).collect();
        if kept.len() < line.trim_end().len() {
            kept.push('…');
        }
        Self { reason, line: kept }
    }

    fn of(line: &str, error: &serde_json::Error) -> Self {
        // Python writes the bare word, Rust `null`.
        let hint = if ["NaN", "Infinity", ":null"].iter().any(|word| line.contains(word)) {
            " (a value that is not finite is not JSON; answer with `failed` instead)"
        } else if line.contains("\"result\"") {
            " (a black box answers an `eval` by `values`; `result` is a trainer's answer to `evaluate`)"
        } else {
            ""
        };
        Self::new(line, format!("not a message of protocol {PROTOCOL}: {error}{hint}"))
    }
}

impl Reply {
    /// Reads one line from a worker.
    ///
    /// # Errors
    /// When it does not parse, or a number in it is not finite or has an impossible sign.
    pub fn parse(line: &str) -> Result<Self, WireError> {
        let reply: Self =
            serde_json::from_str(line).map_err(|error| WireError::of(line, &error))?;
        reply.check().map_err(|reason| WireError::new(line, reason))?;
        Ok(reply)
    }

    /// The line to send, without its end.
    ///
    /// # Errors
    /// As [`Reply::parse`]: a worker that computed a NaN must say `failed`, and learns so here.
    pub fn to_line(&self) -> Result<String, WireError> {
        let line = serde_json::to_string(self).map_err(|error| WireError::of("", &error))?;
        self.check().map_err(|reason| WireError::new(&line, reason))?;
        Ok(line)
    }

    /// The first number that is not finite or has an impossible sign.
    fn check(&self) -> Result<(), String> {
        match self {
            Self::Hello(_)
            | Self::Checked(_)
            | Self::Space(_)
            | Self::Infeasible(_)
            | Self::Failed(_) => Ok(()),
            Self::Values(values) => check_values(&values.values),
            Self::Progress(progress) => {
                finite("loss", progress.loss)?;
                not_negative("tokens_per_second", progress.tokens_per_second)
            }
            Self::Result(evaluation) => {
                check_values(&evaluation.values)?;
                for (tokens, loss) in &evaluation.curve {
                    finite(&format!("the loss at {tokens} tokens"), *loss)?;
                }
                for (pairs, snr) in evaluation.retrieval.iter().flat_map(|layer| &layer.snr) {
                    not_negative(&format!("the retrieval SNR of {pairs} pairs"), *snr)?;
                }
                not_negative("seconds", evaluation.seconds)
            }
            Self::Timing(Measured { timing, .. }) => {
                not_negative("median_us", timing.median_us)?;
                not_negative("spread_us", timing.spread_us)?;
                not_negative("millijoules", timing.millijoules.unwrap_or(0.0))?;
                not_negative("other_load", timing.other_load)
            }
        }
    }
}

impl Request {
    /// Reads one line from the driver.
    ///
    /// # Errors
    /// When it does not parse; architectures and parts are checked as they are read.
    pub fn parse(line: &str) -> Result<Self, WireError> {
        serde_json::from_str(line).map_err(|error| WireError::of(line, &error))
    }

    /// The answer to a line that is no request: to its id where it has one, to a configuration as such. None where
    /// nobody waits for an answer.
    pub fn refusal(line: &str, error: &WireError) -> Option<Refusal> {
        let sent: serde_json::Value = serde_json::from_str(line).ok()?;
        let id = match sent.get("id").and_then(serde_json::Value::as_u64) {
            Some(id) => id,
            None if sent.get("type")? == "configure" => CONFIGURE_ID,
            None => return None,
        };
        Some(Refusal::of(
            FailureKind::Protocol,
            id,
            format!("the request is not understood: {}", error.reason),
        ))
    }

    /// The line to send, without its end.
    ///
    /// # Errors
    /// When a path is not Unicode.
    pub fn to_line(&self) -> Result<String, WireError> {
        serde_json::to_string(self).map_err(|error| WireError::of("", &error))
    }
}

fn check_values(values: &BTreeMap<String, Value>) -> Result<(), String> {
    for (name, value) in values {
        finite(name, value.mean)?;
        if let Some(error) = value.standard_error {
            not_negative(&format!("the standard error of {name}"), error)?;
        }
    }
    Ok(())
}

fn finite(name: &str, value: f64) -> Result<(), String> {
    if value.is_finite() { Ok(()) } else { Err(format!("{name} must be finite, got {value}")) }
}

fn not_negative(name: &str, value: f64) -> Result<(), String> {
    if value.is_finite() && value >= 0.0 {
        Ok(())
    } else {
        Err(format!("{name} must be finite and not negative, got {value}"))
    }
}
