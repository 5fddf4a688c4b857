//! Buffers that are used again: a decode step allocates nothing once it is warm.

use std::ops::{Deref, DerefMut};

use kernels::cpu::{Matrix, Pool, run};
use kernels::norm::cpu::{Gate, OfBranch, RmsNorm};

/// Tokens of one piece of element-wise work.
pub(super) const ROWS: usize = 16;

/// What a layer computes with.
pub(crate) struct Run<'a> {
    /// The threads.
    pub(crate) pool: &'a Pool,
    /// The buffers.
    pub(crate) scratch: &'a mut Scratch,
}

impl Run<'_> {
    /// The frame of every mixer: x `[B·T, d]` += output(finish(mix(input(h)))), h = norm(x), or the norm behind the output.
    ///
    /// `mix` is called for each of the B sequences with its rows of x, its input projection `[T, input's outputs]`, what it
    /// must write, `[T, output's inputs]`, and its state; `finish` for each row with the projection's and what was written.
    pub(crate) fn mix_sequences<'s, S: 's>(
        &mut self,
        (input, output): (&Matrix, &Matrix),
        (norm, tokens): (OfBranch<'_>, usize),
        x: &mut [f32],
        states: impl Iterator<Item = &'s mut S>,
        mut mix: impl FnMut(&mut Run<'_>, &[f32], (&mut [f32], &mut [f32]), &mut S),
        finish: impl Fn(&[f32], &mut [f32]) + Sync,
    ) {
        let (d, stride, width) = (input.inputs(), input.outputs(), output.inputs());
        let rows = x.len() / d;
        let mut p = self.scratch.take(rows * stride);
        let mut mixed = self.scratch.take(rows * width);
        // Row by row, so that each is still in the nearest cache.
        let prepare = |row: usize, h: &mut [f32]| {
            for (h, x) in h.chunks_exact_mut(d).zip(x[row * d..].chunks_exact(d)) {
                h.copy_from_slice(x);
                norm.before(h);
            }
        };
        let are_many = Matrix::is_for_prepared(rows, self.pool);
        if are_many {
            input.apply_prepared(self.pool, rows, &prepare, &mut p);
        } else {
            let mut h = self.scratch.take(rows * d);
            self.pool.chunks_mut(&mut h, ROWS * d, |index, h| prepare(index * ROWS, h));
            input.apply(self.pool, &h, &mut p);
            self.scratch.give(h);
        }
        for (((x, p), mixed), state) in x
            .chunks_exact(tokens * d)
            .zip(p.chunks_exact_mut(tokens * stride))
            .zip(mixed.chunks_exact_mut(tokens * width))
            .zip(states)
        {
            mix(self, x, (p, mixed), state);
        }
        let finish = |row: usize, mixed: &mut [f32]| {
            for (mixed, p) in mixed.chunks_exact_mut(width).zip(p[row * stride..].chunks(stride)) {
                finish(p, mixed);
            }
        };
        self.add_branch(norm, x, |pool, x| {
            if are_many {
                output.apply_finished(pool, &mut mixed, &finish, x);
            } else {
                pool.chunks_mut(&mut mixed, ROWS * width, |index, rows| finish(index * ROWS, rows));
                output.apply_add(pool, &mixed, x);
            }
        });
        self.scratch.give(p);
        self.scratch.give(mixed);
    }

    /// What a branch reads of x `[T, d]`: normed where the norm stands before it.
    pub(super) fn read_by(&mut self, norm: OfBranch<'_>, x: &[f32]) -> Buffer {
        let mut h = self.scratch.take(x.len());
        let block = ROWS * norm.weight.len();
        self.pool.chunks_mut(&mut h, block, |index, h| {
            h.copy_from_slice(&x[index * block..][..h.len()]);
            norm.before(h);
        });
        h
    }

    /// x `[T, d]` += what `add` adds to what it gets, normed where the norm stands behind it.
    pub(super) fn add_branch(
        &mut self,
        norm: OfBranch<'_>,
        x: &mut [f32],
        add: impl FnOnce(&Pool, &mut [f32]),
    ) {
        if !norm.after {
            return add(self.pool, x);
        }
        let mut y = self.scratch.take(x.len());
        y.fill(0.0);
        add(self.pool, &mut y);
        let width = ROWS * norm.weight.len();
        let blocks = x.len().div_ceil(width);
        self.pool.chunk_pairs_mut(blocks, (width, width), x, &mut y, |_, x, y| {
            run(RmsNorm { x: y, weight: norm.weight, gate: Gate::None });
            x.iter_mut().zip(y).for_each(|(x, y)| *x += *y);
        });
        self.scratch.give(y);
    }
}

/// Buffers, largest last.
#[derive(Debug, Default)]
pub(crate) struct Scratch(Vec<Vec<f32>>);

/// The beginning of a buffer that may be longer: one that serves small layers and large ones in turn is never filled again.
#[derive(Debug)]
pub(crate) struct Buffer {
    all: Vec<f32>,
    n: usize,
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.all[..self.n]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.all[..self.n]
    }
}

impl Scratch {
    /// A buffer of `n` values; they are whatever an earlier use left, so every one must be written before it is read.
    pub(crate) fn take(&mut self, n: usize) -> Buffer {
        let fitting = self.0.iter().position(|buffer| buffer.len() >= n);
        let mut all = match fitting {
            Some(index) => self.0.remove(index),
            None => self.0.pop().unwrap_or_default(),
        };
        if all.len() < n {
            all.resize(n, f32::NAN);
        }
        Buffer { all, n }
    }

    /// Gives a buffer back.
    pub(crate) fn give(&mut self, Buffer { all, .. }: Buffer) {
        let at = self.0.partition_point(|other| other.len() < all.len());
        self.0.insert(at, all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_keeps_what_is_beyond_the_part_in_use() {
        let mut scratch = Scratch::default();
        let mut large = scratch.take(100);
        assert!(large.iter().all(|x| x.is_nan()), "what is not written is seen");
        large.fill(1.0);
        scratch.give(large);
        let small = scratch.take(3);
        assert_eq!(small.len(), 3);
        scratch.give(small);
        let again = scratch.take(100);
        assert!(again.iter().all(|x| !x.is_nan()), "it was filled again: {again:?}");
    }
}
