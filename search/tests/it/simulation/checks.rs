//! What must hold when a simulated campaign is at its end.

use std::collections::{HashMap, HashSet};

use search::campaign::front::Contenders;
use search::campaign::trust::{Doubt, doubts};
use search::campaign::{Candidate, CandidateState, Settings};

use super::driver::Driver;
use super::world::{FULL, LONGER, REPEATS, RUNGS, World, settings};

pub(super) fn check_end(driver: &Driver<'_>, world: &World) {
    let rows = &driver.store.rows;
    let settings = settings(world);
    let numbers: Vec<u32> = rows.keys().copied().collect();
    assert_eq!(numbers, (1..=rows.len() as u32).collect::<Vec<_>>(), "numbers without gaps");
    assert!(rows.values().all(|row| row.state.is_final()));
    // Who was trained at a rung and refused at the next has cost something too.
    let is_evaluated = |row: &&Candidate| {
        row.fidelity > 0 || !matches!(row.state, CandidateState::Infeasible { .. })
    };
    let evaluated = rows.values().filter(is_evaluated).count();
    assert_eq!(evaluated, settings.evaluations as usize);
    assert!(rows.values().all(|row| row.values.values().all(|v| v.mean.is_finite())));
    let front = driver.campaign.front();
    assert!(!front.is_empty());
    for number in &front {
        assert_eq!(rows[number].state, CandidateState::Done);
        assert_eq!(rows[number].whole.len(), settings.latencies.len(), "timed as a whole");
    }
    check_rungs(driver, &settings);
    let stored: HashMap<u32, Candidate> = rows.clone().into_iter().collect();
    let in_memory: HashMap<u32, Candidate> =
        driver.campaign.candidates().map(|row| (row.number, row.clone())).collect();
    assert_eq!(stored, in_memory, "what is in memory is what was saved");
    // The first few whose parts were timed tell what sums are worth.
    assert!(rows.values().filter(|row| !row.whole.is_empty()).count() >= 6);
}

fn check_rungs(driver: &Driver<'_>, settings: &Settings) {
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
    for number in front {
        let is_sure = settings.trust.repeats == 0;
        assert_eq!(driver.store.rows[&number].fidelity, FULL, "one fidelity in a front");
        assert!(
            !is_sure || driver.store.rows[&number].checkpoint.is_some(),
            "its weights are kept"
        );
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
    if driver.kills == 0 && driver.world.repeats == 0.0 && driver.losses == 0 {
        assert_eq!(kept, driver.checkpoints, "nothing is left over");
    }
    if settings.rungs.is_empty() {
        return;
    }
    for (rung, next) in [(RUNGS[0], RUNGS[1]), (RUNGS[1], FULL)] {
        // Who went on and was over a limit as a whole model keeps its place.
        let is_judged = |row: &&Candidate| {
            matches!(row.state, CandidateState::Done | CandidateState::Infeasible { .. })
        };
        let at =
            |tokens: u64| all.iter().filter(is_judged).filter(|row| row.fidelity >= tokens).count();
        // A third goes on; the references always do, and those that later ones pushed out of the third have gone on too.
        assert!(at(next) >= at(rung).div_ceil(4), "{} of {} went on", at(next), at(rung));
        assert!(at(next) < at(rung), "{} of {} went on", at(next), at(rung));
    }
    let repeats: usize = done().map(|row| row.seeds(FULL).saturating_sub(1)).sum();
    assert!(repeats <= REPEATS);
    let longer = done().filter(|row| row.seeds(LONGER) > 0).count();
    assert!(
        longer <= 4 && (longer > 0 || driver.world.trouble > 0.0),
        "{longer} were trained for longer"
    );
}
