//! Kimi Delta Attention.

use kernels::activation::{sigmoid, softplus};
use kernels::cuda::decode::Storage;
use kernels::kda;
use kernels::norm::{RMS_EPS, l2_norm_definition, rms_norm_definition};
use search::architecture::Kda;

use super::weights::{Convolution, Keep, product, wide};
use crate::cuda::shapes::{Load, kda_extents};

#[derive(Debug)]
pub(super) struct Token {
    shape: Kda,
    /// q, k, v together, then b: `[rows, d]` each.
    projections: [Vec<f32>; 2],
    /// To the decays and to the gate, each in two: `[rank, d]`, `[rows, rank]`.
    low_rank: [[Vec<f32>; 2]; 2],
    out: Vec<f32>,
    convolution: Convolution,
    a_log: Vec<f64>,
    dt_bias: Vec<f64>,
    norm: Vec<f64>,
    /// Of each head, `[K, V]`.
    states: Vec<Vec<f64>>,
}

impl Token {
    pub(super) fn new(shape: &Kda, d: usize, (storage, load): (Storage, Load)) -> Self {
        let [heads, key_width, value_width, rank] = kda_extents(shape);
        let (keys, values) = (heads * key_width, heads * value_width);
        let parts = [("q", keys), ("k", keys), ("v", values)];
        let all = |load: Load, of: &str, inputs: usize| -> Vec<f32> {
            parts
                .iter()
                .flat_map(|(name, rows)| load(&format!("{name}{of}"), rows * inputs))
                .collect()
        };
        let mut matrix = |name: &str, rows: usize, columns: usize| {
            storage.kept(load(name, rows * columns), columns)
        };
        let low_rank = [
            [matrix("f_a.weight", rank, d), matrix("f_b.weight", keys, rank)],
            [matrix("g_a.weight", rank, d), matrix("g_b.weight", values, rank)],
        ];
        Self {
            shape: *shape,
            projections: [
                storage.kept(all(load, ".weight", d), d),
                storage.kept(load("b.weight", heads * d), d),
            ],
            low_rank,
            out: storage.kept(load("o.weight", d * values), values),
            convolution: Convolution::new(wide(&all(load, "_conv.weight", 4)), None),
            a_log: wide(&load("A_log", heads)),
            dt_bias: wide(&load("dt_bias", keys)),
            norm: wide(&load("norm.weight", value_width)),
            states: vec![vec![0.0; key_width * value_width]; heads],
        }
    }
}

impl super::token::Token for Token {
    fn step(&mut self, u: &[f64], _: usize, keep: Keep) -> Vec<f64> {
        let [heads, key_width, value_width, _] = kda_extents(&self.shape);
        let keys = heads * key_width;
        let [qkv, b] = [0, 1].map(|m| keep(product(&self.projections[m], u)));
        let [raw, gate] = [0, 1].map(|m| {
            let [down, up] = &self.low_rank[m];
            keep(product(up, &keep(product(down, u))))
        });
        let c = self.convolution.step(&qkv, keep);
        let mut y = Vec::new();
        for head in 0..heads {
            let normed =
                |at: usize| keep(l2_norm_definition(&c[at + head * key_width..][..key_width]));
            let g: Vec<f64> = (head * key_width..(head + 1) * key_width)
                .map(|c| -self.a_log[head].exp() * softplus(raw[c] + self.dt_bias[c]))
                .collect();
            let (q, k) = (normed(0), normed(keys));
            let v = &c[2 * keys + head * value_width..][..value_width];
            let beta = sigmoid(b[head]);
            let scale = (key_width as f64).powf(-0.5);
            let o = kda::definition(&q, &k, v, &g, &[beta], scale, &mut self.states[head]);
            y.extend(rms_norm_definition(&keep(o), &self.norm, RMS_EPS));
        }
        y.iter_mut().zip(gate).for_each(|(y, gate)| *y *= sigmoid(gate));
        product(&self.out, &keep(y))
    }
}
