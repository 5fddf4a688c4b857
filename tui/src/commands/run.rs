//! `deltafront run`

mod files;
mod joining;

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use db::snapshot::{CampaignKind, CampaignState, Candidate, Snapshot};
use db::{Access, Change, DbError, NewCampaign, Owner, RunEnd, Store};
use search::campaign::{CandidateState, Finish, Quiet, Settings};
use search::config::{CampaignFile, DataConfig, LatencyConfig, TrainingConfig};
use search::device::Device;
use search::proposals::Proposer;
use search::space::Space;
use search::subject::Subjects;
use search::wire::{Configure, Request};

pub(super) use self::files::Files;
use self::joining::Joining;
use super::campaign_file::{absolute, comparable, pointed};
use super::contents::Inputs;
use super::notify::{Notify, Told};
use super::setup::{Setup, references};
use super::watching::Watching;
use super::{INTERRUPTED, products, stack_files, training_rule};
use crate::driver::{
    self, Introduction, Job, Limits, Program, Role, Room, Show, Target, WorkerSpec, say,
};
use crate::{report, words};

/// A campaign of that name that is in the database already goes on where it stood, also after a crash.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The campaign file; `deltafront init` writes one.
    #[arg(default_value = "campaign.toml")]
    file: PathBuf,
    /// Plain lines instead of bars, as when stderr is not a terminal.
    #[arg(long)]
    plain: bool,
    #[command(flatten)]
    watching: Watching,
    #[command(flatten)]
    joining: Joining,
}

pub(crate) fn run(db: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    let (text, file, folder) = read(&args.file)?;
    args.watching.open_log()?;
    // Several trainers and the profiler talk at once, and SQLite's calls block.
    super::block_on_threads(campaign(db, args, &text, &file, &folder))
}

/// The text of a campaign file, what it says, and the folder that it lies in.
pub(super) fn read(path: &Path) -> anyhow::Result<(String, CampaignFile, PathBuf)> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("there is no {}; `deltafront init {0}` writes one to begin with", path.display())
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
    };
    let folder = std::path::absolute(path)
        .ok()
        .and_then(|path| path.parent().map(Path::to_owned))
        .context("cannot make the path of the campaign file absolute")?;
    let text = stack_files::read_in(&text, &folder)?;
    let file = CampaignFile::parse(&text)
        .map_err(|error| anyhow::anyhow!("{}", pointed(path, &text, &error)))?;
    Ok((text, file, folder))
}

/// What the store is told of a campaign of stacks: its file as `text`, and where that lies.
pub(super) fn new_campaign(file: &CampaignFile, text: String, folder: &Path) -> NewCampaign {
    NewCampaign {
        name: file.name.clone(),
        config_toml: text,
        config_folder: folder.to_string_lossy().into_owned(),
        seed: file.seed,
        kind: CampaignKind::Stacks,
        evaluations: file.search.evaluations,
        tokens: file.tokens(),
        target_tokens: file.target_tokens(),
        objectives: file.objectives(),
        latency: file.latency.clone(),
    }
}

/// Takes the campaign, drives it, gives it back and reports.
async fn campaign(
    db: &Path,
    args: &Args,
    text: &str,
    file: &CampaignFile,
    folder: &Path,
) -> anyhow::Result<ExitCode> {
    let data = absolute(file.data.as_ref(), folder, &args.file, text)?;
    let files = Files::beside(db, &file.name);
    let mut job =
        job(file, data.clone(), folder, &files, !args.plain && std::io::stderr().is_terminal())?;
    if args.joining.only_workers {
        job.trainers = 0;
    }
    args.joining.mark_elsewhere(&mut job.targets)?;
    job.must_be_there()?;
    job.metrics = args.watching.endpoint().await?;
    let profilers = job.targets.iter().map(|target| &target.profiler);
    for worker in std::iter::once(&job.trainer).chain(profilers) {
        let Introduction::Configure(configure) = &worker.introduction else { continue };
        let configure = Request::Configure((**configure).clone());
        configure.to_line().context("the paths of a campaign must be Unicode")?;
    }
    if let Some(parent) = db.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot make the folder {}", parent.display()))?;
    }
    let store = Store::open(db, Access::ReadWrite).await?;
    let new = new_campaign(file, text.to_owned(), folder);
    files.make()?;
    let mut setup = None;
    if !store.campaigns().await?.iter().any(|known| known.name == file.name) {
        setup = Some(Setup::look(file, &args.file, &job).await?);
    }
    match store.create_campaign(&new).await {
        Ok(()) => say(&format!("campaign `{}` begins in {}", file.name, db.display())),
        Err(DbError::CampaignExists { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let before = store.outline(&file.name).await?;
    let again = command(db, &args.file);
    // A campaign of which nothing was trained may change in everything: it begins anew.
    let is_changed =
        before.campaign.config_toml != text || before.campaign.objectives != new.objectives;
    let is_new = !before.candidates.iter().any(is_trained);
    let began = store.circumstances(&file.name).await?;
    let inputs = Inputs::read(data.as_ref(), &began)?;
    if before.campaign.is_black_box() {
        bail!(
            "campaign `{0}` is a black box's: `{1} optimize --name {0}` goes on with it; give this one another `name` \
             in {2}",
            file.name,
            words::program(),
            args.file.display()
        );
    }
    if !is_new {
        comparable(&before.campaign.config_toml, file, &args.file, &inputs)?;
        let done = done(&before);
        let finished = before.campaign.state == CampaignState::Finished;
        if finished && done >= file.search.evaluations as usize && !is_changed {
            report::print(&store, &file.name, &files.folder).await?;
            say(&format!(
                "campaign `{}` is finished; raise `search.evaluations` above {done} in {} to go on with it",
                file.name,
                args.file.display()
            ));
            return Ok(ExitCode::SUCCESS);
        }
        say(&format!(
            "campaign `{}` goes on: {done} of {} done",
            file.name, file.search.evaluations
        ));
    }
    let setup = match setup {
        Some(setup) => setup,
        None => Setup::look(file, &args.file, &job).await?,
    };
    setup.notes.iter().for_each(|note| say(note));
    (job.space, job.look) = (setup.space, setup.look);
    job.door = args.joining.door()?;
    job.deadline = deadline(file, before.campaign.active_seconds);
    let mut changes = Vec::new();
    if is_changed {
        changes.push(Change::Settings(new));
        if is_new {
            changes.push(Change::Forget);
        }
    }
    // Of many candidates that is much: the driver reads what it needs by itself.
    drop(before);
    changes.extend(inputs.to_remember());
    changes.extend(training_rule::keep(&file.name, &job.trainer, &began, is_new)?);
    changes.extend(
        products::settle(&mut job.trainer, &began, is_new, !args.joining.only_workers).await,
    );
    job.trainer.introduction.expect(inputs.expected());
    let show = job.show;
    let folder = folder.to_owned();
    let notify = args.watching.notify(&file.notify, folder);
    let conclusion = Conclusion { again, show, reports: true, notify };
    drive_to_end(&store, job, changes, &files, conclusion).await
}

/// What is said when a run is over.
pub(super) struct Conclusion {
    /// The command that goes on with the campaign.
    pub(super) again: String,
    pub(super) show: Show,
    /// Whether the campaign is reported at its end.
    pub(super) reports: bool,
    /// Who is told that it is over.
    pub(super) notify: Option<Notify>,
}

/// Takes the campaign, makes the changes, drives it, gives it back and reports.
pub(super) async fn drive_to_end<D: Subjects + Clone>(
    store: &Store,
    job: Job<D>,
    changes: Vec<Change>,
    files: &Files,
    Conclusion { again, show, reports, notify }: Conclusion,
) -> anyhow::Result<ExitCode> {
    let is_quiet = show == Show::Nothing;
    let (name, evaluations, give_up_after) =
        (job.name.clone(), job.settings.evaluations, job.settings.give_up_after);
    if let Some(host) = store.unclear_run(&name).await?
        && !is_quiet
    {
        say(&format!(
            "a run on {host} did not end, and its clock does not tell whether it lives: watching it for {} s",
            db::WATCH_S
        ));
    }
    let owner = Owner::current();
    let run = store.begin_run(&name, &owner, env!("CARGO_PKG_VERSION")).await?;
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(campaign = name, host = owner.host, version, "run begins");
    if run.took_over && !is_quiet {
        say("the run before this one ended without a word; what it had finished is kept");
    }
    let driven = async {
        files.make()?;
        if !changes.is_empty() {
            store.apply(&run, &changes).await?;
        }
        Box::pin(driver::drive(store, &run, job)).await
    }
    .await;
    let end = match &driven {
        Ok(Finish::Complete | Finish::Exhausted { .. }) => RunEnd::Finished,
        Ok(Finish::Stopped) => RunEnd::Paused,
        Ok(Finish::GaveUp { .. } | Finish::Halted { .. }) | Err(_) => RunEnd::Failed,
    };
    let given_back = store.end_run(&run, end).await;
    let (state, reason) = how_it_ended(&driven);
    tracing::info!(campaign = name, state, reason, "run ends");
    if let Some(notify) = notify.filter(|_| state != PAUSED) {
        let told = Told { campaign: &name, state, reason: &reason };
        notify.tell(told).await.iter().for_each(|trouble| say(trouble));
    }
    let finish = match driven {
        Ok(finish) => finish,
        // What is lost and how to go on is another matter then, and said already.
        Err(error) if matches!(error.downcast_ref(), Some(DbError::Gone { .. })) => {
            return Err(error);
        }
        Err(error) => {
            let hint = format!("nothing that was finished is lost; to go on: {again}");
            return Err(anyhow::anyhow!("{error:#}\n{hint}"));
        }
    };
    given_back?;
    if matches!(finish, Finish::Complete | Finish::Exhausted { .. }) {
        if reports {
            report::print(store, &name, &files.folder).await?;
        }
        let after = store.outline(&name).await?;
        if done(&after) == 0 {
            let show = format!(
                "{} show{} {}",
                words::program(),
                report::db_flag(store.path()),
                words::quoted(&name)
            );
            bail!(
                "none of {} could be evaluated; {show} --all says why",
                words::count(after.candidates.len(), "candidate")
            );
        }
    }
    let code = match finish {
        Finish::Complete => ExitCode::SUCCESS,
        Finish::Exhausted { reason } => {
            say(&format!("the search ended early: {reason}"));
            ExitCode::SUCCESS
        }
        Finish::Stopped => {
            let after = store.outline(&name).await?;
            let done = done(&after);
            say(&format!(
                "paused with {done} of {evaluations} done, all of it in {}; to go on: {again}",
                store.path().display()
            ));
            ExitCode::from(INTERRUPTED)
        }
        Finish::Halted { reason } => {
            bail!(
                "{reason}\nnothing that was finished is lost; when that is mended, go on: {again}"
            )
        }
        Finish::GaveUp { kind, reason } => {
            let (each, advice) = kind.map_or_else(Default::default, |kind| {
                (format!(", each of them by `{kind}`"), format!("{}\n", kind.advice()))
            });
            bail!(
                "gave up after {give_up_after} candidates in a row failed{each}, the last one because: {reason}\n{advice}\
                 {} show{} {} --all lists them; when the cause is gone, go on: {again}",
                words::program(),
                report::db_flag(store.path()),
                words::quoted(&name)
            );
        }
    };
    store.clone().close().await;
    Ok(code)
}

/// A run that the user stopped.
const PAUSED: &str = "paused";

/// How a run ended, for programs: a word, and a sentence where there is one.
fn how_it_ended(driven: &anyhow::Result<Finish>) -> (&'static str, String) {
    match driven {
        Ok(Finish::Complete) => ("finished", String::new()),
        Ok(Finish::Exhausted { reason }) => ("finished", reason.clone()),
        Ok(Finish::Stopped) => (PAUSED, String::new()),
        Ok(Finish::Halted { reason } | Finish::GaveUp { reason, .. }) => ("halted", reason.clone()),
        Err(error) => ("halted", format!("{error:#}")),
    }
}

/// Whether tokens were spent on a candidate, to an end.
fn is_trained(candidate: &Candidate) -> bool {
    match candidate.row.state {
        CandidateState::Done => true,
        CandidateState::Failed { .. } => !candidate.row.given_up,
        _ => false,
    }
}

pub(super) fn done(snapshot: &Snapshot) -> usize {
    snapshot
        .candidates
        .iter()
        .filter(|candidate| candidate.row.state == CandidateState::Done)
        .count()
}

/// The command that goes on with the campaign.
fn command(db: &Path, file: &Path) -> String {
    let file = if file == Path::new("campaign.toml") {
        String::new()
    } else {
        format!(" {}", words::quoted(&file.to_string_lossy()))
    };
    format!("{} run{file}{}", words::program(), report::db_flag(db))
}

/// What the driver needs, from what the file says.
pub(super) fn job(
    file: &CampaignFile,
    data: Option<DataConfig>,
    folder: &Path,
    files: &Files,
    bars: bool,
) -> anyhow::Result<Job<Space>> {
    let space = file.space()?;
    let references = references(file, &space)?;
    let trainers = file.search.concurrency.max(1);
    let program = match &file.evaluator.command {
        Some(line) => Program::Shell { line: line.clone(), folder: folder.to_owned() },
        None => Program::named(Role::Trainer)?,
    };
    let silence = Duration::try_from_secs_f64(file.evaluator.timeout_seconds)
        .context("evaluator.timeout_seconds is too long")?;
    let wall = Duration::try_from_secs_f64(3600.0 * file.evaluator.hours)
        .context("evaluator.hours is too long")?;
    let limits = Limits { wall: Some(wall), memory_gb: file.evaluator.memory_gb };
    Ok(Job {
        name: file.name.clone(),
        settings: Settings {
            seed: file.seed,
            evaluations: file.search.evaluations,
            refusals_count: false,
            objectives: file.objectives(),
            tokens: file.tokens(),
            target_tokens: file.target_tokens(),
            rungs: file.search.rungs.clone(),
            promote: file.search.promote,
            trust: file.trust(),
            latencies: Vec::new(),
            throughput: None,
            limits: file.limits(),
            attempts: file.search.attempts,
            give_up_after: file.search.give_up_after,
            // Known once the workers are.
            quiet: Quiet::default(),
            time_whole_models: file.latency.time_whole_models,
            whole_only: BTreeSet::new(),
            keep: file.storage.checkpoints,
        },
        targets: targets(file, folder, files, silence, limits)?,
        space,
        proposer: Proposer::new(file.search.algorithm, file.seed, file.search.start, references),
        trainer: WorkerSpec {
            role: Role::Trainer,
            program,
            introduction: Introduction::Configure(Box::new(Configure {
                data,
                training: Some(settled(&file.training, &file.search.rungs, trainers)),
                tasks: file.tasks.clone(),
                // Found out when the campaign is taken.
                contents: BTreeMap::new(),
                latency: None,
                checkpoints: Some(files.checkpoints()),
            })),
            log: files.log(Role::Trainer),
            silence,
            limits,
        },
        trainers,
        look: None,
        door: None,
        metrics: None,
        // Known when it is known how long the campaign was at work before.
        deadline: None,
        show: if bars { Show::Bars } else { Show::Lines },
        room: Some(Room { folder: files.folder.clone(), free_gb: file.storage.free_gb }),
    })
}

/// What candidates are timed on, all of it here.
fn targets(
    file: &CampaignFile,
    folder: &Path,
    files: &Files,
    silence: Duration,
    limits: Limits,
) -> anyhow::Result<Vec<Target>> {
    let target = |of: search::config::Target| {
        let profiler = WorkerSpec {
            role: Role::Profiler,
            program: profiler(&of.latency, folder)?,
            introduction: Introduction::Configure(Box::new(Configure {
                latency: Some(of.latency.clone()),
                ..Configure::default()
            })),
            log: files.log(Role::Profiler),
            silence,
            limits,
        };
        Ok(Target { of, profiler, is_elsewhere: false })
    };
    file.latency.targets().into_iter().map(target).collect()
}

/// When `search.hours` are over, of which so many seconds were spent before.
pub(super) fn deadline(file: &CampaignFile, spent_seconds: f64) -> Option<(Instant, String)> {
    let hours = file.search.hours?;
    let left = Duration::try_from_secs_f64((3600.0 * hours - spent_seconds).max(0.0)).ok()?;
    let reason = format!("the {hours} hours of search.hours are over");
    Some((Instant::now().checked_add(left)?, reason))
}

/// The profiler on the device that the file names, or the user's own in the folder of the file.
pub(super) fn profiler(latency: &LatencyConfig, folder: &Path) -> anyhow::Result<Program> {
    if let Some(line) = &latency.command {
        return Ok(Program::Shell { line: line.clone(), folder: folder.to_owned() });
    }
    let program = Program::named(Role::Profiler)?;
    Ok(match latency.device {
        Device::Cpu => program,
        gpu @ Device::Cuda(_) => program.on(gpu),
    })
}

/// What depends on the rest of the file made a number: the warm-up, of the lowest rung's tokens; `threads = 0`, all cores
/// over the number of trainers.
pub(super) fn settled(training: &TrainingConfig, rungs: &[u64], trainers: u32) -> TrainingConfig {
    let mut training = TrainingConfig { target_tokens: None, ..training.clone() };
    if let (None, Some(&lowest)) = (training.warmup_tokens, rungs.first()) {
        training.warmup_tokens = Some((lowest as f64 * training.warmup_fraction) as u64);
    }
    if training.threads == 0 {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u32;
        training.threads = (cores / trainers).max(1);
    }
    training
}
