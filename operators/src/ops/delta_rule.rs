//! The gated delta rule: S ← e^g S; S += β k (v − Sᵀk)ᵀ; o = scale · Sᵀq (arXiv 2412.06464, eq. 10). Without a decay
//! it is DeltaNet (arXiv 2406.06484).
//!
//! Chunked form (2412.06464, section 3.3), per chunk of C positions with γ_r the product of its decays up to r and
//! Γ_ij = γ_i/γ_j for i ≥ j, else 0:
//! ```text
//! [U, W] = (I + strictLower(diag(β) (Γ ⊙ K Kᵀ)))⁻¹ diag(β) [V, γ ⊙ K]
//! D  = U − W S
//! O  = (γ ⊙ Q) S + (Q Kᵀ ⊙ Γ) D
//! S' = γ_C S + (γ_C/γ ⊙ K)ᵀ D
//! ```
//! The mask of the output is Γ; one printed form of the paper has the plain causal mask there, which is wrong.

pub(super) mod kernel;

use tch::{Kind, Tensor};

use crate::retrieval::{Asked, Retrieval, unit_values};

use super::norm::l2_norm;
use super::{CHUNK, from_chunks, future, into_chunks, parts, wide};

/// The inputs of the rule, for T positions.
#[derive(Debug)]
pub struct DeltaRule {
    /// Queries, `[B, T, H_k, K]`; neighbouring value heads share a key head where H_k is smaller than H.
    pub q: Tensor,
    /// Keys of the n steps of each position, of L2 norm at most 1 unless they are normalised here, `[B, T·n, H_k, K]`.
    pub k: Tensor,
    /// Values, `[B, T·n, H, V]`.
    pub v: Tensor,
    /// g, the logarithm of the decay before the first step of a position, at most 0, `[B, T, H]`; none: no decay.
    pub log_decay: Option<Tensor>,
    /// Step size, `[B, T·n, H]`.
    pub beta: Tensor,
    /// Multiplies the output.
    pub scale: f64,
    /// Whether queries and keys are brought to unit L2 norm here.
    pub normalise: bool,
}

impl DeltaRule {
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

    /// n, the steps of a position.
    pub(super) fn steps(&self) -> i64 {
        self.k.size()[1] / self.q.size()[1].max(1)
    }

    /// The same rule with one step at each position, a key head for each value head, and nothing left to normalise: the
    /// decay stands on the first of n steps, the query on the last.
    pub(crate) fn plain(&self) -> Self {
        let n = self.steps();
        let unit = |x: &Tensor| if self.normalise { l2_norm(x) } else { x.shallow_clone() };
        Self {
            q: on_step(&self.for_value_heads(unit(&self.q)), n - 1, n),
            k: self.for_value_heads(unit(&self.k)),
            v: self.v.shallow_clone(),
            log_decay: self.log_decay.as_ref().map(|g| on_step(g, 0, n)),
            beta: self.beta.shallow_clone(),
            scale: self.scale,
            normalise: false,
        }
    }

    /// `[B, T, H_k, K]` → `[B, T, H, K]`.
    fn for_value_heads(&self, x: Tensor) -> Tensor {
        let (b, t, key_heads, width) = x.size4().expect("[B, T, H_k, K]");
        let heads = self.v.size()[2];
        if heads == key_heads {
            return x;
        }
        let shared = x.unsqueeze(3).expand([b, t, key_heads, heads / key_heads, width], false);
        shared.reshape([b, t, heads, width])
    }

    /// What is read after the last step of each position, `[B, T·n, H, V]` → `[B, T, H, V]`.
    pub(crate) fn after_last_step(&self, o: Tensor) -> Tensor {
        let n = self.steps();
        if n == 1 {
            return o;
        }
        let (b, steps, heads, width) = o.size4().expect("[B, T·n, H, V]");
        o.reshape([b, steps / n, n, heads, width]).select(2, n - 1)
    }

    /// Parallel within chunks, in torch operators. `state` is `[B, H, K, V]`, none for zeros; returns the output
    /// `[B, T, H, V]`, in the kind of v, and the state after it.
    pub fn chunked(&self, state: Option<&Tensor>) -> (Tensor, Tensor) {
        let (o, state) = self.plain().chunked_steps(state);
        (self.after_last_step(o), state)
    }

    fn chunked_steps(&self, state: Option<&Tensor>) -> (Tensor, Tensor) {
        let kind = wide(self.v.kind());
        let (b, t, h, key_width) = self.q.size4().expect("q is [B, T, H, K]");
        let value_width = self.v.size()[3];
        let c = CHUNK.min(t);
        let chunks = |x: &Tensor| into_chunks(&x.to_kind(kind), c); // [N, BH, C, ·]
        let (q, k, v) = (chunks(&self.q) * self.scale, chunks(&self.k), chunks(&self.v));
        let beta = chunks(&self.beta.unsqueeze(-1)); // [N, BH, C, 1]
        let decay = self.log_decay.as_ref().map(|g| Decay::new(&chunks(&g.unsqueeze(-1)), c));

        let k_beta = &k * &beta;
        let mut lower = k_beta.matmul(&k.transpose(-1, -2)); // [N, BH, C, C]
        let mut scores = q.matmul(&k.transpose(-1, -2));
        if let Some(decay) = &decay {
            lower = &lower * &decay.between;
            scores = &scores * &decay.between;
        } else {
            scores = scores.tril(0);
        }
        let since_start = |x: Tensor| match &decay {
            Some(decay) => x * &decay.since_start,
            None => x,
        };
        let right = Tensor::cat(&[&v * &beta, since_start(k_beta)], -1);
        let solved = unit_lower_inverse(&lower).matmul(&right);
        let [u, w] = parts(&solved, [value_width, key_width]);
        let (u, w) = (u.unbind(0), w.unbind(0)); // N × [BH, C, V], N × [BH, C, K]
        let to_end = match &decay {
            Some(decay) => &k * &decay.to_end,
            None => k,
        };
        let to_end = to_end.transpose(-1, -2).unbind(0); // N × [BH, K, C]
        let whole = decay.as_ref().map(|decay| decay.whole.unbind(0)); // N × [BH, 1, 1]

        let mut s = match state {
            Some(state) => state.to_kind(kind).reshape([b * h, key_width, value_width]),
            None => Tensor::zeros([b * h, key_width, value_width], (kind, q.device())),
        };
        let (mut starts, mut differences) =
            (Vec::with_capacity(u.len()), Vec::with_capacity(u.len()));
        for (n, u) in u.iter().enumerate() {
            let difference = u.baddbmm(&w[n], &s, 1.0, -1.0); // U − W S
            let decayed = match &whole {
                Some(whole) => &s * &whole[n],
                None => s.shallow_clone(),
            };
            let next = decayed.baddbmm(&to_end[n], &difference, 1.0, 1.0);
            starts.push(std::mem::replace(&mut s, next));
            differences.push(difference);
        }
        let o = since_start(q).matmul(&Tensor::stack(&starts, 0))
            + scores.matmul(&Tensor::stack(&differences, 0));
        (from_chunks(&o, b, t).to_kind(self.v.kind()), s.reshape([b, h, key_width, value_width]))
    }

    /// What reading gives, with every key after the last position or with every position's query. Reads are linear in the
    /// values, so storing unit vectors in their place shows the weight of each.
    pub fn retrieval(&self, asked: Asked) -> Retrieval {
        let plain = self.plain();
        let (reads, state) = Self { v: unit_values(&self.v), ..self.plain() }.chunked(None);
        let weights = match asked {
            Asked::Keys => plain.k.to_kind(state.kind()).transpose(1, 2).matmul(&state), // [B, H, N, N]
            Asked::Queries => self.after_last_step(reads).transpose(1, 2), // [B, H, T, N]
        };
        Retrieval { weights, values: self.v.transpose(1, 2) }
    }

    /// Position after position: the definition on tensors, with which the chunked form is compared and a single token
    /// is decoded. `state` as in [`Self::chunked`].
    pub fn recurrent(&self, state: Option<&Tensor>) -> (Tensor, Tensor) {
        let (o, state) = self.plain().recurrent_steps(state);
        (self.after_last_step(o), state)
    }

    fn recurrent_steps(&self, state: Option<&Tensor>) -> (Tensor, Tensor) {
        let kind = wide(self.v.kind());
        let (b, t, h, key_width) = self.q.size4().expect("q is [B, T, H, K]");
        let value_width = self.v.size()[3];
        let mut s = match state {
            Some(state) => state.to_kind(kind),
            None => Tensor::zeros([b, h, key_width, value_width], (kind, self.q.device())),
        };
        let at = |x: &Tensor, t: i64| x.select(1, t).to_kind(kind).unsqueeze(-1); // [B, H, ·, 1]
        let mut outputs = Vec::with_capacity(t as usize);
        for t in 0..t {
            if let Some(g) = &self.log_decay {
                s = &s * at(g, t).unsqueeze(-1).exp();
            }
            let (q, k, v, beta) =
                (at(&self.q, t), at(&self.k, t), at(&self.v, t), at(&self.beta, t).unsqueeze(-1));
            let difference = (v - s.transpose(-1, -2).matmul(&k)) * beta; // [B, H, V, 1]
            s = &s + k * difference.transpose(-1, -2);
            outputs.push(s.transpose(-1, -2).matmul(&q).squeeze_dim(-1) * self.scale);
        }
        (Tensor::stack(&outputs, 1).to_kind(self.v.kind()), s)
    }
}

/// x `[B, T, …]` as the inputs of n steps per position, `[B, T·n, …]`: x at step `step`, zeros at the others.
fn on_step(x: &Tensor, step: i64, n: i64) -> Tensor {
    if n == 1 {
        return x.shallow_clone();
    }
    let zeros = x.zeros_like();
    let steps: Vec<&Tensor> = (0..n).map(|j| if j == step { x } else { &zeros }).collect();
    let mut size = x.size();
    size[1] *= n;
    Tensor::stack(&steps, 2).reshape(size)
}

/// (I + strictLower(A))⁻¹ for `[…, C, C]`.
///
/// The inverse X itself comes from a triangular solve without gradient. One Newton step, 2X − X (I + A) X, leaves its
/// value where it is, and has the inverse's gradient, −Xᵀ · Xᵀ: four products, where the gradient of the solve costs a
/// second, slower solve.
pub(super) fn unit_lower_inverse(a: &Tensor) -> Tensor {
    let c = a.size()[a.dim() - 1];
    let identity = Tensor::eye(c, (a.kind(), a.device()));
    let x = tch::no_grad(|| {
        let a = a.detach();
        a.linalg_solve_triangular(&identity.expand_as(&a), false, true, true)
    });
    let residual = (a.tril(-1) + identity).matmul(&x);
    &x * 2.0 - x.matmul(&residual)
}

/// The products of decays inside a chunk, computed as exponentials of sums.
pub(super) struct Decay {
    /// γ_i/γ_j for i ≥ j, else 0: `[N, BH, C, C]`.
    pub(super) between: Tensor,
    /// γ_i: `[N, BH, C, 1]`.
    pub(super) since_start: Tensor,
    /// γ_C/γ_i: `[N, BH, C, 1]`.
    pub(super) to_end: Tensor,
    /// γ_C: `[N, BH, 1, 1]`.
    pub(super) whole: Tensor,
}

impl Decay {
    /// g `[N, BH, C, 1]`. Sums in f64: they grow along the chunk, where their differences stay small.
    pub(super) fn new(g: &Tensor, c: i64) -> Self {
        let sum = g.cumsum(2, Kind::Double);
        let last = sum.narrow(2, c - 1, 1);
        let exp = |log: &Tensor| log.to_kind(g.kind()).exp();
        // masked before exp: above the diagonal the exponent is positive and may overflow
        let between =
            (&sum - sum.transpose(-1, -2)).masked_fill(&future(c, g.device()), f64::NEG_INFINITY);
        Self {
            between: exp(&between),
            since_start: exp(&sum),
            to_end: exp(&(&last - &sum)),
            whole: exp(&last),
        }
    }
}
