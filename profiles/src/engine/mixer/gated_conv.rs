//! The gated short convolution.

use kernels::cpu::matrix::Storage;
use kernels::cpu::{Aligned, Matrix, Rows};
use kernels::gated_conv::cpu::{Inputs, forward, transpose_weight};
use kernels::norm::cpu::OfBranch;
use search::architecture;

use crate::engine::function::Function;
use crate::engine::memory::Memory;
use crate::engine::recurrent::Recurrent;
use crate::engine::scratch::Run;
use crate::weights::Weights;

/// A gated short convolution with its projections; C channels, k taps.
#[derive(Debug)]
pub(crate) struct GatedConv {
    /// Rows B, C, x̃.
    input: Matrix,
    /// `[k, C]`
    weight: Vec<f32>,
    /// `[d, C]`
    output: Matrix,
}

impl GatedConv {
    pub(super) fn new(
        weights: &Weights,
        prefix: &str,
        d: usize,
        shape: architecture::GatedConv,
        storage: Storage,
    ) -> Self {
        let tensor = |name: &str| weights.get(&format!("{prefix}{name}.weight"));
        let [channels, taps] = [shape.channels, shape.kernel_width].map(|n| n as usize);
        Self {
            input: Matrix::pack(tensor("in"), 3 * channels, d, storage),
            weight: transpose_weight(tensor("conv"), taps),
            output: Matrix::pack(tensor("out"), d, channels, storage),
        }
    }
}

impl Function for GatedConv {
    fn weight_bytes(&self) -> usize {
        self.input.bytes() + self.output.bytes()
    }

    fn memory(&self) -> Memory {
        let history = vec![0.0; self.weight.len() - self.output.inputs()]; // [k − 1, C]
        let matrix = Aligned::zeros(0);
        Memory::Recurrent(Recurrent { history, matrix, fenwick: None, phases: None })
    }

    fn forward(
        &self,
        on: &mut Run<'_>,
        norm: OfBranch<'_>,
        tokens: usize,
        x: &mut [f32],
        memories: &mut [Memory],
    ) {
        let (width, stride) = (3 * self.output.inputs(), self.input.outputs());
        on.mix_sequences(
            (&self.input, &self.output),
            (norm, tokens),
            x,
            memories.iter_mut().map(Memory::recurrent),
            |on, _, (p, mixed), state| {
                let inputs = Inputs {
                    batch: 1,
                    tokens,
                    rows: Rows::new(p, tokens, width, stride),
                    before: Some(&state.history),
                    weight: &self.weight,
                };
                forward(&inputs, mixed, &|n, f| on.pool.for_each(n, f));
                state.history = inputs.after();
            },
            |_, _| (),
        );
    }
}
