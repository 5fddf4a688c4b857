//! The short convolution by the CPU kernels of `kernels::short_conv::train`, as one differentiable operation.

use kernels::short_conv::train::{self, Gradients, Inputs};
use tch::{Device, Tensor};

use crate::libtorch::{apply, parallel};
use crate::ops::memory::{
    Stored, StoredOperation, elements, elements_mut, empty_like, in_rows, read, rows,
    single_on_cpu, suits_kernels, write,
};

/// Whether the kernel takes these: x in f32 or bf16, weight and bias in f32, on the CPU.
pub(super) fn suits(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> bool {
    suits_kernels(x) && single_on_cpu(weight) && bias.is_none_or(single_on_cpu) && x.numel() > 0
}

/// As [`super::conv_silu`], without moving the state.
pub(super) fn conv_silu(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    state: Option<&Tensor>,
) -> Tensor {
    let operation = Convolution { bias: bias.is_some(), before: state.is_some() };
    let mut inputs = vec![in_rows(x), weight.contiguous()];
    inputs.extend(bias.map(Tensor::contiguous));
    inputs.extend(state.map(|state| state.to_kind(x.kind()).contiguous()));
    let inputs: Vec<&Tensor> = inputs.iter().collect();
    apply(operation, &inputs).pop().expect("the operation returns one tensor")
}

/// x `[B, T, C]`, weight `[C, 4]`, bias `[C]` and the inputs before `[B, 3, C]`, each if there → y `[B, T, C]`.
struct Convolution {
    bias: bool,
    before: bool,
}

impl Convolution {
    fn inputs<'a, E: Stored>(&self, tensors: &'a [Tensor]) -> Inputs<'a, E> {
        let (batch, tokens, _) = tensors[0].size3().expect("x is [B, T, C]");
        let before = || elements(tensors.last().expect("the inputs before come last"));
        Inputs {
            batch: batch as usize,
            tokens: tokens as usize,
            x: rows(&tensors[0]),
            before: self.before.then(before),
            weight: read(&tensors[1]),
            bias: self.bias.then(|| read(&tensors[2])),
        }
    }
}

impl StoredOperation for Convolution {
    fn run<E: Stored>(&self, tensors: &[Tensor]) -> (Vec<Tensor>, Vec<Tensor>) {
        let mut y = Tensor::empty(tensors[0].size(), (E::KIND, Device::Cpu));
        train::forward(&self.inputs::<E>(tensors), elements_mut(&mut y), &parallel);
        (vec![y], Vec::new())
    }

    fn gradients<E: Stored>(
        &self,
        tensors: &[Tensor],
        _: &[Tensor],
        d_outputs: &[Tensor],
    ) -> Vec<Tensor> {
        let d_y = in_rows(&d_outputs[0]);
        let mut d = empty_like(tensors);
        {
            let mut parts = d.iter_mut();
            let mut part = || parts.next().expect("one gradient for each input");
            let mut gradients = Gradients {
                x: elements_mut::<E>(part()),
                weight: write(part()),
                bias: self.bias.then(|| write(part())),
                before: None,
            };
            gradients.before = self.before.then(|| elements_mut(part()));
            train::backward(&self.inputs::<E>(tensors), rows(&d_y), &mut gradients, &parallel);
        }
        d
    }
}
