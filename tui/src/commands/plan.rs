//! `deltafront plan`

mod rates;
mod rehearsal;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use db::{Access, Store};
use search::config::CampaignFile;
use search::latency::LatencyEntry;
use search::wire::Hello;
use tui::quantity;

use self::rates::Rates;
use self::rehearsal::{Expected, rehearse};
use super::campaign_file::absolute;
use super::run::{self, Files};
use super::scratch::Scratch;
use super::setup::Setup;
use crate::driver::{is_current, say};
use crate::words;

/// Asks this machine: a few parts and steps of the campaign are timed, and the campaign is gone through with them, from its
/// beginning. Nothing is written.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The campaign file.
    #[arg(default_value = "campaign.toml")]
    file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(db: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    let (text, file, folder) = run::read(&args.file)?;
    // The trainers are to be heard while one of them is waited for.
    super::block_on_threads(plan(db, args, &text, &file, &folder))
}

async fn plan(
    db: &Path,
    args: &Args,
    text: &str,
    file: &CampaignFile,
    folder: &Path,
) -> anyhow::Result<ExitCode> {
    let data = absolute(file.data.as_ref(), folder, &args.file, text)?;
    let mut job = run::job(file, data, folder, &Files::beside(db, &file.name), false)?;
    job.must_be_there()?;
    // Checkpoints of what is tried go with the folder.
    let scratch = Scratch::new("plan")?;
    job.trainer.introduction.keep_checkpoints_in(&scratch.0);
    let setup = Setup::look(file, &args.file, &job).await?;
    setup.notes.iter().for_each(|note| say(note));
    job.space = setup.space;
    job.deadline = run::deadline(file, 0.0);
    let profilers = setup.profilers;
    let known = known(db, &profilers).await?;
    // What will be asked, with any durations; then the same with those of this machine.
    let asked = rehearse(&job, &profilers, known.clone(), &Rates::default(), 0);
    let rates = Rates::measure(file, &job, &scratch.0, &asked.asked).await?;
    let guesses = 0..GUESSES;
    let expected: Vec<Expected> =
        guesses.map(|guess| rehearse(&job, &profilers, known.clone(), &rates, guess)).collect();
    let expected = Expected::mean(&expected);
    let mut stdout = std::io::stdout();
    if args.json {
        writeln!(stdout, "{}", serde_json::to_string_pretty(&expected)?)?;
    } else {
        let mut devices: Vec<&str> = profilers.iter().map(|of| of.device.as_str()).collect();
        devices.dedup();
        writeln!(stdout, "plan for campaign {} on {}", file.name, devices.join(" and "))?;
        stdout.write_all(told(&expected, file.search.concurrency).as_bytes())?;
        writeln!(stdout, "{rates}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Rehearsals, each with another guess of which mixers are good: sizes of what is bred depend on it.
const GUESSES: u32 = 5;

fn told(expected: &Expected, at_once: u32) -> String {
    let counted = |what: &str, count: usize, seconds: f64| {
        vec![what.to_owned(), count.to_string(), quantity::duration(seconds)]
    };
    let several = if at_once > 1 { format!(", {at_once} at once") } else { String::new() };
    let rows = vec![
        counted("parts to time", expected.parts, expected.part_seconds),
        counted(&format!("trainings{several}"), expected.trainings, expected.training_seconds),
        counted("whole models to time", expected.wholes, expected.whole_seconds),
        counted("proposals", expected.candidates, expected.proposal_seconds),
    ];
    let mut text = words::table("lrr", &rows);
    let over = if expected.is_cut { ", cut off by search.hours" } else { "" };
    let evaluations = words::count(expected.evaluations, "evaluation");
    let bytes = |bytes: u64| format!("{}B", quantity::scaled(bytes as f64));
    let (disk, [least, most]) = (expected.disk_bytes, expected.disk_bytes_between.map(bytes));
    let [shortest, longest] = expected.seconds_between.map(quantity::duration);
    let seconds = quantity::duration(expected.seconds);
    text.extend([
        format!("in all {seconds} for {evaluations}{over}; {shortest} to {longest} *\n"),
        format!("on disk {} at most; {least} to {most} *\n", bytes(disk)),
        "* by which mixers turn out good, of which large and small stacks come\n".to_owned(),
    ]);
    text
}

/// The latency table as far as a new campaign would use it.
async fn known(db: &Path, profilers: &[Hello]) -> anyhow::Result<Vec<LatencyEntry>> {
    if !db.exists() {
        return Ok(Vec::new());
    }
    let store = Store::open(db, Access::ReadOnly).await?;
    let mut known = store.latencies().await?;
    known.retain(|entry| is_current(entry, profilers) && !entry.timing.is_disturbed());
    Ok(known)
}
