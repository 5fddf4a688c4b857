//! AdamW over flat vectors, by the CPU kernels of `kernels::adamw` where they apply, and the orthogonal matrix near another.

use kernels::adamw;
use kernels::newton_schulz::{self, BLOCK};
use tch::{Device, Kind, Tensor};

use super::memory::{read, single_on_cpu, write};
use crate::libtorch::parallel;

pub use kernels::adamw::{Group, Update};
pub use kernels::newton_schulz::Units;

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
    if groups.of_elements.is_some() {
        let numbers = Tensor::from_slice(&adamw_numbers(update)).to_device(parameters.device());
        let moments = [first_moments, second_moments];
        return adamw_on_gpu(update.betas, &numbers, groups, parameters, gradients, moments);
    }
    let (m, v) = (write(first_moments), write(second_moments));
    let (parameters, gradients) = (write(parameters), read(gradients));
    adamw::update(update, &groups.list, parameters, gradients, m, v, &parallel);
}

/// What of an update changes from one to the next: bias1² / bias2, ε bias1 and −η, and before them the factor of the
/// gradient.
pub fn adamw_numbers(update: &Update) -> [f32; 4] {
    let Update { rate, betas: (beta1, beta2), epsilon, gradient_factor, number } = *update;
    let number = number.min(i32::MAX as u64) as i32;
    let (bias1, bias2) = (1.0 - beta1.powi(number), 1.0 - beta2.powi(number));
    [gradient_factor, bias1 * bias1 / bias2, epsilon * bias1, -rate].map(|x| x as f32)
}

/// One update of `parameters` and both `moments` on the GPU of `groups`, where `numbers` `[4]` are what
/// [`adamw_numbers`] gives: nothing in it depends on the host, so that it can be recorded.
///
/// # Panics
/// When the groups are those of a CPU.
pub fn adamw_on_gpu(
    (beta1, beta2): (f64, f64),
    numbers: &Tensor,
    groups: &Groups,
    parameters: &mut Tensor,
    gradients: &Tensor,
    [first_moments, second_moments]: [&mut Tensor; 2],
) {
    let (rates, decays) = groups.of_elements.as_ref().expect("groups of a GPU");
    tch::no_grad(|| {
        let gradients = gradients * numbers.get(0);
        let _ = first_moments.lerp_(&gradients, 1.0 - beta1);
        let _ = second_moments.lerp_(&gradients.square(), 1.0 - beta2);
        // m̂ / (√v̂ + ε) = m / (√(v · bias1² / bias2) + ε · bias1)
        let mut step = &*second_moments * numbers.get(1);
        let _ = step.sqrt_().g_add_(&numbers.get(2));
        let mut step = &*first_moments / step;
        let _ = step.addcmul_(decays, parameters);
        let _ = parameters.addcmul_(&step, &(rates * numbers.get(3)));
    });
}

/// x `[n, r, c]`, each matrix in blocks of [`BLOCK`] units, each block brought near the closest one with orthonormal rows
/// or columns and made as large as a root mean square of 1: [`newton_schulz::definition`]. Products are made in f32, on a
/// GPU in bf16.
pub fn orthogonalised(x: &Tensor, units: Units) -> Tensor {
    let x = x.contiguous();
    let shape = x.size();
    if single_on_cpu(&x) {
        let matrix = [shape[1] as usize, shape[2] as usize];
        let mut y = x.empty_like();
        newton_schulz::orthogonalise(units, matrix, read(&x), write(&mut y), &parallel);
        return y;
    }
    match units {
        Units::Rows => by_torch(&x),
        Units::Columns => by_torch(&x.transpose(1, 2)).transpose(1, 2),
    }
}

/// The blocks of rows of x `[n, r, c]`.
fn by_torch(x: &Tensor) -> Tensor {
    let [a, b, c] = newton_schulz::COEFFICIENTS;
    let (n, r, width) = x.size3().expect("x is [n, r, c]");
    let block = r.min(BLOCK as i64);
    let blocks = (r + block - 1) / block;
    // rows of zeros stay so, and change nothing of the others
    let x = x.constant_pad_nd([0, 0, 0, blocks * block - r]).reshape([n * blocks, block, width]);
    let kind = if x.device().is_cuda() { Kind::BFloat16 } else { x.kind() };
    let norm = x.square().sum_dim_intlist([1_i64, 2].as_slice(), true, x.kind()).sqrt();
    let mut y = (&x / (norm + newton_schulz::EPSILON)).to_kind(kind);
    let tall = block > width;
    if tall {
        y = y.transpose(1, 2).contiguous();
    }
    for _ in 0..newton_schulz::STEPS {
        let gram = y.matmul(&y.transpose(1, 2));
        let polynomial = gram.baddbmm(&gram, &gram, b, c);
        y = y.baddbmm(&polynomial, &y, a, 1.0);
    }
    if tall {
        y = y.transpose(1, 2);
    }
    // the last block may have fewer rows
    let size = |rows: i64| f64::from((rows.max(width) as f32).sqrt());
    let sizes = Tensor::full([1, blocks, 1, 1], size(block), (Kind::Float, x.device()));
    let _ = sizes.narrow(1, blocks - 1, 1).fill_(size(r - (blocks - 1) * block));
    let y = y.to_kind(x.kind()).reshape([n, blocks, block, width]) * sizes;
    y.reshape([n, blocks * block, width]).narrow(1, 0, r)
}
