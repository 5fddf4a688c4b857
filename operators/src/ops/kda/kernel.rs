//! Kimi Delta Attention by the CPU kernels of `kernels::kda::train`, as one differentiable operation.

use kernels::kda::train::{self, Inputs, Shape};
use tch::{Device, Kind, Tensor};

use super::Kda;
use crate::libtorch::{apply, parallel};
use crate::ops::delta_rule::kernel::gradients;
use crate::ops::memory::{
    Stored, StoredOperation, elements_mut, empty_like, in_rows, read, rows, single_on_cpu,
    suits_kernels, write,
};

const SINGLE: (Kind, Device) = (Kind::Float, Device::Cpu);

impl Kda {
    /// Whether the kernels take these inputs: q, k, v of one kind, f32 or bf16, the rest f32, on the CPU.
    pub(super) fn suits_kernel(&self) -> bool {
        suits_kernels(&self.v)
            && [&self.q, &self.k].iter().all(|x| x.kind() == self.v.kind())
            && [&self.log_decay, &self.beta].into_iter().all(single_on_cpu)
            && self.q.numel() > 0
            && self.v.numel() > 0
    }

    /// As [`Self::chunked`], by the kernels.
    pub(super) fn by_kernel(&self, state: Option<&Tensor>) -> (Tensor, Tensor) {
        let (b, _, h, key_width) = self.q.size4().expect("q is [B, T, H, K]");
        let state = match state {
            Some(state) => state.to_kind(Kind::Float).contiguous(),
            None => Tensor::zeros([b, h, key_width, self.v.size()[3]], SINGLE),
        };
        let operation = Rule { scale: self.scale as f32, normalise: self.normalise };
        let [q, k, v, g] = &[&self.q, &self.k, &self.v, &self.log_decay].map(in_rows);
        let mut outputs = apply(operation, &[q, k, v, g, &self.beta.contiguous(), &state]);
        let after = outputs.pop().expect("the operation returns the output and the state");
        (outputs.pop().expect("the operation returns the output and the state"), after)
    }
}

/// q, k, g `[B, T, H, K]`, v `[B, T, H, V]`, β `[B, T, H]`, state `[B, H, K, V]`, in the order of [`Kda`] →
/// output `[B, T, H, V]`, state after.
struct Rule {
    scale: f32,
    normalise: bool,
}

impl Rule {
    fn inputs<'a, E: Stored>(&self, tensors: &'a [Tensor]) -> Inputs<'a, E> {
        let [q, k, v, g, beta, _] = tensors else { unreachable!("both are of six tensors") };
        let (batch, tokens, heads, key_width) = q.size4().expect("q is [B, T, H, K]");
        let value_width = v.size()[3];
        let [batch, tokens, heads, key_width, value_width] =
            [batch, tokens, heads, key_width, value_width].map(|n| n as usize);
        Inputs {
            shape: Shape { batch, tokens, heads, key_width, value_width },
            q: rows(q),
            k: rows(k),
            v: rows(v),
            g: rows(g),
            beta: read(beta),
            scale: self.scale,
            normalise: self.normalise,
        }
    }
}

impl StoredOperation for Rule {
    fn run<E: Stored>(&self, tensors: &[Tensor]) -> (Vec<Tensor>, Vec<Tensor>) {
        let inputs = self.inputs::<E>(tensors);
        let mut state = tensors[5].copy();
        let mut states = Tensor::empty([inputs.shape.states_len() as i64], SINGLE);
        let mut out = Tensor::empty(tensors[2].size(), (E::KIND, Device::Cpu));
        train::forward(
            &inputs,
            write(&mut state),
            write(&mut states),
            elements_mut::<E>(&mut out),
            &parallel,
        );
        (vec![out, state], vec![states])
    }

    fn gradients<E: Stored>(
        &self,
        tensors: &[Tensor],
        kept: &[Tensor],
        d_outputs: &[Tensor],
    ) -> Vec<Tensor> {
        let inputs = self.inputs::<E>(tensors);
        let d_out = in_rows(&d_outputs[0]);
        let mut d_state = d_outputs[1].contiguous().copy();
        let mut d = empty_like(&tensors[..5]);
        let (states, d_after) = (read(&kept[0]), write(&mut d_state));
        let mut to = gradients::<E>(&mut d);
        train::backward(&inputs, states, rows::<E>(&d_out), d_after, &mut to, &parallel);
        d.push(d_state);
        d
    }
}
