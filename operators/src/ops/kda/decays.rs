//! The logarithms of the decays of Kimi Delta Attention, by the CPU kernels of `kernels::kda::train::decays` or the GPU's
//! where they apply.

use kernels::kda::train::decays::{self, Gradients, Inputs};
use tch::{Device, Kind, Tensor};

use crate::gpu;
use crate::libtorch::{apply, parallel};
use crate::ops::memory::{
    Stored, StoredOperation, elements_mut, empty_like, in_rows, read, rows, single_on_cpu,
    suits_kernels, write,
};
use crate::ops::wide;

/// g = −e^A · ln(1 + e^{x + b}), `[B, T, H, K]`, wide; x `[B, T, H·K]`, b `[H·K]`, A `[H]`.
pub fn log_decays(x: &Tensor, bias: &Tensor, a_log: &Tensor) -> Tensor {
    let (batch, tokens, channels) = x.size3().expect("x is [B, T, H·K]");
    let heads = a_log.size1().expect("A is [H]");
    let shape = [batch, tokens, heads, channels / heads];
    if gpu::suits_log_decays(x, heads) {
        return gpu::log_decays(x, bias, a_log).reshape(shape);
    }
    if !(suits_kernels(x) && single_on_cpu(bias) && single_on_cpu(a_log) && x.numel() > 0) {
        return log_decays_by_torch(x, bias, a_log);
    }
    let tensors = [&in_rows(x), &bias.contiguous(), &a_log.contiguous()];
    apply(Decays, &tensors).pop().expect("one output").reshape(shape)
}

/// [`log_decays`] in torch operators.
pub fn log_decays_by_torch(x: &Tensor, bias: &Tensor, a_log: &Tensor) -> Tensor {
    let (batch, tokens, channels) = x.size3().expect("x is [B, T, H·K]");
    let heads = a_log.size1().expect("A is [H]");
    let kind = wide(x.kind());
    let dt = (x.to_kind(kind) + bias).softplus();
    let rate = a_log.to_kind(kind).exp().unsqueeze(-1); // [H, 1]
    -rate * dt.reshape([batch, tokens, heads, channels / heads])
}

/// x `[B, T, H·K]`, b `[H·K]`, A `[H]` → g `[B, T, H·K]`.
struct Decays;

fn inputs<E: Stored>(tensors: &[Tensor]) -> Inputs<'_, E> {
    let [x, bias, a_log] = tensors else { unreachable!("all are of three tensors") };
    let x_rows = rows::<E>(x);
    Inputs { rows: x.numel() / x_rows.width(), x: x_rows, bias: read(bias), a_log: read(a_log) }
}

impl StoredOperation for Decays {
    fn run<E: Stored>(&self, tensors: &[Tensor]) -> (Vec<Tensor>, Vec<Tensor>) {
        let mut g = Tensor::empty(tensors[0].size(), (Kind::Float, Device::Cpu));
        decays::forward(&inputs::<E>(tensors), write(&mut g), &parallel);
        (vec![g], Vec::new())
    }

    fn gradients<E: Stored>(
        &self,
        tensors: &[Tensor],
        _: &[Tensor],
        d_outputs: &[Tensor],
    ) -> Vec<Tensor> {
        let d_g = in_rows(&d_outputs[0]);
        let mut d = empty_like(tensors);
        let [x, bias, a_log] = d.as_mut_slice() else { unreachable!("three were made") };
        let mut to = Gradients { x: elements_mut::<E>(x), bias: write(bias), a_log: write(a_log) };
        decays::backward(&inputs::<E>(tensors), rows(&d_g), &mut to, &parallel);
        d
    }
}
