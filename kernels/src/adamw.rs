//! AdamW (arXiv 1711.05101, alg. 2) over flat buffers: one pass over parameters, gradients and both moments.

use crate::cpu::pool::SharedMut;
use crate::cpu::{Kernel, Parallel, Simd, dynamic, run};

/// Elements of a piece of work.
const PIECE: usize = 1 << 14;

/// The numbers of one update.
#[derive(Debug, Clone, Copy)]
pub struct Update {
    /// Learning rate, of which each group takes its part.
    pub rate: f64,
    /// β₁, β₂.
    pub betas: (f64, f64),
    /// ε, beside √v̂.
    pub epsilon: f64,
    /// Factor of the gradient, for clipping.
    pub gradient_factor: f64,
    /// Number of this update, from 1.
    pub number: u64,
}

/// Consecutive elements that are treated alike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Group {
    /// How many.
    pub elements: usize,
    /// Their learning rate over the update's.
    pub rate: f64,
    /// Their decoupled decay; λ in θ ← θ − rate · λ θ with their own learning rate.
    pub decay: f64,
}

impl Update {
    /// As plain numbers, for the elements of `group`.
    fn coefficients(&self, group: &Group) -> Coefficients {
        let rate = self.rate * group.rate;
        let number = self.number.min(i32::MAX as u64) as i32;
        let (beta1, beta2) = self.betas;
        let (bias1, bias2) = (1.0 - beta1.powi(number), 1.0 - beta2.powi(number));
        Coefficients {
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            gradient: self.gradient_factor as f32,
            step: (rate * bias2.sqrt() / bias1) as f32,
            epsilon: (self.epsilon * bias2.sqrt()) as f32,
            keep: (1.0 - rate * group.decay) as f32,
        }
    }
}

/// θ, m and v after one update, in f64; `groups` are all elements together.
pub fn definition(
    update: &Update,
    groups: &[Group],
    theta: &mut [f64],
    gradient: &[f64],
    m: &mut [f64],
    v: &mut [f64],
) {
    let (beta1, beta2) = update.betas;
    let number = update.number as i32;
    let groups = groups.iter().flat_map(|group| std::iter::repeat_n(group, group.elements));
    for ((i, g), group) in gradient.iter().enumerate().zip(groups) {
        let g = g * update.gradient_factor;
        m[i] = beta1 * m[i] + (1.0 - beta1) * g;
        v[i] = beta2 * v[i] + (1.0 - beta2) * g * g;
        let (m_hat, v_hat) = (m[i] / (1.0 - beta1.powi(number)), v[i] / (1.0 - beta2.powi(number)));
        let step = m_hat / (v_hat.sqrt() + update.epsilon) + group.decay * theta[i];
        theta[i] -= update.rate * group.rate * step;
    }
}

/// The same by kernels.
///
/// # Panics
/// When the slices differ in length, or the groups are not as long together.
pub fn update(
    update: &Update,
    groups: &[Group],
    theta: &mut [f32],
    gradient: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    parallel: Parallel,
) {
    let n = theta.len();
    assert_eq!([gradient.len(), m.len(), v.len()], [n; 3], "adamw: one length");
    let (theta, m, v) = (SharedMut::new(theta), SharedMut::new(m), SharedMut::new(v));
    let mut pieces: Vec<(usize, usize, Coefficients)> = Vec::new();
    let mut end = 0;
    for group in groups {
        let (from, coefficients) = (end, update.coefficients(group));
        end += group.elements;
        pieces.extend((from..end).step_by(PIECE).map(|at| (at, PIECE.min(end - at), coefficients)));
    }
    assert_eq!(end, n, "adamw: groups of all elements");
    dynamic(parallel, pieces.len(), &|piece| {
        let (from, len, coefficients) = pieces[piece];
        // SAFETY: pieces do not overlap.
        let (theta, m, v) =
            unsafe { (theta.part(from, len), m.part(from, len), v.part(from, len)) };
        run(Piece { coefficients, theta, gradient: &gradient[from..][..len], m, v });
    });
}

/// Σ x², in f64 over pieces.
pub fn sum_of_squares(x: &[f32], parallel: Parallel) -> f64 {
    let mut sums = vec![0.0_f64; x.len().div_ceil(PIECE)];
    let pieces = sums.len();
    let shared = SharedMut::new(&mut sums);
    dynamic(parallel, pieces, &|i| {
        let x = &x[i * PIECE..((i + 1) * PIECE).min(x.len())];
        // SAFETY: each sum is one piece's.
        unsafe { shared.part(i, 1)[0] = f64::from(run(Squares(x))) };
    });
    sums.iter().sum()
}

struct Squares<'a>(&'a [f32]);

impl Kernel for Squares<'_> {
    type Output = f32;

    #[inline(always)]
    fn body<S: Simd>(self, s: S) -> f32 {
        crate::cpu::vector::dot(s, self.0, self.0)
    }
}

#[derive(Debug, Clone, Copy)]
struct Coefficients {
    beta1: f32,
    beta2: f32,
    gradient: f32,
    step: f32,
    epsilon: f32,
    keep: f32,
}

struct Piece<'a> {
    coefficients: Coefficients,
    theta: &'a mut [f32],
    gradient: &'a [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
}

impl Kernel for Piece<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, _: S) {
        let Coefficients { beta1, beta2, gradient: factor, step, epsilon, keep } =
            self.coefficients;
        let (rest1, rest2) = (1.0 - beta1, 1.0 - beta2);
        let elements = self.theta.iter_mut().zip(self.gradient).zip(self.m).zip(self.v);
        // The compiler makes vector code of this, with a vector square root that the kernels' vectors lack.
        for (((theta, g), m), v) in elements {
            let g = g * factor;
            *m = beta1 * *m + rest1 * g;
            *v = beta2 * *v + rest2 * g * g;
            *theta = keep * *theta - step * *m / (v.sqrt() + epsilon);
        }
    }
}
