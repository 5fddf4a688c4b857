//! `[latency]`: what is timed of candidates, on one device or on several.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::device::{Device, Platform};
use crate::latency::{Conditions, Dtype, Phase, Throughput, WholeModels};
use crate::metric::Metric;

/// Signs in the name of a target, which columns are called by.
const NAME: usize = 40;

/// `[latency]`: what is timed, and the budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LatencyConfig {
    /// Where: `cpu`, or `cuda:0`.
    pub device: Device,
    /// The element type of weights: `fp32`, `bf16` or `int8`; on a GPU `bf16`, or `int8` or `fp8` for decode steps of one sequence.
    pub dtype: Dtype,
    /// Positions in the cache when a decode step is timed.
    pub decode_context: u32,
    /// Prompt tokens of the timed prefill; 0: prefill is not timed.
    pub prefill_tokens: u32,
    /// Memory in MB (10⁶ bytes) that weights, states and caches of a batch may fill. With it the `throughput` of a candidate,
    /// tokens per second, is taken at the largest batch that fits; none: it is not.
    pub memory_budget_mb: Option<u64>,
    /// The largest batch that is timed for it.
    pub batch_max: u32,
    /// The batch that `throughput` is taken at where there is no memory budget; with one the largest, in place of `batch_max`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throughput_batch: Option<u32>,
    /// Positions in the cache when it is taken; none: `decode_context`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throughput_context: Option<u32>,
    /// Threads of the timed inference.
    pub threads: u32,
    /// Which candidates are timed as whole models, each of which then has that time for its latency. true: a few at the start,
    /// which tell how far sums of timed parts are off, and front members and references at the end. "all": every candidate,
    /// before it is trained, and the front and references once more at the end. Either way the first few are timed once more
    /// at the end, as how far the machine drifts is in every ±. false: none.
    pub time_whole_models: WholeModels,
    /// A command of your own that times whole models, run by the shell in the folder of the campaign file: it speaks the wire
    /// protocol and answers `measure_whole`. Every candidate within the limits is timed by it before it is trained, and nothing
    /// is composed of parts. None: the built-in profiler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Decode time per token in µs above which a candidate is dropped before it is trained; none: no budget.
    pub decode_budget_us: Option<f64>,
    /// Further targets by their names, on each of which candidates are timed, too: another device, or this one under other
    /// conditions. Their values are called `decode_us.NAME` and `prefill_us.NAME`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub targets: BTreeMap<String, TargetConfig>,
}

/// `[latency.targets.NAME]`: a further target on which candidates are timed. What is left out is as in `[latency]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TargetConfig {
    /// Where: `cpu`, or `cuda:0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// The element type of weights: `fp32`, `bf16` or `int8`; on a GPU `bf16`, or `int8` or `fp8` for decode steps of one sequence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtype: Option<Dtype>,
    /// Positions in the cache when a decode step is timed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode_context: Option<u32>,
    /// Prompt tokens of the timed prefill; 0: prefill is not timed on this target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefill_tokens: Option<u32>,
    /// Threads of the timed inference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    /// A command of your own that times whole models there, as in `[latency]`. None: the built-in profiler, whatever stands in
    /// `[latency]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

impl Default for LatencyConfig {
    fn default() -> Self {
        Self {
            device: Device::Cpu,
            dtype: Dtype::F32,
            decode_context: 512,
            prefill_tokens: 512,
            memory_budget_mb: None,
            batch_max: 64,
            throughput_batch: None,
            throughput_context: None,
            threads: 1,
            time_whole_models: WholeModels::default(),
            command: None,
            decode_budget_us: None,
            targets: BTreeMap::new(),
        }
    }
}

impl LatencyConfig {
    /// Everything that candidates are timed on: `[latency]` itself, then the further targets by their names.
    pub fn targets(&self) -> Vec<Target> {
        let main = Self { targets: BTreeMap::new(), ..self.clone() };
        let further = self.targets.iter().map(|(name, of)| Target {
            name: Some(name.clone()),
            latency: Self {
                device: of.device.unwrap_or(main.device),
                dtype: of.dtype.unwrap_or(main.dtype),
                decode_context: of.decode_context.unwrap_or(main.decode_context),
                prefill_tokens: of.prefill_tokens.unwrap_or(main.prefill_tokens),
                threads: of.threads.unwrap_or(main.threads),
                command: of.command.clone(),
                // Throughput is that of `[latency]` alone, and so is its budget.
                memory_budget_mb: None,
                throughput_batch: None,
                throughput_context: None,
                decode_budget_us: None,
                ..main.clone()
            },
        });
        let further: Vec<Target> = further.collect();
        [Target { name: None, latency: main }].into_iter().chain(further).collect()
    }

    /// The names of the values that further targets add.
    pub fn names_of_targets(&self) -> impl Iterator<Item = String> {
        let further = self.targets().into_iter().skip(1);
        further.flat_map(|target| target.latencies("").into_iter().map(|(name, _)| name))
    }

    /// What is wrong with what is timed where, by the key that it is about.
    pub(super) fn check_targets(&self) -> Result<(), (String, String)> {
        let targets = self.targets();
        for (place, target) in targets.iter().enumerate() {
            target.check().map_err(|(key, message)| (target.key(key), message))?;
            let Some(name) = &target.name else { continue };
            let is_sign = |c: char| c.is_ascii_alphanumeric() || ['-', '_'].contains(&c);
            if name.is_empty() || name.len() > NAME || !name.chars().all(is_sign) {
                let message = format!(
                    "the target `{name}` must be called by 1 to {NAME} letters, digits, - and _"
                );
                return Err(("latency.targets".to_owned(), message));
            }
            if let Some(same) = targets[..place].iter().find(|other| other.is_as(target)) {
                let same = same.name.as_ref().map_or_else(
                    || "[latency]".to_owned(),
                    |name| format!("[latency.targets.{name}]"),
                );
                let message =
                    format!("is timed just as {same} is: change its device or conditions");
                return Err((format!("latency.targets.{name}"), message));
            }
        }
        Ok(())
    }

    /// The latencies of `[latency]` itself on a device, by the names of their values.
    pub fn latencies(&self, device: &str) -> Vec<(String, Conditions)> {
        let under = |phase| Conditions {
            device: device.to_owned(),
            dtype: self.dtype,
            batch: 1,
            threads: self.threads,
            phase,
        };
        let decode = (
            Metric::DecodeUs.name().to_owned(),
            under(Phase::Decode { context: self.decode_context }),
        );
        let prefill = (self.prefill_tokens > 0).then(|| {
            (
                Metric::PrefillUs.name().to_owned(),
                under(Phase::Prefill { tokens: self.prefill_tokens }),
            )
        });
        [decode].into_iter().chain(prefill).collect()
    }

    /// The throughput of a candidate on a device, where there is a batch or a budget of memory for it.
    pub fn throughput(&self, device: &str) -> Option<Throughput> {
        let (_, decode) = self.latencies(device).swap_remove(0);
        let context = self.throughput_context.unwrap_or(self.decode_context);
        let budget_bytes = self.memory_budget_mb.map(|mb| mb.saturating_mul(1_000_000));
        let largest = budget_bytes.map(|_| self.batch_max);
        let batch = self.throughput_batch.or(largest)?;
        let phase = Phase::Decode { context };
        Some(Throughput { budget_bytes, conditions: Conditions { batch, phase, ..decode } })
    }
}

/// One of the targets of a campaign.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// As the campaign file names it; none: it is `[latency]` itself.
    pub name: Option<String>,
    /// What is timed there, as if it were all that `[latency]` asks for.
    pub latency: LatencyConfig,
}

impl Target {
    /// The latencies of a candidate there, by the names of their values, on the device as its profiler calls it.
    pub fn latencies(&self, device: &str) -> Vec<(String, Conditions)> {
        let named = |(name, conditions): (String, Conditions)| match &self.name {
            Some(target) => (format!("{name}.{target}"), conditions),
            None => (name, conditions),
        };
        self.latency.latencies(device).into_iter().map(named).collect()
    }

    /// Whether the same is timed on both.
    fn is_as(&self, other: &Self) -> bool {
        let of = |target: &Self| {
            let LatencyConfig { device, dtype, decode_context, prefill_tokens, threads, .. } =
                target.latency;
            (device, dtype, decode_context, prefill_tokens, threads, target.latency.command.clone())
        };
        of(self) == of(other)
    }

    /// What cannot be timed, by the key that it is about.
    fn check(&self) -> Result<(), (&'static str, String)> {
        let LatencyConfig { device, dtype, decode_context, threads, command, .. } = &self.latency;
        let built_in = command.is_none();
        if command.as_ref().is_some_and(|command| command.trim().is_empty()) {
            let message = "is empty; leave the key out for the built-in profiler";
            return Err(("command", message.to_owned()));
        }
        for (key, value) in [("decode_context", decode_context), ("threads", threads)] {
            if *value == 0 {
                return Err((key, "must be at least 1, got 0".to_owned()));
            }
        }
        match device.platform() {
            Platform::Cuda if built_in && *dtype == Dtype::F32 => {
                let message = "must be \"bf16\", \"int8\" or \"fp8\" on a GPU, whose kernels read weights of 16 or 8 bits";
                Err(("dtype", message.to_owned()))
            }
            Platform::Cuda if built_in && *dtype != Dtype::Bf16 => self.check_eight_bits(),
            Platform::Cpu if built_in && *dtype == Dtype::Fp8 => {
                let message =
                    "\"fp8\" is timed on a GPU only; \"int8\" are the 8-bit weights of a CPU";
                Err(("dtype", message.to_owned()))
            }
            Platform::Cpu | Platform::Cuda => Ok(()),
        }
    }

    /// With 8-bit weights a GPU's kernels take one token of one sequence at a time.
    fn check_eight_bits(&self) -> Result<(), (&'static str, String)> {
        let LatencyConfig { dtype, prefill_tokens, memory_budget_mb, throughput_batch, .. } =
            &self.latency;
        let instead = "or set `dtype = \"bf16\"`; a target of its own may time them";
        if *prefill_tokens > 0 {
            let message = format!(
                "must be 0 with `dtype = \"{dtype}\"` on a GPU, where prompts are not timed in it; {instead}"
            );
            return Err(("prefill_tokens", message));
        }
        let batches = [
            ("memory_budget_mb", memory_budget_mb.is_some()),
            ("throughput_batch", throughput_batch.is_some()),
        ];
        match batches.into_iter().find(|(_, given)| *given) {
            Some((key, _)) => Err((
                key,
                format!(
                    "is of batches, which a GPU does not time in {dtype}: leave it out, {instead}"
                ),
            )),
            None => Ok(()),
        }
    }

    /// A key of it in the campaign file: `latency.device`, `latency.targets.gpu.device`.
    pub fn key(&self, key: &str) -> String {
        match &self.name {
            Some(name) => format!("latency.targets.{name}.{key}"),
            None => format!("latency.{key}"),
        }
    }
}
