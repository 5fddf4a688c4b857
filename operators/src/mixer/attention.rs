//! Full attention: grouped key and value heads, rotary positions on all, some or no channels of a head, or Selective RoPE;
//! optional RMSNorm of q and k, and a gate of the output.

use search::architecture::{Attention, Mixer as Gene, QkNorm};
use tch::Tensor;

use super::phases::{PhaseState, Phases};
use super::{Cache, Mixer, MixerState};
use crate::OperatorError;
use crate::ops::linear::{linear, project};
use crate::ops::{attention, norm, rope};
use crate::retrieval::{Asked, Retrieval};
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
    /// `[H·K, d]`
    gate: Option<Tensor>,
    /// Of q and of k: `[K]`, or `[H·K]` and `[H_kv·K]`.
    norms: Option<(Tensor, Tensor)>,
    /// Channels of a head that turn with their position, and θ.
    turned: i64,
    theta: f64,
    phases: Option<Phases>,
}

/// What attention makes of its input, `[B, H, T, K]` each; the gate is `[B, T, H·K]`.
struct Heads {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate: Option<Tensor>,
}

/// RMSNorm of heads x `[B, T, H, K]` with a weight for each channel of a head, or of all of them.
fn norm_heads(x: &Tensor, weight: &Tensor) -> Tensor {
    if weight.size()[0] == x.size()[3] {
        return norm::rms_norm(x, weight);
    }
    norm::rms_norm(&x.flatten(2, 3), weight).view_as(x)
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
            gate: if gene.output_gate { Some(weights.take("g.weight")?) } else { None },
            norms: if gene.qk_norm == QkNorm::None {
                None
            } else {
                Some((weights.take("q_norm.weight")?, weights.take("k_norm.weight")?))
            },
            turned: gene.rotary_width().into(),
            theta: gene.rope_theta.into(),
            phases: Phases::new(Gene::Attention(*gene).phases(), weights)?,
        })
    }

    /// Queries, keys and values of x `[B, T, d]`, whose first position is `first`. Selective RoPE moves its state.
    fn heads(&self, x: &Tensor, first: i64, phases: Option<&mut PhaseState>) -> Heads {
        let (b, t, _) = x.size3().expect("x is [B, T, d]");
        let heads = |x: Tensor, heads: i64| x.reshape([b, t, heads, self.width]);
        let maps = [&self.q, &self.k, &self.v].into_iter().chain(&self.gate).collect::<Vec<_>>();
        let mut maps = project(x, &maps).into_iter();
        let [q, k, v] = std::array::from_fn(|_| maps.next().expect("three maps and the gate's"));
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
            (q, k) = (norm_heads(&q, q_norm), norm_heads(&k, k_norm));
        }
        let rotate = |x: &Tensor| rope::rotate(x, first, self.turned, self.theta); // not after Selective RoPE
        let [q, k, v] = [rotate(&q), rotate(&k), v].map(|x| x.transpose(1, 2));
        Heads { q, k, v, gate: maps.next() }
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
        let Heads { q, mut k, mut v, gate } = self.heads(x, first, phases);
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
        let o = o.transpose(1, 2).reshape([b, t, self.heads * self.width]);
        linear(&gate.map_or_else(|| o.shallow_clone(), |gate| &o * gate.sigmoid()), &self.o)
    }

    /// Every key asks, as a query would, the last `window` keys (none: all); or the queries ask.
    pub(super) fn retrieval(&self, x: &Tensor, window: Option<i64>, asked: Asked) -> Retrieval {
        let Heads { q, k, v, .. } = self.heads(x, 0, None);
        match asked {
            Asked::Keys => Retrieval { weights: attention::read_back(&k, window), values: v },
            Asked::Queries => Retrieval {
                weights: attention::read(&q, &k, window),
                values: attention::repeat_heads(&v, self.heads),
            },
        }
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

    fn retrieval(&self, x: &Tensor, asked: Asked) -> Option<Retrieval> {
        Some(self.0.retrieval(x, None, asked))
    }
}
