//! The recurrence on a machine against the definitions. The same for the emulator and for a GPU.

use super::{Decay, RecurrentStep, Rule};
use crate::activation::{sigmoid, softplus};
use crate::cuda::chunked::Rows;
use crate::cuda::random::{Random, bf16s};
use crate::cuda::{Error, Launch, Machine, bf16_value, download_vec, upload_new};
use crate::norm::l2_norm_definition;
use crate::{delta_rule, kda, linear_attention};

/// Random inputs on a machine, and all the memory that the kernel wants.
#[derive(Debug)]
pub struct Problem {
    step: RecurrentStep,
    largest_beta: f32,
    x: Vec<u16>,
    b: Vec<u16>,
    raw: Vec<u16>,
    /// `A_log`, `dt_bias`, D.
    vectors: [Vec<f32>; 3],
    state: Vec<f32>,
    rows: [Rows; 2],
    decay: Option<Decay>,
    skip: u64,
    state_at: u64,
    out: u64,
    memory: Vec<u64>,
}

fn strided(random: &mut Random, rows: usize, columns: usize) -> (Vec<u16>, usize) {
    let stride = (columns + 8).next_multiple_of(8);
    let mut all = vec![0x7fc0; rows * stride]; // NaN between the rows
    for row in all.chunks_mut(stride) {
        row[..columns].copy_from_slice(&bf16s(&random.many(columns, -1.0, 1.0)));
    }
    (all, stride)
}

impl Problem {
    /// Draws the inputs and takes the memory.
    pub fn new(
        machine: &mut dyn Machine,
        step: RecurrentStep,
        decay: bool,
        largest_beta: f32,
        seed: u64,
    ) -> Result<Self, Error> {
        let mut random = Random::new(seed);
        let RecurrentStep { rule, batch, heads, key_width, value_width, .. } = step;
        let decays = if rule == Rule::Kda { heads * key_width } else { heads };
        let (x, x_stride) = strided(&mut random, batch, step.row());
        let (b, b_stride) = strided(&mut random, batch, step.steps() * heads);
        let (raw, raw_stride) = strided(&mut random, batch, decays);
        let vectors = [
            random.many(heads, -1.0, 1.0),
            random.many(decays, -2.0, 1.0),
            random.many(heads, -1.0, 1.0),
        ];
        // of many sequences the state repeats: drawing billions takes long
        let drawn = random.many(step.state_len().min((1 << 20) + 7), -0.5, 0.5);
        let state: Vec<f32> = drawn.iter().copied().cycle().take(step.state_len()).collect();
        let mut memory = Vec::new();
        let mut keep =
            |address: Result<u64, Error>| address.inspect(|address| memory.push(*address));
        let rows = [
            Rows { address: keep(upload_new(machine, &x))?, stride: x_stride },
            Rows { address: keep(upload_new(machine, &b))?, stride: b_stride },
        ];
        let raw_at = Rows { address: keep(upload_new(machine, &raw))?, stride: raw_stride };
        let a_log = keep(upload_new(machine, &vectors[0]))?;
        let dt_bias = keep(upload_new(machine, &vectors[1]))?;
        let skip = keep(upload_new(machine, &vectors[2]))?;
        let state_at = keep(upload_new(machine, &state))?;
        let out = keep(machine.allocate(batch * heads * value_width * 2))?;
        let decay = decay.then_some(Decay { raw: raw_at, a_log, dt_bias });
        Ok(Self {
            step,
            largest_beta,
            x,
            b,
            raw,
            vectors,
            state,
            rows,
            decay,
            skip,
            state_at,
            out,
            memory,
        })
    }

    fn scale(&self) -> f32 {
        (self.step.key_width as f32).powf(-0.5)
    }

    /// The launch.
    pub fn launch(&self) -> Launch {
        let [x, b] = self.rows;
        if let (Rule::Mamba2, Some(dt)) = (self.step.rule, self.decay) {
            return self.step.mamba2(x, dt, self.skip, self.state_at, self.out);
        }
        if let (Rule::Kda, Some(decay)) = (self.step.rule, self.decay) {
            return self.step.kda(x, b, decay, self.scale(), self.state_at, self.out);
        }
        let factors = [self.largest_beta, self.scale()];
        self.step.delta(x, b, self.decay, factors, self.state_at, self.out)
    }

    /// One head's output and state after the token.
    fn definition(&self, batch: usize, head: usize) -> (Vec<f64>, Vec<f64>) {
        let RecurrentStep { rule, heads, key_heads, key_width, value_width, .. } = self.step;
        let x = &self.x[batch * self.rows[0].stride..];
        let part = |at: usize, width: usize| -> Vec<f64> {
            x[at..at + width].iter().map(|x| f64::from(bf16_value(*x))).collect()
        };
        let len = key_width * value_width;
        let mut state: Vec<f64> = self.state[(batch * heads + head) * len..][..len]
            .iter()
            .map(|x| f64::from(*x))
            .collect();
        if let (Rule::Kda, Some(decay)) = (self.step.rule, self.decay) {
            let normed = |at: usize| l2_norm_definition(&part(at + head * key_width, key_width));
            let keys = heads * key_width;
            let rate = f64::from(self.vectors[0][head]).exp();
            let g: Vec<f64> = (head * key_width..(head + 1) * key_width)
                .map(|c| {
                    let raw = f64::from(bf16_value(self.raw[batch * decay.raw.stride + c]));
                    -rate * softplus(raw + f64::from(self.vectors[1][c]))
                })
                .collect();
            let beta = sigmoid(f64::from(bf16_value(self.b[batch * self.rows[1].stride + head])));
            let v = part(2 * keys + head * value_width, value_width);
            let scale = f64::from(self.scale());
            let o = kda::definition(&normed(0), &normed(keys), &v, &g, &[beta], scale, &mut state);
            return (o, state);
        }
        let [a_log, dt_bias, skip] = self.vectors.each_ref().map(|v| f64::from(v[head]));
        let dt = self.decay.map_or(0.0, |decay| {
            let raw = f64::from(bf16_value(self.raw[batch * decay.raw.stride + head]));
            softplus(raw + dt_bias)
        });
        let g = -a_log.exp() * dt;
        let (keys, values) = (key_heads * key_width, heads * value_width);
        match rule {
            Rule::Kda => unreachable!("its decays are there, above"),
            Rule::Mamba2 => {
                let (x, b, c) = (
                    part(head * value_width, value_width),
                    part(values, key_width),
                    part(values + key_width, key_width),
                );
                let v: Vec<f64> = x.iter().map(|x| x * dt).collect();
                let o = linear_attention::definition(&c, &b, &v, &[g], 1.0, &mut state);
                (o.iter().zip(x).map(|(o, x)| o + skip * x).collect(), state)
            }
            Rule::Delta(steps) => {
                let key_head = head / (heads / key_heads);
                let normed =
                    |at: usize| l2_norm_definition(&part(at + key_head * key_width, key_width));
                let k: Vec<f64> = (0..steps).flat_map(|j| normed((1 + j) * keys)).collect();
                let v_at = |j: usize| (1 + steps) * keys + j * values + head * value_width;
                let v: Vec<f64> = (0..steps).flat_map(|j| part(v_at(j), value_width)).collect();
                let q: Vec<f64> = (0..steps).flat_map(|_| normed(0)).collect();
                let mut decay = vec![0.0; steps];
                decay[0] = g;
                let raw = |j: usize| self.b[batch * self.rows[1].stride + j * heads + head];
                let beta: Vec<f64> = (0..steps)
                    .map(|j| f64::from(self.largest_beta) * sigmoid(f64::from(bf16_value(raw(j)))))
                    .collect();
                let scale = f64::from(self.scale());
                let o = delta_rule::definition(&q, &k, &v, &decay, &beta, scale, &mut state);
                (o[(steps - 1) * value_width..].to_vec(), state)
            }
        }
    }

    /// Runs it and compares every head of the first and the last `compared` sequences: errors relative to the size of what
    /// is compared, of the output and of the state.
    pub fn errors(&self, machine: &mut dyn Machine, compared: usize) -> Result<[f64; 2], Error> {
        let RecurrentStep { batch, heads, key_width, value_width, .. } = self.step;
        machine.launch(&self.launch())?;
        let out: Vec<u16> = download_vec(machine, self.out, batch * heads * value_width)?;
        let state: Vec<f32> = download_vec(machine, self.state_at, self.step.state_len())?;
        let written =
            out.iter().all(|x| bf16_value(*x).is_finite()) && state.iter().all(|x| x.is_finite());
        let mut sums = [[0.0; 2]; 2];
        let mut compare = |which: usize, got: f64, expected: f64| {
            sums[which][0] += (got - expected).powi(2);
            sums[which][1] += expected.powi(2);
        };
        for piece in 0..batch * heads {
            let sequence = piece / heads;
            if sequence >= compared && sequence + compared < batch {
                continue;
            }
            let (expected_out, expected_state) = self.definition(sequence, piece % heads);
            for (got, expected) in out[piece * value_width..].iter().zip(expected_out) {
                compare(0, f64::from(bf16_value(*got)), expected);
            }
            for (got, expected) in
                state[piece * key_width * value_width..].iter().zip(expected_state)
            {
                compare(1, f64::from(*got), expected);
            }
        }
        Ok(sums.map(|[error, size]| {
            let error = (error / f64::max(size, 1e-30)).sqrt();
            if written && !error.is_nan() { error } else { f64::INFINITY }
        }))
    }

    /// Gives the memory back.
    pub fn free(self, machine: &mut dyn Machine) -> Result<(), Error> {
        self.memory.into_iter().try_for_each(|address| machine.free(address))
    }
}
