//! What a campaign file must say beyond the types of its values.

use super::{CampaignFile, LearningRate, TaskConfig};
use crate::architecture::Architecture;
use crate::limits::Limit;
use crate::metric::{Direction, Known, Metric};
use crate::objective::Objective;
use crate::references::Reference;

/// Trainings at once, each a process: more are a slip of the finger.
const MOST_AT_ONCE: u32 = 1024;

/// A key whose value is impossible.
pub(super) struct Wrong {
    pub(super) key: String,
    pub(super) message: String,
}

fn wrong(key: &str, message: impl Into<String>) -> Result<(), Wrong> {
    Err(Wrong { key: key.to_owned(), message: message.into() })
}

fn within(key: &str, value: f64, low: f64, high: f64) -> Result<(), Wrong> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        wrong(key, format!("must be within {low} to {high}, got {value}"))
    }
}

fn positive(key: &str, value: f64) -> Result<(), Wrong> {
    if value.is_finite() && value > 0.0 {
        Ok(())
    } else {
        wrong(key, format!("must be a number above 0, got {value}"))
    }
}

fn at_least_one(key: &str, value: u64) -> Result<(), Wrong> {
    if value >= 1 { Ok(()) } else { wrong(key, "must be at least 1, got 0") }
}

impl CampaignFile {
    pub(super) fn check(&self) -> Result<(), Wrong> {
        if !crate::name::is_name(&self.name) {
            return wrong("name", "must be 1 to 100 characters of one line");
        }
        self.space().map_err(|error| Wrong { key: error.key, message: error.message })?;
        self.check_data()?;
        self.check_training()?;
        self.check_tasks()?;
        self.check_latency()?;
        self.check_search()?;
        if self.evaluator.command.as_ref().is_some_and(|command| command.trim().is_empty()) {
            return wrong(
                "evaluator.command",
                "is empty; leave the key out for the built-in trainer",
            );
        }
        positive("evaluator.timeout_seconds", self.evaluator.timeout_seconds)?;
        positive("evaluator.hours", self.evaluator.hours)?;
        self.evaluator.memory_gb.map_or(Ok(()), |gb| positive("evaluator.memory_gb", gb))?;
        if !(self.storage.free_gb.is_finite() && self.storage.free_gb >= 0.0) {
            let got = self.storage.free_gb;
            return wrong("storage.free_gb", format!("must be a number of at least 0, got {got}"));
        }
        Ok(())
    }

    fn check_data(&self) -> Result<(), Wrong> {
        let Some(data) = &self.data else {
            if self.tasks.is_empty() && self.evaluator.command.is_none() {
                let message = "is missing, and there are no [[tasks]]: nothing to train on; add [data] with a \
                               corpus = \"…\", or [[tasks]] with a kind = \"…\"";
                return wrong("data", message);
            }
            return Ok(());
        };
        if data.corpus.as_os_str().is_empty() {
            return wrong(
                "data.corpus",
                "is empty; name a text file, a folder of .txt files, a .jsonl or a .bin file",
            );
        }
        let fraction = data.validation_fraction;
        if !(fraction > 0.0 && fraction < 1.0) {
            return wrong(
                "data.validation_fraction",
                format!("must be above 0 and below 1, got {fraction}"),
            );
        }
        if data.tokenizer.is_none() && self.space.vocab < 256 && !is_token_file(&data.corpus) {
            return wrong(
                "space.vocab",
                format!(
                    "bytes need a vocabulary of 256, got {}; or name a tokenizer in [data]",
                    self.space.vocab
                ),
            );
        }
        Ok(())
    }

    fn check_training(&self) -> Result<(), Wrong> {
        let t = &self.training;
        at_least_one("training.batch", t.batch.into())?;
        if t.sequence_length < 2 {
            return wrong(
                "training.sequence_length",
                format!("must be at least 2, got {}", t.sequence_length),
            );
        }
        let step = u64::from(t.batch) * u64::from(t.sequence_length);
        if t.tokens < step {
            return wrong(
                "training.tokens",
                format!(
                    "{} tokens are less than one step of batch × sequence_length = {step}",
                    t.tokens
                ),
            );
        }
        if t.validation_tokens < u64::from(t.sequence_length) {
            return wrong(
                "training.validation_tokens",
                format!(
                    "must be at least one sequence of {}, got {}",
                    t.sequence_length, t.validation_tokens
                ),
            );
        }
        if let LearningRate::Base(rate) = t.learning_rate {
            positive("training.learning_rate", rate)?;
        }
        within("training.warmup_fraction", t.warmup_fraction, 0.0, 1.0)?;
        for (index, &times) in t.longer_contexts.iter().enumerate() {
            let key = format!("training.longer_contexts.{index}");
            if !(2..=64).contains(&times) {
                return wrong(&key, format!("must be from 2 to 64, got {times}"));
            }
        }
        within("training.decay_fraction", t.decay_fraction, 0.0, 1.0)?;
        within("training.final_learning_rate_fraction", t.final_learning_rate_fraction, 0.0, 1.0)?;
        within("training.weight_decay", t.weight_decay, 0.0, 10.0)?;
        for (key, beta) in [("training.beta1", t.beta1), ("training.beta2", t.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return wrong(key, format!("must be at least 0 and below 1, got {beta}"));
            }
        }
        positive("training.gradient_clip", t.gradient_clip)?;
        positive("training.width_scale", t.width_scale)?;
        within("training.width_scale", t.width_scale, 0.0, 1.0)
    }

    fn check_tasks(&self) -> Result<(), Wrong> {
        for (index, task) in self.tasks.iter().enumerate() {
            if let Err((key, message)) = task.check() {
                return wrong(&format!("tasks.{index}.{key}"), message);
            }
            let names = task.value_names();
            let taken =
                |other: &TaskConfig| other.value_names().iter().any(|name| names.contains(name));
            if self.tasks[..index].iter().any(taken) {
                let message =
                    format!("there are two tasks `{}`; give one a name of its own", task.name());
                return wrong(&format!("tasks.{index}.kind"), message);
            }
        }
        Ok(())
    }

    /// Whether the built-in workers tell this value for this file, where it is not one of a task.
    fn tells(&self, metric: Metric) -> bool {
        match metric.facts().known {
            Known::Formula | Known::Timing | Known::Training => true,
            Known::Text => self.data.is_some(),
            Known::Tasks => !self.tasks.is_empty(),
        }
    }

    /// The names of the values that the built-in workers tell for this file: the trainer's first.
    fn known(&self) -> Vec<String> {
        let metrics = |of: fn(&Metric) -> bool| {
            let told = Metric::ALL.into_iter().filter(of).filter(|metric| self.tells(*metric));
            told.map(|metric| metric.name().to_owned())
        };
        metrics(|metric| metric.facts().known == Known::Text)
            .chain(self.tasks.iter().flat_map(TaskConfig::value_names))
            .chain(metrics(|metric| metric.facts().known == Known::Tasks))
            .chain(metrics(|metric| metric.facts().known == Known::Training))
            .chain(metrics(|metric| metric.is_known_before_training()))
            .chain(self.latency.names_of_targets())
            .collect()
    }

    /// Whether a value of this name will be known of every candidate.
    fn check_value(&self, key: &str, name: &str) -> Result<(), Wrong> {
        if name.is_empty() || name.starts_with('-') {
            return wrong(key, format!("`{name}` is not the name of a value"));
        }
        if self.evaluator.command.is_some() {
            return Ok(()); // reports what it likes
        }
        let known = self.known();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        if known.contains(&name) {
            return Ok(());
        }
        let list = known.join(", ");
        if Metric::named(name).is_some_and(|metric| metric.facts().known == Known::Text) {
            let message = format!(
                "`{name}` is measured on text, and there is no [data]; add it, or choose of {list}"
            );
            return wrong(key, message);
        }
        if let Some((_, Some(target))) = Metric::of(name) {
            let targets: Vec<&str> = self.latency.targets.keys().map(String::as_str).collect();
            if !targets.contains(&target) {
                let hint = super::error::did_you_mean(target, &targets);
                let message =
                    format!("{hint}there is no target [latency.targets.{target}] for `{name}`");
                return wrong(key, message);
            }
        }
        let hint = super::error::did_you_mean(name, &known);
        wrong(key, format!("{hint}`{name}` is not a value; there are {list}"))
    }

    /// Which way a value is better by nature; less of what is in no table.
    pub(super) fn nature(&self, name: &str) -> Direction {
        let is_accuracy = |task: &TaskConfig| task.accuracies().any(|accuracy| accuracy == name);
        match Metric::named(name) {
            Some(metric) => metric.facts().direction,
            None if self.tasks.iter().any(is_accuracy) => Direction::Maximize,
            None => Direction::Minimize,
        }
    }

    /// A limit that keeps something and drops something.
    fn check_limit(&self, key: &str, name: &str, limit: Limit) -> Result<(), Wrong> {
        match limit {
            Limit { min: None, max: None } => {
                wrong(key, "needs a number, the largest value allowed, or { min = … }")
            }
            Limit { min: None, max: Some(max) } => {
                positive(key, max)?;
                if self.nature(name) == Direction::Maximize {
                    let message = format!(
                        "more of `{name}` is better, and this would drop the best; the least value allowed is \
                         {{ min = {max} }}"
                    );
                    return wrong(key, message);
                }
                Ok(())
            }
            Limit { min: Some(min), max } => {
                let max = max.unwrap_or(f64::MAX);
                if min.is_finite() && max.is_finite() && min <= max {
                    return Ok(());
                }
                wrong(key, format!("min must be a number up to max, got {min} and {max}"))
            }
        }
    }

    /// The names of all values that are asked for: objectives, then limits.
    fn asked(&self) -> impl Iterator<Item = &str> {
        let objectives = self.search.objectives.iter();
        let objectives = objectives.map(|text| text.strip_prefix('-').unwrap_or(text));
        objectives.chain(self.search.limits.keys().map(String::as_str))
    }

    fn check_latency(&self) -> Result<(), Wrong> {
        let latency = &self.latency;
        latency.check_targets().map_err(|(key, message)| Wrong { key, message })?;
        for target in latency.targets().iter().filter(|target| target.latency.prefill_tokens == 0) {
            let of_target = |name: &&str| match Metric::of(name) {
                Some((Metric::PrefillUs, of)) => of == target.name.as_deref(),
                Some((Metric::PrefillFlops, _)) => target.name.is_none(),
                _ => false,
            };
            if let Some(name) = self.asked().find(of_target) {
                let message = format!("must be at least 1 where `{name}` is asked for");
                return wrong(&target.key("prefill_tokens"), message);
            }
        }
        let of_throughput = [Metric::Throughput, Metric::LargestBatch].map(Metric::name);
        if let Some(name) = self.asked().find(|name| of_throughput.contains(name))
            && latency.memory_budget_mb.or(latency.throughput_batch.map(u64::from)).is_none()
        {
            let message = format!(
                "must say how much memory a batch may fill, or `throughput_batch` how large it is: {name} is asked for"
            );
            return wrong("latency.memory_budget_mb", message);
        }
        at_least_one("latency.throughput_batch", latency.throughput_batch.unwrap_or(1).into())?;
        at_least_one("latency.throughput_context", latency.throughput_context.unwrap_or(1).into())?;
        at_least_one("latency.memory_budget_mb", latency.memory_budget_mb.unwrap_or(1))?;
        at_least_one("latency.batch_max", latency.batch_max.into())?;
        latency
            .decode_budget_us
            .map_or(Ok(()), |budget| positive("latency.decode_budget_us", budget))
    }

    fn check_search(&self) -> Result<(), Wrong> {
        let search = &self.search;
        at_least_one("search.evaluations", search.evaluations.into())?;
        search.hours.map_or(Ok(()), |hours| positive("search.hours", hours))?;
        at_least_one("search.start", search.start.into())?;
        if !(1..=MOST_AT_ONCE).contains(&search.concurrency) {
            let message = format!("must be 1 to {MOST_AT_ONCE}, got {}", search.concurrency);
            return wrong("search.concurrency", message);
        }
        at_least_one("search.attempts", search.attempts.into())?;
        at_least_one("search.give_up_after", search.give_up_after.into())?;
        self.check_rungs()?;
        if !(1..=4).contains(&search.objectives.len()) {
            return wrong(
                "search.objectives",
                format!("1 to 4 objectives, got {}", search.objectives.len()),
            );
        }
        let objectives: Vec<Objective> = self.objectives();
        for (index, text) in search.objectives.iter().enumerate() {
            let key = format!("search.objectives.{index}");
            self.check_value(&key, text.strip_prefix('-').unwrap_or(text))?;
            let is_same = |other: &Objective| other.name() == objectives[index].name();
            if objectives[..index].iter().any(is_same) {
                return wrong(&key, format!("`{text}` is listed twice"));
            }
        }
        for (name, &limit) in &search.limits {
            let key = format!("search.limits.{name}");
            self.check_value(&key, name)?;
            self.check_limit(&key, name, limit)?;
        }
        for (index, name) in search.references.iter().enumerate() {
            let key = format!("search.references.{index}");
            if let Err(unknown) = name.parse::<Reference>() {
                let names = Reference::ALL.map(Reference::name);
                return wrong(
                    &key,
                    format!("{}{unknown}", super::error::did_you_mean(name, &names)),
                );
            }
            if search.references[..index].contains(name) {
                return wrong(&key, format!("`{name}` is listed twice"));
            }
        }
        self.check_stacks()?;
        let beside = search.references.len() + search.stacks.len();
        if beside > search.evaluations as usize {
            return wrong(
                "search.evaluations",
                format!(
                    "{beside} references and stacks do not fit into {} evaluations",
                    search.evaluations
                ),
            );
        }
        Ok(())
    }

    fn check_stacks(&self) -> Result<(), Wrong> {
        for (name, text) in &self.search.stacks {
            let key = format!("search.stacks.{name}");
            if self.search.references.contains(name) {
                return wrong(&key, format!("a reference is called `{name}` too"));
            }
            let stack: Architecture = match text.parse() {
                Ok(stack) => stack,
                Err(error) => return wrong(&key, format!("does not name a stack: {error}")),
            };
            if stack.vocab() != self.space.vocab {
                return wrong(
                    &key,
                    format!(
                        "has a vocabulary of {}, space.vocab is {}",
                        stack.vocab(),
                        self.space.vocab
                    ),
                );
            }
        }
        Ok(())
    }
}

impl CampaignFile {
    fn check_rungs(&self) -> Result<(), Wrong> {
        let (search, training, last) = (&self.search, &self.training, self.tokens());
        // A task takes at least one step, whatever its share of a rung.
        let step = match self.data {
            Some(_) => u64::from(training.batch) * u64::from(training.sequence_length),
            None => 1,
        };
        let mut below = 0;
        for (index, &tokens) in search.rungs.iter().enumerate() {
            let key = format!("search.rungs.{index}");
            if tokens < step {
                return wrong(
                    &key,
                    format!(
                        "{tokens} tokens are less than one step of batch × sequence_length = {step}"
                    ),
                );
            }
            if tokens <= below {
                return wrong(&key, format!("rungs must ascend, got {tokens} after {below}"));
            }
            if tokens >= last {
                let whole = match self.data {
                    Some(_) => "training.tokens",
                    None => "the tokens of all tasks",
                };
                return wrong(
                    &key,
                    format!("must be below {whole} = {last}, which is the last rung, got {tokens}"),
                );
            }
            below = tokens;
        }
        if let Some(target) = training.target_tokens {
            if target < last {
                return wrong(
                    "training.target_tokens",
                    format!(
                        "must be at least what a proxy is trained on, {last} tokens, got {target}"
                    ),
                );
            }
            if target > last && search.rungs.is_empty() {
                return wrong(
                    "training.target_tokens",
                    format!(
                        "{target} tokens are more than a proxy is trained on, {last}: only `search.rungs` tell how \
                         losses fall from one length to the next. Add rungs, or leave this out"
                    ),
                );
            }
        }
        if search.promote < 2 {
            return wrong("search.promote", format!("must be at least 2, got {}", search.promote));
        }
        at_least_one("trust.seeds", self.trust.seeds.into())?;
        if self.trust.longer_factor < 2 {
            return wrong(
                "trust.longer_factor",
                format!("must be at least 2, got {}", self.trust.longer_factor),
            );
        }
        Ok(())
    }
}

/// Token files come with a vocabulary of their own.
fn is_token_file(corpus: &std::path::Path) -> bool {
    corpus.extension().is_some_and(|extension| extension == "bin")
}
