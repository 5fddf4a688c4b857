//! Mamba2 in the program of a step.

use kernels::cuda::Error;
use kernels::cuda::decode::{Input, Kind, Output, Phase, STATE_ROWS};
use search::architecture::Mamba2;

use super::program::{Builder, Projected, check};
use crate::cuda::shapes::Load;

impl Builder<'_> {
    pub(super) fn mamba2(&mut self, shape: &Mamba2, norm: u64, load: Load) -> Result<(), Error> {
        let [heads, head_width, state_width] =
            [shape.heads, shape.head_width, shape.state_width].map(|n| n as usize);
        let d = self.d_model();
        check(
            [32, 64, 128].contains(&state_width),
            "the state width of Mamba2 on a GPU",
            "32, 64 or 128",
            state_width,
        )?;
        check(
            head_width.is_multiple_of(STATE_ROWS as usize),
            "the head width of Mamba2",
            "a multiple of 4",
            head_width,
        )?;
        let inner = heads * head_width;
        let ring_rows = inner + 2 * state_width;
        let levels = shape.levels.map_or(0, |levels| levels as usize);
        let rows = 2 * inner + 2 * state_width + heads * (1 + levels);
        let weight = load("in.weight", rows * d);
        // z, x, B, C, dt, λ: those that are convolved come first
        let (gate, rest) = weight.split_at(inner * d);
        let (convolved, dt) = rest.split_at(ring_rows * d);
        let Projected { now, ring } = self.project(&[convolved, gate, dt], norm, ring_rows)?;
        let conv_weight = self.vector(&load("conv.weight", ring_rows * 4))?;
        let conv_bias = self.vector(&load("conv.bias", ring_rows))?;
        let a_log = self.vector(&load("A_log", heads))?;
        let dt_bias = self.vector(&load("dt_bias", heads))?;
        let skip = self.vector(&load("D", heads))?;
        let out = self.allocate(inner * 4)?;
        let state = if levels > 0 {
            let scales = load("L", heads * levels);
            self.level_states(Kind::LogMamba2, (inner, state_width), levels, &scales)?
        } else {
            self.streamed_state(Kind::Mamba2, (inner, state_width))?
        };
        self.push(Phase {
            heads: heads as u32,
            width: state_width as u32,
            value_width: head_width as u32,
            ring,
            ring_rows: ring_rows as u32,
            conv_weight,
            conv_bias,
            a_log,
            dt_bias,
            skip,
            convolved: 1,
            out,
            now,
            z: now + ring_rows as u64 * 4,
            ..state
        });
        let norm = self.vector(&load("norm.weight", inner))?;
        let matrix = self.pack(&[&load("out.weight", d * inner)], inner)?;
        let phase = self.gemv(&matrix, inner, Input::RmsNorm, Output::Residual, d)?;
        self.push_residual(Phase { x: out, norm, ..phase })
    }
}
