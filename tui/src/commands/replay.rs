//! `deltafront replay`

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use db::snapshot::CampaignKind;
use search::campaign::Trained;
use search::config::CampaignFile;
use search::value::Value;
use search::wire::{Evaluate, Reply, Request};
use tui::quantity;

use super::campaign_file::{absolute, refuse_changes};
use super::contents::Inputs;
use super::run::{self, Files};
use super::scratch::Scratch;
use super::{block_on, candidate, open, products, training_rule};
use crate::driver::{Asked, Introduction, full_name, say};
use crate::words;

/// Standard errors of a difference that noise explains: one of 400 goes beyond.
const SIGMAS: f64 = 3.0;

/// Train a candidate again, as it was trained, and say whether the same comes out.
///
/// Text, tokenizer, training rule and precision must be what the campaign began with, which it keeps. What differs of program
/// and device is said. Nothing is written. Exit code 1: more differs than noise explains.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The campaign.
    campaign: String,
    /// The candidate: its number, the first digits of its id, or the name of its reference stack.
    candidate: String,
    /// Tokens of the training to repeat. Default: the longest one with the candidate's own seed.
    #[arg(long, value_name = "N")]
    tokens: Option<u64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(db: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    let (then, now) = block_on(again(db, args))?;
    let rows: Vec<Difference> = then
        .values
        .iter()
        .filter_map(|(name, then)| {
            Some(Difference::of(name.as_str(), *then, *now.get(name.as_str())?))
        })
        .collect();
    if rows.is_empty() {
        bail!("the trainer reports none of the values that it did then");
    }
    let differ = rows.iter().filter(|row| !row.is_explained()).count();
    let mut stdout = std::io::stdout();
    if args.json {
        let rows: Vec<_> = rows.iter().map(Difference::json).collect();
        writeln!(stdout, "{}", serde_json::to_string_pretty(&rows)?)?;
    } else {
        let heading = ["value", "then", "now", "difference", "noise", ""];
        let mut table = vec![heading.map(str::to_owned).to_vec()];
        table.extend(rows.iter().map(Difference::row));
        stdout.write_all(words::table("lrrrrl", &table).as_bytes())?;
    }
    Ok(if differ == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A training of then, and what its values are now.
type Repeated = (Trained, BTreeMap<String, Value>);

async fn again(db: &Path, args: &Args) -> anyhow::Result<Repeated> {
    let store = open(db).await?;
    let snapshot = store.snapshot(&args.campaign).await?;
    let campaign = &snapshot.campaign;
    if campaign.kind == CampaignKind::BlackBox {
        bail!("`{}` is a black box's: nothing of it is trained here", campaign.name);
    }
    let of = candidate(&snapshot, &args.candidate)?;
    let (row, number) = (&of.row, of.row.number);
    let architecture = row.subject.stack().context("a campaign of stacks has stacks")?;
    let is_it = |trained: &&Trained| {
        trained.seed == row.seed && args.tokens.is_none_or(|tokens| tokens == trained.tokens)
    };
    let then = row.trained.iter().filter(is_it).max_by_key(|trained| trained.tokens);
    let Some(then) = then.cloned() else {
        let known: Vec<String> = row.trained.iter().map(|of| of.tokens.to_string()).collect();
        bail!(
            "candidate {number} has no such training; it was trained for {} tokens",
            if known.is_empty() { "no".to_owned() } else { known.join(", ") }
        );
    };
    let file = CampaignFile::parse(&campaign.config_toml)
        .map_err(|error| anyhow::anyhow!("the campaign's file does not parse: {error}"))?;
    let folder: PathBuf = store.config_folder(&campaign.name).await?.into();
    let source = format!("the file of campaign `{}`", campaign.name);
    let data = absolute(file.data.as_ref(), &folder, Path::new(&source), "")?;
    let began = store.circumstances(&campaign.name).await?;
    let inputs = Inputs::read(data.as_ref(), &began)?;
    let differences = inputs.changes();
    if !differences.is_empty() {
        refuse_changes(&format!("what {source} names has changed"), &campaign.name, &differences)?;
    }
    let mut job = run::job(&file, data, &folder, &Files::beside(db, &campaign.name), false)?;
    job.trainer.program.must_be_there(job.trainer.role)?;
    training_rule::keep(&campaign.name, &job.trainer, &began, false)?;
    products::settle(&mut job.trainer, &began, false, true).await;
    let scratch = Scratch::new("replay")?;
    job.trainer.introduction.keep_checkpoints_in(&scratch.0);
    job.trainer.introduction.expect(inputs.expected());
    let mut trainer = Asked::start(&job.trainer).await?;
    let by = store.trained_by(&campaign.name, number).await?;
    let by = by.into_iter().find(|by| (by.tokens, by.seed) == (then.tokens, then.seed));
    let by = match by {
        Some(by) => vec![(by.worker, by.device)],
        None => trainers(&store, &campaign.name).await?,
    };
    told(&by, &trainer, &job.trainer.introduction);
    let tokens = quantity::scaled(then.tokens as f64);
    say(&format!("training candidate {number} again, for {tokens} tokens from seed {}", then.seed));
    let request = Evaluate {
        id: 1,
        attempt: 1,
        architecture: architecture.clone(),
        tokens: then.tokens,
        seed: then.seed,
        resume_from: None,
    };
    let reply = trainer.answer(1, &Request::Evaluate(request)).await?;
    trainer.dismiss().await;
    match reply {
        Reply::Result(evaluation) => Ok((then, evaluation.values)),
        _ => bail!("the trainer answered out of turn"),
    }
}

/// Everybody who trained for a campaign, and where: of a training whose own trainer is not known.
async fn trainers(store: &db::Store, name: &str) -> anyhow::Result<Vec<(String, String)>> {
    let workers = store.workers(name).await?.into_iter();
    let trainers = workers.filter(|worker| worker.role == "trainer");
    Ok(trainers.map(|worker| (worker.worker, worker.device)).collect())
}

/// Says by whom and where it was trained if that is not what is here.
fn told(then: &[(String, String)], trainer: &Asked, introduction: &Introduction) {
    let here = (full_name(&trainer.hello), introduction.trains_on(&trainer.hello, None));
    if !then.is_empty() && !then.contains(&here) {
        let then: Vec<String> =
            then.iter().map(|(worker, device)| format!("{worker} on {device}")).collect();
        say(&format!("trained by {} then; now by {} on {}", then.join(", "), here.0, here.1));
    }
}

/// A value then and now.
struct Difference {
    name: String,
    then: Value,
    now: Value,
}

impl Difference {
    fn of(name: &str, then: Value, now: Value) -> Self {
        Self { name: name.to_owned(), then, now }
    }

    fn difference(&self) -> f64 {
        self.now.mean - self.then.mean
    }

    /// What noise explains: none where no error is known.
    fn noise(&self) -> Option<f64> {
        let (then, now) = (self.then.standard_error?, self.now.standard_error?);
        Some(SIGMAS * then.hypot(now))
    }

    fn is_explained(&self) -> bool {
        let difference = self.difference().abs();
        difference == 0.0 || self.noise().is_none_or(|noise| difference <= noise)
    }

    fn verdict(&self) -> &'static str {
        match (self.difference() == 0.0, self.noise()) {
            (true, _) => "equal",
            (false, None) => "no error is known",
            (false, Some(_)) if self.is_explained() => "within the noise",
            (false, Some(_)) => "differs",
        }
    }

    fn row(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            quantity::measured(self.then),
            quantity::measured(self.now),
            format!("{:+.2e}", self.difference()),
            self.noise().map_or_else(|| "–".to_owned(), |noise| format!("{noise:.2e}")),
            self.verdict().to_owned(),
        ]
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "value": self.name,
            "then": self.then.mean,
            "now": self.now.mean,
            "noise": self.noise(),
            "verdict": self.verdict(),
        })
    }
}
