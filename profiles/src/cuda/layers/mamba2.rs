//! Mamba2 layer by layer.

use kernels::cuda::Error;
use kernels::cuda::chunked::log_linear::Scales;
use kernels::cuda::chunked::{self, Inputs, Rows};
use kernels::cuda::norm::Gate;
use kernels::cuda::rows::Gates;
use kernels::cuda::step::{self, Decay, Levels, RecurrentStep};
use kernels::cuda::values::Values;
use kernels::log_linear::levels_within;
use search::architecture::Mamba2;

use super::pass::{Kind, NONE, Recorder, Sublayer, part};
use super::weights::{Builder, Matrix};
use crate::cuda::shapes::Load;

/// Columns of the projection: x, B, C; the gate; dt; λ.
#[derive(Debug)]
pub(super) struct Mamba2Layer {
    heads: usize,
    head_width: usize,
    state_width: usize,
    projection: Matrix,
    /// First columns of the gate, of dt and of λ.
    columns: [usize; 3],
    out: Matrix,
    taps: u64,
    bias: u64,
    a_log: u64,
    dt_bias: u64,
    skip: u64,
    norm: u64,
    ring: u64,
    /// Of the log-linear form, with L and for how many there are states.
    levels: Option<usize>,
    scales: u64,
    kept: usize,
    state: u64,
}

impl Mamba2Layer {
    pub(super) fn new(on: &mut Builder<'_>, shape: &Mamba2, load: Load) -> Result<Self, Error> {
        let [heads, head_width, state_width] =
            [shape.heads, shape.head_width, shape.state_width].map(|n| n as usize);
        let d = on.d_model;
        let inner = heads * head_width;
        let channels = inner + 2 * state_width;
        let levels = shape.levels.map_or(0, |levels| levels as usize);
        let kept = if levels > 0 { levels_within(levels, on.positions) } else { 0 };
        // the checkpoint has z first
        let all = if on.pretends {
            Vec::new()
        } else {
            load("in.weight", (inner + channels + heads * (1 + levels)) * d)
        };
        let mut of = |name: &str, count: usize| match name {
            "convolved" => all[inner * d..][..count].to_vec(),
            "gate" => all[..count].to_vec(),
            "dt" => all[(inner + channels) * d..][..count].to_vec(),
            _ => all[(inner + channels + heads) * d..][..count].to_vec(),
        };
        let mut parts = vec![("convolved", channels), ("gate", inner), ("dt", heads)];
        if levels > 0 {
            parts.push(("λ", heads * levels));
        }
        let projection = on.matrix(&mut of, &parts, d)?;
        let mut columns = [channels, inner, heads].map(|rows| rows.next_multiple_of(8));
        for i in 1..columns.len() {
            columns[i] += columns[i - 1];
        }
        Ok(Self {
            heads,
            head_width,
            state_width,
            projection,
            columns,
            out: on.matrix(load, &[("out.weight", d)], inner)?,
            taps: on.vector(load, "conv.weight", channels * 4)?,
            bias: on.vector(load, "conv.bias", channels)?,
            a_log: on.vector(load, "A_log", heads)?,
            dt_bias: on.vector(load, "dt_bias", heads)?,
            skip: on.vector(load, "D", heads)?,
            norm: on.vector(load, "norm.weight", inner)?,
            ring: on.past(2 * on.batch * 4 * channels)?,
            levels: shape.levels.map(|levels| levels as usize),
            scales: if levels > 0 { on.vector(load, "L", heads * levels)? } else { 0 },
            kept,
            state: on.past(4 * on.batch * inner * state_width * kept.max(1))?,
        })
    }
}

impl Sublayer for Mamba2Layer {
    fn record(&self, on: &mut Recorder<'_>, u: Rows) -> Result<(), Error> {
        let &Self { heads, head_width, state_width, .. } = self;
        let inner = heads * head_width;
        let channels = inner + 2 * state_width;
        let z = on.project("projected", self.projection, u)?;
        let [gate, raw, lambda] = self.columns.map(|column| part(z, column));
        let dt = Decay { raw, a_log: self.a_log, dt_bias: self.dt_bias };
        let c = on.convolve(z, channels, [self.taps, self.bias, self.ring])?;
        let out = on.room("read", 2 * on.rows * inner)?;
        match on.kind {
            Kind::Prefill { .. } => {
                let g = on.room("g", 4 * on.rows * heads)?;
                let factors = on.room("dt", 4 * on.rows * heads)?;
                let gates = Gates { positions: on.rows, heads, steps: 1 };
                on.launch(gates.mamba2(dt, g, factors));
                let positions = on.rows;
                let values = Values { positions, heads, width: head_width, wide: false };
                values.check()?;
                let v = on.room("values", 2 * on.rows * inner)?;
                on.launch(values.scale(c, factors, v));
                let shape = chunked::Shape {
                    batch: on.batch,
                    tokens: on.tokens,
                    heads,
                    key_heads: 1,
                    key_width: state_width,
                    value_width: head_width,
                    wide: false,
                };
                let inputs = Inputs {
                    q: part(c, inner + state_width),
                    k: part(c, inner),
                    v: Rows { address: v, stride: inner },
                    g,
                    beta: 0,
                };
                let to = (self.state, out);
                let rule = chunked::Rule::LinearAttention;
                if let Some(levels) = self.levels {
                    let scales = (Scales { raw: lambda, scales: self.scales }, levels, self.kept);
                    on.log_linear(rule, shape, 1.0, inputs, scales, to)?;
                } else {
                    on.chunked(rule, shape, 1.0, inputs, to)?;
                }
                on.launch(values.skip(c, self.skip, out));
            }
            Kind::Step { .. } => {
                let step = RecurrentStep {
                    rule: step::Rule::Mamba2,
                    batch: on.batch,
                    heads,
                    key_heads: 1,
                    key_width: state_width,
                    value_width: head_width,
                };
                step.check()?;
                on.launch(if let Some(levels) = self.levels {
                    let levels = Levels {
                        kept: self.kept,
                        all: levels,
                        raw: lambda,
                        scales: self.scales,
                        positions: on.positions,
                    };
                    let factors = (self.skip, [1.0, 1.0]);
                    step.log_linear([c, NONE], dt, &levels, factors, (self.state, out))
                } else {
                    step.mamba2(c, dt, self.skip, self.state, out)
                });
            }
        }
        let out = Rows { address: out, stride: inner };
        let extent = [on.rows, 1, inner];
        let y = on.normed("normed", out, extent, (Gate::BeforeNorm, gate), self.norm)?;
        on.add(self.out, y)
    }
}
