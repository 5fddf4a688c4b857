//! Attention of whole sequences by groups of four warps, `wide.cu`.

use super::shape::{Heads, Shape};
use crate::cuda::arguments::Arguments;
use crate::cuda::{Boxes, Extent, Launch, Source};

/// Rows of queries that a group of four warps owns, and columns of a box.
const SIDE: usize = 64;
/// Positions of a tile of keys.
const KEYS: usize = 128;
/// Tiles of keys, and of values, in shared memory.
const STAGES: usize = 2;
/// From so many positions on heads are gone through in sections, whose keys and values have so many bytes at most: about
/// a last-level cache. On an H200 that is 2 % faster at 32,768 positions, and 4 % slower at 8,192.
const LONG: usize = 16_384;
const SECTION_BYTES: usize = 64 << 20;

/// The launch at one shape.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wide {
    shape: Shape,
    /// Groups that multiply.
    groups: usize,
    multiprocessors: usize,
}

impl Wide {
    /// Where the machine has what it takes, and the heads a width for it.
    pub(super) fn of(shape: Shape, extent: Extent) -> Option<Self> {
        // A third group is 9 % faster on an H200 where there are registers for it.
        let groups = if shape.width <= SIDE { 3 } else { 2 };
        let multiprocessors = extent.multiprocessors.max(1) as usize;
        let wide = Self { shape, groups, multiprocessors };
        let fits = wide.shared_bytes() <= extent.shared_bytes as usize;
        (extent.hopper && fits && [64, 96, 128].contains(&shape.width)).then_some(wide)
    }

    pub(super) fn defines(&self) -> Vec<(&'static str, u32)> {
        let [width, keys, groups] = [self.shape.width, KEYS, self.groups].map(|n| n as u32);
        vec![("WIDE_PREFILL", 1), ("KW", width), ("KEYS", keys), ("GROUPS", groups)]
    }

    /// `WideShared::end` of the source.
    pub(super) fn shared_bytes(&self) -> usize {
        let rows = 2 * self.groups * SIDE + 2 * STAGES * KEYS;
        self.shape.width.div_ceil(SIDE) * rows * 2 * SIDE + (2 + 4 * STAGES) * 8
    }

    pub(super) fn prefill(&self, q: Heads, k: Heads, v: Heads, scale: f32, out: u64) -> Launch {
        let Shape { batch, tokens, heads, kv_heads, width, window } = self.shape;
        let boxes = |x: Heads, heads: usize, rows: usize| Boxes {
            address: x.address,
            extents: [width, tokens, heads, batch],
            strides_bytes: [x.row, x.head, x.batch].map(|elements| 2 * elements),
            rows,
        };
        let row = heads * width;
        let out = Heads { address: out, batch: tokens * row, row, head: width };
        let pieces = tokens.div_ceil(self.groups * SIDE);
        let tiles = batch * heads * pieces;
        // The blocks that there is room for, of which each takes as many keys; of sections a block for each tile, which
        // begins when another ends, as no such order is even.
        let (section, blocks) = if tokens > LONG {
            let of_a_head = (4 * tokens * width * kv_heads / heads).max(1);
            ((SECTION_BYTES / of_a_head).clamp(1, batch * heads), tiles)
        } else {
            (batch * heads, tiles.min(self.multiprocessors))
        };
        let mut arguments = Arguments::default();
        arguments
            .counts(&[tokens, heads, heads / kv_heads, window.unwrap_or(0), pieces, tiles])
            .counts(&[section, batch * heads])
            .factor(scale * std::f32::consts::LOG2_E)
            .counts(&[0; 7]);
        Launch {
            source: Source::WideAttention,
            kernel: "attention_prefill_wide",
            defines: self.defines(),
            grid: (blocks as u32, 1),
            threads: (128 * (self.groups + 1)) as u32,
            shared_bytes: self.shared_bytes() as u32,
            together: false,
            boxes: vec![
                boxes(q, heads, SIDE),
                boxes(k, kv_heads, KEYS),
                boxes(v, kv_heads, KEYS),
                boxes(out, heads, SIDE),
            ],
            arguments: arguments.finish(),
        }
    }
}
