//! Log-linear attention (arXiv 2506.04761): the past of a position is cut into O(log T) pieces by a Fenwick tree, and
//! what the read finds in each piece is weighed by a scale of that position and piece.
//!
//! The training forms are with the rules that they are of: [`crate::linear_attention::train::forward_log_linear`],
//! [`crate::delta_rule::train::log_linear`].

pub(crate) mod chunks;

pub use chunks::Lambda;

/// The piece of `past` seen from `position`: 0 for the position itself, else the number of bits of their exclusive or,
/// and at most `levels` − 1, so that a state of that many levels serves any length.
pub fn level(position: usize, past: usize, levels: usize) -> usize {
    let bits = usize::BITS - (position ^ past).leading_zeros();
    (bits as usize).min(levels - 1)
}

/// What the level of every earlier position becomes at `position`: levels up to the first of the pair are emptied into
/// the second. None at position 0, which has no past.
pub fn merge(position: usize, levels: usize) -> Option<(usize, usize)> {
    let full = position.checked_sub(1).map(|_| position.trailing_zeros() as usize)?;
    Some((full.min(levels - 1), (full + 1).min(levels - 1)))
}

/// Whether there is a past position of that level at a position, as [`level`] has it; of level 0 the position itself.
pub fn is_in_use(level: usize, position: usize, levels: usize) -> bool {
    match level {
        0 => true,
        _ if level == levels - 1 => position >> (level - 1) > 0,
        _ => position >> (level - 1) & 1 == 1,
    }
}

/// Levels that sequences of at most `positions` positions can have anything in; more than those are never read.
pub fn levels_within(levels: usize, positions: usize) -> usize {
    levels.min((usize::BITS - positions.leading_zeros()) as usize + 1).max(2)
}

/// The scalar-gated rule, log-linear (arXiv 2506.04761, section 3.2), by its dense matrix:
/// o_t = scale · Σ_{s≤t} λ_t[level(t, s)] e^{g_{s+1} + … + g_t} (q_t·k_s) v_s.
///
/// * `q`, `k`: `[T, K]`, `v`: `[T, V]`, `g` (logarithm of the decay, ≤ 0): `[T]`, `lambda`: `[T, L]`
///
/// Returns o, `[T, V]`.
pub fn linear_attention_definition(
    q: &[f64],
    k: &[f64],
    v: &[f64],
    g: &[f64],
    lambda: &[f64],
    scale: f64,
) -> Vec<f64> {
    let beta = vec![0.0; g.len()];
    let erased = vec![0.0; k.len()];
    dense(q, k, v, g, lambda, scale, &erased, &beta, |s| k_row(k, g.len(), s).to_vec())
}

/// The gated delta rule, log-linear (arXiv 2506.04761, section 3.3): what was written at s is carried to t by the
/// decays and erasures between, and weighed as above.
///
/// * shapes as in [`linear_attention_definition`]; `beta`: `[T]`
///
/// Returns o, `[T, V]`.
pub fn delta_rule_definition(
    q: &[f64],
    k: &[f64],
    v: &[f64],
    g: &[f64],
    beta: &[f64],
    lambda: &[f64],
    scale: f64,
) -> Vec<f64> {
    dense(q, k, v, g, lambda, scale, k, beta, |s| {
        k_row(k, g.len(), s).iter().map(|k| beta[s] * k).collect()
    })
}

fn k_row(k: &[f64], tokens: usize, t: usize) -> &[f64] {
    let width = k.len() / tokens;
    &k[t * width..][..width]
}

/// Every written row is carried on its own: w ← e^g w; w ← w − β e (e·w).
#[expect(
    clippy::too_many_arguments,
    reason = "the inputs of the rule, and what is written and erased"
)]
fn dense(
    q: &[f64],
    k: &[f64],
    v: &[f64],
    g: &[f64],
    lambda: &[f64],
    scale: f64,
    erased: &[f64],
    beta: &[f64],
    written: impl Fn(usize) -> Vec<f64>,
) -> Vec<f64> {
    let tokens = g.len();
    if tokens == 0 {
        return Vec::new();
    }
    let (value_width, levels) = (v.len() / tokens, lambda.len() / tokens);
    debug_assert_eq!(q.len(), k.len());
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(tokens);
    let mut o = vec![0.0; tokens * value_width];
    for t in 0..tokens {
        let e = k_row(erased, tokens, t);
        for row in &mut rows {
            for w in row.iter_mut() {
                *w *= g[t].exp();
            }
            let found = beta[t] * dot(e, row);
            row.iter_mut().zip(e).for_each(|(w, e)| *w -= found * e);
        }
        rows.push(written(t));
        for (s, row) in rows.iter().enumerate() {
            let weight =
                scale * lambda[t * levels + level(t, s, levels)] * dot(k_row(q, tokens, t), row);
            for j in 0..value_width {
                o[t * value_width + j] += weight * v[s * value_width + j];
            }
        }
    }
    o
}
