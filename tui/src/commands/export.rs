//! `deltafront export`

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use db::Store;
use db::snapshot::{Candidate, Snapshot};
use search::Architecture;
use search::campaign::CandidateState;
use search::config::LatencyConfig;
use search::latency::Timing;
use search::metric::Metric;
use search::subject::Assignment;
use search::wire::Value;
use serde::Serialize;

use super::{block_on, candidate, open};

/// The config holds the stack layer by layer, what was measured of it and under which conditions.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The campaign.
    campaign: String,
    /// The candidate: its number, the first digits of its id, or the name of its reference stack.
    candidate: String,
    /// Form of the config; else by the ending of the file, else JSON.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Where to write it; else stdout.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Overwrite a file that is there already.
    #[arg(long, requires = "output")]
    force: bool,
}

/// Form of a config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Json,
    Toml,
}

/// The exported config. The names in it are read by other software: they only ever grow.
#[derive(Serialize)]
struct Config {
    /// Name and version of this form.
    format: &'static str,
    /// The canonical text of the architecture, which parses back to it.
    text: String,
    /// The identity of the architecture.
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    architecture: Option<Architecture>,
    /// Of a black box.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Assignment>,
    /// Values by name; `mean` and, where it is known, `standard_error`.
    values: BTreeMap<String, Value>,
    latency: Latency,
    training: Training,
    provenance: Provenance,
}

#[derive(Serialize)]
struct Latency {
    /// The device by name, as the profiler reported it.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    conditions: LatencyConfig,
    #[serde(skip_serializing_if = "Option::is_none")]
    decode_whole: Option<Timing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefill_whole: Option<Timing>,
}

#[derive(Serialize)]
struct Training {
    tokens: u64,
    seconds: f64,
    /// Of initialisation and data order.
    seed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<String>,
}

#[derive(Serialize)]
struct Provenance {
    campaign: String,
    candidate: u32,
    origin: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    /// Rank of non-domination in the campaign when this was exported; 0: on the front.
    #[serde(skip_serializing_if = "Option::is_none")]
    rank: Option<u32>,
    campaign_seed: u64,
    campaign_created_unix_s: i64,
    deltafront: &'static str,
    workers: Vec<Worker>,
    /// The campaign file.
    campaign_file: String,
}

#[derive(Serialize)]
struct Worker {
    role: String,
    #[serde(rename = "worker")]
    program: String,
    device: String,
}

pub(crate) fn run(db: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    let (config, is_done) = block_on(async {
        let store = open(db).await?;
        let snapshot = store.snapshot(&args.campaign).await?;
        let candidate = candidate(&snapshot, &args.candidate)?;
        let is_done = candidate.row.state == CandidateState::Done;
        anyhow::Ok((config(&store, &snapshot, candidate).await?, is_done))
    })?;
    let mut stderr = std::io::stderr();
    if !is_done {
        writeln!(
            stderr,
            "note: candidate {} is not trained and timed; the config holds what is known of it so far",
            config.provenance.candidate
        )?;
    }
    let text = config.text(format(args)?)?;
    match &args.output {
        None => std::io::stdout().write_all(text.as_bytes())?,
        Some(file) => {
            crate::whole_file::write(file, &text, args.force, db)?;
            writeln!(stderr, "wrote {}", file.display())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the config of a candidate as JSON into a new file in the current folder, for the screens; says which.
pub(super) fn to_new_file(db: &Path, snapshot: &Snapshot, number: u32) -> anyhow::Result<PathBuf> {
    let name = &snapshot.campaign.name;
    let config = block_on(async {
        let store = open(db).await?;
        let snapshot = store.snapshot(name).await?;
        let candidate = candidate(&snapshot, &number.to_string())?;
        config(&store, &snapshot, candidate).await
    })?;
    let file = PathBuf::from(format!("{}-{number}.json", super::file_name(name)));
    crate::whole_file::write(&file, &config.text(Format::Json)?, false, db)?;
    Ok(file)
}

impl Config {
    fn text(&self, format: Format) -> anyhow::Result<String> {
        Ok(match format {
            Format::Json => serde_json::to_string_pretty(self)? + "\n",
            Format::Toml => {
                toml::to_string_pretty(self).context("cannot write the config as TOML")?
            }
        })
    }
}

async fn config(
    store: &Store,
    snapshot: &Snapshot,
    candidate: &Candidate,
) -> anyhow::Result<Config> {
    let campaign = &snapshot.campaign;
    let workers = store.workers(&campaign.name).await?;
    Ok(Config {
        format: "deltafront-stack-1",
        text: candidate.row.subject.to_string(),
        id: candidate.id.to_string(),
        architecture: candidate.row.subject.stack().cloned(),
        parameters: candidate.row.subject.assignment().cloned(),
        values: candidate.row.values.clone(),
        latency: Latency {
            device: workers.iter().find(|row| row.role == "profiler").map(|row| row.device.clone()),
            conditions: campaign.latency.clone(),
            decode_whole: candidate.whole(Metric::DecodeUs.name()).cloned(),
            prefill_whole: candidate.whole(Metric::PrefillUs.name()).cloned(),
        },
        training: Training {
            tokens: candidate.row.tokens,
            seconds: candidate.row.train_seconds,
            seed: candidate.row.seed,
            checkpoint: candidate
                .row
                .checkpoint
                .as_ref()
                .map(|path| path.to_string_lossy().into_owned()),
        },
        provenance: Provenance {
            campaign: campaign.name.clone(),
            candidate: candidate.row.number,
            origin: candidate.row.origin.clone(),
            reference: candidate.row.reference.clone(),
            rank: candidate.rank,
            campaign_seed: campaign.seed,
            campaign_created_unix_s: campaign.created_unix_s,
            deltafront: env!("CARGO_PKG_VERSION"),
            workers: workers
                .into_iter()
                .map(|row| Worker { role: row.role, program: row.worker, device: row.device })
                .collect(),
            campaign_file: campaign.config_toml.clone(),
        },
    })
}

fn format(args: &Args) -> anyhow::Result<Format> {
    if let Some(format) = args.format {
        return Ok(format);
    }
    match args.output.as_deref().and_then(Path::extension).and_then(|ending| ending.to_str()) {
        Some("toml") => Ok(Format::Toml),
        Some("json") | None => Ok(Format::Json),
        Some(other) => {
            bail!("the form of a .{other} file is unknown: add --format json or --format toml")
        }
    }
}
