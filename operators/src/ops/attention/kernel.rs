//! Attention by the CPU kernels of `kernels::attention::train`, as one differentiable operation.

use kernels::attention::train::{Gradients, Inputs, Shape, backward, forward};
use kernels::cpu::{Arithmetic, Precision};
use tch::{Device, Kind, Tensor};

use crate::libtorch::{Operation, apply, parallel};
use crate::ops::memory::{read, single_on_cpu, write};
use crate::precision;

/// Whether the kernels take these inputs: f32 on the CPU, more than the one query of a decode step.
pub(super) fn suits_kernel(q: &Tensor, k: &Tensor, v: &Tensor) -> bool {
    q.size()[2] > 1 && [q, k, v].into_iter().all(single_on_cpu)
}

/// q `[B, H, T, K]`, k and v `[B, H_kv, S, ·]` → `[B, H, T, V]`.
pub(super) fn by_kernel(q: &Tensor, k: &Tensor, v: &Tensor, window: Option<i64>) -> Tensor {
    // Rows of one position lie together, as the projections leave them: no copies.
    let inputs = [q, k, v].map(|x| x.transpose(1, 2).contiguous());
    let window = window.map(|window| window as usize);
    let operation = Attend { window, precision: precision::current() };
    apply(operation, &inputs.each_ref()).pop().expect("one output").transpose(1, 2)
}

/// q `[B, T, H, K]`, k and v `[B, S, H_kv, ·]` → `[B, T, H, V]`.
struct Attend {
    window: Option<usize>,
    precision: Precision,
}

impl Attend {
    fn inputs<'a>(&self, tensors: &'a [Tensor]) -> Inputs<'a> {
        let [q, k, v] = tensors else { unreachable!("`by_kernel` passes three tensors") };
        let (batch, tokens, heads, key_width) = q.size4().expect("q is [B, T, H, K]");
        let (_, keys, kv_heads, value_width) = v.size4().expect("v is [B, S, H_kv, V]");
        let [batch, tokens, keys, heads, kv_heads, key_width, value_width] =
            [batch, tokens, keys, heads, kv_heads, key_width, value_width].map(|n| n as usize);
        Inputs {
            shape: Shape {
                batch,
                tokens,
                keys,
                heads,
                kv_heads,
                key_width,
                value_width,
                window: self.window,
            },
            q: read(q),
            k: read(k),
            v: read(v),
            scale: (key_width as f32).powf(-0.5),
        }
    }
}

impl Operation for Attend {
    fn forward(&self, tensors: &[Tensor]) -> (Vec<Tensor>, Vec<Tensor>) {
        let inputs = self.inputs(tensors);
        let Shape { batch, tokens, heads, value_width, .. } = inputs.shape;
        let empty = |shape: &[usize]| {
            let shape: Vec<i64> = shape.iter().map(|n| n.cast_signed() as i64).collect();
            Tensor::empty(shape, (Kind::Float, Device::Cpu))
        };
        let mut out = empty(&[batch, tokens, heads, value_width]);
        let mut log_sums = empty(&[batch, heads, tokens]);
        forward(
            Arithmetic::from(self.precision),
            &inputs,
            write(&mut out),
            write(&mut log_sums),
            &parallel,
        );
        let kept = vec![out.shallow_clone(), log_sums];
        (vec![out], kept)
    }

    fn backward(&self, tensors: &[Tensor], kept: &[Tensor], d_outputs: &[Tensor]) -> Vec<Tensor> {
        let inputs = self.inputs(tensors);
        let d_out = d_outputs[0].contiguous();
        let mut d: Vec<Tensor> = tensors.iter().map(Tensor::empty_like).collect();
        {
            let [q, k, v] = &mut d[..] else { unreachable!("three were made") };
            let mut gradients = Gradients { q: write(q), k: write(k), v: write(v) };
            backward(
                Arithmetic::from(self.precision),
                &inputs,
                read(&kept[0]),
                read(&kept[1]),
                read(&d_out),
                &mut gradients,
                &parallel,
            );
        }
        d
    }
}
