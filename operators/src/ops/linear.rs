//! Linear maps without bias, by the CPU kernels of `kernels::linear` where they apply.

use kernels::cpu::{Arithmetic, Precision};
use kernels::linear::{Shape, d_input, d_weights, forward};
use tch::{Device, Kind, Tensor};

use super::memory::{read, write};
use crate::libtorch::{Operation, apply, parallel};
use crate::precision;

/// Below this many rows the kernels' packing costs more than it saves.
const FEWEST_ROWS: i64 = 16;

/// x `[…, in]` · Wᵀ, W `[out, in]` → `[…, out]`.
pub fn linear(x: &Tensor, weight: &Tensor) -> Tensor {
    project(x, &[weight]).pop().expect("one output for each weight")
}

/// The maps of x `[…, in]` by all `weights` `[out_i, in]`, in one operation: `[…, out_i]` each.
pub fn project(x: &Tensor, weights: &[&Tensor]) -> Vec<Tensor> {
    if suits_kernel(x, weights) { by_kernel(x, weights) } else { by_torch(x, weights) }
}

fn suits_kernel(x: &Tensor, weights: &[&Tensor]) -> bool {
    let single = |x: &Tensor| x.kind() == Kind::Float && x.device() == Device::Cpu;
    let inputs = x.size().last().copied().unwrap_or(0);
    inputs > 0
        && x.numel() as i64 / inputs >= FEWEST_ROWS
        && single(x)
        && weights.iter().all(|w| single(w))
}

/// One product for all maps, in torch operators and in the kind of x: f32 weights serve narrower activations.
pub fn by_torch(x: &Tensor, weights: &[&Tensor]) -> Vec<Tensor> {
    if let [weight] = weights {
        return vec![x.linear(&weight.to_kind(x.kind()), None::<&Tensor>)];
    }
    if x.device().is_cuda() {
        return by_torch_aligned(x, weights);
    }
    let rows: Vec<i64> = weights.iter().map(|weight| weight.size()[0]).collect();
    side_by_side(x, weights).split_with_sizes(&rows, -1)
}

/// The maps of x `[…, in]` by all `weights` `[out_i, in]` as columns `[…, Σ out_i]`, by one product of torch in the kind of x.
pub fn side_by_side(x: &Tensor, weights: &[&Tensor]) -> Tensor {
    x.linear(&Tensor::cat(weights, 0).to_kind(x.kind()), None::<&Tensor>)
}

/// Columns that a GPU reads at once: a product of which there are others takes three times as long, and kernels take
/// only rows and maps that begin at such a column.
const ALIGNED: i64 = 8;

/// [`by_torch`], with maps that end between such columns behind all others, and zeros behind those.
fn by_torch_aligned(x: &Tensor, weights: &[&Tensor]) -> Vec<Tensor> {
    let rows = |weight: &Tensor| weight.size()[0];
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|i| rows(weights[*i]) % ALIGNED != 0); // others keep their order
    let total: i64 = weights.iter().map(|weight| rows(weight)).sum();
    let missing = (ALIGNED - total % ALIGNED) % ALIGNED;
    let zeros = Tensor::zeros([missing, weights[0].size()[1]], (weights[0].kind(), x.device()));
    let mut all: Vec<&Tensor> = order.iter().map(|i| weights[*i]).collect();
    if missing > 0 {
        all.push(&zeros);
    }
    let sizes: Vec<i64> = all.iter().map(|weight| rows(weight)).collect();
    let maps = side_by_side(x, &all).split_with_sizes(&sizes, -1);
    let place = |i: usize| order.iter().position(|at| *at == i).expect("each has its place");
    (0..weights.len()).map(|i| maps[place(i)].shallow_clone()).collect()
}

fn by_kernel(x: &Tensor, weights: &[&Tensor]) -> Vec<Tensor> {
    let mut inputs = vec![x.contiguous()];
    inputs.extend(weights.iter().map(|weight| weight.contiguous()));
    let inputs: Vec<&Tensor> = inputs.iter().collect();
    apply(Linear(precision::current()), &inputs)
}

/// x `[…, in]`, W_i `[out_i, in]` → `[…, out_i]`.
struct Linear(Precision);

impl Linear {
    fn shape(x: &Tensor) -> Shape {
        let inputs = *x.size().last().expect("x has columns") as usize;
        Shape { tokens: x.numel() / inputs, inputs }
    }
}

impl Operation for Linear {
    fn forward(&self, tensors: &[Tensor]) -> (Vec<Tensor>, Vec<Tensor>) {
        let (x, weights) = tensors.split_first().expect("x comes first");
        let mut size = x.size();
        let mut ys: Vec<Tensor> = weights
            .iter()
            .map(|weight| {
                *size.last_mut().expect("x has columns") = weight.size()[0];
                Tensor::empty(&size, (Kind::Float, Device::Cpu))
            })
            .collect();
        let weights: Vec<&[f32]> = weights.iter().map(read).collect();
        {
            let mut ys: Vec<&mut [f32]> = ys.iter_mut().map(write).collect();
            forward(
                Arithmetic::from(self.0),
                Self::shape(x),
                read(x),
                &weights,
                &mut ys,
                &parallel,
            );
        }
        (ys, Vec::new())
    }

    fn backward(&self, tensors: &[Tensor], _: &[Tensor], d_outputs: &[Tensor]) -> Vec<Tensor> {
        let (x, weights) = tensors.split_first().expect("x comes first");
        let (arithmetic, shape) = (Arithmetic::from(self.0), Self::shape(x));
        let d_ys: Vec<Tensor> = d_outputs.iter().map(Tensor::contiguous).collect();
        let d_ys: Vec<&[f32]> = d_ys.iter().map(read).collect();
        let mut gradients: Vec<Tensor> = tensors.iter().map(Tensor::empty_like).collect();
        let mut slices: Vec<&mut [f32]> = gradients.iter_mut().map(write).collect();
        let (d_x, d_w) = slices.split_first_mut().expect("x comes first");
        let weights: Vec<&[f32]> = weights.iter().map(read).collect();
        d_input(arithmetic, shape, &weights, &d_ys, d_x, &parallel);
        d_weights(arithmetic, shape, read(x), &d_ys, d_w, &parallel);
        gradients
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_that_begin_at_aligned_columns_are_the_same_maps() {
        let random = |rows: i64| Tensor::randn([rows, 24], (Kind::Float, Device::Cpu));
        let x = random(5);
        for rows in [[16, 3, 8, 3], [8, 16, 24, 8], [1, 2, 3, 4]] {
            let weights = rows.map(random);
            let weights = weights.each_ref();
            let maps = by_torch_aligned(&x, &weights);
            for ((map, plain), rows) in maps.iter().zip(by_torch(&x, &weights)).zip(rows) {
                assert_eq!(map.size(), [5, rows]);
                assert!(map.allclose(&plain, 1e-5, 1e-6, false));
                // f32: eight columns are 32 bytes
                let begins = (map.data_ptr() as usize).is_multiple_of(32);
                assert!(begins || rows % ALIGNED != 0, "a map of {rows} columns");
                assert_eq!(map.stride()[0] % ALIGNED, 0);
            }
        }
    }
}
