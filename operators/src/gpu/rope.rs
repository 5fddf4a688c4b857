//! Rotary positions by `kernels::cuda::rope`.

use kernels::cuda::rope::Rope;
use tch::{Kind, Tensor};

use super::{address, in_rows, launch, on_gpu, rows};
use crate::libtorch::{Operation, apply};

/// Whether [`rotate`] takes x `[B, T, H, K]`.
pub(crate) fn suits_rope(x: &Tensor) -> bool {
    on_gpu(x) && shape(x).check().is_ok()
}

/// x `[B, T, H, K]` turned by the cosines and sines of its positions, f32 `[T, K/2, 2]`.
pub(crate) fn rotate(x: &Tensor, rotations: &Tensor) -> Tensor {
    apply(Rotate, &[&in_rows(x, 2), rotations]).pop().expect("one output")
}

fn shape(x: &Tensor) -> Rope {
    let (b, t, h, k) = x.size4().expect("[B, T, H, K]");
    let [batch, tokens, heads, width] = [b, t, h, k].map(|n| n as usize);
    Rope { batch, tokens, heads, width, wide: x.kind() == Kind::Float }
}

/// x `[B, T, H, K]`, rotations `[T, K/2, 2]` → y `[B, T, H, K]`.
struct Rotate;

impl Rotate {
    fn turn(x: &Tensor, rotations: &Tensor, back: bool) -> Tensor {
        let x = in_rows(x, 2);
        let y = Tensor::empty(x.size(), (x.kind(), x.device()));
        launch(&x, &[shape(&x).turn(rows(&x, 2), address(rotations), back, address(&y))]);
        y
    }
}

impl Operation for Rotate {
    fn forward(&self, tensors: &[Tensor]) -> (Vec<Tensor>, Vec<Tensor>) {
        (vec![Self::turn(&tensors[0], &tensors[1], false)], Vec::new())
    }

    fn backward(&self, tensors: &[Tensor], _: &[Tensor], d_outputs: &[Tensor]) -> Vec<Tensor> {
        vec![Self::turn(&d_outputs[0], &tensors[1], true), Tensor::new()] // the table is constant
    }
}
