//! The kernels on a machine against the definition: random inputs, every output compared. The same for the emulator and
//! for a GPU.

use super::definition::Head;
use super::{Chunked, Gradients, Inputs, Kept, Prepared, Rows, Rule, Shape};
use crate::cuda::random::{Random, bf16s};
use crate::cuda::{Error, Launch, Machine, bf16_bits, bf16_value, download_vec, upload_new};

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// The rule.
    pub rule: Rule,
    /// The extents.
    pub shape: Shape,
    /// Whether there is a decay.
    pub decay: bool,
    /// Whether gradients are compared too.
    pub backward: bool,
    /// How many of the walks, the first and the last among them, are compared; all are computed.
    pub compared: usize,
}

/// As a kernel gets it, in f32 if `wide`, else in bf16.
pub(super) fn rounded(wide: bool, x: f32) -> f32 {
    if wide { x } else { bf16_value(bf16_bits(x)) }
}

pub(super) fn upload_numbers(
    machine: &mut dyn Machine,
    wide: bool,
    values: &[f32],
) -> Result<u64, Error> {
    if wide { upload_new(machine, values) } else { upload_new(machine, &bf16s(values)) }
}

pub(super) fn download_numbers(
    machine: &mut dyn Machine,
    wide: bool,
    address: u64,
    count: usize,
) -> Result<Vec<f32>, Error> {
    if wide {
        return download_vec(machine, address, count);
    }
    let bits: Vec<u16> = download_vec(machine, address, count)?;
    Ok(bits.into_iter().map(bf16_value).collect())
}

/// The rows of head `piece` mod `heads` of sequence `piece` / `heads` in `[B, T, H, width]`.
pub(super) fn rows_of(all: &[f32], [tokens, heads, width]: [usize; 3], piece: usize) -> Vec<f64> {
    let (batch, head) = (piece / heads, piece % heads);
    (0..tokens)
        .flat_map(|t| &all[((batch * tokens + t) * heads + head) * width..][..width])
        .map(|x| f64::from(*x))
        .collect()
}

/// Errors relative to the size of what is compared, ‖x − definition‖ / ‖definition‖; NaN counts as infinite.
pub type Errors = Vec<(&'static str, f64)>;

/// What was compared so far: names, squares of errors and of what was expected.
#[derive(Debug, Default)]
pub(super) struct Comparison(Vec<(&'static str, f64, f64)>);

impl Comparison {
    pub(super) fn add(&mut self, name: &'static str, got: &[f64], expected: &[f64]) {
        let error = got.iter().zip(expected).map(|(g, e)| (g - e).powi(2)).sum::<f64>();
        let size = expected.iter().map(|e| e * e).sum::<f64>();
        match self.0.iter_mut().find(|sum| sum.0 == name) {
            Some(sum) => (sum.1, sum.2) = (sum.1 + error, sum.2 + size),
            None => self.0.push((name, error, size)),
        }
    }

    /// `written`: whether every element was, compared or not.
    pub(super) fn errors(self, written: bool) -> Errors {
        let relative = |(name, error, size): (&'static str, f64, f64)| {
            let error = (error / size.max(1e-30)).sqrt();
            (name, if written && !error.is_nan() { error } else { f64::INFINITY })
        };
        self.0.into_iter().map(relative).collect()
    }
}

/// `compared` of so many walks, the first and the last among them.
pub(super) fn chosen(pieces: usize, compared: usize) -> Vec<usize> {
    let step = pieces.div_ceil(compared.max(1)).max(1);
    let mut chosen: Vec<usize> = (0..pieces).step_by(step).collect();
    if chosen.last() != Some(&(pieces - 1)) {
        chosen.push(pieces - 1);
    }
    chosen
}

/// Random inputs on a machine, and all the memory that the kernels want.
#[derive(Debug)]
pub struct Problem {
    case: Case,
    /// q, k and v side by side as parts of one matrix.
    matrix: Vec<f32>,
    stride: usize,
    g: Vec<f32>,
    beta: Vec<f32>,
    state: Vec<f32>,
    d_out: Vec<f32>,
    d_state_after: Vec<f32>,
    scale: f32,
    inputs: Inputs,
    prepared: Prepared,
    kept: Kept,
    gradients: Gradients,
    buffers: Buffers,
}

#[derive(Debug)]
struct Buffers {
    state: u64,
    state_after: u64,
    out: u64,
    d_out: u64,
    d_state_after: u64,
}

impl Problem {
    /// Draws the inputs and takes the memory.
    pub fn new(machine: &mut dyn Machine, case: Case, seed: u64) -> Result<Self, Error> {
        let shape = case.shape;
        let Shape { batch, tokens, heads, key_heads, key_width, value_width, .. } = shape;
        let mut random = Random::new(seed);
        let (keys, values) = (key_heads * key_width, heads * value_width);
        let stride = (2 * keys + values + 8).next_multiple_of(8);
        let mut matrix = vec![f32::NAN; batch * tokens * stride]; // also between the parts
        for row in matrix.chunks_mut(stride) {
            for head in row[..2 * keys].chunks_mut(key_width) {
                // of length 1, as queries and keys are
                let x = random.many(key_width, -1.0, 1.0);
                let norm = x.iter().map(|x| x * x).sum::<f32>().sqrt();
                for (to, x) in head.iter_mut().zip(x) {
                    *to = rounded(shape.wide, x / norm);
                }
            }
            for to in &mut row[2 * keys..2 * keys + values] {
                *to = rounded(shape.wide, random.uniform(-1.0, 1.0) as f32);
            }
        }
        let rows = case.shape.rows();
        // some decays all but forget, some steps do nothing, some reflect
        let g: Vec<f32> = (0..rows)
            .map(|_| {
                -random.uniform(0.0, 1.0).powi(4) as f32
                    * if random.uniform(0.0, 1.0) < 0.02 { 60.0 } else { 0.5 }
            })
            .collect();
        let beta: Vec<f32> = (0..rows)
            .map(|_| {
                if random.uniform(0.0, 1.0) < 0.05 { 0.0 } else { random.uniform(0.0, 1.6) as f32 }
            })
            .collect();
        let state = random.many(case.shape.state_len(), -0.5, 0.5);
        let d_out = random.many(rows * value_width, -1.0, 1.0);
        let d_out: Vec<f32> = d_out.into_iter().map(|x| rounded(shape.wide, x)).collect();
        let d_state_after = random.many(case.shape.state_len(), -0.5, 0.5);
        let first = upload_numbers(machine, shape.wide, &matrix)?;
        let number = shape.number_bytes();
        let part = |offset: usize| Rows { address: first + (number * offset) as u64, stride };
        let inputs = Inputs {
            q: part(0),
            k: part(keys),
            v: part(2 * keys),
            g: if case.decay { upload_new(machine, &g)? } else { 0 },
            beta: upload_new(machine, &beta)?,
        };
        let mut take = |values: usize, bytes: usize| machine.allocate(values * bytes);
        let prepared = Prepared {
            inverse: take(shape.squares_len(), number)?,
            scores: take(shape.squares_len(), number)?,
            decays: take(shape.decays_len(), 4)?,
        };
        let kept = Kept {
            corrections: take(rows * value_width, number)?,
            states: take(shape.states_len(), number)?,
        };
        let gradients = Gradients {
            q: take(rows * key_width, number)?,
            k: take(rows * key_width, number)?,
            v: take(rows * value_width, number)?,
            g: take(rows, 4)?,
            beta: take(rows, 4)?,
            state: take(shape.state_len(), 4)?,
            states: take(shape.states_len(), number)?,
        };
        let (state_after, out) = (take(shape.state_len(), 4)?, take(rows * value_width, number)?);
        let buffers = Buffers {
            state: upload_new(machine, &state)?,
            state_after,
            out,
            d_out: upload_numbers(machine, shape.wide, &d_out)?,
            d_state_after: upload_new(machine, &d_state_after)?,
        };
        let scale = (key_width as f32).powf(-0.5);
        Ok(Self {
            case,
            matrix,
            stride,
            g: if case.decay { g } else { vec![0.0; rows] },
            beta,
            state,
            d_out,
            d_state_after,
            scale,
            inputs,
            prepared,
            kept,
            gradients,
            buffers,
        })
    }

    /// Factor of the output.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// The launches of the forward pass; `keep` what the backward pass needs.
    pub fn forward(&self, chunked: &Chunked, keep: bool) -> [Launch; 2] {
        [
            chunked.prepare(&self.inputs, &self.prepared),
            chunked.forward(
                &self.inputs,
                &self.prepared,
                self.buffers.state,
                self.buffers.state_after,
                self.buffers.out,
                keep.then_some(&self.kept),
            ),
        ]
    }

    /// The launches of the backward pass, after a forward pass that kept.
    pub fn backward(&self, chunked: &Chunked) -> [Launch; 2] {
        let row = self.case.shape.heads * self.case.shape.value_width;
        let d_out = Rows { address: self.buffers.d_out, stride: row };
        chunked.backward(
            &self.inputs,
            &self.prepared,
            &self.kept,
            d_out,
            self.buffers.d_state_after,
            &self.gradients,
        )
    }

    /// One walk's inputs.
    fn head(&self, piece: usize) -> Head {
        let Shape { tokens, heads, key_heads, key_width, value_width, .. } = self.case.shape;
        let (batch, head) = (piece / heads, piece % heads);
        let key_head = head / (heads / key_heads);
        let part = |offset: usize, width: usize| -> Vec<f64> {
            (0..tokens)
                .flat_map(|t| &self.matrix[(batch * tokens + t) * self.stride + offset..][..width])
                .map(|x| f64::from(*x))
                .collect()
        };
        let keys = key_heads * key_width;
        Head {
            q: part(key_head * key_width, key_width),
            k: part(keys + key_head * key_width, key_width),
            v: part(2 * keys + head * value_width, value_width),
            g: self.rows_of(&self.g, piece, 1),
            beta: self.rows_of(&self.beta, piece, 1),
            state: self.state_of(&self.state, piece),
            scale: f64::from(self.scale),
        }
    }

    /// The rows of one walk in `[B, T, H, width]`.
    fn rows_of(&self, all: &[f32], piece: usize, width: usize) -> Vec<f64> {
        rows_of(all, [self.case.shape.tokens, self.case.shape.heads, width], piece)
    }

    /// One walk's part of `[B, H, K, V]`.
    fn state_of(&self, all: &[f32], piece: usize) -> Vec<f64> {
        let len = self.case.shape.key_width * self.case.shape.value_width;
        all[piece * len..][..len].iter().map(|x| f64::from(*x)).collect()
    }

    /// Runs everything and compares.
    pub fn errors(&self, machine: &mut dyn Machine, chunked: &Chunked) -> Result<Errors, Error> {
        for launch in self.forward(chunked, self.case.backward) {
            machine.launch(&launch)?;
        }
        if self.case.backward {
            for launch in self.backward(chunked) {
                machine.launch(&launch)?;
            }
        }
        let Shape { key_width, value_width, .. } = self.case.shape;
        let (rows, pieces) = (self.case.shape.rows(), self.case.shape.pieces());
        let states = self.case.shape.state_len();
        let (to, delta) = (&self.gradients, self.case.rule == Rule::Delta);
        let shape = self.case.shape;
        let out = download_numbers(machine, shape.wide, self.buffers.out, rows * value_width)?;
        let state: Vec<f32> = download_vec(machine, self.buffers.state_after, states)?;
        let (mut numbers, mut full) = (Vec::new(), Vec::new());
        if self.case.backward {
            for (address, width) in [(to.q, key_width), (to.k, key_width), (to.v, value_width)] {
                numbers.push(download_numbers(machine, shape.wide, address, rows * width)?);
            }
            full.push(download_vec::<f32>(machine, to.state, states)?);
            full.push(download_vec::<f32>(machine, to.g, rows)?);
            if delta {
                full.push(download_vec::<f32>(machine, to.beta, rows)?);
            }
        }
        // Every element must have been written, compared or not.
        let all = [&out, &state].into_iter().chain(&numbers).chain(&full);
        let written = all.flatten().all(|x| x.is_finite());
        let mut comparison = Comparison::default();
        let mut compare = |name: &'static str, got: &[f64], expected: &[f64]| {
            comparison.add(name, got, expected);
        };
        for piece in chosen(pieces, self.case.compared) {
            let head = self.head(piece);
            let (expected_out, expected_state) = head.forward(self.case.rule);
            compare("out", &self.rows_of(&out, piece, value_width), &expected_out);
            compare("state", &self.state_of(&state, piece), &expected_state);
            if !self.case.backward {
                continue;
            }
            let d_out = self.rows_of(&self.d_out, piece, value_width);
            let d_state = self.state_of(&self.d_state_after, piece);
            let d = head.backward(self.case.rule, &d_out, &d_state);
            compare("dq", &self.rows_of(&numbers[0], piece, key_width), &d.q);
            compare("dk", &self.rows_of(&numbers[1], piece, key_width), &d.k);
            compare("dv", &self.rows_of(&numbers[2], piece, value_width), &d.v);
            compare("dstate", &self.state_of(&full[0], piece), &d.state);
            compare("dg", &self.rows_of(&full[1], piece, 1), &d.g);
            if delta {
                compare("dbeta", &self.rows_of(&full[2], piece, 1), &d.beta);
            }
        }
        Ok(comparison.errors(written))
    }

    /// Gives the memory back.
    pub fn free(self, machine: &mut dyn Machine) -> Result<(), Error> {
        let (i, p, k, g, b) = (self.inputs, self.prepared, self.kept, self.gradients, self.buffers);
        let all = [
            i.q.address,
            i.g,
            i.beta,
            p.inverse,
            p.scores,
            p.decays,
            k.corrections,
            k.states,
            g.q,
            g.k,
            g.v,
            g.g,
            g.beta,
            g.state,
            g.states,
            b.state,
            b.state_after,
            b.out,
            b.d_out,
            b.d_state_after,
        ];
        all.into_iter()
            .filter(|address| *address != 0)
            .try_for_each(|address| machine.free(address))
    }
}
