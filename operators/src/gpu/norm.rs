//! RMSNorm, gated or not, and the L2 norm by `kernels::cuda::norm`.

use kernels::cuda::chunked::Rows;
use kernels::cuda::norm::{Gate, Norm};
use tch::{Kind, Tensor};

use super::{address, in_rows, launch, on_gpu, rows};
use crate::libtorch::{Operation, apply};
use crate::ops::norm::{L2_EPS, Order, RMS_EPS};

/// Whether [`rms_norm`] and [`l2_norm`] take x `[…, W]`, and a gate of the same shape and kind.
pub(crate) fn suits_norm(x: &Tensor, gate: Option<&Tensor>) -> bool {
    let same = |gate: &Tensor| gate.kind() == x.kind() && gate.size() == x.size();
    on_gpu(x) && x.dim() >= 2 && shape(x, None, true).check().is_ok() && gate.is_none_or(same)
}

/// `x / √(mean x² + ε) · weight` over the last dimension, a gate before or after.
pub(crate) fn rms_norm(x: &Tensor, gate: Option<(&Tensor, Order)>, weight: &Tensor) -> Tensor {
    let inner = inner(x);
    let mut inputs = vec![in_rows(x, inner), weight.to_kind(Kind::Float).contiguous()];
    inputs.extend(gate.map(|(gate, _)| in_rows(gate, inner)));
    let inputs: Vec<&Tensor> = inputs.iter().collect();
    let operation = Rms { order: gate.map(|(_, order)| order) };
    apply(operation, &inputs).pop().expect("one output")
}

/// `x / √(Σ x² + ε)` over the last dimension, in the kind of x.
pub(crate) fn l2_norm(x: &Tensor) -> Tensor {
    apply(L2, &[&in_rows(x, inner(x))]).pop().expect("one output")
}

/// Dimensions without gaps: `[…, H, W]` of heads, else `[…, W]`.
fn inner(x: &Tensor) -> usize {
    if x.dim() > 3 { 2 } else { 1 }
}

fn shape(x: &Tensor, order: Option<Order>, mean: bool) -> Norm {
    let size = x.size();
    let (width, rest) = size.split_last().expect("x has columns");
    let (outer, heads) =
        if inner(x) == 2 { rest.split_at(rest.len() - 1) } else { (rest, &[][..]) };
    let count = |sizes: &[i64]| sizes.iter().product::<i64>() as usize;
    Norm {
        outer: count(outer),
        inner: count(heads),
        width: *width as usize,
        wide: x.kind() == Kind::Float,
        gate: match order {
            None => Gate::None,
            Some(Order::NormThenGate) => Gate::AfterNorm,
            Some(Order::NormThenSigmoid) => Gate::SigmoidAfterNorm,
            Some(Order::GateThenNorm) => Gate::BeforeNorm,
        },
        factor: if mean { 1.0 / *width as f32 } else { 1.0 },
        epsilon: if mean { RMS_EPS as f32 } else { L2_EPS as f32 },
    }
}

const NO_ROWS: Rows = Rows { address: 0, stride: 0 };

/// x `[…, W]`, weight `[W]`, perhaps a gate `[…, W]` → y `[…, W]`.
struct Rms {
    order: Option<Order>,
}

impl Operation for Rms {
    fn forward(&self, tensors: &[Tensor]) -> (Vec<Tensor>, Vec<Tensor>) {
        let x = &tensors[0];
        let gate = tensors.get(2).map_or(NO_ROWS, |gate| rows(gate, inner(gate)));
        let y = Tensor::empty(x.size(), (x.kind(), x.device()));
        let norm = shape(x, self.order, true);
        launch(x, &[norm.forward(rows(x, inner(x)), gate, address(&tensors[1]), address(&y))]);
        (vec![y], Vec::new())
    }

    fn backward(&self, tensors: &[Tensor], _: &[Tensor], d_outputs: &[Tensor]) -> Vec<Tensor> {
        let x = &tensors[0];
        let gate = tensors.get(2).map_or(NO_ROWS, |gate| rows(gate, inner(gate)));
        let norm = shape(x, self.order, true);
        let d_y = d_outputs[0].contiguous();
        let like = || Tensor::empty(x.size(), (x.kind(), x.device()));
        let (d_x, d_gate) = (like(), self.order.map(|_| like()));
        let parts = [norm.parts() as i64, norm.width as i64];
        let parts = Tensor::empty(parts, (Kind::Float, x.device()));
        launch(
            x,
            &[norm.backward(
                (rows(x, inner(x)), gate, address(&tensors[1])),
                address(&d_y),
                (address(&d_x), d_gate.as_ref().map_or(0, address), address(&parts)),
            )],
        );
        let mut gradients = vec![d_x, parts.sum_dim_intlist(0, false, Kind::Float)];
        gradients.extend(d_gate);
        gradients
    }
}

/// x `[…, W]` → y `[…, W]`.
struct L2;

impl Operation for L2 {
    fn forward(&self, tensors: &[Tensor]) -> (Vec<Tensor>, Vec<Tensor>) {
        let x = &tensors[0];
        let y = Tensor::empty(x.size(), (x.kind(), x.device()));
        let norm = shape(x, None, false);
        launch(x, &[norm.forward(rows(x, inner(x)), NO_ROWS, 0, address(&y))]);
        (vec![y], Vec::new())
    }

    fn backward(&self, tensors: &[Tensor], _: &[Tensor], d_outputs: &[Tensor]) -> Vec<Tensor> {
        let x = &tensors[0];
        let d_y = d_outputs[0].contiguous();
        let d_x = Tensor::empty(x.size(), (x.kind(), x.device()));
        let norm = shape(x, None, false);
        let inputs = (rows(x, inner(x)), NO_ROWS, 0);
        launch(x, &[norm.backward(inputs, address(&d_y), (address(&d_x), 0, 0))]);
        vec![d_x]
    }
}
