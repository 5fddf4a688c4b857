//! AdamW over flat vectors, by the CPU kernels of `kernels::adamw` where they apply, and the orthogonal matrix near another.

use kernels::adamw;
use tch::{Device, Kind, Tensor};

use super::linear::linear;
use super::memory::{read, single_on_cpu, write};
use crate::libtorch::parallel;

pub use kernels::adamw::{Group, Update};

/// The groups of all elements of a flat vector, and on a GPU each element's own numbers.
#[derive(Debug)]
pub struct Groups {
    list: Vec<Group>,
    /// Rate and decay, each `[n]`.
    of_elements: Option<(Tensor, Tensor)>,
}

impl Groups {
    /// For vectors on `device`.
    pub fn new(list: Vec<Group>, device: Device) -> Self {
        let spread = |number: fn(&Group) -> f64| {
            let parts: Vec<Tensor> = list
                .iter()
                .map(|group| {
                    Tensor::full([group.elements as i64], number(group), (Kind::Float, device))
                })
                .collect();
            Tensor::cat(&parts, 0)
        };
        let of_elements = (device != Device::Cpu && !list.is_empty())
            .then(|| (spread(|group| group.rate), spread(|group| group.decay)));
        Self { list, of_elements }
    }
}

/// L2 norm of all elements.
pub fn norm(x: &Tensor) -> f64 {
    if single_on_cpu(x) && x.is_contiguous() {
        return adamw::sum_of_squares(read(x), &parallel).sqrt();
    }
    x.norm().double_value(&[])
}

/// One update of `parameters` and both moments, f32 vectors of one length, on the device of `groups`, that nothing
/// records.
pub fn adamw(
    update: &Update,
    groups: &Groups,
    parameters: &mut Tensor,
    gradients: &Tensor,
    first_moments: &mut Tensor,
    second_moments: &mut Tensor,
) {
    let Some((rates, decays)) = &groups.of_elements else {
        let (m, v) = (write(first_moments), write(second_moments));
        let (parameters, gradients) = (write(parameters), read(gradients));
        return adamw::update(update, &groups.list, parameters, gradients, m, v, &parallel);
    };
    let Update { rate, betas: (beta1, beta2), epsilon, gradient_factor, number } = *update;
    let number = number.min(i32::MAX as u64) as i32;
    tch::no_grad(|| {
        let gradients = gradients * gradient_factor;
        let _ = first_moments.lerp_(&gradients, 1.0 - beta1);
        let _ = second_moments.lerp_(&gradients.square(), 1.0 - beta2);
        let (bias1, bias2) = (1.0 - beta1.powi(number), 1.0 - beta2.powi(number));
        // m̂ / (√v̂ + ε) = m / (√(v · bias1² / bias2) + ε · bias1)
        let mut step = &*second_moments * (bias1 * bias1 / bias2);
        let _ = step.sqrt_().g_add_scalar_(epsilon * bias1);
        let mut step = &*first_moments / step;
        let _ = step.addcmul_(decays, parameters);
        let _ = parameters.addcmul_(&step, &(rates * -rate));
    });
}

/// Steps of [`orthogonalised`].
const NEWTON_SCHULZ_STEPS: usize = 5;

/// x `[n, r, c]`, each matrix brought near the closest one with orthonormal rows or columns: its singular values, but
/// for those next to nothing, come between 0.7 and 1.2. Five steps of Newton and Schulz, X ← a X + (b A + c A²) X with
/// A = X Xᵀ, with the coefficients of Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon). Products are made in
/// [`crate::precision::current`], on a GPU in bf16.
pub fn orthogonalised(x: &Tensor) -> Tensor {
    const A: f64 = 3.4445;
    const B: f64 = -4.7750;
    const C: f64 = 2.0315;
    let kind = x.kind();
    let tall = x.size()[1] > x.size()[2];
    let x = if tall { x.transpose(1, 2) } else { x.shallow_clone() };
    let norm = x.square().sum_dim_intlist([1_i64, 2].as_slice(), true, kind).sqrt();
    let x = (x / (norm + 1e-7)).contiguous();
    let x = if x.device().is_cuda() {
        let mut x = x.to_kind(Kind::BFloat16);
        for _ in 0..NEWTON_SCHULZ_STEPS {
            let a = x.matmul(&x.transpose(1, 2));
            let b = a.baddbmm(&a, &a, B, C);
            x = x.baddbmm(&b, &x, A, 1.0);
        }
        x.to_kind(kind)
    } else {
        let matrices: Vec<Tensor> =
            x.unbind(0).into_iter().map(|x| newton_schulz(x, [A, B, C])).collect();
        Tensor::stack(&matrices, 0)
    };
    if tall { x.transpose(1, 2) } else { x }
}

/// The steps for one matrix `[r, c]`, by the kernels where they apply.
fn newton_schulz(mut x: Tensor, [a, b, c]: [f64; 3]) -> Tensor {
    for _ in 0..NEWTON_SCHULZ_STEPS {
        let square = linear(&x, &x); // A = X Xᵀ, its own transpose
        let polynomial = linear(&square, &square) * c + &square * b;
        x = linear(&polynomial, &x.transpose(0, 1).contiguous()) + x * a;
    }
    x
}
