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
use search::campaign::{Candidate, CandidateState, Finish};
use search::proposals::SearchRng;

use self::checks::{Members, check_end};
use self::driver::Driver;
use self::store::Store;
use self::world::{CALM, FULL, OTHER, World};

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
    stops: u32,
    /// Requests sent while something trained and something was timed elsewhere.
    beside: u32,
    /// Tokens of all trainings that were begun.
    tokens_begun: u64,
    members: Members,
}

impl Counts {
    fn with(self, other: Self) -> Self {
        Self {
            kills: self.kills + other.kills,
            losses: self.losses + other.losses,
            handed_back: self.handed_back + other.handed_back,
            adopted: self.adopted + other.adopted,
            late: self.late + other.late,
            stops: self.stops + other.stops,
            beside: self.beside + other.beside,
            tokens_begun: self.tokens_begun + other.tokens_begun,
            members: Members {
                all: self.members.all + other.members.all,
                weightless: self.members.weightless + other.members.weightless,
            },
        }
    }
}

/// Says in which world it was that something does not hold.
struct Named<'a>(&'a World);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in {:?}", self.0);
        }
    }
}

fn run_counting(world: &World) -> (Store, Counts) {
    let _named = Named(world);
    let store = Store::default();
    let mut driver = Driver {
        world,
        rng: SearchRng::seed_from_u64(world.scheduler_seed),
        campaign: store.campaign(world),
        store,
        answers: Vec::new(),
        training: HashSet::new(),
        timing: HashMap::new(),
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
        stops: 0,
        beside: 0,
    };
    driver.restart();
    for _ in 0..100_000 {
        if let Some(Finish::Halted { .. } | Finish::Stopped) = driver.finish {
            // The user mends it, where there is something to mend, and goes on.
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
    let members = check_end(&driver, world);
    let Driver { kills, losses, handed_back, adopted, late, stops, tokens_begun, beside, .. } =
        driver;
    let store = driver.store;
    let counts =
        Counts { kills, losses, handed_back, adopted, late, stops, beside, tokens_begun, members };
    (store, counts)
}

#[test]
fn rungs_cost_less_than_full_trainings() {
    let (_, Counts { tokens_begun: full, .. }) = run_counting(&CALM);
    let (store, Counts { tokens_begun: rungs, .. }) = run_counting(&World { rungs: 2, ..CALM });
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
        for (quiet_timing, rungs) in [(true, 0), (false, 0), (true, 2), (false, 2)] {
            let world = World {
                scheduler_seed: seed,
                trainers: 1 + seed as u32 % 4,
                kills: [0.0, 0.02, 0.1][seed as usize % 3],
                repeats: 0.2,
                trouble: 0.3,
                quiet_timing,
                rungs,
                ..CALM
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
            rungs: if seed % 4 < 2 { 2 } else { 0 },
            ..CALM
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

/// Of one target: with two, who is timed as a whole depends on which device is done first.
#[test]
fn kills_and_delays_change_nothing_with_one_trainer() {
    for (trouble, rungs) in [(0.0, 0), (0.3, 0), (0.0, 2), (0.3, 2)] {
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

#[test]
fn two_targets_are_timed_side_by_side() {
    let mut beside = 0;
    for seed in 0..16 {
        let world = World {
            scheduler_seed: seed,
            trainers: 1 + seed as u32 % 3,
            kills: [0.0, 0.03][seed as usize % 2],
            has_two_targets: true,
            is_second_limited: seed % 2 == 0,
            ..CALM
        };
        let (store, counts) = run_counting(&world);
        beside += counts.beside;
        let done = || store.rows.values().filter(|row| row.state == CandidateState::Done);
        // Each latency is of its own device's timings, and each is corrected by whole models of its own.
        for name in ["decode_us", OTHER.1] {
            let us = |row: &Candidate| row.values.get(name).map(|value| value.mean);
            assert!(done().all(|row| us(row).is_some()), "{name}");
            assert!(store.rows.values().filter(|row| row.whole.contains_key(name)).count() >= 6);
        }
        let of = |row: &Candidate, name: &str| row.values.get(name).map(|value| value.mean);
        assert!(done().any(|row| of(row, "decode_us") != of(row, OTHER.1)));
        // Bytes and operations are those of the first target.
        let one = run(&World { has_two_targets: false, ..world }).0;
        let bytes = |store: &Store| store.rows[&1].values.get("cache_bytes").copied();
        assert_eq!(bytes(&store), bytes(&one));
    }
    assert!(beside > 50, "{beside}");
}

/// Worlds that are drawn, by default.
const WORLDS: u64 = 2000;

#[test]
#[expect(clippy::print_stdout, reason = "what happened in how many campaigns")]
fn thousands_of_campaigns_reach_their_end() {
    let worlds = std::env::var("DELTAFRONT_WORLDS").ok().and_then(|text| text.parse().ok());
    let worlds: u64 = worlds.unwrap_or(WORLDS);
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let some = |thread: u64| {
        let mut all = Counts::default();
        for seed in (thread..worlds).step_by(threads as usize) {
            let world = World::drawn(seed);
            let (store, counts) = run_counting(&world);
            if seed % 16 == 0 {
                assert_eq!(store, run(&world).0, "the same world gives the same campaign");
            }
            all = all.with(counts);
        }
        all
    };
    let all = std::thread::scope(|scope| {
        let running: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || some(thread))).collect();
        running
            .into_iter()
            .map(|one| one.join().expect("it ends"))
            .fold(Counts::default(), Counts::with)
    });
    println!("{worlds} campaigns: {all:?}");
    // Who may be on one of twenty fronts keeps its weights, and whole models here are nothing like the sums of their parts.
    assert!(20 * all.members.weightless <= all.members.all, "{:?}", all.members);
    let per_campaign = |count: u32| f64::from(count) / worlds as f64;
    assert!(per_campaign(all.kills) > 1.0 && per_campaign(all.stops) > 0.3, "{all:?}");
    assert!(per_campaign(all.losses) > 1.0 && per_campaign(all.late) > 0.3, "{all:?}");
    assert!(per_campaign(all.adopted) > 0.1 && per_campaign(all.handed_back) > 0.3, "{all:?}");
}
