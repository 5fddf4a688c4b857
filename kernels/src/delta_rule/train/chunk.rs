//! One chunk of one head: its inputs gathered into adjacent rows, and the quantities of the forward pass.

use super::{CHUNK, Inputs, Shape, solve};
use crate::cpu::gemm::{Gemm, View};
use crate::cpu::pool::SharedMut;
use crate::cpu::transpose::transpose;
use crate::cpu::{Kernel, Simd, run, vector};

/// A chunk and its scratch memory, used again from chunk to chunk. C below is `rows`.
pub(super) struct Chunk {
    pub(super) shape: Shape,
    /// Positions of this chunk, at most [`CHUNK`].
    pub(super) rows: usize,
    /// Index into `[B, T, H]` of the first position; a position is `shape.heads` further than the one before.
    pub(super) first: usize,
    /// `[C, K]`.
    pub(super) q: Vec<f32>,
    /// `[C, K]`.
    pub(super) k: Vec<f32>,
    /// `[C, K]`: e^ℓ ⊙ Q.
    pub(super) q_decayed: Vec<f32>,
    /// `[C, K]`: −e^ℓ ⊙ K.
    pub(super) k_decayed: Vec<f32>,
    /// `[C, K]`: e^{ℓ_C − ℓ} ⊙ K.
    pub(super) k_kept: Vec<f32>,
    /// `[K, C]`: Kᵀ.
    pub(super) k_transposed: Vec<f32>,
    /// `[C, V]`: V, then E.
    pub(super) e: Vec<f32>,
    /// `[C, V]`: β ⊙ E, then Δ.
    pub(super) delta: Vec<f32>,
    /// `[C, V]`: the output, without its scale.
    pub(super) out: Vec<f32>,
    /// `[C]`: β.
    pub(super) beta: Vec<f32>,
    /// `[C]`: ℓ, e^ℓ, e^{ℓ_C − ℓ}.
    pub(super) log_decay: Vec<f32>,
    pub(super) decay: Vec<f32>,
    pub(super) kept: Vec<f32>,
    /// `[C, CHUNK]`: Γ, zero above the diagonal.
    pub(super) gamma: Vec<f32>,
    /// `[C, CHUNK]`: Γ ⊙ K Kᵀ, zero on and above the diagonal.
    pub(super) kk: Vec<f32>,
    /// `[C, CHUNK]`: −A, zero on and above the diagonal.
    pub(super) minus_a: Vec<f32>,
    /// `[C, CHUNK]`: P, zero above the diagonal.
    pub(super) p: Vec<f32>,
}

impl Chunk {
    pub(super) fn new(shape: Shape) -> Self {
        let keys = || vec![0.0; CHUNK * shape.key_width];
        let values = || vec![0.0; CHUNK * shape.value_width];
        let square = || vec![0.0; CHUNK * CHUNK];
        let scalars = || vec![0.0; CHUNK];
        Self {
            shape,
            rows: 0,
            first: 0,
            q: keys(),
            k: keys(),
            q_decayed: keys(),
            k_decayed: keys(),
            k_kept: keys(),
            k_transposed: keys(),
            e: values(),
            delta: values(),
            out: values(),
            beta: scalars(),
            log_decay: scalars(),
            decay: scalars(),
            kept: scalars(),
            gamma: square(),
            kk: square(),
            minus_a: square(),
            p: square(),
        }
    }

    /// e^{ℓ_C}: how much of the state before the chunk is left after it.
    pub(super) fn whole_decay(&self) -> f32 {
        self.decay[self.rows - 1]
    }

    /// Gathers chunk `index` of `piece` = sequence · H + head, and forms what does not depend on the state.
    pub(super) fn load(&mut self, inputs: &Inputs, piece: usize, index: usize) {
        let Shape { tokens, heads, key_width, value_width, .. } = self.shape;
        let (sequence, head) = (piece / heads, piece % heads);
        let position = index * CHUNK;
        self.rows = CHUNK.min(tokens - position);
        self.first = (sequence * tokens + position) * heads + head;
        let mut log_decay = 0.0;
        for i in 0..self.rows {
            let row = self.first + i * heads;
            self.q[i * key_width..][..key_width]
                .copy_from_slice(&inputs.q[row * key_width..][..key_width]);
            self.k[i * key_width..][..key_width]
                .copy_from_slice(&inputs.k[row * key_width..][..key_width]);
            self.e[i * value_width..][..value_width]
                .copy_from_slice(&inputs.v[row * value_width..][..value_width]);
            self.beta[i] = inputs.beta[row];
            log_decay += inputs.g[row];
            self.log_decay[i] = log_decay;
        }
        run(Decays { chunk: self });
        let (rows, k) = (self.rows, key_width);
        transpose(rows, k, View::new(&self.k, k), &mut self.k_transposed, CHUNK);
        multiply(
            (rows, rows, k),
            View::new(&self.k, k),
            (&self.k_transposed, CHUNK),
            (&mut self.kk, CHUNK),
            false,
        );
        multiply(
            (rows, rows, k),
            View::new(&self.q, k),
            (&self.k_transposed, CHUNK),
            (&mut self.p, CHUNK),
            false,
        );
        run(Mask { chunk: self });
    }

    /// E and Δ, from the state before the chunk, `[K, V]`.
    pub(super) fn correct(&mut self, state: &[f32]) {
        let (rows, k, v) = (self.rows, self.shape.key_width, self.shape.value_width);
        multiply((rows, v, k), View::new(&self.k_decayed, k), (state, v), (&mut self.e, v), true);
        for ((delta, e), beta) in
            self.delta.chunks_mut(v).zip(self.e.chunks(v)).zip(&self.beta).take(rows)
        {
            for (delta, e) in delta.iter_mut().zip(e) {
                *delta = beta * e;
            }
        }
        solve::forward(&self.minus_a, &mut self.delta[..rows * v], rows, v);
    }

    /// The output without its scale, from the state before the chunk and Δ.
    pub(super) fn read(&mut self, state: &[f32]) {
        let (rows, k, v) = (self.rows, self.shape.key_width, self.shape.value_width);
        multiply(
            (rows, v, k),
            View::new(&self.q_decayed, k),
            (state, v),
            (&mut self.out, v),
            false,
        );
        multiply(
            (rows, v, rows),
            View::new(&self.p, CHUNK),
            (&self.delta, v),
            (&mut self.out, v),
            true,
        );
    }

    /// Scales the output into its rows of `[B, T, H, V]`.
    pub(super) fn write_output(&self, scale: f32, out: &SharedMut) {
        let v = self.shape.value_width;
        for (i, from) in self.out.chunks(v).take(self.rows).enumerate() {
            // SAFETY: the rows of this head and sequence belong to this piece alone.
            let to = unsafe { out.part((self.first + i * self.shape.heads) * v, v) };
            for (to, from) in to.iter_mut().zip(from) {
                *to = scale * from;
            }
        }
    }

    /// The state after the chunk in place of the one before.
    pub(super) fn advance(&self, state: &mut [f32]) {
        let (rows, k, v) = (self.rows, self.shape.key_width, self.shape.value_width);
        let decay = self.whole_decay();
        for s in state.iter_mut() {
            *s *= decay;
        }
        multiply(
            (k, v, rows),
            View::new(&self.k_kept, k).transposed(),
            (&self.delta, v),
            (state, v),
            true,
        );
    }
}

/// C `[m, n]` ← or += A `[m, k]` · B `[k, n]`, for (m, n, k) and row strides of B and C.
pub(super) fn multiply(
    (m, n, k): (usize, usize, usize),
    a: View,
    (b, b_row): (&[f32], usize),
    (c, c_stride): (&mut [f32], usize),
    accumulate: bool,
) {
    Gemm { m, n, k, a, b: View::new(b, b_row), c, c_stride, accumulate }.run();
}

/// e^ℓ, e^{ℓ_C − ℓ}, Γ, and the decayed q and k.
struct Decays<'a> {
    chunk: &'a mut Chunk,
}

impl Kernel for Decays<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let chunk = self.chunk;
        let (rows, k) = (chunk.rows, chunk.shape.key_width);
        let last = chunk.log_decay[rows - 1];
        for i in 0..rows {
            let log_decay = chunk.log_decay[i];
            chunk.decay[i] = log_decay;
            chunk.kept[i] = last - log_decay;
            for (gamma, earlier) in chunk.gamma[i * CHUNK..][..=i].iter_mut().zip(&chunk.log_decay)
            {
                *gamma = log_decay - earlier;
            }
            vector::exp_and_sum(s, 0.0, &mut chunk.gamma[i * CHUNK..][..=i]);
            chunk.gamma[i * CHUNK + i + 1..][..CHUNK - i - 1].fill(0.0);
        }
        vector::exp_and_sum(s, 0.0, &mut chunk.decay[..rows]);
        vector::exp_and_sum(s, 0.0, &mut chunk.kept[..rows]);
        for i in 0..rows {
            let (decay, kept) = (chunk.decay[i], chunk.kept[i]);
            for j in i * k..(i + 1) * k {
                chunk.q_decayed[j] = decay * chunk.q[j];
                chunk.k_decayed[j] = -decay * chunk.k[j];
                chunk.k_kept[j] = kept * chunk.k[j];
            }
        }
    }
}

/// Decay and mask of K Kᵀ and Q Kᵀ, and −A.
struct Mask<'a> {
    chunk: &'a mut Chunk,
}

impl Kernel for Mask<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, _: S) {
        let chunk = self.chunk;
        for i in 0..chunk.rows {
            let row = i * CHUNK..(i + 1) * CHUNK;
            let minus_beta = -chunk.beta[i];
            let gamma = &chunk.gamma[row.clone()];
            let (kk, p, minus_a) = (
                &mut chunk.kk[row.clone()],
                &mut chunk.p[row.clone()],
                &mut chunk.minus_a[row.clone()],
            );
            for j in 0..CHUNK {
                p[j] *= gamma[j]; // Γ is zero above the diagonal
                kk[j] *= gamma[j];
                minus_a[j] = minus_beta * kk[j];
            }
            kk[i] = 0.0;
            minus_a[i] = 0.0;
        }
    }
}
