//! The weights of the pairs of a block, Σ_c x_ic k_jc Γ_ijc, and the gradients through them.
//!
//! Γ_ij goes on from pair to pair: forward from row to row for all earlier positions at once, which lie in the lanes of a
//! vector; backward from column to column, channels in the lanes, where dq and dk stay in registers.

use super::extents::BLOCK;
use crate::cpu::gemm::View;
use crate::cpu::transpose::transpose;
use crate::cpu::{Element, Simd};

/// Ones, then zeros: from [`BLOCK`] − n on, n ones before all others.
static ONES_FIRST: [f32; 2 * BLOCK] = {
    let mut mask = [0.0; 2 * BLOCK];
    let mut i = 0;
    while i < BLOCK {
        mask[i] = 1.0;
        i += 1;
    }
    mask
};

/// Σ_c q_ic k_jc Γ_ijc for i ≥ j into `qk`, Σ_c k_ic k_jc Γ_ijc for i > j into `kk`, both `[C, BLOCK]` and 0 elsewhere.
///
/// q, k and the decays a are `[C, K]`, for `[C, K]` = `[rows, width]`; `decayed` `[K, BLOCK]` is working memory.
#[inline(always)]
pub(super) fn weights<S: Simd>(
    s: S,
    [rows, width]: [usize; 2],
    [q, k, a]: [&[f32]; 3],
    decayed: &mut [f32],
    [qk, kk]: [&mut [f32; BLOCK * BLOCK]; 2],
) {
    let len = rows * width;
    assert!(rows <= BLOCK && BLOCK.is_multiple_of(S::LANES));
    assert!(q.len() >= len && k.len() >= len && a.len() >= len && decayed.len() >= width * BLOCK);
    transpose(rows, width, View::new(k, width), decayed, BLOCK);
    let rows_of = Rows {
        width,
        q: q.as_ptr(),
        k: k.as_ptr(),
        a: a.as_ptr(),
        decayed: decayed.as_mut_ptr(),
        qk: qk.as_mut_ptr(),
        kk: kk.as_mut_ptr(),
    };
    for first in (0..rows).step_by(S::LANES) {
        let mut i = first;
        // SAFETY: the rows are below `rows`, and the lanes from `first` end before BLOCK: it is a multiple of LANES.
        unsafe {
            while i + 2 <= rows {
                rows_of.some::<S, 2>(s, first, i);
                i += 2;
            }
            if i < rows {
                rows_of.some::<S, 1>(s, first, i);
            }
        }
    }
    for i in 0..rows {
        qk[i * BLOCK + i + 1..(i + 1) * BLOCK].fill(0.0);
        kk[i * BLOCK + i..(i + 1) * BLOCK].fill(0.0);
    }
}

/// What the rows of [`weights`] are computed from, and where they go.
struct Rows {
    width: usize,
    q: *const f32,
    k: *const f32,
    a: *const f32,
    decayed: *mut f32,
    qk: *mut f32,
    kk: *mut f32,
}

impl Rows {
    /// `R` rows from row `i` on, columns `first` to `first` + LANES ≤ BLOCK.
    ///
    /// Lane j of `decayed` holds k_jc Γ_{i−1,j,c}, k_jc itself where j ≥ i: a row multiplies the lanes before its own.
    ///
    /// # Safety
    /// There are `R` rows from `i` on, not before `first`, and the columns lie inside a block.
    #[inline(always)]
    unsafe fn some<S: Simd, const R: usize>(&self, s: S, first: usize, i: usize) {
        let mut masks = [[s.splat(0.0); 2]; R]; // 1 for the lanes before row i + r, 1 for the others
        for (r, [before, others]) in masks.iter_mut().enumerate() {
            let lanes = (i + r - first).min(S::LANES);
            // SAFETY: LANES ≤ BLOCK values from BLOCK − lanes lie inside the 2·BLOCK.
            *before = unsafe { s.load(ONES_FIRST.as_ptr().add(BLOCK - lanes)) };
            *others = s.sub(s.splat(1.0), *before);
        }
        let mut sums = [[s.splat(0.0); 2]; R];
        // SAFETY: K channels, of rows that the caller promises.
        unsafe {
            for c in 0..self.width {
                let keys = self.decayed.add(c * BLOCK + first);
                let mut decayed = s.load(keys);
                for (r, [qk, kk]) in sums.iter_mut().enumerate() {
                    let at = (i + r) * self.width + c;
                    let [before, others] = masks[r];
                    // a, or exactly 1
                    let decay = s.fma(before, s.splat(*self.a.add(at)), others);
                    decayed = s.mul(decayed, decay);
                    *qk = s.fma(s.splat(*self.q.add(at)), decayed, *qk);
                    *kk = s.fma(s.splat(*self.k.add(at)), decayed, *kk);
                }
                s.store(keys, decayed);
            }
            for (r, [qk, kk]) in sums.into_iter().enumerate() {
                s.store(self.qk.add((i + r) * BLOCK + first), qk);
                s.store(self.kk.add((i + r) * BLOCK + first), kk);
            }
        }
    }
}

/// A vector of channels of a block, for the gradients through its pairs.
pub(super) struct Channels<'a> {
    /// Channels of a head: the distance between rows.
    pub(super) width: usize,
    /// The first of these channels, and how many there are, at most LANES.
    pub(super) at: usize,
    pub(super) n: usize,
    /// `[C, K]`
    pub(super) k: &'a [f32],
    /// `[C, K]`
    pub(super) decays: &'a [f32],
    /// `[C, BLOCK]`: the gradients that arrive at Σ_c k_ic k_jc Γ_ijc, read for i > j.
    pub(super) d_kk: &'a [f32; BLOCK * BLOCK],
    /// `[C, BLOCK]`: the gradients that arrive at Σ_c q_ic k_jc Γ_ijc, read for i ≥ j.
    pub(super) d_qk: &'a [f32; BLOCK * BLOCK],
}

/// The gradients through the pairs (i, j ≤ i) of a row i.
pub(super) struct RowGradients<V> {
    /// dq_i
    pub(super) q: V,
    /// dk_i, as the later of each pair, and of the pair (i, i).
    pub(super) k: V,
    /// dg_i
    pub(super) g: V,
}

impl Channels<'_> {
    /// These channels of row `i` of `x` `[C, K]`.
    #[inline(always)]
    pub(super) fn load<S: Simd>(&self, s: S, x: &[f32], i: usize) -> S::V {
        let from = &x[i * self.width + self.at..][..self.n];
        // SAFETY: n values, at most LANES.
        unsafe { f32::load(s, from.as_ptr(), self.n) }
    }

    /// These channels of row `i` of `x` `[C, K]` ← `value`.
    #[inline(always)]
    pub(super) fn store<S: Simd>(&self, s: S, x: &mut [f32], i: usize, value: S::V) {
        let to = &mut x[i * self.width + self.at..][..self.n];
        // SAFETY: n values, at most LANES.
        unsafe { f32::store(s, to.as_mut_ptr(), self.n, value) }
    }

    /// The gradients of row `i`, after those of all later rows. `columns` collects dk_j as the earlier of each pair.
    ///
    /// g_i stands in Γ_mj for every j < i ≤ m: its gradient is Σ_{j<i} k_j ⊙ (what the rows m ≥ i gave dk_j), a sum of what
    /// passes i and of nothing else.
    #[inline(always)]
    pub(super) fn row<S: Simd>(
        &self,
        s: S,
        i: usize,
        q: S::V,
        columns: &mut [S::V; BLOCK],
    ) -> RowGradients<S::V> {
        let k = self.load(s, self.k, i);
        let own = s.splat(self.d_qk[i * BLOCK + i]);
        let mut d = RowGradients { q: s.mul(own, k), k: s.mul(own, q), g: s.splat(0.0) };
        let row = i * BLOCK..i * BLOCK + i;
        let pairs = self.d_kk[row.clone()].iter().zip(&self.d_qk[row]).zip(&mut columns[..i]);
        let end = i * self.width + self.at + self.n;
        assert!(self.k.len() >= end && self.decays.len() >= end);
        let (keys, decays) = (self.k[self.at..].as_ptr(), self.decays[self.at..].as_ptr());
        let mut gamma = s.splat(1.0);
        for (j, ((d_kk, d_qk), column)) in pairs.enumerate().rev() {
            // SAFETY: j < i, and these channels of row i lie inside both, as asserted.
            let (earlier, decay) = unsafe {
                let decay = decays.add((j + 1) * self.width);
                (f32::load(s, keys.add(j * self.width), self.n), f32::load(s, decay, self.n))
            };
            gamma = s.mul(gamma, decay);
            let decayed = s.mul(earlier, gamma);
            let (d_kk, d_qk) = (s.splat(*d_kk), s.splat(*d_qk));
            d.q = s.fma(d_qk, decayed, d.q);
            d.k = s.fma(d_kk, decayed, d.k);
            let later = s.fma(d_qk, q, s.mul(d_kk, k));
            *column = s.fma(later, gamma, *column);
            d.g = s.fma(earlier, *column, d.g);
        }
        d
    }
}
