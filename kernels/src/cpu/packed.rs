//! Large products, the loops of BLIS (ACM TOMS 41(3)): both factors are packed, C is computed in register tiles.
//!
//! A block of rows of A is packed into strips of [`Simd::TILE_ROWS`] rows and stays in the second-level cache; B is packed
//! into panels of [`PANEL`] columns, each read once for a block. Packing transposes where it must, so that factors of any
//! orientation end in the same tile, and rounds to pairs of bf16 where the product is [`Precision::Bf16`]: a *word* of a
//! strip or panel is one f32 or one such pair along the inner dimension.

use super::gemm::View;
use super::matrix::PANEL;
use super::pool::SharedMut;
use super::simd::Simd;
use super::{Kernel, Level, Parallel, Precision, dynamic, run_in};

/// Rows of A that are packed at once: with [`DEPTH`] words each they fill a fifth of a second-level cache of 1 MiB.
pub(crate) const BLOCK: usize = 96;

/// Words of the inner dimension that are packed at once, at most.
const DEPTH: usize = 512;

/// The most lanes of any instruction set.
const MOST_LANES: usize = 16;

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
                        let out = Out { c, stride: *n, height, width, accumulate };
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
    strips: Vec<f32>,
    panel: Vec<f32>,
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
    if m == 0 || n == 0 || k == 0 {
        if !accumulate {
            c.fill(0.0);
        }
        return;
    }
    assert_eq!(c.len(), m * n, "product: C must be [{m}, {n}]");
    let words = k.div_ceil(2);
    let strip_len = S::TILE_ROWS * words;
    let strips = aligned(&mut space.strips, m.div_ceil(S::TILE_ROWS) * strip_len);
    for (i, strip) in strips.chunks_exact_mut(strip_len).enumerate() {
        let row = i * S::TILE_ROWS;
        let source = View { data: &a.data[row * a.rows..], ..a };
        pack::<S, true>(s, source, (m - row).min(S::TILE_ROWS), k, strip, S::TILE_ROWS);
    }
    let panel = aligned(&mut space.panel, PANEL * words);
    let columns = b.transposed();
    for from in (0..n).step_by(PANEL) {
        let width = (n - from).min(PANEL);
        let source = View { data: &columns.data[from * columns.rows..], ..columns };
        pack::<S, true>(s, source, width, k, panel, PANEL);
        for row in (0..m).step_by(S::TILE_ROWS) {
            let height = (m - row).min(S::TILE_ROWS);
            let c = &mut c[row * n + from..][..(height - 1) * n + width];
            let out = Out { c: c.as_mut_ptr(), stride: n, height, width, accumulate };
            // SAFETY: the strip and the panel are packed; C holds `height` rows of `width` columns from here on.
            unsafe {
                let strip = strips.as_ptr().add(row * words);
                tile_of_height::<S, true>(s, words, strip, panel.as_ptr(), &out);
            }
        }
    }
}

/// The register tile of this instruction set, with no more rows than `out` needs.
///
/// # Safety
/// As [`tile`], with strips of `TILE_ROWS` rows.
#[inline(always)]
unsafe fn tile_of_height<S: Simd, const NARROW: bool>(
    s: S,
    words: usize,
    strip: *const f32,
    panel: *const f32,
    out: &Out,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match (S::TILE_ROWS, S::LANES) {
            (12, 16) if out.height > 6 => {
                tile::<S, NARROW, 12, 2, 12>(s, words, strip, panel, out);
            }
            (12, 16) => tile::<S, NARROW, 6, 2, 12>(s, words, strip, panel, out),
            (3, 8) => tile::<S, NARROW, 3, 4, 3>(s, words, strip, panel, out),
            _ => unreachable!("the tile shapes of all instruction sets are listed"),
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

/// Writes source `[width, k]` as `[words, to_width]`, zeros beyond the width and beyond an odd k.
#[inline(always)]
fn pack<S: Simd, const NARROW: bool>(
    s: S,
    source: View<'_>,
    width: usize,
    k: usize,
    to: &mut [f32],
    to_width: usize,
) {
    if source.rows == 1 {
        pack_rows::<S, NARROW>(s, source, width, k, to, to_width);
    } else {
        assert_eq!(source.columns, 1, "packed product: one stride of a factor must be 1");
        pack_transposed::<S, NARROW>(s, source, width, k, to, to_width);
    }
}

/// What lies together in the source lies together in the strip.
#[inline(always)]
fn pack_rows<S: Simd, const NARROW: bool>(
    s: S,
    source: View<'_>,
    width: usize,
    k: usize,
    to: &mut [f32],
    to_width: usize,
) {
    let words = to.chunks_exact_mut(to_width);
    for (word, to) in words.enumerate() {
        for lane in (0..to_width).step_by(S::LANES) {
            let (read, written) =
                (width.saturating_sub(lane).min(S::LANES), (to_width - lane).min(S::LANES));
            let v = if NARROW {
                let (low, high) = (2 * word, 2 * word + 1);
                s.narrow(
                    load_row(s, source, low, lane, if low < k { read } else { 0 }),
                    load_row(s, source, high, lane, if high < k { read } else { 0 }),
                )
            } else {
                load_row(s, source, word, lane, read)
            };
            let to = &mut to[lane..lane + written];
            // SAFETY: `written` values may be written.
            unsafe {
                if written == S::LANES {
                    s.store(to.as_mut_ptr(), v);
                } else {
                    s.store_part(to.as_mut_ptr(), written, v);
                }
            }
        }
    }
}

/// What lies together in the source lies apart in the strip: tiles of `LANES` × `LANES` words change sides.
#[inline(always)]
fn pack_transposed<S: Simd, const NARROW: bool>(
    s: S,
    source: View<'_>,
    width: usize,
    k: usize,
    to: &mut [f32],
    to_width: usize,
) {
    let lanes = S::LANES;
    let per_word = if NARROW { 2 } else { 1 };
    let words = k.div_ceil(per_word);
    let mut tile = [0.0_f32; MOST_LANES * MOST_LANES];
    let mut turned = [0.0_f32; MOST_LANES * MOST_LANES];
    for lane in (0..to_width).step_by(lanes) {
        let written = (to_width - lane).min(lanes);
        for word in (0..words).step_by(lanes) {
            for (i, row) in tile.chunks_exact_mut(lanes).enumerate().take(lanes) {
                let v = if i < written && lane + i < width {
                    let row = &source.data[(lane + i) * source.rows..];
                    if NARROW {
                        s.narrow_neighbours(
                            load_from(s, row, 2 * word, k),
                            load_from(s, row, 2 * word + lanes, k),
                        )
                    } else {
                        load_from(s, row, word, k)
                    }
                } else {
                    s.splat(0.0)
                };
                // SAFETY: the row has `lanes` values.
                unsafe { s.store(row.as_mut_ptr(), v) };
            }
            // SAFETY: both tiles have room for the most lanes.
            unsafe { s.transpose_tile(tile.as_ptr(), lanes, turned.as_mut_ptr(), lanes) };
            let rows = turned.chunks_exact(lanes).take(words - word);
            for (to, row) in to[word * to_width..].chunks_exact_mut(to_width).zip(rows) {
                let to = &mut to[lane..lane + written];
                // SAFETY: the row has `lanes` values, `to` the ones that are written.
                unsafe {
                    let v = s.load(row.as_ptr());
                    if written == lanes {
                        s.store(to.as_mut_ptr(), v);
                    } else {
                        s.store_part(to.as_mut_ptr(), written, v);
                    }
                }
            }
        }
    }
}

/// `count` values of inner row p from `lane` on, zeros beyond.
#[inline(always)]
fn load_row<S: Simd>(s: S, source: View<'_>, p: usize, lane: usize, count: usize) -> S::V {
    if count == 0 {
        return s.splat(0.0);
    }
    load_some(s, &source.data[p * source.columns + lane..][..count])
}

/// The values of `row` from p on that lie below k, zeros beyond.
#[inline(always)]
fn load_from<S: Simd>(s: S, row: &[f32], p: usize, k: usize) -> S::V {
    let count = k.saturating_sub(p).min(S::LANES);
    load_some(s, &row[p.min(k)..][..count])
}

/// At most `LANES` values, zeros beyond.
#[inline(always)]
fn load_some<S: Simd>(s: S, from: &[f32]) -> S::V {
    // SAFETY: as many values are read as there are.
    unsafe {
        if from.len() == S::LANES {
            s.load(from.as_ptr())
        } else {
            s.load_part(from.as_ptr(), from.len())
        }
    }
}

/// Where a register tile is written.
struct Out {
    c: *mut f32,
    stride: usize,
    height: usize,
    width: usize,
    accumulate: bool,
}

/// A register tile of `ROWS` rows and `VECTORS` vectors; the strip has `STRIP` ≥ `ROWS` rows.
///
/// # Safety
/// `strip` holds `[words, STRIP]`, `panel` `[words, PANEL]`; `out` describes writable memory.
#[inline(always)]
unsafe fn tile<
    S: Simd,
    const NARROW: bool,
    const ROWS: usize,
    const VECTORS: usize,
    const STRIP: usize,
>(
    s: S,
    words: usize,
    strip: *const f32,
    panel: *const f32,
    out: &Out,
) {
    debug_assert_eq!(VECTORS * S::LANES, PANEL);
    let mut sums = [[s.splat(0.0); VECTORS]; ROWS];
    // SAFETY: word w of the strip is read below STRIP rows, of the panel below PANEL columns.
    unsafe {
        let (mut a, mut b) = (strip, panel);
        for _ in 0..words {
            let row: [S::V; VECTORS] = std::array::from_fn(
                #[inline(always)]
                |v| s.load(b.add(v * S::LANES)),
            );
            for (i, sums) in sums.iter_mut().enumerate() {
                let x = s.splat(*a.add(i));
                for (sum, v) in sums.iter_mut().zip(row) {
                    *sum = if NARROW { s.dot_pairs(x, v, *sum) } else { s.fma(x, v, *sum) };
                }
            }
            (a, b) = (a.add(STRIP), b.add(PANEL));
        }
    }
    for (i, row) in sums.iter().enumerate().take(out.height) {
        for (v, sum) in row.iter().enumerate() {
            let rest = out.width.saturating_sub(v * S::LANES);
            // SAFETY: row i < height and columns below the width are writable.
            unsafe {
                let c = out.c.add(i * out.stride + (v * S::LANES).min(out.width));
                if rest >= S::LANES {
                    s.store(c, if out.accumulate { s.add(s.load(c), *sum) } else { *sum });
                } else if rest > 0 {
                    let sum = if out.accumulate { s.add(s.load_part(c, rest), *sum) } else { *sum };
                    s.store_part(c, rest, sum);
                }
            }
        }
    }
}

/// FLOPs per second of products whose factors never leave the registers: the bound of every product in this arithmetic.
/// Takes a few hundredths of a second.
pub fn peak_flops(arithmetic: Arithmetic, threads: usize, parallel: Parallel) -> f64 {
    const ROUNDS: usize = 4_000_000;
    let start = std::time::Instant::now();
    dynamic(parallel, threads, &|_| {
        std::hint::black_box(run_in(arithmetic.level, arithmetic.precision, Peak(arithmetic)));
    });
    let values = 2 * PEAK_VALUES * ROUNDS * threads;
    return match arithmetic.precision {
        Precision::F32 => values as f64,
        Precision::Bf16 => 2.0 * values as f64,
    } / start.elapsed().as_secs_f64();

    /// Sums of one round.
    const PEAK_VALUES: usize = 384;

    struct Peak(Arithmetic);

    impl Kernel for Peak {
        type Output = f32;

        #[inline(always)]
        fn body<S: Simd>(self, s: S) -> f32 {
            match S::LANES {
                16 => self.vectors::<S, 24>(s),
                _ => self.vectors::<S, 12>(s),
            }
        }
    }

    impl Peak {
        #[inline(always)]
        fn vectors<S: Simd, const N: usize>(self, s: S) -> f32 {
            let (x, mut sums) = (s.splat(1.0), [s.splat(0.0); N]);
            for _ in 0..ROUNDS * PEAK_VALUES / (N * S::LANES) {
                for sum in &mut sums {
                    *sum = match self.0.precision {
                        Precision::F32 => s.fma(x, x, *sum),
                        Precision::Bf16 => s.dot_pairs(x, x, *sum),
                    };
                }
            }
            sums.into_iter().map(|v| s.sum(v)).sum()
        }
    }
}
