//! Products with AVX-512's bfloat16 instructions: pairs of X times pairs of weights, summed in f32.

use std::arch::x86_64::{
    __m128i, __m256bh, __m256i, __m512, __m512bh, __m512i, _mm_loadu_si128, _mm256_storeu_si256,
    _mm512_add_ps, _mm512_castps_si512, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps,
    _mm512_cvtneps_pbh, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_mul_ps, _mm512_or_si512,
    _mm512_set1_epi32, _mm512_setzero_ps, _mm512_srli_epi32, _mm512_storeu_si512,
};
use std::mem::transmute;

use super::super::panels::{Panels, even, to_bf16};
use super::super::{PANEL, Product};
use super::ROW_BLOCK;

/// Rows of a register tile: 12 × 2 vectors of sums leave 8 registers for the rest.
const TILE_ROWS: usize = 12;

/// Computes the product, if the processor has the instructions; says whether it has.
pub(super) fn multiply_if_possible(product: &Product<'_>) -> bool {
    let is_possible = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bf16");
    if is_possible {
        // SAFETY: the processor has the features.
        unsafe { multiply(product) }
    }
    is_possible
}

/// The columns of the product's panels.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn multiply(product: &Product<'_>) {
    let (inputs, outputs) = (product.matrix.inputs, product.matrix.outputs);
    let pairs = even(inputs) / 2;
    let stride = 2 * pairs * PANEL;
    let strip_len = TILE_ROWS * pairs;
    // [strips, in / 2, TILE_ROWS] of pairs
    let mut strips = vec![0_u32; ROW_BLOCK / TILE_ROWS * strip_len];
    let mut row_pairs = vec![0_u32; pairs.next_multiple_of(8)];
    // an int8 panel as [in / 2, PANEL] pairs
    let mut unpacked = vec![0_u32; pairs * PANEL];
    for block in (0..product.tokens).step_by(ROW_BLOCK) {
        let block_rows = (product.tokens - block).min(ROW_BLOCK);
        for (first, strip) in
            (0..block_rows).step_by(TILE_ROWS).zip(strips.chunks_exact_mut(strip_len))
        {
            for i in 0..TILE_ROWS {
                // Rows beyond the last repeat it.
                let row = block + (first + i).min(block_rows - 1);
                round(&product.x[row * inputs..][..inputs], &mut row_pairs);
                for (to, pair) in strip[i..].iter_mut().step_by(TILE_ROWS).zip(&row_pairs) {
                    *to = *pair;
                }
            }
        }
        for panel in product.panels.clone() {
            let (weights, scales): (*const u32, Option<&[f32]>) = match &product.matrix.panels {
                Panels::F32(_) => unreachable!("f32 weights are multiplied in f32"),
                Panels::Bf16(panels) => (panels[panel * stride..][..stride].as_ptr().cast(), None),
                Panels::Int8 { values, scales } => {
                    unpack(&values[panel * stride..][..stride], &mut unpacked);
                    (unpacked.as_ptr(), Some(&scales[panel * PANEL..][..PANEL]))
                }
            };
            let (from, width) = product.columns(panel);
            for (first, strip) in
                (0..block_rows).step_by(TILE_ROWS).zip(strips.chunks_exact(strip_len))
            {
                let height = (block_rows - first).min(TILE_ROWS);
                // SAFETY: `height` rows of y from block + first, `width` columns from the panel's first, lie in y
                // [T, out], and no other thread writes them. The strip holds [pairs, TILE_ROWS], the weights
                // [pairs, PANEL].
                unsafe {
                    let out = Out {
                        y: product.y.as_ptr().add((block + first) * outputs + from),
                        stride: outputs,
                        height,
                        width,
                        accumulate: product.accumulate,
                        scales,
                    };
                    match height {
                        9.. => tile::<12>(pairs, strip.as_ptr(), weights, &out),
                        5.. => tile::<8>(pairs, strip.as_ptr(), weights, &out),
                        _ => tile::<4>(pairs, strip.as_ptr(), weights, &out),
                    }
                }
            }
        }
    }
}

/// Rounds a row to bfloat16 in pairs; the last pair of an odd row ends with 0. `pairs` may be longer than the row.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn round(row: &[f32], pairs: &mut [u32]) {
    let (whole, rest) = row.as_chunks::<16>();
    let (out, tail) = pairs.split_at_mut(whole.len() * 8);
    for (x, out) in whole.iter().zip(out.as_chunks_mut::<8>().0) {
        // SAFETY: 16 values are read and 8 pairs written.
        unsafe {
            let rounded: __m256bh = _mm512_cvtneps_pbh(_mm512_loadu_ps(x.as_ptr()));
            let rounded: __m256i = transmute::<__m256bh, __m256i>(rounded);
            _mm256_storeu_si256(out.as_mut_ptr().cast(), rounded);
        }
    }
    for (x, out) in rest.chunks(2).zip(tail) {
        let second = x.get(1).map_or(0, |x| u32::from(to_bf16(*x)));
        *out = u32::from(to_bf16(x[0])) | second << 16;
    }
}

/// int8 `[in, PANEL]` as bfloat16 pairs `[in / 2, PANEL]`: integers up to 127 are exact in it.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn unpack(values: &[i8], out: &mut [u32]) {
    for (values, out) in
        values.as_chunks::<{ 2 * PANEL }>().0.iter().zip(out.as_chunks_mut::<PANEL>().0)
    {
        for at in (0..PANEL).step_by(16) {
            // SAFETY: at + 16 ≤ PANEL; the rows of both inputs have PANEL values.
            unsafe {
                let integers = |from: *const i8| -> __m512i {
                    let bytes: __m128i = _mm_loadu_si128(from.cast());
                    _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)))
                };
                let first = integers(values.as_ptr().add(at));
                let second = integers(values.as_ptr().add(PANEL + at));
                // The lower half of an exact f32 is 0.
                let pairs = _mm512_or_si512(_mm512_srli_epi32::<16>(first), second);
                _mm512_storeu_si512(out.as_mut_ptr().add(at).cast(), pairs);
            }
        }
    }
}

/// Where a register tile is written.
struct Out<'a> {
    y: *mut f32,
    stride: usize,
    height: usize,
    width: usize,
    accumulate: bool,
    scales: Option<&'a [f32]>,
}

/// A tile of `ROWS` rows and PANEL columns.
///
/// # Safety
/// `strip` holds `[pairs, TILE_ROWS]`, `weights` `[pairs, PANEL]`; `out` describes memory that may be written.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn tile<const ROWS: usize>(
    pairs: usize,
    strip: *const u32,
    weights: *const u32,
    out: &Out<'_>,
) {
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    for j in 0..pairs {
        // SAFETY: j is below `pairs`, i below ROWS ≤ TILE_ROWS.
        unsafe {
            let b = weights.add(j * PANEL);
            let b: [__m512bh; 2] = [
                transmute::<__m512i, __m512bh>(_mm512_loadu_si512(b.cast())),
                transmute::<__m512i, __m512bh>(_mm512_loadu_si512(b.add(16).cast())),
            ];
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = _mm512_set1_epi32(*strip.add(j * TILE_ROWS + i) as i32);
                let a: __m512bh = transmute::<__m512i, __m512bh>(a);
                sums[0] = _mm512_dpbf16_ps(sums[0], a, b[0]);
                sums[1] = _mm512_dpbf16_ps(sums[1], a, b[1]);
            }
        }
    }
    for (i, row) in sums.into_iter().enumerate().take(out.height) {
        for (v, sum) in row.into_iter().enumerate() {
            let at = 16 * v;
            if at >= out.width {
                break;
            }
            let mask = ((1_u32 << (out.width - at).min(16)) - 1) as u16;
            // SAFETY: row i < height and the masked columns may be written; there are PANEL scales.
            unsafe {
                let y = out.y.add(i * out.stride + at);
                let mut sum: __m512 = sum;
                if let Some(scales) = out.scales {
                    sum = _mm512_mul_ps(sum, _mm512_loadu_ps(scales.as_ptr().add(at)));
                }
                if out.accumulate {
                    sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, y));
                }
                _mm512_mask_storeu_ps(y, mask, sum);
            }
        }
    }
}
