//! Operations on slices that the kernels are made of, generic over the instruction set.
//!
//! Slices of one call must have one length; the tail beyond whole vectors is read and written with masks.

use super::simd::Simd;

/// Calls `whole(i)` for the start of every whole vector below n, then `part(i, rest)` for what is left.
#[inline(always)]
fn vectors<S: Simd>(n: usize, mut whole: impl FnMut(usize), part: impl FnOnce(usize, usize)) {
    let mut i = 0;
    while i + S::LANES <= n {
        whole(i);
        i += S::LANES;
    }
    if i < n {
        part(i, n - i);
    }
}

/// Σ a_i b_i
#[inline(always)]
pub fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let (n, a, b) = (a.len(), a.as_ptr(), b.as_ptr());
    let mut sums = [s.splat(0.0); 4];
    let mut i = 0;
    while i + 4 * S::LANES <= n {
        for (j, sum) in sums.iter_mut().enumerate() {
            let at = i + j * S::LANES;
            // SAFETY: at + LANES ≤ n, the length of both.
            *sum = unsafe { s.fma(s.load(a.add(at)), s.load(b.add(at)), *sum) };
        }
        i += 4 * S::LANES;
    }
    while i + S::LANES <= n {
        // SAFETY: i + LANES ≤ n, the length of both.
        sums[0] = unsafe { s.fma(s.load(a.add(i)), s.load(b.add(i)), sums[0]) };
        i += S::LANES;
    }
    if i < n {
        // SAFETY: i + (n − i) = n, the length of both.
        sums[1] =
            unsafe { s.fma(s.load_part(a.add(i), n - i), s.load_part(b.add(i), n - i), sums[1]) };
    }
    s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
}

/// Σ x_i
#[inline(always)]
pub fn sum<S: Simd>(s: S, x: &[f32]) -> f32 {
    let p = x.as_ptr();
    let mut sum = s.splat(0.0);
    let mut i = 0;
    while i + S::LANES <= x.len() {
        // SAFETY: i + LANES ≤ the length.
        sum = unsafe { s.add(s.load(p.add(i)), sum) };
        i += S::LANES;
    }
    if i < x.len() {
        // SAFETY: i + the rest = the length.
        sum = unsafe { s.add(s.load_part(p.add(i), x.len() - i), sum) };
    }
    s.sum(sum)
}

/// y_i ← f(x_i, y_i)
#[inline(always)]
pub fn update<S: Simd>(s: S, x: &[f32], y: &mut [f32], f: impl Fn(S::V, S::V) -> S::V) {
    assert_eq!(x.len(), y.len());
    let (n, x, y) = (x.len(), x.as_ptr(), y.as_mut_ptr());
    vectors::<S>(
        n,
        // SAFETY: i + LANES ≤ n, the length of both.
        #[inline(always)]
        |i| unsafe { s.store(y.add(i), f(s.load(x.add(i)), s.load(y.add(i)))) },
        // SAFETY: i + rest = n, the length of both.
        #[inline(always)]
        |i, rest| unsafe {
            s.store_part(
                y.add(i),
                rest,
                f(s.load_part(x.add(i), rest), s.load_part(y.add(i), rest)),
            );
        },
    );
}

/// out_i ← f(x_i, y_i)
#[inline(always)]
pub fn combine<S: Simd>(
    s: S,
    x: &[f32],
    y: &[f32],
    out: &mut [f32],
    f: impl Fn(S::V, S::V) -> S::V,
) {
    assert_eq!((x.len(), y.len()), (out.len(), out.len()));
    let (n, x, y, out) = (x.len(), x.as_ptr(), y.as_ptr(), out.as_mut_ptr());
    vectors::<S>(
        n,
        // SAFETY: i + LANES ≤ n, the length of all.
        #[inline(always)]
        |i| unsafe { s.store(out.add(i), f(s.load(x.add(i)), s.load(y.add(i)))) },
        // SAFETY: i + rest = n, the length of all.
        #[inline(always)]
        |i, rest| unsafe {
            s.store_part(
                out.add(i),
                rest,
                f(s.load_part(x.add(i), rest), s.load_part(y.add(i), rest)),
            );
        },
    );
}

/// x_i ← f(x_i)
#[inline(always)]
pub fn map<S: Simd>(s: S, x: &mut [f32], f: impl Fn(S::V) -> S::V) {
    let (n, x) = (x.len(), x.as_mut_ptr());
    vectors::<S>(
        n,
        // SAFETY: i + LANES ≤ n, the length.
        #[inline(always)]
        |i| unsafe { s.store(x.add(i), f(s.load(x.add(i)))) },
        // SAFETY: i + rest = n, the length.
        #[inline(always)]
        |i, rest| unsafe { s.store_part(x.add(i), rest, f(s.load_part(x.add(i), rest))) },
    );
}

/// y_i ← y_i + a x_i
#[inline(always)]
pub fn add_scaled<S: Simd>(s: S, a: f32, x: &[f32], y: &mut [f32]) {
    let a = s.splat(a);
    update(
        s,
        x,
        y,
        #[inline(always)]
        |x, y| s.fma(a, x, y),
    );
}

/// x_i ← a x_i
#[inline(always)]
pub fn scale<S: Simd>(s: S, a: f32, x: &mut [f32]) {
    let a = s.splat(a);
    map(
        s,
        x,
        #[inline(always)]
        |x| s.mul(a, x),
    );
}

/// The largest of x, −∞ if x is empty.
#[inline(always)]
pub fn largest<S: Simd>(s: S, x: &[f32]) -> f32 {
    let p = x.as_ptr();
    let mut lanes = s.splat(f32::NEG_INFINITY);
    let whole = x.len() / S::LANES * S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        // SAFETY: i + LANES ≤ whole ≤ x.len().
        lanes = s.max(lanes, unsafe { s.load(p.add(i)) });
    }
    x[whole..].iter().fold(s.largest(lanes), |a, &b| a.max(b))
}

/// x_i ← e^{x_i − shift}; returns their sum.
#[inline(always)]
pub fn exp_and_sum<S: Simd>(s: S, shift: f32, x: &mut [f32]) -> f32 {
    let (n, p) = (x.len(), x.as_mut_ptr());
    let shift = s.splat(shift);
    let mut sum = s.splat(0.0);
    let mut i = 0;
    while i + S::LANES <= n {
        // SAFETY: i + LANES ≤ n, the length.
        unsafe {
            let e = s.exp(s.sub(s.load(p.add(i)), shift));
            s.store(p.add(i), e);
            sum = s.add(sum, e);
        }
        i += S::LANES;
    }
    let mut total = s.sum(sum);
    if i < n {
        // SAFETY: i + (n − i) = n, the length.
        unsafe { s.store_part(p.add(i), n - i, s.exp(s.sub(s.load_part(p.add(i), n - i), shift))) }
        total += x[i..].iter().sum::<f32>();
    }
    total
}
