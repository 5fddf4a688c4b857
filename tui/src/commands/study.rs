//! `deltafront study`

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use db::snapshot::{CampaignState, Snapshot};
use db::{Access, Change, DbError, NewCampaign, Store};
use search::config::{CampaignFile, TaskConfig};
use search::studies::{self, Made, Study, Terms};
use tui::quantity;

use super::campaign_file::{absolute, refuse_changes};
use super::compare::{nearest, stored};
use super::contents::Inputs;
use super::list::state_word;
use super::run::{self, Conclusion, Files, drive_to_end, job, profiler};
use super::watching::Watching;
use super::{INTERRUPTED, products};
use crate::driver::{Profiler, say};
use crate::report::study::Page;
use crate::{report, whole, words};

const EXAMPLES: &str = "\
Examples:
  deltafront study                                       which there are, and how they stand
  deltafront study placement --corpus corpus.txt         train its arms from five seeds, and say what came out
  deltafront study placement --seeds 8                   three seeds more; or the rest, after Ctrl-C
  deltafront study placement --page placement.md         write the page to a file
  deltafront study placement --json                      the same for programs

A study is a campaign of its own, `study-NAME`: Ctrl-C pauses it, the same command goes on, and `show`, `browse` and
`report` show it too.";

/// Repeat a published finding with small trainings: does it come out?
///
/// A few stacks are trained alike from several seeds; what is claimed of them is held against the differences, seed by seed, with
/// their 95 % intervals.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The study. Default: list them.
    name: Option<String>,
    /// The text to train on: a text file, a folder of .txt, a .jsonl or u16 tokens (.bin). Asked for when a study on text begins.
    #[arg(long, value_name = "PATH")]
    corpus: Option<PathBuf>,
    /// Seeds that each stack is trained from. Default: those of the study.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    seeds: Option<u32>,
    /// Tokens of the text for each training. Default: those of the study.
    #[arg(long, value_name = "N")]
    tokens: Option<u64>,
    /// Write the page to this file, too.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// Overwrite a page that is there.
    #[arg(long, requires = "page")]
    force: bool,
    /// Plain lines instead of bars, as when stderr is not a terminal.
    #[arg(long)]
    plain: bool,
    #[command(flatten)]
    watching: Watching,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(db: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    let Some(name) = &args.name else { return super::block_on(list(db)) };
    let study = studies::named(name).with_context(|| {
        let names: Vec<&str> = studies::studies().iter().map(|study| study.name).collect();
        format!("there is no study `{name}`; there are {}", names.join(", "))
    })?;
    args.watching.open_log()?;
    super::block_on_threads(run_study(db, &study, args))
}

/// The name of a study's campaign.
fn campaign_of(study: &Study) -> String {
    format!("study-{}", study.name)
}

/// All studies, with how they stand in the database, if there is one.
async fn list(db: &Path) -> anyhow::Result<ExitCode> {
    let campaigns =
        if db.exists() { super::open(db).await?.campaigns().await? } else { Vec::new() };
    let mut rows = Vec::new();
    for study in studies::studies() {
        let name = campaign_of(&study);
        let state = campaigns.iter().find(|campaign| campaign.name == name);
        let state = state.map_or("–", |campaign| state_word(campaign.state));
        rows.push([study.name, state, study.title].map(str::to_owned).to_vec());
    }
    let text = words::table("lll", &rows);
    let next = format!("\n{} study NAME --help says how\n", words::program());
    std::io::stdout().write_all((text + &next).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

async fn run_study(db: &Path, study: &Study, args: &Args) -> anyhow::Result<ExitCode> {
    let name = campaign_of(study);
    // Before hours of work, not after them.
    if let Some(path) = &args.page {
        can_be_written(path, args.force)?;
    }
    let store = Store::open(db, Access::ReadWrite).await?;
    let before = match store.snapshot(&name).await {
        Ok(before) => Some(before),
        Err(DbError::NoCampaign { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let mut folder = std::env::current_dir().context("there is no current folder")?;
    let mut changes = Vec::new();
    let file = if let Some(before) = &before {
        folder = store.config_folder(&name).await?.into();
        let (file, is_changed) = going_on(before, study, args)?;
        if is_changed {
            changes.push(Change::Settings(new_campaign(&file, study, &folder)?));
        } else if before.campaign.state == CampaignState::Finished {
            return print(db, study, before, args).await;
        }
        file
    } else {
        begun(study, args, &folder).await?
    };
    let data = absolute(file.data.as_ref(), &folder, Path::new("--corpus"), "")?;
    let began = match &before {
        Some(_) => store.circumstances(&name).await?,
        None => Vec::new(),
    };
    let inputs = Inputs::read(data.as_ref(), &began)?;
    let differences = inputs.changes();
    if !differences.is_empty() {
        refuse_changes("what the study is trained on has changed", &name, &differences)?;
    }
    let files = Files::beside(db, &name);
    let bars = !args.plain && std::io::stderr().is_terminal();
    let mut job = job(&file, data, &folder, &files, bars)?;
    job.must_be_there()?;
    job.metrics = args.watching.endpoint().await?;
    if before.is_none() {
        store.create_campaign(&new_campaign(&file, study, &folder)?).await?;
        say(&format!("study `{}` begins in {}", study.name, db.display()));
    } else {
        say(&format!("study `{}` goes on", study.name));
    }
    job.trainer.introduction.expect(inputs.expected());
    changes.extend(inputs.to_remember());
    changes.extend(products::settle(&mut job.trainer, &began, before.is_none(), true).await);
    let again = format!("{} study{} {}", words::program(), report::db_flag(db), study.name);
    let notify = args.watching.notify(&file.notify, folder.clone());
    let conclusion = Conclusion { again, show: job.show, reports: false, notify };
    let code = drive_to_end(&store, job, changes, &files, conclusion).await?;
    if code == ExitCode::from(INTERRUPTED) {
        return Ok(code);
    }
    print(db, study, &super::open(db).await?.snapshot(&name).await?, args).await
}

fn can_be_written(path: &Path, force: bool) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        bail!("--page: there is no folder {}", folder.display());
    }
    if path.exists() && !force {
        bail!("{} is there already and was left alone; --force overwrites it", path.display());
    }
    Ok(())
}

/// The campaign file of a study that begins.
async fn begun(study: &Study, args: &Args, folder: &Path) -> anyhow::Result<CampaignFile> {
    if study.reads_text() && args.corpus.is_none() {
        bail!(
            "study `{}` trains on text: name one with --corpus PATH, a text file or a folder of .txt files",
            study.name
        );
    }
    let corpus = args.corpus.as_ref().map(std::path::absolute).transpose();
    let terms = Terms {
        corpus: corpus.context("cannot make the path of the corpus absolute")?,
        tokens: args.tokens,
        seeds: args.seeds,
        concurrency: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
    };
    let draft = study.campaign(BTreeMap::new(), &terms);
    absolute(draft.data.as_ref(), folder, Path::new("--corpus"), "")?;
    let file = study.campaign(stacks(study, &draft, folder).await?, &terms);
    // What `run` would refuse is refused here.
    CampaignFile::parse(&text(&file, study)?)
        .map_err(|error| anyhow::anyhow!("{}: {}", error.key, error.message))?;
    Ok(file)
}

/// The stacks of all arms by name, those of a time found by timing.
async fn stacks(
    study: &Study,
    draft: &CampaignFile,
    folder: &Path,
) -> anyhow::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut timing = None;
    if study.is_timed() {
        let mut profiler = Profiler::start(&profiler(&draft.latency, folder)?).await?;
        let (_, conditions) = draft.latency.latencies(profiler.device()).swap_remove(0);
        let wanted_us =
            profiler.whole("the first arm", study.first(), &conditions).await?.median_us;
        say(&format!(
            "{} decodes a token in {} µs; looking for the widths at which the others do",
            study.arms[0].name,
            quantity::significant(wanted_us)
        ));
        timing = Some((profiler, conditions, wanted_us));
    }
    for arm in &study.arms {
        let stack = match (&arm.made, &mut timing) {
            (Made::Given(stack), _) => stack.clone(),
            (&Made::AsFast { reference, layers }, Some((profiler, conditions, wanted_us))) => {
                let search = study.search(reference, layers, *wanted_us);
                let (stack, us) = nearest(search, reference, profiler, conditions)
                    .await
                    .with_context(|| format!("arm {}", arm.name))?;
                let off = 100.0 * (us / *wanted_us - 1.0);
                let us = quantity::significant(us);
                say(&format!("{}: width {}, {us} µs ({off:+.1} %)", arm.name, stack.d_model()));
                stack
            }
            (Made::AsFast { .. }, None) => unreachable!("a study with such an arm is timed"),
        };
        found.insert(arm.name.to_owned(), stack.to_string());
    }
    if let Some((profiler, ..)) = timing {
        profiler.dismiss().await;
    }
    Ok(found)
}

/// The campaign file of a study that is there, with what the command line says; and whether that changes it.
fn going_on(before: &Snapshot, study: &Study, args: &Args) -> anyhow::Result<(CampaignFile, bool)> {
    let campaign = &before.campaign;
    let name = &campaign.name;
    let mut file = stored(campaign)?;
    let is_arm = |arm: &studies::Arm| {
        let text = file.search.stacks.get(arm.name);
        text.is_some_and(|text| match &arm.made {
            Made::Given(stack) => *text == stack.to_string(),
            Made::AsFast { .. } => true,
        })
    };
    if file.search.stacks.len() != study.arms.len() || !study.arms.iter().all(is_arm) {
        bail!(
            "campaign `{name}` has other stacks than this program's study `{}`; take another --db",
            study.name
        );
    }
    if let Some(tokens) = args.tokens.filter(|tokens| *tokens != file.training.tokens) {
        bail!(
            "study `{}` began with {} tokens, not {tokens}; leave --tokens out to go on, or take another --db",
            study.name,
            file.training.tokens
        );
    }
    if let (Some(corpus), Some(data)) = (&args.corpus, &file.data)
        && std::path::absolute(corpus)? != data.corpus
    {
        bail!(
            "study `{}` began with {}; leave --corpus out to go on, or take another --db",
            study.name,
            data.corpus.display()
        );
    }
    if let Some(seeds) = args.seeds {
        file.trust.seeds = seeds;
    }
    let is_changed = text(&file, study)? != campaign.config_toml;
    Ok((file, is_changed))
}

fn new_campaign(file: &CampaignFile, study: &Study, folder: &Path) -> anyhow::Result<NewCampaign> {
    Ok(run::new_campaign(file, text(file, study)?, folder))
}

fn text(file: &CampaignFile, study: &Study) -> anyhow::Result<String> {
    let toml = toml::to_string(file).context("the campaign file cannot be written as TOML")?;
    Ok(format!("# Made by `deltafront study {}`: {}.\n{toml}", study.name, study.title))
}

async fn print(
    db: &Path,
    study: &Study,
    snapshot: &Snapshot,
    args: &Args,
) -> anyhow::Result<ExitCode> {
    let store = super::open(db).await?;
    let terms = terms(&store, snapshot).await?;
    let page = Page::of(study, snapshot, terms, command(study, snapshot)?);
    let text = page.text();
    if let Some(path) = &args.page {
        whole::write(path, &text, args.force, db)?;
        say(&format!("wrote {}: {}", path.display(), page.outcome()));
    }
    if args.json {
        let mut stdout = std::io::stdout();
        writeln!(stdout, "{}", serde_json::to_string_pretty(&page)?)?;
    } else if args.page.is_none() {
        std::io::stdout().write_all(text.as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The command that makes the page anew elsewhere.
fn command(study: &Study, snapshot: &Snapshot) -> anyhow::Result<String> {
    let file = stored(&snapshot.campaign)?;
    let mut line = vec![format!("deltafront study {}", study.name)];
    if let Some(data) = &file.data {
        let name = data.corpus.file_name().unwrap_or_default().to_string_lossy().into_owned();
        line.push(format!("--corpus {}", words::quoted(&name)));
        if file.training.tokens != study.tokens {
            line.push(format!("--tokens {}", file.training.tokens));
        }
    }
    if file.trust.seeds != study.seeds {
        line.push(format!("--seeds {}", file.trust.seeds));
    }
    line.push(format!("--page {}.md", study.name));
    Ok(line.join(" "))
}

/// How the arms were trained, in words.
async fn terms(store: &Store, snapshot: &Snapshot) -> anyhow::Result<String> {
    let campaign = &snapshot.campaign;
    let file = stored(campaign)?;
    let mut on = Vec::new();
    if let Some(data) = &file.data {
        let training = &file.training;
        on.push(format!(
            "{} bytes of {} in steps of {} × {}",
            quantity::scaled(training.tokens as f64),
            data.corpus.file_name().unwrap_or_default().to_string_lossy(),
            training.batch,
            training.sequence_length
        ));
    }
    on.extend(file.tasks.iter().map(of_task));
    let workers = store.workers(&campaign.name).await?;
    let trainer = workers.iter().rev().find(|worker| worker.role == "trainer");
    let machine = trainer
        .map_or_else(String::new, |trainer| format!(", {} on {}", trainer.worker, trainer.device));
    Ok(format!(
        "Trained on {}, by the training rule at its own rates, from {}{machine}, in {}.",
        on.join("; apart from that on "),
        words::count(file.trust.seeds as usize, "seed"),
        quantity::duration(campaign.active_seconds)
    ))
}

fn of_task(task: &TaskConfig) -> String {
    format!(
        "{} tokens of {} ({} items of {} in {})",
        quantity::scaled(task.tokens as f64),
        task.name(),
        task.items,
        task.symbols,
        task.sequence_length
    )
}
