//! The squared ReLU, by the CPU kernels of `kernels::relu2` where they apply.

use kernels::relu2::train;
use tch::Tensor;

use super::memory::{read, single_on_cpu, write};
use crate::libtorch::{Operation, apply, parallel};

/// max(x, 0)², x `[…]`.
pub fn relu2(x: &Tensor) -> Tensor {
    if !single_on_cpu(x) {
        return x.relu().square();
    }
    apply(Relu2, &[&x.contiguous()]).pop().expect("one output")
}

struct Relu2;

impl Operation for Relu2 {
    fn forward(&self, tensors: &[Tensor]) -> (Vec<Tensor>, Vec<Tensor>) {
        let mut out = tensors[0].empty_like();
        train::forward(read(&tensors[0]), write(&mut out), &parallel);
        (vec![out], Vec::new())
    }

    fn backward(&self, tensors: &[Tensor], _: &[Tensor], d_outputs: &[Tensor]) -> Vec<Tensor> {
        let d_out = d_outputs[0].contiguous();
        let mut d_x = tensors[0].empty_like();
        train::backward(read(&tensors[0]), read(&d_out), write(&mut d_x), &parallel);
        vec![d_x]
    }
}
