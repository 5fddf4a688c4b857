//! `deltafront browse`

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

use super::{block_on, export, open};

/// The front as a scatter plot, the candidates as a table, a stack as a drawing. The keys are shown on the screen.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The campaign to begin with; else the only one, or the list of them.
    campaign: Option<String>,
}

pub(crate) fn run(db: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    let db = db.to_owned();
    block_on(async {
        let store = open(&db).await?;
        let mut campaign = args.campaign.clone();
        if campaign.is_none()
            && let [only] = store.campaigns().await?.as_slice()
        {
            campaign = Some(only.name.clone());
        }
        let exported = move |snapshot: &db::snapshot::Snapshot,
                             candidate: &db::snapshot::Candidate| {
            // The screens run on this thread's runtime, which cannot wait for another inside itself.
            std::thread::scope(|scope| {
                let work = scope.spawn(|| export::to_new_file(&db, snapshot, candidate.row.number));
                work.join().ok().context("the export panicked")?
            })
        };
        tui::browse::run(store, campaign, Box::new(exported)).await
    })?;
    Ok(ExitCode::SUCCESS)
}
