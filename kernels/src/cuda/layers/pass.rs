//! The list of kernels and products of a prefill or a step.

use std::collections::HashMap;

use super::model::{AttentionLayer, DeltaLayer, FfnLayer, Mamba2Layer, Matrix, MixerLayer};
use super::{Model, Pass, Section, Work};
use crate::cuda::attention::{self, Attention};
use crate::cuda::chunked::{self, Chunked, Inputs, Prepared, Rows};
use crate::cuda::norm::{Gate, Norm};
use crate::cuda::product::{Product, Shape};
use crate::cuda::rows::{Gates, Gather, Spread, Swiglu};
use crate::cuda::short_conv::ShortConv;
use crate::cuda::step::{self, ConvStep, Decay, RecurrentStep};
use crate::cuda::values::Values;
use crate::cuda::{Error, Launch, Machine};
use crate::norm::{L2_EPS, RMS_EPS};

/// What the positions of a pass are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The prompt of each sequence.
    Prefill { tokens: usize },
    /// One token of each, with at most so many positions in the caches.
    Step { positions: usize },
}

struct Builder<'a> {
    model: &'a Model,
    machine: &'a mut dyn Machine,
    kind: Kind,
    tokens: usize,
    /// B · T.
    rows: usize,
    /// The residual stream, bf16 `[B, T, d]`.
    x: u64,
    work: Vec<Work>,
    /// Scratch memory by its use and size: layers of one shape share it.
    rooms: HashMap<(&'static str, usize), u64>,
    memory: Vec<u64>,
}

const NONE: Rows = Rows { address: 0, stride: 0 };

/// The rows of `columns` from `column` on, of rows of bf16.
fn part(rows: Rows, column: usize) -> Rows {
    Rows { address: rows.address + 2 * column as u64, ..rows }
}

pub(super) fn build(
    model: &Model,
    machine: &mut dyn Machine,
    kind: Kind,
    extent: Section,
) -> Result<Pass, Error> {
    let tokens = match kind {
        Kind::Prefill { tokens } => tokens,
        Kind::Step { .. } => 1,
    };
    let mut builder = Builder {
        model,
        machine,
        kind,
        tokens,
        rows: model.batch * tokens,
        x: 0,
        work: Vec::new(),
        rooms: HashMap::new(),
        memory: Vec::new(),
    };
    match builder.build(extent) {
        Ok(pass) => Ok(pass),
        Err(error) => {
            let memory = std::mem::take(&mut builder.memory);
            memory.into_iter().try_for_each(|address| machine.free(address))?;
            Err(error)
        }
    }
}

impl Builder<'_> {
    fn build(&mut self, extent: Section) -> Result<Pass, Error> {
        let (model, d) = (self.model, self.model.stack.d_model);
        let entries = self.room("entries", 4 * self.rows)?;
        self.machine.upload(entries, &vec![0; 4 * self.rows])?;
        self.x = self.room("x", 2 * self.rows * d)?;
        if extent == Section::Layers {
            self.machine.pretend(self.x, 2 * self.rows * d)?;
        } else {
            let gather = Gather { rows: self.rows, width: d };
            gather.check()?;
            self.launch(gather.forward(model.embedding.address, entries, self.x));
        }
        if extent != Section::Head {
            for layer in &model.layers {
                if let Some((norm, mixer)) = &layer.mixer {
                    let u = self.norm(*norm)?;
                    match mixer {
                        MixerLayer::Attention(layer) => self.attention(layer, u)?,
                        MixerLayer::Delta(layer) => self.delta(layer, u)?,
                        MixerLayer::Mamba2(layer) => self.mamba2(layer, u)?,
                    }
                }
                if let Some(ffn) = &layer.ffn {
                    self.ffn(ffn)?;
                }
            }
        }
        let logits_row = model.head.outputs;
        let logits = self.room("logits", 4 * model.batch * logits_row)?;
        if extent != Section::Layers {
            let last = Rows {
                address: self.x + (2 * (self.tokens - 1) * d) as u64,
                stride: self.tokens * d,
            };
            let u = self.normed(
                "last",
                last,
                [model.batch, 1, d],
                (Gate::None, NONE),
                model.final_norm,
            )?;
            let y = Rows { address: logits, stride: logits_row };
            self.product(model.head, (u, model.batch), y, [false, true])?;
        }
        Ok(Pass {
            work: std::mem::take(&mut self.work),
            batch: model.batch,
            tokens: self.tokens,
            vocabulary: model.stack.vocabulary,
            entries,
            logits,
            logits_row,
            memory: std::mem::take(&mut self.memory),
        })
    }

    fn room(&mut self, name: &'static str, bytes: usize) -> Result<u64, Error> {
        if let Some(address) = self.rooms.get(&(name, bytes)) {
            return Ok(*address);
        }
        let address = self.machine.allocate(bytes)?;
        self.memory.push(address);
        self.rooms.insert((name, bytes), address);
        Ok(address)
    }

    fn launch(&mut self, launch: Launch) {
        self.work.push(Work::Kernel(launch));
    }

    /// `x` is `[rows, inputs]`.
    fn product(
        &mut self,
        matrix: Matrix,
        (x, rows): (Rows, usize),
        y: Rows,
        [adds, wide]: [bool; 2],
    ) -> Result<(), Error> {
        let Matrix { address, outputs, inputs } = matrix;
        let shape = Shape { rows, outputs, inputs, adds, wide };
        let product = Product { shape, x, weight: address, y };
        product.check()?;
        self.work.push(Work::Product(product));
        Ok(())
    }

    /// To rows of their own.
    fn project(&mut self, name: &'static str, matrix: Matrix, x: Rows) -> Result<Rows, Error> {
        let address = self.room(name, 2 * self.rows * matrix.outputs)?;
        let y = Rows { address, stride: matrix.outputs };
        self.product(matrix, (x, self.rows), y, [false, false])?;
        Ok(y)
    }

    /// Onto the residual stream.
    fn add(&mut self, matrix: Matrix, x: Rows) -> Result<(), Error> {
        let y = Rows { address: self.x, stride: self.model.stack.d_model };
        self.product(matrix, (x, self.rows), y, [true, false])
    }

    /// RMSNorm of `[outer, inner, width]`, with a gate in rows of their own.
    fn normed(
        &mut self,
        name: &'static str,
        x: Rows,
        [outer, inner, width]: [usize; 3],
        (gate, gates): (Gate, Rows),
        weight: u64,
    ) -> Result<Rows, Error> {
        let factor = 1.0 / width as f32;
        let epsilon = RMS_EPS as f32;
        let norm = Norm { outer, inner, width, wide: false, gate, factor, epsilon };
        norm.check()?;
        let y = self.room(name, 2 * outer * inner * width)?;
        self.launch(norm.forward(x, gates, weight, y));
        Ok(Rows { address: y, stride: inner * width })
    }

    /// Of the residual stream.
    fn norm(&mut self, weight: u64) -> Result<Rows, Error> {
        let d = self.model.stack.d_model;
        let x = Rows { address: self.x, stride: d };
        self.normed("u", x, [self.rows, 1, d], (Gate::None, NONE), weight)
    }

    fn ffn(&mut self, layer: &FfnLayer) -> Result<(), Error> {
        let u = self.norm(layer.norm)?;
        let gate_up = self.project("gate_up", layer.gate_up, u)?;
        let width = layer.width;
        let swiglu = Swiglu { rows: self.rows, width, wide: false };
        swiglu.check()?;
        let hidden = self.room("hidden", 2 * self.rows * width)?;
        self.launch(swiglu.forward(gate_up, hidden));
        self.add(layer.down, Rows { address: hidden, stride: width })
    }

    fn attention(&mut self, layer: &AttentionLayer, u: Rows) -> Result<(), Error> {
        let &AttentionLayer { heads, kv_heads, width, window, norms, rotations, cache, .. } = layer;
        let (batch, tokens) = (self.model.batch, self.tokens);
        let shape = attention::Shape { batch, tokens, heads, kv_heads, width, window };
        let attention = Attention::new(shape, self.machine.extent())?;
        let qkv = self.project("qkv", layer.qkv, u)?;
        let out = self.room("attended", 2 * self.rows * heads * width)?;
        let scale = (width as f32).powf(-0.5);
        match self.kind {
            Kind::Prefill { .. } => {
                self.launch(attention.rotate(qkv, norms, rotations, 0, Some(cache)));
                let [q, k, v] = attention.fused(qkv);
                self.launch(attention.prefill(q, k, v, scale, out));
            }
            Kind::Step { positions } => {
                let at = self.model.positions;
                self.launch(attention.rotate(qkv, norms, rotations, at, Some(cache)));
                let splits = attention.splits(positions);
                let scratch = self.room("splits", attention.scratch_bytes(splits))?;
                for launch in attention.step(qkv, cache, at, scale, (splits, scratch), out) {
                    self.launch(launch);
                }
            }
        }
        self.add(layer.out, Rows { address: out, stride: heads * width })
    }

    /// The short convolution with SiLU of the first `channels` columns.
    fn convolve(
        &mut self,
        x: Rows,
        channels: usize,
        [taps, bias, ring]: [u64; 3],
    ) -> Result<Rows, Error> {
        let (batch, tokens) = (self.model.batch, self.tokens);
        let y = self.room("convolved", 2 * self.rows * channels)?;
        match self.kind {
            Kind::Prefill { .. } => {
                let conv = ShortConv { batch, tokens, channels, wide: false };
                conv.check()?;
                self.launch(conv.forward_keeping(x, taps, bias, y, ring));
            }
            Kind::Step { .. } => {
                let conv = ConvStep { batch, channels };
                conv.check()?;
                self.launch(conv.forward(x, (taps, bias), ring, self.model.positions, y));
            }
        }
        Ok(Rows { address: y, stride: channels })
    }

    /// The recurrence from an empty state over whole sequences.
    fn chunked(
        &mut self,
        rule: chunked::Rule,
        shape: chunked::Shape,
        scale: f32,
        inputs: Inputs,
        (state, out): (u64, u64),
    ) -> Result<(), Error> {
        let chunked = Chunked::new(rule, shape, scale, self.machine.extent())?;
        let inverse = match rule {
            chunked::Rule::Delta => self.room("inverse", 2 * shape.squares_len())?,
            chunked::Rule::LinearAttention => 0,
        };
        let scores = self.room("scores", 2 * shape.squares_len())?;
        let decays = self.room("decays", 4 * shape.decays_len())?;
        let prepared = Prepared { inverse, scores, decays };
        self.launch(chunked.prepare(&inputs, &prepared));
        self.launch(chunked.forward(&inputs, &prepared, 0, state, out, None));
        Ok(())
    }

    fn delta(&mut self, layer: &DeltaLayer, u: Rows) -> Result<(), Error> {
        let shape = layer.shape;
        let [key_heads, heads, key_width, value_width, steps] =
            [shape.key_heads, shape.heads, shape.key_width, shape.value_width, shape.steps];
        let (keys, values) = (key_heads * key_width, heads * value_width);
        let channels = keys + steps * (keys + values);
        let z = self.project("projected", layer.projection, u)?;
        let [gate, beta, a] = layer.columns.map(|column| part(z, column));
        let decay = Decay { raw: a, a_log: layer.a_log, dt_bias: layer.dt_bias };
        let decay = shape.decay.then_some(decay);
        let largest_beta = if shape.negative_eigenvalues { 2.0 } else { 1.0 };
        let scale = (key_width as f32).powf(-0.5);
        let c = self.convolve(z, channels, [layer.taps, 0, layer.ring])?;
        let out = match self.kind {
            Kind::Prefill { .. } => {
                self.delta_prefill(layer, c, (beta, decay, largest_beta), scale)?
            }
            Kind::Step { .. } => {
                let rule = step::Rule::Delta(steps);
                let batch = self.model.batch;
                let step = RecurrentStep { rule, batch, heads, key_heads, key_width, value_width };
                step.check()?;
                let out = self.room("read", 2 * self.rows * values)?;
                let factors = [largest_beta, scale];
                self.launch(step.delta(c, beta, decay, factors, layer.state, out));
                Rows { address: out, stride: values }
            }
        };
        let kind = if shape.output_gate { Gate::AfterNorm } else { Gate::None };
        let extent = [self.rows, heads, value_width];
        let y = self.normed("normed", out, extent, (kind, gate), layer.norm)?;
        self.add(layer.out, y)
    }

    /// What the rule reads of each token, `[B, T, H, V]`.
    fn delta_prefill(
        &mut self,
        layer: &DeltaLayer,
        c: Rows,
        (beta, decay, largest_beta): (Rows, Option<Decay>, f32),
        scale: f32,
    ) -> Result<Rows, Error> {
        let shape = layer.shape;
        let [key_heads, heads, key_width, value_width, steps] =
            [shape.key_heads, shape.heads, shape.key_width, shape.value_width, shape.steps];
        let (keys, values) = (key_heads * key_width, heads * value_width);
        let (rows, long) = (self.rows, self.rows * steps);
        // q and k of each step, to length 1
        let inner = (1 + steps) * key_heads;
        let (gate, factor, epsilon) = (Gate::None, 1.0, L2_EPS as f32);
        let unit =
            Norm { outer: rows, inner, width: key_width, wide: false, gate, factor, epsilon };
        unit.check()?;
        let qk = self.room("unit", 2 * rows * inner * key_width)?;
        self.launch(unit.forward(c, NONE, 0, qk));
        let qk = Rows { address: qk, stride: inner * key_width };
        let (mut q, mut k, mut v) = (qk, part(qk, keys), part(c, (1 + steps) * keys));
        if steps > 1 {
            // the lengthened sequence: the query on a token's last step, a key and a value on each
            let of_keys = Spread { rows, steps, width: keys };
            let of_values = Spread { rows, steps, width: values };
            of_keys.check()?;
            of_values.check()?;
            let to = [
                self.room("spread q", 2 * long * keys)?,
                self.room("spread k", 2 * long * keys)?,
                self.room("spread v", 2 * long * values)?,
            ];
            self.launch(of_keys.last(q, to[0]));
            self.launch(of_keys.each(k, to[1]));
            self.launch(of_values.each(v, to[2]));
            q = Rows { address: to[0], stride: keys };
            k = Rows { address: to[1], stride: keys };
            v = Rows { address: to[2], stride: values };
        }
        let g = if decay.is_some() { self.room("g", 4 * long * heads)? } else { 0 };
        let strengths = self.room("beta", 4 * long * heads)?;
        let gates = Gates { positions: rows, heads, steps };
        self.launch(gates.delta(beta, decay, largest_beta, g, strengths));
        let out = self.room("read", 2 * long * values)?;
        let shape = chunked::Shape {
            batch: self.model.batch,
            tokens: self.tokens * steps,
            heads,
            key_heads,
            key_width,
            value_width,
            wide: false,
        };
        let inputs = Inputs { q, k, v, g, beta: strengths };
        self.chunked(chunked::Rule::Delta, shape, scale, inputs, (layer.state, out))?;
        let all = Rows { address: out, stride: steps * values };
        Ok(part(all, (steps - 1) * values))
    }

    fn mamba2(&mut self, layer: &Mamba2Layer, u: Rows) -> Result<(), Error> {
        let &Mamba2Layer { heads, head_width, state_width, .. } = layer;
        let inner = heads * head_width;
        let channels = inner + 2 * state_width;
        let z = self.project("projected", layer.projection, u)?;
        let [gate, raw] = layer.columns.map(|column| part(z, column));
        let dt = Decay { raw, a_log: layer.a_log, dt_bias: layer.dt_bias };
        let c = self.convolve(z, channels, [layer.taps, layer.bias, layer.ring])?;
        let out = self.room("read", 2 * self.rows * inner)?;
        match self.kind {
            Kind::Prefill { .. } => {
                let g = self.room("g", 4 * self.rows * heads)?;
                let factors = self.room("dt", 4 * self.rows * heads)?;
                let gates = Gates { positions: self.rows, heads, steps: 1 };
                self.launch(gates.mamba2(dt, g, factors));
                let positions = self.rows;
                let values = Values { positions, heads, width: head_width, wide: false };
                values.check()?;
                let v = self.room("values", 2 * self.rows * inner)?;
                self.launch(values.scale(c, factors, v));
                let shape = chunked::Shape {
                    batch: self.model.batch,
                    tokens: self.tokens,
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
                let to = (layer.state, out);
                self.chunked(chunked::Rule::LinearAttention, shape, 1.0, inputs, to)?;
                self.launch(values.skip(c, layer.skip, out));
            }
            Kind::Step { .. } => {
                let step = RecurrentStep {
                    rule: step::Rule::Mamba2,
                    batch: self.model.batch,
                    heads,
                    key_heads: 1,
                    key_width: state_width,
                    value_width: head_width,
                };
                step.check()?;
                self.launch(step.mamba2(c, dt, layer.skip, layer.state, out));
            }
        }
        let out = Rows { address: out, stride: inner };
        let extent = [self.rows, 1, inner];
        let y = self.normed("normed", out, extent, (Gate::BeforeNorm, gate), layer.norm)?;
        self.add(layer.out, y)
    }
}
