//! `deltafront export`

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use db::Store;
use db::snapshot::{Candidate, Snapshot};
use search::campaign::CandidateState;
use search::config::{CampaignFile, TrainingConfig};
use search::metric::Metric;
use search::{Architecture, subject::Subject};

use super::{block_on, candidate, open};
use crate::export::{
    Element, Folder, Form, Latency, Provenance, StackFile, TARGETS, TableForm, Target, TextForm,
    Tokens, Training, Weights, Worker, fill, gguf, table, target, targets_text,
};
use crate::whole;

fn help() -> String {
    format!(
        "\
Targets:
{}
Examples:
  deltafront export my-campaign 17                             the stack and what is known of it, JSON on stdout
  deltafront export my-campaign 17 --to hf                     its trained proxy as a folder for transformers
  deltafront export my-campaign 17 --to hf --random --dtype bf16   the stack itself, ready for a real training
  deltafront export my-campaign 17 --check                     which targets hold it, and what would have to change
  deltafront export my-campaign --front --to hf -o front       every member of the front, a folder each
  deltafront export my-campaign --to optuna -o study.db        the whole campaign, for optuna-dashboard
  deltafront export stack.json --to hf --random                a stack that is in no campaign",
        targets_text()
    )
}

/// Writes a stack, or a whole campaign, in a form that other software reads.
#[derive(clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[command(after_help = help())]
pub(crate) struct Args {
    /// The campaign; without a candidate: a stack, as its text or a file that holds it.
    campaign: String,
    /// The candidate: its number, the first digits of its id, or the name of its reference stack.
    candidate: Option<String>,
    /// What to write; else by the ending of the file, else json.
    #[arg(long, value_parser = target, value_name = "TARGET", conflicts_with = "format")]
    to: Option<&'static Target>,
    /// The same for json and toml.
    #[arg(long, value_enum)]
    format: Option<TextForm>,
    /// Where to write it; else texts go to stdout, folders to CAMPAIGN-NUMBER-TARGET.
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Overwrite a file that is there already, or a folder that an export wrote.
    #[arg(long)]
    force: bool,
    /// Every member of the front, into one folder.
    #[arg(long, conflicts_with = "candidate")]
    front: bool,
    /// Say for every target whether it holds the stack, and what would have to change.
    #[arg(long, conflicts_with_all = ["to", "format", "output", "front"])]
    check: bool,
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
struct Chosen {
    file: StackFile,
    /// Its number in its campaign.
    number: Option<u32>,
    is_done: bool,
    checkpoint: Option<PathBuf>,
    seed: u64,
}

/// What all stacks of a campaign have in common.
struct Setting {
    /// What the names of files begin with.
    name: String,
    training: TrainingConfig,
    validation_fraction: f64,
    /// None: there is no text, so ids are symbols.
    tokens: Tokens,
}

pub(crate) fn run(db: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(Target { form: Form::Table(form), .. }) = args.to {
        return table(db, args, *form);
    }
    let (setting, mut chosen) = block_on(find(db, args))?;
    if args.check {
        let [one] = chosen.as_slice() else { bail!("name the candidate that is to be checked") };
        return check(one);
    }
    let form = form(args)?;
    if args.front {
        return front(&setting, &chosen, form, args);
    }
    let one = chosen.swap_remove(0);
    if !one.is_done {
        say(&format!(
            "note: candidate {} is not trained and timed; the config holds what is known of it so far",
            one.number.unwrap_or_default()
        ))?;
    }
    match form {
        Form::Table(_) => bail!("this target is of a whole campaign"),
        Form::Text(form) => {
            let text = one.file.text(form)?;
            match &args.output {
                None => std::io::stdout().write_all(text.as_bytes())?,
                Some(file) => {
                    whole::write(file, &text, args.force, db)?;
                    say(&format!("wrote {}", file.display()))?;
                }
            }
        }
        Form::Folder(_) | Form::Gguf => {
            let to = args.to.map_or("", |target| target.name);
            let number = one.number.map_or(String::new(), |number| format!("-{number}"));
            let (between, dialect) = match form {
                Form::Folder(dialect) => ('-', Some(dialect)),
                _ => ('.', None),
            };
            let place = args
                .output
                .clone()
                .unwrap_or_else(|| PathBuf::from(format!("{}{number}{between}{to}", setting.name)));
            let folder = folder(&setting, &one, args, form)?;
            match dialect {
                Some(dialect) => {
                    whole::write_folder(&place, args.force, |part| fill(dialect, &folder, part))?;
                }
                None => {
                    whole::write_by(&place, args.force, db, |part| gguf::write(&folder, part))?;
                }
            }
            let what = if folder.weights.are_trained() { "trained" } else { "random" };
            let proxy = if *folder.weights.stack() == one.stack()? { "" } else { " of the proxy" };
            say(&format!("wrote {}: {what} weights{proxy}", place.display()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes every member of the front into one folder, with an index.
fn front(
    setting: &Setting,
    chosen: &[Chosen],
    form: Form,
    args: &Args,
) -> anyhow::Result<ExitCode> {
    let place = args
        .output
        .as_ref()
        .context("-o names the folder that the members of the front are written into")?;
    whole::write_folder(place, args.force, |part| {
        let mut index = String::new();
        for one in chosen {
            let number = one.number.context("members of a front are in a campaign")?;
            let path = match form {
                Form::Text(form) => {
                    let path = format!("{number}.{}", form.ending());
                    std::fs::write(part.join(&path), one.file.text(form)?)?;
                    path
                }
                Form::Folder(dialect) => {
                    let path = part.join(number.to_string());
                    std::fs::create_dir(&path)?;
                    fill(dialect, &folder(setting, one, args, form)?, &path)?;
                    number.to_string()
                }
                Form::Gguf => {
                    let path = format!("{number}.gguf");
                    gguf::write(&folder(setting, one, args, form)?, &part.join(&path))?;
                    path
                }
                Form::Table(_) => bail!("a table is one file"),
            };
            let line = serde_json::json!({
                "candidate": number, "path": path, "id": one.file.id, "text": one.file.text,
                "values": one.file.values,
            });
            writeln!(index, "{line}")?;
        }
        Ok(std::fs::write(part.join(whole::MARKS[1]), index)?)
    })?;
    say(&format!("wrote {}, {} stacks", place.display(), chosen.len()))?;
    Ok(ExitCode::SUCCESS)
}

impl Chosen {
    fn stack(&self) -> anyhow::Result<Architecture> {
        self.file
            .architecture
            .clone()
            .context("the campaign optimises a black box: it has no stacks, only json and toml")
    }

    fn name(&self) -> String {
        self.number.map_or_else(|| "the stack".to_owned(), |number| format!("candidate {number}"))
    }
}

/// The folder of one stack.
fn folder(setting: &Setting, one: &Chosen, args: &Args, form: Form) -> anyhow::Result<Folder> {
    let stack = one.stack()?;
    let seed = args.seed.unwrap_or(one.seed);
    let mut weights = match (&one.checkpoint, args.random) {
        (_, true) => Weights::random(stack, seed, setting.training.weight_normalisation),
        (Some(checkpoint), false) => Weights::trained(checkpoint)?,
        (None, false) => {
            bail!("{} has no trained weights; --random exports it with untrained ones", one.name())
        }
    };
    let obstacles = form.obstacles(weights.stack()).unwrap_or_default();
    if !obstacles.is_empty() {
        let list: Vec<String> =
            obstacles.iter().map(|obstacle| format!("  {}", obstacle.text())).collect();
        let to = args.to.map_or("", |target| target.name);
        bail!("{to} cannot hold {}:\n{}", one.name(), list.join("\n"));
    }
    if !form.divides_logits() {
        weights.divide_head()?;
    }
    let enough = weights.stack().vocab() >= 256;
    Ok(Folder {
        file: one.file.clone(),
        element: args.dtype,
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

/// Says for every target whether it holds the stack.
fn check(one: &Chosen) -> anyhow::Result<ExitCode> {
    let stack = one.stack()?;
    let mut text = format!("{stack}\n");
    for target in TARGETS {
        let Some(obstacles) = target.form.obstacles(&stack) else { continue };
        let verdict = if obstacles.is_empty() {
            "loads"
        } else if obstacles.iter().all(|obstacle| obstacle.change.is_some()) {
            "loads after a change"
        } else {
            "cannot"
        };
        writeln!(text, "{:<16} {verdict}", target.name)?;
        for obstacle in obstacles {
            writeln!(text, "{:<16}   {}", "", obstacle.text())?;
        }
    }
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a whole campaign, or its front.
fn table(db: &Path, args: &Args, form: TableForm) -> anyhow::Result<ExitCode> {
    if args.candidate.is_some() {
        bail!(
            "this target is of a whole campaign: leave the candidate out; --front keeps to the front"
        );
    }
    let snapshot = block_on(async { Ok(open(db).await?.snapshot(&args.campaign).await?) })?;
    let candidates: Vec<&Candidate> = snapshot
        .candidates
        .iter()
        .filter(|candidate| !args.front || candidate.rank == Some(0))
        .collect();
    let text = match form {
        TableForm::Csv => table::csv(&candidates),
        TableForm::Jsonl => table::jsonl(&candidates)?,
        TableForm::Optuna => {
            let Some(file) = &args.output else { bail!("-o names the file of the study") };
            let study = table::study(&snapshot.campaign, &candidates);
            whole::write_by(file, args.force, db, |part| {
                block_on(async { Ok(study.write(part).await?) })
            })?;
            say(&format!("wrote {}; optuna-dashboard sqlite:///{0} shows it", file.display()))?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    match &args.output {
        None => std::io::stdout().write_all(text.as_bytes())?,
        Some(file) => {
            whole::write(file, &text, args.force, db)?;
            say(&format!("wrote {}, {} candidates", file.display(), candidates.len()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The stacks that the command line names.
async fn find(db: &Path, args: &Args) -> anyhow::Result<(Setting, Vec<Chosen>)> {
    if args.candidate.is_none() && !args.front {
        let stack = crate::export::read(&args.campaign)?;
        let name = Path::new(&args.campaign).file_stem().filter(|_| !args.campaign.contains('|'));
        let setting = Setting {
            name: name.map_or("stack".into(), |name| name.to_string_lossy().into_owned()),
            training: TrainingConfig::default(),
            validation_fraction: 0.1,
            tokens: Tokens::Bytes,
        };
        let file = StackFile::bare(stack);
        let one = Chosen { file, number: None, is_done: true, checkpoint: None, seed: 0 };
        return Ok((setting, vec![one]));
    }
    let store = open(db).await?;
    let snapshot = store.snapshot(&args.campaign).await?;
    let candidates: Vec<&Candidate> = match &args.candidate {
        Some(word) => vec![candidate(&snapshot, word)?],
        None => snapshot.candidates.iter().filter(|one| one.rank == Some(0)).collect(),
    };
    if candidates.is_empty() {
        bail!("nothing of campaign `{}` is on its front yet", args.campaign);
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
    let folder = PathBuf::from(store.config_folder(&args.campaign).await?);
    Ok((setting(&snapshot, &folder), chosen))
}

/// What the campaign's own file says; of one that does not parse, a black box's say, nothing is known.
fn setting(snapshot: &Snapshot, folder: &Path) -> Setting {
    let name = super::file_name(&snapshot.campaign.name);
    let Ok(file) = CampaignFile::parse(&snapshot.campaign.config_toml) else {
        let training = TrainingConfig::default();
        return Setting { name, training, validation_fraction: 0.1, tokens: Tokens::Symbols };
    };
    let training = super::run::settled(&file.training, &file.search.rungs, file.search.concurrency);
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

/// Writes the config of a candidate as JSON into a new file in the current folder, for the screens; says which.
pub(super) fn to_new_file(db: &Path, snapshot: &Snapshot, number: u32) -> anyhow::Result<PathBuf> {
    let name = &snapshot.campaign.name;
    let config = block_on(async {
        let store = open(db).await?;
        let snapshot = store.snapshot(name).await?;
        let candidate = candidate(&snapshot, &number.to_string())?;
        file(&store, &snapshot, candidate).await
    })?;
    let file = PathBuf::from(format!("{}-{number}.json", super::file_name(name)));
    whole::write(&file, &config.text(TextForm::Json)?, false, db)?;
    Ok(file)
}

async fn file(
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
        values: row.values.clone(),
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

/// What to write.
fn form(args: &Args) -> anyhow::Result<Form> {
    if let Some(target) = args.to {
        return Ok(target.form);
    }
    if let Some(form) = args.format {
        return Ok(Form::Text(form));
    }
    match args.output.as_deref().and_then(Path::extension).and_then(|ending| ending.to_str()) {
        _ if args.front => Ok(Form::Text(TextForm::Json)),
        Some("toml") => Ok(Form::Text(TextForm::Toml)),
        Some("json") | None => Ok(Form::Text(TextForm::Json)),
        Some(other) => {
            bail!(
                "the form of a .{other} file is unknown: add --format json or --format toml, or --to with a target"
            )
        }
    }
}

fn say(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stderr(), "{text}")
}
