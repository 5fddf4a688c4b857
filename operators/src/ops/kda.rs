//! Kimi Delta Attention: S ← Diag(e^g) S; S += β k (v − Sᵀk)ᵀ; o = scale · Sᵀq, with a decay for each channel of the keys
//! (Kimi Linear, arXiv 2510.26692, eq. 1).
//!
//! Chunked form, per chunk of C positions with G the sums of its g up to each position, `[C, K]`:
//! ```text
//! A_ij = β_i Σ_c k_ic k_jc e^{G_ic − G_jc}, i > j        P_ij = Σ_c q_ic k_jc e^{G_ic − G_jc}, i ≥ j
//! [U, W] = (I + A)⁻¹ diag(β) [V, e^G ⊙ K]
//! D  = U − W S
//! O  = (e^G ⊙ Q) S + P D
//! S' = Diag(e^{G_C}) S + (e^{G_C − G} ⊙ K)ᵀ D
//! ```
//! The sums over channels do not split into products of decayed queries and keys: e^{−G} overflows. In blocks of 16
//! positions each exponent is a difference that is at most 0. Within a block all pairs of positions have their own; of two
//! blocks the later is counted from its begin, and the earlier up to there. The kernels of the CPU go without exponents
//! (`kernels::kda::train`), those of the GPU nearly so (`kernels::cuda::chunked::kda`).

mod decays;
mod kernel;

pub use decays::{log_decays, log_decays_by_torch};

use tch::{Kind, Tensor};

use super::delta_rule::unit_lower_inverse;
use super::norm::l2_norm;
use super::{CHUNK, from_chunks, future, into_chunks, parts, wide};
use crate::retrieval::{Asked, Retrieval, unit_values};

/// Positions of a block of a chunk.
const BLOCK: i64 = 16;

/// The inputs of the rule, for T positions.
#[derive(Debug)]
pub struct Kda {
    /// Queries, `[B, T, H, K]`.
    pub q: Tensor,
    /// Keys, of L2 norm at most 1 unless they are normalised here, `[B, T, H, K]`.
    pub k: Tensor,
    /// Values, `[B, T, H, V]`.
    pub v: Tensor,
    /// g, the logarithms of the decays, at most 0, `[B, T, H, K]`.
    pub log_decay: Tensor,
    /// Step size, `[B, T, H]`.
    pub beta: Tensor,
    /// Multiplies the output.
    pub scale: f64,
    /// Whether queries and keys are brought to unit L2 norm here.
    pub normalise: bool,
}

impl Kda {
    /// By the kernels of the CPU or the GPU where they apply, else [`Self::chunked`], which says what goes in and out.
    pub fn forward(&self, state: Option<&Tensor>) -> (Tensor, Tensor) {
        if self.suits_kernel() {
            self.by_kernel(state)
        } else if self.suits_gpu() {
            self.by_gpu(state)
        } else {
            self.chunked(state)
        }
    }

    /// Queries and keys as the rule uses them.
    pub(crate) fn keys(&self) -> [Tensor; 2] {
        let unit = |x: &Tensor| if self.normalise { l2_norm(x) } else { x.shallow_clone() };
        [unit(&self.q), unit(&self.k)]
    }

    /// Parallel within chunks, in torch operators. `state` is `[B, H, K, V]`, none for zeros; returns the output
    /// `[B, T, H, V]`, in the kind of v, and the state after it.
    pub fn chunked(&self, state: Option<&Tensor>) -> (Tensor, Tensor) {
        let kind = wide(self.v.kind());
        let (b, t, h, key_width) = self.q.size4().expect("q is [B, T, H, K]");
        let value_width = self.v.size()[3];
        let c = CHUNK.min((t + BLOCK - 1) / BLOCK * BLOCK);
        let chunks = |x: &Tensor| into_chunks(&x.to_kind(kind), c); // [N, BH, C, ·]
        let [q, k] = self.keys();
        let (q, k, v) = (chunks(&q) * self.scale, chunks(&k), chunks(&self.v));
        let beta = chunks(&self.beta.unsqueeze(-1)); // [N, BH, C, 1]
        // in f64: the sums grow along the chunk, where their differences stay small
        let sums = chunks(&self.log_decay).cumsum(2, Kind::Double);
        let exp = |log: &Tensor| log.to_kind(kind).exp();
        let last = sums.narrow(2, c - 1, 1); // [N, BH, 1, K]
        let since_start = exp(&sums);

        let k_beta = &k * &beta;
        let [lower, scores] = pairs([&k_beta, &q], &k, &sums);
        let right = Tensor::cat(&[&v * &beta, k_beta * &since_start], -1);
        let solved = unit_lower_inverse(&lower).matmul(&right);
        let [u, w] = parts(&solved, [value_width, key_width]);
        let (u, w) = (u.unbind(0), w.unbind(0)); // N × [BH, C, V], N × [BH, C, K]
        let to_end = (&k * exp(&(&last - &sums))).transpose(-1, -2).unbind(0); // N × [BH, K, C]
        let whole = exp(&last).transpose(-1, -2).unbind(0); // N × [BH, K, 1]

        let mut s = match state {
            Some(state) => state.to_kind(kind).reshape([b * h, key_width, value_width]),
            None => Tensor::zeros([b * h, key_width, value_width], (kind, q.device())),
        };
        let (mut starts, mut differences) =
            (Vec::with_capacity(u.len()), Vec::with_capacity(u.len()));
        for (n, u) in u.iter().enumerate() {
            let difference = u.baddbmm(&w[n], &s, 1.0, -1.0); // U − W S
            let next = (&s * &whole[n]).baddbmm(&to_end[n], &difference, 1.0, 1.0);
            starts.push(std::mem::replace(&mut s, next));
            differences.push(difference);
        }
        let o = (q * since_start).matmul(&Tensor::stack(&starts, 0))
            + scores.matmul(&Tensor::stack(&differences, 0));
        (from_chunks(&o, b, t).to_kind(self.v.kind()), s.reshape([b, h, key_width, value_width]))
    }

    /// Position after position: the definition on tensors. `state` as in [`Self::chunked`].
    pub fn recurrent(&self, state: Option<&Tensor>) -> (Tensor, Tensor) {
        let kind = wide(self.v.kind());
        let (b, t, h, key_width) = self.q.size4().expect("q is [B, T, H, K]");
        let value_width = self.v.size()[3];
        let mut s = match state {
            Some(state) => state.to_kind(kind),
            None => Tensor::zeros([b, h, key_width, value_width], (kind, self.q.device())),
        };
        let at = |x: &Tensor, t: i64| x.select(1, t).to_kind(kind).unsqueeze(-1); // [B, H, ·, 1]
        let [queries, keys] = self.keys();
        let mut outputs = Vec::with_capacity(t as usize);
        for t in 0..t {
            s = &s * at(&self.log_decay, t).exp();
            let (q, k, v, beta) =
                (at(&queries, t), at(&keys, t), at(&self.v, t), at(&self.beta, t).unsqueeze(-1));
            let difference = (v - s.transpose(-1, -2).matmul(&k)) * beta; // [B, H, V, 1]
            s = &s + k * difference.transpose(-1, -2);
            outputs.push(s.transpose(-1, -2).matmul(&q).squeeze_dim(-1) * self.scale);
        }
        (Tensor::stack(&outputs, 1).to_kind(self.v.kind()), s)
    }

    /// What reading gives, as of the delta rule.
    pub fn retrieval(&self, asked: Asked) -> Retrieval {
        let [q, k] = self.keys();
        let [log_decay, beta] = [&self.log_decay, &self.beta].map(Tensor::shallow_clone);
        let (v, scale, normalise) = (unit_values(&self.v), self.scale, false);
        let unit = Self { q, k, v, log_decay, beta, scale, normalise };
        let (reads, state) = unit.chunked(None); // [B, T, H, N], [B, H, K, N]
        let weights = match asked {
            Asked::Keys => unit.k.to_kind(state.kind()).transpose(1, 2).matmul(&state),
            Asked::Queries => reads.transpose(1, 2),
        };
        Retrieval { weights, values: self.v.transpose(1, 2) }
    }
}

/// Σ_c x_ic k_jc e^{G_ic − G_jc} for i ≥ j, else 0, of both x: `[N, BH, C, C]` each, from x, k and G `[N, BH, C, K]`.
fn pairs(x: [&Tensor; 2], k: &Tensor, sums: &Tensor) -> [Tensor; 2] {
    let (n, bh, c, width) = k.size4().expect("k is [N, BH, C, K]");
    let blocks = c / BLOCK;
    let exp = |log: Tensor| log.to_kind(k.kind()).exp();
    let both = Tensor::stack(&x, 3); // [N, BH, C, 2, K]

    // of one block: [N, BH, M, 16, 1, K] − [N, BH, M, 1, 16, K], masked before exp
    let block = |x: &Tensor| x.reshape([n, bh, blocks, BLOCK, width]);
    let sums_of = block(sums);
    let between = (sums_of.unsqueeze(4) - sums_of.unsqueeze(3))
        .masked_fill(&future(BLOCK, k.device()).unsqueeze(-1), f64::NEG_INFINITY);
    let decayed = exp(between) * block(k).unsqueeze(3); // [N, BH, M, 16, 16, K]
    let own = both.reshape([n, bh, blocks, BLOCK, 2, width]).matmul(&decayed.transpose(-1, -2)); // [N, BH, M, 16, 2, 16]

    let rows: Vec<Tensor> = (0..blocks)
        .map(|i| {
            let at = i * BLOCK;
            let own = own.select(2, i); // [N, BH, 16, 2, 16]
            if i == 0 {
                return own.constant_pad_nd([0, c - BLOCK]);
            }
            let begin = sums.narrow(2, at - 1, 1); // G before the block, [N, BH, 1, K]
            let later = exp(sums.narrow(2, at, BLOCK) - &begin).unsqueeze(3); // [N, BH, 16, 1, K]
            let earlier = k.narrow(2, 0, at) * exp(&begin - sums.narrow(2, 0, at));
            let later = (both.narrow(2, at, BLOCK) * later).reshape([n, bh, BLOCK * 2, width]);
            let across = later.matmul(&earlier.transpose(-1, -2)).reshape([n, bh, BLOCK, 2, at]);
            Tensor::cat(&[across, own], -1).constant_pad_nd([0, c - BLOCK - at])
        })
        .collect();
    let all = Tensor::cat(&rows, 2); // [N, BH, C, 2, C]
    [all.select(3, 0), all.select(3, 1)]
}
