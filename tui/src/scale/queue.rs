//! What Slurm says of a campaign's workers: its commands, and their output.

use std::process::{Command, Output};

use anyhow::{Context, bail};

/// The columns that `squeue` is asked for; the last one may hold anything.
const COLUMNS: &str = "%F|%K|%T|%N|%M|%L|%r";

/// A worker's task as it stands in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Task {
    /// Number of its job array.
    pub(super) job: String,
    /// Its number in the array: which of the workers it is.
    pub(super) index: u32,
    /// `PENDING`, `RUNNING`, …
    pub(super) state: String,
    /// Where it runs.
    pub(super) node: String,
    /// For how long, and for how long still.
    pub(super) ran: String,
    pub(super) left: String,
    /// Why it waits.
    pub(super) reason: String,
}

impl Task {
    /// As `scancel` names it.
    pub(super) fn id(&self) -> String {
        format!("{}_{}", self.job, self.index)
    }

    pub(super) fn is_pending(&self) -> bool {
        self.state == "PENDING"
    }

    /// Whether it has ended, but for the cleaning up.
    pub(super) fn is_over(&self) -> bool {
        self.state == "COMPLETING"
    }

    fn parse(line: &str) -> Option<Self> {
        let columns: Vec<&str> = line.splitn(7, '|').collect();
        let [job, index, state, node, ran, left, reason] = columns.try_into().ok()?;
        Some(Self {
            job: job.to_owned(),
            index: index.parse().ok()?,
            state: state.to_owned(),
            node: node.to_owned(),
            ran: ran.to_owned(),
            left: left.to_owned(),
            reason: if reason == "None" { String::new() } else { reason.to_owned() },
        })
    }
}

/// What to do about a worker that waits for this reason; none where it is its turn that it waits for, or nothing is known.
pub(super) fn advice(reason: &str) -> Option<&'static str> {
    let says = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    if says(&["PartitionTimeLimit"]) {
        Some("--time is longer than this partition allows: ask for less, or another --partition")
    } else if says(&["PartitionConfig"]) {
        Some(
            "--time, --gres, --cpus-per-task or --mem is more than this partition has: ask for less, or another --partition",
        )
    } else if says(&["BadConstraints", "PartitionNodeLimit", "not available"]) {
        Some(
            "no node of this partition is like that: change --gres, --cpus-per-task, --mem or --partition",
        )
    } else if says(&["InvalidAccount", "InvalidQOS", "AccountNotAllowed", "QOSNotAllowed"]) {
        Some("--account or --qos may not be used here: sacctmgr show associations says which may")
    } else if says(&["AssocGrp", "AssocMax", "QOSMax", "QOSGrp", "MaxJobs", "QOSUsage"]) {
        Some(
            "a limit of the account or QOS is reached: fewer workers at a time, or another --account or --qos",
        )
    } else if says(&["Held", "held", "HoldMaxRequeue"]) {
        Some(
            "it is held: scontrol release with its number lets it go; its log says why it did not start",
        )
    } else if says(&["ReqNodeNotAvail", "DOWN", "NodeDown", "Reservation", "PartitionDown"]) {
        Some("its nodes are down, drained or reserved: sinfo -R says why")
    } else {
        None
    }
}

/// The user's tasks of this name.
///
/// # Errors
/// When Slurm is not there or does not answer.
pub(super) fn tasks(name: &str) -> anyhow::Result<Vec<Task>> {
    let name = format!("--name={name}");
    let format = format!("--format={COLUMNS}");
    let text = ask("squeue", &["--noheader", "--array", "--me", &name, &format])?;
    let mut tasks: Vec<Task> = text.lines().filter_map(Task::parse).collect();
    tasks.sort_by_key(|task| task.index);
    Ok(tasks)
}

/// Submits the workers of these numbers; gives the job's number.
///
/// # Errors
/// When Slurm refuses them.
pub(super) fn submit(script: &std::path::Path, indices: &[u32]) -> anyhow::Result<String> {
    let array = format!("--array={}", ranges(indices));
    let script = script.to_str().context("the path of the script is not Unicode")?;
    Ok(ask("sbatch", &["--parsable", &array, script])?.trim().to_owned())
}

/// Takes a task that waits out of the queue; one that runs hands back what it is at and leaves.
///
/// # Errors
/// When Slurm refuses.
pub(super) fn dismiss(task: &Task) -> anyhow::Result<()> {
    let id = task.id();
    let words: &[&str] =
        if task.is_pending() { &[&id] } else { &["--batch", "--signal=USR1", &id] };
    ask("scancel", words).map(drop)
}

/// `1-4,7`.
fn ranges(indices: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &index in indices {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == index => *last = index,
            _ => runs.push((index, index)),
        }
    }
    let run = |(first, last): &(u32, u32)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    runs.iter().map(run).collect::<Vec<_>>().join(",")
}

fn ask(program: &str, words: &[&str]) -> anyhow::Result<String> {
    let Output { status, stdout, stderr } = match Command::new(program).args(words).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("`{program}` is not there: this is no machine that Slurm takes jobs from")
        }
        Err(error) => return Err(error).with_context(|| format!("cannot run `{program}`")),
    };
    if !status.success() {
        let said = String::from_utf8_lossy(&stderr);
        bail!("{program}: {}", tui::printable(said.trim()));
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_squeue_is_a_task() {
        let task = Task::parse("17|3|PENDING||0:00|4:00:00|Resources").expect("it is one");
        assert_eq!((task.id().as_str(), task.reason.as_str()), ("17_3", "Resources"));
        assert!(task.is_pending());
        let task = Task::parse("17|4|RUNNING|node-[1-2]|1:03|3:58:57|None").expect("it is one");
        assert_eq!((task.reason.as_str(), task.node.as_str()), ("", "node-[1-2]"));
        let odd = "9|1|PENDING||0:00|1:00|(Nodes required for job are DOWN, DRAINED | or reserved)";
        assert!(advice(&Task::parse(odd).expect("it is one").reason).is_some());
        // One job that is no array.
        assert_eq!(Task::parse("9|N/A|PENDING||0:00|1:00|Priority"), None);
        assert_eq!(advice("Priority"), None);
    }

    #[test]
    fn numbers_in_a_row_are_ranges() {
        assert_eq!(ranges(&[1, 2, 3, 5, 7, 8]), "1-3,5,7-8");
        assert_eq!(ranges(&[4]), "4");
    }
}
