//! The states of a log-linear mixer: one for each piece of the Fenwick tree over what a sequence has seen.

use kernels::cpu::Aligned;
use kernels::log_linear::{is_in_use, merge};

use super::scratch::Run;
use crate::weights::SplitMix;

/// The states of one sequence in one mixer.
#[derive(Debug, Clone)]
pub(crate) struct Fenwick {
    /// Positions seen.
    position: usize,
    levels: usize,
    /// Values of one state, K·V.
    size: usize,
    heads: Vec<Head>,
    /// What is timed instead of the position that was last asked for.
    walk: Option<(usize, Walk)>,
}

/// Of every level a state `[K, V]`; a level that was never in use has no memory yet.
#[derive(Debug, Clone)]
struct Head(Vec<Aligned<f32>>);

/// What one level does at one position: S moves on and adds λ times its read to o.
pub(super) struct Visit<'a> {
    pub(super) head: usize,
    /// Within the positions that are read now.
    pub(super) at: usize,
    pub(super) level: usize,
    /// `[K, V]`; of level 0 zeros, into which the position writes.
    pub(super) state: &'a mut [f32],
    /// `[V]`, overwritten.
    pub(super) read: &'a mut [f32],
    /// `[V]` of zeros: what is written to a level of the past.
    pub(super) nothing: &'a [f32],
}

impl Fenwick {
    pub(super) fn new(levels: usize, heads: usize, size: usize) -> Self {
        Self {
            position: 0,
            levels,
            size,
            heads: vec![Head(vec![Aligned::zeros(0); levels]); heads],
            walk: None,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.heads.iter().flat_map(|head| &head.0).map(|state| state.len()).sum::<usize>()
            * size_of::<f32>()
    }

    /// As if `position` positions had been seen, or about as many: as the steps that [`Fenwick::rewind`] goes through begin.
    /// Values are from `random`.
    pub(super) fn pretend(&mut self, position: usize, random: &mut SplitMix) {
        let walk = self.walk(position);
        self.position = walk.first;
        // At its last step as many are in use as ever.
        let ends = [walk.first.saturating_sub(1), walk.first + walk.steps - 1];
        let is_met = |&level: &usize| ends.iter().any(|&at| is_in_use(level, at, self.levels));
        for level in (0..self.levels).filter(is_met) {
            for head in &mut self.heads {
                head.0[level].resize(self.size);
                head.0[level].fill_with(|| random.between(-1.0, 1.0));
            }
        }
    }

    /// Only for timing a step at `position` again and again: goes on through the steps of the [`Walk`] around it, and
    /// begins anew behind its last.
    pub(super) fn rewind(&mut self, position: usize) {
        let walk = self.walk(position);
        if !(walk.first..walk.first + walk.steps).contains(&self.position) {
            self.position = walk.first;
        }
    }

    /// Steps after which [`Fenwick::rewind`] begins anew.
    pub(super) fn steps(&self, position: usize) -> usize {
        self.known_walk(position).unwrap_or_else(|| Walk::around(position, self.levels)).steps
    }

    fn walk(&mut self, position: usize) -> Walk {
        let walk = self.known_walk(position).unwrap_or_else(|| Walk::around(position, self.levels));
        self.walk = Some((position, walk));
        walk
    }

    fn known_walk(&self, position: usize) -> Option<Walk> {
        self.walk.filter(|(of, _)| *of == position).map(|(_, walk)| walk)
    }

    /// o `[H, T, V]` ← what `visit` reads, summed over the levels in use.
    pub(super) fn forward(
        &mut self,
        on: &mut Run<'_>,
        tokens: usize,
        value_width: usize,
        o: &mut [f32],
        visit: impl Fn(Visit<'_>) + Sync,
    ) {
        let (first, levels, size) = (self.position, self.levels, self.size);
        let mut spare = on.scratch.take(2 * self.heads.len() * value_width);
        let mut work: Vec<_> = self
            .heads
            .iter_mut()
            .zip(o.chunks_exact_mut(tokens * value_width))
            .zip(spare.chunks_exact_mut(2 * value_width))
            .enumerate()
            .collect();
        on.pool.each_mut(&mut work, |(head, ((states, o), spare))| {
            let (nothing, read) = spare.split_at_mut(value_width);
            nothing.fill(0.0);
            for (at, o) in o.chunks_exact_mut(value_width).enumerate() {
                let position = first + at;
                states.make_room(position, levels, size);
                o.fill(0.0);
                for level in (0..levels).filter(|&level| is_in_use(level, position, levels)) {
                    let state = &mut states.0[level];
                    visit(Visit { head: *head, at, level, state, read, nothing });
                    o.iter_mut().zip(&*read).for_each(|(o, read)| *o += read);
                }
            }
        });
        drop(work);
        on.scratch.give(spare);
        self.position += tokens;
    }
}

impl Head {
    /// Moves what the levels hold to where it belongs at `position`, and empties level 0.
    fn make_room(&mut self, position: usize, levels: usize, size: usize) {
        if let Some((upto, into)) = merge(position, levels) {
            let upto = upto.min(levels - 2);
            let (lower, higher) = self.0.split_at_mut(upto + 1);
            for level in 0..upto {
                let (from, to) = lower.split_at_mut(level + 1);
                add(&from[level], &mut to[0]);
            }
            if into == levels - 1 && is_in_use(into, position - 1, levels) {
                add(&lower[upto], &mut higher[into - upto - 1]);
            } else {
                std::mem::swap(&mut lower[upto], &mut higher[into - upto - 1]);
            }
        }
        if self.0[0].is_empty() {
            // memory of a level that is not in use now, if there is some
            let unused = (1..levels)
                .find(|&level| !self.0[level].is_empty() && !is_in_use(level, position, levels));
            match unused {
                Some(level) => self.0.swap(0, level),
                None => self.0[0] = Aligned::zeros(size),
            }
        }
        self.0[0].fill(0.0);
    }
}

fn add(from: &[f32], to: &mut [f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}

/// Consecutive positions whose steps, on average, use as many levels as those around some position do. One step alone uses
/// any number of them: at 511 all, at 512 two.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Walk {
    first: usize,
    steps: usize,
}

impl Walk {
    /// Around half of what was seen, to either side; at a position of a few the position itself.
    fn around(position: usize, levels: usize) -> Self {
        if position < 4 {
            return Self { first: position, steps: 1 };
        }
        // Of both lengths, as one has half a level more in use on average.
        let most = 1 << (position / 4).ilog2();
        let lengths = [most.min(16), (2 * most).min(32)];
        let used = |first: usize, steps: usize| {
            let positions = first..first + steps;
            let used: usize = positions.map(|position| used(position, levels)).sum();
            used as f64 / steps as f64
        };
        let wanted = used(position - position / 2, position);
        let mut best = (f64::INFINITY, usize::MAX, Self { first: position, steps: 1 });
        for steps in lengths {
            // From an odd multiple on all that the last step leaves is where the first finds it.
            for first in (steps..position + position / 2).step_by(2 * steps) {
                let off = (used(first, steps) - wanted).abs();
                let far = first.abs_diff(position);
                if (off, far) < (best.0, best.1) {
                    best = (off, far, Self { first, steps });
                }
            }
        }
        best.2
    }
}

/// Levels that are in use at a position.
fn used(position: usize, levels: usize) -> usize {
    (0..levels).filter(|&level| is_in_use(level, position, levels)).count()
}

/// λ `[T, H, L]` from the last rows of p `[T, stride]` and L `[H, L]`.
pub(super) fn lambdas(p: &[f32], stride: usize, scales: &[f32]) -> Vec<f32> {
    let of_row = |row: &[f32]| {
        let raw = &row[stride - scales.len()..];
        raw.iter().zip(scales).map(|(raw, scale)| softplus(raw * scale)).collect::<Vec<f32>>()
    };
    p.chunks_exact(stride).flat_map(of_row).collect()
}

fn softplus(x: f32) -> f32 {
    if x > 0.0 { x + (-x).exp().ln_1p() } else { x.exp().ln_1p() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_uses_as_many_levels_as_the_positions_around_it() {
        for levels in [2, 3, 9, 15, 33] {
            for position in [32, 64, 100, 511, 512, 513, 1000, 4096, 10_000] {
                let walk = Walk::around(position, levels);
                let mean = |positions: std::ops::Range<usize>| {
                    let n = positions.len() as f64;
                    positions.map(|at| used(at, levels)).sum::<usize>() as f64 / n
                };
                let wanted = mean(position - position / 2..position + position / 2);
                let found = mean(walk.first..walk.first + walk.steps);
                assert!((found - wanted).abs() < 0.26, "{levels} {position}: {found} for {wanted}");
                assert!(walk.first < 2 * position, "{walk:?} for {position}");
            }
        }
        assert_eq!(Walk::around(0, 15), Walk { first: 0, steps: 1 });
    }

    #[test]
    fn a_walk_again_does_the_same_work() {
        let (levels, size) = (15, 8);
        let mut fenwick = Fenwick::new(levels, 1, size);
        let context = 512;
        fenwick.pretend(context, &mut SplitMix(1));
        let bytes = fenwick.bytes();
        let steps = fenwick.steps(context);
        let pool = kernels::cpu::Pool::new(1);
        let mut scratch = super::super::scratch::Scratch::default();
        for _ in 0..3 * steps {
            fenwick.rewind(context);
            let position = fenwick.position;
            let mut on = Run { pool: &pool, scratch: &mut scratch };
            let visits = std::sync::atomic::AtomicUsize::new(0);
            fenwick.forward(&mut on, 1, 2, &mut [0.0; 2], |visit| {
                assert_eq!(visit.state.len(), size, "level {} at {position}", visit.level);
                visits.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                visit.read.fill(0.0);
            });
            assert_eq!(visits.into_inner(), used(position, levels), "at {position}");
            assert_eq!(fenwick.bytes(), bytes, "at {position}");
        }
    }
}
