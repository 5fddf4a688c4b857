//! Operations on slices that the kernels are made of, generic over the instruction set.
//!
//! Slices of one call must have one length; the tail beyond whole vectors is read and written with masks.

use super::element::Element;
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

/// y `[N]` ← M `[N, K]` · x `[K]`, four rows at a time so that no sum waits for the one before.
#[inline(always)]
pub fn dots<S: Simd, E: Element>(s: S, x: &[f32], m: &[E], y: &mut [f32]) {
    assert_eq!(m.len(), x.len() * y.len());
    let (blocks, rest) = y.as_chunks_mut::<4>();
    let done = 4 * blocks.len() * x.len();
    for (block, y) in blocks.iter_mut().enumerate() {
        // SAFETY: M has four rows of K from here.
        *y = unsafe { dots_of_rows(s, x, m.as_ptr().add(4 * block * x.len())) };
    }
    for (i, y) in rest.iter_mut().enumerate() {
        // SAFETY: M has a row of K from here.
        [*y] = unsafe { dots_of_rows(s, x, m.as_ptr().add(done + i * x.len())) };
    }
}

/// The products of x with `N` rows.
///
/// # Safety
/// `N` rows as long as x are readable at `rows`.
#[inline(always)]
unsafe fn dots_of_rows<S: Simd, E: Element, const N: usize>(
    s: S,
    x: &[f32],
    rows: *const E,
) -> [f32; N] {
    let k = x.len();
    let whole = k / S::LANES * S::LANES;
    let mut sums = [s.splat(0.0); N];
    // SAFETY: i + LANES ≤ K, whole + (K − whole) = K, and there are N rows of K.
    unsafe {
        for i in (0..whole).step_by(S::LANES) {
            let x = s.load(x.as_ptr().add(i));
            for (row, sum) in sums.iter_mut().enumerate() {
                *sum = s.fma(x, E::load(s, rows.add(row * k + i), S::LANES), *sum);
            }
        }
        if whole < k {
            let x = s.load_part(x.as_ptr().add(whole), k - whole);
            for (row, sum) in sums.iter_mut().enumerate() {
                *sum = s.fma(x, E::load(s, rows.add(row * k + whole), k - whole), *sum);
            }
        }
    }
    sums.map(
        #[inline(always)]
        |sum| s.sum(sum),
    )
}

/// y `[K]` ← Mᵀ · w, M `[N, K]`, w `[N]`: y stays in registers while M is read once.
#[inline(always)]
pub fn weighted_sum<S: Simd, E: Element>(s: S, w: &[f32], m: &[E], y: &mut [f32]) {
    let k = y.len();
    assert_eq!(m.len(), k * w.len());
    let whole = k / S::LANES * S::LANES;
    let mut at = 0;
    // SAFETY: at + the columns of a call ≤ whole ≤ k, and m has a row of k values for each of w.
    unsafe {
        while at + 4 * S::LANES <= whole {
            columns::<S, E, 4>(s, w, m.as_ptr().add(at), k, y.as_mut_ptr().add(at));
            at += 4 * S::LANES;
        }
        while at + 2 * S::LANES <= whole {
            columns::<S, E, 2>(s, w, m.as_ptr().add(at), k, y.as_mut_ptr().add(at));
            at += 2 * S::LANES;
        }
        if at < whole {
            columns::<S, E, 1>(s, w, m.as_ptr().add(at), k, y.as_mut_ptr().add(at));
        }
    }
    if whole < k {
        let mut sum = s.splat(0.0);
        for (w, row) in w.iter().zip(m.chunks_exact(k)) {
            // SAFETY: whole + (k − whole) = k.
            let row = unsafe { E::load(s, row.as_ptr().add(whole), k - whole) };
            sum = s.fma(s.splat(*w), row, sum);
        }
        // SAFETY: as above.
        unsafe { s.store_part(y.as_mut_ptr().add(whole), k - whole, sum) };
    }
}

/// `N` vectors of columns of [`weighted_sum`], with two sums for each so that none waits for the row before.
///
/// # Safety
/// `N · LANES` values are readable at `m` and at every multiple of `stride` after it below `w.len() · stride`, and
/// writable at `y`.
#[inline(always)]
unsafe fn columns<S: Simd, E: Element, const N: usize>(
    s: S,
    w: &[f32],
    m: *const E,
    stride: usize,
    y: *mut f32,
) {
    let mut sums = [[s.splat(0.0); N]; 2];
    let (pairs, last) = w.as_chunks::<2>();
    let rows = pairs.iter().map(<[f32; 2]>::as_slice).chain(std::iter::once(last));
    for (pair, weights) in rows.enumerate() {
        for (row, (w, sums)) in weights.iter().zip(&mut sums).enumerate() {
            let w = s.splat(*w);
            for (j, sum) in sums.iter_mut().enumerate() {
                // SAFETY: row 2·pair + row of w, column j of N.
                let x = unsafe {
                    E::load(s, m.add((2 * pair + row) * stride + j * S::LANES), S::LANES)
                };
                *sum = s.fma(w, x, *sum);
            }
        }
    }
    let [even, odd] = sums;
    for (j, (even, odd)) in even.into_iter().zip(odd).enumerate() {
        // SAFETY: column j of N.
        unsafe { s.store(y.add(j * S::LANES), s.add(even, odd)) };
    }
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
