//! Buffers that are used again: a decode step allocates nothing once it is warm.

use kernels::cpu::{Matrix, Pool};

/// What a layer computes with.
pub(crate) struct Run<'a> {
    /// The threads.
    pub(crate) pool: &'a Pool,
    /// The buffers.
    pub(crate) scratch: &'a mut Scratch,
}

impl Run<'_> {
    /// The frame of every mixer: x `[B·T, d]` += output(mix(input(h))), `mix` called for each of the B sequences with
    /// its input projection `[T, input's outputs]`, what it must write `[T, output's inputs]`, and its state.
    pub(crate) fn mix_sequences<'s, S: 's>(
        &mut self,
        (input, output): (&Matrix, &Matrix),
        h: &[f32],
        tokens: usize,
        x: &mut [f32],
        states: impl Iterator<Item = &'s mut S>,
        mut mix: impl FnMut(&mut Run<'_>, &mut [f32], &mut [f32], &mut S),
    ) {
        let (stride, width) = (input.outputs(), output.inputs());
        let rows = h.len() / input.inputs();
        let mut p = self.scratch.take(rows * stride);
        let mut mixed = self.scratch.take(rows * width);
        input.apply(self.pool, h, &mut p);
        for ((p, mixed), state) in p
            .chunks_exact_mut(tokens * stride)
            .zip(mixed.chunks_exact_mut(tokens * width))
            .zip(states)
        {
            mix(self, p, mixed, state);
        }
        output.apply_add(self.pool, &mixed, x);
        self.scratch.give(p);
        self.scratch.give(mixed);
    }
}

/// Buffers, largest last.
#[derive(Debug, Default)]
pub(crate) struct Scratch(Vec<Vec<f32>>);

impl Scratch {
    /// A buffer of `n` values; they are whatever an earlier use left, so every one must be written before it is read.
    pub(crate) fn take(&mut self, n: usize) -> Vec<f32> {
        let fitting = self.0.iter().position(|buffer| buffer.capacity() >= n);
        let mut buffer = match fitting {
            Some(index) => self.0.remove(index),
            None => self.0.pop().unwrap_or_default(),
        };
        buffer.resize(n, f32::NAN);
        buffer
    }

    /// Gives a buffer back.
    pub(crate) fn give(&mut self, buffer: Vec<f32>) {
        let at = self.0.partition_point(|other| other.capacity() < buffer.capacity());
        self.0.insert(at, buffer);
    }
}
