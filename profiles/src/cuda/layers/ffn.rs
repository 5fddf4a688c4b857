//! The feed-forward network layer by layer.

use kernels::cuda::Error;
use kernels::cuda::chunked::Rows;
use kernels::cuda::rows::Swiglu;

use super::pass::{Recorder, Sublayer};
use super::weights::{Builder, Matrix};
use crate::cuda::shapes::Load;

#[derive(Debug)]
pub(super) struct FfnLayer {
    gate_up: Matrix,
    down: Matrix,
    width: usize,
}

impl FfnLayer {
    pub(super) fn new(on: &mut Builder<'_>, width: usize, load: Load) -> Result<Self, Error> {
        let d = on.d_model;
        Ok(Self {
            gate_up: on.matrix(load, &[("ffn.gate.weight", width), ("ffn.up.weight", width)], d)?,
            down: on.matrix(load, &[("ffn.down.weight", d)], width)?,
            width,
        })
    }
}

impl Sublayer for FfnLayer {
    fn record(&self, on: &mut Recorder<'_>, u: Rows) -> Result<(), Error> {
        let gate_up = on.project("gate_up", self.gate_up, u)?;
        let width = self.width;
        let swiglu = Swiglu { rows: on.rows, width, wide: false };
        swiglu.check()?;
        let hidden = on.room("hidden", 2 * on.rows * width)?;
        on.launch(swiglu.forward(gate_up, hidden));
        on.add(self.down, Rows { address: hidden, stride: width })
    }
}
