//! Linear attention with a scalar gate per head and position: the core of Mamba2.

pub mod cpu;
pub mod prefill;
pub mod train;

/// Scalar-gated linear attention of one head, position by position (the recurrence of arXiv 2405.21060, eq. 1–2, in
/// the letters of attention; arXiv 2312.06635 with a scalar gate):
///
/// S ← e^{g_t} S + k_t v_tᵀ;  o_t = scale · Sᵀ q_t.
///
/// Mamba2 is q = C, k = B, v = dt·x, g = dt·A, scale 1, and D·x added to the result.
///
/// * `q`, `k`: `[T, K]`, `v`: `[T, V]`, `g` (logarithm of the decay, ≤ 0): `[T]`
/// * `state`: S, `[K, V]`, read and left as it is after the last position
///
/// Returns o, `[T, V]`.
pub fn definition(
    q: &[f64],
    k: &[f64],
    v: &[f64],
    g: &[f64],
    scale: f64,
    state: &mut [f64],
) -> Vec<f64> {
    let tokens = g.len();
    if tokens == 0 {
        return Vec::new();
    }
    let (key_width, value_width) = (k.len() / tokens, v.len() / tokens);
    assert_eq!(q.len(), tokens * key_width, "linear attention: q must be [T, K] as k is");
    assert_eq!(state.len(), key_width * value_width, "linear attention: the state must be [K, V]");
    let mut o = vec![0.0; tokens * value_width];
    for t in 0..tokens {
        let decay = g[t].exp();
        for i in 0..key_width {
            for j in 0..value_width {
                let s = &mut state[i * value_width + j];
                *s = decay * *s + k[t * key_width + i] * v[t * value_width + j];
                o[t * value_width + j] += scale * q[t * key_width + i] * *s;
            }
        }
    }
    o
}
