//! AdamW over flat vectors, by the CPU kernels of `kernels::adamw` where they apply.

use kernels::adamw;
use tch::{Device, Kind, Tensor};

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
