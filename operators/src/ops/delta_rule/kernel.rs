//! The gated delta rule by the CPU kernels of `kernels::delta_rule::train`, plain and log-linear, as one differentiable
//! operation each.

use kernels::delta_rule::train::{self, Gradients, Inputs, Shape, log_linear};
use tch::{Device, Kind, Tensor};

use super::DeltaRule;
use crate::libtorch::{apply, parallel};
use crate::ops::memory::{
    Stored, StoredOperation, elements_mut, empty_like, in_rows, read, rows, scales, single_on_cpu,
    suits_kernels, write,
};

const SINGLE: (Kind, Device) = (Kind::Float, Device::Cpu);

impl DeltaRule {
    /// Whether the kernels take these inputs: q, k, v of one kind, f32 or bf16, the rest f32, on the CPU.
    pub(in crate::ops) fn suits_kernel(&self) -> bool {
        suits_kernels(&self.v)
            && [&self.q, &self.k].iter().all(|x| x.kind() == self.v.kind())
            && single_on_cpu(&self.beta)
            && self.log_decay.as_ref().is_none_or(single_on_cpu)
            && self.steps() as usize <= train::CHUNK
            && self.v.numel() > 0
    }

    /// As [`Self::chunked`], by the kernels.
    pub(super) fn by_kernel(&self, state: Option<&Tensor>) -> (Tensor, Tensor) {
        let (b, _, _, key_width) = self.q.size4().expect("q is [B, T, H_k, K]");
        let (heads, value_width) = (self.v.size()[2], self.v.size()[3]);
        let state = match state {
            Some(state) => state.to_kind(Kind::Float).contiguous(),
            None => Tensor::zeros([b, heads, key_width, value_width], SINGLE),
        };
        let operation = Rule { scale: self.scale as f32, normalise: self.normalise };
        let [q, k, v, g, beta] = &self.kernel_inputs();
        let mut outputs = apply(operation, &[q, k, v, g, beta, &state]);
        let after = outputs.pop().expect("the operation returns the output and the state");
        (outputs.pop().expect("the operation returns the output and the state"), after)
    }

    /// The log-linear form of one step a position by the kernels, λ `[B, T, H, L]` in f32; the output `[B, T, H, V]`.
    pub(in crate::ops) fn log_linear_by_kernel(&self, lambda: &Tensor) -> Tensor {
        let rule = Rule { scale: self.scale as f32, normalise: self.normalise };
        let [q, k, v, g, beta] = &self.kernel_inputs();
        let mut outputs = apply(LogLinear(rule), &[q, k, v, g, beta, &lambda.contiguous()]);
        outputs.pop().expect("the operation returns the output")
    }

    /// q, k, v, g and β as the kernels read them.
    fn kernel_inputs(&self) -> [Tensor; 5] {
        let [q, k, v] = [&self.q, &self.k, &self.v].map(in_rows);
        let none = || Tensor::zeros([q.size()[0], q.size()[1], v.size()[2]], SINGLE);
        let g = self.log_decay.as_ref().map_or_else(none, Tensor::contiguous);
        [q, k, v, g, self.beta.contiguous()]
    }
}

/// q `[B, T, H_k, K]`, k `[B, T·n, H_k, K]`, v `[B, T·n, H, V]`, g `[B, T, H]`, β `[B, T·n, H]`, state `[B, H, K, V]` →
/// output `[B, T, H, V]`, state after.
struct Rule {
    scale: f32,
    normalise: bool,
}

impl Rule {
    fn inputs<'a, E: Stored>(&self, tensors: &'a [Tensor]) -> Inputs<'a, E> {
        let [q, k, v, g, beta, _] = tensors else { unreachable!("both are of six tensors") };
        let (batch, tokens, key_heads, key_width) = q.size4().expect("q is [B, T, H_k, K]");
        let (_, steps, heads, value_width) = v.size4().expect("v is [B, T·n, H, V]");
        let steps = steps / tokens;
        let [batch, tokens, steps, key_heads, heads, key_width, value_width] =
            [batch, tokens, steps, key_heads, heads, key_width, value_width].map(|n| n as usize);
        Inputs {
            shape: Shape { batch, tokens, steps, key_heads, heads, key_width, value_width },
            q: rows(q),
            k: rows(k),
            v: rows(v),
            g: read(g),
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
        let Shape { batch, tokens, heads, value_width, .. } = inputs.shape;
        let size = [batch, tokens, heads, value_width].map(|n| n as i64);
        let mut out = Tensor::empty(size, (E::KIND, Device::Cpu));
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
        let (states, to) = (read(&kept[0]), write(&mut d_state));
        train::backward(&inputs, states, rows(&d_out), to, &mut gradients::<E>(&mut d), &parallel);
        d.push(d_state);
        d
    }
}

/// Those of q, k, v, g and β, in this order.
pub(in crate::ops) fn gradients<E: Stored>(d: &mut [Tensor]) -> Gradients<'_, E> {
    let [q, k, v, g, beta] = d else { unreachable!("five were made") };
    Gradients {
        q: elements_mut(q),
        k: elements_mut(k),
        v: elements_mut(v),
        g: write(g),
        beta: write(beta),
    }
}

/// As [`Rule`] of one step a position, λ `[B, T, H, L]` in place of the state → output.
struct LogLinear(Rule);

impl StoredOperation for LogLinear {
    fn run<E: Stored>(&self, tensors: &[Tensor]) -> (Vec<Tensor>, Vec<Tensor>) {
        let (inputs, lambda) = (self.0.inputs::<E>(tensors), scales(&tensors[5]));
        let kept = log_linear::states_len(inputs.shape, lambda.levels) as i64;
        let mut states = Tensor::empty([kept], SINGLE);
        let mut out = Tensor::empty(tensors[2].size(), (E::KIND, Device::Cpu));
        let (kept, to) = (write(&mut states), elements_mut::<E>(&mut out));
        log_linear::forward(&inputs, lambda, kept, to, &parallel);
        (vec![out], vec![states])
    }

    fn gradients<E: Stored>(
        &self,
        tensors: &[Tensor],
        kept: &[Tensor],
        d_outputs: &[Tensor],
    ) -> Vec<Tensor> {
        let (inputs, lambda) = (self.0.inputs::<E>(tensors), scales(&tensors[5]));
        let d_out = in_rows(&d_outputs[0]);
        let mut d = empty_like(tensors);
        let (d_inputs, d_lambda) = d.split_at_mut(5);
        let mut to = log_linear::Gradients {
            inputs: gradients::<E>(d_inputs),
            lambda: write(&mut d_lambda[0]),
        };
        log_linear::backward(&inputs, lambda, read(&kept[0]), rows(&d_out), &mut to, &parallel);
        d
    }
}
