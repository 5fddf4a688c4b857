//! A vector of f32 lanes, implemented once for each instruction set.

/// Columns of a packed panel, which [`Simd::LANES`] of every instruction set divides.
pub const PANEL: usize = 32;

/// The operations of one instruction set on vectors of [`Simd::LANES`] f32.
///
/// A value of an implementing type is the proof that this machine has the instructions. All methods are inlined into
/// the kernel body, which is compiled with the instructions enabled.
pub trait Simd: Copy + Send + Sync + 'static {
    /// The level that this is.
    const LEVEL: super::Level;
    /// Lanes of a vector; divides [`PANEL`].
    const LANES: usize;
    /// Rows of a register tile of [`crate::cpu::gemm`].
    const TILE_ROWS: usize;
    /// A vector.
    type V: Copy;

    /// All lanes x.
    fn splat(self, x: f32) -> Self::V;
    /// Reads `LANES` values.
    ///
    /// # Safety
    /// `LANES` values are readable at `p`.
    unsafe fn load(self, p: *const f32) -> Self::V;
    /// Reads `n` < `LANES` values, the other lanes are 0.
    ///
    /// # Safety
    /// `n` values are readable at `p`.
    unsafe fn load_part(self, p: *const f32, n: usize) -> Self::V;
    /// Writes `LANES` values.
    ///
    /// # Safety
    /// `LANES` values are writable at `p`.
    unsafe fn store(self, p: *mut f32, v: Self::V);
    /// Writes the first `n` < `LANES` values.
    ///
    /// # Safety
    /// `n` values are writable at `p`.
    unsafe fn store_part(self, p: *mut f32, n: usize, v: Self::V);
    /// Reads `LANES` pairs of bfloat16: the first of each pair, and the second.
    ///
    /// # Safety
    /// `2 · LANES` values are readable at `p`.
    unsafe fn load_bf16_pairs(self, p: *const u16) -> (Self::V, Self::V);
    /// Reads `LANES` bfloat16.
    ///
    /// # Safety
    /// `LANES` values are readable at `p`.
    unsafe fn load_bf16(self, p: *const u16) -> Self::V;
    /// Reads `LANES` integers.
    ///
    /// # Safety
    /// `LANES` values are readable at `p`.
    unsafe fn load_i8(self, p: *const i8) -> Self::V;
    /// a + b
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// a − b
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// a · b
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// a / b
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// The larger of a and b.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// a · b + c
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Σ over the lanes.
    fn sum(self, v: Self::V) -> f32;
    /// The largest lane.
    fn largest(self, v: Self::V) -> f32;
    /// eˣ, relative error below 3·10⁻⁷ for |x| ≤ 87; 0 below, and never a NaN from a number.
    fn exp(self, v: Self::V) -> Self::V;

    /// Rounds to bf16 (to nearest, ties to even) and pairs: lane i holds `low`'s value in its low half, `high`'s in its
    /// high half. The lanes are bits, not numbers.
    fn narrow(self, low: Self::V, high: Self::V) -> Self::V;
    /// Rounds 2 · `LANES` neighbouring values to bf16: lane i holds values 2i and 2i + 1.
    fn narrow_neighbours(self, first: Self::V, second: Self::V) -> Self::V;
    /// c + a_low · b_low + a_high · b_high, of lanes that hold pairs of bf16; the sum is f32.
    fn dot_pairs(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;

    /// Writes the transpose of a tile of `LANES` × `LANES`, rows `from_row` and `to_row` apart.
    ///
    /// # Safety
    /// All `LANES` rows of `LANES` values are readable at `from` and writable at `to`.
    #[inline(always)]
    unsafe fn transpose_tile(self, from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        for i in 0..Self::LANES {
            for j in 0..Self::LANES {
                // SAFETY: the caller's promise.
                unsafe { *to.add(j * to_row + i) = *from.add(i * from_row + j) };
            }
        }
    }

    /// σ(x) = 1 / (1 + e⁻ˣ)
    #[inline(always)]
    fn sigmoid(self, v: Self::V) -> Self::V {
        let one = self.splat(1.0);
        self.div(one, self.add(one, self.exp(self.sub(self.splat(0.0), v))))
    }

    /// ln(1 + eˣ) = max(x, 0) + ln(1 + z) with z = e^{−|x|} ≤ 1; ln(1 + z) = 2 artanh(z / (2 + z)) as a series, whose
    /// argument is at most 1/3: what is left out of it is below 10⁻⁸ of it.
    #[inline(always)]
    fn softplus(self, v: Self::V) -> Self::V {
        let zero = self.splat(0.0);
        let minus = self.sub(zero, v);
        let z = self.exp(self.sub(zero, self.max(v, minus)));
        let y = self.div(z, self.add(self.splat(2.0), z));
        let square = self.mul(y, y);
        let mut series = self.splat(1.0 / 15.0);
        for term in [13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
            series = self.fma(series, square, self.splat(1.0 / term));
        }
        self.fma(self.add(y, y), series, self.max(v, zero))
    }

    /// x · σ(x)
    #[inline(always)]
    fn silu(self, v: Self::V) -> Self::V {
        self.div(v, self.add(self.splat(1.0), self.exp(self.sub(self.splat(0.0), v))))
    }
}

/// The range in which eˣ is neither 0 nor infinite in f32.
pub(super) const EXP_RANGE: (f32, f32) = (-87.3, 88.3);

/// eˣ = 2ⁿ e^r with n = round(x / ln 2): the coefficients of a minimax polynomial for e^r on |r| ≤ ln 2 / 2, highest
/// first (those of Cephes' expf, S. L. Moshier 1984: e^r ≈ 1 + r + r² p(r)).
pub(super) const EXP_POLYNOMIAL: [f32; 6] =
    [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
/// ln 2 in two parts, so that r = x − n ln 2 is exact enough.
pub(super) const LN_2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);
