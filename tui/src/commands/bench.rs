//! `deltafront bench`

use std::collections::VecDeque;
use std::io::Write;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, bail};
use search::abilities::{self, Ability};
use search::config::TaskConfig;
use search::wire::{Configure, Evaluate, Reply, Request};
use serde_json::json;
use tokio::task::JoinSet;

use super::block_on;
use crate::driver::{Process, Program, Role, meet};
use crate::words;

/// Measure what can be measured without a campaign.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Train small stacks on generated tasks, and compare what they learn with what is known of their mixers.
    Abilities(Abilities),
}

#[derive(clap::Args)]
struct Abilities {
    /// Trainings of each stack, from different seeds.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Trainings at once, each on one thread; by default one for each core.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    jobs: Option<u32>,
    /// Only these abilities, by name.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.what {
        What::Abilities(args) => block_on(run_abilities(args)),
    }
}

/// One training: which ability, which of its contenders, from which seed.
#[derive(Debug, Clone, Copy)]
struct Job {
    ability: usize,
    contender: usize,
    seed: u64,
}

/// What came out: the accuracies by length, the one it is judged by first, or why there is none.
type Outcome = Result<Vec<f64>, String>;

async fn run_abilities(args: &Abilities) -> anyhow::Result<ExitCode> {
    let all = abilities::abilities();
    if let Some(unknown) =
        args.names.iter().find(|name| all.iter().all(|ability| ability.name != *name))
    {
        let names: Vec<&str> = all.iter().map(|ability| ability.name).collect();
        bail!("there is no ability `{unknown}`; there are {}", names.join(", "));
    }
    let wanted = |ability: &Ability| {
        args.names.is_empty() || args.names.iter().any(|name| name == ability.name)
    };
    let chosen: Arc<Vec<Ability>> = Arc::new(all.into_iter().filter(wanted).collect());
    let jobs = jobs(&chosen, args.seeds);
    let total = jobs.len();
    let queue = Arc::new(Mutex::new(jobs));
    let program = Program::built_in(Role::Trainer)?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = args.jobs.map_or(cores, |jobs| jobs as usize).min(total);
    let began = Instant::now();
    let (sender, mut finished) = tokio::sync::mpsc::unbounded_channel();
    let mut crew = JoinSet::new();
    for _ in 0..workers {
        crew.spawn(work(program.clone(), Arc::clone(&chosen), Arc::clone(&queue), sender.clone()));
    }
    drop(sender);
    let mut outcomes: Vec<(Job, Outcome)> = Vec::new();
    while let Some((job, outcome)) = finished.recv().await {
        let ability = &chosen[job.ability];
        let said = match &outcome {
            Ok(accuracies) => format!("accuracy {:.3}", accuracies[0]),
            Err(reason) => format!("failed: {reason}"),
        };
        let name = ability.contenders[job.contender].name;
        outcomes.push((job, outcome));
        writeln!(
            std::io::stderr(),
            "{}/{total}  {}: {name}, seed {}: {said}",
            outcomes.len(),
            ability.name,
            job.seed
        )?;
    }
    while let Some(ended) = crew.join_next().await {
        ended.context("a task of this program")??;
    }
    let rows = rows(&chosen, &outcomes);
    let mut stdout = std::io::stdout();
    if args.json {
        writeln!(
            stdout,
            "{}",
            serde_json::to_string_pretty(&rows.iter().map(Row::json).collect::<Vec<_>>())?
        )?;
    } else {
        write!(stdout, "{}", table(&chosen, &rows))?;
        let unlike = rows.iter().filter(|row| !row.is_as_expected()).count();
        writeln!(
            stdout,
            "\n{} of {} as the literature has it; {} in {:.0} s, {workers} at once",
            rows.len() - unlike,
            words::count(rows.len(), "row"),
            words::count(total, "training"),
            began.elapsed().as_secs_f64()
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Seed by seed, so that a first picture is there early.
fn jobs(abilities: &[Ability], seeds: u64) -> VecDeque<Job> {
    let mut jobs = VecDeque::new();
    for seed in 0..seeds {
        for (ability, of) in abilities.iter().enumerate() {
            jobs.extend((0..of.contenders.len()).map(|contender| Job { ability, contender, seed }));
        }
    }
    jobs
}

/// A worker takes jobs until there are none.
async fn work(
    program: Program,
    abilities: Arc<Vec<Ability>>,
    queue: Arc<Mutex<VecDeque<Job>>>,
    finished: tokio::sync::mpsc::UnboundedSender<(Job, Outcome)>,
) -> anyhow::Result<()> {
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let (mut process, _) = meet(Role::Trainer, &program, None)
        .await
        .map_err(|(reason, log)| anyhow::anyhow!("{reason}\n{}", log.trim_end()))?;
    while let Some(job) = next() {
        let ability = &abilities[job.ability];
        let requests = requests(ability, job);
        for request in &requests {
            if !process.send(request).await {
                let (ended, log) = process.end().await;
                bail!("the trainer {program} {ended}\n{}", log.trim_end());
            }
        }
        let Some(outcome) = hear(&mut process, ability).await else {
            let (ended, log) = process.end().await;
            bail!("the trainer {program} {ended}\n{}", log.trim_end());
        };
        if finished.send((job, outcome)).is_err() {
            break;
        }
    }
    process.dismiss().await;
    Ok(())
}

fn requests(ability: &Ability, job: Job) -> [Request; 2] {
    let configure = Configure {
        training: Some(abilities::training(1)),
        tasks: vec![ability.task.clone()],
        ..Configure::default()
    };
    let evaluate = Evaluate {
        id: 1,
        attempt: 1,
        architecture: ability.contenders[job.contender].architecture.clone(),
        tokens: ability.task.tokens,
        seed: job.seed,
        resume_from: None,
    };
    [Request::Configure(configure), Request::Evaluate(evaluate)]
}

/// The final reply; none when the worker has ended or speaks nonsense.
async fn hear(process: &mut Process, ability: &Ability) -> Option<Outcome> {
    loop {
        match Reply::parse(&process.line().await?).ok()? {
            Reply::Progress(_) => {}
            Reply::Result(evaluation) => {
                let names = accuracy_names(ability);
                let values = names.iter().map(|name| Some(evaluation.values.get(name)?.mean));
                return Some(
                    values
                        .collect::<Option<Vec<f64>>>()
                        .ok_or_else(|| "a value is missing".to_owned()),
                );
            }
            Reply::Failed(refusal) | Reply::Infeasible(refusal) => {
                return Some(Err(refusal.reason));
            }
            Reply::Hello(_)
            | Reply::Checked(_)
            | Reply::Timing(_)
            | Reply::Space(_)
            | Reply::Values(_) => return None,
        }
    }
}

/// The one it is judged by, then the others.
fn accuracy_names(ability: &Ability) -> Vec<String> {
    let judged = ability.value_name();
    let all = TaskConfig::value_names(&ability.task);
    let others = all.into_iter().filter(|name| name.ends_with("_accuracy") && *name != judged);
    std::iter::once(judged.clone()).chain(others).collect()
}

/// A contender with its accuracies over the seeds.
struct Row<'a> {
    ability: &'a Ability,
    contender: usize,
    /// `[seeds]`, each as in [`Outcome`].
    accuracies: Vec<&'a [f64]>,
    failures: Vec<&'a str>,
}

fn rows<'a>(abilities: &'a [Ability], outcomes: &'a [(Job, Outcome)]) -> Vec<Row<'a>> {
    let mut rows = Vec::new();
    for (index, ability) in abilities.iter().enumerate() {
        for contender in 0..ability.contenders.len() {
            let mine = || {
                outcomes
                    .iter()
                    .filter(move |(job, _)| job.ability == index && job.contender == contender)
            };
            rows.push(Row {
                ability,
                contender,
                accuracies: mine().filter_map(|(_, outcome)| outcome.as_deref().ok()).collect(),
                failures: mine()
                    .filter_map(|(_, outcome)| outcome.as_ref().err().map(String::as_str))
                    .collect(),
            });
        }
    }
    rows
}

impl Row<'_> {
    fn mean(&self, length: usize) -> f64 {
        self.accuracies.iter().map(|values| values[length]).sum::<f64>()
            / self.accuracies.len() as f64
    }

    fn range(&self) -> (f64, f64) {
        let judged = || self.accuracies.iter().map(|values| values[0]);
        (judged().fold(f64::INFINITY, f64::min), judged().fold(f64::NEG_INFINITY, f64::max))
    }

    fn is_as_expected(&self) -> bool {
        let expected = self.ability.contenders[self.contender].expected;
        !self.accuracies.is_empty() && self.ability.verdict(self.mean(0)) == expected
    }

    fn json(&self) -> serde_json::Value {
        let contender = &self.ability.contenders[self.contender];
        json!({
            "ability": self.ability.name,
            "claim": self.ability.claim,
            "contender": contender.name,
            "architecture": contender.architecture.to_string(),
            "value": self.ability.value_name(),
            "accuracies": self.accuracies.iter().map(|values| values[0]).collect::<Vec<_>>(),
            "failures": self.failures,
            "expected": contender.expected.word(),
            "verdict": (!self.accuracies.is_empty()).then(|| self.ability.verdict(self.mean(0)).word()),
        })
    }

    fn cells(&self) -> Vec<String> {
        let contender = &self.ability.contenders[self.contender];
        let name = contender.name.to_owned();
        let Some(failure) = self.failures.first().filter(|_| self.accuracies.is_empty()) else {
            let (low, high) = self.range();
            let others =
                (1..self.accuracies[0].len()).map(|length| format!("{:.3}", self.mean(length)));
            let mark = if self.is_as_expected() { "as known" } else { "UNLIKE" };
            return vec![
                name,
                format!("{:.3}", self.mean(0)),
                format!("{low:.3} to {high:.3}"),
                self.accuracies.len().to_string(),
                others.collect::<Vec<_>>().join(" "),
                self.ability.verdict(self.mean(0)).word().to_owned(),
                format!("{mark}: {}", contender.expected.word()),
            ];
        };
        vec![name, "failed".to_owned(), (*failure).to_owned()]
    }
}

fn table(abilities: &[Ability], rows: &[Row<'_>]) -> String {
    let mut text = String::new();
    for ability in abilities {
        let c = &ability.task;
        let judged = match ability.judged_at {
            1 => format!("length {}", c.sequence_length),
            n => {
                format!("length {} after training on {}", n * c.sequence_length, c.sequence_length)
            }
        };
        let heading = format!("{}: {}", ability.name, ability.claim);
        let task = format!("{} at {judged}, {} training tokens", c.kind, c.tokens);
        text.extend(["\n", &heading, "\n  ", &task, "\n"]);
        let headings =
            ["  stack", "accuracy", "over seeds", "seeds", "other lengths", "verdict", "known"];
        let mut lines = vec![headings.map(str::to_owned).to_vec()];
        for row in rows.iter().filter(|row| row.ability.name == ability.name) {
            let mut cells = row.cells();
            cells[0].insert_str(0, "  ");
            lines.push(cells);
        }
        text.push_str(&words::table("lrlrlll", &lines));
    }
    text
}
