//! Log-linear attention (arXiv 2506.04761): either linear rule with a state for each piece of a Fenwick tree over the
//! past, o_t = Σ_ℓ λ_t^(ℓ) · read of S_t^(ℓ).
//!
//! Inside a chunk the rule is a dense matrix, weighed by λ at the level of each pair of positions. Chunks begin at
//! multiples of 64 = 2⁶, so that all positions of a chunk see an earlier chunk at one level, and the states move from
//! level to level between chunks only.
//!
//! Training on the CPU is by the kernels of either rule, [`linear_attention`] and [`delta_rule`]; [`LogLinear`] is the same
//! in torch operators.

use kernels::log_linear::{level, merge};
use tch::{Kind, Tensor};

use super::delta_rule::{Decay, DeltaRule, unit_lower_inverse};
use super::linear_attention::LinearAttention;
use super::memory::single_on_cpu;
use super::{CHUNK, from_chunks, into_chunks, wide};
use crate::retrieval::{Asked, Retrieval};

/// The log-linear form of a scalar-gated rule with λ `[B, T, H, L]`: the output `[B, T, H, V]`, in the kind of v. From the
/// beginning by the kernels of the CPU where they apply, else [`linear_attention_by_torch`].
pub fn linear_attention(
    rule: &LinearAttention,
    lambda: &Tensor,
    state: Option<&mut Levels>,
) -> Tensor {
    if state.is_none() && rule.suits_kernel() && single_on_cpu(lambda) {
        return rule.log_linear_by_kernel(lambda);
    }
    linear_attention_by_torch(rule, lambda, state)
}

/// The same in torch operators, see [`LogLinear::forward`].
pub fn linear_attention_by_torch(
    rule: &LinearAttention,
    lambda: &Tensor,
    state: Option<&mut Levels>,
) -> Tensor {
    rule.with_skip(LogLinear::of_linear_attention(rule, lambda).forward(state))
}

/// The log-linear form of a gated delta rule of one step a position, as [`linear_attention`].
pub fn delta_rule(rule: &DeltaRule, lambda: &Tensor, state: Option<&mut Levels>) -> Tensor {
    if state.is_none() && rule.steps() == 1 && rule.suits_kernel() && single_on_cpu(lambda) {
        return rule.log_linear_by_kernel(lambda);
    }
    LogLinear::of_delta_rule(rule, lambda).forward(state)
}

/// The inputs of the rule, for T positions.
#[derive(Debug)]
pub struct LogLinear {
    /// Queries, `[B, T, H, K]`.
    pub q: Tensor,
    /// Keys, `[B, T, H, K]`.
    pub k: Tensor,
    /// Values, `[B, T, H, V]`.
    pub v: Tensor,
    /// g, the logarithm of the decay, at most 0, `[B, T, H]`.
    pub log_decay: Tensor,
    /// Step size of the delta rule, `[B, T, H]`; none: the scalar-gated rule, which erases nothing.
    pub beta: Option<Tensor>,
    /// λ, `[B, T, H, L]`.
    pub lambda: Tensor,
    /// Multiplies the output.
    pub scale: f64,
}

/// The states of the levels and the number of positions seen.
#[derive(Debug)]
pub struct Levels {
    /// `[B, H, L, K, V]`
    pub memory: Tensor,
    /// Positions seen.
    pub position: i64,
}

impl LogLinear {
    /// Every head gets the q and k that they share; the skip is not in it.
    pub fn of_linear_attention(rule: &LinearAttention, lambda: &Tensor) -> Self {
        let heads = rule.v.size()[2];
        let shared = |x: &Tensor| x.unsqueeze(2).expand([-1, -1, heads, -1], false);
        Self {
            q: shared(&rule.q),
            k: shared(&rule.k),
            v: rule.written(wide(rule.v.kind())),
            log_decay: rule.log_decay.shallow_clone(),
            beta: None,
            lambda: lambda.shallow_clone(),
            scale: 1.0,
        }
    }

    /// Every value head gets its key head, normalised where the rule says so.
    ///
    /// # Panics
    /// When the rule has no decay.
    pub fn of_delta_rule(rule: &DeltaRule, lambda: &Tensor) -> Self {
        let DeltaRule { q, k, v, log_decay, beta, scale, .. } = rule.plain();
        let log_decay = log_decay.expect("a log-linear rule has a decay");
        Self { q, k, v, log_decay, beta: Some(beta), lambda: lambda.shallow_clone(), scale }
    }

    /// The output `[B, T, H, V]`, in the kind of v. With a state, its position says where the first of the T positions
    /// is, and whole chunks are computed in parallel; what begins or ends inside a chunk is computed step by step.
    pub fn forward(&self, state: Option<&mut Levels>) -> Tensor {
        let (b, t, h, key_width) = self.q.size4().expect("q is [B, T, H, K]");
        let value_width = self.v.size()[3];
        let kind = wide(self.v.kind());
        let levels = self.lambda.size()[3];
        let Some(state) = state else {
            let mut memory: Vec<Option<Tensor>> = (0..levels).map(|_| None).collect();
            return self.chunked(&mut memory, 0);
        };
        let lead = ((CHUNK - state.position % CHUNK) % CHUNK).min(t);
        let whole = (t - lead) / CHUNK * CHUNK;
        let mut outputs = vec![self.between(0, lead).recurrent(state)];
        if whole > 0 {
            let flat = [b * h, key_width, value_width];
            let mut memory: Vec<Option<Tensor>> = state
                .memory
                .to_kind(kind)
                .unbind(2)
                .iter()
                .map(|level| Some(level.reshape(flat)))
                .collect();
            outputs.push(self.between(lead, whole).chunked(&mut memory, state.position));
            let zeros = Tensor::zeros(flat, (kind, self.q.device()));
            let memory: Vec<&Tensor> =
                memory.iter().map(|s| s.as_ref().unwrap_or(&zeros)).collect();
            state.memory =
                Tensor::stack(&memory, 1).reshape([b, h, levels, key_width, value_width]);
            state.position += whole;
        }
        outputs.push(self.between(lead + whole, t - lead - whole).recurrent(state));
        Tensor::cat(&outputs, 1)
    }

    fn between(&self, start: i64, length: i64) -> Self {
        let cut = |x: &Tensor| x.narrow(1, start, length);
        Self {
            q: cut(&self.q),
            k: cut(&self.k),
            v: cut(&self.v),
            log_decay: cut(&self.log_decay),
            beta: self.beta.as_ref().map(cut),
            lambda: cut(&self.lambda),
            scale: self.scale,
        }
    }

    /// All positions, from `position`, which is a multiple of the chunk, on. `memory` has a state `[B·H, K, V]` for each
    /// level, none for zeros, and is moved on; after a last chunk that is not whole it is of no use.
    fn chunked(&self, memory: &mut [Option<Tensor>], position: i64) -> Tensor {
        let kind = wide(self.v.kind());
        let (b, t, ..) = self.q.size4().expect("q is [B, T, H, K]");
        let (levels, c) = (memory.len(), CHUNK.min(t));
        let chunks = |x: &Tensor| into_chunks(&x.to_kind(kind), c); // [N, BH, C, ·]
        let (q, k, v) = (chunks(&self.q) * self.scale, chunks(&self.k), chunks(&self.v));
        let lambda = chunks(&self.lambda);
        let decay = Decay::new(&chunks(&self.log_decay.unsqueeze(-1)), c);

        // per chunk: dense is what v is multiplied by, reader what a state is read with, written what the chunk adds;
        // a state S becomes γ_C S − kᵀ (eraser S)
        let to_end = (&k * &decay.to_end).transpose(-1, -2); // [N, BH, K, C]
        let mut dense = q.matmul(&k.transpose(-1, -2)) * &decay.between;
        let mut reader = &q * &decay.since_start;
        let (mut eraser, written) = match &self.beta {
            None => (None, to_end.matmul(&v)),
            Some(beta) => {
                let beta = chunks(&beta.unsqueeze(-1)); // [N, BH, C, 1]
                let k_beta = &k * &beta;
                let lower = k_beta.matmul(&k.transpose(-1, -2)) * &decay.between;
                let inverse = unit_lower_inverse(&lower);
                let w = inverse.matmul(&(k_beta * &decay.since_start)); // [N, BH, C, K]
                let solved = inverse * beta.transpose(-1, -2);
                reader = &reader - dense.matmul(&w);
                dense = dense.matmul(&solved);
                (Some(w.unbind(0)), to_end.matmul(&solved.matmul(&v)))
            }
        };
        let pair_lambda = lambda.gather(-1, &self.levels_in_chunk(c, levels, &dense), false);
        let inside = (dense * pair_lambda).matmul(&v); // [N, BH, C, V]

        let (reader, lambda_of) = (reader.unbind(0), lambda.unbind(0));
        let (to_end, written) = (to_end.unbind(0), written.unbind(0));
        let whole = decay.whole.unbind(0); // N × [BH, 1, 1]
        let mut outputs = Vec::with_capacity(written.len());
        for (n, inside) in inside.unbind(0).into_iter().enumerate() {
            move_levels(memory, (position + n as i64 * c) as usize);
            let mut o = inside;
            for (level, state) in memory.iter_mut().enumerate() {
                if let Some(s) = state.take() {
                    let weight = lambda_of[n].narrow(-1, level as i64, 1);
                    o = &o + weight * reader[n].matmul(&s);
                    let decayed = &s * &whole[n];
                    *state = Some(match &mut eraser {
                        Some(w) => decayed - to_end[n].matmul(&w[n].matmul(&s)),
                        None => decayed,
                    });
                }
            }
            memory[0] = Some(match memory[0].take() {
                Some(s) => s + &written[n],
                None => written[n].shallow_clone(),
            });
            outputs.push(o);
        }
        from_chunks(&Tensor::stack(&outputs, 0), b, t).to_kind(self.v.kind())
    }

    /// The level of each pair of positions of a chunk, of the shape of `dense`; 0 where the second is the later one.
    fn levels_in_chunk(&self, c: i64, levels: usize, dense: &Tensor) -> Tensor {
        let pair =
            |i: i64, j: i64| if j > i { 0 } else { level(i as usize, j as usize, levels) as i64 };
        let table: Vec<i64> = (0..c).flat_map(|i| (0..c).map(move |j| pair(i, j))).collect();
        Tensor::from_slice(&table)
            .to_device(self.q.device())
            .reshape([1, 1, c, c])
            .expand(dense.size(), false)
    }

    /// Position after position; the state is moved on.
    pub fn recurrent(&self, state: &mut Levels) -> Tensor {
        let kind = wide(self.v.kind());
        let (b, t, h, _) = self.q.size4().expect("q is [B, T, H, K]");
        let value_width = self.v.size()[3];
        let mut memory: Vec<Option<Tensor>> =
            state.memory.to_kind(kind).unbind(2).into_iter().map(Some).collect(); // L × [B, H, K, V]
        let mut outputs = Vec::with_capacity(t as usize);
        for t in 0..t {
            let at = |x: &Tensor| x.select(1, t).to_kind(kind);
            let (q, k, v) =
                (at(&self.q).unsqueeze(2), at(&self.k).unsqueeze(-1), at(&self.v).unsqueeze(2));
            let decay = at(&self.log_decay).exp().reshape([b, h, 1, 1]);
            let beta = self.beta.as_ref().map(|beta| at(beta).reshape([b, h, 1, 1]));
            let lambda = at(&self.lambda); // [B, H, L]
            move_levels(&mut memory, state.position as usize);
            let zero = k.matmul(&v) * 0.0;
            let mut o = Tensor::zeros([b, h, 1, value_width], (kind, q.device()));
            for (level, s) in memory.iter_mut().enumerate() {
                let mut moved = s.take().unwrap_or_else(|| zero.shallow_clone()) * &decay;
                if let Some(beta) = &beta {
                    moved = &moved - &k * beta * k.transpose(-1, -2).matmul(&moved);
                }
                if level == 0 {
                    let written = k.matmul(&v);
                    moved = &moved
                        + beta.as_ref().map_or(written.shallow_clone(), |beta| written * beta);
                }
                let weight = lambda.select(-1, level as i64).reshape([b, h, 1, 1]) * self.scale;
                o = &o + weight * q.matmul(&moved);
                *s = Some(moved);
            }
            state.position += 1;
            outputs.push(o.squeeze_dim(2));
        }
        let memory: Vec<Tensor> = memory.into_iter().flatten().collect();
        state.memory = Tensor::stack(&memory, 2);
        if outputs.is_empty() {
            return self.v.shallow_clone();
        }
        Tensor::stack(&outputs, 1).to_kind(self.v.kind())
    }
}

/// What the states' levels become at `position`: see [`merge`].
fn move_levels(memory: &mut [Option<Tensor>], position: usize) {
    let Some((upto, into)) = merge(position, memory.len()) else { return };
    let mut sum: Option<Tensor> = memory[into].take();
    for state in &mut memory[..=upto] {
        if let Some(s) = state.take() {
            sum = Some(sum.map_or(s.shallow_clone(), |sum| sum + s));
        }
    }
    memory[into] = sum;
}

/// The reads of a log-linear form, from those of its rule with one state and λ `[B, T, H, L]`: the value of position j
/// counts with λ at the level of j, of the position that reads, which for [`Asked::Keys`] is the last one.
pub fn weigh(reads: &Retrieval, lambda: &Tensor, asked: Asked) -> Retrieval {
    let (_, t, _, levels) = lambda.size4().expect("λ is [B, T, H, L]");
    let lambda = lambda.transpose(1, 2); // [B, H, T, L]
    let lambda = match asked {
        Asked::Queries => lambda,
        Asked::Keys => lambda.narrow(2, t - 1, 1).expand_as(&lambda),
    };
    let pair = |reader: i64, j: i64| {
        let reader = if asked == Asked::Keys { t - 1 } else { reader };
        if j > reader { 0 } else { level(reader as usize, j as usize, levels as usize) as i64 }
    };
    let table: Vec<i64> = (0..t).flat_map(|i| (0..t).map(move |j| pair(i, j))).collect();
    let table = Tensor::from_slice(&table).to_device(lambda.device()).reshape([1, 1, t, t]);
    let of_pairs = lambda.gather(-1, &table.expand(reads.weights.size(), false), false);
    Retrieval { weights: &reads.weights * of_pairs, values: reads.values.shallow_clone() }
}

/// λ = softplus(scales ⊙ raw): raw `[B, T, H·L]`, scales `[H, L]`.
pub fn level_scales(raw: &Tensor, scales: &Tensor) -> Tensor {
    let (b, t, _) = raw.size3().expect("raw is [B, T, H·L]");
    let (h, l) = scales.size2().expect("scales is [H, L]");
    let kind: Kind = wide(raw.kind());
    (raw.to_kind(kind).reshape([b, t, h, l]) * scales).softplus()
}
