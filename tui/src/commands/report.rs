//! `deltafront report`

mod algorithm;
mod page;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;
use db::snapshot::{Campaign, Snapshot};
use search::campaign::Candidate;
use serde_json::json;
use tui::theme::Theme;

use super::{block_on, campaign_name, list, open};
use crate::report::findings::{Findings, Measured};
use crate::report::progress::{Progress, same_terms};
use crate::{report, words};

const EXAMPLES: &str = "\
Examples:
  deltafront report my-campaign                        how far its front is to be trusted
  deltafront report surrogate-0 surrogate-1 surrogate-2 random-0 random-1 random-2
                                                       two algorithms on one scale, three seeds each
  deltafront report my-campaign --at 20,40,60 --json
  deltafront report my-campaign --html report.html --svg figures
                                                       one page that needs nothing else, and its pictures as files

Hypervolumes are shares of that of the front of all campaigns named. On it the best value of each objective is 0 and
the worst 1 (by the logarithm where they are more than a decade apart); the reference point is 1.1 in each.";

/// Say how far the front of a campaign is to be trusted, and how fast it was found.
///
/// The front with the chance of each place on it; hypervolume against evaluations; rank correlations between rungs, and
/// between proxy and longer training; noise between seeds; composed latencies beside whole models. Works while the campaign
/// runs. Several campaigns are put on one scale, and averaged by their algorithms.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The campaigns; none may be named when the database holds only one.
    campaigns: Vec<String>,
    /// Numbers of evaluations to show the hypervolume at. Default: round ones.
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    at: Vec<std::num::NonZeroU32>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    files: page::Files,
}

pub(crate) fn run(db: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    block_on(async {
        let store = open(db).await?;
        let mut names = args.campaigns.clone();
        if names.is_empty() {
            names.push(campaign_name(&store, None).await?);
        }
        if let Some(twice) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
            bail!("campaign `{}` is named twice", twice.1);
        }
        if args.files.are_wanted() {
            return page::write(&store, &names, &args.files, db).await;
        }
        let (mut campaigns, mut measured) = (Vec::new(), Vec::new());
        for name in &names {
            let snapshot = store.judged(name).await?;
            let algorithm = algorithm::name(&snapshot.campaign)?;
            measured.push(Measured::of(&snapshot));
            let Snapshot { campaign, candidates, .. } = snapshot;
            let rows = candidates.into_iter().map(|candidate| candidate.row).collect();
            campaigns.push((campaign, algorithm, rows));
        }
        same_terms(&campaigns)?;
        let counts: Vec<usize> = args.at.iter().map(|count| count.get() as usize).collect();
        let progress = Progress::of(&campaigns);
        let mut findings = None;
        if let [(campaign, _, rows)] = campaigns.as_slice()
            && let Some(measured) = measured.pop()
        {
            findings = Some((campaign, Findings::of(campaign, rows, measured)));
        }
        let text = if args.json {
            let hypervolume = progress.as_ref().map(|progress| progress.json(&counts));
            let whole = match &findings {
                Some((campaign, findings)) => json!({
                    "campaign": campaign.name,
                    "state": list::state_word(campaign.state),
                    "findings": findings,
                    "hypervolume": hypervolume,
                }),
                None => json!({ "hypervolume": hypervolume }),
            };
            serde_json::to_string_pretty(&whole)? + "\n"
        } else {
            let mut text: String = campaigns
                .iter()
                .map(|(campaign, algorithm, rows)| line(campaign, algorithm, rows))
                .collect();
            if let Some((campaign, findings)) = &findings {
                text.extend(["\n", &findings.text(campaign)]);
            }
            let theme = Theme { colour: report::colour() };
            match &progress {
                Some(progress) => {
                    text.extend(["\n", &progress.text(&counts, theme, report::width())]);
                }
                None if findings.is_some() => {}
                None => text.push_str("\nnothing is evaluated yet\n"),
            }
            text
        };
        std::io::stdout().write_all(text.as_bytes())?;
        Ok(ExitCode::SUCCESS)
    })
}

fn line(campaign: &Campaign, algorithm: &str, rows: &[Candidate]) -> String {
    let over = rows
        .iter()
        .filter(|row| row.state.is_final() && row.is_evaluation(campaign.is_black_box()))
        .count();
    format!(
        "campaign {}, {}: {} of {}, {algorithm}, seed {}\n",
        campaign.name,
        list::state_word(campaign.state),
        over,
        words::count(campaign.evaluations as usize, "evaluation"),
        campaign.seed
    )
}
