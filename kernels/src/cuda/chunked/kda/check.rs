//! The kernels on a machine against the definition: random inputs, every output and gradient compared. The same for the
//! emulator and for a GPU.

use super::{Decays, Inputs, Kda, Prepared, Shape};
use crate::activation::softplus;
use crate::cuda::chunked::check::{
    Comparison, Errors, chosen, download_numbers, rounded, rows_of, upload_numbers,
};
use crate::cuda::chunked::definition::Head;
use crate::cuda::chunked::{Gradients, Kept, Rows, Rule};
use crate::cuda::random::Random;
use crate::cuda::step::Decay;
use crate::cuda::{Error, Launch, Machine, download_vec, upload_new};

/// Errors that are larger than those of all: the largest of one channel's gradient of g, and of its sum over channels.
pub const OF_FEW: [&str; 2] = ["dg of a channel", "dg as gated"];

/// What each channel forgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgets {
    /// As prefill takes decays: some channels of some positions forget all, most keep nearly all.
    Raw,
    /// As training takes them, e^−0.5 to 1.
    Mild,
    /// Of the channels in turn: exactly 1, 10⁻⁶, 10⁻³⁰, so small that f32 has no number for it, mild, and any of these from
    /// position to position.
    Strong,
    /// Mild, and the same in all channels.
    Alike,
}

impl Forgets {
    /// Logarithms, `[rows, channels]`.
    fn draw(self, random: &mut Random, rows: usize, channels: usize) -> Vec<f32> {
        let kinds = [0.0, 1e-6_f64.ln(), 1e-30_f64.ln(), -1000.0];
        let mut all = Vec::with_capacity(rows * channels);
        for _ in 0..rows {
            let alike = random.uniform(-0.5, 0.0);
            all.extend((0..channels).map(|channel| {
                let mild = random.uniform(-0.5, 0.0);
                let any = kinds[random.uniform(0.0, kinds.len() as f64) as usize];
                let g = match (self, channel % 6) {
                    (Self::Alike, _) => alike,
                    (Self::Raw | Self::Mild, _) | (_, 4) => mild,
                    (Self::Strong, 5) => any,
                    (Self::Strong, kind) => kinds[kind],
                };
                g as f32
            }));
        }
        all
    }
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// The extents.
    pub shape: Shape,
    /// The decays; raw ones come without gradients.
    pub forgets: Forgets,
    /// How many of the walks, the first and the last among them, are compared; all are computed.
    pub compared: usize,
}

/// Random inputs on a machine, and all the memory that the kernels want.
#[derive(Debug)]
pub struct Problem {
    case: Case,
    /// q, k, v and what the decays come from if that is raw, side by side as parts of one matrix.
    matrix: Vec<f32>,
    stride: usize,
    a_log: Vec<f32>,
    dt_bias: Vec<f32>,
    /// `[B, T, H, K]`, unless the decays are raw.
    g: Vec<f32>,
    beta: Vec<f32>,
    state: Vec<f32>,
    d_out: Vec<f32>,
    d_state_after: Vec<f32>,
    inputs: Inputs,
    prepared: Prepared,
    kept: Kept,
    gradients: Gradients,
    /// Before, after, the gradient after.
    states: [u64; 3],
    /// The output and its gradient.
    outs: [u64; 2],
    memory: Vec<u64>,
}

impl Problem {
    /// Draws the inputs and takes the memory.
    pub fn new(machine: &mut dyn Machine, case: Case, seed: u64) -> Result<Self, Error> {
        let shape = case.shape;
        let Shape { batch, tokens, heads, key_width, value_width, wide } = shape;
        let mut random = Random::new(seed);
        let (keys, values) = (heads * key_width, heads * value_width);
        let stride = (3 * keys + values + 8).next_multiple_of(8);
        let mut matrix = vec![f32::NAN; batch * tokens * stride]; // also between the parts
        for row in matrix.chunks_mut(stride) {
            for head in row[..2 * keys].chunks_mut(key_width) {
                // of length 1, as queries and keys are
                let x = random.many(key_width, -1.0, 1.0);
                let norm = x.iter().map(|x| x * x).sum::<f32>().sqrt();
                head.iter_mut().zip(x).for_each(|(to, x)| *to = rounded(wide, x / norm));
            }
            let (v, f) = row[2 * keys..3 * keys + values].split_at_mut(values);
            for to in v {
                *to = rounded(wide, random.uniform(-1.0, 1.0) as f32);
            }
            for to in f {
                let x = random.uniform(0.0, 1.0) as f32;
                let f = match x {
                    x if x < 0.02 => 200.0,
                    x if x < 0.5 => -6.0 - x,
                    x => 2.0 * x,
                };
                *to = rounded(wide, f);
            }
        }
        let rows = shape.rows();
        let a_log = random.many(heads, -1.0, 1.0);
        let dt_bias = random.many(keys, -1.0, 1.0);
        let g = case.forgets.draw(&mut random, rows, key_width);
        // some steps do nothing
        let beta: Vec<f32> =
            (0..rows).map(|_| random.uniform(-0.05, 1.0).max(0.0) as f32).collect();
        let state = random.many(shape.state_len(), -0.5, 0.5);
        let d_out = random.many(rows * value_width, -1.0, 1.0);
        let d_out: Vec<f32> = d_out.into_iter().map(|x| rounded(wide, x)).collect();
        let d_state_after = random.many(shape.state_len(), -0.5, 0.5);

        let mut memory = Vec::new();
        let mut keep =
            |address: Result<u64, Error>| address.inspect(|address| memory.push(*address));
        let first = keep(upload_numbers(machine, wide, &matrix))?;
        let number = shape.number_bytes();
        let part = |offset: usize| Rows { address: first + (number * offset) as u64, stride };
        let decays = if case.forgets == Forgets::Raw {
            Decays::Raw(Decay {
                raw: part(2 * keys + values),
                a_log: keep(upload_new(machine, &a_log))?,
                dt_bias: keep(upload_new(machine, &dt_bias))?,
            })
        } else {
            Decays::Logarithms(Rows { address: keep(upload_new(machine, &g))?, stride: keys })
        };
        let beta_at = keep(upload_new(machine, &beta))?;
        let inputs = Inputs { q: part(0), k: part(keys), v: part(2 * keys), decays, beta: beta_at };
        let mut take = |values: usize, bytes: usize| keep(machine.allocate(values * bytes));
        let keys_len = rows * key_width;
        let prepared = Prepared {
            queries: take(keys_len, number)?,
            keys: take(keys_len, number)?,
            keys_after: take(keys_len, number)?,
            inverse: take(shape.squares_len(), number)?,
            scores: take(shape.squares_len(), number)?,
            decays: take(shape.decays_len(), 4)?,
        };
        let kept = Kept {
            corrections: take(rows * value_width, number)?,
            states: take(shape.states_len(), number)?,
        };
        let gradients = Gradients {
            q: take(keys_len, number)?,
            k: take(keys_len, number)?,
            v: take(rows * value_width, number)?,
            g: take(keys_len, 4)?,
            beta: take(rows, 4)?,
            state: take(shape.state_len(), 4)?,
            states: take(shape.states_len(), number)?,
        };
        let (state_after, out) = (take(shape.state_len(), 4)?, take(rows * value_width, number)?);
        let state_at = keep(upload_new(machine, &state))?;
        let d_state_at = keep(upload_new(machine, &d_state_after))?;
        let d_out_at = keep(upload_numbers(machine, wide, &d_out))?;
        Ok(Self {
            case,
            matrix,
            stride,
            a_log,
            dt_bias,
            g,
            beta,
            state,
            d_out,
            d_state_after,
            inputs,
            prepared,
            kept,
            gradients,
            states: [state_at, state_after, d_state_at],
            outs: [out, d_out_at],
            memory,
        })
    }

    /// Factor of the output.
    pub fn scale(&self) -> f32 {
        (self.case.shape.key_width as f32).powf(-0.5)
    }

    /// The launches of the forward pass; `keep` what the backward pass needs.
    pub fn forward(&self, kda: &Kda, keep: bool) -> [Launch; 2] {
        let [before, after, _] = self.states;
        let kept = keep.then_some(&self.kept);
        [
            kda.prepare(&self.inputs, &self.prepared),
            kda.forward(&self.inputs, &self.prepared, (before, after), self.outs[0], kept),
        ]
    }

    /// The launches of the backward pass, after a forward pass that kept.
    pub fn backward(&self, kda: &Kda) -> [Launch; 2] {
        let Shape { heads, value_width, .. } = self.case.shape;
        let d_out = Rows { address: self.outs[1], stride: heads * value_width };
        let (kept, to) = (&self.kept, &self.gradients);
        kda.backward(&self.inputs, &self.prepared, kept, d_out, self.states[2], to)
    }

    /// One walk's inputs.
    fn head(&self, piece: usize) -> Head {
        let Shape { tokens, heads, key_width, value_width, .. } = self.case.shape;
        let (batch, head) = (piece / heads, piece % heads);
        let (keys, values) = (heads * key_width, heads * value_width);
        let part = |offset: usize, width: usize| -> Vec<f64> {
            (0..tokens)
                .flat_map(|t| &self.matrix[(batch * tokens + t) * self.stride + offset..][..width])
                .map(|x| f64::from(*x))
                .collect()
        };
        let g = if self.case.forgets == Forgets::Raw {
            let rate = f64::from(self.a_log[head]).exp();
            let biases = &self.dt_bias[head * key_width..][..key_width];
            let raw = part(2 * keys + values + head * key_width, key_width);
            let each = raw.iter().zip(biases.iter().cycle());
            each.map(|(f, bias)| -rate * softplus(f + f64::from(*bias))).collect()
        } else {
            rows_of(&self.g, [tokens, heads, key_width], piece)
        };
        Head {
            q: part(head * key_width, key_width),
            k: part(keys + head * key_width, key_width),
            v: part(2 * keys + head * value_width, value_width),
            g,
            beta: rows_of(&self.beta, [tokens, heads, 1], piece),
            state: self.state_of(&self.state, piece),
            scale: f64::from(self.scale()),
        }
    }

    /// One walk's part of `[B, H, K, V]`.
    fn state_of(&self, all: &[f32], piece: usize) -> Vec<f64> {
        let len = self.case.shape.key_width * self.case.shape.value_width;
        all[piece * len..][..len].iter().map(|x| f64::from(*x)).collect()
    }

    /// Runs everything and compares. Where decays are strong, of the gradient of g the largest error of a channel by its own
    /// size, too; where they are alike in all channels, with the gated delta rule.
    pub fn errors(&self, machine: &mut dyn Machine, kda: &Kda) -> Result<Errors, Error> {
        let backward = self.case.forgets != Forgets::Raw;
        for launch in self.forward(kda, backward) {
            machine.launch(&launch)?;
        }
        if backward {
            for launch in self.backward(kda) {
                machine.launch(&launch)?;
            }
        }
        let Shape { tokens, heads, key_width, value_width, wide, .. } = self.case.shape;
        let (rows, states) = (self.case.shape.rows(), self.case.shape.state_len());
        let to = &self.gradients;
        let mut read =
            |address: u64, width: usize| download_numbers(machine, wide, address, rows * width);
        let mut numbers = vec![read(self.outs[0], value_width)?];
        if backward {
            for (address, width) in [(to.q, key_width), (to.k, key_width), (to.v, value_width)] {
                numbers.push(read(address, width)?);
            }
        }
        let mut full: Vec<Vec<f32>> = vec![download_vec(machine, self.states[1], states)?];
        if backward {
            for (address, len) in [(to.state, states), (to.g, rows * key_width), (to.beta, rows)] {
                full.push(download_vec(machine, address, len)?);
            }
        }
        let written = numbers.iter().chain(&full).flatten().all(|x| x.is_finite());
        let mut comparison = Comparison::default();
        let mut worst: f64 = 0.0; // of a channel of dg
        let pieces = self.case.shape.pieces();
        for piece in chosen(pieces, self.case.compared) {
            let head = self.head(piece);
            let of = |all: &[f32], width: usize| rows_of(all, [tokens, heads, width], piece);
            let (out, state) = head.forward(Rule::Delta);
            comparison.add("out", &of(&numbers[0], value_width), &out);
            comparison.add("state", &self.state_of(&full[0], piece), &state);
            if !backward {
                continue;
            }
            let d_out = of(&self.d_out, value_width);
            let d_state = self.state_of(&self.d_state_after, piece);
            let d = head.backward(Rule::Delta, &d_out, &d_state);
            comparison.add("dq", &of(&numbers[1], key_width), &d.q);
            comparison.add("dk", &of(&numbers[2], key_width), &d.k);
            comparison.add("dv", &of(&numbers[3], value_width), &d.v);
            comparison.add("dstate", &self.state_of(&full[1], piece), &d.state);
            let d_g = of(&full[2], key_width);
            comparison.add("dg", &d_g, &d.g);
            comparison.add("dbeta", &of(&full[3], 1), &d.beta);
            worst = worst.max(worst_channel(&d_g, &d.g, key_width));
            if self.case.forgets == Forgets::Alike {
                let g = head.g.iter().copied().step_by(key_width).collect();
                let gated = Head { g, ..head };
                let (out, _) = gated.forward(Rule::Delta);
                comparison.add("out as gated", &of(&numbers[0], value_width), &out);
                let d_g: Vec<f64> = d_g.chunks_exact(key_width).map(|d| d.iter().sum()).collect();
                comparison.add(OF_FEW[1], &d_g, &gated.backward(Rule::Delta, &d_out, &d_state).g);
            }
        }
        let mut errors = comparison.errors(written);
        if self.case.forgets == Forgets::Strong {
            errors.push((OF_FEW[0], worst));
        }
        Ok(errors)
    }

    /// The gradient of g that the kernels left, `[B, T, H, K]`.
    pub fn d_log_decays(&self, machine: &mut dyn Machine) -> Result<Vec<f32>, Error> {
        let len = self.case.shape.rows() * self.case.shape.key_width;
        download_vec(machine, self.gradients.g, len)
    }

    /// Gives the memory back.
    pub fn free(self, machine: &mut dyn Machine) -> Result<(), Error> {
        self.memory.into_iter().try_for_each(|address| machine.free(address))
    }
}

/// The largest error of a channel of `[T, channels]`, by what is expected of it; what f32 has no numbers for is left out.
fn worst_channel(got: &[f64], expected: &[f64], channels: usize) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let error_of = |channel: usize| {
        let pairs = || got.iter().zip(expected).skip(channel).step_by(channels);
        let size = norm(&mut pairs().map(|(_, expected)| *expected));
        let error = norm(&mut pairs().map(|(got, expected)| got - expected));
        if size > 1e-33 { error / size } else { 0.0 }
    };
    (0..channels).map(error_of).fold(0.0, |worst: f64, x| if x.is_nan() { x } else { worst.max(x) })
}
