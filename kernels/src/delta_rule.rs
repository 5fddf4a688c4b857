//! The gated delta rule, which carries DeltaNet (g = 0), Gated DeltaNet and DeltaProduct.

pub mod cpu;
pub mod prefill;
pub mod train;

use crate::cpu::{Simd, vector};

/// The gated delta rule of one head, position by position (Gated DeltaNet, arXiv 2412.06464, eq. 10; with g = 0
/// DeltaNet, arXiv 2406.06484, eq. 2):
///
/// S ← e^{g_t} S;  S ← S + β_t k_t (v_t − Sᵀ k_t)ᵀ;  o_t = scale · Sᵀ q_t.
///
/// * `q`, `k`: `[T, K]`, `v`: `[T, V]`, `g` (logarithm of the decay, ≤ 0) and `beta`: `[T]`
/// * `state`: S, `[K, V]`, read and left as it is after the last position
///
/// Returns o, `[T, V]`.
pub fn definition(
    q: &[f64],
    k: &[f64],
    v: &[f64],
    g: &[f64],
    beta: &[f64],
    scale: f64,
    state: &mut [f64],
) -> Vec<f64> {
    let tokens = g.len();
    if tokens == 0 {
        return Vec::new();
    }
    let (key_width, value_width) = (k.len() / tokens, v.len() / tokens);
    assert_eq!(q.len(), tokens * key_width, "delta rule: q must be [T, K] as k is");
    assert_eq!(beta.len(), tokens, "delta rule: beta must be [T] as g is");
    assert_eq!(state.len(), key_width * value_width, "delta rule: the state must be [K, V]");
    let mut o = vec![0.0; tokens * value_width];
    for t in 0..tokens {
        let (q_t, k_t) = (&q[t * key_width..][..key_width], &k[t * key_width..][..key_width]);
        let decay = g[t].exp();
        for s in state.iter_mut() {
            *s *= decay;
        }
        for j in 0..value_width {
            let read: f64 = (0..key_width).map(|i| state[i * value_width + j] * k_t[i]).sum();
            let delta = beta[t] * (v[t * value_width + j] - read);
            for i in 0..key_width {
                state[i * value_width + j] += k_t[i] * delta;
            }
            let read: f64 = (0..key_width).map(|i| state[i * value_width + j] * q_t[i]).sum();
            o[t * value_width + j] = scale * read;
        }
    }
    o
}

/// out_j ← factor · γ_j · score_j
#[inline(always)]
fn weighed<S: Simd>(s: S, factor: f32, gamma: &[f32], scores: &[f32], out: &mut [f32]) {
    let factor = s.splat(factor);
    vector::combine(
        s,
        gamma,
        scores,
        out,
        #[inline(always)]
        |gamma, score| s.mul(factor, s.mul(gamma, score)),
    );
}
