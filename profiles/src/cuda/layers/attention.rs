//! Attention layer by layer.

use kernels::cuda::Error;
use kernels::cuda::attention::{self, Cache};
use kernels::cuda::chunked::Rows;
use kernels::cuda::phases::Heads;
use kernels::cuda::rows::Each;
use search::architecture::{Attention, Phases, QkNorm};

use super::pass::{Kind, Recorder, Sublayer, part};
use super::phases::Angles;
use super::weights::{Builder, Matrix};
use crate::cuda::shapes::{Load, paired};

/// Positions that a cache holds a multiple of.
const CACHE_POSITIONS: usize = 16;

#[derive(Debug)]
pub(super) struct AttentionLayer {
    heads: usize,
    kv_heads: usize,
    width: usize,
    window: Option<usize>,
    /// To q, k and v, and the gate where there is one.
    qkv: Matrix,
    gate: bool,
    out: Matrix,
    norms: [u64; 2],
    /// Whether they norm all heads together.
    whole_norm: bool,
    angles: Option<Angles>,
    rotations: u64,
    cache: Cache,
}

impl AttentionLayer {
    pub(super) fn new(
        on: &mut Builder<'_>,
        shape: &Attention,
        phases: Option<Phases>,
        load: Load,
    ) -> Result<Self, Error> {
        let [heads, kv_heads, width] =
            [shape.heads, shape.kv_heads, shape.head_width].map(|n| n as usize);
        let window = shape.window.map(|n| n as usize);
        let d = on.d_model;
        let mut parts = vec![
            ("q.weight", heads * width),
            ("k.weight", kv_heads * width),
            ("v.weight", kv_heads * width),
        ];
        if shape.output_gate {
            parts.push(("g.weight", heads * width));
        }
        let load = &mut paired(shape, load);
        let qkv = on.matrix(load, &parts, d)?;
        let out = on.matrix(load, &[("o.weight", d)], heads * width)?;
        let whole_norm = shape.qk_norm == QkNorm::Whole;
        let normed = if whole_norm { [heads, kv_heads] } else { [1, 1] };
        let mut norms = [0; 2];
        if shape.qk_norm != QkNorm::None {
            norms = [
                on.vector(load, "q_norm.weight", normed[0] * width)?,
                on.vector(load, "k_norm.weight", normed[1] * width)?,
            ];
        }
        let angles = phases.map(|phases| Angles::new(on, phases, load)).transpose()?;
        let rotations = on.rotations(shape)?;
        let seen = window.map_or(on.positions, |window| window.min(on.positions));
        let capacity = seen.next_multiple_of(CACHE_POSITIONS);
        let bytes = 2 * on.batch * kv_heads * capacity * width;
        let cache = Cache { keys: on.past(bytes)?, values: on.past(bytes)?, capacity };
        let gate = shape.output_gate;
        Ok(Self {
            heads,
            kv_heads,
            width,
            window,
            qkv,
            gate,
            out,
            norms,
            whole_norm,
            angles,
            rotations,
            cache,
        })
    }
}

impl Sublayer for AttentionLayer {
    fn record(&self, on: &mut Recorder<'_>, u: Rows) -> Result<(), Error> {
        let &Self { heads, kv_heads, width, window, mut norms, rotations, cache, .. } = self;
        let (batch, tokens) = (on.batch, on.tokens);
        let shape = attention::Shape { batch, tokens, heads, kv_heads, width, window };
        let attention = attention::Attention::new(shape, on.machine.extent())?;
        let qkv = on.project("qkv", self.qkv, u)?;
        let out = on.room("attended", 2 * on.rows * heads * width)?;
        let scale = (width as f32).powf(-0.5);
        if let Some(angles) = &self.angles {
            let turned = Heads { queries: heads, all: heads + kv_heads };
            angles.turn(on, u, qkv, turned)?;
        }
        if self.whole_norm {
            on.launch(attention.whole_norm(qkv, norms));
            norms = [0; 2];
        }
        match on.kind {
            Kind::Prefill { .. } => {
                on.launch(attention.rotate(qkv, norms, rotations, 0, Some(cache)));
                let [q, k, v] = attention.fused(qkv);
                on.launch(attention.prefill(q, k, v, scale, out));
            }
            Kind::Step { positions } => {
                let at = on.positions;
                on.launch(attention.rotate(qkv, norms, rotations, at, Some(cache)));
                let splits = attention.splits(positions);
                let scratch = on.room("splits", attention.scratch_bytes(splits))?;
                for launch in attention.step(qkv, cache, at, scale, (splits, scratch), out) {
                    on.launch(launch);
                }
            }
        }
        let mut y = Rows { address: out, stride: heads * width };
        if self.gate {
            let each = Each { rows: on.rows, width: heads * width, wide: false };
            each.check()?;
            let gated = on.room("gated", 2 * on.rows * heads * width)?;
            on.launch(each.gate(y, part(qkv, (heads + 2 * kv_heads) * width), gated));
            y.address = gated;
        }
        on.add(self.out, y)
    }
}
