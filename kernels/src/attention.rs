//! Causal softmax attention, over the whole past or over a sliding window.

pub mod cpu;
pub mod prefill;
pub mod train;

use crate::cpu::{Simd, vector};

/// A softmax over blocks of keys, as far as it has come (arXiv 2205.14135, alg. 1): the largest score, and the sum of the
/// exponentials of the scores less it.
#[derive(Debug, Clone, Copy)]
struct Running {
    largest: f32,
    sum: f32,
}

impl Running {
    const BEGIN: Self = Self { largest: f32::NEG_INFINITY, sum: 0.0 };

    /// Takes further scores and leaves their exponentials in their place; what `o` has summed so far is brought to the
    /// new largest score.
    #[inline(always)]
    fn take<S: Simd>(&mut self, s: S, scores: &mut [f32], o: &mut [f32]) {
        let largest = self.largest.max(vector::largest(s, scores));
        let shrink = (self.largest - largest).exp();
        self.largest = largest;
        self.sum = self.sum * shrink + vector::exp_and_sum(s, largest, scores);
        if shrink < 1.0 {
            vector::scale(s, shrink, o);
        }
    }
}

/// Causal softmax attention of one head (arXiv 1706.03762, eq. 1), over the last `window` positions, the current one
/// included (arXiv 2004.05150), or over all of them:
///
/// o_t = Σ_s softmax_s(scale · q_t·k_s) v_s,  s in [max(0, t − window + 1), t].
///
/// * `q`, `k`: `[T, K]`, `v`: `[T, V]`, T = `tokens`
///
/// Returns o, `[T, V]`.
pub fn definition(
    q: &[f64],
    k: &[f64],
    v: &[f64],
    tokens: usize,
    window: Option<usize>,
    scale: f64,
) -> Vec<f64> {
    if tokens == 0 {
        return Vec::new();
    }
    let (key_width, value_width) = (k.len() / tokens, v.len() / tokens);
    assert_eq!(q.len(), tokens * key_width, "attention: q must be [T, K] as k is");
    assert_ne!(window, Some(0), "attention: a window holds the current position at least");
    (0..tokens)
        .flat_map(|t| {
            let first = window.map_or(0, |w| (t + 1).saturating_sub(w));
            let seen = |x: &[f64], width: usize| x[first * width..(t + 1) * width].to_vec();
            let q = &q[t * key_width..][..key_width];
            definition_of_row(q, &seen(k, key_width), &seen(v, value_width), scale)
        })
        .collect()
}

/// The output of one position that sees all of `k` `[S, K]` and `v` `[S, V]`, which hold at least one.
pub fn definition_of_row(q: &[f64], k: &[f64], v: &[f64], scale: f64) -> Vec<f64> {
    let score = |k: &[f64]| scale * q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>();
    let scores: Vec<f64> = k.chunks_exact(q.len()).map(score).collect();
    let largest = scores.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
    let sum: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
    let mut o = vec![0.0; v.len() / scores.len()];
    let width = o.len();
    for (score, v) in scores.iter().zip(v.chunks_exact(width)) {
        let weight = (score - largest).exp() / sum;
        o.iter_mut().zip(v).for_each(|(o, v)| *o += weight * v);
    }
    o
}
