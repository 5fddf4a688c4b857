//! `deltafront report --html`, `--svg`: what a page is made of, read, and the page written.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use db::Store;
use db::snapshot::{Campaign, Candidate, Snapshot};
use search::campaign::{self, CandidateState};
use search::proposals::Algorithm;
use tui::{printable, quantity};

use super::algorithm;
use crate::commands::{compare, law};
use crate::report::comparison::Comparison;
use crate::report::findings::{Findings, Measured};
use crate::report::page::{Page, failures, with_cards};
use crate::report::progress::{Progress, same_terms};
use crate::{report, whole};

/// Trainings beyond which the law is left to its own command.
const TRAININGS: usize = 250;

/// What is to be written.
#[derive(clap::Args)]
pub(super) struct Files {
    /// Write a page: one file, to look at without a network, to print and to show. Of several campaigns it is the first one's,
    /// with the others' hypervolume beside it; of one, with that of random campaigns on the same terms in the database.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "at"])]
    html: Option<PathBuf>,
    /// Write the plots of that page as SVG files.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["json", "at"])]
    svg: Option<PathBuf>,
    /// Overwrite a file that is there already, or a folder that a report wrote.
    #[arg(long)]
    force: bool,
}

impl Files {
    /// Whether there is anything to write.
    pub(super) fn are_wanted(&self) -> bool {
        self.html.is_some() || self.svg.is_some()
    }
}

/// Writes the page of the first campaign.
pub(super) async fn write(
    store: &Store,
    names: &[String],
    files: &Files,
    db: &Path,
) -> anyhow::Result<ExitCode> {
    let (page, known, last_lines) = page(store, names).await?;
    if let Some(file) = &files.html {
        let text = page.html(&known, &last_lines);
        whole::write(file, &text, files.force, db)?;
        say(&format!("wrote {}, {}", file.display(), quantity::bytes(text.len() as f64)))?;
    }
    if let Some(folder) = &files.svg {
        let pictures = page.files()?;
        whole::write_folder(folder, files.force, |part| {
            for (name, text) in &pictures {
                std::fs::write(part.join(name), text)?;
            }
            Ok(())
        })?;
        say(&format!("wrote {}, {} plots", folder.display(), pictures.len() - 1))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A page with its candidates as the store holds them whole, and how the logs of failures end.
type Whole = (Page, BTreeMap<u32, Candidate>, BTreeMap<u32, String>);

async fn page(store: &Store, names: &[String]) -> anyhow::Result<Whole> {
    let snapshot = store.judged(&names[0]).await?;
    let name = snapshot.campaign.name.clone();
    let own = || algorithm::name(&snapshot.campaign);
    let rows = |snapshot: &Snapshot| snapshot.candidates.iter().map(|c| c.row.clone()).collect();
    let rows_of_own: Vec<campaign::Candidate> = rows(&snapshot);
    let findings = Findings::of(&snapshot.campaign, &rows_of_own, Measured::of(&snapshot));
    let law = match trainings(&snapshot) {
        _ if snapshot.campaign.is_black_box() => {
            Err("a black box has no depth and width".to_owned())
        }
        0 => Err("nothing is trained to its end yet".to_owned()),
        count if count > TRAININGS => Err(format!(
            "{count} trainings take a while; `deltafront law {}` fits it",
            crate::words::quoted(&name)
        )),
        _ => {
            let campaigns = [(snapshot.campaign.clone(), rows_of_own.clone())];
            let entries = store.latencies().await?;
            let found = law::found(store, &campaigns, entries, (None, law::DRAWS)).await;
            found.map_err(|error| format!("{error:#}"))
        }
    };
    let algorithm = own()?;
    let mut climbs = vec![(snapshot.campaign.clone(), algorithm.clone(), rows_of_own)];
    for other in &names[1..] {
        let snapshot = store.judged(other).await?;
        let algorithm = algorithm::name(&snapshot.campaign)?;
        climbs.push((snapshot.campaign.clone(), algorithm, rows(&snapshot)));
    }
    same_terms(&climbs)?;
    let mut comparisons = Vec::new();
    for other in store.campaigns().await? {
        if let Some(chosen) = compare::chosen_in(&other, &name) {
            let comparison = Comparison::of(&store.snapshot(&other.name).await?, &chosen);
            comparisons.push((format!("{}, {}", chosen.replace('-', " "), other.name), comparison));
        } else if names.len() == 1 && is_random_beside(&other, &climbs) {
            let snapshot = store.judged(&other.name).await?;
            let random = Algorithm::Random.name().to_owned();
            climbs.push((snapshot.campaign.clone(), random, rows(&snapshot)));
            // What cannot be compared is left out.
            if same_terms(&climbs).is_err() {
                climbs.pop();
            }
        }
    }
    let mut known = BTreeMap::new();
    let with_cards: BTreeSet<u32> = with_cards(&snapshot, &findings);
    for candidate in snapshot.candidates.iter().filter(|c| with_cards.contains(&c.row.number)) {
        let number = candidate.row.number;
        let whole = store.candidate(&name, number).await?;
        let row = whole.unwrap_or_else(|| candidate.row.clone());
        known.insert(number, Candidate { row, ..candidate.clone() });
    }
    let mut last_lines = BTreeMap::new();
    for number in failures(&snapshot) {
        let row = store.candidate(&name, number).await?;
        if let Some(CandidateState::Failed { log, .. }) = row.map(|row| row.state)
            && let Some(line) = log.lines().rev().find(|line| !line.trim().is_empty())
        {
            last_lines.insert(number, quantity::shortened(&printable(line), 200));
        }
    }
    let workers = store.workers(&name).await?.into_iter();
    let circumstances = store.circumstances(&name).await?.into_iter();
    let page = Page {
        progress: Progress::of(&climbs),
        provenance: report::provenance(store, &snapshot).await?,
        latencies: store.latencies().await?,
        workers: workers.map(|row| [row.role, row.worker, row.device]).collect(),
        circumstances: circumstances.map(|row| (row.key, row.value)).collect(),
        db_flag: report::db_flag(store.path()),
        snapshot,
        algorithm,
        findings,
        law,
        comparisons,
    };
    Ok((page, known, last_lines))
}

/// Trainings to the end.
fn trainings(snapshot: &Snapshot) -> usize {
    let is_full = |t: &&campaign::Trained| t.tokens >= snapshot.campaign.tokens;
    let candidates = snapshot.candidates.iter();
    candidates.map(|c| c.row.trained.iter().filter(is_full).count()).sum()
}

/// Whether it is another campaign, of random proposals.
fn is_random_beside(
    other: &Campaign,
    climbs: &[(Campaign, String, Vec<campaign::Candidate>)],
) -> bool {
    let is_new = climbs.iter().all(|(campaign, ..)| campaign.name != other.name);
    let is_random = || algorithm::name(other).is_ok_and(|name| name == Algorithm::Random.name());
    // A comparison's few stacks are no search.
    is_new && is_random() && !compare::is_comparison(other)
}

fn say(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stderr(), "{text}")
}
