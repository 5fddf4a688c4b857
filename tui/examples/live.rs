//! Browses a made-up campaign while it goes on: for looking at the screens.
//!
//! `cargo run -p tui --example live DATABASE` fills the file and shows it; `… DATABASE write` only writes, a candidate
//! a second, for a second terminal with `deltafront browse --db DATABASE`.

#[path = "../tests/it/sample.rs"]
#[expect(dead_code, reason = "shared with the tests, which use all of it")]
mod sample;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use db::snapshot::Snapshot;
use db::{Access, Change, NewCampaign, Owner, Run, RunEnd, Store};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = PathBuf::from(arguments.next().context("which database?")?);
    let only_write = arguments.next().is_some();
    let writer = Store::open(&path, Access::ReadWrite).await?;
    let sample = sample::running();
    for name in ["speeches", "laptop"] {
        writer.create_campaign(&new(&sample, name)).await?;
    }
    let run = writer.begin_run("speeches", &Owner::current(), "0.1.0").await?;
    let writing = tokio::spawn(async move { write(&writer, &run, sample).await });
    if only_write {
        return writing.await?;
    }
    let viewer = Store::open(&path, Access::ReadOnly).await?;
    tui::browse::run(viewer, None, Box::new(|_, _| anyhow::bail!("nothing is exported here"))).await
}

fn new(sample: &Snapshot, name: &str) -> NewCampaign {
    let campaign = &sample.campaign;
    NewCampaign {
        name: name.to_owned(),
        config_toml: String::new(),
        config_folder: String::new(),
        seed: campaign.seed,
        kind: campaign.kind,
        evaluations: campaign.evaluations,
        tokens: campaign.tokens,
        target_tokens: campaign.target_tokens,
        objectives: campaign.objectives.clone(),
        latency: campaign.latency.clone(),
    }
}

async fn write(store: &Store, run: &Run, sample: Snapshot) -> anyhow::Result<()> {
    for candidate in sample.candidates {
        store.apply(run, &[Change::Candidate(candidate.row)]).await?;
        store.heartbeat(run).await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    store.end_run(run, RunEnd::Paused).await?;
    Ok(())
}
