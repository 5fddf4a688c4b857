//! The gated short convolution by `kernels::cuda::gated_conv`.

use kernels::cuda::gated_conv::GatedConv;
use tch::{Kind, Tensor};

use super::{address, in_rows, launch, on_gpu, rows};
use crate::libtorch::{Operation, apply};

/// Whether [`gated_conv`] takes rows `[B, T, 3·C]` and a weight `[C, k]`.
pub(crate) fn suits_gated_conv(rows: &Tensor, weight: &Tensor) -> bool {
    on_gpu(rows) && shape(rows, weight).check().is_ok()
}

/// C ⊙ conv(B ⊙ x̃) from nothing before, `[B, T, C]`.
pub(crate) fn gated_conv(rows: &Tensor, weight: &Tensor) -> Tensor {
    let weight = weight.to_kind(Kind::Float).contiguous();
    apply(Conv, &[&in_rows(rows, 1), &weight]).pop().expect("one output")
}

fn shape(rows: &Tensor, weight: &Tensor) -> GatedConv {
    let (b, t, _) = rows.size3().expect("rows are [B, T, 3·C]");
    let (c, k) = weight.size2().expect("the weight is [C, k]");
    let [batch, tokens, channels, taps] = [b, t, c, k].map(|n| n as usize);
    GatedConv { batch, tokens, channels, taps, wide: rows.kind() == Kind::Float }
}

/// Rows `[B, T, 3·C]`, weight `[C, k]` → y `[B, T, C]`.
struct Conv;

impl Operation for Conv {
    fn forward(&self, tensors: &[Tensor]) -> (Vec<Tensor>, Vec<Tensor>) {
        let (x, weight) = (&tensors[0], &tensors[1]);
        let (b, t, width) = x.size3().expect("rows are [B, T, 3·C]");
        let y = Tensor::empty([b, t, width / 3], (x.kind(), x.device()));
        launch(x, &[shape(x, weight).forward(rows(x, 1), address(weight), address(&y), 0)]);
        (vec![y], Vec::new())
    }

    fn backward(&self, tensors: &[Tensor], _: &[Tensor], d_outputs: &[Tensor]) -> Vec<Tensor> {
        let (x, weight) = (&tensors[0], &tensors[1]);
        let shape = shape(x, weight);
        let d_y = in_rows(&d_outputs[0], 1);
        let d_x = Tensor::empty(x.size(), (x.kind(), x.device()));
        let parts = Tensor::empty(shape.parts().map(|n| n as i64), (Kind::Float, x.device()));
        let (to, parts_to) = (address(&d_x), address(&parts));
        launch(x, &[shape.backward(rows(x, 1), address(weight), rows(&d_y, 1), to, parts_to)]);
        let sums = parts.sum_dim_intlist(0, false, Kind::Float); // [k, C]
        vec![d_x, sums.transpose(0, 1).contiguous()]
    }
}
