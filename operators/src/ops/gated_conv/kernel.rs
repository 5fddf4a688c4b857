//! The gated short convolution by the CPU kernels of `kernels::gated_conv`, as one differentiable operation.

use kernels::gated_conv::cpu::{Inputs, forward, transpose_weight};
use kernels::gated_conv::train::{Gradients, backward};
use tch::{Device, Kind, Tensor};

use crate::libtorch::{apply, parallel};
use crate::ops::memory::{
    Stored, StoredOperation, elements_mut, empty_like, in_rows, read, rows, single_on_cpu,
    suits_kernels, write,
};

/// Whether the kernel takes these: rows in f32 or bf16, the weight in f32, on the CPU.
pub(super) fn suits(rows: &Tensor, weight: &Tensor) -> bool {
    suits_kernels(rows) && single_on_cpu(weight) && rows.numel() > 0
}

/// As [`super::gated_conv`], without moving the state.
pub(super) fn gated_conv(rows: &Tensor, weight: &Tensor, state: Option<&Tensor>) -> Tensor {
    let operation = GatedConv { before: state.is_some() };
    let mut inputs = vec![in_rows(rows), weight.contiguous()];
    inputs.extend(state.map(|state| state.to_kind(Kind::Float).contiguous()));
    let inputs: Vec<&Tensor> = inputs.iter().collect();
    apply(operation, &inputs).pop().expect("the operation returns one tensor")
}

/// Rows `[B, T, 3·C]`, weight `[C, k]` and, if there, the products before `[B, k − 1, C]` → y `[B, T, C]`.
struct GatedConv {
    before: bool,
}

impl GatedConv {
    fn inputs<'a, E: Stored>(&self, tensors: &'a [Tensor], weight: &'a [f32]) -> Inputs<'a, E> {
        let (batch, tokens, _) = tensors[0].size3().expect("rows are [B, T, 3·C]");
        Inputs {
            batch: batch as usize,
            tokens: tokens as usize,
            rows: rows(&tensors[0]),
            before: self.before.then(|| read(&tensors[2])),
            weight,
        }
    }
}

fn weight(tensor: &Tensor) -> Vec<f32> {
    let (_, taps) = tensor.size2().expect("the weight is [C, k]");
    transpose_weight(read(tensor), taps as usize)
}

impl StoredOperation for GatedConv {
    fn run<E: Stored>(&self, tensors: &[Tensor]) -> (Vec<Tensor>, Vec<Tensor>) {
        let (b, t, width) = tensors[0].size3().expect("rows are [B, T, 3·C]");
        let mut y = Tensor::empty([b, t, width / 3], (E::KIND, Device::Cpu));
        let weight = weight(&tensors[1]);
        forward(&self.inputs::<E>(tensors, &weight), elements_mut(&mut y), &parallel);
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
            let mut gradients =
                Gradients { rows: elements_mut::<E>(part()), weight: write(part()), before: None };
            gradients.before = self.before.then(|| write(part()));
            let weight = weight(&tensors[1]);
            let inputs = self.inputs::<E>(tensors, &weight);
            backward(&inputs, rows(&d_y), &mut gradients, &parallel);
        }
        d
    }
}
