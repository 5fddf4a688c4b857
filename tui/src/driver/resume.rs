//! What a run must know of the runs before it, and of the device it is on.

use anyhow::bail;
use db::{Change, Run, Store};
use search::campaign::History;
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

/// The kind of the event that lists, for people, the candidates whose failures made the campaign give up.
pub(super) const GAVE_UP: &str = "gave up";

/// What the store holds of a campaign, as far as it goes on with this profiler.
pub(super) async fn history(
    store: &Store,
    name: &str,
    profiler: Option<&Hello>,
) -> anyhow::Result<History> {
    let mut history = store.history(name).await?;
    if let Some(kernels) = profiler.and_then(|profiler| profiler.kernels.as_ref()) {
        history.latencies.retain(|entry| entry.timing.kernels == *kernels);
    }
    // A new campaign times anew what other processes disturbed; one that goes on keeps to its table, so that
    // all its latencies come from one.
    if history.candidates.is_empty() {
        history.latencies.retain(|entry| !entry.timing.is_disturbed());
    }
    Ok(history)
}

/// A worker as the store names it.
pub(crate) fn full_name(hello: &Hello) -> String {
    match &hello.kernels {
        Some(kernels) => format!("{} ({kernels})", hello.worker),
        None => hello.worker.clone(),
    }
}

/// What a run begins with in the store: its workers, and a sentence.
pub(super) fn beginning(run: &Run, workers: &[(Role, &Hello)]) -> Vec<Change> {
    let mut changes: Vec<Change> = workers
        .iter()
        .map(|(role, hello)| Change::Worker {
            role: role.word().to_owned(),
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
