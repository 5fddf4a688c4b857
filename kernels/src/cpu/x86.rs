//! AVX2 and AVX-512.
//!
//! The safety argument of every block here is the same: a value of [`Avx2`] or [`Avx512`] is made by `detect` only,
//! after the processor was asked for the features, so the intrinsics may run; loads and stores pass on the promise of
//! their caller about the pointer.

use std::arch::x86_64::{
    __m256, __m256bh, __m256i, __m512, __m512bh, __m512i, __mmask16, _CMP_NLT_UQ, _CMP_UNORD_Q,
    _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32,
    _mm_loadl_epi64, _mm_loadu_si128, _mm_max_ps, _mm_max_ss, _mm_movehdup_ps, _mm_movehl_ps,
    _mm256_add_epi32, _mm256_add_ps, _mm256_and_ps, _mm256_and_si256, _mm256_blendv_epi8,
    _mm256_castps_si256, _mm256_castps256_ps128, _mm256_castsi256_ps, _mm256_cmp_ps,
    _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps, _mm256_cvtepu16_epi32, _mm256_cvtps_epi32,
    _mm256_div_ps, _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_fnmadd_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_maskload_ps, _mm256_maskstore_ps, _mm256_max_ps, _mm256_min_ps,
    _mm256_mul_ps, _mm256_or_si256, _mm256_packus_epi32, _mm256_permute4x64_epi64, _mm256_round_ps,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_slli_epi32, _mm256_srli_epi32, _mm256_storeu_ps,
    _mm256_sub_ps, _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512, _mm512_castpd_ps,
    _mm512_castps_pd, _mm512_castps_si512, _mm512_castsi256_si512, _mm512_castsi512_ps,
    _mm512_cmp_ps_mask, _mm512_cvtepi8_epi32, _mm512_cvtepi32_epi16, _mm512_cvtepi32_ps,
    _mm512_cvtepu16_epi32, _mm512_cvtneps_pbh, _mm512_div_ps, _mm512_dpbf16_ps, _mm512_fmadd_ps,
    _mm512_fnmadd_ps, _mm512_inserti64x4, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_mask_or_epi32, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_maskz_mov_ps,
    _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_or_si512, _mm512_reduce_add_ps,
    _mm512_reduce_max_ps, _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_shuffle_f32x4, _mm512_slli_epi32, _mm512_srli_epi32, _mm512_storeu_ps,
    _mm512_sub_ps, _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
};

use super::Kernel;
use super::simd::{EXP_POLYNOMIAL, EXP_RANGE, LN_2, Simd};

/// Proof that the processor has AVX2 and FMA.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx2(());

/// Proof that the processor has AVX-512 F, and with `BF16` its products of bf16.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx512<const BF16: bool = false>(());

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }
}

impl<const BF16: bool> Avx512<BF16> {
    pub(super) fn detect() -> Option<Self> {
        let narrow = !BF16 || is_x86_feature_detected!("avx512bf16");
        (is_x86_feature_detected!("avx512f") && narrow && Avx2::detect().is_some())
            .then_some(Self(()))
    }
}

/// The kernel compiled with AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) fn with_avx2<K: Kernel>(simd: Avx2, kernel: K) -> K::Output {
    kernel.body(simd)
}

/// The kernel compiled with AVX-512 F.
#[target_feature(enable = "avx512f,avx2,fma")]
pub(super) fn with_avx512<K: Kernel>(simd: Avx512, kernel: K) -> K::Output {
    kernel.body(simd)
}

/// The kernel compiled with AVX-512 F and its bf16 products.
#[target_feature(enable = "avx512bf16,avx512f,avx2,fma")]
pub(super) fn with_avx512_bf16<K: Kernel>(simd: Avx512<true>, kernel: K) -> K::Output {
    kernel.body(simd)
}

impl Simd for Avx2 {
    const LEVEL: super::Level = super::Level::Avx2;
    const LANES: usize = 8;
    const TILE_ROWS: usize = 6;
    type V = __m256;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::V {
        // SAFETY: `self` proves the features, the caller the pointer.
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_part(self, p: *const f32, n: usize) -> Self::V {
        // SAFETY: `self` proves the features, the caller the pointer.
        unsafe { _mm256_maskload_ps(p, mask256(n)) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Self::V) {
        // SAFETY: `self` proves the features, the caller the pointer.
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, n: usize, v: Self::V) {
        // SAFETY: `self` proves the features, the caller the pointer.
        unsafe { _mm256_maskstore_ps(p, mask256(n), v) }
    }
    #[inline(always)]
    unsafe fn load_bf16_pairs(self, p: *const u16) -> (Self::V, Self::V) {
        // SAFETY: `self` proves the features, the caller the pointer.
        unsafe {
            let pairs = _mm256_loadu_si256(p.cast());
            let second = _mm256_and_si256(pairs, _mm256_set1_epi32(0xFFFF_0000_u32 as i32));
            (_mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)), _mm256_castsi256_ps(second))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> Self::V {
        // SAFETY: `self` proves the features, the caller the pointer.
        unsafe {
            let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
        }
    }
    #[inline(always)]
    unsafe fn load_i8(self, p: *const i8) -> Self::V {
        // SAFETY: `self` proves the features, the caller the pointer.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()))) }
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        // SAFETY: `self` proves the features.
        unsafe {
            let half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_add_ss(quarter, _mm_movehdup_ps(quarter)))
        }
    }
    #[inline(always)]
    fn largest(self, v: Self::V) -> f32 {
        // SAFETY: `self` proves the features.
        unsafe {
            let half = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let quarter = _mm_max_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_max_ss(quarter, _mm_movehdup_ps(quarter)))
        }
    }
    #[inline(always)]
    fn narrow(self, low: Self::V, high: Self::V) -> Self::V {
        // SAFETY: `self` proves the features.
        unsafe {
            let low = _mm256_srli_epi32::<16>(rounded256(low));
            let high = _mm256_and_si256(rounded256(high), _mm256_set1_epi32(HIGH_HALF));
            _mm256_castsi256_ps(_mm256_or_si256(low, high))
        }
    }
    #[inline(always)]
    fn narrow_neighbours(self, first: Self::V, second: Self::V) -> Self::V {
        // SAFETY: `self` proves the features.
        unsafe {
            let first = _mm256_srli_epi32::<16>(rounded256(first));
            let second = _mm256_srli_epi32::<16>(rounded256(second));
            let halves = _mm256_packus_epi32(first, second); // quarters 0 2 1 3
            _mm256_castsi256_ps(_mm256_permute4x64_epi64::<0b11_01_10_00>(halves))
        }
    }
    #[inline(always)]
    fn dot_pairs(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: `self` proves the features.
        unsafe {
            let mask = _mm256_castsi256_ps(_mm256_set1_epi32(HIGH_HALF));
            let (a_high, b_high) = (_mm256_and_ps(a, mask), _mm256_and_ps(b, mask));
            let (a, b) = (_mm256_castps_si256(a), _mm256_castps_si256(b));
            let a_low = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(a));
            let b_low = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(b));
            self.fma(a_high, b_high, self.fma(a_low, b_low, c))
        }
    }
    #[inline(always)]
    fn exp(self, v: Self::V) -> Self::V {
        let (low, high) = (self.splat(EXP_RANGE.0), self.splat(EXP_RANGE.1));
        // SAFETY: `self` proves the features.
        unsafe {
            let x = _mm256_min_ps(high, _mm256_max_ps(low, v));
            let n = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(
                self.mul(x, self.splat(std::f32::consts::LOG2_E)),
            );
            let r =
                _mm256_fnmadd_ps(n, self.splat(LN_2.1), _mm256_fnmadd_ps(n, self.splat(LN_2.0), x));
            let mut p = self.splat(EXP_POLYNOMIAL[0]);
            for c in &EXP_POLYNOMIAL[1..] {
                p = self.fma(p, r, self.splat(*c));
            }
            let e = self.fma(p, self.mul(r, r), self.add(r, self.splat(1.0)));
            let power = _mm256_slli_epi32::<23>(_mm256_add_epi32(
                _mm256_cvtps_epi32(n),
                _mm256_set1_epi32(127),
            ));
            let e = _mm256_mul_ps(e, _mm256_castsi256_ps(power));
            _mm256_and_ps(e, _mm256_cmp_ps::<_CMP_NLT_UQ>(v, low))
        }
    }
}

/// All bits set in the first n lanes.
#[inline(always)]
fn mask256(n: usize) -> __m256i {
    const ONES_THEN_ZEROS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    debug_assert!(n <= 8);
    // SAFETY: n ≤ 8, so eight lanes from 8 − n lie inside the table; only called with AVX2 proven.
    unsafe { _mm256_loadu_si256(ONES_THEN_ZEROS.as_ptr().add(8 - n).cast()) }
}

impl<const BF16: bool> Simd for Avx512<BF16> {
    const LEVEL: super::Level = super::Level::Avx512;
    const LANES: usize = 16;
    const TILE_ROWS: usize = 12;
    type V = __m512;

    /// Pairs, quadruples, then quarters of registers change places: 4 × 16 shuffles for 256 elements.
    #[inline(always)]
    unsafe fn transpose_tile(self, from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        // SAFETY: `self` proves the features; the caller promises both tiles.
        unsafe {
            // Loops, not `array::from_fn`: that is not inlined here, and each operation in it becomes a call.
            let mut r = [_mm512_set1_ps(0.0); 16];
            for (i, r) in r.iter_mut().enumerate() {
                *r = _mm512_loadu_ps(from.add(i * from_row));
            }
            let mut pairs = r;
            for i in (0..16).step_by(2) {
                pairs[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
                pairs[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
            }
            // quads[4g + c], quarter l: column 4l + c of rows 4g..4g+4.
            let mut quads = pairs;
            for g in (0..16).step_by(4) {
                for c in 0..2 {
                    let a = _mm512_castps_pd(pairs[g + c]);
                    let b = _mm512_castps_pd(pairs[g + 2 + c]);
                    quads[g + 2 * c] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
                    quads[g + 2 * c + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
                }
            }
            for c in 0..4 {
                let [q0, q1, q2, q3] = [quads[c], quads[4 + c], quads[8 + c], quads[12 + c]];
                let low01 = _mm512_shuffle_f32x4::<0b10_00_10_00>(q0, q1); // quarters 0, 2
                let low23 = _mm512_shuffle_f32x4::<0b10_00_10_00>(q2, q3);
                let high01 = _mm512_shuffle_f32x4::<0b11_01_11_01>(q0, q1); // quarters 1, 3
                let high23 = _mm512_shuffle_f32x4::<0b11_01_11_01>(q2, q3);
                let columns = [
                    _mm512_shuffle_f32x4::<0b10_00_10_00>(low01, low23),
                    _mm512_shuffle_f32x4::<0b10_00_10_00>(high01, high23),
                    _mm512_shuffle_f32x4::<0b11_01_11_01>(low01, low23),
                    _mm512_shuffle_f32x4::<0b11_01_11_01>(high01, high23),
                ];
                for (l, column) in columns.into_iter().enumerate() {
                    _mm512_storeu_ps(to.add((4 * l + c) * to_row), column);
                }
            }
        }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::V {
        // SAFETY: `self` proves the features, the caller the pointer.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_part(self, p: *const f32, n: usize) -> Self::V {
        // SAFETY: `self` proves the features, the caller the pointer.
        unsafe { _mm512_maskz_loadu_ps(mask512(n), p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Self::V) {
        // SAFETY: `self` proves the features, the caller the pointer.
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, n: usize, v: Self::V) {
        // SAFETY: `self` proves the features, the caller the pointer.
        unsafe { _mm512_mask_storeu_ps(p, mask512(n), v) }
    }
    #[inline(always)]
    unsafe fn load_bf16_pairs(self, p: *const u16) -> (Self::V, Self::V) {
        // SAFETY: `self` proves the features, the caller the pointer.
        unsafe {
            let pairs = _mm512_loadu_si512(p.cast());
            let second = _mm512_and_si512(pairs, _mm512_set1_epi32(0xFFFF_0000_u32 as i32));
            (_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)), _mm512_castsi512_ps(second))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> Self::V {
        // SAFETY: `self` proves the features, the caller the pointer.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }
    #[inline(always)]
    unsafe fn load_i8(self, p: *const i8) -> Self::V {
        // SAFETY: `self` proves the features, the caller the pointer.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))) }
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_reduce_add_ps(v) }
    }
    #[inline(always)]
    fn largest(self, v: Self::V) -> f32 {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_reduce_max_ps(v) }
    }
    #[inline(always)]
    fn narrow(self, low: Self::V, high: Self::V) -> Self::V {
        // SAFETY: `self` proves the features.
        unsafe {
            let (low, high) = (rounded512::<BF16>(low), rounded512::<BF16>(high));
            let (low, high) = (_mm512_cvtepu16_epi32(low), _mm512_cvtepu16_epi32(high));
            _mm512_castsi512_ps(_mm512_or_si512(low, _mm512_slli_epi32::<16>(high)))
        }
    }
    #[inline(always)]
    fn narrow_neighbours(self, first: Self::V, second: Self::V) -> Self::V {
        // SAFETY: `self` proves the features.
        unsafe {
            let (first, second) = (rounded512::<BF16>(first), rounded512::<BF16>(second));
            let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(first), second);
            _mm512_castsi512_ps(both)
        }
    }
    #[inline(always)]
    fn dot_pairs(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: `self` proves the features, that of bf16 where it is used.
        unsafe {
            let (a, b) = (_mm512_castps_si512(a), _mm512_castps_si512(b));
            if BF16 {
                return _mm512_dpbf16_ps(c, pairs512(a), pairs512(b));
            }
            let mask = _mm512_set1_epi32(HIGH_HALF);
            let a_high = _mm512_castsi512_ps(_mm512_and_si512(a, mask));
            let b_high = _mm512_castsi512_ps(_mm512_and_si512(b, mask));
            let a_low = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(a));
            let b_low = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(b));
            self.fma(a_high, b_high, self.fma(a_low, b_low, c))
        }
    }
    #[inline(always)]
    fn exp(self, v: Self::V) -> Self::V {
        let (low, high) = (self.splat(EXP_RANGE.0), self.splat(EXP_RANGE.1));
        // SAFETY: `self` proves the features.
        unsafe {
            let x = _mm512_min_ps(high, _mm512_max_ps(low, v));
            let n = _mm512_roundscale_ps::<0>(self.mul(x, self.splat(std::f32::consts::LOG2_E)));
            let r =
                _mm512_fnmadd_ps(n, self.splat(LN_2.1), _mm512_fnmadd_ps(n, self.splat(LN_2.0), x));
            let mut p = self.splat(EXP_POLYNOMIAL[0]);
            for c in &EXP_POLYNOMIAL[1..] {
                p = self.fma(p, r, self.splat(*c));
            }
            let e = self.fma(p, self.mul(r, r), self.add(r, self.splat(1.0)));
            let e = _mm512_scalef_ps(e, n);
            _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(v, low), e)
        }
    }
}

/// The bits of the high half of a lane.
const HIGH_HALF: i32 = 0xffff_0000_u32.cast_signed();

/// Lanes whose high halves are the nearest bf16; a NaN stays one. Called with AVX2 proven.
#[inline(always)]
fn rounded256(v: __m256) -> __m256i {
    // SAFETY: the caller has the proof.
    unsafe {
        let bits = _mm256_castps_si256(v);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x40_0000));
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
        _mm256_blendv_epi8(rounded, quiet, nan)
    }
}

/// The nearest bf16; a NaN stays one. Called with AVX-512 proven, and with `BF16` that too.
#[inline(always)]
fn rounded512<const BF16: bool>(v: __m512) -> __m256i {
    // SAFETY: the caller has the proof; `__m256bh` and `__m256i` are both 32 bytes without invalid values.
    unsafe {
        if BF16 {
            return std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(v));
        }
        let bits = _mm512_castps_si512(v);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
        let rounded = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x40_0000));
        _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(rounded))
    }
}

/// The same bits as pairs of bf16.
#[inline(always)]
fn pairs512(v: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes without invalid values.
    unsafe { std::mem::transmute(v) }
}

/// The first n bits set.
#[inline(always)]
fn mask512(n: usize) -> __mmask16 {
    ((1_u32 << n) - 1) as __mmask16
}
