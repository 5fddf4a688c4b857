//! Full attention: grouped key and value heads, rotary positions or Selective RoPE, optional RMSNorm of each head's q
//! and k.

use search::architecture::{Attention, Mixer as Gene};
use tch::Tensor;

use super::phases::{PhaseState, Phases};
use super::{Cache, Mixer, MixerState};
use crate::OperatorError;
use crate::ops::linear::{linear, project};
use crate::ops::{attention, norm, rope};
use crate::retrieval::Retrieval;
use crate::weights::Weights;

/// What full and sliding-window attention share: everything but the window.
#[derive(Debug)]
pub(super) struct Projections {
    heads: i64,
    kv_heads: i64,
    width: i64,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    norms: Option<(Tensor, Tensor)>,
    phases: Option<Phases>,
}

impl Projections {
    pub(super) fn new(gene: &Attention, weights: &mut Weights) -> Result<Self, OperatorError> {
        Ok(Self {
            heads: gene.heads.into(),
            kv_heads: gene.kv_heads.into(),
            width: gene.head_width.into(),
            q: weights.take("q.weight")?,
            k: weights.take("k.weight")?,
            v: weights.take("v.weight")?,
            o: weights.take("o.weight")?,
            norms: if gene.qk_norm {
                Some((weights.take("q_norm.weight")?, weights.take("k_norm.weight")?))
            } else {
                None
            },
            phases: Phases::new(Gene::Attention(*gene).phases(), weights)?,
        })
    }

    /// Queries, keys and values of x `[B, T, d]`, whose first position is `first`; each `[B, H, T, K]`. Selective RoPE
    /// moves its state.
    fn heads(
        &self,
        x: &Tensor,
        first: i64,
        phases: Option<&mut PhaseState>,
    ) -> (Tensor, Tensor, Tensor) {
        let (b, t, _) = x.size3().expect("x is [B, T, d]");
        let heads = |x: Tensor, heads: i64| x.reshape([b, t, heads, self.width]);
        let [q, k, v] = project(x, &[&self.q, &self.k, &self.v]).try_into().expect("three maps");
        let (mut q, mut k, v) =
            (heads(q, self.heads), heads(k, self.kv_heads), heads(v, self.kv_heads));
        let angles = self.phases.as_ref().map(|own| own.angles(x, phases)); // [B, T, H_kv, K/2]
        if let Some(angles) = &angles {
            // the queries of a group turn with their key
            let groups = self.heads / self.kv_heads;
            let of_queries = angles.repeat_interleave_self_int(groups, Some(2), None);
            (q, k) = (rope::turn(&q, &of_queries), rope::turn(&k, angles));
        }
        if let Some((q_norm, k_norm)) = &self.norms {
            (q, k) = (norm::rms_norm(&q, q_norm), norm::rms_norm(&k, k_norm));
        }
        if angles.is_none() {
            (q, k) = (rope::rotate(&q, first), rope::rotate(&k, first));
        }
        (q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    }

    /// The whole mixer on x `[B, T, d]`. `attend` gets q, k and v, the past included; of the past, `keep` positions
    /// stay in the cache (none: all).
    pub(super) fn forward(
        &self,
        x: &Tensor,
        mut cache: Option<&mut Cache>,
        keep: Option<i64>,
        attend: impl Fn(&Tensor, &Tensor, &Tensor) -> Tensor,
    ) -> Tensor {
        let (b, t, _) = x.size3().expect("x is [B, T, d]");
        let first = cache.as_ref().map_or(0, |cache| cache.position);
        let phases = cache.as_mut().and_then(|cache| cache.phases.as_mut());
        let (q, mut k, mut v) = self.heads(x, first, phases);
        if let Some(cache) = cache {
            if cache.position > 0 {
                k = Tensor::cat(&[&cache.k, &k], 2);
                v = Tensor::cat(&[&cache.v, &v], 2);
            }
            let positions = k.size()[2];
            let kept = keep.map_or(positions, |keep| keep.min(positions));
            cache.k = k.narrow(2, positions - kept, kept);
            cache.v = v.narrow(2, positions - kept, kept);
            cache.position += t;
        }
        let o = attend(&q, &k, &v); // [B, H, T, K]
        linear(&o.transpose(1, 2).reshape([b, t, self.heads * self.width]), &self.o)
    }

    /// Every key asks, as a query would, the last `window` keys (none: all).
    pub(super) fn retrieval(&self, x: &Tensor, window: Option<i64>) -> Retrieval {
        let (_, k, v) = self.heads(x, 0, None);
        Retrieval { weights: attention::read_back(&k, window), values: v }
    }

    pub(super) fn cache(&self, batch: i64) -> Cache {
        let options = (self.k.kind(), self.k.device());
        let phases = self.phases.as_ref().map(|phases| phases.state(batch));
        Cache { phases, ..Cache::new(batch, self.kv_heads, self.width, options) }
    }
}

/// Softmax attention over the whole past.
#[derive(Debug)]
pub(super) struct FullAttention(Projections);

impl FullAttention {
    pub(super) fn new(gene: &Attention, weights: &mut Weights) -> Result<Self, OperatorError> {
        Ok(Self(Projections::new(gene, weights)?))
    }
}

impl Mixer for FullAttention {
    fn forward(&self, x: &Tensor, state: Option<&mut MixerState>) -> Tensor {
        self.0.forward(x, state.map(MixerState::cache), None, attention::full)
    }

    fn step(&self, x: &Tensor, state: &mut MixerState) -> Tensor {
        self.forward(&x.unsqueeze(1), Some(state)).squeeze_dim(1)
    }

    fn state(&self, batch: i64) -> MixerState {
        MixerState::Cache(self.0.cache(batch))
    }

    fn retrieval(&self, x: &Tensor) -> Option<Retrieval> {
        Some(self.0.retrieval(x, None))
    }
}
