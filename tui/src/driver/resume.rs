//! What a run must know of the runs before it, and of the device it is on.

use anyhow::bail;
use db::Store;
use search::campaign::{Candidate, CandidateState, History};
use search::wire::Hello;

use super::spec::Role;

/// Latencies of two devices have no place in one front.
pub(super) async fn same_device(store: &Store, name: &str, profiler: &Hello) -> anyhow::Result<()> {
    let earlier = store.workers(name).await?;
    let other = earlier
        .iter()
        .find(|worker| worker.role == Role::Profiler.word() && worker.device != profiler.device);
    if let Some(other) = other {
        bail!(
            "campaign `{name}` was timed on `{}`, and this is `{}`: their latencies cannot share a front. \
             Continue it there, or give this one another `name` in the campaign file",
            other.device,
            profiler.device
        );
    }
    Ok(())
}

/// The kind of the event that lists, in its body, the candidates whose failures made the campaign give up.
pub(super) const GAVE_UP: &str = "gave up";

/// When the run before this one gave up, the fault was not the candidates': those that failed then are tried again.
pub(super) async fn retry(
    store: &Store,
    name: &str,
    history: &mut History,
) -> anyhow::Result<Vec<Candidate>> {
    let runs = store.runs(name).await?;
    let before = runs.iter().rev().find_map(|run| run.end.as_deref());
    if before != Some("failed") {
        return Ok(Vec::new());
    }
    let events = store.events(name, 0).await?;
    let last = events.iter().rev().find(|event| event.kind == GAVE_UP || event.kind == "start");
    let Some(gave_up) = last.filter(|event| event.kind == GAVE_UP) else { return Ok(Vec::new()) };
    let numbers: Vec<u32> =
        gave_up.body.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
    let mut again = Vec::new();
    for row in &mut history.candidates {
        if numbers.contains(&row.number) && matches!(row.state, CandidateState::Failed { .. }) {
            row.state = CandidateState::Proposed;
            row.failed_attempts = 0;
            row.tokens = row.fidelity;
            row.curve.retain(|(tokens, _)| *tokens <= row.fidelity);
            again.push(row.clone());
        }
    }
    Ok(again)
}
