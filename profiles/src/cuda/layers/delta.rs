//! The delta family layer by layer.

use kernels::cuda::Error;
use kernels::cuda::chunked::{self, Inputs, Rows};
use kernels::cuda::norm::{Gate, Norm};
use kernels::cuda::rows::{Gates, Spread};
use kernels::cuda::step::{self, Decay, RecurrentStep};
use kernels::cuda::weights::weight;
use kernels::norm::L2_EPS;
use search::architecture::Delta;

use super::pass::{Kind, NONE, Recorder, Sublayer, part};
use super::weights::{Builder, Matrix};
use crate::cuda::shapes::{Load, delta_extents};

/// Columns of the projection: q, k, v; the gate; β; a.
#[derive(Debug)]
pub(super) struct DeltaLayer {
    shape: Delta,
    projection: Matrix,
    /// First columns of the gate, of β and of a.
    columns: [usize; 3],
    out: Matrix,
    taps: u64,
    a_log: u64,
    dt_bias: u64,
    norm: u64,
    ring: u64,
    state: u64,
}

impl DeltaLayer {
    pub(super) fn new(on: &mut Builder<'_>, shape: &Delta, load: Load) -> Result<Self, Error> {
        let [key_heads, heads, key_width, value_width, steps] = delta_extents(shape);
        let d = on.d_model;
        let (keys, values) = (key_heads * key_width, heads * value_width);
        let channels = keys + steps * (keys + values);
        let mut parts =
            vec![("q.weight", keys), ("k.weight", steps * keys), ("v.weight", steps * values)];
        let mut columns = [channels; 3];
        let mut end = channels;
        for (i, (name, rows, is_there)) in [
            ("g.weight", values, shape.output_gate),
            ("b.weight", steps * heads, true),
            ("a.weight", heads, shape.decay),
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
        Ok(Self {
            shape: *shape,
            projection,
            columns,
            out,
            taps: on.values(&taps)?,
            a_log,
            dt_bias,
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
        on.chunked(chunked::Rule::Delta, shape, scale, inputs, (self.state, out))?;
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
        let [gate, beta, a] = self.columns.map(|column| part(z, column));
        let decay = Decay { raw: a, a_log: self.a_log, dt_bias: self.dt_bias };
        let decay = shape.decay.then_some(decay);
        let largest_beta = if shape.negative_eigenvalues { 2.0 } else { 1.0 };
        let scale = (key_width as f32).powf(-0.5);
        let c = on.convolve(z, channels, [self.taps, 0, self.ring])?;
        let out = match on.kind {
            Kind::Prefill { .. } => self.read_prompt(on, c, (beta, decay, largest_beta), scale)?,
            Kind::Step { .. } => {
                let rule = step::Rule::Delta(steps);
                let batch = on.batch;
                let step = RecurrentStep { rule, batch, heads, key_heads, key_width, value_width };
                step.check()?;
                let out = on.room("read", 2 * on.rows * values)?;
                let factors = [largest_beta, scale];
                on.launch(step.delta(c, beta, decay, factors, self.state, out));
                Rows { address: out, stride: values }
            }
        };
        let kind = if shape.output_gate { Gate::AfterNorm } else { Gate::None };
        let extent = [on.rows, heads, value_width];
        let y = on.normed("normed", out, extent, (kind, gate), self.norm)?;
        on.add(self.out, y)
    }
}
