//! One network: SwiGLU or squared ReLU.

use kernels::cpu::matrix::feed_forward::FeedForward;
use kernels::cpu::{Pool, run};
use kernels::norm::cpu::OfBranch;
use kernels::relu2::cpu::Relu2;
use kernels::swiglu::cpu::SwiGlu;

use crate::engine::function::Function;
use crate::engine::memory::Memory;
use crate::engine::scratch::{ROWS, Run};

/// What lies between the projections: out `[T, f]` from the outputs of `network.reading()`.
pub(super) fn activate(network: &FeedForward, pool: &Pool, hidden: &[f32], out: &mut [f32]) {
    let (width, up_at) = (network.width(), network.up_at());
    let outputs = network.reading().outputs();
    pool.chunks_mut(out, ROWS * width, |block, out| {
        let hidden = &hidden[block * ROWS * outputs..];
        for (out, hidden) in out.chunks_exact_mut(width).zip(hidden.chunks_exact(outputs)) {
            if network.is_gated() {
                run(SwiGlu { gate: &hidden[..width], up: &hidden[up_at..], out });
            } else {
                out.copy_from_slice(hidden);
                run(Relu2 { x: out });
            }
        }
    });
}

/// One network with its projections.
#[derive(Debug)]
pub(super) struct Dense(pub(super) FeedForward);

impl Function for Dense {
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
        let (width, outputs) = (self.0.width(), self.0.reading().outputs());
        let h = on.read_by(norm, x);
        let mut hidden = on.scratch.take(rows * outputs);
        let mut activated = on.scratch.take(rows * width);
        self.0.reading().apply(on.pool, &h, &mut hidden);
        activate(&self.0, on.pool, &hidden, &mut activated);
        on.add_branch(norm, x, |pool, x| self.0.down().apply_add(pool, &activated, x));
        for buffer in [h, hidden, activated] {
            on.scratch.give(buffer);
        }
    }
}
