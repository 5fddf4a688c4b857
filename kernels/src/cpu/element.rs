//! Numbers as they lie in memory: f32, or bf16 that is widened when it is read and rounded when it is written.

use half::bf16;

use super::gemm::View;
use super::simd::Simd;

/// The most lanes of any instruction set.
const MOST_LANES: usize = 16;

/// A number in memory that kernels read and write as f32.
pub trait Element: Copy + Default + Send + Sync + std::fmt::Debug + 'static {
    /// The number.
    fn widen(self) -> f32;

    /// The nearest number of this kind, ties to even.
    fn narrow(x: f32) -> Self;

    /// Reads `n` ≤ LANES numbers, the other lanes are 0.
    ///
    /// # Safety
    /// `n` numbers are readable at `p`.
    unsafe fn load<S: Simd>(s: S, p: *const Self, n: usize) -> S::V;

    /// Writes the first `n` ≤ LANES numbers.
    ///
    /// # Safety
    /// `n` numbers are writable at `p`.
    unsafe fn store<S: Simd>(s: S, p: *mut Self, n: usize, v: S::V);
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(x: f32) -> Self {
        x
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const Self, n: usize) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { if n == S::LANES { s.load(p) } else { s.load_part(p, n) } }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(s: S, p: *mut Self, n: usize, v: S::V) {
        // SAFETY: the caller's promise.
        unsafe { if n == S::LANES { s.store(p, v) } else { s.store_part(p, n, v) } }
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn narrow(x: f32) -> Self {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
        let quiet_nan = bits | 0x0040_0000;
        Self::from_bits(((if x.is_nan() { quiet_nan } else { rounded }) >> 16) as u16)
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const Self, n: usize) -> S::V {
        if n == S::LANES {
            // SAFETY: the caller's promise; a bf16 is its bits.
            return unsafe { s.load_bf16(p.cast()) };
        }
        let mut wide = [0.0; MOST_LANES];
        for (i, wide) in wide[..n].iter_mut().enumerate() {
            // SAFETY: n numbers are readable.
            *wide = unsafe { *p.add(i) }.widen();
        }
        // SAFETY: there are as many as the most lanes.
        unsafe { s.load(wide.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(s: S, p: *mut Self, n: usize, v: S::V) {
        let mut wide = [0.0; MOST_LANES];
        // SAFETY: n ≤ LANES ≤ MOST_LANES numbers are writable.
        unsafe {
            s.store(wide.as_mut_ptr(), v);
            if n == S::LANES {
                for (i, wide) in wide[..S::LANES].iter().enumerate() {
                    *p.add(i) = Self::narrow(*wide);
                }
            } else {
                for (i, wide) in wide[..n].iter().enumerate() {
                    *p.add(i) = Self::narrow(*wide);
                }
            }
        }
    }
}

/// Rows of one width, `stride` numbers apart: a tensor `[rows, width]`, or some columns of a wider one.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a, E> {
    data: &'a [E],
    stride: usize,
    width: usize,
}

impl<'a, E: Element> Rows<'a, E> {
    /// `rows` rows of `width`, the first at the beginning of `data`.
    ///
    /// # Panics
    /// When `data` ends before the last row does.
    pub fn new(data: &'a [E], rows: usize, width: usize, stride: usize) -> Self {
        assert!(stride >= width, "rows of {width} must not overlap at a distance of {stride}");
        assert!(
            rows == 0 || width == 0 || data.len() >= (rows - 1) * stride + width,
            "{rows} rows of {width}, {stride} apart, do not fit into {}",
            data.len()
        );
        Self { data, stride, width }
    }

    /// Rows without gaps.
    pub fn dense(data: &'a [E], width: usize) -> Self {
        Self::new(data, data.len().checked_div(width).unwrap_or(0), width, width)
    }

    /// Numbers of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Row `i`.
    #[inline(always)]
    pub fn row(&self, i: usize) -> &'a [E] {
        &self.data[i * self.stride..][..self.width]
    }

    /// `width` numbers of row `i` from column `from` on.
    #[inline(always)]
    pub fn part(&self, i: usize, from: usize, width: usize) -> &'a [E] {
        &self.row(i)[from..][..width]
    }
}

impl<'a> Rows<'a, f32> {
    /// The rows from `row` on as a matrix, without their first `column` columns.
    pub(crate) fn view(&self, row: usize, column: usize) -> View<'a> {
        View::new(&self.data[row * self.stride + column..], self.stride)
    }
}

/// to_i ← f(from_i)
#[inline(always)]
pub(crate) fn convert<S: Simd, A: Element, B: Element>(
    s: S,
    from: &[A],
    to: &mut [B],
    f: impl Fn(S::V) -> S::V,
) {
    assert_eq!(from.len(), to.len());
    let (from, end, to) = (from.as_ptr(), to.len(), to.as_mut_ptr());
    let mut i = 0;
    // SAFETY: n numbers from i lie inside both slices.
    unsafe {
        while i + S::LANES <= end {
            B::store(s, to.add(i), S::LANES, f(A::load(s, from.add(i), S::LANES)));
            i += S::LANES;
        }
        if i < end {
            let n = end - i;
            B::store(s, to.add(i), n, f(A::load(s, from.add(i), n)));
        }
    }
}

/// to_i ← f(a_i, b_i)
#[inline(always)]
pub(crate) fn convert_two<S: Simd, A: Element, B: Element, C: Element>(
    s: S,
    a: &[A],
    b: &[B],
    to: &mut [C],
    f: impl Fn(S::V, S::V) -> S::V,
) {
    assert_eq!((a.len(), b.len()), (to.len(), to.len()));
    let (a, b, end, to) = (a.as_ptr(), b.as_ptr(), to.len(), to.as_mut_ptr());
    let mut i = 0;
    // SAFETY: n numbers from i lie inside the three slices.
    unsafe {
        while i + S::LANES <= end {
            let (x, y) = (A::load(s, a.add(i), S::LANES), B::load(s, b.add(i), S::LANES));
            C::store(s, to.add(i), S::LANES, f(x, y));
            i += S::LANES;
        }
        if i < end {
            let n = end - i;
            let (x, y) = (A::load(s, a.add(i), n), B::load(s, b.add(i), n));
            C::store(s, to.add(i), n, f(x, y));
        }
    }
}
