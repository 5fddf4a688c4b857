//! Kimi Delta Attention and the logarithms of its decays by `kernels::cuda::chunked::kda`.

use kernels::cuda::chunked::kda::decays::LogDecays;
use kernels::cuda::chunked::kda::{self as gpu, Decays, Inputs, Prepared, Shape};
use kernels::cuda::chunked::{Gradients, Kept};
use tch::{Kind, Tensor};

use super::chunked::{alike, single};
use super::{address, extent, in_rows, launch, on_gpu, rows};
use crate::libtorch::{Operation, apply};
use crate::ops::kda::Kda;

impl Kda {
    /// Whether the GPU's kernels take these inputs: bf16 or fp32 values on a GPU, in shapes that they cover.
    pub(crate) fn suits_gpu(&self) -> bool {
        on_gpu(&self.v) && layout(&self.q, &self.v, self.scale).is_some()
    }

    /// As [`Self::chunked`].
    pub(crate) fn by_gpu(&self, state: Option<&Tensor>) -> (Tensor, Tensor) {
        let [q, k] = self.keys();
        let mut inputs = vec![
            alike(&q, &self.v),
            alike(&k, &self.v),
            alike(&self.v, &self.v),
            in_rows(&self.log_decay.to_kind(Kind::Float), 2),
            single(&self.beta),
        ];
        inputs.extend(state.map(single));
        let keep = inputs.iter().any(Tensor::requires_grad);
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        let mut outputs = apply(Rule { scale: self.scale, keep }, &inputs);
        let after = outputs.pop().expect("the operation returns the output and the state");
        (outputs.pop().expect("the operation returns the output and the state"), after)
    }
}

/// q `[B, T, H, K]`, v `[B, T, H, V]`.
fn layout(q: &Tensor, v: &Tensor, scale: f64) -> Option<gpu::Kda> {
    let key_width = *q.size().last().expect("q is [B, T, H, K]");
    let (batch, tokens, heads, value_width) = v.size4().expect("v is [B, T, H, V]");
    let [batch, tokens, heads, key_width, value_width] =
        [batch, tokens, heads, key_width, value_width].map(|n| n as usize);
    let wide = v.kind() == Kind::Float;
    let shape = Shape { batch, tokens, heads, key_width, value_width, wide };
    gpu::Kda::training(shape, scale as f32, extent(v)?).ok()
}

/// q, k `[B, T, H, K]`, v `[B, T, H, V]`, g `[B, T, H, K]`, β `[B, T, H]`, perhaps the state `[B, H, K, V]` → output
/// `[B, T, H, V]`, state after.
struct Rule {
    scale: f64,
    /// Whether a backward pass may follow.
    keep: bool,
}

impl Rule {
    fn layout(&self, tensors: &[Tensor]) -> gpu::Kda {
        layout(&tensors[0], &tensors[2], self.scale).expect("`suits_gpu` asked for this shape")
    }
}

fn inputs(tensors: &[Tensor]) -> Inputs {
    let [q, k, v, g] = [0, 1, 2, 3].map(|i| rows(&tensors[i], 2));
    Inputs { q, k, v, decays: Decays::Logarithms(g), beta: address(&tensors[4]) }
}

/// Of `kept`: what the walks multiply, the inverse, the scores and the decays, then Δ and the states.
fn prepared(kept: &[Tensor]) -> Prepared {
    let [queries, keys, keys_after, inverse, scores, decays] =
        [0, 1, 2, 3, 4, 5].map(|i| address(&kept[i]));
    Prepared { queries, keys, keys_after, inverse, scores, decays }
}

fn walked(kept: &[Tensor]) -> Kept {
    Kept { corrections: address(&kept[6]), states: address(&kept[7]) }
}

impl Operation for Rule {
    fn forward(&self, tensors: &[Tensor]) -> (Vec<Tensor>, Vec<Tensor>) {
        let (kda, inputs, v) = (self.layout(tensors), inputs(tensors), &tensors[2]);
        let shape = kda.shape();
        let numbers = |len: usize| Tensor::empty([len as i64], (v.kind(), v.device()));
        let keys = shape.rows() * shape.key_width;
        let lens = [keys, keys, keys, shape.squares_len(), shape.squares_len()];
        let mut kept: Vec<Tensor> = lens.into_iter().map(numbers).collect();
        kept.push(Tensor::empty([shape.decays_len() as i64], (Kind::Float, v.device())));
        if self.keep {
            kept.push(numbers(shape.rows() * shape.value_width));
            kept.push(numbers(shape.states_len()));
        }
        let out = Tensor::empty(v.size(), (v.kind(), v.device()));
        let after = [shape.batch, shape.heads, shape.key_width, shape.value_width];
        let after = Tensor::empty(after.map(|n| n as i64), (Kind::Float, v.device()));
        let walked = self.keep.then(|| walked(&kept));
        let states = (tensors.get(5).map_or(0, address), address(&after));
        let launches = [
            kda.prepare(&inputs, &prepared(&kept)),
            kda.forward(&inputs, &prepared(&kept), states, address(&out), walked.as_ref()),
        ];
        launch(v, &launches);
        (vec![out, after], if self.keep { kept } else { Vec::new() })
    }

    fn backward(&self, tensors: &[Tensor], kept: &[Tensor], d_outputs: &[Tensor]) -> Vec<Tensor> {
        let (kda, v) = (self.layout(tensors), &tensors[2]);
        let d_out = alike(&d_outputs[0], v);
        let d_after = single(&d_outputs[1]);
        // those of q, k, v, g, β and the state, each in the kind of what it is of
        let mut d: Vec<Tensor> =
            tensors.iter().map(|x| Tensor::empty(x.size(), (x.kind(), x.device()))).collect();
        let d_states = Tensor::empty([kda.shape().states_len() as i64], (v.kind(), v.device()));
        let to = Gradients {
            q: address(&d[0]),
            k: address(&d[1]),
            v: address(&d[2]),
            g: address(&d[3]),
            beta: address(&d[4]),
            state: d.get(5).map_or(0, address),
            states: address(&d_states),
        };
        let launches = kda.backward(
            &inputs(tensors),
            &prepared(kept),
            &walked(kept),
            rows(&d_out, 2),
            address(&d_after),
            &to,
        );
        launch(v, &launches);
        d.truncate(tensors.len());
        d
    }
}

/// Whether [`log_decays`] takes x `[B, T, H·K]` for so many heads.
pub(crate) fn suits_log_decays(x: &Tensor, heads: i64) -> bool {
    on_gpu(x) && log_decays_shape(x, heads).check().is_ok()
}

/// g = −e^A · ln(1 + e^{x + b}), f32 `[B, T, H·K]`; x `[B, T, H·K]`, b `[H·K]`, A `[H]`.
pub(crate) fn log_decays(x: &Tensor, bias: &Tensor, a_log: &Tensor) -> Tensor {
    apply(Logarithms, &[&in_rows(x, 1), &single(bias), &single(a_log)]).pop().expect("one output")
}

fn log_decays_shape(x: &Tensor, heads: i64) -> LogDecays {
    let (b, t, channels) = x.size3().expect("x is [B, T, H·K]");
    let [positions, heads, key_width] = [b * t, heads, channels / heads].map(|n| n as usize);
    LogDecays { positions, heads, key_width, wide: x.kind() == Kind::Float }
}

/// x `[B, T, H·K]`, b `[H·K]`, A `[H]` → g `[B, T, H·K]`.
struct Logarithms;

impl Operation for Logarithms {
    fn forward(&self, tensors: &[Tensor]) -> (Vec<Tensor>, Vec<Tensor>) {
        let [x, bias, a_log] = tensors else { unreachable!("all are of three tensors") };
        let g = Tensor::empty(x.size(), (Kind::Float, x.device()));
        let shape = log_decays_shape(x, a_log.numel() as i64);
        launch(x, &[shape.forward(rows(x, 1), (address(bias), address(a_log)), address(&g))]);
        (vec![g], Vec::new())
    }

    fn backward(&self, tensors: &[Tensor], _: &[Tensor], d_outputs: &[Tensor]) -> Vec<Tensor> {
        let [x, bias, a_log] = tensors else { unreachable!("all are of three tensors") };
        let shape = log_decays_shape(x, a_log.numel() as i64);
        let d_g = in_rows(&d_outputs[0], 1);
        let d_x = Tensor::empty(x.size(), (x.kind(), x.device()));
        let parts = [shape.parts() as i64, a_log.numel() as i64, shape.key_width as i64];
        let [d_bias, d_a] = [(); 2].map(|()| Tensor::empty(parts, (Kind::Float, x.device())));
        launch(
            x,
            &[shape.backward(
                (rows(x, 1), address(bias), address(a_log)),
                rows(&d_g, 1),
                (address(&d_x), address(&d_bias), address(&d_a)),
            )],
        );
        let d_bias = d_bias.sum_dim_intlist(0, false, Kind::Float).reshape(bias.size());
        vec![d_x, d_bias, d_a.sum_dim_intlist([0, 2].as_slice(), false, Kind::Float)]
    }
}
