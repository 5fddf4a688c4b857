//! AdamW over flat vectors, by the CPU kernels of `kernels::adamw` where they apply.

use kernels::adamw;
use tch::{Kind, Tensor};

use super::memory::{read, single_on_cpu, write};
use crate::libtorch::parallel;

pub use kernels::adamw::Update;

/// L2 norm of all elements.
pub fn norm(x: &Tensor) -> f64 {
    if single_on_cpu(x) && x.is_contiguous() {
        return adamw::sum_of_squares(read(x), &parallel).sqrt();
    }
    x.norm().double_value(&[])
}

/// One update of `parameters` and both moments, f32 vectors of one length that nothing records.
pub fn adamw(
    update: &Update,
    parameters: &mut Tensor,
    gradients: &Tensor,
    first_moments: &mut Tensor,
    second_moments: &mut Tensor,
) {
    if single_on_cpu(parameters) {
        let (m, v) = (write(first_moments), write(second_moments));
        return adamw::update(update, write(parameters), read(gradients), m, v, &parallel);
    }
    let Update { rate, betas: (beta1, beta2), epsilon, decay, decayed, gradient_factor, number } =
        *update;
    let number = number.min(i32::MAX as u64) as i32;
    tch::no_grad(|| {
        let gradients = gradients * gradient_factor;
        let _ = first_moments.lerp_(&gradients, 1.0 - beta1);
        let _ = second_moments.lerp_(&gradients.square(), 1.0 - beta2);
        if decay > 0.0 && decayed > 0 {
            let _ = parameters.narrow(0, 0, decayed as i64).g_mul_scalar_(1.0 - rate * decay);
        }
        let (bias1, bias2) = (1.0 - beta1.powi(number), 1.0 - beta2.powi(number));
        let denominator = (&*second_moments / bias2).sqrt() + epsilon;
        let step = &*first_moments / denominator * (-rate / bias1);
        let _ = parameters.g_add_(&step.to_kind(Kind::Float));
    });
}
