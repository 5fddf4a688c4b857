//! Scalar-gated linear attention by the CPU kernels of `kernels::linear_attention::train`, plain and log-linear, as one
//! differentiable operation each.

use kernels::linear_attention::train::{self, Gradients, Inputs, Shape};
use tch::{Device, Kind, Tensor};

use super::LinearAttention;
use crate::libtorch::{apply, parallel};
use crate::ops::memory::{
    Stored, StoredOperation, elements_mut, empty_like, in_rows, read, rows, scales, single_on_cpu,
    suits_kernels, write,
};

const SINGLE: (Kind, Device) = (Kind::Float, Device::Cpu);

impl LinearAttention {
    /// Whether the kernels take these inputs: q, k, v of one kind, f32 or bf16, the rest f32, on the CPU.
    pub(in crate::ops) fn suits_kernel(&self) -> bool {
        suits_kernels(&self.v)
            && [&self.q, &self.k].iter().all(|x| x.kind() == self.v.kind())
            && single_on_cpu(&self.log_decay)
            && self.v_scale.as_ref().is_none_or(single_on_cpu)
            && self.skip.as_ref().is_none_or(single_on_cpu)
            && self.v.numel() > 0
    }

    /// As [`Self::chunked`], by the kernels.
    pub(super) fn by_kernel(&self, state: Option<&Tensor>) -> (Tensor, Tensor) {
        let (b, _, heads, value_width) = self.v.size4().expect("v is [B, T, H, V]");
        let key_width = self.q.size()[2];
        let state = match state {
            Some(state) => state.to_kind(Kind::Float).contiguous(),
            None => Tensor::zeros([b, heads, key_width, value_width], SINGLE),
        };
        let [q, k, v, scale, g, skip] = &self.kernel_inputs();
        let mut outputs = apply(Rule, &[q, k, v, scale, g, skip, &state]);
        let after = outputs.pop().expect("the operation returns the output and the state");
        (outputs.pop().expect("the operation returns the output and the state"), after)
    }

    /// The log-linear form by the kernels, λ `[B, T, H, L]` in f32; the output `[B, T, H, V]`.
    pub(in crate::ops) fn log_linear_by_kernel(&self, lambda: &Tensor) -> Tensor {
        let [q, k, v, scale, g, skip] = &self.kernel_inputs();
        let mut outputs = apply(LogLinear, &[q, k, v, scale, g, skip, &lambda.contiguous()]);
        outputs.pop().expect("the operation returns the output")
    }

    /// q, k, v, a, g and D as the kernels read them.
    fn kernel_inputs(&self) -> [Tensor; 6] {
        let [q, k, v] = [&self.q, &self.k, &self.v].map(in_rows);
        let g = self.log_decay.contiguous();
        let scale = self.v_scale.as_ref().map_or_else(|| g.ones_like(), Tensor::contiguous);
        let none = || Tensor::zeros([self.v.size()[2]], SINGLE);
        let skip = self.skip.as_ref().map_or_else(none, Tensor::contiguous);
        [q, k, v, scale, g, skip]
    }
}

/// q, k `[B, T, K]`, v `[B, T, H, V]`, a, g `[B, T, H]`, D `[H]`, state `[B, H, K, V]` → output `[B, T, H, V]`, state
/// after.
struct Rule;

/// As [`Rule`], λ `[B, T, H, L]` in place of the state → output.
struct LogLinear;

fn inputs<E: Stored>(tensors: &[Tensor]) -> Inputs<'_, E> {
    let [q, k, v, scale, g, skip, _] = tensors else {
        unreachable!("both operations are of seven tensors")
    };
    let (batch, tokens, heads, value_width) = v.size4().expect("v is [B, T, H, V]");
    let [batch, tokens, heads, key_width, value_width] =
        [batch, tokens, heads, q.size()[2], value_width].map(|n| n as usize);
    Inputs {
        shape: Shape { batch, tokens, heads, key_width, value_width },
        q: rows(q),
        k: rows(k),
        v: rows(v),
        v_scale: read(scale),
        g: read(g),
        skip: read(skip),
    }
}

impl StoredOperation for Rule {
    fn run<E: Stored>(&self, tensors: &[Tensor]) -> (Vec<Tensor>, Vec<Tensor>) {
        let inputs = inputs::<E>(tensors);
        let mut state = tensors[6].copy();
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
        let inputs = inputs::<E>(tensors);
        let d_out = in_rows(&d_outputs[0]);
        let mut d_state = d_outputs[1].contiguous().copy();
        let mut d = empty_like(&tensors[..6]);
        train::backward(
            &inputs,
            read(&kept[0]),
            rows(&d_out),
            write(&mut d_state),
            &mut gradients::<E>(&mut d),
            &parallel,
        );
        d.push(d_state);
        d
    }
}

fn gradients<E: Stored>(d: &mut [Tensor]) -> Gradients<'_, E> {
    let [q, k, v, scale, g, skip] = d else { unreachable!("six were made") };
    Gradients {
        q: elements_mut(q),
        k: elements_mut(k),
        v: elements_mut(v),
        v_scale: write(scale),
        g: write(g),
        skip: write(skip),
    }
}

impl StoredOperation for LogLinear {
    fn run<E: Stored>(&self, tensors: &[Tensor]) -> (Vec<Tensor>, Vec<Tensor>) {
        let inputs = inputs::<E>(tensors);
        let mut states = Tensor::empty([inputs.shape.states_len() as i64], SINGLE);
        let mut out = Tensor::empty(tensors[2].size(), (E::KIND, Device::Cpu));
        let (kept, to) = (write(&mut states), elements_mut::<E>(&mut out));
        train::forward_log_linear(&inputs, scales(&tensors[6]), kept, to, &parallel);
        (vec![out], vec![states])
    }

    fn gradients<E: Stored>(
        &self,
        tensors: &[Tensor],
        kept: &[Tensor],
        d_outputs: &[Tensor],
    ) -> Vec<Tensor> {
        let inputs = inputs::<E>(tensors);
        let d_out = in_rows(&d_outputs[0]);
        let mut d = empty_like(tensors);
        let (d_inputs, d_lambda) = d.split_at_mut(6);
        train::backward_log_linear(
            &inputs,
            scales(&tensors[6]),
            read(&kept[0]),
            rows(&d_out),
            write(&mut d_lambda[0]),
            &mut gradients::<E>(d_inputs),
            &parallel,
        );
        d
    }
}
