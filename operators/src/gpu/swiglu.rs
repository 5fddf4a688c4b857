//! SwiGLU by `kernels::cuda::rows`, of rows that hold gate and up side by side.

use kernels::cuda::rows::Swiglu;
use tch::{Kind, Tensor};

use super::{address, in_rows, launch, on_gpu, row_stride, rows};
use crate::libtorch::{Operation, apply};

/// Whether [`swiglu`] takes the maps of x to `width` columns each.
pub(crate) fn suits_swiglu(x: &Tensor, width: i64) -> bool {
    on_gpu(x) && x.dim() >= 2 && width % 8 == 0 && x.numel() > 0
}

/// silu(gate) · up, `[…, W]`, of gate | up `[…, 2 W]`.
pub(crate) fn swiglu(gate_up: &Tensor) -> Tensor {
    apply(SwiGlu, &[&in_rows(gate_up, 1)]).pop().expect("one output")
}

fn shape(gate_up: &Tensor) -> (Swiglu, Vec<i64>) {
    let mut size = gate_up.size();
    let columns = size.last_mut().expect("gate and up are columns");
    *columns /= 2;
    let width = *columns as usize;
    let (rows, _) = row_stride(gate_up, 1).expect("`in_rows` made the rows");
    (Swiglu { rows, width, wide: gate_up.kind() == Kind::Float }, size)
}

/// gate | up `[…, 2 W]` → `[…, W]`.
struct SwiGlu;

impl Operation for SwiGlu {
    fn forward(&self, tensors: &[Tensor]) -> (Vec<Tensor>, Vec<Tensor>) {
        let x = &tensors[0];
        let (swiglu, size) = shape(x);
        let y = Tensor::empty(size, (x.kind(), x.device()));
        launch(x, &[swiglu.forward(rows(x, 1), address(&y))]);
        (vec![y], Vec::new())
    }

    fn backward(&self, tensors: &[Tensor], _: &[Tensor], d_outputs: &[Tensor]) -> Vec<Tensor> {
        let x = &tensors[0];
        let d_y = in_rows(&d_outputs[0], 1);
        let d_x = Tensor::empty(x.size(), (x.kind(), x.device()));
        launch(x, &[shape(x).0.backward(rows(x, 1), rows(&d_y, 1), address(&d_x))]);
        vec![d_x]
    }
}
