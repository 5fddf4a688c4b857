//! Eight lanes in an array: what the compiler makes vectors of on any target.

use super::simd::{EXP_RANGE, Simd};

const LANES: usize = 8;

/// The instruction set that every machine has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Portable;

#[inline(always)]
fn zip(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

/// The bits of the nearest bf16; a NaN stays one.
#[inline(always)]
fn to_bf16(x: f32) -> u32 {
    let bits = x.to_bits();
    if x.is_nan() { bits >> 16 | 0x40 } else { (bits + 0x7fff + (bits >> 16 & 1)) >> 16 }
}

#[inline(always)]
fn bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

impl Simd for Portable {
    const LEVEL: super::Level = super::Level::Portable;
    const LANES: usize = LANES;
    const TILE_ROWS: usize = 3;
    type V = [f32; LANES];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::V {
        // SAFETY: the caller promises LANES readable values; the read asks no alignment beyond that of f32.
        unsafe { p.cast::<[f32; LANES]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_part(self, p: *const f32, n: usize) -> Self::V {
        // SAFETY: the caller promises n readable values.
        std::array::from_fn(|i| if i < n { unsafe { *p.add(i) } } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Self::V) {
        // SAFETY: the caller promises LANES writable values; the write asks no alignment beyond that of f32.
        unsafe { p.cast::<[f32; LANES]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, n: usize, v: Self::V) {
        for (i, x) in v.into_iter().enumerate().take(n) {
            // SAFETY: the caller promises n writable values.
            unsafe { *p.add(i) = x }
        }
    }
    #[inline(always)]
    unsafe fn load_bf16_pairs(self, p: *const u16) -> (Self::V, Self::V) {
        // SAFETY: the caller promises 2 · LANES readable values.
        let pairs = unsafe { p.cast::<[[u16; 2]; LANES]>().read_unaligned() };
        (pairs.map(|[first, _]| bf16(first)), pairs.map(|[_, second]| bf16(second)))
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> Self::V {
        // SAFETY: the caller promises LANES readable values.
        unsafe { p.cast::<[u16; LANES]>().read_unaligned() }.map(bf16)
    }
    #[inline(always)]
    unsafe fn load_i8(self, p: *const i8) -> Self::V {
        // SAFETY: the caller promises LANES readable values.
        unsafe { p.cast::<[i8; LANES]>().read_unaligned() }.map(f32::from)
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, f32::max)
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // Two roundings: without the instruction, `mul_add` would be a call for every lane.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
    }
    #[inline(always)]
    fn largest(self, v: Self::V) -> f32 {
        v.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    fn narrow(self, low: Self::V, high: Self::V) -> Self::V {
        zip(low, high, |low, high| f32::from_bits(to_bf16(low) | to_bf16(high) << 16))
    }
    #[inline(always)]
    fn narrow_neighbours(self, first: Self::V, second: Self::V) -> Self::V {
        let at = |i: usize| to_bf16(if i < LANES { first[i] } else { second[i - LANES] });
        std::array::from_fn(|i| f32::from_bits(at(2 * i) | at(2 * i + 1) << 16))
    }
    #[inline(always)]
    fn dot_pairs(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        let low = |x: f32| f32::from_bits(x.to_bits() << 16);
        let high = |x: f32| f32::from_bits(x.to_bits() & 0xffff_0000);
        std::array::from_fn(|i| high(a[i]) * high(b[i]) + (low(a[i]) * low(b[i]) + c[i]))
    }
    #[inline(always)]
    fn exp(self, v: Self::V) -> Self::V {
        v.map(|x| if x < EXP_RANGE.0 { 0.0 } else { x.exp() })
    }
}
