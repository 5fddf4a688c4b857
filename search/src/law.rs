//! How the loss falls with depth, width and data: L = L0 + a·D^−α + b·W^−β + c·N^−γ (arXiv 2511.18890, equation 1),
//! fitted to trained stacks, with bands.
//!
//! [`Fit::new`] refuses observations that do not identify the law. Its bands come from a wild bootstrap over stacks
//! (Cameron, Gelbach and Miller 2008): residuals of one stack change their sign together, so that what one stack is better
//! for in ways that depth and width do not say stays with it, at every seed and length of training. [`choose`] answers which
//! depth and width to take within a latency, with [`speeds`] from the latency table.

mod fit;
mod latency;
mod terms;

use std::collections::{BTreeMap, BTreeSet};

use crate::proposals::SearchRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

pub use latency::{Choice, LayerSpeed, choose, speeds};
pub use terms::{Law, Observation, Power};

/// Why observations give no law.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Unidentified {
    /// More unknowns than these stacks can tell.
    #[error(
        "{found} trained stacks are too few for a law of {unknowns} unknowns: train at least {least} of different depths and widths"
    )]
    TooFew {
        /// Different stacks.
        found: usize,
        /// Unknowns of the law.
        unknowns: usize,
        /// Stacks that it takes.
        least: usize,
    },
    /// A power of what hardly varies cannot be told from a constant.
    #[error(
        "{what} takes {found} values among the trained stacks, and its power needs at least 3: widen `{key}`"
    )]
    Levels {
        /// E.g. the depth.
        what: &'static str,
        /// Different values.
        found: usize,
        /// Where the campaign file says so.
        key: &'static str,
    },
    /// One of them could be the cause of everything.
    #[error(
        "depth and width vary together among the trained stacks (correlation {correlation:.2} of their logarithms): their \
         shares cannot be told apart; an evenly spread campaign (`algorithm = \"random\"`) keeps them apart"
    )]
    Together {
        /// Of the logarithms.
        correlation: f64,
    },
    /// Chance explains the losses as well.
    #[error(
        "depth and width explain no more of the losses than chance does (p = {p:.2}): other differences between the stacks, \
         or noise, are larger; use a campaign with one mixer and one FFN, longer trainings, or more stacks"
    )]
    Chance {
        /// Share of random assignments that are explained as well.
        p: f64,
    },
}

/// A fitted law with its uncertainty.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// The law of least squares.
    pub law: Law,
    /// Laws fitted to resampled losses.
    pub draws: Vec<Law>,
    /// Standard deviation of the losses about the law.
    pub deviation: f64,
    /// Part of the variance that the law explains.
    pub explained: f64,
}

/// Random assignments of stacks to losses that the law is set beside.
const SHUFFLES: usize = 99;
/// A law that chance equals more often than this explains nothing.
const CHANCE: f64 = 0.05;
/// Logarithms of depth and width that correlate above this cannot be told apart.
const TOGETHER: f64 = 0.95;
/// A stack that pulls more than this has hardly a residual to learn from.
const MOST_PULL: f64 = 0.8;
/// Stacks beyond the unknowns.
const SPARE: usize = 3;

impl Fit {
    /// Fits the law and `draws` resampled ones. The data term is there when trainings have at least 3 lengths.
    ///
    /// # Errors
    /// When the observations do not identify the law.
    pub fn new(
        observations: &[Observation],
        draws: usize,
        seed: u64,
    ) -> Result<Self, Unidentified> {
        let has_tokens = levels(observations, |o| o.tokens) >= 3;
        let unknowns = if has_tokens { 7 } else { 5 };
        check(observations, unknowns)?;
        let mut rng = SearchRng::seed_from_u64(seed);
        let losses: Vec<f64> = observations.iter().map(|o| o.loss).collect();
        let problem = fit::Problem::new(observations, has_tokens);
        let best = problem.fit(&losses);
        check_chance(observations, has_tokens, best.squares, &mut rng)?;

        let n = losses.len() as f64;
        let mean = losses.iter().sum::<f64>() / n;
        let total: f64 = losses.iter().map(|loss| (loss - mean).powi(2)).sum();
        let free = (n - unknowns as f64).max(1.0);
        let fitted = problem.values(&best.unknowns);
        // Least squares leave residuals smaller than the errors were, most where a stack pulls the law to itself: e/(1 − h),
        // as in HC3 (MacKinnon and White 1985), with the leverage h of all trainings of a stack.
        let mut pulls: BTreeMap<u32, f64> = BTreeMap::new();
        for (o, leverage) in observations.iter().zip(problem.leverages(&best.unknowns)) {
            *pulls.entry(o.stack).or_default() += leverage;
        }
        let draws = (0..draws)
            .map(|_| {
                let factors: BTreeMap<u32, f64> = pulls
                    .iter()
                    .map(|(&stack, pull)| {
                        let sign = if rng.random_bool(0.5) { 1.0 } else { -1.0 };
                        (stack, sign / (1.0 - pull.min(MOST_PULL)))
                    })
                    .collect();
                let resampled: Vec<f64> = observations
                    .iter()
                    .zip(&fitted)
                    .map(|(o, fitted)| fitted + factors[&o.stack] * (o.loss - fitted))
                    .collect();
                problem.law(&problem.fit_from(&best.unknowns, &resampled).unknowns)
            })
            .collect();
        Ok(Self {
            law: problem.law(&best.unknowns),
            draws,
            deviation: (best.squares / free).sqrt(),
            explained: 1.0 - best.squares / total,
        })
    }

    /// The 95 % band of a number that a law gives.
    pub fn band(&self, of: impl Fn(&Law) -> f64) -> (f64, f64) {
        let mut values: Vec<f64> = self.draws.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let place = (part * values.len() as f64).floor() as usize;
            values.get(place.min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
        };
        (at(0.025), at(0.975))
    }
}

/// Different values.
fn levels<T: Ord>(observations: &[Observation], of: impl Fn(&Observation) -> T) -> usize {
    observations.iter().map(of).collect::<BTreeSet<T>>().len()
}

fn check(observations: &[Observation], unknowns: usize) -> Result<(), Unidentified> {
    let found = levels(observations, |o| o.stack);
    let least = unknowns + SPARE;
    if found < least {
        return Err(Unidentified::TooFew { found, unknowns, least });
    }
    let depths = levels(observations, |o| o.depth);
    if depths < 3 {
        return Err(Unidentified::Levels { what: "the depth", found: depths, key: "space.depth" });
    }
    let widths = levels(observations, |o| o.width);
    if widths < 3 {
        return Err(Unidentified::Levels {
            what: "the width",
            found: widths,
            key: "space.d_model",
        });
    }
    let correlation = correlation(observations);
    if correlation.abs() > TOGETHER {
        return Err(Unidentified::Together { correlation });
    }
    Ok(())
}

/// Of ln D and ln W.
fn correlation(observations: &[Observation]) -> f64 {
    let n = observations.len() as f64;
    let mean = |of: fn(&Observation) -> f64| observations.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(Observation::ln_depth), mean(Observation::ln_width));
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for o in observations {
        let (dx, dy) = (o.ln_depth() - x, o.ln_width() - y);
        (xx, yy, xy) = (xx + dx * dx, yy + dy * dy, xy + dx * dy);
    }
    xy / (xx * yy).sqrt()
}

/// A permutation test: depths and widths are dealt to the stacks anew, and the law fitted again.
fn check_chance(
    observations: &[Observation],
    has_tokens: bool,
    squares: f64,
    rng: &mut SearchRng,
) -> Result<(), Unidentified> {
    let mut shapes: Vec<(u32, u32, u32)> =
        observations.iter().map(|o| (o.stack, o.depth, o.width)).collect();
    shapes.sort_by_key(|shape| shape.0);
    shapes.dedup_by_key(|shape| shape.0);
    let stacks: Vec<u32> = shapes.iter().map(|shape| shape.0).collect();
    let losses: Vec<f64> = observations.iter().map(|o| o.loss).collect();
    let mut as_good = 0;
    for _ in 0..SHUFFLES {
        shapes.shuffle(rng);
        let dealt: Vec<Observation> = observations
            .iter()
            .map(|o| {
                let (_, depth, width) =
                    shapes[stacks.binary_search(&o.stack).expect("one of them")];
                Observation { depth, width, ..*o }
            })
            .collect();
        let fit = fit::Problem::new(&dealt, has_tokens).fit(&losses);
        as_good += usize::from(fit.squares <= squares);
    }
    let p = (as_good + 1) as f64 / (SHUFFLES + 1) as f64;
    if p > CHANCE { Err(Unidentified::Chance { p }) } else { Ok(()) }
}
