//! What a world does to its campaign, and what the campaign is.

use search::campaign::Settings;
use search::campaign::trust::Plan;
use search::latency::WholeModels;
use search::proposals::{Algorithm, Proposer};

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
    /// Whether candidates are trained in rungs, and some of them again afterwards.
    pub(super) rungs: bool,
}

pub(super) const CALM: World = World {
    scheduler_seed: 0,
    trainers: 1,
    kills: 0.0,
    repeats: 0.0,
    trouble: 0.0,
    quiet_timing: true,
    losses: 0.0,
    rungs: false,
};

pub(super) const FULL: u64 = 1000;
pub(super) const RUNGS: [u64; 2] = [100, 300];
pub(super) const LONGER: u64 = 4000;
pub(super) const REPEATS: usize = 5;

pub(super) fn settings(world: &World) -> Settings {
    Settings {
        seed: 5,
        evaluations: 30,
        tokens: FULL,
        target_tokens: FULL,
        rungs: if world.rungs { RUNGS.to_vec() } else { Vec::new() },
        trust: if world.rungs {
            Plan { repeats: REPEATS as u32, longer: 4, longer_tokens: LONGER, seeds: 1 }
        } else {
            Plan::default()
        },
        limits: at_most(&LIMITS),
        give_up_after: 1000,
        quiet_timing: world.quiet_timing,
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
