//! What a world does to its campaign, and what the campaign is.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use search::campaign::trust::Plan;
use search::campaign::{Event, Quiet, Settings};
use search::latency::{Conditions, Phase, WholeModels};
use search::limits::Limit;
use search::proposals::{Algorithm, Proposer, SearchRng};

use crate::stacks::{self, at_most, uniform};

/// What a world does to its campaign.
#[derive(Debug, Clone, Copy)]
pub(super) struct World {
    /// Of delays, repeats and kills.
    pub(super) scheduler_seed: u64,
    pub(super) trainers: u32,
    /// Chance of a kill after each executed command.
    pub(super) kills: f64,
    /// Chance that an answer comes a second time.
    pub(super) repeats: f64,
    /// Share of trainings and parts that fail, in one way or another.
    pub(super) trouble: f64,
    pub(super) quiet_timing: bool,
    /// Chance at each step that a worker's lease runs out, whose answer comes all the same; workers come again. When the
    /// driver is killed they stay at what they are at.
    pub(super) losses: f64,
    /// Rungs in which candidates are trained, at most those of [`RUNGS`]; where there are some, a few are trained again afterwards.
    pub(super) rungs: usize,
    pub(super) profilers: u32,
    /// Steps that an answer takes are fewer.
    pub(super) delay: u32,
    /// Chance that an answer comes as something else than what its worker said.
    pub(super) corrupt: f64,
    /// Chance at each step that the user stops the campaign, or that there is no room on the disk: it goes on another day.
    pub(super) stops: f64,
    pub(super) evaluations: u32,
    pub(super) attempts: u32,
    /// How far apart, relative to the first, two timings of a whole model may be.
    pub(super) drift: f64,
    /// Whether decode steps are timed on a second device, too, on which nothing trains.
    pub(super) has_two_targets: bool,
    /// Whether the latency there decides who is trained, too; else it need not be waited for.
    pub(super) is_second_limited: bool,
}

pub(super) const CALM: World = World {
    scheduler_seed: 0,
    trainers: 1,
    kills: 0.0,
    repeats: 0.0,
    trouble: 0.0,
    quiet_timing: true,
    losses: 0.0,
    rungs: 0,
    profilers: 1,
    delay: 6,
    corrupt: 0.0,
    stops: 0.0,
    evaluations: 30,
    attempts: 2,
    drift: 0.1,
    has_two_targets: false,
    is_second_limited: false,
};

impl World {
    /// One of very many.
    pub(super) fn drawn(seed: u64) -> Self {
        let mut rng = SearchRng::seed_from_u64(seed);
        // Each trouble is absent from a good part of the worlds.
        let mut chance =
            |most: f64| if rng.random_bool(0.3) { 0.0 } else { rng.random::<f64>() * most };
        let (kills, repeats, trouble) = (chance(0.05), chance(0.4), chance(0.3));
        let (losses, corrupt, stops) = (chance(0.15), chance(0.1), chance(0.02));
        Self {
            scheduler_seed: seed,
            trainers: [1, 2, 3, 5, 8, 13, 21, 34, 48][rng.random_range(0..9)],
            kills,
            repeats,
            trouble,
            quiet_timing: rng.random(),
            losses,
            rungs: rng.random_range(0..=RUNGS.len()),
            profilers: rng.random_range(1..=4),
            delay: rng.random_range(1..30),
            corrupt,
            stops,
            evaluations: rng.random_range(12..=40),
            attempts: rng.random_range(1..=4),
            drift: [0.0, 0.01, 0.3][seed as usize % 3],
            has_two_targets: rng.random_bool(0.3),
            is_second_limited: rng.random(),
        }
    }

    /// So many trainers, and those who time.
    pub(super) fn workers(&self, trainers: u32) -> Event {
        let devices =
            [stacks::DEVICE, OTHER.0].into_iter().take(1 + usize::from(self.has_two_targets));
        let profilers: BTreeMap<String, u32> =
            devices.map(|device| (device.to_owned(), self.profilers)).collect();
        Event::Workers { trainers, profilers }
    }

    /// Whether the two devices are of one machine.
    pub(super) fn takes_turns(&self) -> bool {
        self.has_two_targets && self.scheduler_seed % 4 < 2
    }

    pub(super) fn rungs(&self) -> &'static [u64] {
        &RUNGS[RUNGS.len() - self.rungs..]
    }
}

pub(super) const FULL: u64 = 1000;
const RUNGS: [u64; 3] = [30, 100, 300];
pub(super) const LONGER: u64 = 4000;
pub(super) const REPEATS: usize = 5;

/// The second device, and the name of the decode latency there.
pub(super) const OTHER: (&str, &str) = ("other", "decode_us.other");

pub(super) fn settings(world: &World) -> Settings {
    let mut all = of_one_target(world);
    if world.has_two_targets {
        let (_, decode) = all.latencies[0].clone();
        let phase = Phase::Decode { context: 2048 };
        let conditions = Conditions { device: OTHER.0.to_owned(), phase, ..decode };
        all.latencies.push((OTHER.1.to_owned(), conditions));
        all.objectives.extend(stacks::objectives(&[OTHER.1]));
        if world.is_second_limited {
            all.limits.add(OTHER.1, Limit::at_most(BUDGET_US));
        }
    }
    all
}

fn of_one_target(world: &World) -> Settings {
    Settings {
        seed: 5,
        evaluations: world.evaluations,
        attempts: world.attempts,
        tokens: FULL,
        target_tokens: FULL,
        rungs: world.rungs().to_vec(),
        trust: if world.rungs > 0 {
            Plan { repeats: REPEATS as u32, longer: 4, longer_tokens: LONGER, seeds: 1 }
        } else {
            Plan::default()
        },
        limits: at_most(&LIMITS),
        give_up_after: 1000,
        quiet: Quiet {
            from_training: world
                .quiet_timing
                .then(|| stacks::DEVICE.to_owned())
                .into_iter()
                .collect(),
            by_turns: world
                .takes_turns()
                .then(|| [stacks::DEVICE, OTHER.0].map(str::to_owned).into())
                .into_iter()
                .collect(),
        },
        time_whole_models: WholeModels::Front,
        ..stacks::settings()
    }
}

const BUDGET_US: f64 = 300.0;
pub(super) const LIMITS: [(&str, f64); 2] = [("decode_us", BUDGET_US), ("parameters", 100_000.0)];

pub(super) fn proposer() -> Proposer<search::Architecture> {
    let reference = |name: &str, index| (name.to_owned(), uniform(index, 2));
    let references = vec![reference("delta", 0), reference("attention", 3)];
    Proposer::new(Algorithm::Evolution, 5, 8, references)
}
