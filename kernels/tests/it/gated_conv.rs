//! The gated short convolution: forward against its definition, backward against finite differences of that in f64, and
//! what must hold whatever it computes.

use half::bf16;
use kernels::cpu::{Element, Rows, serial};
use kernels::gated_conv::{cpu, definition, train};
use kernels::short_conv;

use crate::random::{Random, assert_close, assert_gradients, f32s, f64s, poisoned, products};

/// Batch, positions, channels, taps.
type Shape = [usize; 4];

const SHAPES: [Shape; 9] = [
    [1, 1, 1, 1],
    [1, 1, 130, 3],
    [2, 2, 5, 8],
    [1, 31, 100, 3],
    [2, 33, 17, 2],
    [1, 100, 3, 4],
    [3, 64, 2, 7],
    [1, 259, 3, 5],
    [1, 7, 1000, 6],
];

/// B, C and x̃ of each position; u before the first; the weight.
type Inputs = [Vec<f64>; 3];

fn random_inputs(random: &mut Random, [batch, tokens, channels, taps]: Shape) -> Inputs {
    [batch * tokens * 3, batch * (taps - 1), taps].map(|n| random.signed(n * channels))
}

/// y, and u of the last positions.
fn definitions([batch, tokens, channels, taps]: Shape, inputs: &Inputs) -> [Vec<f64>; 2] {
    let [rows, before, weight] = inputs;
    let (mut y, mut after) = (Vec::new(), before.clone());
    for b in 0..batch {
        let rows = &rows[b * tokens * 3 * channels..][..tokens * 3 * channels];
        let past = (taps - 1) * channels;
        y.extend(definition(rows, weight, taps, &mut after[b * past..][..past]));
    }
    [y, after]
}

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

/// y, u of the last positions, then the gradients.
fn kernel<E: Element>(shape: Shape, inputs: &Inputs, towards: &[f64]) -> [Vec<f32>; 5] {
    let [batch, tokens, channels, taps] = shape;
    let rows = spaced::<E>(&inputs[0], 3 * channels);
    let (before, weight) = (f32s(&inputs[1]), cpu::transpose_weight(&f32s(&inputs[2]), taps));
    let inputs = cpu::Inputs {
        batch,
        tokens,
        rows: Rows::new(&rows[1..], batch * tokens, 3 * channels, 3 * channels + 2),
        before: Some(&before),
        weight: &weight,
    };
    let mut y = nans::<E>(batch * tokens * channels);
    cpu::forward(&inputs, &mut y, &serial);
    let d_y = spaced::<E>(towards, channels);
    let d_y = Rows::new(&d_y[1..], batch * tokens, channels, channels + 2);
    let (mut d_rows, mut d_before) = (nans::<E>(3 * y.len()), poisoned(before.len()));
    let mut d_weight = poisoned(weight.len());
    let mut to =
        train::Gradients { rows: &mut d_rows, before: Some(&mut d_before), weight: &mut d_weight };
    train::backward(&inputs, d_y, &mut to, &serial);
    [wide(&y), inputs.after(), wide(&d_rows), d_before, d_weight]
}

#[test]
fn the_gated_convolution_and_its_gradients() {
    let mut random = Random::new(51);
    for shape in SHAPES {
        let inputs = random_inputs(&mut random, shape);
        let [expected, expected_after] = definitions(shape, &inputs);
        let towards = random.signed(expected.len());
        let [y, after, d_rows, d_before, d_weight] = kernel::<f32>(shape, &inputs, &towards);
        assert_close(&y, &expected, 2e-6, &format!("{shape:?}"));
        assert_close(&after, &expected_after, 1e-6, &format!("what is left of {shape:?}"));
        let [rows, before, weight] = inputs;
        if before.is_empty() {
            // one tap: nothing before
            let loss = |inputs: &[Vec<f64>; 2]| {
                let [rows, weight] = inputs.clone();
                products(&definitions(shape, &[rows, Vec::new(), weight])[0], &towards)
            };
            let what = |index| format!("{shape:?} gradient {index}");
            assert_gradients(&mut random, &[rows, weight], &[d_rows, d_weight], loss, what);
            continue;
        }
        let loss = |inputs: &Inputs| products(&definitions(shape, inputs)[0], &towards);
        let gradients = [d_rows, d_before, d_weight];
        assert_gradients(&mut random, &[rows, before, weight], &gradients, loss, |index| {
            format!("{shape:?} gradient {index}")
        });
    }
}

#[test]
fn bf16_rounds_once() {
    let mut random = Random::new(52);
    let round = |x: &mut Vec<f64>| x.iter_mut().for_each(|x| *x = f64::from(bf16::from_f64(*x)));
    for shape in [[2, 70, 40, 3], [1, 33, 150, 5]] {
        let mut inputs = random_inputs(&mut random, shape);
        let mut towards = random.signed(inputs[0].len() / 3);
        round(&mut inputs[0]);
        round(&mut towards);
        let exact = kernel::<f32>(shape, &inputs, &towards);
        for (rounded, exact) in kernel::<bf16>(shape, &inputs, &towards).iter().zip(&exact) {
            assert_close(rounded, &f64s(exact), 1.0 / 256.0, "gated convolution");
        }
    }
}

#[test]
fn of_one_tap_it_is_the_product_of_all() {
    let mut random = Random::new(53);
    let [rows, _, weight] = random_inputs(&mut random, [1, 9, 5, 1]);
    let y = definition(&rows, &weight, 1, &mut []);
    for (t, row) in rows.chunks_exact(15).enumerate() {
        for c in 0..5 {
            let expected = row[c] * row[5 + c] * row[10 + c] * weight[c];
            assert!((y[t * 5 + c] - expected).abs() < 1e-15);
        }
    }
}

#[test]
fn with_open_gates_it_is_the_convolution() {
    let mut random = Random::new(54);
    let [rows, before, weight] = random_inputs(&mut random, [1, 20, 6, short_conv::WIDTH]);
    let x: Vec<f64> = rows.chunks_exact(18).flat_map(|row| row[12..].to_vec()).collect();
    let open: Vec<f64> = x.chunks_exact(6).flat_map(|x| [&[1.0; 12][..], x].concat()).collect();
    let (mut state, mut expected_state) = (before.clone(), before);
    let y = definition(&open, &weight, short_conv::WIDTH, &mut state);
    let expected = short_conv::definition(&x, &weight, None, &mut expected_state);
    assert_eq!(state, expected_state);
    assert!(y.iter().zip(&expected).all(|(y, e)| (y - e).abs() < 1e-14));
}

/// Bit for bit: the engine reads prompts and single tokens with the same kernel.
#[test]
fn split_anywhere_and_carried_is_unsplit() {
    let mut random = Random::new(55);
    for taps in [2, 3, 8] {
        let (tokens, channels) = (70, 19);
        let rows = f32s(&random.signed(tokens * 3 * channels));
        let weight = f32s(&random.signed(taps * channels));
        let run = |rows: &[f32], before: &[f32]| {
            let tokens = rows.len() / (3 * channels);
            let rows = Rows::dense(rows, 3 * channels);
            let inputs =
                cpu::Inputs { batch: 1, tokens, rows, before: Some(before), weight: &weight };
            let mut y = poisoned(tokens * channels);
            cpu::forward(&inputs, &mut y, &serial);
            (y, inputs.after())
        };
        let nothing = vec![0.0; (taps - 1) * channels];
        let (whole, after) = run(&rows, &nothing);
        for at in [1, 2, 7, 31, 32, 33, 69] {
            let (first, second) = rows.split_at(at * 3 * channels);
            let (mut y, between) = run(first, &nothing);
            let (rest, end) = run(second, &between);
            y.extend(rest);
            assert_eq!((y, end), (whole.clone(), after.clone()), "{taps} taps, split at {at}");
        }
    }
}
