//! Rotary positions on halves: of the R channels that turn, i and i + R/2 turn by position · θ^(−2i/R).

use kernels::rope::train::{self, Shape};
use tch::{Kind, Tensor};

use super::memory::{read, single_on_cpu, write};
use super::parts;
use crate::gpu;
use crate::libtorch::{Operation, apply, parallel};

/// θ^(−2i/K) for i below K/2 = `half`, `[K/2]`, of the kind and on the device of `like`.
pub fn frequencies(half: i64, theta: f64, like: &Tensor) -> Tensor {
    let exponents =
        Tensor::arange(half, (Kind::Double, like.device())) * (-theta.ln() / half as f64);
    exponents.exp().to_kind(like.kind())
}

/// Turns x `[B, T, H, K]` by `angles`, `[B, T, H, K/2]` or what spreads to it.
pub fn turn(x: &Tensor, angles: &Tensor) -> Tensor {
    let half = x.size()[x.dim() - 1] / 2;
    let (cos, sin) = (angles.cos().to_kind(x.kind()), angles.sin().to_kind(x.kind()));
    let [a, b] = parts(x, [half, half]);
    Tensor::cat(&[&a * &cos - &b * &sin, &b * &cos + &a * &sin], -1)
}

/// Turns the first `turned` channels (R) of the heads of x `[B, T, H, K]`, whose first position is `first`.
pub fn rotate(x: &Tensor, first: i64, turned: i64, theta: f64) -> Tensor {
    if turned == 0 {
        return x.shallow_clone();
    }
    let (_, t, _, k) = x.size4().expect("[B, T, H, K]");
    let half = turned / 2;
    let wide = (Kind::Double, x.device());
    let frequencies = (Tensor::arange(half, wide) * (-2.0 * theta.ln() / turned as f64)).exp();
    let positions = Tensor::arange_start(first, first + t, wide);
    // [T, 1, R/2]
    let angles = positions.reshape([t, 1, 1]) * frequencies;
    if single_on_cpu(x) {
        let (cos, sin) = (angles.cos().to_kind(x.kind()), angles.sin().to_kind(x.kind()));
        let inputs = [x.contiguous(), cos.contiguous(), sin.contiguous()];
        return apply(Rotate, &inputs.each_ref()).pop().expect("one output");
    }
    if turned < k {
        let [turning, still] = parts(x, [turned, k - turned]);
        return Tensor::cat(&[turn(&turning, &angles), still], -1);
    }
    if gpu::suits_rope(x) {
        let table = Tensor::stack(&[angles.cos(), angles.sin()], -1).to_kind(Kind::Float);
        return gpu::rotate(x, &table); // [T, 1, K/2, 2]
    }
    turn(x, &angles)
}

/// x `[B, T, H, K]`, cosines and sines `[T, 1, R/2]` → x turned.
struct Rotate;

impl Rotate {
    fn turn(x: &Tensor, tables: &[Tensor], back: bool) -> Tensor {
        let (_, t, h, k) = x.size4().expect("[B, T, H, K]");
        let [tokens, heads, width] = [t, h, k].map(|n| n as usize);
        let mut out = x.empty_like();
        let tables = [read(&tables[0]), read(&tables[1])];
        let shape = Shape { tokens, heads, width, turned: 2 * tables[0].len() / tokens };
        train::rotate(shape, read(x), tables, back, write(&mut out), &parallel);
        out
    }
}

impl Operation for Rotate {
    fn forward(&self, tensors: &[Tensor]) -> (Vec<Tensor>, Vec<Tensor>) {
        (vec![Self::turn(&tensors[0], &tensors[1..], false)], Vec::new())
    }

    fn backward(&self, tensors: &[Tensor], _: &[Tensor], d_outputs: &[Tensor]) -> Vec<Tensor> {
        let d_x = Self::turn(&d_outputs[0].contiguous(), &tensors[1..], true);
        vec![d_x, Tensor::new(), Tensor::new()] // tables are constants
    }
}
