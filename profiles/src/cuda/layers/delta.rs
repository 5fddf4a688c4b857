//! The delta family layer by layer.

use kernels::cuda::Error;
use kernels::cuda::chunked::log_linear::Scales;
use kernels::cuda::chunked::{self, Inputs, Rows};
use kernels::cuda::norm::{Gate, Norm};
use kernels::cuda::phases::Heads;
use kernels::cuda::rows::{Gates, Spread};
use kernels::cuda::step::{self, Decay, Levels, RecurrentStep};
use kernels::cuda::weights::weight;
use kernels::log_linear::levels_within;
use kernels::norm::L2_EPS;
use search::architecture::{Delta, Phases};

use super::pass::{Kind, NONE, Recorder, Sublayer, part};
use super::phases::Angles;
use super::weights::{Builder, Matrix};
use crate::cuda::shapes::{Load, delta_extents};

/// Columns of the projection: q, k, v; the gate; β; a; λ.
#[derive(Debug)]
pub(super) struct DeltaLayer {
    shape: Delta,
    projection: Matrix,
    /// First columns of the gate, of β, of a and of λ.
    columns: [usize; 4],
    out: Matrix,
    taps: u64,
    a_log: u64,
    dt_bias: u64,
    norm: u64,
    angles: Option<Angles>,
    ring: u64,
    /// L of a log-linear member, and for how many levels there are states.
    scales: u64,
    kept: usize,
    state: u64,
}

impl DeltaLayer {
    pub(super) fn new(
        on: &mut Builder<'_>,
        shape: &Delta,
        phases: Option<Phases>,
        load: Load,
    ) -> Result<Self, Error> {
        let [key_heads, heads, key_width, value_width, steps] = delta_extents(shape);
        let d = on.d_model;
        let (keys, values) = (key_heads * key_width, heads * value_width);
        let channels = keys + steps * (keys + values);
        let mut parts =
            vec![("q.weight", keys), ("k.weight", steps * keys), ("v.weight", steps * values)];
        let levels = shape.levels.map_or(0, |levels| levels as usize);
        let mut columns = [channels; 4];
        let mut end = channels;
        for (i, (name, rows, is_there)) in [
            ("g.weight", values, shape.output_gate),
            ("b.weight", steps * heads, true),
            ("a.weight", heads, shape.decay),
            ("l.weight", heads * levels, levels > 0),
        ]
        .into_iter()
        .enumerate()
        {
            columns[i] = end;
            if is_there {
                parts.push((name, rows));
                end += rows.next_multiple_of(8);
            }
        }
        let projection = on.matrix(load, &parts, d)?;
        let out = on.matrix(load, &[("o.weight", d)], values)?;
        let taps = if shape.short_conv {
            let mut taps = Vec::new();
            for (name, channels) in [
                ("q_conv.weight", keys),
                ("k_conv.weight", steps * keys),
                ("v_conv.weight", steps * values),
            ] {
                let count = 4 * channels;
                taps.extend(if on.pretends { weight(name, count) } else { load(name, count) });
            }
            taps
        } else {
            // the present alone; SiLU follows all the same
            [0.0, 0.0, 0.0, 1.0].repeat(channels)
        };
        let (mut a_log, mut dt_bias) = (0, 0);
        if shape.decay {
            a_log = on.vector(load, "A_log", heads)?;
            dt_bias = on.vector(load, "dt_bias", heads)?;
        }
        let kept = if levels > 0 { levels_within(levels, on.positions) } else { 0 };
        Ok(Self {
            shape: *shape,
            projection,
            columns,
            out,
            taps: on.values(&taps)?,
            a_log,
            dt_bias,
            norm: on.vector(load, "norm.weight", value_width)?,
            angles: phases.map(|phases| Angles::new(on, phases, load)).transpose()?,
            ring: on.past(2 * on.batch * 4 * channels)?,
            scales: if levels > 0 { on.vector(load, "L", heads * levels)? } else { 0 },
            kept,
            state: on.past(4 * on.batch * values * key_width * kept.max(1))?,
        })
    }

    /// What the rule reads of each token, `[B, T, H, V]`.
    fn read_prompt(
        &self,
        on: &mut Recorder<'_>,
        [c, lambda]: [Rows; 2],
        (beta, decay, largest_beta): (Rows, Option<Decay>, f32),
        scale: f32,
    ) -> Result<Rows, Error> {
        let [key_heads, heads, key_width, value_width, steps] = delta_extents(&self.shape);
        let (keys, values) = (key_heads * key_width, heads * value_width);
        let (rows, long) = (on.rows, on.rows * steps);
        // q and k of each step, to length 1
        let inner = (1 + steps) * key_heads;
        let (gate, factor, epsilon) = (Gate::None, 1.0, L2_EPS as f32);
        let unit =
            Norm { outer: rows, inner, width: key_width, wide: false, gate, factor, epsilon };
        unit.check()?;
        let qk = on.room("unit", 2 * rows * inner * key_width)?;
        on.launch(unit.forward(c, NONE, 0, qk));
        let qk = Rows { address: qk, stride: inner * key_width };
        let (mut q, mut k, mut v) = (qk, part(qk, keys), part(c, (1 + steps) * keys));
        if steps > 1 {
            // the lengthened sequence: the query on a token's last step, a key and a value on each
            let of_keys = Spread { rows, steps, width: keys };
            let of_values = Spread { rows, steps, width: values };
            of_keys.check()?;
            of_values.check()?;
            let to = [
                on.room("spread q", 2 * long * keys)?,
                on.room("spread k", 2 * long * keys)?,
                on.room("spread v", 2 * long * values)?,
            ];
            on.launch(of_keys.last(q, to[0]));
            on.launch(of_keys.each(k, to[1]));
            on.launch(of_values.each(v, to[2]));
            q = Rows { address: to[0], stride: keys };
            k = Rows { address: to[1], stride: keys };
            v = Rows { address: to[2], stride: values };
        }
        let g = if decay.is_some() { on.room("g", 4 * long * heads)? } else { 0 };
        let strengths = on.room("beta", 4 * long * heads)?;
        let gates = Gates { positions: rows, heads, steps };
        on.launch(gates.delta(beta, decay, largest_beta, g, strengths));
        let out = on.room("read", 2 * long * values)?;
        let shape = chunked::Shape {
            batch: on.batch,
            tokens: on.tokens * steps,
            heads,
            key_heads,
            key_width,
            value_width,
            wide: false,
        };
        let inputs = Inputs { q, k, v, g, beta: strengths };
        let to = (self.state, out);
        if let Some(levels) = self.shape.levels {
            let scales = (Scales { raw: lambda, scales: self.scales }, levels as usize, self.kept);
            on.log_linear(chunked::Rule::Delta, shape, scale, inputs, scales, to)?;
        } else {
            on.chunked(chunked::Rule::Delta, shape, scale, inputs, to)?;
        }
        let all = Rows { address: out, stride: steps * values };
        Ok(part(all, (steps - 1) * values))
    }
}

impl Sublayer for DeltaLayer {
    fn record(&self, on: &mut Recorder<'_>, u: Rows) -> Result<(), Error> {
        let shape = self.shape;
        let [key_heads, heads, key_width, value_width, steps] = delta_extents(&shape);
        let (keys, values) = (key_heads * key_width, heads * value_width);
        let channels = keys + steps * (keys + values);
        let z = on.project("projected", self.projection, u)?;
        let [gate, beta, a, lambda] = self.columns.map(|column| part(z, column));
        let decay = Decay { raw: a, a_log: self.a_log, dt_bias: self.dt_bias };
        let decay = shape.decay.then_some(decay);
        let largest_beta = if shape.negative_eigenvalues { 2.0 } else { 1.0 };
        let scale = shape.scale() as f32;
        let c = on.convolve(z, channels, [self.taps, 0, self.ring])?;
        if let Some(angles) = &self.angles {
            let turned = Heads { queries: key_heads, all: (1 + steps) * key_heads };
            angles.turn(on, u, c, turned)?;
        }
        let out = match on.kind {
            Kind::Prefill { .. } => {
                self.read_prompt(on, [c, lambda], (beta, decay, largest_beta), scale)?
            }
            Kind::Step { .. } => {
                let rule = step::Rule::Delta(steps);
                let batch = on.batch;
                let step = RecurrentStep { rule, batch, heads, key_heads, key_width, value_width };
                step.check()?;
                let out = on.room("read", 2 * on.rows * values)?;
                let factors = [largest_beta, scale];
                let to = (self.state, out);
                on.launch(match (shape.levels, decay) {
                    (Some(levels), Some(decay)) => {
                        let levels = Levels {
                            kept: self.kept,
                            all: levels as usize,
                            raw: lambda,
                            scales: self.scales,
                            positions: on.positions,
                        };
                        step.log_linear([c, beta], decay, &levels, (0, factors), to)
                    }
                    _ => step.delta(c, beta, decay, factors, self.state, out),
                });
                Rows { address: out, stride: values }
            }
        };
        let kind = if shape.output_gate { Gate::AfterNorm } else { Gate::None };
        let extent = [on.rows, heads, value_width];
        let y = on.normed("normed", out, extent, (kind, gate), self.norm)?;
        on.add(self.out, y)
    }
}
