//! Full and sliding-window attention with their cache.

use kernels::activation::cpu::SigmoidGate;
use kernels::attention::cpu::{Cached, Decode};
use kernels::attention::prefill::{Inputs, prefill};
use kernels::cpu::matrix::Storage;
use kernels::cpu::{Matrix, Precision, Rows, run};
use kernels::norm::cpu::{Gate, OfBranch, RmsNorm};
use kernels::rope::cpu::Table;
use search::architecture::{self, QkNorm};

use crate::engine::cache::Cache;
use crate::engine::function::Function;
use crate::engine::memory::Memory;
use crate::engine::phases::{Phases, Turns};
use crate::engine::scratch::{ROWS, Run};
use crate::weights::Weights;

/// An attention mixer with its projections.
#[derive(Debug)]
pub(crate) struct Attention {
    heads: usize,
    kv_heads: usize,
    head_width: usize,
    window: Option<usize>,
    /// Rows q, k, v, and those of the gate where there is one.
    input: Matrix,
    /// Where the gate begins in a row of the input's outputs.
    gate_at: Option<usize>,
    /// Channels of a head that turn with their position.
    turned: usize,
    theta: f64,
    /// Selective RoPE in place of rotary positions.
    phases: Option<Phases>,
    /// Weights of the RMSNorm of q and of k: `[K]` each, or `[H·K]` and `[H_kv·K]`.
    qk_norm: Option<[Vec<f32>; 2]>,
    /// `[d, H·K]`
    output: Matrix,
}

impl Function for Attention {
    fn memory(&self) -> Memory {
        let none = match self.input.storage() {
            Storage::F32 => Cached::new(Precision::F32),
            Storage::Bf16 | Storage::Int8 => Cached::new(Precision::Bf16),
        };
        Memory::Cache(Cache {
            keys: vec![none.clone(); self.kv_heads],
            values: vec![none; self.kv_heads],
            position: 0,
            window: self.window,
            rotations: Table::new(self.turned, self.theta),
            phases: self.phases.as_ref().map(Phases::state),
        })
    }

    fn weight_bytes(&self) -> usize {
        self.input.bytes()
            + self.output.bytes()
            + self.phases.as_ref().map_or(0, Phases::weight_bytes)
    }

    fn forward(
        &self,
        on: &mut Run<'_>,
        norm: OfBranch<'_>,
        tokens: usize,
        x: &mut [f32],
        memories: &mut [Memory],
    ) {
        on.mix_sequences(
            (&self.input, &self.output),
            (norm, tokens),
            x,
            memories.iter_mut().map(Memory::cache),
            |on, x, (p, mixed), cache| {
                let turns = if let (Some(phases), Some(state)) = (&self.phases, &mut cache.phases) {
                    Some(phases.turns(on, norm.weight, x, state))
                } else {
                    cache.rotations.extend_to(cache.position + tokens);
                    None
                };
                self.norm_and_rotate(on, p, cache, turns.as_ref());
                if let Some(turns) = turns {
                    turns.give_back(on);
                }
                if tokens == 1 {
                    self.decode(on, p, mixed, cache);
                } else {
                    self.prefill(on, p, tokens, mixed, cache);
                }
                cache.position += tokens;
            },
            |p, mixed| {
                if let Some(at) = self.gate_at {
                    run(SigmoidGate { gate: &p[at..], x: mixed });
                }
            },
        );
    }
}

impl Attention {
    pub(super) fn new(
        weights: &Weights,
        prefix: &str,
        d: usize,
        shape: &architecture::Attention,
        storage: Storage,
        phases: Option<Phases>,
    ) -> Self {
        let mut rows = vec!["q.weight", "k.weight", "v.weight"];
        if shape.output_gate {
            rows.push("g.weight");
        }
        let input = weights.rows(prefix, &rows);
        let norm = |name: &str| weights.get(&format!("{prefix}{name}.weight")).to_vec();
        let [heads, kv_heads, head_width] =
            [shape.heads, shape.kv_heads, shape.head_width].map(|n| n as usize);
        let output = weights.get(&format!("{prefix}o.weight"));
        Self {
            heads,
            kv_heads,
            head_width,
            window: shape.window.map(|w| w as usize),
            input: Matrix::pack(&input, input.len() / d, d, storage),
            gate_at: shape.output_gate.then_some((heads + 2 * kv_heads) * head_width),
            turned: shape.rotary_width() as usize,
            theta: shape.rope_theta.into(),
            phases,
            qk_norm: (shape.qk_norm != QkNorm::None).then(|| ["q_norm", "k_norm"].map(norm)),
            output: Matrix::pack(output, d, heads * head_width, storage),
        }
    }

    /// The heads of q and k in p `[T, (H + 2 H_kv)·K …]`, in place.
    fn norm_and_rotate(&self, on: &Run<'_>, p: &mut [f32], cache: &Cache, turns: Option<&Turns>) {
        let group = self.heads / self.kv_heads;
        let (k, stride) = (self.head_width, self.input.outputs());
        on.pool.chunks_mut(p, ROWS * stride, |block, p| {
            for (t, row) in (block * ROWS..).zip(p.chunks_exact_mut(stride)) {
                let (q, rest) = row.split_at_mut(self.heads * k);
                let key = &mut rest[..self.kv_heads * k];
                if let Some(turns) = turns {
                    for (head, q) in q.chunks_exact_mut(k).enumerate() {
                        turns.turn(q, t, head / group);
                    }
                    for (head, key) in key.chunks_exact_mut(k).enumerate() {
                        turns.turn(key, t, head);
                    }
                }
                if let Some([q_weight, k_weight]) = &self.qk_norm {
                    run(RmsNorm { x: q, weight: q_weight, gate: Gate::None });
                    run(RmsNorm { x: key, weight: k_weight, gate: Gate::None });
                }
                if self.turned > 0 {
                    for head in q.chunks_exact_mut(k).chain(key.chunks_exact_mut(k)) {
                        cache.rotations.rotate(&mut head[..self.turned], cache.position + t);
                    }
                }
            }
        });
    }

    /// mixed `[H·K]` of the next position.
    fn decode(&self, on: &mut Run<'_>, p: &[f32], mixed: &mut [f32], cache: &mut Cache) {
        let k = self.head_width;
        self.remember(p, 1, cache);
        let cached = cache.keys[0].len() / k;
        let group = self.heads / self.kv_heads;
        let mut scores = on.scratch.take(self.kv_heads * cached);
        on.pool.pairs_mut(self.kv_heads, &mut scores, mixed, |head, scores, o| {
            run(Decode {
                q: &p[head * group * k..][..group * k],
                keys: &cache.keys[head],
                values: &cache.values[head],
                key_width: k,
                value_width: k,
                scale: (k as f32).powf(-0.5),
                scores,
                o,
            });
        });
        on.scratch.give(scores);
    }

    /// mixed `[T, H·K]` of the next T positions.
    fn prefill(
        &self,
        on: &mut Run<'_>,
        p: &[f32],
        tokens: usize,
        mixed: &mut [f32],
        cache: &mut Cache,
    ) {
        let (k, stride) = (self.head_width, self.input.outputs());
        let past = cache.keys[0].len() / k;
        let seen = past + tokens;
        // The cached positions in order, then the new ones, [H_kv, past + T, K] each.
        let mut keys = on.scratch.take(self.kv_heads * k * seen);
        let mut values = on.scratch.take(self.kv_heads * k * seen);
        on.pool.pairs_mut(self.kv_heads, &mut keys, &mut values, |head, keys, values| {
            // Where the new key and value of this head begin in a row of p.
            let key_at = (self.heads + head) * k;
            let value_at = key_at + self.kv_heads * k;
            let (old_keys, new_keys) = keys.split_at_mut(past * k);
            let (old_values, new_values) = values.split_at_mut(past * k);
            let old = old_keys.chunks_exact_mut(k).zip(old_values.chunks_exact_mut(k));
            for (at, (key, value)) in old.enumerate() {
                let slot = self.slot(cache.position - past + at) * k;
                cache.keys[head].read(slot, key);
                cache.values[head].read(slot, value);
            }
            let new = new_keys.chunks_exact_mut(k).zip(new_values.chunks_exact_mut(k));
            for ((key, value), row) in new.zip(p.chunks_exact(stride)) {
                key.copy_from_slice(&row[key_at..][..k]);
                value.copy_from_slice(&row[value_at..][..k]);
            }
        });
        let inputs = Inputs {
            q: Rows::new(p, tokens, self.heads * k, stride),
            keys: &keys,
            values: &values,
            tokens,
            heads: self.heads,
            kv_heads: self.kv_heads,
            key_width: k,
            value_width: k,
            window: self.window,
            scale: (k as f32).powf(-0.5),
        };
        let arithmetic = self.input.precision().into();
        prefill(arithmetic, &inputs, mixed, &|n, f| on.pool.for_each(n, f));
        self.remember(p, tokens, cache);
        for buffer in [keys, values] {
            on.scratch.give(buffer);
        }
    }

    /// Where the cache keeps a position.
    fn slot(&self, position: usize) -> usize {
        self.window.map_or(position, |window| position % window)
    }

    /// Puts the keys and values of p's rows into the cache.
    fn remember(&self, p: &[f32], tokens: usize, cache: &mut Cache) {
        let (k, stride) = (self.head_width, self.input.outputs());
        let kept = tokens.min(self.window.unwrap_or(tokens));
        for t in tokens - kept..tokens {
            let slot = self.slot(cache.position + t) * k;
            let row = &p[t * stride + self.heads * k..][..2 * self.kv_heads * k];
            let (keys, values) = row.split_at(self.kv_heads * k);
            let heads = cache.keys.iter_mut().zip(keys.chunks_exact(k));
            for (rows, new) in heads.chain(cache.values.iter_mut().zip(values.chunks_exact(k))) {
                if rows.len() < slot + k {
                    rows.resize(slot + k);
                }
                rows.write(slot, new);
            }
        }
    }
}
