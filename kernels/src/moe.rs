//! A mixture of experts: feed-forward networks of which a router chooses k of E for each token, and none is ever full
//! (dropless: every token goes through all that it chose).
//!
//! The router's logits are W_r x. The k largest choose, of equal ones the first; their weights are the softmax over the chosen
//! logits (Mixtral, arXiv 2401.04088, section 2.1: the same as a softmax over all, brought to a sum of one). A single expert
//! would weigh 1 whatever the router says, and the router learn nothing: it weighs its softmax over all (Switch, arXiv
//! 2101.03961, eq. 2).

pub mod cpu;

use crate::swiglu;

/// An expert that a token goes through, and its weight there.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Chosen<T> {
    /// Below E.
    pub expert: usize,
    /// In (0, 1].
    pub weight: T,
}

/// The `per_token` experts of one token by its logits `[E]`, the largest first.
pub fn route_definition(logits: &[f64], per_token: usize) -> Vec<Chosen<f64>> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a])); // stable: of equal ones the first
    let largest = logits[order[0]];
    let exp = |&expert: &usize| (logits[expert] - largest).exp();
    let counted = if per_token == 1 { order.len() } else { per_token };
    let sum: f64 = order[..counted].iter().map(exp).sum();
    let chosen = |&expert: &usize| Chosen { expert, weight: exp(&expert) / sum };
    order[..per_token].iter().map(chosen).collect()
}

/// What [`definition`] computes with, matrices row-major.
#[derive(Debug)]
pub struct Mixture<'a> {
    /// Experts that each token goes through.
    pub per_token: usize,
    /// W_r `[E, d]`
    pub router: &'a [f64],
    /// `[E, f, d]`
    pub gate: &'a [f64],
    /// `[E, f, d]`
    pub up: &'a [f64],
    /// `[E, d, f]`
    pub down: &'a [f64],
}

/// Σ w_i · down_i (SiLU(gate_i x) ⊙ up_i x) over the chosen experts i of each row of x `[T, d]`.
pub fn definition(x: &[f64], d: usize, mixture: &Mixture<'_>) -> Vec<f64> {
    let Mixture { per_token, router, gate, up, down } = *mixture;
    let (experts, all) = (router.len() / d, gate.len() / (router.len() / d));
    let rows = |x: &[f64], matrix: &[f64]| -> Vec<f64> {
        let dot = |row: &[f64]| row.iter().zip(x).map(|(w, x)| w * x).sum();
        matrix.chunks_exact(x.len()).map(dot).collect()
    };
    let of = |matrix: &'_ [f64], expert: usize| matrix[expert * all..][..all].to_vec();
    let mut y = Vec::with_capacity(x.len());
    for x in x.chunks_exact(d) {
        let logits = rows(x, router);
        assert_eq!(logits.len(), experts);
        let mut sum = vec![0.0; d];
        for Chosen { expert, weight } in route_definition(&logits, per_token) {
            let [gate, up] = [gate, up].map(|matrix| rows(x, &of(matrix, expert)));
            let out = rows(&swiglu::definition(&gate, &up), &of(down, expert));
            sum.iter_mut().zip(out).for_each(|(sum, out)| *sum += weight * out);
        }
        y.extend(sum);
    }
    y
}

/// How unevenly a text uses its experts, from the router's logits `[T, E]` (Switch, arXiv 2101.03961, eq. 4 to 6, over k
/// choices as OLMoE, arXiv 2409.02060, eq. 4, has it): E Σ_i f_i P_i, f_i the share of all choices that fell on i, P_i the
/// mean of its softmax over all. 1 where all are used alike.
pub fn balance_definition(logits: &[f64], experts: usize, per_token: usize) -> f64 {
    let tokens = (logits.len() / experts) as f64;
    let (mut shares, mut means) = (vec![0.0; experts], vec![0.0; experts]);
    for logits in logits.chunks_exact(experts) {
        for chosen in route_definition(logits, per_token) {
            shares[chosen.expert] += 1.0 / (tokens * per_token as f64);
        }
        for chosen in route_definition(logits, experts) {
            means[chosen.expert] += chosen.weight / tokens;
        }
    }
    experts as f64 * shares.iter().zip(means).map(|(f, p)| f * p).sum::<f64>()
}
