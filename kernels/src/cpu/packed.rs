//! Large products, the loops of BLIS (ACM TOMS 41(3)): both factors are packed, C is computed in register tiles.
//!
//! A block of rows of A is packed into strips of [`Simd::TILE_ROWS`] rows and stays in the second-level cache; B is packed
//! into panels of [`PANEL`] columns, each read once for a block. Packing transposes where it must, so that factors of any
//! orientation end in the same tile, and rounds to pairs of bf16 where the product is [`Precision::Bf16`]: a *word* of a
//! strip or panel is one f32 or one such pair along the inner dimension.

mod pack;
mod tile;

use super::gemm::View;
use super::pool::SharedMut;
use super::simd::{PANEL, Simd};
use super::{Kernel, Level, Precision, run_in};

pub(crate) use pack::pack;
pub(crate) use tile::{Tile, tile_of_height};

/// Rows of A that are packed at once: with [`DEPTH`] words each they fill a fifth of a second-level cache of 1 MiB.
pub(crate) const BLOCK: usize = 96;

/// Words of the inner dimension that are packed at once, at most.
const DEPTH: usize = 512;

/// Instructions and numbers of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arithmetic {
    /// The instruction set.
    pub level: Level,
    /// The numbers that are multiplied.
    pub precision: Precision,
}

impl From<Precision> for Arithmetic {
    /// At the best level of this machine.
    fn from(precision: Precision) -> Self {
        Self { level: Level::best(), precision }
    }
}

impl Arithmetic {
    /// Words that hold an inner dimension of k.
    fn words(self, k: usize) -> usize {
        match self.precision {
            Precision::F32 => k,
            Precision::Bf16 => k.div_ceil(2),
        }
    }

    /// Values of panels that hold B `[k, n]`.
    pub(crate) fn panels_len(self, n: usize, k: usize) -> usize {
        n.div_ceil(PANEL) * self.panel_len(k)
    }

    fn panel_len(self, k: usize) -> usize {
        PANEL * self.words(k)
    }

    /// Cuts an inner dimension into parts of nearly one length that are packed at once, `(start, length)`.
    pub(crate) fn parts(self, k: usize) -> impl Iterator<Item = (usize, usize)> {
        let most = match self.precision {
            Precision::F32 => DEPTH,
            Precision::Bf16 => 2 * DEPTH,
        };
        let parts = k.div_ceil(most).max(1);
        let length = k.div_ceil(parts).next_multiple_of(2).min(k.max(1));
        (0..parts).map(move |i| (i * length, length.min(k.saturating_sub(i * length))))
    }

    /// Packs panel `index` of B, given as its transpose `[n, k]`, into its place among the panels.
    pub(crate) fn pack_panel(
        self,
        b: View<'_>,
        [n, k]: [usize; 2],
        index: usize,
        panels: &SharedMut<'_>,
    ) {
        let from = index * PANEL;
        let width = (n - from).min(PANEL);
        assert!(k == 0 || b.data.len() > (n - 1) * b.rows + (k - 1) * b.columns, "B: [{n}, {k}]");
        let length = self.panel_len(k);
        // SAFETY: callers pack each panel once.
        let to = unsafe { panels.part(index * length, length) };
        let source = View { data: &b.data[(from * b.rows).min(b.data.len())..], ..b };
        run_in(self.level, self.precision, Pack { arithmetic: self, source, width, k, to });
    }

    /// Computes a block of rows of a product.
    pub(crate) fn block(self, block: Block<'_>) {
        run_in(self.level, self.precision, Multiply { arithmetic: self, block });
    }
}

/// The columns of C that one packed B gives.
pub(crate) struct Columns<'a> {
    /// The panels of B `[k, n]`.
    pub(crate) panels: &'a [f32],
    /// Columns of B and of C.
    pub(crate) n: usize,
    /// C, whose rows are n long.
    pub(crate) c: &'a SharedMut<'a>,
}

/// Rows of C ← A·B or C += A·B, for one A and some B.
pub(crate) struct Block<'a> {
    /// A `[m, k]`.
    pub(crate) a: View<'a>,
    /// The first row, and how many.
    pub(crate) rows: (usize, usize),
    /// Inner dimension.
    pub(crate) k: usize,
    pub(crate) columns: &'a [Columns<'a>],
    pub(crate) accumulate: bool,
    /// Space for the packed rows.
    pub(crate) scratch: &'a mut Vec<f32>,
}

struct Pack<'a> {
    arithmetic: Arithmetic,
    /// `[width, k]`
    source: View<'a>,
    width: usize,
    k: usize,
    /// `[words, PANEL]`
    to: &'a mut [f32],
}

impl Kernel for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let Self { arithmetic, source, width, k, to } = self;
        match arithmetic.precision {
            Precision::F32 => pack::<S, false>(s, source, width, k, to, PANEL),
            Precision::Bf16 => pack::<S, true>(s, source, width, k, to, PANEL),
        }
    }
}

struct Multiply<'a> {
    arithmetic: Arithmetic,
    block: Block<'a>,
}

impl Kernel for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        match self.arithmetic.precision {
            Precision::F32 => self.in_words::<S, false>(s),
            Precision::Bf16 => self.in_words::<S, true>(s),
        }
    }
}

impl Multiply<'_> {
    #[inline(always)]
    fn in_words<S: Simd, const NARROW: bool>(self, s: S) {
        let Block { a, rows: (first, count), k, columns, accumulate, scratch } = self.block;
        let words = self.arithmetic.words(k);
        let strip_len = S::TILE_ROWS * words;
        let strips = aligned(scratch, count.div_ceil(S::TILE_ROWS) * strip_len);
        if k > 0 {
            for (i, strip) in strips.chunks_exact_mut(strip_len).enumerate() {
                let row = i * S::TILE_ROWS;
                let height = (count - row).min(S::TILE_ROWS);
                let source = View { data: &a.data[(first + row) * a.rows..], ..a };
                pack::<S, NARROW>(s, source, height, k, strip, S::TILE_ROWS);
            }
        }
        for Columns { panels, n, c } in columns {
            for panel in 0..n.div_ceil(PANEL) {
                let width = (n - panel * PANEL).min(PANEL);
                let b = &panels[panel * PANEL * words..][..PANEL * words];
                for row in (0..count).step_by(S::TILE_ROWS) {
                    let height = (count - row).min(S::TILE_ROWS);
                    let at = (first + row) * n + panel * PANEL;
                    // SAFETY: `height` rows of C from first + row, and `width` columns of them, belong to this block
                    // alone; the last element is checked to lie inside.
                    unsafe {
                        let c = c.part(at, (height - 1) * n + width).as_mut_ptr();
                        let out = Tile { c, stride: *n, height, width, accumulate, scales: None };
                        let strip = strips.as_ptr().add(row * words);
                        tile_of_height::<S, NARROW>(s, words, strip, b.as_ptr(), &out);
                    }
                }
            }
        }
    }
}

/// Space for the packed factors of small products.
#[derive(Debug, Default)]
pub(crate) struct Space {
    left: Factor,
    right: Factor,
}

/// C `[m, n]` ← A · B of bf16, or +=, for the small products of chunked forms: both factors are packed anew each time.
/// C has rows of n. Called from a kernel that [`run_in`] runs, whose instructions it uses.
#[inline(always)]
pub(crate) fn multiply_bf16<S: Simd>(
    s: S,
    [m, n, k]: [usize; 3],
    a: View<'_>,
    b: View<'_>,
    c: &mut [f32],
    accumulate: bool,
    space: &mut Space,
) {
    space.left.pack_left::<S, true>(s, a, m, k);
    space.right.pack_right::<S, true>(s, b, n, k);
    Packed::new([m, n, k], (&space.left, &space.right), c, accumulate).run::<S, true>(s);
}

/// One factor of a small product as words; used again and again.
#[derive(Debug, Default)]
pub(crate) struct Factor(Vec<f32>);

impl Factor {
    /// The left factor, A `[m, k]`.
    #[inline(always)]
    pub(crate) fn pack_left<S: Simd, const NARROW: bool>(
        &mut self,
        s: S,
        a: View<'_>,
        m: usize,
        k: usize,
    ) {
        let strip_len = S::TILE_ROWS * words::<NARROW>(k);
        let strips = aligned(&mut self.0, m.div_ceil(S::TILE_ROWS) * strip_len);
        for (i, strip) in strips.chunks_exact_mut(strip_len.max(1)).enumerate() {
            let row = i * S::TILE_ROWS;
            let source = View { data: &a.data[row * a.rows..], ..a };
            pack::<S, NARROW>(s, source, (m - row).min(S::TILE_ROWS), k, strip, S::TILE_ROWS);
        }
    }

    /// The right factor, B `[k, n]`.
    #[inline(always)]
    pub(crate) fn pack_right<S: Simd, const NARROW: bool>(
        &mut self,
        s: S,
        b: View<'_>,
        n: usize,
        k: usize,
    ) {
        let panel_len = PANEL * words::<NARROW>(k);
        let panels = aligned(&mut self.0, n.div_ceil(PANEL) * panel_len);
        let columns = b.transposed();
        for (i, panel) in panels.chunks_exact_mut(panel_len.max(1)).enumerate() {
            let from = i * PANEL;
            let source = View { data: &columns.data[from * columns.rows..], ..columns };
            pack::<S, NARROW>(s, source, (n - from).min(PANEL), k, panel, PANEL);
        }
    }

    fn packed(&self, len: usize) -> &[f32] {
        let from = self.0.as_ptr().align_offset(64).min(self.0.len());
        &self.0[from..][..len]
    }
}

/// Words that hold an inner dimension of k.
pub(crate) const fn words<const NARROW: bool>(k: usize) -> usize {
    if NARROW { k.div_ceil(2) } else { k }
}

/// What of a product need not be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Triangle {
    /// Nothing.
    None,
    /// The left factor is zero above this diagonal.
    Left(Diagonal),
    /// The result is of no meaning above this diagonal.
    Result(Diagonal),
}

/// The last element of row i stands before column `offset` + (i + 1) · `steps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Diagonal {
    pub(crate) steps: usize,
    pub(crate) offset: isize,
}

impl Diagonal {
    /// With so many columns more from row to row, as many in the first.
    pub(crate) fn steps(steps: usize) -> Self {
        Self { steps, offset: 0 }
    }

    /// Columns of the rows below `rows`.
    fn columns(self, rows: usize) -> usize {
        (rows * self.steps).saturating_add_signed(self.offset)
    }
}

/// C `[m, n]` ← A · B, or +=, of factors that are packed already, in a kernel that [`run_in`] runs.
pub(crate) struct Packed<'a> {
    pub(crate) size: [usize; 3],
    pub(crate) left: &'a Factor,
    pub(crate) right: &'a Factor,
    pub(crate) triangle: Triangle,
    pub(crate) c: &'a mut [f32],
    /// Distance between the rows of C.
    pub(crate) c_stride: usize,
    pub(crate) accumulate: bool,
}

impl<'a> Packed<'a> {
    /// C `[m, n]` ← A · B, or += with `accumulate`, with rows of n.
    pub(crate) fn new(
        size: [usize; 3],
        (left, right): (&'a Factor, &'a Factor),
        c: &'a mut [f32],
        accumulate: bool,
    ) -> Self {
        let c_stride = size[1];
        Self { size, left, right, triangle: Triangle::None, c, c_stride, accumulate }
    }

    #[inline(always)]
    pub(crate) fn run<S: Simd, const NARROW: bool>(self, s: S) {
        let Self { size: [m, n, k], left, right, triangle, c, c_stride, accumulate } = self;
        if m == 0 || n == 0 {
            return;
        }
        assert!(
            c_stride >= n && c.len() >= (m - 1) * c_stride + n,
            "product: C must hold [{m}, {n}]"
        );
        let all = words::<NARROW>(k);
        let strips = left.packed(m.div_ceil(S::TILE_ROWS) * S::TILE_ROWS * all);
        let panels = right.packed(n.div_ceil(PANEL) * PANEL * all);
        for from in (0..n).step_by(PANEL) {
            let width = (n - from).min(PANEL);
            for row in (0..m).step_by(S::TILE_ROWS) {
                let height = (m - row).min(S::TILE_ROWS);
                let inner = match triangle {
                    Triangle::Left(to) => words::<NARROW>(to.columns(row + height).min(k)),
                    Triangle::Result(to) if from >= to.columns(row + height) => continue,
                    Triangle::None | Triangle::Result(_) => all,
                };
                let c = &mut c[row * c_stride + from..][..(height - 1) * c_stride + width];
                let c = c.as_mut_ptr();
                let out = Tile { c, stride: c_stride, height, width, accumulate, scales: None };
                // SAFETY: the strip and the panel are packed, `inner` of their words are used; C holds `height` rows of
                // `width` columns from here on.
                unsafe {
                    let strip = strips.as_ptr().add(row * all);
                    let panel = panels.as_ptr().add(from * all);
                    tile_of_height::<S, NARROW>(s, inner, strip, panel, &out);
                }
            }
        }
    }
}

/// The first `len` values of a buffer from a cache line's start on, grown if it is too short.
pub(crate) fn aligned(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    const LINE: usize = 64 / size_of::<f32>();
    if buffer.len() < len + LINE {
        buffer.resize(len + LINE, 0.0);
    }
    let from = buffer.as_ptr().align_offset(64).min(LINE);
    &mut buffer[from..from + len]
}
