//! Linear attention with a scalar gate per head: S ← e^g S + k (a v)ᵀ; o = Sᵀq + D v, with q and k shared by the heads.
//!
//! Mamba2 is this rule with q = C, k = B, v = x, a = dt, g = dt·A (arXiv 2405.21060). Chunked form as in its section 6:
//! inside a chunk a masked quadratic form, between chunks the state. Sharing makes the scores one matrix for all
//! heads, and the products with the state one product for all heads.

mod kernel;

use tch::{Kind, Tensor};

use super::{CHUNK, future, pad_end, wide};
use crate::retrieval::{Asked, Retrieval, unit_values};

/// The inputs of the rule, for T positions.
#[derive(Debug)]
pub struct LinearAttention {
    /// Queries, `[B, T, K]`.
    pub q: Tensor,
    /// Keys, `[B, T, K]`.
    pub k: Tensor,
    /// Values, `[B, T, H, V]`.
    pub v: Tensor,
    /// g, the logarithm of the decay, at most 0, `[B, T, H]`.
    pub log_decay: Tensor,
    /// a, what a value is multiplied by when it is written, `[B, T, H]`; none: 1.
    pub v_scale: Option<Tensor>,
    /// D, what of a value is added to the output of its own position, `[H]`; none: 0.
    pub skip: Option<Tensor>,
}

impl LinearAttention {
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

    /// a ⊙ V, as it is written.
    pub(crate) fn written(&self, kind: Kind) -> Tensor {
        let v = self.v.to_kind(kind);
        self.v_scale
            .as_ref()
            .map_or_else(|| v.shallow_clone(), |a| &v * a.to_kind(kind).unsqueeze(-1))
    }

    /// O + D ⊙ V, in the kind of v.
    pub(crate) fn with_skip(&self, o: Tensor) -> Tensor {
        let o = match &self.skip {
            Some(skip) => o + self.v.to_kind(wide(self.v.kind())) * skip.unsqueeze(-1),
            None => o,
        };
        o.to_kind(self.v.kind())
    }

    /// Parallel within chunks, in torch operators. `state` is `[B, H, K, V]`, none for zeros; returns the output `[B, T, H, V]`, in the
    /// kind of v, and the state after it.
    pub fn chunked(&self, state: Option<&Tensor>) -> (Tensor, Tensor) {
        let kind = wide(self.v.kind());
        let (b, t, h, value_width) = self.v.size4().expect("v is [B, T, H, V]");
        let key_width = self.q.size()[2];
        let c = CHUNK.min(t);
        let n = (t + c - 1) / c;
        let padded = |x: &Tensor| pad_end(&x.to_kind(kind), 1, n * c - t);
        let (q, k) = (
            padded(&self.q).reshape([b, n, c, key_width]),
            padded(&self.k).reshape([b, n, c, key_width]),
        );
        let v = padded(&self.written(kind)).reshape([b, n, c, h, value_width]);
        // ln γ in f64: it grows along the chunk, where differences stay small
        let sum = padded(&self.log_decay).reshape([b, n, c, h]).cumsum(2, Kind::Double);
        let exp = |log: &Tensor| log.to_kind(kind).exp();
        let last = sum.narrow(2, c - 1, 1); // [B, N, 1, H]

        // inside the chunk: (Q Kᵀ ⊙ Γ) V, Γ_ij = γ_i/γ_j for i ≥ j; masked before exp, which could overflow above
        let by_head = sum.permute([0, 1, 3, 2]).unsqueeze(-1); // [B, N, H, C, 1]
        let between = (&by_head - by_head.transpose(-1, -2))
            .masked_fill(&future(c, q.device()), f64::NEG_INFINITY);
        let between = exp(&between); // [B, N, H, C, C]
        let scores = q.matmul(&k.transpose(-1, -2)).unsqueeze(2) * between;
        let inside = scores.matmul(&v.permute([0, 1, 3, 2, 4])); // [B, N, H, C, V]

        // what each chunk adds to the state: Kᵀ (γ_C/γ ⊙ V), [B, N, K, H·V]
        let weighted = &v * exp(&(&last - &sum)).unsqueeze(-1);
        let added = k.transpose(-1, -2).matmul(&weighted.reshape([b, n, c, h * value_width]));
        let added = added.reshape([b, n, key_width, h, value_width]).unbind(1);
        let whole = exp(&last).unsqueeze(-1).unbind(1); // N × [B, 1, H, 1]
        let mut s = match state {
            Some(state) => state.to_kind(kind).transpose(1, 2),
            None => Tensor::zeros([b, key_width, h, value_width], (kind, q.device())),
        }; // [B, K, H, V]
        let mut starts = Vec::with_capacity(added.len());
        for (added, whole) in added.iter().zip(&whole) {
            let next = &s * whole + added;
            starts.push(std::mem::replace(&mut s, next));
        }
        let starts = Tensor::stack(&starts, 1).reshape([b, n, key_width, h * value_width]);
        let before = q.matmul(&starts).reshape([b, n, c, h, value_width]) * exp(&sum).unsqueeze(-1);
        let o = (inside.permute([0, 1, 3, 2, 4]) + before)
            .reshape([b, n * c, h, value_width])
            .narrow(1, 0, t);
        (self.with_skip(o), s.transpose(1, 2))
    }

    /// What reading gives, as [`super::delta_rule::DeltaRule::retrieval`]. The skip is no read.
    pub fn retrieval(&self, asked: Asked) -> Retrieval {
        let written = self.written(wide(self.v.kind()));
        let (q, k) = (self.q.shallow_clone(), self.k.shallow_clone());
        let log_decay = self.log_decay.shallow_clone();
        let unit = Self { q, k, v: unit_values(&written), log_decay, v_scale: None, skip: None };
        let (reads, state) = unit.chunked(None); // [B, T, H, N], [B, H, K, N]
        let weights = match asked {
            Asked::Keys => self.k.to_kind(state.kind()).unsqueeze(1).matmul(&state), // [B, H, N, N]
            Asked::Queries => reads.transpose(1, 2),
        };
        Retrieval { weights, values: written.transpose(1, 2) }
    }

    /// Position after position: the definition on tensors. `state` as in [`Self::chunked`].
    pub fn recurrent(&self, state: Option<&Tensor>) -> (Tensor, Tensor) {
        let kind = wide(self.v.kind());
        let (b, t, h, value_width) = self.v.size4().expect("v is [B, T, H, V]");
        let key_width = self.q.size()[2];
        let mut s = match state {
            Some(state) => state.to_kind(kind),
            None => Tensor::zeros([b, h, key_width, value_width], (kind, self.q.device())),
        };
        let written = self.written(kind);
        let mut outputs = Vec::with_capacity(t as usize);
        for t in 0..t {
            let at = |x: &Tensor| x.select(1, t).to_kind(kind);
            let decay = at(&self.log_decay).exp().reshape([b, h, 1, 1]);
            let k = at(&self.k).reshape([b, 1, key_width, 1]);
            s = s * decay + k * at(&written).unsqueeze(2);
            let q = at(&self.q).reshape([b, 1, 1, key_width]);
            outputs.push(q.matmul(&s).squeeze_dim(2));
        }
        (self.with_skip(Tensor::stack(&outputs, 1)), s)
    }
}
