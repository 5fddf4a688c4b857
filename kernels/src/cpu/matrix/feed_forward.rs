//! A feed-forward network over many tokens: its norm, both products and what is between them, for some rows after the
//! other, so that what lies between the products stays in the nearest caches, in the numbers that are multiplied next.

use super::many::{ROW_BLOCK, Strips, precision};
use super::panels::Storage;
use super::product::{Matrix, share, shares_rows};
use crate::cpu::gemm::View;
use crate::cpu::packed::{Tile, aligned, pack, tile_of_height, words};
use crate::cpu::pool::{Pool, SharedMut};
use crate::cpu::simd::{PANEL, Simd};
use crate::cpu::{Kernel, Level, Precision, run_in};
use crate::norm::cpu::{Gate, OfBranch, RmsNorm};

/// SwiGLU or squared ReLU with its projections.
#[derive(Debug)]
pub struct FeedForward {
    /// f.
    width: usize,
    /// gate, rows of zeros up to whole panels, up: `[⌈f⌉ + f, d]`; of squared ReLU up alone, `[f, d]`
    reading: Matrix,
    /// `[d, f]`
    down: Matrix,
}

impl FeedForward {
    /// SwiGLU: packs gate and up, `[f, d]` each, and down, `[d, f]`.
    pub fn swiglu([gate, up, down]: [&[f32]; 3], d: usize, width: usize, storage: Storage) -> Self {
        let padding = (width.next_multiple_of(PANEL) - width) * d;
        let gate_up = [gate, &vec![0.0; padding], up].concat();
        Self {
            width,
            reading: Matrix::pack(&gate_up, width.next_multiple_of(PANEL) + width, d, storage),
            down: Matrix::pack(down, d, width, storage),
        }
    }

    /// Squared ReLU: packs up, `[f, d]`, and down, `[d, f]`.
    pub fn relu2([up, down]: [&[f32]; 2], d: usize, width: usize, storage: Storage) -> Self {
        Self {
            width,
            reading: Matrix::pack(up, width, d, storage),
            down: Matrix::pack(down, d, width, storage),
        }
    }

    /// Whether up is gated, as in SwiGLU.
    pub fn is_gated(&self) -> bool {
        self.reading.outputs() > self.width
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.reading.bytes() + self.down.bytes()
    }

    /// f.
    pub fn width(&self) -> usize {
        self.width
    }

    /// gate and up in one matrix; its outputs are those of gate, if there is one, then those of up from
    /// [`FeedForward::up_at`] on.
    pub fn reading(&self) -> &Matrix {
        &self.reading
    }

    /// The first output of up in [`FeedForward::reading`].
    pub fn up_at(&self) -> usize {
        if self.is_gated() { self.width.next_multiple_of(PANEL) } else { 0 }
    }

    /// down
    pub fn down(&self) -> &Matrix {
        &self.down
    }

    /// Whether so many tokens are enough for [`FeedForward::apply_to_many`].
    pub fn is_for(tokens: usize, pool: &Pool) -> bool {
        shares_rows(tokens, pool)
    }

    /// x `[T, d]` += down(SiLU(gate·h) ⊙ up·h), or down(max(up·h, 0)²), h = RMSNorm(x) with the weights `norm`, each thread
    /// taking some rows; or with the norm behind down and not before.
    pub fn apply_to_many(&self, pool: &Pool, norm: OfBranch<'_>, x: &mut [f32]) {
        self.apply_to_many_at(Level::best(), pool, norm, x);
    }

    /// [`FeedForward::apply_to_many`] at a given level.
    pub fn apply_to_many_at(&self, level: Level, pool: &Pool, norm: OfBranch<'_>, x: &mut [f32]) {
        let d = self.down.outputs;
        assert_eq!(norm.weight.len(), d, "feed-forward: the norm must be [{d}]");
        self.rows_at(level, pool, Some(norm), x);
    }

    /// h `[T, d]` ← down(SiLU(gate·h) ⊙ up·h), or down(max(up·h, 0)²), without a norm and without the residual stream, each
    /// thread taking some rows.
    pub fn replace_many(&self, pool: &Pool, h: &mut [f32]) {
        self.replace_many_at(Level::best(), pool, h);
    }

    /// [`FeedForward::replace_many`] at a given level.
    pub fn replace_many_at(&self, level: Level, pool: &Pool, h: &mut [f32]) {
        self.rows_at(level, pool, None, h);
    }

    fn rows_at(&self, level: Level, pool: &Pool, norm: Option<OfBranch<'_>>, x: &mut [f32]) {
        let d = self.down.outputs;
        assert_eq!(x.len() % d, 0, "feed-forward: x must be [T, {d}]");
        let tokens = x.len() / d;
        let level = level.min(Level::best());
        let precision = precision(level, self.down.storage());
        let x = SharedMut::new(x);
        pool.run(|thread| {
            let rows = share(0..tokens, thread, pool.threads());
            // SAFETY: the rows of different threads do not overlap.
            let x = unsafe { x.part(rows.start * d, rows.len() * d) };
            run_in(level, precision, Rows { network: self, precision, norm, x });
        });
    }
}

/// Some rows of x.
struct Rows<'a> {
    network: &'a FeedForward,
    precision: Precision,
    /// None: the output takes the place of x.
    norm: Option<OfBranch<'a>>,
    x: &'a mut [f32],
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        match self.precision {
            Precision::F32 => self.in_words::<S, false>(s),
            Precision::Bf16 => self.in_words::<S, true>(s),
        }
    }
}

impl Rows<'_> {
    #[inline(always)]
    fn in_words<S: Simd, const NARROW: bool>(self, s: S) {
        let Self { network, norm, x, .. } = self;
        let FeedForward { width, down, .. } = network;
        let d = down.outputs;
        let mut h = vec![0.0; ROW_BLOCK.min(x.len() / d) * d];
        let before = norm.filter(|norm| !norm.after);
        let behind = norm.filter(|norm| norm.after);
        let mut after = if behind.is_some() { h.clone() } else { Vec::new() };
        let (mut strips, mut hidden) = (Vec::new(), Vec::new());
        let mut unpacked = [Vec::new(), Vec::new()];
        for x in x.chunks_mut(ROW_BLOCK * d) {
            let count = x.len() / d;
            let h = &mut h[..x.len()];
            // Row by row, so that each is still in the nearest cache.
            for (h, x) in h.chunks_exact_mut(d).zip(x.chunks_exact(d)) {
                h.copy_from_slice(x);
                if let Some(norm) = before {
                    RmsNorm { x: h, weight: norm.weight, gate: Gate::None }.body(s);
                }
            }
            let h = Strips::pack::<S, NARROW>(s, View::new(h, d), (count, d), &mut strips);
            let len = count.div_ceil(S::TILE_ROWS) * S::TILE_ROWS * words::<NARROW>(*width);
            let hidden = aligned(&mut hidden, len);
            activate::<S, NARROW>(s, &h, network, hidden, &mut unpacked);
            let hidden = Strips { rows: count, words: hidden };
            let panels = 0..d.div_ceil(PANEL);
            let Some(norm) = behind else {
                let (c, adds) = (x.as_mut_ptr(), before.is_some());
                hidden.multiply::<S, NARROW>(s, (down, panels), c, adds, &mut unpacked[0]);
                continue;
            };
            let y = &mut after[..x.len()];
            hidden.multiply::<S, NARROW>(
                s,
                (down, panels),
                y.as_mut_ptr(),
                false,
                &mut unpacked[0],
            );
            RmsNorm { x: y, weight: norm.weight, gate: Gate::None }.body(s);
            x.iter_mut().zip(y).for_each(|(x, y)| *x += *y);
        }
    }
}

/// The strips of SiLU(gate·h) ⊙ up·h, or of max(up·h, 0)², from those of h, one panel of up and of gate after the other.
#[inline(always)]
fn activate<S: Simd, const NARROW: bool>(
    s: S,
    h: &Strips<'_>,
    network: &FeedForward,
    hidden: &mut [f32],
    [up_space, gate_space]: &mut [Vec<f32>; 2],
) {
    /// The most rows of a register tile of any instruction set.
    const MOST_ROWS: usize = 12;
    let FeedForward { width, reading, .. } = network;
    let (width, panels) = (*width, width.div_ceil(PANEL));
    let inner = words::<NARROW>(reading.inputs);
    let strip_len = S::TILE_ROWS * words::<NARROW>(width);
    let zero = s.splat(0.0);
    let mut tiles = [[0.0_f32; MOST_ROWS * PANEL]; 2];
    for panel in 0..panels {
        let gate =
            network.is_gated().then(|| reading.panel_words::<S, NARROW>(s, panel, gate_space));
        let up_panel = if gate.is_some() { panels + panel } else { panel };
        let up = reading.panel_words::<S, NARROW>(s, up_panel, up_space);
        let columns = (width - panel * PANEL).min(PANEL);
        let at = words::<NARROW>(panel * PANEL) * S::TILE_ROWS;
        let strips = hidden.chunks_exact_mut(strip_len);
        for (row, to) in (0..h.rows).step_by(S::TILE_ROWS).zip(strips) {
            let height = (h.rows - row).min(S::TILE_ROWS);
            for (tile, (weights, scales)) in
                tiles.iter_mut().zip([Some(up), gate].into_iter().flatten())
            {
                let c = tile.as_mut_ptr();
                let out =
                    Tile { c, stride: PANEL, height, width: PANEL, accumulate: false, scales };
                // SAFETY: the strip holds [inner, TILE_ROWS], the panel [inner, PANEL], the tile as many rows of PANEL.
                unsafe {
                    let strip = h.words.as_ptr().add(row * inner);
                    tile_of_height::<S, NARROW>(s, inner, strip, weights.as_ptr(), &out);
                }
            }
            let [up, gates] = &mut tiles;
            for i in (0..height * PANEL).step_by(S::LANES) {
                // SAFETY: i + LANES ≤ the rows of both tiles, as PANEL is a multiple of LANES.
                unsafe {
                    let value = s.load(up.as_ptr().add(i));
                    let value = if gate.is_some() {
                        s.mul(s.silu(s.load(gates.as_ptr().add(i))), value)
                    } else {
                        let kept = s.max(value, zero);
                        s.mul(kept, kept)
                    };
                    s.store(up.as_mut_ptr().add(i), value);
                }
            }
            let tile = View::new(&up[..], PANEL);
            pack::<S, NARROW>(s, tile, height, columns, &mut to[at..], S::TILE_ROWS);
        }
    }
}
