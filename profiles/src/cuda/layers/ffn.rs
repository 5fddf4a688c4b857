//! The feed-forward network layer by layer.

use kernels::cuda::Error;
use kernels::cuda::chunked::Rows;
use kernels::cuda::rows::{Each, Swiglu};
use search::architecture::{Ffn, FfnKind};

use super::experts::ExpertsLayer;
use super::pass::{Recorder, Sublayer};
use super::weights::{Builder, Matrix};
use crate::cuda::shapes::Load;

/// The layer of a gene.
pub(super) fn new(on: &mut Builder<'_>, ffn: Ffn, load: Load) -> Result<Box<dyn Sublayer>, Error> {
    let width = ffn.width as usize;
    Ok(match ffn.kind {
        FfnKind::SwiGlu => Box::new(SwigluLayer::new(on, width, load)?),
        FfnKind::Relu2 => Box::new(Relu2Layer::new(on, width, load)?),
        FfnKind::Moe(of) => Box::new(ExpertsLayer::new(on, width, of, load)?),
    })
}

#[derive(Debug)]
struct SwigluLayer {
    gate_up: Matrix,
    down: Matrix,
    width: usize,
}

impl SwigluLayer {
    fn new(on: &mut Builder<'_>, width: usize, load: Load) -> Result<Self, Error> {
        let d = on.d_model;
        Ok(Self {
            gate_up: on.matrix(load, &[("gate.weight", width), ("up.weight", width)], d)?,
            down: on.matrix(load, &[("down.weight", d)], width)?,
            width,
        })
    }
}

impl Sublayer for SwigluLayer {
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

#[derive(Debug)]
struct Relu2Layer {
    up: Matrix,
    down: Matrix,
    width: usize,
}

impl Relu2Layer {
    fn new(on: &mut Builder<'_>, width: usize, load: Load) -> Result<Self, Error> {
        let d = on.d_model;
        Ok(Self {
            up: on.matrix(load, &[("up.weight", width)], d)?,
            down: on.matrix(load, &[("down.weight", d)], width)?,
            width,
        })
    }
}

impl Sublayer for Relu2Layer {
    fn record(&self, on: &mut Recorder<'_>, u: Rows) -> Result<(), Error> {
        let up = on.project("up", self.up, u)?;
        let width = self.width;
        let each = Each { rows: on.rows, width, wide: false };
        each.check()?;
        let hidden = on.room("hidden", 2 * on.rows * width)?;
        on.launch(each.relu2(up, hidden));
        on.add(self.down, Rows { address: hidden, stride: width })
    }
}
