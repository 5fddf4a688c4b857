//! The feed-forward network.

use kernels::cpu::matrix::Storage;
use kernels::cpu::matrix::feed_forward::FeedForward;
use kernels::cpu::run;
use kernels::norm::cpu::OfBranch;
use kernels::relu2::cpu::Relu2;
use kernels::swiglu::cpu::SwiGlu;
use search::architecture::{self, FfnKind};

use super::function::Function;
use super::memory::Memory;
use super::scratch::{ROWS, Run};
use crate::weights::Weights;

/// One with its projections.
#[derive(Debug)]
pub(crate) struct Ffn(FeedForward);

impl Ffn {
    pub(super) fn new(
        weights: &Weights,
        prefix: &str,
        d_model: usize,
        ffn: architecture::Ffn,
        storage: Storage,
    ) -> Self {
        let matrix = |name: &str| weights.get(&format!("{prefix}{name}.weight"));
        let width = ffn.width as usize;
        Self(match ffn.kind {
            FfnKind::SwiGlu => {
                let matrices = ["gate", "up", "down"].map(matrix);
                FeedForward::swiglu(matrices, d_model, width, storage)
            }
            FfnKind::Relu2 => {
                FeedForward::relu2(["up", "down"].map(matrix), d_model, width, storage)
            }
        })
    }
}

impl Function for Ffn {
    fn memory(&self) -> Memory {
        Memory::None
    }

    fn weight_bytes(&self) -> usize {
        self.0.bytes()
    }

    fn forward(
        &self,
        on: &mut Run<'_>,
        norm: OfBranch<'_>,
        _: usize,
        x: &mut [f32],
        _: &mut [Memory],
    ) {
        let d = norm.weight.len();
        let rows = x.len() / d;
        if FeedForward::is_for(rows, on.pool) {
            return self.0.apply_to_many(on.pool, norm, x);
        }
        let (width, up_at) = (self.0.width(), self.0.up_at());
        let outputs = self.0.reading().outputs();
        let mut h = on.scratch.take(x.len());
        let block = ROWS * d;
        on.pool.chunks_mut(&mut h, block, |index, h| {
            h.copy_from_slice(&x[index * block..][..h.len()]);
            norm.before(h);
        });
        let mut hidden = on.scratch.take(rows * outputs);
        let mut activated = on.scratch.take(rows * width);
        self.0.reading().apply(on.pool, &h, &mut hidden);
        on.pool.chunks_mut(&mut activated, ROWS * width, |block, out| {
            let hidden = &hidden[block * ROWS * outputs..];
            for (out, hidden) in out.chunks_exact_mut(width).zip(hidden.chunks_exact(outputs)) {
                if self.0.is_gated() {
                    run(SwiGlu { gate: &hidden[..width], up: &hidden[up_at..], out });
                } else {
                    out.copy_from_slice(hidden);
                    run(Relu2 { x: out });
                }
            }
        });
        on.add_branch(norm, x, |pool, x| self.0.down().apply_add(pool, &activated, x));
        for buffer in [h, hidden, activated] {
            on.scratch.give(buffer);
        }
    }
}
