//! The feed-forward network.

use kernels::cpu::matrix::Storage;
use kernels::cpu::{Matrix, run};
use kernels::swiglu::cpu::SwiGlu;

use super::scratch::Run;
use crate::weights::Weights;

/// SwiGLU with its projections.
#[derive(Debug)]
pub(crate) struct Ffn {
    /// gate above up, `[2f, d]`
    gate_up: Matrix,
    /// `[d, f]`
    down: Matrix,
}

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
        let gate_up = weights.rows(prefix, &["gate.weight", "up.weight"]);
        let down = weights.get(&format!("{prefix}down.weight"));
        Self {
            gate_up: Matrix::pack(&gate_up, 2 * width, d_model, storage),
            down: Matrix::pack(down, d_model, width, storage),
        }
    }

    pub(super) fn weight_bytes(&self) -> usize {
        self.gate_up.bytes() + self.down.bytes()
    }

    /// x `[N, d]` += ffn(h `[N, d]`)
    pub(super) fn forward(&self, on: &mut Run<'_>, h: &[f32], x: &mut [f32]) {
        let width = self.down.inputs();
        let rows = h.len() / self.gate_up.inputs();
        let mut hidden = on.scratch.take(rows * 2 * width);
        let mut gated = on.scratch.take(rows * width);
        self.gate_up.apply(on.pool, h, &mut hidden);
        on.pool.chunks_mut(&mut gated, ROWS * width, |block, out| {
            let hidden = &hidden[block * ROWS * 2 * width..];
            for (out, hidden) in out.chunks_exact_mut(width).zip(hidden.chunks_exact(2 * width)) {
                let (gate, up) = hidden.split_at(width);
                run(SwiGlu { gate, up, out });
            }
        });
        self.down.apply_add(on.pool, &gated, x);
        on.scratch.give(hidden);
        on.scratch.give(gated);
    }
}
