//! Muon's directions: kernels against the definition, and what the definition promises.

use kernels::cpu::serial;
use kernels::newton_schulz::{BLOCK, Units, definition, orthogonalise};

use crate::random::Random;

/// The blocks of one matrix, by the definition.
fn expected(units: Units, [rows, columns]: [usize; 2], x: &[f64]) -> Vec<f64> {
    let mut y = vec![0.0; x.len()];
    let of = if units == Units::Rows { rows } else { columns };
    for first in (0..of).step_by(BLOCK) {
        let count = BLOCK.min(of - first);
        let places: Vec<usize> = match units {
            Units::Rows => (first * columns..(first + count) * columns).collect(),
            Units::Columns => {
                (0..rows * count).map(|at| at / count * columns + first + at % count).collect()
            }
        };
        let block: Vec<f64> = places.iter().map(|&place| x[place]).collect();
        let (r, c) = if units == Units::Rows { (count, columns) } else { (rows, count) };
        for (place, value) in places.into_iter().zip(definition(&block, r, c)) {
            y[place] = value;
        }
    }
    y
}

#[test]
fn blocks_are_as_defined() {
    let mut random = Random::new(11);
    for shape in [[1, 1], [64, 64], [65, 3], [3, 130], [100, 70], [7, 64]] {
        for units in [Units::Rows, Units::Columns] {
            let elements: usize = shape.iter().product();
            let x: Vec<f64> = random.uniform(3 * elements, -1e-3, 1e-3);
            let single: Vec<f32> = x.iter().map(|&x| x as f32).collect();
            let mut y = vec![f32::NAN; x.len()];
            orthogonalise(units, shape, &single, &mut y, &serial);
            for (x, y) in x.chunks(elements).zip(y.chunks(elements)) {
                let expected = expected(units, shape, x);
                let error: f64 =
                    expected.iter().zip(y).map(|(e, &y)| (e - f64::from(y)).powi(2)).sum();
                let size: f64 = expected.iter().map(|e| e * e).sum();
                let relative = (error / size).sqrt();
                assert!(relative < 1e-5, "{shape:?} {units:?}: {relative:.1e}");
            }
        }
    }
}

#[test]
fn nothing_comes_of_nothing() {
    let mut y = vec![f32::NAN; 6];
    orthogonalise(Units::Rows, [2, 3], &[0.0; 6], &mut y, &serial);
    assert_eq!(y, [0.0; 6]);
}

/// Once a task is solved, gradients fall through all sizes that f32 has: none of them may make a step of another size.
#[test]
fn a_gradient_that_fades_makes_steps_that_fade() {
    let mut random = Random::new(12);
    for shape in [[64, 64], [16, 32], [32, 2]] {
        let x: Vec<f64> = random.uniform(shape[0] * shape[1], -1.0, 1.0);
        for exponent in 0..46 {
            let small: Vec<f32> = x.iter().map(|x| (x * 10_f64.powi(-exponent)) as f32).collect();
            let mut y = vec![f32::NAN; x.len()];
            orthogonalise(Units::Rows, shape, &small, &mut y, &serial);
            let square: f64 = y.iter().map(|&y| f64::from(y).powi(2)).sum();
            let size = (square / y.len() as f64).sqrt();
            let most = if exponent < 14 { 1.3 } else { 1e-3 };
            assert!(size < most, "{shape:?}, 1e-{exponent}: {size}");
        }
    }
}

#[test]
fn singular_values_of_one_size_come_near_one() {
    // An orthogonal matrix of any size keeps its directions: y is x but for a factor near 1, at a root mean square of 1.
    let side = 8_usize;
    let hadamard =
        |i: usize, j: usize| if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
    let x: Vec<f64> = (0..side * side).map(|at| 1e-4 * hadamard(at / side, at % side)).collect();
    let y = definition(&x, side, side);
    let factor = y[0];
    assert!((0.7..1.2).contains(&factor), "{factor}");
    for (x, y) in x.iter().zip(&y) {
        assert!((y - x * 1e4 * factor).abs() < 1e-9);
    }
}
