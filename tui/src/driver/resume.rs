//! What a run must know of the runs before it, and of the device it is on.

use anyhow::bail;
use db::{Change, Run, Store};
use search::campaign::History;
use search::latency::LatencyEntry;
use search::wire::Hello;

use super::targets::Target;

/// One value's latencies of two devices have no place in one front.
pub(super) async fn same_device(
    store: &Store,
    name: &str,
    target: &Target,
    profiler: &Hello,
) -> anyhow::Result<()> {
    let earlier = store.workers(name).await?;
    let role = db::profiler_of(target.name());
    let other =
        earlier.iter().find(|worker| worker.role == role && worker.device != profiler.device);
    if let Some(other) = other {
        let what = match target.name() {
            Some(target) => format!("target `{target}` of campaign `{name}`"),
            None => format!("campaign `{name}`"),
        };
        bail!(
            "{what} was timed on `{}`, and this is `{}`: their latencies cannot share a front. \
             Continue it there, or give this one another `name` in the campaign file",
            other.device,
            profiler.device
        );
    }
    Ok(())
}

/// The kind of the event that lists, for people, the candidates whose failures made the campaign give up.
pub(super) const GAVE_UP: &str = "gave up";

/// What the store holds of a campaign, as far as it goes on with these profilers.
pub(super) async fn history(
    store: &Store,
    name: &str,
    profilers: &[Hello],
) -> anyhow::Result<History> {
    let mut history = store.history(name).await?;
    history.latencies.retain(|entry| is_current(entry, profilers));
    // A new campaign times anew what other processes disturbed; one that goes on keeps to its table, so that
    // all its latencies come from one.
    if history.candidates.is_empty() {
        history.latencies.retain(|entry| !entry.timing.is_disturbed());
    }
    Ok(history)
}

/// Whether a row of the latency table is of the kernels by which its device is timed now.
pub(crate) fn is_current(entry: &LatencyEntry, profilers: &[Hello]) -> bool {
    let mut of_device = profilers.iter().filter(|of| of.device == entry.key.conditions.device);
    of_device.all(|of| of.kernels.as_ref().is_none_or(|kernels| entry.timing.kernels == *kernels))
}

/// A worker as the store names it.
pub(crate) fn full_name(hello: &Hello) -> String {
    match &hello.kernels {
        Some(kernels) => format!("{} ({kernels})", hello.worker),
        None => hello.worker.clone(),
    }
}

/// What a run begins with in the store: its workers, and a sentence.
pub(super) fn beginning(run: &Run, workers: &[(String, &Hello)]) -> Vec<Change> {
    let mut changes: Vec<Change> = workers
        .iter()
        .map(|(role, hello)| Change::Worker {
            role: role.clone(),
            worker: full_name(hello),
            device: hello.device.clone(),
        })
        .collect();
    let (kind, body) = if run.took_over {
        let body = "the run before this one ended without a word; its running work is repeated";
        ("takeover", body)
    } else {
        ("start", "a run begins")
    };
    changes.push(Change::Event { kind: kind.to_owned(), body: body.to_owned() });
    changes
}
