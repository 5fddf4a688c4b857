//! The part of C that stays in registers.

use crate::cpu::simd::{PANEL, Simd};

/// Where a register tile is written.
pub(crate) struct Tile<'a> {
    pub(crate) c: *mut f32,
    pub(crate) stride: usize,
    /// Rows that are written.
    pub(crate) height: usize,
    /// Columns that are written, at most [`PANEL`].
    pub(crate) width: usize,
    pub(crate) accumulate: bool,
    /// Factors of the columns, `[PANEL]`.
    pub(crate) scales: Option<&'a [f32]>,
}

impl Tile<'_> {
    /// What is below the first rows, fewer than all.
    ///
    /// # Safety
    /// The tile describes writable memory.
    #[inline(always)]
    unsafe fn below(&self, first: usize) -> Self {
        // SAFETY: row `first` is one of the tile.
        let c = unsafe { self.c.add(first * self.stride) };
        Tile { c, height: self.height - first, ..*self }
    }
}

/// The register tile of this instruction set, with no more rows than `out` needs.
///
/// # Safety
/// As [`tile`], with strips of `TILE_ROWS` rows.
#[inline(always)]
pub(crate) unsafe fn tile_of_height<S: Simd, const NARROW: bool>(
    s: S,
    words: usize,
    strip: *const f32,
    panel: *const f32,
    out: &Tile<'_>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match (S::TILE_ROWS, S::LANES, out.height) {
            (12, 16, 9..) => tile::<S, NARROW, 12, 2, 12>(s, words, strip, panel, 0, out),
            (12, 16, 5..) => tile::<S, NARROW, 8, 2, 12>(s, words, strip, panel, 0, out),
            (12, 16, _) => tile::<S, NARROW, 4, 2, 12>(s, words, strip, panel, 0, out),
            // Pairs are taken apart in registers of their own, each once for a whole row of the panel.
            (6, 8, _) if NARROW => {
                for first in (0..out.height).step_by(3) {
                    let out = out.below(first);
                    tile::<S, NARROW, 3, 4, 6>(s, words, strip.add(first), panel, 0, &out);
                }
            }
            // Sixteen registers hold the sums of half a panel, its row and a factor.
            (6, 8, height) => {
                for from in [0, PANEL / 2] {
                    if height > 3 {
                        tile::<S, NARROW, 6, 2, 6>(s, words, strip, panel, from, out);
                    } else {
                        tile::<S, NARROW, 3, 2, 6>(s, words, strip, panel, from, out);
                    }
                }
            }
            (3, 8, _) => tile::<S, NARROW, 3, 4, 3>(s, words, strip, panel, 0, out),
            _ => unreachable!("the tile shapes of all instruction sets are listed"),
        }
    }
}

/// A register tile of `ROWS` rows and `VECTORS` vectors from column `from` on; the strip has `STRIP` ≥ `ROWS` rows.
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
    from: usize,
    out: &Tile<'_>,
) {
    debug_assert!(from + VECTORS * S::LANES <= PANEL);
    let mut sums = [[s.splat(0.0); VECTORS]; ROWS];
    // SAFETY: word w of the strip is read below STRIP rows, of the panel below PANEL columns.
    unsafe {
        let (mut a, mut b) = (strip, panel.add(from));
        for _ in 0..words {
            let mut row = [s.splat(0.0); VECTORS];
            for (v, row) in row.iter_mut().enumerate() {
                *row = s.load(b.add(v * S::LANES));
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let x = s.splat(*a.add(i));
                for (sum, v) in sums.iter_mut().zip(row) {
                    *sum = if NARROW { s.dot_pairs(x, v, *sum) } else { s.fma(x, v, *sum) };
                }
            }
            (a, b) = (a.add(STRIP), b.add(PANEL));
        }
    }
    let scales: Option<[S::V; VECTORS]> = out.scales.map(
        #[inline(always)]
        |scales| {
            assert_eq!(scales.len(), PANEL, "tile: a factor for each column of a panel");
            // SAFETY: there are PANEL factors.
            std::array::from_fn(
                #[inline(always)]
                |v| unsafe { s.load(scales.as_ptr().add(from + v * S::LANES)) },
            )
        },
    );
    // The sums are only read from here on, at places that are known when this is compiled: so they stay in registers.
    for (i, row) in sums.into_iter().enumerate() {
        if i >= out.height {
            break;
        }
        for (v, mut sum) in row.into_iter().enumerate() {
            if let Some(scales) = &scales {
                sum = s.mul(sum, scales[v]);
            }
            let column = from + v * S::LANES;
            let rest = out.width.saturating_sub(column);
            // SAFETY: row i < height and columns below the width are writable.
            unsafe {
                let c = out.c.add(i * out.stride + column.min(out.width));
                if rest >= S::LANES {
                    s.store(c, if out.accumulate { s.add(s.load(c), sum) } else { sum });
                } else if rest > 0 {
                    let sum = if out.accumulate { s.add(s.load_part(c, rest), sum) } else { sum };
                    s.store_part(c, rest, sum);
                }
            }
        }
    }
}
