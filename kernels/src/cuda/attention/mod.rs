//! Causal softmax attention, over the whole past or a window: of whole sequences on tensor cores, and of one token of
//! each sequence of a batch over its cache.
//!
//! `attention_whole_norm` norms queries and keys over all heads, where that is wanted; `attention_rotate` norms and rotates queries and keys in place and keeps keys and values in the cache;
//! `attention_prefill` needs no cache, `attention_step` nothing else.

pub mod check;
mod shape;
mod wide;

use super::arguments::Arguments;
use super::chunked::{Rows, tile};
use super::{Error, Extent, Launch, Source};
pub use shape::{Heads, Shape};
use wide::Wide;

/// Warps of a block, and heads that a block of the step takes at a time.
const WARPS: usize = 4;
const TILE_HEADS: usize = 16;
/// Positions that a warp of the step takes at a time; a cache holds a multiple of it.
const UNIT: usize = 16;
/// Threads that norm all heads of a position.
const WHOLE_NORM_THREADS: usize = 256;

/// Keys and values of a batch on the device, bf16 `[B, key heads, capacity, K]` each: position p at p mod capacity.
/// Positions not written yet may hold anything.
#[derive(Debug, Clone, Copy)]
pub struct Cache {
    /// Address of the keys.
    pub keys: u64,
    /// Address of the values.
    pub values: u64,
    /// A multiple of 16; at least the window, or all positions where there is none.
    pub capacity: usize,
}

/// One of the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the module says what each does")]
pub enum Part {
    WholeNorm,
    Rotate,
    Prefill,
    Step,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::WholeNorm, Self::Rotate, Self::Prefill, Self::Step];
}

/// Cosines and sines of the rotations, `[positions, K / 2, 2]` (RoFormer, arXiv 2104.09864, eq. 34).
pub fn rotations(positions: usize, width: usize, theta: f64) -> Vec<f32> {
    let angle = |p: usize, i: usize| p as f64 * theta.powf(-2.0 * i as f64 / width as f64);
    (0..positions)
        .flat_map(|p| (0..width / 2).map(move |i| angle(p, i)))
        .flat_map(|angle| [angle.cos() as f32, angle.sin() as f32])
        .collect()
}

/// The launches at one shape.
#[derive(Debug, Clone)]
pub struct Attention {
    shape: Shape,
    /// Pieces of 16 queries of a warp.
    pieces: usize,
    /// Positions of a tile of keys.
    keys: usize,
    /// Units in the ring of a warp.
    stages: usize,
    multiprocessors: usize,
    /// The kernel of whole sequences on a machine that has products of four warps.
    wide: Option<Wide>,
}

impl Attention {
    /// # Errors
    /// When the kernels do not cover the shape.
    pub fn new(shape: Shape, extent: Extent) -> Result<Self, Error> {
        let refuse = |what: &str, expected: &str, got: usize| {
            Err(Error::Shape {
                what: what.to_owned(),
                expected: expected.to_owned(),
                got: got.to_string(),
            })
        };
        if ![32, 64, 96, 128].contains(&shape.width) {
            return refuse("the width of attention's heads", "32, 64, 96 or 128", shape.width);
        }
        if shape.kv_heads == 0 || shape.heads == 0 || !shape.heads.is_multiple_of(shape.kv_heads) {
            return refuse(
                "the number of heads",
                "a multiple of that of the key heads",
                shape.heads,
            );
        }
        if shape.batch * shape.tokens == 0 {
            return refuse("the number of positions", "at least 1", shape.batch * shape.tokens);
        }
        if shape.window == Some(0) {
            return refuse("the window", "at least 1, the current position", 0);
        }
        // Two blocks should fit on a multiprocessor; of the smaller ones there are more where sequences are few and short.
        let multiprocessors = extent.multiprocessors.max(1) as usize;
        let wide = Wide::of(shape, extent);
        let mut attention = Self { shape, pieces: 2, keys: 64, stages: 3, multiprocessors, wide };
        let limit = extent.shared_bytes as usize;
        let blocks = attention.prefill_grid();
        if attention.prefill_shared_bytes() > limit || blocks.0 * blocks.1 < multiprocessors {
            attention.pieces = 1;
        }
        if attention.pieces == 2 && shape.width > 64 {
            attention.keys = 32; // 5 % faster on an H100: fewer registers, more products in flight
        }
        if attention.step_shared_bytes() > limit {
            attention.stages = 2;
        }
        let needed = Part::ALL.map(|part| attention.part_shared_bytes(part));
        super::check_shared(needed, limit).map(|()| attention)
    }

    /// The constants that the source is compiled with, all kernels in one: for the emulator.
    pub fn defines(&self) -> Vec<(&'static str, u32)> {
        super::each_once(Part::ALL.map(|part| self.part_defines(part)))
    }

    /// The constants of one kernel, which compile that kernel alone.
    pub fn part_defines(&self, part: Part) -> Vec<(&'static str, u32)> {
        let width = ("KW", self.shape.width as u32);
        match part {
            Part::WholeNorm => vec![("WHOLE_NORM", 1)],
            Part::Rotate => vec![("ROTATE", 1), width],
            Part::Prefill => {
                vec![("PREFILL", 1), width, ("M", self.pieces as u32), ("KEYS", self.keys as u32)]
            }
            Part::Step => vec![("ONE_TOKEN", 1), width, ("STAGES", self.stages as u32)],
        }
    }

    /// Bytes of shared memory of a block of one kernel; the one that combines the splits of a step has none.
    pub fn part_shared_bytes(&self, part: Part) -> usize {
        match part {
            Part::WholeNorm => WHOLE_NORM_THREADS / 32 * 4,
            Part::Rotate => 0,
            Part::Prefill => self.prefill_shared_bytes(),
            Part::Step => self.step_shared_bytes(),
        }
    }

    /// Constants and shared memory of the kernel of [`Source::WideAttention`], where that takes whole sequences.
    pub fn wide(&self) -> Option<(Vec<(&'static str, u32)>, usize)> {
        self.wide.map(|wide| (wide.defines(), wide.shared_bytes()))
    }

    /// q, k and v side by side in rows `[B, T, (H + 2 key heads) K]`.
    pub fn fused(&self, qkv: Rows) -> [Heads; 3] {
        let Shape { tokens, heads, kv_heads, width, .. } = self.shape;
        [0, heads, heads + kv_heads].map(|head| Heads {
            address: qkv.address + (2 * head * width) as u64,
            batch: tokens * qkv.stride,
            row: qkv.stride,
            head: width,
        })
    }

    /// Norms q and k of rows as in [`Self::fused`] in place, each over all of its heads; `norms` are f32 `[H K]` and
    /// `[key heads K]`.
    pub fn whole_norm(&self, qkv: Rows, norms: [u64; 2]) -> Launch {
        let Shape { batch, tokens, heads, kv_heads, width, .. } = self.shape;
        let mut arguments = Arguments::default();
        arguments
            .addresses(&[qkv.address, norms[0], norms[1], qkv.stride as u64])
            .counts(&[heads * width, kv_heads * width])
            .factor(crate::norm::RMS_EPS as f32);
        let block = (WHOLE_NORM_THREADS, self.part_shared_bytes(Part::WholeNorm));
        let grid = (batch * tokens, 2);
        self.launch(Part::WholeNorm, "attention_whole_norm", grid, block, &mut arguments)
    }

    /// Norms each head of q and k of rows as in [`Self::fused`] (`norms` of q and of k, f32 `[K]`; 0: none) and rotates it
    /// by its position (`rotations` as [`rotations`] has them; 0: none), both in place; k and v go to the cache. `first`
    /// is u32 `[B]`, the position of each sequence's first row; 0: all begin.
    pub fn rotate(
        &self,
        qkv: Rows,
        norms: [u64; 2],
        rotations: u64,
        first: u64,
        cache: Option<Cache>,
    ) -> Launch {
        let Shape { batch, tokens, heads, kv_heads, width, .. } = self.shape;
        let [keys, values] = cache.map_or([0, 0], |cache| [cache.keys, cache.values]);
        let mut arguments = Arguments::default();
        arguments
            .addresses(&[qkv.address, norms[0], norms[1], rotations, first, keys, values])
            .addresses(&[qkv.stride as u64])
            .counts(&[batch, tokens, heads, kv_heads, cache.map_or(1, |cache| cache.capacity)])
            .factor(crate::norm::RMS_EPS as f32);
        let all = heads + kv_heads * if cache.is_some() { 2 } else { 1 };
        let team = (width / 16).next_power_of_two();
        let blocks = (batch * tokens * all).div_ceil(256 / team);
        self.launch(Part::Rotate, "attention_rotate", (blocks, 1), (256, 0), &mut arguments)
    }

    /// Attention of every position to those before it and itself, `[B, T, H, K]` without gaps.
    pub fn prefill(&self, q: Heads, k: Heads, v: Heads, scale: f32, out: u64) -> Launch {
        if let Some(wide) = self.wide {
            return wide.prefill(q, k, v, scale, out);
        }
        let Shape { tokens, heads, kv_heads, window, .. } = self.shape;
        let mut arguments = Arguments::default();
        arguments.addresses(&[q.address, k.address, v.address, out]);
        for x in [q, k, v] {
            arguments.addresses(&[x.batch, x.row, x.head].map(|stride| stride as u64));
        }
        arguments
            .counts(&[tokens, heads, heads / kv_heads, window.unwrap_or(0)])
            .factor(scale * std::f32::consts::LOG2_E);
        let block = (32 * WARPS, self.prefill_shared_bytes());
        self.launch(Part::Prefill, "attention_prefill", self.prefill_grid(), block, &mut arguments)
    }

    /// Blocks that should share the `positions` of a key head's cache, so that all multiprocessors have work.
    pub fn splits(&self, positions: usize) -> usize {
        let blocks = self.shape.batch * self.shape.kv_heads * self.tiles();
        let seen = self.shape.window.map_or(positions, |window| positions.min(window));
        // Each warp of a block should have a few units.
        let most = seen.div_ceil(UNIT * WARPS * 4).max(1);
        // One block on a multiprocessor has enough on its way: two were 5 % slower on an H100.
        let slots = self.multiprocessors;
        let busy = |splits: usize| {
            let rounds = (blocks * splits).div_ceil(slots) * slots;
            (blocks * splits) as f64 / rounds as f64
        };
        let enough = (1..=most).find(|splits| busy(*splits) >= 0.9);
        enough
            .unwrap_or_else(|| (1..=most).max_by(|a, b| busy(*a).total_cmp(&busy(*b))).unwrap_or(1))
    }

    /// Bytes that a step with so many splits wants besides its output.
    pub fn scratch_bytes(&self, splits: usize) -> usize {
        self.shape.batch * self.shape.heads * splits * (self.shape.width + 2) * 4
    }

    /// Attention of one token of each sequence to the cache, where its own key and value are already; `[B, H, K]`
    /// without gaps. Rows of q are `[B, H K]`, `positions` u32 `[B]`, that of the newest key of each sequence. `scratch`
    /// has [`Self::scratch_bytes`]; it is not used by one split, which is also one launch.
    pub fn step(
        &self,
        q: Rows,
        cache: Cache,
        positions: u64,
        scale: f32,
        (splits, scratch): (usize, u64),
        out: u64,
    ) -> Vec<Launch> {
        let Shape { batch, heads, kv_heads, width, window, .. } = self.shape;
        let tiles = self.tiles();
        let sums = scratch + (batch * heads * splits * width * 4) as u64;
        let mut arguments = Arguments::default();
        arguments
            .addresses(&[q.address, cache.keys, cache.values, positions, out, scratch, sums])
            .addresses(&[q.stride as u64])
            .counts(&[heads, kv_heads, tiles, splits, cache.capacity, window.unwrap_or(0)])
            .factor(scale * std::f32::consts::LOG2_E);
        let grid = (splits * tiles, batch * kv_heads);
        let block = (32 * WARPS, self.step_shared_bytes());
        let mut launches =
            vec![self.launch(Part::Step, "attention_step", grid, block, &mut arguments)];
        if splits > 1 {
            let mut arguments = Arguments::default();
            arguments.addresses(&[scratch, sums, out]).counts(&[batch * heads, splits]);
            let grid = ((batch * heads * width).div_ceil(128), 1);
            let combine =
                self.launch(Part::Step, "attention_combine", grid, (128, 0), &mut arguments);
            launches.push(combine);
        }
        launches
    }

    fn launch(
        &self,
        part: Part,
        kernel: &'static str,
        grid: (usize, usize),
        (threads, shared_bytes): (usize, usize),
        arguments: &mut Arguments,
    ) -> Launch {
        Launch {
            source: Source::Attention,
            kernel,
            defines: self.part_defines(part),
            grid: (grid.0 as u32, grid.1 as u32),
            threads: threads as u32,
            shared_bytes: shared_bytes as u32,
            together: false,
            boxes: Vec::new(),
            arguments: arguments.finish(),
        }
    }

    /// Tiles of query heads that share a key head.
    fn tiles(&self) -> usize {
        (self.shape.heads / self.shape.kv_heads).div_ceil(TILE_HEADS)
    }

    fn queries(&self) -> usize {
        16 * self.pieces * WARPS
    }

    fn prefill_grid(&self) -> (usize, usize) {
        (self.shape.batch * self.shape.heads, self.shape.tokens.div_ceil(self.queries()))
    }

    /// `PrefillShared::end` of the source.
    fn prefill_shared_bytes(&self) -> usize {
        tile(self.queries(), self.shape.width) + 4 * tile(self.keys, self.shape.width)
    }

    /// `StepShared::end`.
    fn step_shared_bytes(&self) -> usize {
        let units = WARPS * self.stages * 2 * tile(UNIT, self.shape.width);
        tile(TILE_HEADS, self.shape.width) + units + WARPS * TILE_HEADS * 2 * 4
    }
}
