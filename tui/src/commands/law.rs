//! `deltafront law`

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;
use db::Store;
use db::snapshot::Campaign;
use search::campaign::{Candidate, LatencyTable};
use search::latency::LatencyEntry;
use search::law::{Fit, Observation, choose, speeds};
use search::objective::Objective;
use tui::theme::Theme;

use super::{block_on, open};
use crate::report;
use crate::report::law::Found;
use crate::report::progress::same_latency;

const EXAMPLES: &str = "\
Examples:
  deltafront law my-campaign                           how the loss falls with depth and width
  deltafront law my-campaign --budget-us 40            which depth and width for 40 µs a token
  deltafront law short medium long --json              campaigns of three lengths of training: the data term too

Least squares of L = L0 + a·D^−α + b·W^−β, and c·N^−γ where trainings have three lengths (arXiv 2511.18890). Only
trainings to the end count: who goes on from a rung is chosen for its loss, so that rungs would have more data take away
more than it does. The clearest law comes from a campaign with one mixer, one FFN, many depths and
widths, and `algorithm = \"random\"`: all else that differs is noise to it.";

/// Fit how the loss falls with depth and width, and say which to take for a latency.
///
/// The bands are of a bootstrap over stacks. The latency of a depth and width is that of the head and of the mean layer of
/// this width among the campaign's stacks, from the latency table.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The campaign, or several that differ in the length of their trainings.
    #[arg(required = true)]
    campaigns: Vec<String>,
    /// Decode time of a token that must be kept, µs. Default: the campaign's own budget, or none.
    #[arg(long, value_name = "µs", allow_negative_numbers = true)]
    budget_us: Option<f64>,
    /// Laws that the bands are taken from.
    #[arg(long, value_name = "N", default_value_t = DRAWS, value_parser = clap::value_parser!(u32).range(40..=100_000))]
    draws: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(db: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(budget) = args.budget_us
        && !(budget.is_finite() && budget > 0.0)
    {
        bail!("--budget-us must be a number above 0, got {budget}");
    }
    block_on(async {
        let store = open(db).await?;
        let mut campaigns = Vec::new();
        let mut entries = Vec::new();
        for name in &args.campaigns {
            let campaign = store.campaign(name).await?;
            if campaign.is_black_box() {
                bail!("campaign `{name}` optimises a black box: it has no depth and width");
            }
            let history = store.history(name).await?;
            entries = history.latencies;
            campaigns.push((campaign, history.candidates));
        }
        same_latency(campaigns.iter().map(|(campaign, _)| campaign))?;
        let found = found(&store, &campaigns, entries, (args.budget_us, args.draws)).await?;
        let text = if args.json {
            serde_json::to_string_pretty(&found)? + "\n"
        } else {
            found.text(Theme { colour: report::colour() }, report::width())
        };
        std::io::stdout().write_all(text.as_bytes())?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Laws that bands are taken from, unless the command line says otherwise.
pub(super) const DRAWS: u32 = 400;

/// The law of what these campaigns trained, for a budget in µs (else that of the first) and with so many resampled laws.
pub(super) async fn found(
    store: &Store,
    campaigns: &[(Campaign, Vec<Candidate>)],
    entries: Vec<LatencyEntry>,
    (budget_us, draws): (Option<f64>, u32),
) -> anyhow::Result<Found> {
    let campaign = &campaigns[0].0;
    let rows = || campaigns.iter().flat_map(|(_, rows)| rows);
    let is_trained =
        |name: &&str| rows().any(|r| r.trained.iter().any(|t| t.values.contains_key(*name)));
    let losses = campaign.objectives.iter().filter(|objective| !objective.is_maximised());
    let Some(value) = losses.map(Objective::name).find(is_trained) else {
        bail!("nothing is trained yet to become less: the law is one of losses");
    };
    let observations = observations(campaigns, value);
    let fit = Fit::new(&observations, draws as usize, campaign.seed)?;

    let workers = store.workers(&campaign.name).await?;
    let device = workers.iter().rev().find(|worker| worker.role == "profiler");
    let mut table = LatencyTable::default();
    for entry in entries {
        table.insert(entry);
    }
    let speeds = device.map_or_else(Vec::new, |device| {
        let (_, conditions) = campaign.latency.latencies(&device.device).swap_remove(0);
        speeds(rows().filter_map(|row| row.subject.stack()), &table, &conditions)
    });
    // No width is asked for that the law was not fitted to.
    let speeds: Vec<_> = speeds
        .into_iter()
        .filter(|speed| observations.iter().any(|o| o.width == speed.width))
        .collect();
    let depths = || observations.iter().map(|o| o.depth);
    let depths = depths().min().unwrap_or(1)..=depths().max().unwrap_or(1);
    let tokens = observations.iter().map(|o| o.tokens).max().unwrap_or(0);
    let budget_us = budget_us.or(campaign.latency.decode_budget_us);
    let choices =
        budget_us.map(|budget_us| choose(&fit, &speeds, depths.clone(), tokens, budget_us));
    Ok(Found::new(value, &observations, &fit, speeds, depths, tokens, budget_us, choices))
}

/// The trainings that went through a schedule of their own: full ones and longer ones, from every seed. Where they have two
/// lengths, from which no power can be told, those of the more frequent length.
fn observations(campaigns: &[(Campaign, Vec<Candidate>)], value: &str) -> Vec<Observation> {
    let mut all = Vec::new();
    let rows =
        campaigns.iter().flat_map(|(campaign, rows)| rows.iter().map(move |row| (campaign, row)));
    let mut stacks = Vec::new();
    for (campaign, row) in rows {
        let Some(stack) = row.subject.stack() else { continue };
        // The same stack in two campaigns errs alike.
        let index = stacks.iter().position(|other| *other == stack).unwrap_or_else(|| {
            stacks.push(stack);
            stacks.len() - 1
        });
        for trained in row.trained.iter().filter(|trained| trained.tokens >= campaign.tokens) {
            let Some(loss) = trained.values.get(value) else { continue };
            all.push(Observation {
                stack: index as u32,
                depth: stack.layers().len() as u32,
                width: stack.d_model(),
                tokens: trained.tokens,
                loss: loss.mean,
            });
        }
    }
    let mut lengths: Vec<u64> = all.iter().map(|o| o.tokens).collect();
    lengths.sort_unstable();
    lengths.dedup();
    if let [a, b] = lengths[..] {
        let count = |length: u64| all.iter().filter(|o| o.tokens == length).count();
        let kept = if count(b) > count(a) { b } else { a };
        all.retain(|o| o.tokens == kept);
    }
    all
}
