//! Factors as words in the order in which a register tile reads them.

use crate::cpu::Simd;
use crate::cpu::gemm::View;

/// The most lanes of any instruction set.
const MOST_LANES: usize = 16;

/// Writes source `[width, k]` as `[words, to_width]`, zeros beyond the width and beyond an odd k.
#[inline(always)]
pub(crate) fn pack<S: Simd, const NARROW: bool>(
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
