//! SwiGLU between its projections, by the CPU kernels of `kernels::swiglu` where they apply.

use kernels::swiglu::train;
use tch::Tensor;

use super::memory::{read, single_on_cpu, write};
use crate::libtorch::{Operation, apply, parallel};

/// SiLU(gate) · up, both `[…]` of one shape.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Tensor {
    if !(single_on_cpu(gate) && single_on_cpu(up)) {
        return gate.silu() * up;
    }
    let inputs = [gate.contiguous(), up.contiguous()];
    apply(SwiGlu, &inputs.each_ref()).pop().expect("one output")
}

struct SwiGlu;

impl Operation for SwiGlu {
    fn forward(&self, tensors: &[Tensor]) -> (Vec<Tensor>, Vec<Tensor>) {
        let mut out = tensors[0].empty_like();
        train::forward(read(&tensors[0]), read(&tensors[1]), write(&mut out), &parallel);
        (vec![out], Vec::new())
    }

    fn backward(&self, tensors: &[Tensor], _: &[Tensor], d_outputs: &[Tensor]) -> Vec<Tensor> {
        let d_out = d_outputs[0].contiguous();
        let (mut d_gate, mut d_up) = (tensors[0].empty_like(), tensors[1].empty_like());
        train::backward(
            read(&tensors[0]),
            read(&tensors[1]),
            read(&d_out),
            write(&mut d_gate),
            write(&mut d_up),
            &parallel,
        );
        vec![d_gate, d_up]
    }
}
