//! `deltafront optimize`

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use db::snapshot::{Campaign, CampaignKind, CampaignState, Snapshot};
use db::{Access, Change, DbError, NewCampaign, Store};
use search::campaign::{Keep, Quiet, Settings};
use search::config::LatencyConfig;
use search::latency::WholeModels;
use search::limits;
use search::objective::Objective;
use search::parameters::ParameterSpace;
use search::proposals::{Algorithm, Proposer};
use search::wire::SpaceReply;
use serde::{Deserialize, Serialize};

use super::run::{Conclusion, Files, drive_to_end};
use crate::driver::{self, Introduction, Job, Limits, Program, Role, Show, WorkerSpec};
use crate::{report, words};

// No line is longer than the help is wide: a wrapped program would not run.
const EXAMPLE: &str = concat!(
    "\
A worker is a program that reads one JSON object a line from stdin and answers each by one line
on stdout; what it writes to stderr is its log. It is asked what is to be optimised, by

  {\"type\": \"space\", \"protocol\": 1}

then, any number of times, for the values at a point, by

  {\"type\": \"eval\", \"id\": 7, \"parameters\": {\"model\": \"net\", …}, \"seed\": 0, \"attempt\": 1}

and answers an `eval` with the same id by one of

  {\"type\": \"values\", \"id\": 7, \"values\": {\"cost\": 3.5, \"accuracy\": 0.91}}
  {\"type\": \"infeasible\", \"id\": 7, \"reason\": \"…\"}   the point cannot be; the search learns where
  {\"type\": \"failed\", \"id\": 7, \"reason\": \"…\"}       it could not be found out; as an exit or timeout

A value is a number, or {\"mean\": 0.91, \"standard_error\": 0.01}. Parameters are `categorical`
(choices without order), `ordinal` (choices in order), `integer`, and `log-integer` (of which the
ratio matters); with `when` one is present only where an earlier one has certain values. Choices
are words, numbers, true or false. One to four objectives, minimised unless their direction is
\"maximize\". A whole worker in Python:

",
    include_str!("../../examples/black_box.py"),
    "
Examples:
  deltafront optimize --command 'python worker.py' --evaluations 200
  deltafront optimize --command 'python worker.py' --workers 8 --limit 'memory<=16'
  deltafront optimize                              go on with it after Ctrl-C or a crash
  deltafront show                                  the front as a table and a plot; --json for programs
  deltafront browse                                the same, live, from another terminal"
);

/// Optimise any discrete problem: a command of yours says what the parameters and objectives are, and gives values.
///
/// Proposals are made by the same engine as those of `run`, kept in the same database, shown by the same commands. A
/// campaign of that name that is in the database already goes on where it stood.
#[derive(clap::Args)]
#[command(after_long_help = EXAMPLE, after_help = "`deltafront optimize --help` shows what a worker says, with an example of one.")]
pub(crate) struct Args {
    /// The command that evaluates, run by the shell in this folder; may be left out to go on.
    #[arg(long, value_name = "COMMAND")]
    command: Option<String>,
    /// The name of the campaign in the database.
    #[arg(long, default_value = "black-box")]
    name: String,
    /// Points to evaluate in all; a campaign that is done goes on when this is raised. Default: 100.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    evaluations: Option<u32>,
    /// Workers at once, each a process of its own. Default: 1.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    workers: Option<u32>,
    /// Seed of all choices: with one worker, the same seed and values give the same points. Default: 0.
    #[arg(long)]
    seed: Option<u64>,
    /// A value that must not be exceeded, as `memory<=16`, or must be reached, as `accuracy>=0.9`; points that do not
    /// are infeasible. May be given several times.
    #[arg(long = "limit", value_name = "LIMIT")]
    limits: Vec<Limit>,
    /// How points are proposed. Default: surrogate.
    #[arg(long, value_parser = algorithm)]
    algorithm: Option<Algorithm>,
    /// Points at the start, spread over the space, before the algorithm begins. Default: 10.
    #[arg(long, value_name = "N")]
    start: Option<u32>,
    /// Tries of a point whose evaluation fails. Default: 1.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    attempts: Option<u32>,
    /// Failed points in a row after which it stops, because the fault is not the points'. Default: 20.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    give_up_after: Option<u32>,
    /// Seconds that one evaluation may take. Default: no limit.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<f64>,
    /// Plain lines instead of bars, as when stderr is not a terminal.
    #[arg(long)]
    plain: bool,
    /// Say nothing but errors.
    #[arg(long, short, conflicts_with = "plain")]
    quiet: bool,
}

fn algorithm(word: &str) -> Result<Algorithm, String> {
    let found = Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == word);
    found.ok_or_else(|| {
        let names: Vec<&str> = Algorithm::ALL.iter().map(|algorithm| algorithm.name()).collect();
        format!("known are {}", names.join(", "))
    })
}

/// `memory<=16` or `accuracy>=0.9`.
#[derive(Debug, Clone, PartialEq)]
struct Limit {
    /// As objectives are named: with a minus where more is better.
    name: String,
    most: f64,
}

impl std::str::FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, sign, number) = match (text.split_once("<="), text.split_once(">=")) {
            (Some((name, number)), _) => (name.trim().to_owned(), 1.0, number),
            (None, Some((name, number))) => (format!("-{}", name.trim()), -1.0, number),
            (None, None) => return Err("expected NAME<=NUMBER or NAME>=NUMBER".to_owned()),
        };
        match number.trim().parse::<f64>() {
            Ok(bound) if bound.is_finite() => Ok(Self { name, most: sign * bound }),
            _ => Err(format!("`{}` is no number", number.trim())),
        }
    }
}

/// The first line of that, for people.
const HEADING: &str = "# Made by `deltafront optimize`.\n";

/// What the store keeps of it in the place of a campaign file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct BlackBox {
    optimize: Optimize,
    space: SpaceReply,
}

/// The settings of a black box's campaign.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Optimize {
    command: String,
    evaluations: u32,
    workers: u32,
    seed: u64,
    algorithm: Algorithm,
    start: u32,
    attempts: u32,
    give_up_after: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<f64>,
    #[serde(default)]
    limits: BTreeMap<String, f64>,
}

impl Optimize {
    /// The defaults, or what the campaign had, with what the command line says.
    fn of(args: &Args, before: Option<Self>) -> anyhow::Result<Self> {
        let earlier = before.unwrap_or_else(|| Self {
            command: String::new(),
            evaluations: 100,
            workers: 1,
            seed: 0,
            algorithm: Algorithm::default(),
            start: Proposer::<Vec<i64>>::START,
            attempts: 1,
            give_up_after: 20,
            timeout: None,
            limits: BTreeMap::new(),
        });
        let command = args.command.clone().unwrap_or(earlier.command);
        if command.trim().is_empty() {
            bail!(
                "there is no campaign `{}` to go on with; to begin one name the program that evaluates: \
                 --command 'python worker.py' (`deltafront optimize --help` shows one)",
                args.name
            );
        }
        if let Some(timeout) = args.timeout
            && !(timeout.is_finite() && timeout > 0.0)
        {
            bail!("--timeout must be a positive number of seconds, got {timeout}");
        }
        let limits = if args.limits.is_empty() {
            earlier.limits
        } else {
            args.limits.iter().map(|limit| (limit.name.clone(), limit.most)).collect()
        };
        Ok(Self {
            command,
            evaluations: args.evaluations.unwrap_or(earlier.evaluations),
            workers: args.workers.unwrap_or(earlier.workers),
            seed: args.seed.unwrap_or(earlier.seed),
            algorithm: args.algorithm.unwrap_or(earlier.algorithm),
            start: args.start.unwrap_or(earlier.start),
            attempts: args.attempts.unwrap_or(earlier.attempts),
            give_up_after: args.give_up_after.unwrap_or(earlier.give_up_after),
            timeout: args.timeout.or(earlier.timeout),
            limits,
        })
    }
}

pub(crate) fn run(db: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    let folder = std::env::current_dir().context("the current folder cannot be found out")?;
    super::block_on_threads(optimize(db, args, &folder))
}

async fn optimize(db: &Path, args: &Args, folder: &Path) -> anyhow::Result<ExitCode> {
    let say = |text: &str| {
        if !args.quiet {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    };
    if !search::name::is_name(&args.name) {
        bail!("--name must be 1 to 100 characters of one line");
    }
    let is_there = db.exists();
    let before = if is_there {
        // Read first: a campaign that cannot go on is left as it was.
        let store = Store::open(db, Access::ReadWrite).await?;
        let snapshot = match store.outline(&args.name).await {
            Ok(snapshot) => Some((snapshot, store.config_folder(&args.name).await?)),
            Err(DbError::NoCampaign { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        store.close().await;
        snapshot
    } else {
        None
    };
    let stored = before.as_ref().map(|(snapshot, _)| stored(snapshot)).transpose()?;
    let settings = Optimize::of(args, stored.as_ref().map(|black_box| black_box.optimize.clone()))?;
    // The command stays in its folder, wherever it is gone on with, unless it is given anew.
    let folder = match &before {
        Some((_, folder)) if args.command.is_none() => PathBuf::from(folder),
        _ => folder.to_owned(),
    };
    let program = Program::Shell { line: settings.command.clone(), folder: folder.clone() };
    let space = match &stored {
        Some(black_box) => black_box.space.clone(),
        None => ask(&program).await?,
    };
    let parameters = checked(&space)?;
    // What was given up for a mistyped limit is evaluated again, under the right one.
    let counts =
        |candidate: &db::snapshot::Candidate| is_over(candidate) && !candidate.row.given_up;
    let has_begun =
        before.as_ref().is_some_and(|(snapshot, _)| snapshot.candidates.iter().any(counts));
    if let (true, Some(earlier)) = (has_begun, &stored) {
        comparable(&args.name, &earlier.optimize, &settings)?;
    }
    let files = Files::beside(db, &args.name);
    let again = again(db, &args.name);
    let black_box = BlackBox { optimize: settings, space };
    let new = campaign(args, &black_box, &folder)?;
    let settings = &black_box.optimize;

    if let Some(parent) = db.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot make the folder {}", parent.display()))?;
    }
    let store = Store::open(db, Access::ReadWrite).await?;
    let mut changes = Vec::new();
    match &before {
        None => {
            store.create_campaign(&new).await?;
            say(&format!("campaign `{}` begins in {}", args.name, db.display()));
        }
        Some((snapshot, _)) => {
            let spent = snapshot.candidates.iter().filter(|c| is_over(c)).count();
            let is_finished = snapshot.campaign.state == CampaignState::Finished;
            if is_finished && spent >= settings.evaluations as usize {
                if !args.quiet {
                    report::print(&store, &args.name, &files.folder).await?;
                }
                say(&format!(
                    "campaign `{}` is finished; --evaluations above {spent} goes on with it, another --name begins \
                     another",
                    args.name
                ));
                return Ok(ExitCode::SUCCESS);
            }
            say(&format!(
                "campaign `{}` goes on: {spent} of {} evaluated",
                args.name, settings.evaluations
            ));
            if snapshot.campaign.config_toml != new.config_toml {
                changes.push(Change::Settings(new));
            }
        }
    }
    // Of many candidates that is much: the driver reads what it needs by itself.
    drop(before);
    let show = match (args.quiet, args.plain || !std::io::stderr().is_terminal()) {
        (true, _) => Show::Nothing,
        (false, true) => Show::Lines,
        (false, false) => Show::Bars,
    };
    let job = job(args, &black_box, parameters, program, &files, show)?;
    let reports = show != Show::Nothing;
    let conclusion = Conclusion { again, show, reports, notify: None };
    drive_to_end(&store, job, changes, &files, conclusion).await
}

/// Whether an evaluation was spent on it, to an end.
fn is_over(candidate: &db::snapshot::Candidate) -> bool {
    use search::campaign::CandidateState as State;
    matches!(candidate.row.state, State::Done | State::Failed { .. } | State::Infeasible { .. })
}

/// The settings that the campaign began with.
fn stored(snapshot: &Snapshot) -> anyhow::Result<BlackBox> {
    if !snapshot.campaign.is_black_box() {
        bail!(
            "campaign `{}` is one of stacks, made by `deltafront run`; choose another --name",
            snapshot.campaign.name
        );
    }
    settings_of(&snapshot.campaign)
}

/// How the points of a black box's campaign are proposed.
pub(super) fn algorithm_of(campaign: &Campaign) -> anyhow::Result<Algorithm> {
    Ok(settings_of(campaign)?.optimize.algorithm)
}

fn settings_of(campaign: &Campaign) -> anyhow::Result<BlackBox> {
    toml::from_str(&campaign.config_toml)
        .context("the campaign's own settings, as they were stored, do not parse")
}

/// Asks a worker what is to be optimised.
async fn ask(program: &Program) -> anyhow::Result<SpaceReply> {
    match driver::ask_space(program, None).await {
        Ok((process, space)) => {
            process.dismiss().await;
            Ok(space)
        }
        Err((reason, log)) => Err(driver::broken(&reason, &log)),
    }
}

/// The space of what a worker said.
fn checked(space: &SpaceReply) -> anyhow::Result<ParameterSpace> {
    let objectives = &space.objectives;
    if !(1..=4).contains(&objectives.len()) {
        bail!("the worker must name 1 to 4 objectives, it named {}", objectives.len());
    }
    for (index, objective) in objectives.iter().enumerate() {
        let name = objective.value_name();
        if !search::name::is_name(name) || name.starts_with('-') {
            bail!(
                "objective `{}`: a name has 1 to 100 characters of one line and does not begin with a minus; to \
                 maximise say {{\"name\": …, \"direction\": \"maximize\"}}",
                tui::printable(name)
            );
        }
        if objectives[..index].iter().any(|other| other.value_name() == name) {
            bail!("objective `{name}` stands there twice");
        }
    }
    ParameterSpace::new(space.parameters.clone()).context("the worker's space cannot be searched")
}

/// Refuses what would mix points that cannot be compared.
fn comparable(name: &str, before: &Optimize, now: &Optimize) -> anyhow::Result<()> {
    let changed = [
        ("--seed", before.seed != now.seed, before.seed.to_string()),
        ("--limit", before.limits != now.limits, format!("{:?}", before.limits)),
    ];
    for (flag, is_changed, earlier) in changed {
        if is_changed {
            bail!(
                "campaign `{name}` began with another {flag} ({earlier}); leave it out to go on, or give the changed \
                 campaign another --name"
            );
        }
    }
    Ok(())
}

fn campaign(args: &Args, black_box: &BlackBox, folder: &Path) -> anyhow::Result<NewCampaign> {
    let settings = &black_box.optimize;
    let text = toml::to_string(black_box).context("the space cannot be written as TOML")?;
    Ok(NewCampaign {
        name: args.name.clone(),
        config_toml: format!("{HEADING}{text}"),
        config_folder: folder.to_string_lossy().into_owned(),
        seed: settings.seed,
        kind: CampaignKind::BlackBox,
        evaluations: settings.evaluations,
        tokens: 0,
        target_tokens: 0,
        objectives: objectives(&black_box.space),
        latency: LatencyConfig::default(),
    })
}

/// The limits of what is stored: with a minus where a value has a least one.
fn limits_of(stored: &BTreeMap<String, f64>) -> limits::Limits {
    let limit = |(name, &bound): (&String, &f64)| match name.strip_prefix('-') {
        Some(name) => (name.to_owned(), limits::Limit::at_least(-bound)),
        None => (name.clone(), limits::Limit::at_most(bound)),
    };
    stored.iter().map(limit).collect()
}

fn objectives(space: &SpaceReply) -> Vec<Objective> {
    space.objectives.iter().map(search::wire::ObjectiveSpec::objective).collect()
}

fn job(
    args: &Args,
    black_box: &BlackBox,
    parameters: ParameterSpace,
    program: Program,
    files: &Files,
    show: Show,
) -> anyhow::Result<Job<ParameterSpace>> {
    let settings = &black_box.optimize;
    let silence = match settings.timeout {
        Some(seconds) => Duration::try_from_secs_f64(seconds).context("--timeout is too long")?,
        None => Duration::from_hours(24 * 365),
    };
    Ok(Job {
        name: args.name.clone(),
        settings: Settings {
            seed: settings.seed,
            evaluations: settings.evaluations,
            refusals_count: true,
            objectives: objectives(&black_box.space),
            // A black box has one fidelity.
            tokens: 1,
            target_tokens: 1,
            rungs: Vec::new(),
            promote: 2,
            trust: search::campaign::trust::Plan::default(),
            latencies: Vec::new(),
            throughput: None,
            limits: limits_of(&settings.limits),
            attempts: settings.attempts,
            give_up_after: settings.give_up_after,
            quiet: Quiet::default(),
            time_whole_models: WholeModels::Never,
            whole_only: BTreeSet::new(),
            keep: Keep::All,
        },
        targets: Vec::new(),
        space: parameters,
        proposer: Proposer::new(settings.algorithm, settings.seed, settings.start, Vec::new()),
        trainer: WorkerSpec {
            role: Role::BlackBox,
            program,
            introduction: Introduction::Space(black_box.space.clone()),
            log: files.log(Role::BlackBox),
            silence,
            limits: Limits { wall: None, memory_gb: None },
        },
        trainers: settings.workers,
        deadline: None,
        show,
        room: None,
        look: None,
        door: None,
        metrics: None,
    })
}

/// The command that goes on with the campaign.
fn again(db: &Path, name: &str) -> String {
    let name = if name == "black-box" {
        String::new()
    } else {
        format!(" --name {}", words::quoted(name))
    };
    format!("{} optimize{}{name}", words::program(), report::db_flag(db))
}

#[cfg(test)]
mod tests {
    use super::Limit;

    #[test]
    fn limits_are_read_in_both_directions() {
        let limit = |text: &str| text.parse::<Limit>();
        assert_eq!(limit("memory<=16"), Ok(Limit { name: "memory".to_owned(), most: 16.0 }));
        assert_eq!(limit("acc >= 0.9"), Ok(Limit { name: "-acc".to_owned(), most: -0.9 }));
        assert!(limit("memory=16").is_err() && limit("memory<=much").is_err());
        assert!(limit("memory<=nan").is_err());
    }
}
