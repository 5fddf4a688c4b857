//! The kernels on a machine against the definition: random inputs, every output compared. The same for the emulator and
//! for a GPU.

use super::{Inputs, Kda, Prepared, Shape};
use crate::activation::softplus;
use crate::cuda::chunked::Rows;
use crate::cuda::random::{Random, bf16s};
use crate::cuda::step::Decay;
use crate::cuda::{Error, Launch, Machine, bf16_value, download_vec, upload_new};
use crate::kda;

/// Random inputs on a machine, and all the memory that the kernels want.
#[derive(Debug)]
pub struct Problem {
    shape: Shape,
    /// q, k, v and f side by side as parts of one matrix.
    matrix: Vec<u16>,
    stride: usize,
    a_log: Vec<f32>,
    dt_bias: Vec<f32>,
    beta: Vec<f32>,
    state: Vec<f32>,
    inputs: Inputs,
    prepared: Prepared,
    state_at: u64,
    state_after: u64,
    out: u64,
    memory: Vec<u64>,
}

impl Problem {
    /// Draws the inputs and takes the memory.
    pub fn new(machine: &mut dyn Machine, shape: Shape, seed: u64) -> Result<Self, Error> {
        let Shape { batch, tokens, heads, key_width, value_width } = shape;
        let mut random = Random::new(seed);
        let (keys, values) = (heads * key_width, heads * value_width);
        let stride = (3 * keys + values + 8).next_multiple_of(8);
        let mut matrix = vec![0x7fc0; batch * tokens * stride]; // NaN between the parts
        for row in matrix.chunks_mut(stride) {
            for head in row[..2 * keys].chunks_mut(key_width) {
                // of length 1, as queries and keys are
                let x = random.many(key_width, -1.0, 1.0);
                let norm = x.iter().map(|x| x * x).sum::<f32>().sqrt();
                let x: Vec<f32> = x.into_iter().map(|x| x / norm).collect();
                head.copy_from_slice(&bf16s(&x));
            }
            let v = bf16s(&random.many(values, -1.0, 1.0));
            row[2 * keys..2 * keys + values].copy_from_slice(&v);
            // some channels of some positions forget all, most keep nearly all
            let f: Vec<f32> = (0..keys)
                .map(|_| match random.uniform(0.0, 1.0) {
                    x if x < 0.02 => 200.0,
                    x if x < 0.5 => -6.0 - x as f32,
                    x => 2.0 * x as f32,
                })
                .collect();
            row[2 * keys + values..3 * keys + values].copy_from_slice(&bf16s(&f));
        }
        let a_log = random.many(heads, -1.0, 1.0);
        let dt_bias = random.many(keys, -1.0, 1.0);
        let beta: Vec<f32> = (0..batch * tokens * heads)
            .map(|_| match random.uniform(-0.05, 1.0) {
                x if x < 0.0 => 0.0,
                x => x as f32,
            })
            .collect();
        let state = random.many(shape.state_len(), -0.5, 0.5);
        let mut memory = Vec::new();
        let mut keep =
            |address: Result<u64, Error>| address.inspect(|address| memory.push(*address));
        let first = keep(upload_new(machine, &matrix))?;
        let part = |offset: usize| Rows { address: first + 2 * offset as u64, stride };
        let decay = Decay {
            raw: part(2 * keys + values),
            a_log: keep(upload_new(machine, &a_log))?,
            dt_bias: keep(upload_new(machine, &dt_bias))?,
        };
        let beta_at = keep(upload_new(machine, &beta))?;
        let inputs = Inputs { q: part(0), k: part(keys), v: part(2 * keys), decay, beta: beta_at };
        let mut take = |bytes: usize| keep(machine.allocate(bytes));
        let rows = batch * tokens;
        let prepared = Prepared {
            queries: take(2 * rows * keys)?,
            keys: take(2 * rows * keys)?,
            keys_after: take(2 * rows * keys)?,
            inverse: take(2 * shape.squares_len())?,
            scores: take(2 * shape.squares_len())?,
            decays: take(4 * shape.decays_len())?,
        };
        let (state_after, out) = (take(4 * shape.state_len())?, take(2 * rows * values)?);
        let state_at = keep(upload_new(machine, &state))?;
        Ok(Self {
            shape,
            matrix,
            stride,
            a_log,
            dt_bias,
            beta,
            state,
            inputs,
            prepared,
            state_at,
            state_after,
            out,
            memory,
        })
    }

    /// Factor of the output.
    pub fn scale(&self) -> f32 {
        (self.shape.key_width as f32).powf(-0.5)
    }

    /// The launches.
    pub fn launches(&self, kda: &Kda) -> [Launch; 2] {
        let states = (self.state_at, self.state_after);
        [
            kda.prepare(&self.inputs, &self.prepared),
            kda.forward(&self.inputs, &self.prepared, states, self.out),
        ]
    }

    /// One head's output and state after the last position.
    fn definition(&self, piece: usize) -> (Vec<f64>, Vec<f64>) {
        let Shape { tokens, heads, key_width, value_width, .. } = self.shape;
        let (batch, head) = (piece / heads, piece % heads);
        let (keys, values) = (heads * key_width, heads * value_width);
        let part = |offset: usize, width: usize| -> Vec<f64> {
            (0..tokens)
                .flat_map(|t| &self.matrix[(batch * tokens + t) * self.stride + offset..][..width])
                .map(|x| f64::from(bf16_value(*x)))
                .collect()
        };
        let rate = f64::from(self.a_log[head]).exp();
        let biases = &self.dt_bias[head * key_width..][..key_width];
        let g: Vec<f64> = part(2 * keys + values + head * key_width, key_width)
            .iter()
            .zip(biases.iter().cycle())
            .map(|(f, bias)| -rate * softplus(f + f64::from(*bias)))
            .collect();
        let beta: Vec<f64> = (0..tokens)
            .map(|t| f64::from(self.beta[(batch * tokens + t) * heads + head]))
            .collect();
        let len = key_width * value_width;
        let mut state: Vec<f64> =
            self.state[piece * len..][..len].iter().map(|x| f64::from(*x)).collect();
        let o = kda::definition(
            &part(head * key_width, key_width),
            &part(keys + head * key_width, key_width),
            &part(2 * keys + head * value_width, value_width),
            &g,
            &beta,
            f64::from(self.scale()),
            &mut state,
        );
        (o, state)
    }

    /// Runs it and compares the first and the last `compared` heads: errors of output and state, relative to the size of
    /// what is compared; NaN counts as infinite, wherever it stands.
    pub fn errors(
        &self,
        machine: &mut dyn Machine,
        kda: &Kda,
        compared: usize,
    ) -> Result<Vec<(&'static str, f64)>, Error> {
        for launch in self.launches(kda) {
            machine.launch(&launch)?;
        }
        let Shape { batch, tokens, heads, key_width, value_width } = self.shape;
        let out: Vec<u16> = download_vec(machine, self.out, batch * tokens * heads * value_width)?;
        let state: Vec<f32> = download_vec(machine, self.state_after, self.shape.state_len())?;
        let written =
            out.iter().all(|x| bf16_value(*x).is_finite()) && state.iter().all(|x| x.is_finite());
        let mut sums = [[0.0; 2]; 2];
        let mut compare = |which: usize, got: f64, expected: f64| {
            sums[which][0] += (got - expected).powi(2);
            sums[which][1] += expected.powi(2);
        };
        let pieces = batch * heads;
        for piece in (0..pieces).filter(|piece| *piece < compared || piece + compared >= pieces) {
            let (expected_out, expected_state) = self.definition(piece);
            for (t, row) in expected_out.chunks_exact(value_width).enumerate() {
                let at = ((piece / heads * tokens + t) * heads + piece % heads) * value_width;
                for (got, expected) in out[at..].iter().zip(row) {
                    compare(0, f64::from(bf16_value(*got)), *expected);
                }
            }
            let len = key_width * value_width;
            for (got, expected) in state[piece * len..].iter().zip(expected_state) {
                compare(1, f64::from(*got), expected);
            }
        }
        let relative = |[error, size]: [f64; 2]| {
            let error = (error / f64::max(size, 1e-30)).sqrt();
            if written && !error.is_nan() { error } else { f64::INFINITY }
        };
        Ok(vec![("out", relative(sums[0])), ("state", relative(sums[1]))])
    }

    /// Gives the memory back.
    pub fn free(self, machine: &mut dyn Machine) -> Result<(), Error> {
        self.memory.into_iter().try_for_each(|address| machine.free(address))
    }
}
