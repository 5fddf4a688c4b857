//! The short convolution by `kernels::cuda::short_conv`.

use kernels::cuda::short_conv::ShortConv;
use tch::{Kind, Tensor};

use super::{address, in_rows, launch, on_gpu, rows};
use crate::libtorch::{Operation, apply};

/// Whether [`conv_silu`] takes x `[B, T, C]`.
pub(crate) fn suits_conv(x: &Tensor) -> bool {
    on_gpu(x) && shape(x).check().is_ok()
}

/// `silu(conv(x) + bias)`: x `[B, T, C]`, weight `[C, 4]`, bias `[C]`.
pub(crate) fn conv_silu(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let single = |tensor: &Tensor| tensor.to_kind(Kind::Float).contiguous();
    let mut inputs = vec![in_rows(x, 1), single(weight)];
    inputs.extend(bias.map(single));
    let inputs: Vec<&Tensor> = inputs.iter().collect();
    apply(Conv, &inputs).pop().expect("one output")
}

fn shape(x: &Tensor) -> ShortConv {
    let (b, t, c) = x.size3().expect("x is [B, T, C]");
    let [batch, tokens, channels] = [b, t, c].map(|n| n as usize);
    ShortConv { batch, tokens, channels, wide: x.kind() == Kind::Float }
}

/// x `[B, T, C]`, weight `[C, 4]`, perhaps bias `[C]` → y `[B, T, C]`.
struct Conv;

impl Operation for Conv {
    fn forward(&self, tensors: &[Tensor]) -> (Vec<Tensor>, Vec<Tensor>) {
        let (x, bias) = (&tensors[0], tensors.get(2).map_or(0, address));
        let y = Tensor::empty(x.size(), (x.kind(), x.device()));
        launch(x, &[shape(x).forward(rows(x, 1), address(&tensors[1]), bias, address(&y))]);
        (vec![y], Vec::new())
    }

    fn backward(&self, tensors: &[Tensor], _: &[Tensor], d_outputs: &[Tensor]) -> Vec<Tensor> {
        let (x, bias) = (&tensors[0], tensors.get(2).map_or(0, address));
        let shape = shape(x);
        let d_y = in_rows(&d_outputs[0], 1);
        let d_x = Tensor::empty(x.size(), (x.kind(), x.device()));
        let parts = Tensor::empty(shape.parts().map(|n| n as i64), (Kind::Float, x.device()));
        let (from, d_from) = (rows(x, 1), rows(&d_y, 1));
        let weight = address(&tensors[1]);
        launch(x, &[shape.backward(from, weight, bias, d_from, address(&d_x), address(&parts))]);
        let sums = parts.sum_dim_intlist(0, false, Kind::Float); // [5, C]
        let mut gradients = vec![d_x, sums.narrow(0, 0, 4).transpose(0, 1).contiguous()];
        if bias != 0 {
            gradients.push(sums.get(4).contiguous());
        }
        gradients
    }
}
