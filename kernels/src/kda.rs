//! Kimi Delta Attention: the delta rule with a decay for each channel of the keys.

pub mod cpu;
pub mod train;

/// Kimi Delta Attention of one head, position by position (Kimi Linear, arXiv 2510.26692, eq. 1):
///
/// S ← Diag(e^{g_t}) S;  S ← S + β_t k_t (v_t − Sᵀ k_t)ᵀ;  o_t = scale · Sᵀ q_t.
///
/// With equal decays in all channels it is the gated delta rule ([`crate::delta_rule::definition`]).
///
/// * `q`, `k`, `g` (logarithms of the decays, ≤ 0): `[T, K]`, `v`: `[T, V]`, `beta`: `[T]`
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
    let tokens = beta.len();
    if tokens == 0 {
        return Vec::new();
    }
    let (key_width, value_width) = (k.len() / tokens, v.len() / tokens);
    assert_eq!(q.len(), tokens * key_width, "KDA: q must be [T, K] as k is");
    assert_eq!(g.len(), tokens * key_width, "KDA: g must be [T, K] as k is");
    assert_eq!(state.len(), key_width * value_width, "KDA: the state must be [K, V]");
    let mut o = vec![0.0; tokens * value_width];
    for t in 0..tokens {
        let row = |x: &[f64]| x[t * key_width..][..key_width].to_vec();
        let (q_t, k_t, g_t) = (row(q), row(k), row(g));
        for (row, g) in state.chunks_exact_mut(value_width).zip(g_t) {
            for s in row {
                *s *= g.exp();
            }
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
