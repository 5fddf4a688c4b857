//! The feed-forward network.

use kernels::cpu::matrix::Storage;
use kernels::cpu::{FeedForward, run};
use kernels::swiglu::cpu::SwiGlu;

use super::scratch::Run;
use crate::weights::Weights;

/// SwiGLU with its projections.
#[derive(Debug)]
pub(crate) struct Ffn(FeedForward);

/// Tokens of one piece of element-wise work.
pub(super) const ROWS: usize = 16;

impl Ffn {
    pub(super) fn new(
        weights: &Weights,
        prefix: &str,
        d_model: usize,
        width: usize,
        storage: Storage,
    ) -> Self {
        let matrices =
            ["gate", "up", "down"].map(|name| weights.get(&format!("{prefix}{name}.weight")));
        Self(FeedForward::pack(matrices, d_model, width, storage))
    }

    pub(super) fn weight_bytes(&self) -> usize {
        self.0.bytes()
    }

    /// x `[N, d]` += ffn(RMSNorm(x)); false, and nothing is done, for few tokens.
    pub(super) fn forward_many(&self, on: &Run<'_>, norm: &[f32], x: &mut [f32]) -> bool {
        let is_many = FeedForward::is_for(x.len() / norm.len(), on.pool);
        if is_many {
            self.0.apply_to_many(on.pool, norm, x);
        }
        is_many
    }

    /// x `[N, d]` += ffn(h `[N, d]`)
    pub(super) fn forward(&self, on: &mut Run<'_>, h: &[f32], x: &mut [f32]) {
        let (width, up_at) = (self.0.width(), self.0.up_at());
        let (inputs, outputs) = (self.0.gate_up().inputs(), self.0.gate_up().outputs());
        let rows = h.len() / inputs;
        let mut hidden = on.scratch.take(rows * outputs);
        let mut gated = on.scratch.take(rows * width);
        self.0.gate_up().apply(on.pool, h, &mut hidden);
        on.pool.chunks_mut(&mut gated, ROWS * width, |block, out| {
            let hidden = &hidden[block * ROWS * outputs..];
            for (out, hidden) in out.chunks_exact_mut(width).zip(hidden.chunks_exact(outputs)) {
                run(SwiGlu { gate: &hidden[..width], up: &hidden[up_at..], out });
            }
        });
        self.0.down().apply_add(on.pool, &gated, x);
        on.scratch.give(hidden);
        on.scratch.give(gated);
    }
}
