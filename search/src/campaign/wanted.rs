//! What a campaign wants of its workers, as its rows stand: timings of parts, trainings, timings of whole models.

use std::collections::HashSet;

use super::candidate::{Candidate, CandidateState};
use super::latencies;
use super::standing::Standing;
use super::tasks::{Task, Training};
use super::trust;
use crate::latency::{Conditions, LatencyKey, WholeModels};
use crate::metric::Metric;
use crate::subject::Subject;
use crate::wire::{Eval, Evaluate, Request};

/// Parts that proposed candidates wait for and that are not on their way, in the order of the candidates.
pub(super) fn parts(standing: &Standing) -> Vec<LatencyKey> {
    let Standing { settings, rows, table, tasks, .. } = standing;
    let waits = standing.waits();
    let mut listed: HashSet<LatencyKey> = HashSet::new();
    let mut wanted = Vec::new();
    for row in rows.values().filter(|row| row.state == CandidateState::Proposed) {
        let Some(architecture) = row.subject.stack() else { continue };
        let Ok(asked) = latencies::asked(settings, architecture) else { continue };
        let mut waited_for: Vec<&str> = Vec::new();
        for (name, conditions) in asked.iter().filter(|(name, _)| !row.whole.contains_key(name)) {
            if waited_for.contains(&conditions.device.as_str()) {
                continue;
            }
            let missing = if settings.composes(name) {
                table.missing(architecture, conditions)
            } else {
                Vec::new()
            };
            let is_decided =
                missing.is_empty() && !waits.contains(name) && !settings.times_all(name);
            for key in missing {
                if !tasks.is_under_way(&Task::Part(key.clone())) && listed.insert(key.clone()) {
                    wanted.push(key);
                }
            }
            // What one latency decides the next is not timed for; another device need not wait for what decides nothing.
            if !is_decided && settings.limits.names().any(|limited| limited == name) {
                break;
            } else if !is_decided {
                waited_for.push(&conditions.device);
            }
        }
    }
    wanted
}

/// Whole models to time before their candidates are trained, and that are not on their way: of the first few, which tell what
/// sums of parts are worth, or of all.
pub(super) fn early_wholes(standing: &Standing) -> Vec<(u32, String, Conditions)> {
    let Standing { settings, rows, table, tasks, .. } = standing;
    let is_open = |number: u32, name: &str| {
        let task = Task::Whole { number, name: name.to_owned() };
        !tasks.is_given_up(&task) && !tasks.is_under_way(&task)
    };
    let proposed = || rows.values().filter(|row| row.state == CandidateState::Proposed);
    let is_timed = |(name, conditions): &(String, Conditions)| {
        proposed().all(|row| {
            let stack = row.subject.stack();
            row.whole.contains_key(name)
                || stack.is_some_and(|of| table.is_complete(of, conditions))
        })
    };
    for (place, latency) in settings.latencies.iter().enumerate() {
        let (name, conditions) = latency;
        let untold = standing.untold(name, conditions);
        if untold.is_empty() {
            continue;
        }
        // Who is among the first is known when the parts of all are; and those on devices before this one, by which a candidate
        // may be out.
        let earlier = settings.latencies[..place].iter();
        let mut earlier = earlier.filter(|(_, of)| of.device != conditions.device);
        if !is_timed(latency) || !earlier.all(is_timed) {
            return Vec::new();
        }
        let open = untold.into_iter().filter(|number| is_open(*number, name));
        return open.map(|number| (number, name.clone(), conditions.clone())).collect();
    }
    let mut wanted = Vec::new();
    let named = settings.latencies.iter().map(|(name, _)| name.as_str());
    let throughput = settings.throughput.iter().map(|_| Metric::Throughput.name());
    if !named.chain(throughput).any(|name| settings.times_all(name)) {
        return wanted;
    }
    for row in proposed() {
        let Some(Ok(asked)) = row.subject.stack().map(|of| latencies::asked(settings, of)) else {
            continue;
        };
        // In their order: what a sum of parts decides is among the values then.
        let is_open_yet = |name: &str| {
            if settings.times_all(name) {
                !row.whole.contains_key(name)
            } else {
                !row.values.contains_key(name)
            }
        };
        let next = asked.into_iter().find(|(name, _)| is_open_yet(name));
        // Its sum is within the limits once it is among the values.
        let is_due = |name: &str| {
            settings.times_all(name) && (!settings.composes(name) || row.values.contains_key(name))
        };
        if let Some((name, conditions)) = next.filter(|(name, _)| is_due(name))
            && is_open(row.number, &name)
        {
            wanted.push((row.number, name, conditions));
        }
    }
    wanted
}

/// The next trainings of candidates that climb and wait for a trainer.
pub(super) fn trainings(standing: &Standing) -> Vec<Training> {
    let Standing { rows, tasks, .. } = standing;
    let ladder = standing.ladder();
    let running: HashSet<u32> = tasks.trainings().iter().map(|training| training.number).collect();
    rows.values()
        .filter(|row| row.state == CandidateState::Training && !running.contains(&row.number))
        .filter_map(|row| {
            let tokens = ladder.next(row)?;
            Some(Training { number: row.number, tokens, seed: row.seed })
        })
        .collect()
}

/// The next training beside those that candidates are judged by; none when there is none, or when what is wanted depends on
/// those under way.
pub(super) fn extra(standing: &Standing) -> Option<Training> {
    let Standing { settings, rows, tasks, .. } = standing;
    let is_given_up = |training: &Training| tasks.is_given_up(&Task::Train(*training));
    trust::next(settings, rows, &tasks.trainings(), is_given_up)
}

/// Whole models to time that are not on their way: once more the first that were, then those of the front and of the
/// references, which are of the same minutes; once more, too, where each was timed before it was trained.
pub(super) fn wholes(standing: &Standing) -> Vec<(u32, String, Conditions)> {
    let Standing { settings, rows, tasks, .. } = standing;
    if settings.time_whole_models == WholeModels::Never {
        return Vec::new();
    }
    let mut wanted = once_more(standing);
    let front = standing.front();
    for row in rows.values().filter(|row| row.state == CandidateState::Done) {
        let is_wanted = front.contains(&row.number) || row.reference.is_some();
        if !is_wanted || row.subject.stack().is_none() {
            continue;
        }
        for (name, conditions) in &settings.latencies {
            let task = Task::Whole { number: row.number, name: name.clone() };
            let is_first = !row.whole.contains_key(name) && !tasks.is_given_up(&task);
            let is_again = settings.times_all(name) && standing.may_be_again(row, name);
            if (is_first || is_again)
                && !tasks.is_under_way(&task)
                && !wanted.iter().any(|(number, of, _)| (*number, of) == (row.number, name))
            {
                wanted.push((row.number, name.clone(), conditions.clone()));
            }
        }
    }
    wanted
}

/// Whole models to time once more that are not on their way.
fn once_more(standing: &Standing) -> Vec<(u32, String, Conditions)> {
    let Standing { settings, rows, tasks, .. } = standing;
    let mut wanted = Vec::new();
    for name in settings.timed() {
        for number in standing.once_more(&name) {
            let asked = rows[&number].subject.stack().map(|of| latencies::asked(settings, of));
            let asked = asked.and_then(Result::ok).unwrap_or_default();
            let task = Task::Whole { number, name: name.clone() };
            if let Some((_, conditions)) = asked.into_iter().find(|(of, _)| *of == name)
                && !tasks.is_under_way(&task)
            {
                wanted.push((number, name.clone(), conditions));
            }
        }
    }
    wanted
}

/// The request of a training after so many failed tries. `from_nothing`: without a checkpoint.
pub(super) fn request(
    id: u64,
    row: &Candidate,
    training: Training,
    failed: u32,
    from_nothing: bool,
) -> Request {
    // A checkpoint may be what a training failed at: the next attempt begins from nothing.
    let resume_from = if from_nothing || failed > 0 { None } else { row.checkpoint.clone() };
    let (attempt, seed) = (failed + 1, training.seed);
    match &row.subject {
        Subject::Stack(architecture) => Request::Evaluate(Evaluate {
            id,
            attempt,
            architecture: architecture.clone(),
            tokens: training.tokens,
            seed,
            resume_from,
        }),
        Subject::Point(parameters) => {
            Request::Eval(Eval { id, attempt, parameters: parameters.clone(), seed })
        }
    }
}
