//! Workers that a batch system places: how many a campaign wants, how many there are, and what is done about the difference.
//!
//! Slurm only places them. Which work is whose is the coordinator's to know, by leases; a task that is lost, ended twice or
//! haunts the queue costs time and nothing else.

mod queue;
mod script;

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::words;
use queue::Task;
use script::Script;

/// What a campaign wants of the batch system, as it stands in its folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wanted {
    /// Of all its tasks.
    pub(crate) name: String,
    pub(crate) workers: u32,
    /// What `sbatch` is given.
    script: PathBuf,
}

/// What workers are for: each kind has its own number of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Train,
    Time,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Train, Self::Time];

    fn stem(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Time => "time",
        }
    }
}

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    pub(crate) campaign: &'a str,
    pub(crate) kind: Kind,
    pub(crate) workers: u32,
    /// As `sbatch` takes them.
    pub(crate) options: &'a [String],
    /// Further words for `deltafront worker`.
    pub(crate) worker: &'a [String],
    pub(crate) address: &'a str,
    pub(crate) token: &'a str,
}

/// How workers stand to what is wanted.
#[derive(Debug)]
pub(crate) struct Standing {
    wanted: Wanted,
    tasks: Vec<Task>,
    /// Who was submitted again, and as which job.
    submitted: Vec<u32>,
    job: String,
    /// Who is too many.
    dismissed: Vec<u32>,
}

/// The folder of what is submitted for a campaign with these files.
fn folder(files: &Path) -> PathBuf {
    files.join("slurm")
}

/// Writes the script and remembers what is wanted; gives both.
pub(crate) fn want(files: &Path, order: &Order<'_>) -> anyhow::Result<(Wanted, String)> {
    let folder = folder(files);
    let cannot = || format!("cannot write into {}", folder.display());
    std::fs::create_dir_all(&folder).with_context(cannot)?;
    let stem = order.kind.stem();
    let name = format!("deltafront-{}-{stem}", order.campaign);
    let program = std::env::current_exe().context("cannot find out where this program lies")?;
    let mut worker = order.worker.to_vec();
    if order.kind == Kind::Time {
        worker.push("--times".to_owned());
    }
    let script = Script {
        name: &name,
        options: order.options,
        program: &program,
        address: order.address,
        token: order.token,
        worker: &worker,
        folder: &folder,
    };
    let text = script.text().replace(order.token, "…");
    let path = script.write(stem).with_context(cannot)?;
    let wanted = Wanted { name, workers: order.workers, script: path };
    wanted.keep(&folder, order.kind)?;
    Ok((wanted, text))
}

impl Wanted {
    fn keep(&self, folder: &Path, kind: Kind) -> anyhow::Result<()> {
        let file = folder.join(format!("{}.json", kind.stem()));
        let partial = file.with_extension("partial");
        std::fs::write(&partial, serde_json::to_string(self)?)
            .and_then(|()| std::fs::rename(&partial, &file))
            .with_context(|| format!("cannot write {}", file.display()))
    }

    /// What was wanted last of this kind; none: nothing yet.
    pub(crate) fn find(files: &Path, kind: Kind) -> Option<Self> {
        let file = folder(files).join(format!("{}.json", kind.stem()));
        serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()
    }

    /// Looks who is there, submits who is missing and dismisses who is too many; all who wait once the campaign is finished,
    /// as those who run leave by themselves.
    ///
    /// # Errors
    /// When Slurm is not there, does not answer or refuses.
    pub(crate) fn see_to(self, is_finished: bool, acts: bool) -> anyhow::Result<Standing> {
        let tasks = queue::tasks(&self.name)?;
        let workers = if is_finished { 0 } else { self.workers };
        let mut standing = Standing {
            wanted: self,
            tasks,
            submitted: Vec::new(),
            job: String::new(),
            dismissed: Vec::new(),
        };
        if !acts {
            return Ok(standing);
        }
        for task in &standing.tasks {
            if task.index > workers && (task.is_pending() || !is_finished) {
                queue::dismiss(task)?;
                standing.dismissed.push(task.index);
            }
        }
        let is_there =
            |index: u32| standing.tasks.iter().any(|task| task.index == index && !task.is_over());
        let missing: Vec<u32> = (1..=workers).filter(|&index| !is_there(index)).collect();
        if !missing.is_empty() {
            standing.job = queue::submit(&standing.wanted.script, &missing)?;
            standing.submitted = missing;
        }
        Ok(standing)
    }
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { wanted, tasks, submitted, job, dismissed } = self;
        let pending = tasks.iter().filter(|task| task.is_pending()).count();
        let running = tasks.len() - pending;
        write!(f, "{}: {} wanted", wanted.name, words::count(wanted.workers as usize, "worker"))?;
        writeln!(f, ", {running} at work, {pending} in the queue")?;
        if !tasks.is_empty() {
            let heading = ["task", "state", "for", "left", "node", "reason"];
            let mut rows = vec![heading.map(str::to_owned).to_vec()];
            rows.extend(tasks.iter().map(|task| {
                let Task { state, node, ran, left, reason, .. } = task;
                vec![
                    task.id(),
                    state.to_lowercase(),
                    ran.clone(),
                    left.clone(),
                    tui::printable(node),
                    tui::printable(reason),
                ]
            }));
            f.write_str(&words::table("llrrll", &rows))?;
        }
        let mut told = Vec::new();
        for task in tasks.iter().filter(|task| task.is_pending()) {
            if let Some(advice) =
                queue::advice(&task.reason).filter(|advice| !told.contains(advice))
            {
                told.push(advice);
                writeln!(f, "{}: {advice}", tui::printable(&task.reason))?;
            }
        }
        if !submitted.is_empty() {
            let workers = words::count(submitted.len(), "worker");
            writeln!(f, "{workers} submitted as job {job}")?;
        }
        if !dismissed.is_empty() {
            writeln!(f, "{} dismissed", words::count(dismissed.len(), "worker"))?;
        }
        Ok(())
    }
}
