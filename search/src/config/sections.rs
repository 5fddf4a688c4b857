//! The sections of the campaign file but `[latency]`, and `[space]`, which stands with the space.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::learning_rate::LearningRate;
use crate::campaign::Keep;
use crate::device::Device;
use crate::limits::Limit;
use crate::metric::Metric;
use crate::proposals::Algorithm;

/// `[data]`: the text that proxies are trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// A text file, a folder of .txt files, a .jsonl file (field `text`), or u16 token files (.bin) as nanoGPT writes
    /// them. A relative path is relative to the campaign file.
    pub corpus: PathBuf,
    /// A Hugging Face tokenizer.json; none: bytes.
    #[serde(default)]
    pub tokenizer: Option<PathBuf>,
    /// The part of the corpus held out for validation, never trained on.
    #[serde(default = "defaults::validation_fraction")]
    pub validation_fraction: f64,
}

/// `[training]`: how a proxy is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingConfig {
    /// Tokens of the text that a proxy is trained on.
    pub tokens: u64,
    /// The tokens that count: search and front are after what a stack would be after so many, foretold from its own rungs and
    /// from those of its kin, with an error. At least `tokens`; more only with `search.rungs`, as nothing else tells how losses
    /// fall. None: four times `tokens` where there are rungs, else `tokens`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_tokens: Option<u64>,
    /// Sequences in a step.
    pub batch: u32,
    /// Tokens in a sequence.
    pub sequence_length: u32,
    /// The base learning rate at the end of `tokens`, before it decays, or `"auto"`; earlier it is higher by the fourth root
    /// of the tokens. Each tensor has its part of it by the training rule.
    pub learning_rate: LearningRate,
    /// Part of the tokens of the lowest rung, or of all, in which the learning rate rises linearly from 0.
    pub warmup_fraction: f64,
    /// The same in tokens; none: `warmup_fraction` of the lowest rung's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_tokens: Option<u64>,
    /// The last part of each rung, in which the learning rate decays linearly. A longer training goes on from before it.
    pub decay_fraction: f64,
    /// The learning rate at the end of the decay over what it would be without.
    pub final_learning_rate_fraction: f64,
    /// AdamW's decoupled decay, on matrices only: never on norms, A_log, dt_bias or D.
    pub weight_decay: f64,
    /// Whether embeddings decay too.
    pub decay_embeddings: bool,
    /// Unit L2 norm, after each step, for the rows of matrices that read the hidden state and the columns of those that
    /// write to it (arXiv 2511.18890); nothing decays then, and logits are divided by the norms of the head's rows.
    pub weight_normalisation: bool,
    /// AdamW's β₁.
    pub beta1: f64,
    /// AdamW's β₂.
    pub beta2: f64,
    /// Largest L2 norm of the whole gradient.
    pub gradient_clip: f64,
    /// Validation tokens that the final loss is taken over, and test tokens likewise.
    pub validation_tokens: u64,
    /// A finished training is also validated on sequences so many times as long: `bits_per_byte_x4`.
    pub longer_contexts: Vec<u32>,
    /// Width of the trained proxy over the width of the target architecture.
    pub width_scale: f64,
    /// The numbers in which products are made; weights, sums and states stay fp32.
    pub precision: Precision,
    /// Where: `cpu`; `cuda`, all GPUs that the program sees but one that is timed; or `cuda:1`, that one.
    pub device: Device,
    /// Threads of one trainer; 0: all cores over the number of trainers.
    pub threads: u32,
}

impl Default for TrainingConfig {
    fn default() -> Self {
        Self {
            tokens: 262_144,
            target_tokens: None,
            batch: 8,
            sequence_length: 256,
            learning_rate: LearningRate::Auto,
            warmup_fraction: 0.1,
            warmup_tokens: None,
            decay_fraction: 0.4,
            final_learning_rate_fraction: 0.1,
            weight_decay: 0.1,
            decay_embeddings: false,
            weight_normalisation: false,
            beta1: 0.9,
            beta2: 0.95,
            gradient_clip: 1.0,
            validation_tokens: 65_536,
            longer_contexts: vec![4],
            width_scale: 1.0,
            precision: Precision::Auto,
            device: Device::Cpu,
            threads: 0,
        }
    }
}

/// `training.precision`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// bf16 where the processor multiplies it faster, else fp32.
    #[default]
    Auto,
    /// Factors as they are.
    Fp32,
    /// Factors rounded to bf16.
    Bf16,
}

/// `[search]`: how candidates are proposed, and when it ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SearchConfig {
    /// How candidates are proposed.
    pub algorithm: Algorithm,
    /// Candidates to train, references included. Those dropped before training do not count.
    pub evaluations: u32,
    /// Hours of work, of all runs together, after which no further candidate is proposed, whatever `evaluations` says; what was
    /// begun is brought to its end. None: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hours: Option<f64>,
    /// Candidates drawn at random before the algorithm begins, references included.
    pub start: u32,
    /// The values that span the front, 1 to 4 of them, each towards its better side: less of most, more of `throughput`,
    /// `largest_batch` and a task's accuracy. `-NAME`: more of any value is better, of an own evaluator's accuracy say.
    /// Known are `bits_per_byte`, `bits_per_token` (of token files whose text is unknown), `validation_loss`, the values of
    /// tasks, `decode_us`, `prefill_us` (on a further target `decode_us.NAME`, `prefill_us.NAME`), `throughput`, `parameters`,
    /// `memory_bytes`, and whatever values an own evaluator reports.
    pub objectives: Vec<String>,
    /// The largest value allowed, by name, or `{ min = … }`, the least, or both; a candidate outside is out. Before it is
    /// trained for values known by then: `decode_us`, `prefill_us`, `throughput`, `parameters`, `decode_flops`,
    /// `prefill_flops`, `weight_bytes`, `state_bytes`, `cache_bytes`, `memory_bytes`; after it for what the trainer reports,
    /// as the error of a task. A name with a dot stands in quotes: `"decode_us.gpu" = 200`.
    pub limits: BTreeMap<String, Limit>,
    /// Hand-designed stacks to evaluate on the same terms, by name; they come first.
    pub references: Vec<String>,
    /// Stacks of your own to evaluate on the same terms, by a name, in their text form; they come after the references.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub stacks: BTreeMap<String, String>,
    /// Tokens of cheaper, earlier looks at a candidate, ascending, below `training.tokens` (without `[data]`: below the
    /// tokens of all tasks together): only the best at one are
    /// trained on to the next. None: every candidate is trained to the end.
    pub rungs: Vec<u64>,
    /// One in so many candidates is trained on from a rung.
    pub promote: u32,
    /// Trainings at once.
    pub concurrency: u32,
    /// Tries of a training that fails before its candidate counts as failed.
    pub attempts: u32,
    /// Failed candidates in a row after which the campaign stops, because the fault is not the candidates'.
    pub give_up_after: u32,
}

impl Default for SearchConfig {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::default(),
            evaluations: 48,
            hours: None,
            start: 12,
            objectives: [Metric::BitsPerByte, Metric::DecodeUs]
                .map(|metric| metric.name().to_owned())
                .to_vec(),
            limits: BTreeMap::new(),
            references: Vec::new(),
            stacks: BTreeMap::new(),
            rungs: Vec::new(),
            promote: 3,
            concurrency: 1,
            attempts: 2,
            give_up_after: 5,
        }
    }
}

/// `[trust]`: extra trainings when all candidates are evaluated, which measure how far the front is to be trusted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrustConfig {
    /// Trainings of front members, or of candidates close to it, from other seeds, at most: as long as noise could change
    /// the front. Values become means over the seeds.
    pub repeats: u32,
    /// Seeds that every candidate is trained from, for a comparison of few; values become means over them.
    pub seeds: u32,
    /// Candidates, from the best to the worst, that are trained for longer, to see whether the order stays.
    pub longer: u32,
    /// How much longer.
    pub longer_factor: u32,
}

impl Default for TrustConfig {
    fn default() -> Self {
        Self { repeats: 0, seeds: 1, longer: 0, longer_factor: 4 }
    }
}

/// `[storage]`: what stays on disk.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StorageConfig {
    /// Of which candidates the weights are kept when they are trained to the end.
    pub checkpoints: Keep,
    /// GB that must be left free on the disk: with less nothing more is begun, and the campaign pauses.
    pub free_gb: f64,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self { checkpoints: Keep::default(), free_gb: 1.0 }
    }
}

/// `[notify]`: who is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NotifyConfig {
    /// A command that the shell runs, in the folder of the campaign file, when the campaign is finished or halts: it finds
    /// `DELTAFRONT_CAMPAIGN`, `DELTAFRONT_STATE` (`finished` or `halted`) and `DELTAFRONT_REASON` in its environment. None:
    /// nobody is told. `run --notify` wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// `[evaluator]`: who trains the proxies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluatorConfig {
    /// A command of your own that speaks the wire protocol, run by the shell in the folder of the campaign file; none:
    /// the built-in trainer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Seconds of silence after which a worker is taken for dead.
    pub timeout_seconds: f64,
    /// Hours that a worker may take for one training or timing.
    pub hours: f64,
    /// GB of memory that a worker may use, with the processes it started; none: nine tenths of what its machine has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_gb: Option<f64>,
}

impl Default for EvaluatorConfig {
    fn default() -> Self {
        Self { command: None, timeout_seconds: 300.0, hours: 24.0, memory_gb: None }
    }
}

mod defaults {
    pub(super) fn validation_fraction() -> f64 {
        0.1
    }
}
