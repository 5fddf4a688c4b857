//! Trains stacks, under the product's training rule or under one that is data: jobs as JSON lines in, results as JSON
//! lines out, one after the other. `tools/truth_table/` runs several of these at once.
//!
//! `training_rules CORPUS [threads]`; a job is `{"stack": …, "training": {…}, "seed": 0, "rule": [GROUP, …]}`, where
//! `training` has the keys of the campaign file that are not at their default. Without `rule` it is the product's; with
//! one, a tensor's factors are the products of those of all groups it belongs to. A job's other keys come back with its
//! result.

use std::collections::BTreeMap;
use std::io::{BufRead as _, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use evaluator::rule::Factors;
use evaluator::{Corpus, Training};
use operators::ops::optimizer::Units;
use search::Architecture;
use search::config::{DataConfig, TrainingConfig};
use search::tensors::{Role, TensorSpec};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Points of a curve in a result.
const CURVE_POINTS: usize = 32;

#[derive(Deserialize)]
struct Job {
    stack: String,
    #[serde(default)]
    training: TrainingConfig,
    #[serde(default)]
    seed: u64,
    rule: Option<Vec<Group>>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Tensors by what they are, and their factors.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    /// Names of `search::tensors::Role`; none: all.
    #[serde(default)]
    roles: Vec<String>,
    /// Ends of names; none: all.
    #[serde(default)]
    names: Vec<String>,
    /// Mixers by their text form, of tensors inside a mixer; none: all tensors.
    #[serde(default)]
    mixers: Vec<String>,
    #[serde(default)]
    initial: Power,
    #[serde(default)]
    rate: Power,
    /// Whether they move by Muon, those that write by columns, others by rows.
    #[serde(default)]
    orthogonal: bool,
}

/// factor · fan_in^… · fan_out^… · d^… · depth^…
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Power {
    factor: f64,
    fan_in: f64,
    fan_out: f64,
    d: f64,
    depth: f64,
}

impl Default for Power {
    fn default() -> Self {
        Self { factor: 1.0, fan_in: 0.0, fan_out: 0.0, d: 0.0, depth: 0.0 }
    }
}

impl Power {
    fn of(&self, spec: &TensorSpec, architecture: &Architecture) -> f64 {
        let (fan_out, fan_in) = (spec.shape[0] as f64, spec.shape[spec.shape.len() - 1] as f64);
        let branches = architecture
            .layers()
            .iter()
            .map(|layer| u32::from(layer.mixer.is_some()) + u32::from(layer.ffn.is_some()))
            .sum::<u32>();
        self.factor
            * fan_in.powf(self.fan_in)
            * fan_out.powf(self.fan_out)
            * f64::from(architecture.d_model()).powf(self.d)
            * (f64::from(branches) / 2.0).powf(self.depth)
    }
}

impl Group {
    fn holds(&self, spec: &TensorSpec, architecture: &Architecture) -> bool {
        let role = format!("{:?}", spec.role);
        let mixer = || {
            let (layer, rest) = spec.name.strip_prefix("layers.")?.split_once('.')?;
            rest.starts_with("mixer.").then_some(())?;
            let mixer = architecture.layers()[layer.parse::<usize>().ok()?].to_string();
            Some(mixer.split('(').next()?.to_owned())
        };
        (self.roles.is_empty() || self.roles.contains(&role))
            && (self.names.is_empty() || self.names.iter().any(|end| spec.name.ends_with(end)))
            && (self.mixers.is_empty() || mixer().is_some_and(|m| self.mixers.contains(&m)))
    }
}

fn factors(groups: &[Group], spec: &TensorSpec, architecture: &Architecture) -> Factors {
    let mut all = Factors::ONE;
    for group in groups.iter().filter(|group| group.holds(spec, architecture)) {
        all.initial *= group.initial.of(spec, architecture);
        all.rate *= group.rate.of(spec, architecture);
        if group.orthogonal {
            let writes = spec.role == Role::Writer;
            all.orthogonal = Some(if writes { Units::Columns } else { Units::Rows });
        }
    }
    all
}

fn run(job: &Job, corpus: &Corpus) -> Result<Value, Box<dyn std::error::Error>> {
    let architecture: Architecture = job.stack.parse()?;
    let mut training = match &job.rule {
        None => Training::new(architecture, corpus, &job.training, job.seed)?,
        Some(groups) => {
            let stack = architecture.clone();
            let rule = |spec: &TensorSpec| factors(groups, spec, &stack);
            Training::with_rule(architecture, corpus, &job.training, job.seed, &rule)?
        }
    };
    let steps = training.steps_for(job.training.tokens);
    let warm = steps / 8;
    let began = Instant::now();
    let mut warmed = began;
    while training.steps() < steps {
        training.step()?;
        if training.steps() == warm {
            warmed = Instant::now();
        }
    }
    let seconds = warmed.elapsed().as_secs_f64();
    let validation = training.validate(&|| false)?;
    let bits = std::f64::consts::LOG2_E / corpus.bytes_per_token().unwrap_or(1.0);
    let losses = training.losses();
    let curve: Vec<f64> = losses
        .chunks(losses.len().div_ceil(CURVE_POINTS).max(1))
        .map(|part| part.iter().map(|&x| f64::from(x)).sum::<f64>() / part.len() as f64)
        .map(|mean| (mean * bits * 1e4).round() / 1e4)
        .collect();
    Ok(json!({
        "bits_per_byte": validation.loss * bits,
        "standard_error": validation.standard_error.map(|error| error * bits),
        "steps": steps,
        "tokens_per_s": ((steps - warm) * training.tokens_per_step()) as f64 / seconds,
        "seconds": began.elapsed().as_secs_f64(),
        "curve": curve,
    }))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: training_rules CORPUS [threads]")?;
    tch::set_num_threads(arguments.next().map_or(Ok(1), |n| n.parse())?);
    let mut corpora: BTreeMap<String, Corpus> = BTreeMap::new();
    for line in std::io::stdin().lock().lines() {
        let job: Job = serde_json::from_str(&line?)?;
        let name = job.rest.get("corpus").and_then(Value::as_str).unwrap_or(&path).to_owned();
        if !corpora.contains_key(&name) {
            let corpus = name.clone().into();
            let data = DataConfig { corpus, tokenizer: None, validation_fraction: 0.1 };
            corpora.insert(name.clone(), Corpus::open(&data, None)?);
        }
        let outcome = match catch_unwind(AssertUnwindSafe(|| run(&job, &corpora[&name]))) {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => json!({ "error": error.to_string() }),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map_or("a panic", String::as_str);
                json!({ "error": text.lines().next() })
            }
        };
        let mut result = job.rest;
        result.extend(outcome.as_object().cloned().unwrap_or_default());
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", Value::Object(result))?;
        out.flush()?;
    }
    Ok(())
}
