//! What must hold when a simulated campaign is at its end.

use std::collections::{BTreeMap, HashMap, HashSet};

use search::campaign::drift::Drift;
use search::campaign::front::Contenders;
use search::campaign::trust::{Doubt, doubts};
use search::campaign::{Candidate, CandidateState, Settings};

use super::driver::Driver;
use super::world::{FULL, LONGER, REPEATS, World, settings};

/// Members of the front that were trained to the end and cannot be foretold to be trained again, and those of them whose
/// weights are gone: a front that moves by what is timed late may take back whom 19 of 20 drawn fronts were without.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Members {
    pub(super) all: u32,
    pub(super) weightless: u32,
}

pub(super) fn check_end(driver: &Driver<'_>, world: &World) -> Members {
    let rows = &driver.store.rows;
    let settings = settings(world);
    let numbers: Vec<u32> = rows.keys().copied().collect();
    assert_eq!(numbers, (1..=rows.len() as u32).collect::<Vec<_>>(), "numbers without gaps");
    assert!(rows.values().all(|row| row.state.is_final()));
    // Who was trained at a rung and refused at the next has cost something too.
    let is_evaluated = |row: &&Candidate| {
        row.train_seconds > 0.0 || !matches!(row.state, CandidateState::Infeasible { .. })
    };
    let evaluated = rows.values().filter(is_evaluated).count();
    assert_eq!(evaluated, settings.evaluations as usize);
    assert!(rows.values().all(|row| row.values.values().all(|v| v.mean.is_finite())));
    let front = driver.campaign.front();
    // Where answers are corrupted, even the timing of a part of all of them may have failed too often.
    assert!(!front.is_empty() || world.corrupt > 0.0);
    for number in &front {
        assert_eq!(rows[number].state, CandidateState::Done);
        let is_timed = rows[number].whole.len() == settings.latencies.len();
        assert!(is_timed || world.corrupt > 0.0, "timed as a whole");
    }
    let members = check_rungs(driver, &settings);
    let stored: HashMap<u32, Candidate> = rows.clone().into_iter().collect();
    let in_memory: HashMap<u32, Candidate> =
        driver.campaign.candidates().map(|row| (row.number, row.clone())).collect();
    for (number, row) in &stored {
        assert_eq!(Some(row), in_memory.get(number), "what is in memory is what was saved");
    }
    assert_eq!(stored.len(), in_memory.len());
    // The first few whose parts were timed tell what sums are worth.
    let wholes = rows.values().filter(|row| !row.whole.is_empty()).count();
    assert!(wholes >= 6 || world.corrupt > 0.0, "{wholes}");
    for (name, _) in &settings.latencies {
        check_drift(rows, name, world);
    }
    members
}

/// They were timed once more, and what that differed by is in the error of every latency.
fn check_drift(rows: &BTreeMap<u32, Candidate>, name: &str, world: &World) {
    let twice = rows.values().filter(|row| row.timed_twice(name).is_some()).count();
    assert!(twice == 6 || world.corrupt > 0.0, "{twice} were timed twice");
    let drift = Drift::of_rows(rows.values(), name);
    if world.corrupt > 0.0 {
        return;
    }
    assert!(
        (drift.total() > 0.05) == (world.drift > 0.2) || (0.05..0.2).contains(&world.drift),
        "{drift:?}"
    );
    for row in rows.values().filter(|row| row.state == CandidateState::Done) {
        let Some(value) = row.values.get(name) else { continue };
        let relative = value.standard_error.expect("it has one") / value.mean;
        assert!(relative >= 0.99 * drift.total().min(drift.common.hypot(0.03)), "{relative}");
        if let Some(whole) = row.whole.get(name) {
            assert_eq!(Some(value), Some(&drift.on(whole)));
        }
    }
}

fn check_rungs(driver: &Driver<'_>, settings: &Settings) -> Members {
    let done = || driver.store.rows.values().filter(|row| row.state == CandidateState::Done);
    let front = driver.campaign.front();
    for row in done() {
        assert!(settings.rungs.contains(&row.fidelity) || row.fidelity == FULL);
        assert!(
            row.checkpoint.is_none() || row.fidelity == FULL,
            "who was left at a rung keeps none"
        );
        let at_end = row.trained_values(row.fidelity)[&"bits_per_byte".into()];
        assert_eq!(
            row.values[&"bits_per_byte".into()],
            at_end,
            "the values are of the highest rung"
        );
    }
    // Who was over a limit as a whole model, or failed, at the last rung keeps its place: there may be no other on it.
    let highest = done().map(|row| row.fidelity).max();
    let mut members = Members::default();
    for row in front.iter().map(|number| &driver.store.rows[number]) {
        assert_eq!(Some(row.fidelity), highest, "one fidelity in a front");
        // A latency of 0 pushes everybody off the front until its model is timed.
        if settings.trust.repeats == 0 && row.fidelity == FULL && driver.world.corrupt == 0.0 {
            members.all += 1;
            members.weightless += u32::from(row.checkpoint.is_none());
            // A second target has twice the whole models, which here are nothing like the sums of their parts.
            assert!(
                driver.world.has_two_targets || row.checkpoint.is_some(),
                "its weights are kept"
            );
        }
    }
    let all: Vec<Candidate> = driver.store.rows.values().cloned().collect();
    let contenders = Contenders::of(all.iter(), &settings.objectives, settings.target_tokens);
    let off =
        doubts(&contenders, settings.seed).into_iter().filter(|doubt| doubt.membership == 0.0);
    for Doubt { number, .. } in off {
        assert!(driver.store.rows[&number].checkpoint.is_none(), "and of nobody far off it");
    }
    let kept = done().filter_map(|row| row.checkpoint.clone()).collect::<HashSet<_>>();
    assert!(kept.is_subset(&driver.checkpoints), "a checkpoint that a row names is gone");
    let world = driver.world;
    if driver.kills == 0 && world.repeats == 0.0 && driver.losses == 0 && world.corrupt == 0.0 {
        assert_eq!(kept, driver.checkpoints, "nothing is left over");
    }
    if settings.rungs.is_empty() {
        return members;
    }
    let ladder: Vec<u64> = settings.rungs.iter().copied().chain([FULL]).collect();
    for (rung, next) in ladder.iter().copied().zip(ladder.iter().copied().skip(1)) {
        // Who went on and was over a limit as a whole model keeps its place.
        let is_judged = |row: &&Candidate| {
            matches!(row.state, CandidateState::Done | CandidateState::Infeasible { .. })
        };
        let at =
            |tokens: u64| all.iter().filter(is_judged).filter(|row| row.fidelity >= tokens).count();
        // A third goes on; the references always do, and those that later ones pushed out of the third have gone on too.
        let is_a_part = at(next) >= at(rung).div_ceil(4) && at(next) < at(rung);
        assert!(is_a_part || at(rung) <= 12, "{} of {} went on", at(next), at(rung));
    }
    let repeats: usize = done().map(|row| row.seeds(FULL).saturating_sub(1)).sum();
    assert!(repeats <= REPEATS);
    let longer = done().filter(|row| row.seeds(LONGER) > 0).count();
    assert!(
        longer <= 4 && (longer > 0 || driver.world.trouble + driver.world.corrupt > 0.0),
        "{longer} were trained for longer"
    );
    members
}
