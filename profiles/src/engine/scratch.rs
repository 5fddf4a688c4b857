//! Buffers that are used again: a decode step allocates nothing once it is warm.

use kernels::cpu::Pool;

/// What a layer computes with.
pub(crate) struct Run<'a> {
    /// The threads.
    pub(crate) pool: &'a Pool,
    /// The buffers.
    pub(crate) scratch: &'a mut Scratch,
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
