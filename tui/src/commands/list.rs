//! `deltafront list`

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use db::snapshot::{CampaignState, Tally};
use search::metric::Metric;
use serde_json::json;

use super::{block_on, open};
use crate::words;

/// One line for each campaign, the oldest first.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(db: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    block_on(async {
        let store = open(db).await?;
        let quality = Metric::BitsPerByte;
        let best = format!("best {}", quality.facts().unit);
        let heading = ["campaign", "state", "done", "of", "failed", "front", &best, "time"];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        let mut list = Vec::new();
        for campaign in store.campaigns().await? {
            let Tally { done, failed, front, best_bits_per_byte: best } =
                store.tally(&campaign).await?;
            list.push(json!({
                "name": campaign.name,
                "state": state_word(campaign.state),
                "done": done,
                "evaluations": campaign.evaluations,
                "failed": failed,
                "front": front,
                "best_bits_per_byte": best,
                "active_seconds": campaign.active_seconds,
                "created_unix_s": campaign.created_unix_s,
            }));
            rows.push(vec![
                campaign.name.clone(),
                state_word(campaign.state).to_owned(),
                done.to_string(),
                campaign.evaluations.to_string(),
                failed.to_string(),
                front.to_string(),
                best.map_or_else(|| "–".to_owned(), tui::quantity::measured),
                tui::quantity::duration(campaign.active_seconds),
            ]);
        }
        let mut stdout = std::io::stdout();
        if args.json {
            writeln!(stdout, "{}", serde_json::to_string_pretty(&list)?)?;
        } else if list.is_empty() {
            writeln!(stdout, "{} holds no campaign yet; `deltafront run` makes one", db.display())?;
        } else {
            write!(stdout, "{}", words::table("llrrrrrr", &rows))?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

pub(crate) fn state_word(state: CampaignState) -> &'static str {
    match state {
        CampaignState::Running => "running",
        CampaignState::Paused => "paused",
        CampaignState::Finished => "finished",
    }
}
