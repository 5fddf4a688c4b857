//! Which stacks an export is of, what is known of them, and their weights.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use db::Store;
use db::snapshot::{Candidate, Snapshot};
use search::Architecture;
use search::campaign::CandidateState;
use search::config::{CampaignFile, TrainingConfig};
use search::metric::Metric;
use search::subject::Subject;

use crate::commands::{candidate, open};
use crate::export::{
    Element, Folder, Latency, Logits, Provenance, StackFile, Target, Tokens, Training, Weights,
    Worker,
};

/// What the command line says of weights.
#[derive(clap::Args)]
pub(super) struct Wanted {
    /// Untrained weights, for the stack as it stands in the campaign, not for its proxy.
    #[arg(long)]
    random: bool,
    /// Seed of the untrained weights. Default: that of the candidate's training.
    #[arg(long, requires = "random", value_name = "N")]
    seed: Option<u64>,
    /// Type of the exported weights.
    #[arg(long, value_enum, default_value = "fp32")]
    dtype: Element,
}

/// One stack to export, and what is known of it.
pub(super) struct Chosen {
    pub(super) file: StackFile,
    /// Its number in its campaign.
    pub(super) number: Option<u32>,
    pub(super) is_done: bool,
    checkpoint: Option<PathBuf>,
    seed: u64,
}

/// What all stacks of a campaign have in common.
pub(super) struct Setting {
    /// What the names of files begin with.
    pub(super) name: String,
    training: TrainingConfig,
    validation_fraction: f64,
    /// None: there is no text, so ids are symbols.
    tokens: Tokens,
}

impl Chosen {
    /// The stack.
    pub(super) fn stack(&self) -> anyhow::Result<Architecture> {
        self.file
            .architecture
            .clone()
            .context("the campaign optimises a black box: it has no stacks, only json and toml")
    }

    /// For people.
    pub(super) fn name(&self) -> String {
        self.number.map_or_else(|| "the stack".to_owned(), |number| format!("candidate {number}"))
    }
}

/// The stacks that the command line names: a candidate of a campaign, its front, or one that is in no campaign.
pub(super) async fn find(
    db: &Path,
    campaign: &str,
    word: Option<&str>,
    front: bool,
) -> anyhow::Result<(Setting, Vec<Chosen>)> {
    if word.is_none() && !front {
        let stack = crate::export::read(campaign)?;
        let name = Path::new(campaign).file_stem().filter(|_| !campaign.contains('|'));
        let setting = Setting {
            name: name.map_or("stack".into(), |name| name.to_string_lossy().into_owned()),
            training: TrainingConfig::default(),
            validation_fraction: 0.1,
            tokens: Tokens::Bytes,
        };
        let file = StackFile::bare(stack);
        let path = PathBuf::from(campaign);
        let checkpoint = crate::export::is_checkpoint(&path).then_some(path);
        let one = Chosen { file, number: None, is_done: true, checkpoint, seed: 0 };
        return Ok((setting, vec![one]));
    }
    let store = open(db).await?;
    let snapshot = store.snapshot(campaign).await?;
    let candidates: Vec<&Candidate> = match word {
        Some(word) => vec![candidate(&snapshot, word)?],
        None => snapshot.candidates.iter().filter(|one| one.rank == Some(0)).collect(),
    };
    if candidates.is_empty() {
        bail!("nothing of campaign `{campaign}` is on its front yet");
    }
    let mut chosen = Vec::new();
    for candidate in candidates {
        chosen.push(Chosen {
            file: file(&store, &snapshot, candidate).await?,
            number: Some(candidate.row.number),
            is_done: candidate.row.state == CandidateState::Done,
            checkpoint: candidate.row.checkpoint.clone(),
            seed: candidate.row.seed,
        });
    }
    let folder = PathBuf::from(store.config_folder(campaign).await?);
    Ok((setting(&snapshot, &folder), chosen))
}

/// What the campaign's own file says; of one that does not parse, a black box's say, nothing is known.
fn setting(snapshot: &Snapshot, folder: &Path) -> Setting {
    let name = crate::commands::file_name(&snapshot.campaign.name);
    let Ok(file) = CampaignFile::parse(&snapshot.campaign.config_toml) else {
        let training = TrainingConfig::default();
        return Setting { name, training, validation_fraction: 0.1, tokens: Tokens::Symbols };
    };
    let training =
        crate::commands::run::settled(&file.training, &file.search.rungs, file.search.concurrency);
    let (tokens, validation_fraction) = match &file.data {
        None => (Tokens::Symbols, 0.1),
        Some(data) => {
            let tokens = match &data.tokenizer {
                Some(path) => Tokens::File(folder.join(path)),
                None => Tokens::Bytes,
            };
            (tokens, data.validation_fraction)
        }
    };
    Setting { name, training, validation_fraction, tokens }
}

/// Refuses `stack`, of `one` or its proxy, where `target` cannot hold it.
pub(super) fn refuse_obstacles(
    one: &Chosen,
    stack: &Architecture,
    target: &Target,
) -> anyhow::Result<()> {
    let obstacles = target.obstacles(stack).unwrap_or_default();
    if obstacles.is_empty() {
        return Ok(());
    }
    let list: Vec<String> =
        obstacles.iter().map(|obstacle| format!("  {}", obstacle.text())).collect();
    bail!("{} cannot hold {}:\n{}", target.name, one.name(), list.join("\n"))
}

/// What is written of one stack into a target with weights.
pub(super) fn folder(
    setting: &Setting,
    one: &Chosen,
    wanted: &Wanted,
    target: &Target,
) -> anyhow::Result<Folder> {
    let stack = one.stack()?;
    let seed = wanted.seed.unwrap_or(one.seed);
    let logits = target.form.logits();
    let mut weights = match (&one.checkpoint, wanted.random) {
        (_, true) => {
            let normalised = setting.training.weight_normalisation || logits == Logits::Divided;
            Weights::random(stack, seed, normalised)
        }
        (Some(checkpoint), false) => Weights::trained(checkpoint)?,
        (None, false) => {
            bail!(
                "{} has no trained weights, of which `storage.checkpoints` says whose are kept; --random exports it with \
                 untrained ones",
                one.name()
            )
        }
    };
    refuse_obstacles(one, weights.stack(), target)?;
    match logits {
        Logits::Plain => weights.divide_head()?,
        Logits::AsTrained => {}
        Logits::Divided if weights.divided_logits => {}
        Logits::Divided => bail!(
            "{} divides logits by the norms of the head's rows, and {} was trained without: train it with \
             weight_normalisation = true, or --random begins anew",
            target.name,
            one.name()
        ),
    }
    let enough = weights.stack().vocab() >= 256;
    Ok(Folder {
        file: one.file.clone(),
        element: wanted.dtype,
        tokens: if enough || setting.tokens != Tokens::Bytes {
            setting.tokens.clone()
        } else {
            Tokens::Symbols
        },
        training: setting.training.clone(),
        seed,
        validation_fraction: setting.validation_fraction,
        weights,
    })
}

/// What is known of a candidate.
pub(super) async fn file(
    store: &Store,
    snapshot: &Snapshot,
    candidate: &Candidate,
) -> anyhow::Result<StackFile> {
    let campaign = &snapshot.campaign;
    let workers = store.workers(&campaign.name).await?;
    let row = &candidate.row;
    let subject: &Subject = &row.subject;
    Ok(StackFile {
        format: crate::export::FORMAT,
        text: subject.to_string(),
        id: candidate.id.to_string(),
        architecture: subject.stack().cloned(),
        parameters: subject.assignment().cloned(),
        values: row.values.iter().map(|(name, value)| (name.to_string(), *value)).collect(),
        latency: Some(Latency {
            device: workers.iter().find(|row| row.role == "profiler").map(|row| row.device.clone()),
            conditions: campaign.latency.clone(),
            decode_whole: candidate.whole(Metric::DecodeUs.name()).cloned(),
            prefill_whole: candidate.whole(Metric::PrefillUs.name()).cloned(),
        }),
        training: Some(Training {
            tokens: row.tokens,
            seconds: row.train_seconds,
            seed: row.seed,
            checkpoint: row.checkpoint.as_ref().map(|path| path.to_string_lossy().into_owned()),
        }),
        provenance: Some(Provenance {
            campaign: campaign.name.clone(),
            candidate: row.number,
            origin: row.origin.clone(),
            reference: row.reference.clone(),
            rank: candidate.rank,
            campaign_seed: campaign.seed,
            campaign_created_unix_s: campaign.created_unix_s,
            deltafront: env!("CARGO_PKG_VERSION"),
            workers: workers
                .into_iter()
                .map(|row| Worker { role: row.role, program: row.worker, device: row.device })
                .collect(),
            campaign_file: campaign.config_toml.clone(),
        }),
    })
}
