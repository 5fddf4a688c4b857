//! A trainer: two stacks, a rung above the first, a request to stop.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use search::Architecture;
use search::contents::Contents;
use search::tensors::parameters;
use search::wire::{Check, Configure, Evaluate, Evaluation, PARTS_MAX, Reply, Request};
use serde_json::json;

use super::talk::{Heard, Talk, stacks};

/// Tokens of a training.
const TOKENS: u64 = 4096;
/// Tokens that nobody waits for.
const FOR_EVER: u64 = 1 << 40;
/// How long a worker that was told to stop may take to do so.
const STOP: Duration = Duration::from_secs(10);
/// The objective of a campaign that names no other.
const OBJECTIVE: &str = "bits_per_byte";

/// A folder with a text to train on, gone when the check is.
struct Place(PathBuf);

impl Place {
    fn make() -> anyhow::Result<Self> {
        let place = Self(
            std::env::temp_dir().join(format!("deltafront-check-worker-{}", std::process::id())),
        );
        let checkpoints = place.checkpoints();
        std::fs::create_dir_all(&checkpoints)
            .and_then(|()| std::fs::write(place.corpus(), text()))
            .with_context(|| format!("cannot write to {}", place.0.display()))?;
        Ok(place)
    }

    fn corpus(&self) -> PathBuf {
        self.0.join("corpus.txt")
    }

    fn checkpoints(&self) -> PathBuf {
        self.0.join("checkpoints")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// 64 kB of sentences in which the next word depends on the last.
fn text() -> String {
    const WORDS: [&str; 16] = [
        "the", "old", "river", "runs", "over", "a", "stone", "and", "every", "morning", "someone",
        "counts", "its", "turns", "in", "silence",
    ];
    let (mut text, mut state) = (String::new(), 1_u32);
    while text.len() < 1 << 16 {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        let word = WORDS[((state >> 16) % 16) as usize];
        text.push_str(word);
        text.push(if (state >> 20).is_multiple_of(11) { '.' } else { ' ' });
    }
    text
}

/// The settings of a tiny campaign.
fn configure(place: &Place) -> anyhow::Result<Configure> {
    let corpus = place.corpus();
    let file = std::fs::File::open(&corpus).context("the text that was just written is gone")?;
    let contents = Contents::of([Ok(file)]).context("the text cannot be read")?;
    Ok(Configure {
        data: Some(serde_json::from_value(json!({ "corpus": corpus }))?),
        training: Some(serde_json::from_value(json!({
            "tokens": TOKENS, "sequence_length": 64, "batch": 4, "validation_tokens": 2048,
            "longer_contexts": [], "threads": 1,
        }))?),
        contents: BTreeMap::from([("data.corpus".to_owned(), contents)]),
        checkpoints: Some(place.checkpoints()),
        ..Configure::default()
    })
}

/// Plays a campaign.
///
/// # Errors
/// When the folder of the check cannot be made.
pub(super) async fn check(talk: &mut Talk) -> anyhow::Result<()> {
    let place = Place::make()?;
    let settings = Request::Configure(configure(&place)?);
    let Some(hello) = talk.hello("evaluate").await else { return Ok(()) };
    talk.ask(&settings).await;
    let [first, second] = stacks();
    let mut id = 1;
    if hello.can.iter().any(|can| can == "check") {
        let architectures = vec![first.clone(), second.clone()];
        talk.ask(&Request::Check(Check { id, architectures, conditions: Vec::new() })).await;
        match talk.answer(id, |_| None).await {
            Some(Reply::Checked(checked)) => {
                let remarks = checked.refused.iter().chain(&checked.slow);
                if remarks.flat_map(|remark| &remark.of).any(|&place| place >= 2) {
                    talk.wrong(
                        "`of` names places in the list of models that was asked about, from 0",
                    );
                }
            }
            Some(Reply::Failed(_)) => {}
            Some(_) => talk.wrong("a `check` is answered by `checked`"),
            None => return Ok(()),
        }
    }
    id += 1;
    let whole = trained(talk, &place, of(id, &first, TOKENS, None)).await;
    id += 1;
    trained(talk, &place, of(id, &second, TOKENS, None)).await;
    if let Some(checkpoint) = whole.and_then(|result| result.checkpoint) {
        id += 1;
        trained(talk, &place, of(id, &first, 2 * TOKENS, Some(checkpoint))).await;
    } else {
        Talk::remark("no checkpoint: with rungs every training would begin anew");
    }
    talk.unknown().await;
    talk.start_again().await?;
    if talk.hello("evaluate").await.is_some() {
        talk.ask(&settings).await;
        stopped(talk, of(1, &first, FOR_EVER, None)).await;
    }
    Ok(())
}

fn of(id: u64, stack: &Architecture, tokens: u64, resume_from: Option<PathBuf>) -> Evaluate {
    Evaluate { id, attempt: 1, architecture: stack.clone(), tokens, seed: 7, resume_from }
}

/// Has a stack trained; the result if there is one.
async fn trained(talk: &mut Talk, place: &Place, asked: Evaluate) -> Option<Evaluation> {
    talk.ask(&Request::Evaluate(asked.clone())).await;
    let mut last = 0;
    let progress = |of: &search::wire::Progress| {
        if of.tokens < last || of.tokens > of.tokens_total {
            return Some(format!(
                "progress goes from {last} to {} of {} tokens",
                of.tokens, of.tokens_total
            ));
        }
        last = of.tokens;
        (of.tokens_total != asked.tokens).then(|| {
            format!("`tokens_total` is {}, and {} were asked for", of.tokens_total, asked.tokens)
        })
    };
    match talk.answer(asked.id, progress).await? {
        Reply::Result(result) => {
            for what in faults(&asked, &result, &place.0) {
                talk.wrong(&what);
            }
            let own = parameters(&asked.architecture);
            if result.parameters != own {
                Talk::remark(&format!(
                    "{} parameters were trained, where deltafront counts {own} for this stack",
                    result.parameters
                ));
            }
            Some(result)
        }
        Reply::Infeasible(refusal) => {
            Talk::remark(&format!("this stack would never be on a front: {}", refusal.reason));
            None
        }
        Reply::Failed(refusal) => {
            talk.wrong(&format!("a training that should work failed: {}", refusal.reason));
            None
        }
        _ => {
            talk.wrong("an `evaluate` is answered by `result`, `infeasible` or `failed`");
            None
        }
    }
}

/// What is wrong with a result.
fn faults(asked: &Evaluate, result: &Evaluation, place: &Path) -> Vec<String> {
    let mut faults = Vec::new();
    match result.values.get(OBJECTIVE) {
        None => {
            let names: Vec<&str> = result.values.keys().map(String::as_str).collect();
            faults.push(format!(
                "no `{OBJECTIVE}` among the values ({}): it is the objective of a campaign that names no other",
                names.join(", ")
            ));
        }
        // 8 bits say any byte
        Some(value) if !(0.0..=16.0).contains(&value.mean) => {
            faults.push(format!(
                "{} bits per byte of text are not possible after a training",
                value.mean
            ));
        }
        Some(_) => {}
    }
    if result.tokens < asked.tokens {
        faults.push(format!("`tokens` is {}, and {} were asked for", result.tokens, asked.tokens));
    }
    if result.curve.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
        faults.push("the tokens of `curve` must rise".to_owned());
    }
    if result.parts.values().any(|parts| parts.len() > PARTS_MAX) {
        faults.push(format!("more than {PARTS_MAX} parts of the held-out text"));
    }
    if let Some(checkpoint) = &result.checkpoint {
        if !checkpoint.is_absolute() || !checkpoint.starts_with(place) {
            faults.push(format!(
                "`checkpoint` must be an absolute path in the folder of `configure`, got {}",
                checkpoint.display()
            ));
        } else if !checkpoint.exists() {
            faults.push("`checkpoint` names a file that is not there".to_owned());
        }
    }
    faults
}

/// Begins a training without an end, and has it stopped.
async fn stopped(talk: &mut Talk, asked: Evaluate) {
    let id = asked.id;
    talk.ask(&Request::Evaluate(asked)).await;
    // it is at work once it says so, or after a while
    match talk.perhaps(Duration::from_secs(5)).await {
        Heard::Reply(Reply::Progress(_)) | Heard::Nothing => {}
        Heard::Reply(_) => {
            return Talk::remark(
                "a training of 10¹² tokens ended at once: nothing was left to stop",
            );
        }
        Heard::Bad => return,
        Heard::End(how) => return talk.wrong(&format!("it {how} during a long training")),
    }
    talk.ask(&Request::Stop { id }).await;
    let until = tokio::time::Instant::now() + STOP;
    loop {
        match talk.perhaps(until.saturating_duration_since(tokio::time::Instant::now())).await {
            Heard::Reply(Reply::Progress(_)) | Heard::Bad => {}
            Heard::Reply(Reply::Infeasible(refusal)) if refusal.id == id => {
                if refusal.reason != "stopped" {
                    talk.wrong("an evaluation that was stopped has the reason \"stopped\"");
                }
                return;
            }
            Heard::Reply(Reply::Result(_)) => {
                return Talk::remark("the training ended before it heard that it should stop");
            }
            Heard::Reply(_) => {
                return talk.wrong("a stop is answered by `infeasible`, reason \"stopped\"");
            }
            Heard::Nothing => {
                return Talk::remark(
                    "it does not stop within 10 s: a campaign would end it and start another one",
                );
            }
            Heard::End(how) => return talk.wrong(&format!("a stop ended it: it {how}")),
        }
    }
}
