//! The training forms of the short convolution and of the norms: forward against the definitions, backward against
//! finite differences of them in f64.

use half::bf16;
use kernels::activation::{sigmoid, silu};
use kernels::cpu::{Element, Rows, serial};
use kernels::norm::{
    RMS_EPS, gate_then_norm_definition, norm_then_gate_definition, rms_norm_definition,
    train as norm,
};
use kernels::short_conv::{self, train as conv};

use crate::random::{Random, assert_close, assert_gradients, f32s, f64s, poisoned, products};

fn narrow<E: Element>(x: &[f64]) -> Vec<E> {
    x.iter().map(|x| E::narrow(*x as f32)).collect()
}

fn wide<E: Element>(x: &[E]) -> Vec<f32> {
    x.iter().map(|x| x.widen()).collect()
}

fn nans<E: Element>(n: usize) -> Vec<E> {
    vec![E::narrow(f32::NAN); n]
}

/// Rows of `width` as columns 1.. of a matrix that is two columns wider and otherwise NaN.
fn spaced<E: Element>(x: &[f64], width: usize) -> Vec<E> {
    let nan = || [E::narrow(f32::NAN)];
    x.chunks(width).flat_map(|row| nan().into_iter().chain(narrow(row)).chain(nan())).collect()
}

/// x, the inputs before it, weight, bias.
type Conv = [Vec<f64>; 4];

fn conv_definition(
    [batch, tokens, channels]: [usize; 3],
    [x, before, weight, bias]: &Conv,
) -> Vec<f64> {
    let mut y = Vec::new();
    for b in 0..batch {
        let mut state = before[b * 3 * channels..][..3 * channels].to_vec();
        let x = &x[b * tokens * channels..][..tokens * channels];
        y.extend(short_conv::definition(x, weight, Some(bias), &mut state).into_iter().map(silu));
    }
    y
}

/// y, then the gradients.
fn conv_kernel<E: Element>(
    [batch, tokens, channels]: [usize; 3],
    inputs: &Conv,
    towards: &[f64],
) -> [Vec<f32>; 5] {
    let x = spaced::<E>(&inputs[0], channels);
    let before = narrow::<E>(&inputs[1]);
    let (weight, bias) = (f32s(&inputs[2]), f32s(&inputs[3]));
    let x = Rows::new(&x[1..], batch * tokens, channels, channels + 2);
    let inputs = conv::Inputs {
        batch,
        tokens,
        x,
        before: Some(&before),
        weight: &weight,
        bias: Some(&bias),
    };
    let mut y = nans::<E>(batch * tokens * channels);
    conv::forward(&inputs, &mut y, &serial);
    let d_y = spaced::<E>(towards, channels);
    let d_y = Rows::new(&d_y[1..], batch * tokens, channels, channels + 2);
    let (mut d_x, mut d_before) = (nans::<E>(y.len()), nans::<E>(before.len()));
    let (mut d_weight, mut d_bias) = (poisoned(weight.len()), poisoned(bias.len()));
    let mut to = conv::Gradients {
        x: &mut d_x,
        before: Some(&mut d_before),
        weight: &mut d_weight,
        bias: Some(&mut d_bias),
    };
    conv::backward(&inputs, d_y, &mut to, &serial);
    [wide(&y), wide(&d_x), wide(&d_before), d_weight, d_bias]
}

#[test]
fn the_convolution_and_its_gradients() {
    let mut random = Random::new(31);
    for shape in
        [[1, 1, 1], [2, 2, 5], [1, 63, 100], [2, 100, 17], [1, 259, 3], [1, 1000, 2], [1, 7, 1000]]
    {
        let [batch, tokens, channels] = shape;
        let inputs: Conv = [batch * tokens, 3 * batch, 4, 1].map(|n| random.signed(n * channels));
        let expected = conv_definition(shape, &inputs);
        let towards = random.signed(expected.len());
        let [y, gradients @ ..] = conv_kernel::<f32>(shape, &inputs, &towards);
        assert_close(&y, &expected, 2e-6, &format!("{shape:?}"));
        let loss = |inputs: &Conv| products(&conv_definition(shape, inputs), &towards);
        assert_gradients(&mut random, &inputs, &gradients, loss, |index| {
            format!("{shape:?} gradient {index}")
        });
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Order {
    NoGate,
    After,
    AfterSigmoid,
    Before,
}

/// x, gate, weight.
type Norm = [Vec<f64>; 3];

fn norm_definition(order: Order, [x, gate, weight]: &Norm) -> Vec<f64> {
    let n = weight.len();
    let each = x.chunks(n).zip(gate.chunks(n));
    match order {
        Order::NoGate => rms_norm_definition(x, weight, RMS_EPS),
        Order::After => {
            each.flat_map(|(x, z)| norm_then_gate_definition(x, z, weight, RMS_EPS)).collect()
        }
        Order::AfterSigmoid => {
            let normed = rms_norm_definition(x, weight, RMS_EPS);
            normed.iter().zip(gate).map(|(y, z)| y * sigmoid(*z)).collect()
        }
        Order::Before => {
            each.flat_map(|(x, z)| gate_then_norm_definition(x, z, weight, RMS_EPS)).collect()
        }
    }
}

/// y, then the gradients of x, gate and weight.
fn norm_kernel<E: Element>(
    order: Order,
    [rows, groups, width]: [usize; 3],
    inputs: &Norm,
    towards: &[f64],
) -> [Vec<f32>; 4] {
    let row = groups * width;
    let [x, z] = [0, 1].map(|i| spaced::<E>(&inputs[i], row));
    let weight = f32s(&inputs[2]);
    let spread = |x| Rows::new(x, rows, row, row + 2);
    let gate = match order {
        Order::NoGate => norm::Gate::None,
        Order::After => norm::Gate::After(spread(&z[1..])),
        Order::AfterSigmoid => norm::Gate::AfterSigmoid(spread(&z[1..])),
        Order::Before => norm::Gate::Before(spread(&z[1..])),
    };
    let inputs = norm::Inputs { rows, x: spread(&x[1..]), gate, weight: &weight };
    let mut y = nans::<E>(rows * row);
    norm::forward(&inputs, &mut y, &serial);
    let d_y = narrow::<E>(towards);
    let (mut d_x, mut d_gate, mut d_weight) =
        (nans::<E>(y.len()), nans::<E>(y.len()), poisoned(width));
    let mut to = norm::Gradients {
        x: &mut d_x,
        gate: (order != Order::NoGate).then_some(&mut d_gate[..]),
        weight: &mut d_weight,
    };
    norm::backward(&inputs, Rows::dense(&d_y, row), &mut to, &serial);
    if order == Order::NoGate {
        d_gate.fill(E::default());
    }
    [wide(&y), wide(&d_x), wide(&d_gate), d_weight]
}

#[test]
fn the_norms_and_their_gradients() {
    let mut random = Random::new(32);
    for order in [Order::NoGate, Order::After, Order::AfterSigmoid, Order::Before] {
        for shape in [[1, 1, 1], [63, 2, 5], [100, 1, 100], [130, 3, 17], [2, 1, 1000]] {
            let [rows, groups, width] = shape;
            let n = rows * groups * width;
            let inputs: Norm = [n, n, width].map(|n| random.signed(n));
            let expected = norm_definition(order, &inputs);
            let towards = random.signed(n);
            let [y, gradients @ ..] = norm_kernel::<f32>(order, shape, &inputs, &towards);
            assert_close(&y, &expected, 2e-6, &format!("{order:?} {shape:?}"));
            let loss = |inputs: &Norm| products(&norm_definition(order, inputs), &towards);
            assert_gradients(&mut random, &inputs, &gradients, loss, |index| {
                format!("{order:?} {shape:?} gradient {index}")
            });
        }
    }
}

#[test]
fn bf16_rounds_once() {
    let mut random = Random::new(33);
    let round = |x: &mut Vec<f64>| x.iter_mut().for_each(|x| *x = f64::from(bf16::from_f64(*x)));
    let shape = [2, 70, 40];
    let mut inputs: Conv = [140, 6, 4, 1].map(|n| random.signed(n * 40));
    let mut towards = random.signed(140 * 40);
    inputs[..2].iter_mut().for_each(round);
    round(&mut towards);
    let exact = conv_kernel::<f32>(shape, &inputs, &towards);
    for (rounded, exact) in conv_kernel::<bf16>(shape, &inputs, &towards).iter().zip(&exact) {
        assert_close(rounded, &f64s(exact), 1.0 / 256.0, "convolution");
    }
    for order in [Order::NoGate, Order::After, Order::AfterSigmoid, Order::Before] {
        let shape = [70, 2, 40];
        let mut inputs: Norm = [5600, 5600, 40].map(|n| random.signed(n));
        inputs[..2].iter_mut().for_each(round);
        let exact = norm_kernel::<f32>(order, shape, &inputs, &towards);
        for (rounded, exact) in
            norm_kernel::<bf16>(order, shape, &inputs, &towards).iter().zip(&exact)
        {
            assert_close(rounded, &f64s(exact), 1.0 / 256.0, &format!("{order:?}"));
        }
    }
}
