//! Attention layer by layer.

use kernels::cuda::Error;
use kernels::cuda::attention::{self, Cache};
use kernels::cuda::chunked::Rows;
use search::architecture::{Attention, QkNorm};

use super::pass::{Kind, Recorder, Sublayer};
use super::weights::{Builder, Matrix};
use crate::cuda::shapes::Load;

/// Positions that a cache holds a multiple of.
const CACHE_POSITIONS: usize = 16;

#[derive(Debug)]
pub(super) struct AttentionLayer {
    heads: usize,
    kv_heads: usize,
    width: usize,
    window: Option<usize>,
    qkv: Matrix,
    out: Matrix,
    norms: [u64; 2],
    rotations: u64,
    cache: Cache,
}

impl AttentionLayer {
    pub(super) fn new(on: &mut Builder<'_>, shape: &Attention, load: Load) -> Result<Self, Error> {
        let [heads, kv_heads, width] =
            [shape.heads, shape.kv_heads, shape.head_width].map(|n| n as usize);
        let window = shape.window.map(|n| n as usize);
        let d = on.d_model;
        let parts = [
            ("q.weight", heads * width),
            ("k.weight", kv_heads * width),
            ("v.weight", kv_heads * width),
        ];
        let qkv = on.matrix(load, &parts, d)?;
        let out = on.matrix(load, &[("o.weight", d)], heads * width)?;
        let mut norms = [0; 2];
        if shape.qk_norm == QkNorm::Head {
            norms = [
                on.vector(load, "q_norm.weight", width)?,
                on.vector(load, "k_norm.weight", width)?,
            ];
        }
        let rotations = on.rotations(shape)?;
        let seen = window.map_or(on.positions, |window| window.min(on.positions));
        let capacity = seen.next_multiple_of(CACHE_POSITIONS);
        let bytes = 2 * on.batch * kv_heads * capacity * width;
        let cache = Cache { keys: on.past(bytes)?, values: on.past(bytes)?, capacity };
        Ok(Self { heads, kv_heads, width, window, qkv, out, norms, rotations, cache })
    }
}

impl Sublayer for AttentionLayer {
    fn record(&self, on: &mut Recorder<'_>, u: Rows) -> Result<(), Error> {
        let &Self { heads, kv_heads, width, window, norms, rotations, cache, .. } = self;
        let (batch, tokens) = (on.batch, on.tokens);
        let shape = attention::Shape { batch, tokens, heads, kv_heads, width, window };
        let attention = attention::Attention::new(shape, on.machine.extent())?;
        let qkv = on.project("qkv", self.qkv, u)?;
        let out = on.room("attended", 2 * on.rows * heads * width)?;
        let scale = (width as f32).powf(-0.5);
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
        on.add(self.out, Rows { address: out, stride: heads * width })
    }
}
