//! The states of a log-linear mixer: one for each piece of the Fenwick tree over what a sequence has seen.

use kernels::cpu::Aligned;
use kernels::log_linear::merge;

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
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.heads.iter().flat_map(|head| &head.0).map(|state| state.len()).sum::<usize>()
            * size_of::<f32>()
    }

    /// As if the fullest position up to `position` came next, with values from `random`.
    pub(super) fn pretend(&mut self, position: usize, random: &mut SplitMix) {
        self.rewind(position);
        let in_use = levels_in_use(self.position, self.levels);
        for head in &mut self.heads {
            for state in &mut head.0[..in_use] {
                state.resize(self.size);
                state.fill_with(|| random.between(-1.0, 1.0));
            }
        }
    }

    /// Only for timing the same step again: at the fullest position up to `position`, where the most states are in use.
    pub(super) fn rewind(&mut self, position: usize) {
        self.position = (1 << (position + 1).ilog2()) - 1;
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

/// Whether there is a past position of that level at `position`.
fn is_in_use(level: usize, position: usize, levels: usize) -> bool {
    match level {
        0 => true,
        _ if level == levels - 1 => position >> (level - 1) > 0,
        _ => position >> (level - 1) & 1 == 1,
    }
}

/// Levels that are in use at the fullest position up to `position`, which are the lowest.
fn levels_in_use(position: usize, levels: usize) -> usize {
    (((position + 1).ilog2() + 1) as usize).min(levels)
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
