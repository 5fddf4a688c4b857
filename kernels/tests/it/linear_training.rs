//! Linear maps for training: every product against its definition in f64, at every level and in both precisions.

use kernels::cpu::{Arithmetic, Level, Precision, serial};
use kernels::linear::{Shape, d_input, d_weights, definition, forward};

use crate::random::{Random, assert_close, f32s, f64s, poisoned};

/// Tokens, inputs, outputs of the maps; some of them beyond one block, panel or part.
const CASES: [(usize, usize, &[usize]); 7] = [
    (1, 1, &[1]),
    (63, 5, &[3, 100]),
    (12, 64, &[32]),
    (100, 63, &[1, 33, 64]),
    (97, 1000, &[7, 40]),
    (1000, 17, &[63]),
    (50, 33, &[1100, 2]),
];

fn arithmetics() -> impl Iterator<Item = Arithmetic> {
    Level::available().into_iter().flat_map(|level| {
        [Precision::F32, Precision::Bf16].map(|precision| Arithmetic { level, precision })
    })
}

/// Error of a sum of products, relative to its largest value.
fn tolerance(arithmetic: Arithmetic) -> f64 {
    match arithmetic.precision {
        Precision::F32 => 1e-5,
        Precision::Bf16 => 1e-2,
    }
}

/// Numbers that bf16 holds exactly, so that products differ in the last bits of f32 only.
fn exact(random: &mut Random, n: usize) -> Vec<f32> {
    random.signed(n).iter().map(|x| (x * 64.0).round() as f32 / 64.0).collect()
}

fn transposed(x: &[f64], columns: usize) -> Vec<f64> {
    let rows = x.len() / columns;
    (0..x.len()).map(|i| x[i % rows * columns + i / rows]).collect()
}

#[test]
fn all_three_products_equal_the_definition() {
    let mut random = Random::new(21);
    for (tokens, inputs, outputs) in CASES {
        let shape = Shape { tokens, inputs };
        for round_first in [false, true] {
            let mut numbers = |n: usize| {
                if round_first { exact(&mut random, n) } else { f32s(&random.signed(n)) }
            };
            let x = numbers(tokens * inputs);
            let weights: Vec<Vec<f32>> = outputs.iter().map(|n| numbers(n * inputs)).collect();
            let d_ys: Vec<Vec<f32>> = outputs.iter().map(|n| numbers(n * tokens)).collect();
            let weight_slices: Vec<&[f32]> = weights.iter().map(Vec::as_slice).collect();
            let d_y_slices: Vec<&[f32]> = d_ys.iter().map(Vec::as_slice).collect();
            for arithmetic in arithmetics() {
                let tolerance = if round_first { 1e-5 } else { tolerance(arithmetic) };
                let what =
                    |product: &str| format!("{product} {shape:?} {outputs:?} {arithmetic:?}");

                let mut ys: Vec<Vec<f32>> = outputs.iter().map(|n| poisoned(n * tokens)).collect();
                let mut slices: Vec<&mut [f32]> = ys.iter_mut().map(Vec::as_mut_slice).collect();
                forward(arithmetic, shape, &x, &weight_slices, &mut slices, &serial);
                for (y, w) in ys.iter().zip(&weights) {
                    let expected = definition(&f64s(&x), &f64s(w), inputs);
                    assert_close(y, &expected, tolerance, &what("y"));
                }

                let mut d_x = poisoned(x.len());
                d_input(arithmetic, shape, &weight_slices, &d_y_slices, &mut d_x, &serial);
                let mut expected = vec![0.0; x.len()];
                for ((d_y, w), n) in d_ys.iter().zip(&weights).zip(outputs) {
                    let part = definition(&f64s(d_y), &transposed(&f64s(w), inputs), *n);
                    expected.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
                }
                assert_close(&d_x, &expected, tolerance, &what("dx"));

                let mut d_ws: Vec<Vec<f32>> = weights.iter().map(|w| poisoned(w.len())).collect();
                let mut slices: Vec<&mut [f32]> = d_ws.iter_mut().map(Vec::as_mut_slice).collect();
                d_weights(arithmetic, shape, &x, &d_y_slices, &mut slices, &serial);
                for ((d_w, d_y), n) in d_ws.iter().zip(&d_ys).zip(outputs) {
                    let (d_y, x) = (transposed(&f64s(d_y), *n), transposed(&f64s(&x), inputs));
                    assert_close(d_w, &definition(&d_y, &x, tokens), tolerance, &what("dw"));
                }
            }
        }
    }
}

#[test]
fn what_is_not_a_number_stays_visible_in_bf16() {
    for arithmetic in arithmetics() {
        for bad in [f32::NAN, -f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(u32::MAX)] {
            let (x, w) = ([1.0, bad, 1.0], [1.0, 1.0, 1.0]);
            let mut y = [0.0];
            let shape = Shape { tokens: 1, inputs: 3 };
            forward(arithmetic, shape, &x, &[&w], &mut [&mut y], &serial);
            assert!(y[0].is_nan(), "{arithmetic:?}: {}", y[0]);
        }
    }
}
