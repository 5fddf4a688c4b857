//! Campaigns in a simulated world: workers answer late, in any order, twice, wrongly or not at all, and the driver is
//! killed between any two commands and goes on from the store. What must hold in every world is asserted on the way
//! and at the end.

mod checks;
mod driver;
mod store;
mod workers;
mod world;

use std::collections::{HashMap, HashSet};

use rand::SeedableRng;
use search::campaign::Finish;
use search::proposals::SearchRng;

use self::checks::check_end;
use self::driver::Driver;
use self::store::Store;
use self::world::{CALM, FULL, World};

/// Runs a campaign in a world to its end; its store and the number of kills.
fn run(world: &World) -> (Store, u32) {
    let (store, counts) = run_counting(world);
    (store, counts.kills)
}

/// What happened in a world.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    kills: u32,
    losses: u32,
    handed_back: u32,
    adopted: u32,
    late: u32,
    /// Tokens of all trainings that were begun.
    tokens_begun: u64,
}

fn run_counting(world: &World) -> (Store, Counts) {
    let store = Store::default();
    let mut driver = Driver {
        world,
        rng: SearchRng::seed_from_u64(world.scheduler_seed),
        campaign: store.campaign(world),
        store,
        answers: Vec::new(),
        training: HashSet::new(),
        timing: HashSet::new(),
        checkpoints: HashSet::new(),
        tokens_begun: 0,
        at_work: HashMap::new(),
        workers: 0,
        losses: 0,
        handed_back: 0,
        adopted: 0,
        late: 0,
        finish: None,
        kills: 0,
    };
    driver.restart();
    for _ in 0..100_000 {
        if let Some(Finish::Halted { .. }) = driver.finish {
            // The user mends it and goes on.
            driver.finish = None;
            driver.kills += 1;
            driver.restart();
        }
        if driver.finish.is_some() {
            break;
        }
        driver.step();
    }
    assert_eq!(driver.finish, Some(Finish::Complete), "{world:?}");
    check_end(&driver, world);
    let Driver { kills, losses, handed_back, adopted, late, tokens_begun, .. } = driver;
    (driver.store, Counts { kills, losses, handed_back, adopted, late, tokens_begun })
}

#[test]
fn rungs_cost_less_than_full_trainings() {
    let (_, Counts { tokens_begun: full, .. }) = run_counting(&CALM);
    let (store, Counts { tokens_begun: rungs, .. }) = run_counting(&World { rungs: true, ..CALM });
    let extra: u64 = store
        .rows
        .values()
        .flat_map(|row| row.trained.iter().filter(|t| t.seed != row.seed || t.tokens > FULL))
        .map(|t| t.tokens)
        .sum();
    assert!(extra > 0);
    assert!(2 * (rungs - extra) < full, "{rungs} tokens, {extra} of them extra, and {full}");
}

#[test]
fn campaigns_reach_their_end_in_every_world() {
    let mut kills = 0;
    for seed in 0..20 {
        for (quiet_timing, rungs) in [(true, false), (false, false), (true, true), (false, true)] {
            let world = World {
                scheduler_seed: seed,
                trainers: 1 + seed as u32 % 4,
                kills: [0.0, 0.02, 0.1][seed as usize % 3],
                repeats: 0.2,
                trouble: 0.3,
                quiet_timing,
                losses: 0.0,
                rungs,
            };
            let (store, killed) = run(&world);
            kills += killed;
            assert_eq!(store, run(&world).0, "the same world gives the same campaign");
        }
    }
    assert!(kills > 100, "only {kills} kills tried anything");
}

#[test]
fn many_workers_that_come_and_go_lose_nothing() {
    let mut all = Counts::default();
    for seed in 0..24 {
        let world = World {
            scheduler_seed: seed,
            trainers: [2, 8, 64][seed as usize % 3],
            kills: [0.0, 0.03][seed as usize / 3 % 2],
            repeats: 0.2,
            trouble: 0.3,
            quiet_timing: false,
            losses: 0.1,
            rungs: seed % 4 < 2,
        };
        let (store, counts) = run_counting(&world);
        assert_eq!(store, run(&world).0, "the same world gives the same campaign");
        all.losses += counts.losses;
        all.handed_back += counts.handed_back;
        all.adopted += counts.adopted;
        all.late += counts.late;
        all.kills += counts.kills;
    }
    assert!(all.losses > 200 && all.handed_back > 50 && all.late > 200, "{all:?}");
    assert!(all.kills > 30 && all.adopted > 30, "{all:?}");
}

#[test]
fn kills_and_delays_change_nothing_with_one_trainer() {
    for (trouble, rungs) in [(0.0, false), (0.3, false), (0.0, true), (0.3, true)] {
        let calm = World { trouble, rungs, ..CALM };
        let (expected, _) = run(&calm);
        for seed in 0..12 {
            for quiet_timing in [true, false] {
                let world = World {
                    scheduler_seed: seed,
                    kills: 0.05,
                    repeats: 0.2,
                    losses: [0.0, 0.1][seed as usize % 2],
                    quiet_timing,
                    ..calm
                };
                let (store, kills) = run(&world);
                assert!(kills > 0, "seed {seed} kills nothing");
                for (number, row) in &expected.rows {
                    assert_eq!(store.rows.get(number), Some(row), "seed {seed}");
                }
                assert_eq!(store.rows.len(), expected.rows.len(), "seed {seed}");
            }
        }
    }
}
