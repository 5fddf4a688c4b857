//! A mixture of experts layer by layer.

use kernels::cuda::Error;
use kernels::cuda::chunked::Rows;
use kernels::cuda::experts::{self, Scratch, Weights};
use kernels::cuda::rows::Swiglu;
use search::architecture::Experts;

use super::pass::{Recorder, Sublayer};
use super::weights::{Builder, Matrix};
use crate::cuda::shapes::Load;

#[derive(Debug)]
pub(super) struct ExpertsLayer {
    of: Experts,
    /// Of an expert.
    width: usize,
    router: Matrix,
    weights: Weights,
    /// Gate and up, and down, of all shared experts as one, and its width.
    shared: Option<([Matrix; 2], usize)>,
}

impl ExpertsLayer {
    pub(super) fn new(
        on: &mut Builder<'_>,
        width: usize,
        of: Experts,
        load: Load,
    ) -> Result<Self, Error> {
        let (d, experts) = (on.d_model, of.experts as usize);
        let router = on.matrix(load, &[("router.weight", experts)], d)?;
        let gate = on.matrix(load, &[("gate.weight", experts * width)], d)?;
        let up = on.matrix(load, &[("up.weight", experts * width)], d)?;
        let down = on.matrix(load, &[("down.weight", experts * d)], width)?;
        let weights = Weights { gate: gate.address, up: up.address, down: down.address };
        let shared = match width * of.shared as usize {
            0 => None,
            width => {
                let parts = [("shared.gate.weight", width), ("shared.up.weight", width)];
                let read = on.matrix(load, &parts, d)?;
                let written = on.matrix(load, &[("shared.down.weight", d)], width)?;
                Some(([read, written], width))
            }
        };
        Ok(Self { of, width, router, weights, shared })
    }
}

impl Sublayer for ExpertsLayer {
    fn record(&self, on: &mut Recorder<'_>, u: Rows) -> Result<(), Error> {
        let (rows, d_model) = (on.rows, on.d_model());
        let shape = experts::Experts {
            rows,
            d_model,
            width: self.width,
            experts: self.of.experts as usize,
            per_token: self.of.per_token as usize,
        };
        shape.check()?;
        let stride = self.router.outputs;
        let logits = Rows { address: on.room("router", 4 * rows * stride)?, stride };
        on.product(self.router, (u, rows), logits, [false, true])?;
        let scratch = Scratch {
            words: on.room("choices", 4 * shape.words())?,
            hidden: on.room("hidden of experts", 2 * shape.hidden_len())?,
            out: on.room("out of experts", 2 * shape.out_len())?,
        };
        let (to, adds) = on.target()?;
        for launch in shape.forward((u, logits), &self.weights, &scratch, (to.address, adds)) {
            on.launch(launch);
        }
        if let Some(([read, written], width)) = self.shared {
            let gate_up = on.project("gate_up", read, u)?;
            let swiglu = Swiglu { rows, width, wide: false };
            swiglu.check()?;
            let hidden = on.room("hidden", 2 * rows * width)?;
            on.launch(swiglu.forward(gate_up, hidden));
            let hidden = Rows { address: hidden, stride: width };
            on.product(written, (hidden, rows), to, [true, false])?;
        }
        on.settle()
    }
}
