//! Attention over all positions or a window.

use kernels::activation::sigmoid;
use kernels::cuda::decode::Storage;
use kernels::norm::{RMS_EPS, rms_norm_definition};
use kernels::rope;
use search::architecture::{Attention, Phases, QkNorm};

use super::phases::Angles;
use super::weights::{Keep, bf16, product, wide};
use crate::cuda::shapes::Load;

#[derive(Debug)]
pub(super) struct Token {
    shape: Attention,
    /// q, k and v, `[rows, d]` each.
    projections: [Vec<f32>; 3],
    out: Vec<f32>,
    gate: Option<Vec<f32>>,
    /// Of q and of k, of one head or of all.
    norms: Option<[Vec<f64>; 2]>,
    angles: Option<Angles>,
    /// Keys and values of each KV head, `[T, K]`.
    cache: Vec<[Vec<f64>; 2]>,
}

impl Token {
    pub(super) fn new(
        shape: &Attention,
        phases: Option<Phases>,
        d: usize,
        (storage, load): (Storage, Load),
    ) -> Self {
        let [heads, kv_heads, width] =
            [shape.heads, shape.kv_heads, shape.head_width].map(|n| n as usize);
        let rows = [("q.weight", heads), ("k.weight", kv_heads), ("v.weight", kv_heads)];
        Self {
            shape: *shape,
            projections: rows.map(|(name, rows)| storage.kept(load(name, rows * width * d), d)),
            out: storage.kept(load("o.weight", d * heads * width), heads * width),
            gate: shape.output_gate.then(|| storage.kept(load("g.weight", heads * width * d), d)),
            norms: (shape.qk_norm != QkNorm::None).then(|| {
                let whole = shape.qk_norm == QkNorm::Whole;
                let [of_q, of_k] = if whole { [heads, kv_heads] } else { [1, 1] };
                [("q_norm.weight", of_q), ("k_norm.weight", of_k)]
                    .map(|(name, heads)| wide(&load(name, heads * width)))
            }),
            angles: phases.map(|phases| Angles::new(phases, d, (storage, load))),
            cache: vec![[Vec::new(), Vec::new()]; kv_heads],
        }
    }
}

impl super::token::Token for Token {
    fn step(&mut self, u: &[f64], position: usize, keep: Keep) -> Vec<f64> {
        let [heads, kv_heads, width] =
            [self.shape.heads, self.shape.kv_heads, self.shape.head_width].map(|n| n as usize);
        let [mut q, mut k, v] = [0, 1, 2].map(|m| keep(product(&self.projections[m], u)));
        if let Some(angles) = &mut self.angles {
            angles.step(u, keep);
            for (head, q) in q.chunks_exact_mut(width).enumerate() {
                angles.turn(q, head * kv_heads / heads);
            }
            for (head, k) in k.chunks_exact_mut(width).enumerate() {
                angles.turn(k, head);
            }
        }
        if let Some([of_q, of_k]) = &self.norms {
            q = rms_norm_definition(&q, of_q, RMS_EPS);
            k = rms_norm_definition(&k, of_k, RMS_EPS);
        }
        for row in q.chunks_exact_mut(width).chain(k.chunks_exact_mut(width)) {
            let (turned, theta) =
                (self.shape.rotary_width() as usize, self.shape.rope_theta.into());
            rope::partial_definition(row, width, turned, position, theta);
        }
        let (q, k, v) = (keep(q), bf16(k), bf16(v));
        for (i, [keys, values]) in self.cache.iter_mut().enumerate() {
            keys.extend(&k[i * width..][..width]);
            values.extend(&v[i * width..][..width]);
        }
        let window = self.shape.window.map(|w| w as usize);
        let first = window.map_or(0, |w| (position + 1).saturating_sub(w));
        let mut y = Vec::new();
        for head in 0..heads {
            let q = &q[head * width..][..width];
            let [keys, values] = &self.cache[head * kv_heads / heads];
            let score = |s: usize| -> f64 {
                keys[s * width..][..width].iter().zip(q).map(|(k, q)| k * q).sum::<f64>()
                    * (width as f64).powf(-0.5)
            };
            let scores: Vec<f64> = (first..=position).map(score).collect();
            let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
            let total: f64 = weights.iter().sum();
            y.extend((0..width).map(|c| {
                let value = |(i, w): (usize, &f64)| w * values[(first + i) * width + c];
                weights.iter().enumerate().map(value).sum::<f64>() / total
            }));
        }
        if let Some(gate) = &self.gate {
            let gate = keep(product(gate, u));
            y = keep(y);
            y.iter_mut().zip(gate).for_each(|(y, gate)| *y *= sigmoid(gate));
        }
        product(&self.out, &keep(y))
    }
}
