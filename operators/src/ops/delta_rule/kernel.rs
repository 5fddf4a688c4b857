//! The gated delta rule by the CPU kernels of `kernels::delta_rule::train`, as one differentiable operation.

use kernels::delta_rule::train::{self, Gradients, Inputs, Shape};
use tch::{Device, Kind, Tensor};

use super::DeltaRule;
use crate::autograd::{Operation, apply, parallel};
use crate::ops::memory::{read, write};

impl DeltaRule {
    /// Whether the kernels take these inputs: f32 on the CPU.
    pub(super) fn suits_kernel(&self) -> bool {
        self.v.kind() == Kind::Float && self.v.device() == Device::Cpu
    }

    /// As [`Self::chunked`], by the kernels.
    pub(super) fn by_kernel(&self, state: Option<&Tensor>) -> (Tensor, Tensor) {
        let (b, _, h, key_width) = self.q.size4().expect("q is [B, T, H, K]");
        let value_width = self.v.size()[3];
        let zeros = || Tensor::zeros([b, h, key_width, value_width], (Kind::Float, Device::Cpu));
        let g = match &self.log_decay {
            Some(g) => g.shallow_clone(),
            None => self.beta.zeros_like(),
        };
        let state = state.map_or_else(zeros, Tensor::shallow_clone);
        let operation = Rule { scale: self.scale as f32 };
        let inputs = [&self.q, &self.k, &self.v, &g, &self.beta, &state].map(Tensor::contiguous);
        let mut outputs = apply(operation, &inputs.each_ref());
        let after = outputs.pop().expect("the operation returns the output and the state");
        (outputs.pop().expect("the operation returns the output and the state"), after)
    }
}

/// q, k `[B, T, H, K]`, v `[B, T, H, V]`, g, β `[B, T, H]`, state `[B, H, K, V]` → output `[B, T, H, V]`, state after.
struct Rule {
    scale: f32,
}

impl Rule {
    fn inputs<'a>(&self, tensors: &'a [Tensor]) -> Inputs<'a> {
        let [q, k, v, g, beta, _] = tensors else { unreachable!("`by_kernel` passes six tensors") };
        let (batch, tokens, heads, key_width) = q.size4().expect("q is [B, T, H, K]");
        let value_width = v.size()[3];
        let [batch, tokens, heads, key_width, value_width] =
            [batch, tokens, heads, key_width, value_width].map(|n| n as usize);
        let shape = Shape { batch, tokens, heads, key_width, value_width };
        let [q, k, v, g, beta] = [q, k, v, g, beta].map(read);
        Inputs { shape, q, k, v, g, beta, scale: self.scale }
    }
}

impl Operation for Rule {
    fn forward(&self, tensors: &[Tensor]) -> (Vec<Tensor>, Vec<Tensor>) {
        let inputs = self.inputs(tensors);
        let mut state = tensors[5].copy();
        let mut states =
            Tensor::empty([inputs.shape.states_len() as i64], (Kind::Float, Device::Cpu));
        let mut out = tensors[2].empty_like();
        train::forward(&inputs, write(&mut state), write(&mut states), write(&mut out), &parallel);
        (vec![out, state], vec![states])
    }

    fn backward(&self, tensors: &[Tensor], kept: &[Tensor], d_outputs: &[Tensor]) -> Vec<Tensor> {
        let inputs = self.inputs(tensors);
        let d_out = d_outputs[0].contiguous();
        let mut d_state = d_outputs[1].contiguous().copy();
        let mut d: Vec<Tensor> = tensors[..5].iter().map(Tensor::empty_like).collect();
        {
            let [q, k, v, g, beta] = &mut d[..] else { unreachable!("five were made") };
            let [q, k, v, g, beta] = [q, k, v, g, beta].map(write);
            let mut gradients = Gradients { q, k, v, g, beta };
            train::backward(
                &inputs,
                read(&kept[0]),
                read(&d_out),
                write(&mut d_state),
                &mut gradients,
                &parallel,
            );
        }
        d.push(d_state);
        d
    }
}
