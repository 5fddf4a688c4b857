//! RMSNorm with and without gates by the CPU kernels of `kernels::norm::train`, as one differentiable operation.

use kernels::norm::train::{self, Gate, Gradients, Inputs};
use tch::{Device, Tensor};

use super::Order;
use crate::libtorch::{apply, parallel};
use crate::ops::memory::{
    Stored, StoredOperation, elements_mut, empty_like, in_rows, read, rows, single_on_cpu,
    suits_kernels, write,
};

/// Whether the kernel takes these: x and the gate of one kind, f32 or bf16, the weight in f32, on the CPU.
pub(super) fn suits(x: &Tensor, gate: Option<&Tensor>, weight: &Tensor) -> bool {
    let gate_suits = |gate: &Tensor| gate.kind() == x.kind() && gate.size() == x.size();
    suits_kernels(x) && gate.is_none_or(gate_suits) && single_on_cpu(weight) && x.numel() > 0
}

/// The norm of x, `[…, W]`; the gate has the shape of x.
pub(super) fn rms_norm(x: &Tensor, gate: Option<(&Tensor, Order)>, weight: &Tensor) -> Tensor {
    let mut inputs = vec![in_rows(x), weight.contiguous()];
    inputs.extend(gate.map(|(gate, _)| in_rows(gate)));
    let inputs: Vec<&Tensor> = inputs.iter().collect();
    let operation = Norm { order: gate.map(|(_, order)| order) };
    apply(operation, &inputs).pop().expect("the operation returns one tensor")
}

/// x, weight `[W]` and a gate if there is one → y.
struct Norm {
    order: Option<Order>,
}

impl Norm {
    fn inputs<'a, E: Stored>(&self, tensors: &'a [Tensor]) -> Inputs<'a, E> {
        let x = rows::<E>(&tensors[0]);
        Inputs {
            rows: tensors[0].numel() / x.width(),
            x,
            gate: match self.order {
                None => Gate::None,
                Some(Order::NormThenGate) => Gate::After(rows(&tensors[2])),
                Some(Order::NormThenSigmoid) => Gate::AfterSigmoid(rows(&tensors[2])),
                Some(Order::GateThenNorm) => Gate::Before(rows(&tensors[2])),
            },
            weight: read(&tensors[1]),
        }
    }
}

impl StoredOperation for Norm {
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
            let [x, weight, gate @ ..] = &mut d[..] else {
                unreachable!("x and the weight are there")
            };
            let mut gradients = Gradients {
                x: elements_mut::<E>(x),
                weight: write(weight),
                gate: gate.first_mut().map(elements_mut),
            };
            train::backward(&self.inputs::<E>(tensors), rows(&d_y), &mut gradients, &parallel);
        }
        d
    }
}
