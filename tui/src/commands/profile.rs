//! `deltafront profile`

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;
use search::Architecture;
use search::config::LatencyConfig;
use search::device::Device;
use search::latency::{
    Conditions, Dtype, LatencyKey, Limit, Part, Phase, Timing, keys, working_set_kib,
};
use search::tensors::parameters;
use search::wire::{Measure, Request};
use serde_json::json;
use tui::quantity;

use super::{block_on, candidate, open};
use crate::driver::Profiler;
use crate::report::parts;
use crate::{report, words};

const EXAMPLES: &str = "\
Examples:
  deltafront profile my-campaign 17                   candidate 17 of a campaign
  deltafront profile stack.json                       what `deltafront export` wrote, as JSON or TOML
  deltafront profile 'd=128,vocab=256,tied | 4*gdn(h=3,k=32,v=64)+ffn(384)' --threads 2

Each part is timed as it runs in a model of its size. A bound is the larger of bytes over the bandwidth and operations
over the speed of a large product, both measured on this machine just before; `of bound` is what was reached of it.";

/// Times a stack part by part, beside what this machine could do, and whole.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A stack: its text, a file that holds it, or the folder of an export. With a candidate: the campaign.
    #[arg(value_name = "STACK")]
    stack: String,
    /// A candidate of the campaign: its number, the first digits of its id, or the name of its reference stack.
    candidate: Option<String>,
    /// Where: `cpu`, or `cuda:0`. Default, as of all conditions: that of the campaign which the stack is from, else cpu.
    #[arg(long)]
    device: Option<Device>,
    /// Positions in the cache when a decode step is timed. Default: the campaign's, else 512.
    #[arg(long)]
    context: Option<u32>,
    /// Tokens of the timed prompt; 0: prefill is not timed. Default: the campaign's, else 512.
    #[arg(long)]
    prompt: Option<u32>,
    /// Sequences at once.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Threads. Default: the campaign's, else 1.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
    /// Element type of weights and activations. Default: the campaign's, else fp32.
    #[arg(long, value_parser = dtype)]
    dtype: Option<Dtype>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn dtype(word: &str) -> Result<Dtype, String> {
    serde_json::from_value(json!(word)).map_err(|error| error.to_string())
}

pub(crate) fn run(db: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    block_on(async {
        let (architecture, latency) = stack(db, args).await?;
        let latency = args.over(latency);
        if let Some(command) = latency.command {
            bail!(
                "`{command}` (latency.command) times whole models only: nothing tells of their parts"
            );
        }
        let program = super::run::profiler(&latency, Path::new("."))?;
        let mut profiler = Profiler::start(&program).await?;
        // Of a GPU nothing but the stack is timed.
        let flops_per_us = match latency.device {
            Device::Cpu => Some(profiler.limit(Limit::Product, latency.threads).await?),
            Device::Cuda(_) => None,
        };
        let mut phases = Vec::new();
        for (_, conditions) in latency.latencies(profiler.device()) {
            let conditions = Conditions { batch: args.batch, ..conditions };
            let breakdown =
                Breakdown::measure(&mut profiler, &architecture, conditions, flops_per_us).await?;
            phases.push(breakdown);
        }
        profiler.dismiss().await;
        let text = if args.json {
            let json: Vec<_> = phases.iter().map(Breakdown::json).collect();
            let whole = json!({
                "text": architecture.to_string(),
                "id": architecture.id(),
                "parameters": parameters(&architecture),
                "phases": json,
            });
            serde_json::to_string_pretty(&whole)? + "\n"
        } else {
            let size = quantity::scaled(parameters(&architecture) as f64);
            let mut text = format!("{architecture}, {size} parameters\n");
            text.extend(phases.iter().map(Breakdown::text));
            text
        };
        std::io::stdout().write_all(text.as_bytes())?;
        Ok(ExitCode::SUCCESS)
    })
}

impl Args {
    /// The conditions of a campaign, but for those that the command line names.
    fn over(&self, of_campaign: Option<LatencyConfig>) -> LatencyConfig {
        let base = of_campaign.unwrap_or_default();
        LatencyConfig {
            device: self.device.unwrap_or(base.device),
            dtype: self.dtype.unwrap_or(base.dtype),
            decode_context: self.context.unwrap_or(base.decode_context),
            prefill_tokens: self.prompt.unwrap_or(base.prefill_tokens),
            threads: self.threads.unwrap_or(base.threads),
            ..base
        }
    }
}

/// The stack that the words on the command line name, and the conditions of the campaign that it is from.
async fn stack(db: &Path, args: &Args) -> anyhow::Result<(Architecture, Option<LatencyConfig>)> {
    if let Some(word) = &args.candidate {
        let store = open(db).await?;
        let snapshot = store.outline(&args.stack).await?;
        let subject = &candidate(&snapshot, word)?.row.subject;
        let Some(architecture) = subject.stack() else {
            bail!("campaign `{}` optimises a black box: it has no stack to time", args.stack);
        };
        return Ok((architecture.clone(), Some(snapshot.campaign.latency.clone())));
    }
    crate::export::read_with_conditions(&args.stack)
}

/// What one layer, or the head, takes.
struct Row {
    name: String,
    part: Part,
    timing: Timing,
    bytes: f64,
    flops: f64,
    bound_us: Option<f64>,
}

/// What this machine can do.
struct Limits {
    read_bytes_per_us: f64,
    read_mib: u32,
    flops_per_us: f64,
}

/// A phase of a stack: its parts, their sum, and the whole.
struct Breakdown {
    conditions: Conditions,
    /// What bounds it; none where that is not measured.
    limits: Option<Limits>,
    rows: Vec<Row>,
    /// The whole model after its parts.
    whole: Timing,
    /// The same before them.
    before: Timing,
}

impl Breakdown {
    async fn measure(
        profiler: &mut Profiler,
        architecture: &Architecture,
        conditions: Conditions,
        flops_per_us: Option<f64>,
    ) -> anyhow::Result<Self> {
        // In prefill weights are read once for many positions: from memory, whatever the size.
        let read_mib = match working_set_kib(architecture, &conditions) {
            0 => 256,
            kib => (kib >> 10).max(1),
        };
        let limits = match flops_per_us {
            None => None,
            Some(flops_per_us) => {
                let read = Limit::Read { mib: read_mib };
                let read_bytes_per_us = profiler.limit(read, conditions.threads).await?;
                Some(Limits { read_bytes_per_us, read_mib, flops_per_us })
            }
        };
        let before = profiler.whole("the whole model", architecture, &conditions).await?;
        let mut known: HashMap<LatencyKey, Timing> = HashMap::new();
        let mut rows = Vec::new();
        for (name, key) in
            parts::layers(architecture).into_iter().zip(keys(architecture, &conditions))
        {
            let timing = if let Some(timing) = known.get(&key) {
                timing.clone()
            } else {
                let request = |id| Request::Measure(Measure::of(id, key.clone()));
                let timing = profiler.time(&key.to_string(), request).await?;
                known.insert(key.clone(), timing.clone());
                timing
            };
            let (bytes, flops) = parts::work(&key.part, &conditions);
            let bound_us = limits
                .as_ref()
                .map(|limits| (bytes / limits.read_bytes_per_us).max(flops / limits.flops_per_us));
            rows.push(Row { name, part: key.part, timing, bytes, flops, bound_us });
        }
        let whole = profiler.whole("the whole model", architecture, &conditions).await?;
        Ok(Self { conditions, limits, rows, whole, before })
    }

    fn sum_us(&self) -> f64 {
        self.rows.iter().map(|row| row.timing.median_us).sum()
    }

    fn bound_us(&self) -> Option<f64> {
        self.rows.iter().map(|row| row.bound_us).sum()
    }

    fn text(&self) -> String {
        let Conditions { device, dtype, batch, threads, phase } = &self.conditions;
        let phase = match phase {
            Phase::Decode { context } => format!("decode, one token with {context} in the cache"),
            Phase::Prefill { tokens } => format!("prefill of {tokens} tokens"),
        };
        let threads = words::count(*threads as usize, "thread");
        let mut text = format!("\n{phase}: {dtype}, batch {batch}, {threads}, {device}\n");
        if let Some(Limits { read_bytes_per_us, read_mib, flops_per_us }) = &self.limits {
            text.extend([format!(
                "measured limits: {:.1} GB/s of {read_mib} MiB, {:.0} GFLOP/s\n",
                read_bytes_per_us / 1e3,
                flops_per_us / 1e3,
            )]);
        }
        text.push('\n');
        let sum_us = self.sum_us();
        let heading = ["layer", "part", "µs", "share", "bytes", "FLOPs", "bound µs", "of bound"];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        let total =
            |what: &str, us: f64, shown: String, bytes: f64, flops: f64, bound_us: Option<f64>| {
                vec![
                    what.to_owned(),
                    String::new(),
                    shown,
                    format!("{:.0} %", 100.0 * us / sum_us),
                    quantity::bytes(bytes),
                    quantity::scaled(flops),
                    bound_us.map_or_else(|| "–".to_owned(), quantity::significant),
                    bound_us.map_or_else(
                        || "–".to_owned(),
                        |bound| format!("{:.0} %", 100.0 * bound / us),
                    ),
                ]
            };
        for row in &self.rows {
            let us = row.timing.median_us;
            let mut cells = total(
                &row.name,
                us,
                report::timing(&row.timing),
                row.bytes,
                row.flops,
                row.bound_us,
            );
            cells[1] = parts::name(&row.part);
            rows.push(cells);
        }
        let bytes = self.rows.iter().map(|row| row.bytes).sum();
        let flops = self.rows.iter().map(|row| row.flops).sum();
        let sum = quantity::significant(sum_us);
        rows.push(total("sum", sum_us, sum, bytes, flops, self.bound_us()));
        let whole_us = self.whole.median_us;
        rows.push(total(
            "whole",
            whole_us,
            report::timing(&self.whole),
            bytes,
            flops,
            self.bound_us(),
        ));
        text.push_str(&words::table("llrrrrrr", &rows));
        let off = 100.0 * (sum_us / whole_us - 1.0);
        let tokens = f64::from(*batch)
            * match self.conditions.phase {
                Phase::Decode { .. } => 1.0,
                Phase::Prefill { tokens } => f64::from(tokens),
            };
        let speed = quantity::scaled(tokens / whole_us * 1e6);
        let drift = 100.0 * (self.whole.over(&self.before) - 1.0);
        let off = format!(
            "the sum is {off:+.1} % off the whole, which differs by {drift:+.1} % from before its parts were timed"
        );
        text.extend([&off, "; ", &speed, " tokens/s\n"]);
        if self.timings().any(Timing::is_disturbed) {
            text.push_str("~: other processes loaded the machine; time again when it is quiet\n");
        }
        text
    }

    fn timings(&self) -> impl Iterator<Item = &Timing> {
        self.rows.iter().map(|row| &row.timing).chain([&self.whole, &self.before])
    }

    fn json(&self) -> serde_json::Value {
        let rows: Vec<_> = self.rows.iter().map(Row::json).collect();
        json!({
            "conditions": self.conditions,
            "limits": self.limits.as_ref().map(|limits| json!({
                "read_mib": limits.read_mib,
                "read_gb_per_s": limits.read_bytes_per_us / 1e3,
                "product_gflop_per_s": limits.flops_per_us / 1e3,
            })),
            "parts": rows,
            "sum_us": self.sum_us(),
            "bound_us": self.bound_us(),
            "whole": self.whole,
            "whole_before": self.before,
        })
    }
}

impl Row {
    fn json(&self) -> serde_json::Value {
        json!({
            "layer": self.name,
            "part": parts::name(&self.part),
            "timing": self.timing,
            "bytes": self.bytes,
            "flops": self.flops,
            "bound_us": self.bound_us,
        })
    }
}
