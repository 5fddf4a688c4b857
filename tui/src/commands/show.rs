//! `deltafront show`

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use db::snapshot::{Candidate, Snapshot};
use db::{EventRow, Owner, Store, TrainedBy};
use search::campaign::CandidateState;
use search::latency::Timing;
use search::metric::Metric;
use search::subject::{Assignment, Subject};
use serde::Serialize;
use serde::ser::SerializeMap;
use serde_json::json;
use tui::{drawing, quantity, retrieval};

use super::{block_on, campaign_name, candidate, list, open};
use crate::{report, words};

/// A candidate is named by its number, the first digits of its id, or the name of its reference stack.
#[derive(clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct Args {
    /// The campaign; may be left out when the database holds only one.
    campaign: Option<String>,
    /// The candidate; without it the whole campaign.
    candidate: Option<String>,
    /// All candidates, not only the front and the reference stacks.
    #[arg(long)]
    all: bool,
    /// What happened in the campaign, in order.
    #[arg(long)]
    log: bool,
    /// The campaign file as it was given.
    #[arg(long)]
    config: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(db: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    block_on(async {
        let store = open(db).await?;
        let name = campaign_name(&store, args.campaign.as_deref()).await?;
        let mut stdout = std::io::stdout();
        if args.json && args.candidate.is_none() && !args.config {
            let json = CampaignJson::of(&store, store.snapshot(&name).await?).await?;
            let mut out = BufWriter::new(stdout.lock());
            serde_json::to_writer_pretty(&mut out, &json)?;
            writeln!(out)?;
            out.flush()?;
            return Ok(ExitCode::SUCCESS);
        }
        if args.config {
            stdout.write_all(store.campaign(&name).await?.config_toml.as_bytes())?;
            return Ok(ExitCode::SUCCESS);
        }
        if args.log && args.candidate.is_none() {
            stdout.write_all(log(&store, &name).await?.as_bytes())?;
            return Ok(ExitCode::SUCCESS);
        }
        let snapshot = store.outline(&name).await?;
        let text = if let Some(word) = &args.candidate {
            let mut found = candidate(&snapshot, word)?.clone();
            if let Some(row) = store.candidate(&name, found.row.number).await? {
                found.row = row;
            }
            let trained_by = store.trained_by(&name, found.row.number).await?;
            if args.json {
                let mut json = candidate_json(&found);
                json["trained_by"] = trained_by.iter().map(by_json).collect();
                pretty(&json)?
            } else {
                let attempts = store.attempts(&name, found.row.number).await?;
                candidate_text(&snapshot, &found, &attempts, &trained_by)
            }
        } else {
            report::campaign(&snapshot, args.all) + &report::provenance(&store, &snapshot).await?
        };
        stdout.write_all(text.as_bytes())?;
        Ok(ExitCode::SUCCESS)
    })
}

fn by_json(by: &TrainedBy) -> serde_json::Value {
    let TrainedBy { tokens, seed, worker, device, host, .. } = by;
    json!({ "tokens": tokens, "seed": seed, "worker": worker, "device": device, "host": host })
}

fn pretty(value: &serde_json::Value) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// Everything about one candidate.
fn candidate_text(
    snapshot: &Snapshot,
    candidate: &Candidate,
    attempts: &[EventRow],
    trained_by: &[TrainedBy],
) -> String {
    let campaign = &snapshot.campaign;
    let mut text =
        format!("candidate {} of {}, id {}\n", candidate.row.number, campaign.name, candidate.id);
    let mut rows = vec![vec!["origin".to_owned(), candidate.row.origin.clone()]];
    let state = match &candidate.row.state {
        CandidateState::Proposed => "proposed, waits for its latency".to_owned(),
        CandidateState::Training => "in training or waiting for it".to_owned(),
        CandidateState::Done => match candidate.rank {
            Some(0) => "done, on the front".to_owned(),
            Some(rank) => format!("done, rank {rank} behind the front"),
            None => "done".to_owned(),
        },
        CandidateState::Infeasible { reason } => format!("dropped: {reason}"),
        CandidateState::Failed { kind, reason, .. } => format!("failed ({kind}): {reason}"),
    };
    rows.push(vec!["state".to_owned(), state]);
    for name in candidate.row.values.keys() {
        let mut shown = report::named(candidate, name);
        if let Some(whole) = candidate.whole(name) {
            let parts = candidate.row.sum_us(name).map_or(String::new(), |sum_us| {
                let off = 100.0 * (sum_us / whole.median_us - 1.0);
                format!("parts {off:+.1} %; ")
            });
            // Of throughput a step was timed: the value says more.
            let is_time = name.metric() != Some(Metric::Throughput);
            shown = format!(
                "{} as a whole ({parts}{}, {:.0} % other load{})",
                report::whole(candidate, name).filter(|_| is_time).unwrap_or(shown),
                words::count(whole.samples as usize, "sample"),
                100.0 * whole.other_load,
                whole.millijoules.map_or(String::new(), |mj| {
                    format!(", {} mJ a token", quantity::significant(mj))
                })
            );
        } else if candidate.disturbed.contains(name.as_str()) {
            shown.push_str(" (other processes loaded the machine while a part was timed)");
        }
        rows.push(vec![quantity::title(name).into_owned(), shown]);
    }
    for trained in &candidate.row.trained {
        if (trained.tokens, trained.seed) == (campaign.tokens, candidate.row.seed) {
            continue;
        }
        // The objectives that it reported; all of them are in the JSON.
        let values: Vec<String> = campaign
            .objectives
            .iter()
            .filter_map(|of| Some(words::value(of.name(), of.value(&trained.values)?)))
            .collect();
        let tokens = quantity::scaled(trained.tokens as f64);
        let text = format!("{}, seed {}", values.join(", "), trained.seed);
        rows.push(vec![format!("at {tokens} tokens"), text]);
    }
    if candidate.row.tokens > 0 {
        let mut trained = format!(
            "{} of {} tokens in {}, seed {}",
            quantity::scaled(candidate.row.tokens as f64),
            quantity::scaled(campaign.tokens as f64),
            quantity::duration(candidate.row.train_seconds),
            candidate.row.seed
        );
        if let Some((_, loss)) = candidate.row.curve.last() {
            trained.extend([", training loss ", &quantity::significant(*loss), " at the end"]);
        }
        rows.push(vec!["training".to_owned(), trained]);
    }
    let here = Owner::current().host;
    let by = trained_by.iter().map(|TrainedBy { worker, device, host, .. }| {
        let place = if *host == here { String::new() } else { format!(" of {host}") };
        format!("{worker} on {device}{place}")
    });
    let mut by: Vec<String> = by.collect();
    by.dedup();
    if !by.is_empty() {
        rows.push(vec!["trained by".to_owned(), by.join("; ")]);
    }
    match &candidate.row.subject {
        Subject::Stack(stack) => {
            rows.push(vec!["stack".to_owned(), stack.to_string()]);
            text.push_str(&words::table("ll", &rows));
            let context = campaign.latency.decode_context;
            let width = report::width().min(100);
            let drawn = drawing::to_text(stack, context, width, report::colour());
            text.extend(["\n", drawn.trim_end(), "\n"]);
        }
        Subject::Point(Assignment(settings)) => {
            let mut title = "parameters";
            for (name, setting) in settings {
                rows.push(vec![title.to_owned(), format!("{name} = {setting}")]);
                title = "";
            }
            text.push_str(&words::table("ll", &rows));
        }
    }
    let memory = retrieval::rows(candidate);
    if !memory.is_empty() {
        let align = "rll".to_owned() + &"r".repeat(memory[0].len() - 3);
        text.extend(["\n", retrieval::TITLE, "\n"]);
        text.push_str(&words::table(&align, &memory));
    }
    if !attempts.is_empty() {
        text.push_str("\nattempts that came to nothing:\n");
        for attempt in attempts {
            let kind = attempt.failure.map_or(String::new(), |kind| format!(" ({kind})"));
            let body = attempt.body.replace('\n', "\n    ");
            text.extend(["  ", &attempt.kind, &kind, ": ", &body, "\n"]);
        }
    } else if let CandidateState::Failed { log, .. } = &candidate.row.state
        && !log.trim().is_empty()
    {
        text.push_str("\nthe last lines of its log:\n");
        for line in log.lines() {
            text.extend(["  ", line, "\n"]);
        }
    }
    text
}

async fn log(store: &Store, name: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    let mut begin = None;
    for event in store.events(name, 0).await? {
        let begin = *begin.get_or_insert(event.at_unix_s);
        let after = quantity::duration((event.at_unix_s - begin) as f64);
        let body = event.body.replace('\n', "\n    ");
        text.extend(["after ", &after, ": ", &event.kind, ": ", &body, "\n"]);
    }
    Ok(text)
}

/// A campaign as JSON whose candidates are made one by one while they are written: all at once would take gigabytes.
struct CampaignJson {
    /// All but the candidates, in whose place there is nothing.
    head: serde_json::Map<String, serde_json::Value>,
    candidates: Vec<Candidate>,
}

const CANDIDATES: &str = "candidates";

impl CampaignJson {
    async fn of(store: &Store, snapshot: Snapshot) -> anyhow::Result<Self> {
        let head = match campaign_json(store, &snapshot).await? {
            serde_json::Value::Object(head) => head,
            _ => serde_json::Map::new(),
        };
        Ok(Self { head, candidates: snapshot.candidates })
    }
}

impl Serialize for CampaignJson {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.head.len()))?;
        for (key, value) in &self.head {
            if key == CANDIDATES {
                map.serialize_entry(key, &CandidatesJson(&self.candidates))?;
            } else {
                map.serialize_entry(key, value)?;
            }
        }
        map.end()
    }
}

struct CandidatesJson<'a>(&'a [Candidate]);

impl Serialize for CandidatesJson<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(candidate_json))
    }
}

async fn campaign_json(store: &Store, snapshot: &Snapshot) -> anyhow::Result<serde_json::Value> {
    let campaign = &snapshot.campaign;
    let workers: Vec<serde_json::Value> = store
        .workers(&campaign.name)
        .await?
        .into_iter()
        .map(|row| json!({ "role": row.role, "worker": row.worker, "device": row.device }))
        .collect();
    Ok(json!({
        "name": campaign.name,
        "state": list::state_word(campaign.state),
        "evaluations": campaign.evaluations,
        "seed": campaign.seed,
        "objectives": campaign.objectives,
        "latency": campaign.latency,
        "tokens": campaign.tokens,
        "created_unix_s": campaign.created_unix_s,
        "active_seconds": campaign.active_seconds,
        "workers": workers,
        CANDIDATES: null,
    }))
}

fn candidate_json(candidate: &Candidate) -> serde_json::Value {
    let state = &candidate.row.state;
    let (failure, log) = state.failure().map(|(kind, log)| (kind.words(), log)).unzip();
    // Those of `[latency]` itself have keys of their own.
    let is_of_target = |name: &str| matches!(Metric::of(name), Some((_, Some(_))));
    let wholes = candidate.row.whole.iter().filter(|(name, _)| is_of_target(name));
    let wholes: BTreeMap<&String, &Timing> = wholes.collect();
    let trained: Vec<serde_json::Value> = candidate
        .row.trained
        .iter()
        .map(|t| json!({ "tokens": t.tokens, "seed": t.seed, "values": t.values, "seconds": t.seconds }))
        .collect();
    let mut json = json!({
        "number": candidate.row.number,
        "id": candidate.id,
        "text": candidate.row.subject.to_string(),
        "architecture": candidate.row.subject.stack(),
        "parameters": candidate.row.subject.assignment(),
        "reference": candidate.row.reference,
        "origin": candidate.row.origin,
        "state": state.word(),
        "failure": failure,
        "reason": state.reason(),
        "log": log,
        "rank": candidate.rank,
        "values": candidate.row.values,
        "decode_whole": candidate.whole(Metric::DecodeUs.name()),
        "prefill_whole": candidate.whole(Metric::PrefillUs.name()),
        "disturbed": candidate.disturbed,
        "curve": candidate.row.curve,
        "retrieval": candidate.row.retrieval,
        "seed": candidate.row.seed,
        "tokens": candidate.row.tokens,
        "fidelity": candidate.row.fidelity,
        "trained": trained,
        "train_seconds": candidate.row.train_seconds,
    });
    if !wholes.is_empty() {
        json["wholes"] = json!(wholes);
    }
    json
}
