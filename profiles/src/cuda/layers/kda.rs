//! Kimi Delta Attention layer by layer.

use kernels::cuda::Error;
use kernels::cuda::chunked::{Rows, kda};
use kernels::cuda::norm::{Gate, Norm};
use kernels::cuda::rows::Gates;
use kernels::cuda::step::{self, Decay, RecurrentStep};
use kernels::cuda::weights::weight;
use kernels::norm::L2_EPS;
use search::architecture::Kda;

use super::pass::{Kind, NONE, Recorder, Sublayer, part};
use super::weights::{Builder, Matrix};
use crate::cuda::shapes::{Load, kda_extents};

/// Columns of the projection: q, k, v; what decays and gate come from; β.
#[derive(Debug)]
pub(super) struct KdaLayer {
    shape: Kda,
    projection: Matrix,
    decays: Matrix,
    gate: Matrix,
    out: Matrix,
    taps: u64,
    a_log: u64,
    dt_bias: u64,
    norm: u64,
    ring: u64,
    state: u64,
}

impl KdaLayer {
    pub(super) fn new(on: &mut Builder<'_>, shape: &Kda, load: Load) -> Result<Self, Error> {
        let [heads, key_width, value_width, rank] = kda_extents(shape);
        let d = on.d_model;
        let (keys, values) = (heads * key_width, heads * value_width);
        let channels = 2 * keys + values;
        let parts = [
            ("q.weight", keys),
            ("k.weight", keys),
            ("v.weight", values),
            ("f_a.weight", rank),
            ("g_a.weight", rank),
            ("b.weight", heads),
        ];
        let mut taps = Vec::new();
        for (name, channels) in
            [("q_conv.weight", keys), ("k_conv.weight", keys), ("v_conv.weight", values)]
        {
            let count = 4 * channels;
            taps.extend(if on.pretends { weight(name, count) } else { load(name, count) });
        }
        Ok(Self {
            shape: *shape,
            projection: on.matrix(load, &parts, d)?,
            decays: on.matrix(load, &[("f_b.weight", keys)], rank)?,
            gate: on.matrix(load, &[("g_b.weight", values)], rank)?,
            out: on.matrix(load, &[("o.weight", d)], values)?,
            taps: on.values(&taps)?,
            a_log: on.vector(load, "A_log", heads)?,
            dt_bias: on.vector(load, "dt_bias", keys)?,
            norm: on.vector(load, "norm.weight", value_width)?,
            ring: on.past(2 * on.batch * 4 * channels)?,
            state: on.past(4 * on.batch * values * key_width)?,
        })
    }

    /// What the rule reads of each token, `[B, T, H, V]`.
    fn read_prompt(
        &self,
        on: &mut Recorder<'_>,
        c: Rows,
        (beta, decay): (Rows, Decay),
        out: u64,
    ) -> Result<(), Error> {
        let [heads, key_width, value_width, _] = kda_extents(&self.shape);
        let (keys, rows) = (heads * key_width, on.rows);
        // q and k to length 1
        let (gate, factor, epsilon) = (Gate::None, 1.0, L2_EPS as f32);
        let inner = 2 * heads;
        let unit =
            Norm { outer: rows, inner, width: key_width, wide: false, gate, factor, epsilon };
        unit.check()?;
        let qk = on.room("unit", 2 * rows * 2 * keys)?;
        on.launch(unit.forward(c, NONE, 0, qk));
        let qk = Rows { address: qk, stride: 2 * keys };
        let strengths = on.room("beta", 4 * rows * heads)?;
        let gates = Gates { positions: rows, heads, steps: 1 };
        on.launch(gates.delta(beta, None, 1.0, 0, strengths));
        let (batch, tokens, wide) = (on.batch, on.tokens, false);
        let shape = kda::Shape { batch, tokens, heads, key_width, value_width, wide };
        let scale = (key_width as f32).powf(-0.5);
        let kda = kda::Kda::prefill(shape, scale, on.machine.extent())?;
        let (k, v, decays) = (part(qk, keys), part(c, 2 * keys), kda::Decays::Raw(decay));
        let inputs = kda::Inputs { q: qk, k, v, decays, beta: strengths };
        let prepared = kda::Prepared {
            queries: on.room("queries", 2 * rows * keys)?,
            keys: on.room("keys", 2 * rows * keys)?,
            keys_after: on.room("keys after", 2 * rows * keys)?,
            inverse: on.room("inverse", 2 * shape.squares_len())?,
            scores: on.room("scores", 2 * shape.squares_len())?,
            decays: on.room("decays", 4 * shape.decays_len())?,
        };
        on.launch(kda.prepare(&inputs, &prepared));
        on.launch(kda.forward(&inputs, &prepared, (0, self.state), out, None));
        Ok(())
    }
}

impl Sublayer for KdaLayer {
    fn record(&self, on: &mut Recorder<'_>, u: Rows) -> Result<(), Error> {
        let [heads, key_width, value_width, rank] = kda_extents(&self.shape);
        let (keys, values) = (heads * key_width, heads * value_width);
        let channels = 2 * keys + values;
        let z = on.project("projected", self.projection, u)?;
        let [low, gate_low, beta] =
            [channels, channels + rank, channels + 2 * rank].map(|c| part(z, c));
        let raw = on.project("raw decays", self.decays, low)?;
        let gate = on.project("gate", self.gate, gate_low)?;
        let decay = Decay { raw, a_log: self.a_log, dt_bias: self.dt_bias };
        let c = on.convolve(z, channels, [self.taps, 0, self.ring])?;
        let out = on.room("read", 2 * on.rows * values)?;
        match on.kind {
            Kind::Prefill { .. } => self.read_prompt(on, c, (beta, decay), out)?,
            Kind::Step { .. } => {
                let (rule, batch, key_heads) = (step::Rule::Kda, on.batch, heads);
                let step = RecurrentStep { rule, batch, heads, key_heads, key_width, value_width };
                step.check()?;
                let scale = (key_width as f32).powf(-0.5);
                on.launch(step.kda(c, beta, decay, scale, self.state, out));
            }
        }
        let out = Rows { address: out, stride: values };
        let extent = [on.rows, heads, value_width];
        let gate = (Gate::SigmoidAfterNorm, gate);
        let y = on.normed("normed", out, extent, gate, self.norm)?;
        on.add(self.out, y)
    }
}
