//! Products, vectors and threads on the CPU, at every level of this machine.

use std::sync::atomic::{AtomicUsize, Ordering};

use kernels::cpu::gemm::{Gemm, View};
use kernels::cpu::matrix::feed_forward::FeedForward;
use kernels::cpu::matrix::{Rows, Storage};
use kernels::cpu::{Kernel, Level, Matrix, Pool, Simd, run_at};
use kernels::norm::cpu::OfBranch;

use crate::random::{Random, assert_close, f32s, f64s, poisoned};

fn product(
    a: impl Fn(usize, usize) -> f64,
    b: impl Fn(usize, usize) -> f64,
    [m, n, k]: [usize; 3],
) -> Vec<f64> {
    (0..m * n).map(|at| (0..k).map(|l| a(at / n, l) * b(l, at % n)).sum()).collect()
}

#[test]
fn gemm_is_the_product_at_odd_sizes_and_strides() {
    let mut random = Random::new(1);
    for level in Level::available() {
        for [m, n, k] in [
            [1, 1, 1],
            [3, 31, 5],
            [12, 32, 64],
            [13, 33, 1],
            [25, 100, 63],
            [64, 7, 100],
            [2, 65, 0],
        ] {
            let (a_stride, b_stride, c_stride) = (k + 3, n + 5, n + 2);
            let (a, b) = (f32s(&random.signed(m * a_stride)), f32s(&random.signed(k * b_stride)));
            let expected = product(
                |i, l| f64::from(a[i * a_stride + l]),
                |l, j| f64::from(b[l * b_stride + j]),
                [m, n, k],
            );
            let (a_view, b_view) = (View::new(&a, a_stride), View::new(&b, b_stride));
            let mut c = poisoned(m * c_stride);
            for accumulate in [false, true] {
                Gemm { m, n, k, a: a_view, b: b_view, c: &mut c, c_stride, accumulate }
                    .run_at(level);
            }
            let (mut got, mut twice) = (Vec::new(), Vec::new());
            for (i, row) in c.chunks_exact(c_stride).enumerate() {
                got.extend_from_slice(&row[..n]);
                twice.extend(expected[i * n..][..n].iter().map(|x| 2.0 * x));
                assert!(
                    row[n..].iter().all(|x| x.is_nan()),
                    "nothing is written beyond the columns"
                );
            }
            assert_close(&got, &twice, 1e-6, &format!("gemm {m}×{n}×{k} {}", level.name()));
        }
    }
}

#[test]
fn gemm_reads_a_transposed() {
    let mut random = Random::new(2);
    let (m, n, k) = (17, 40, 33);
    let (a, b) = (f32s(&random.signed(k * m)), f32s(&random.signed(k * n)));
    let expected =
        product(|i, l| f64::from(a[l * m + i]), |l, j| f64::from(b[l * n + j]), [m, n, k]);
    for level in Level::available() {
        let mut c = poisoned(m * n);
        let (a, b) = (View::new(&a, m).transposed(), View::new(&b, n));
        Gemm { m, n, k, a, b, c: &mut c, c_stride: n, accumulate: false }.run_at(level);
        assert_close(&c, &expected, 1e-6, level.name());
    }
}

#[test]
fn a_matrix_applies_to_one_token_and_to_many_on_any_threads() {
    let mut random = Random::new(3);
    for threads in [1, 2, 3] {
        let pool = Pool::new(threads);
        for [outputs, inputs] in [[1, 1], [31, 7], [32, 64], [33, 63], [100, 130], [257, 33]] {
            let rows = f32s(&random.signed(outputs * inputs));
            let matrix = Matrix::from_rows(&rows, outputs, inputs);
            let mut row = poisoned(inputs);
            matrix.read_row(outputs - 1, &mut row);
            assert_eq!(row, rows[(outputs - 1) * inputs..], "rows can be read back");
            for tokens in [1, 2, 3, 4, 5, 13, 100] {
                let x = f32s(&random.signed(tokens * inputs));
                let expected = product(
                    |t, i| f64::from(x[t * inputs + i]),
                    |i, o| f64::from(rows[o * inputs + i]),
                    [tokens, outputs, inputs],
                );
                for level in Level::available() {
                    let mut y = poisoned(tokens * outputs);
                    let what = format!("{outputs}×{inputs}, {tokens}, {}", level.name());
                    matrix.apply_at(level, &pool, &x, &mut y, false);
                    assert_close(&y, &expected, 1e-6, &what);
                    matrix.apply_at(level, &pool, &x, &mut y, true);
                    let twice: Vec<f64> = expected.iter().map(|x| 2.0 * x).collect();
                    assert_close(&y, &twice, 1e-6, &what);
                }
            }
        }
    }
}

#[test]
fn weights_of_lower_precision_are_close_and_are_multiplied_as_they_are() {
    let mut random = Random::new(5);
    // Of the largest weight of a row; bf16 keeps 8 bits, the integers reach 127.
    for (storage, largest_error) in [(Storage::Bf16, 1.0 / 256.0), (Storage::Int8, 1.0 / 253.0)] {
        for [outputs, inputs] in [[1, 1], [31, 7], [33, 63], [100, 130], [257, 33]] {
            let rows = f32s(&random.signed(outputs * inputs));
            let matrix = Matrix::pack(&rows, outputs, inputs, storage);
            assert_eq!(matrix.storage(), storage);
            let table = Rows::pack(&rows, inputs, storage);
            let mut kept = poisoned(outputs * inputs);
            let mut again = poisoned(inputs);
            for (output, row) in kept.chunks_exact_mut(inputs).enumerate() {
                matrix.read_row(output, row);
                table.read(output, &mut again);
                assert_eq!(row, again, "both keep the same");
                let given = &rows[output * inputs..][..inputs];
                let largest = given.iter().fold(0.0_f32, |m, w| m.max(w.abs()));
                for (kept, given) in row.iter().zip(given) {
                    assert!((kept - given).abs() <= largest_error * largest, "{kept} for {given}");
                }
            }
            for threads in [1, 2] {
                let pool = Pool::new(threads);
                for tokens in [1, 2, 3, 4, 5, 13, 100] {
                    let x = f32s(&random.signed(tokens * inputs));
                    let weighted = |x: &[f32]| {
                        product(
                            |t, i| f64::from(x[t * inputs + i]),
                            |i, o| f64::from(kept[o * inputs + i]),
                            [tokens, outputs, inputs],
                        )
                    };
                    let expected = weighted(&x);
                    // Where the processor multiplies bfloat16, many tokens are rounded to it: 2⁻⁸ for each of x.
                    let absolute: Vec<f32> = x.iter().map(|x| x.abs()).collect();
                    let sizes = product(
                        |t, i| f64::from(absolute[t * inputs + i]),
                        |i, o| f64::from(kept[o * inputs + i]).abs(),
                        [tokens, outputs, inputs],
                    );
                    for level in Level::available() {
                        let mut y = poisoned(tokens * outputs);
                        matrix.apply_at(level, &pool, &x, &mut y, false);
                        matrix.apply_at(level, &pool, &x, &mut y, true);
                        let rounding =
                            if tokens > 4 && level == Level::Avx512 { 4e-3 } else { 3e-6 };
                        for ((y, expected), size) in y.iter().zip(&expected).zip(&sizes) {
                            let error = (f64::from(*y) - 2.0 * expected).abs();
                            assert!(
                                error <= 2.0 * (rounding * size + 1e-7),
                                "{storage:?} {outputs}×{inputs}, {tokens}, {}: {y} for {expected}",
                                level.name()
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_feed_forward_network_over_many_tokens_is_its_definition() {
    let mut random = Random::new(6);
    for [d, width] in [[1, 1], [33, 31], [64, 96], [40, 101]] {
        let weights = |random: &mut Random| f32s(&random.signed(width * d));
        let [gate, up, down] = [(); 3].map(|()| weights(&mut random));
        let norm = f32s(&random.signed(d));
        let kinds = [false, true].into_iter().flat_map(|is_gated| {
            [Storage::F32, Storage::Bf16, Storage::Int8].map(|storage| (is_gated, storage))
        });
        for (is_gated, storage) in kinds {
            let network = if is_gated {
                FeedForward::swiglu([&gate, &up, &down], d, width, storage)
            } else {
                FeedForward::relu2([&up, &down], d, width, storage)
            };
            // The weights as they are kept.
            let kept = |matrix: &Matrix, outputs: std::ops::Range<usize>| -> Vec<f64> {
                let rows = outputs.flat_map(|output| {
                    let mut row = poisoned(matrix.inputs());
                    matrix.read_row(output, &mut row);
                    f64s(&row)
                });
                rows.collect()
            };
            let up_at = network.up_at();
            let gate = kept(network.reading(), 0..width);
            let up = kept(network.reading(), up_at..up_at + width);
            let down = kept(network.down(), 0..d);
            for tokens in [1, 96, 131, 200] {
                let x = f32s(&random.signed(tokens * d));
                let normed = |x: &[f64]| kernels::norm::rms_norm_definition(x, &f64s(&norm), 1e-5);
                let after = tokens == 131;
                let h = if after { f64s(&x) } else { normed(&f64s(&x)) };
                let times = |x: &[f64], w: &[f64], [outputs, inputs]: [usize; 2]| {
                    product(
                        |t, i| x[t * inputs + i],
                        |i, o| w[o * inputs + i],
                        [tokens, outputs, inputs],
                    )
                };
                let (gate, up) = (times(&h, &gate, [width, d]), times(&h, &up, [width, d]));
                let hidden = if is_gated {
                    kernels::swiglu::definition(&gate, &up)
                } else {
                    kernels::relu2::definition(&up)
                };
                let added = times(&hidden, &down, [d, width]);
                let added = if after { normed(&added) } else { added };
                let expected: Vec<f64> = f64s(&x).iter().zip(&added).map(|(x, y)| x + y).collect();
                for (level, threads) in
                    Level::available().into_iter().flat_map(|l| [(l, 1), (l, 3)])
                {
                    let pool = Pool::new(threads);
                    assert_eq!(FeedForward::is_for(tokens, &pool), tokens >= 48 * threads);
                    let mut y = x.clone();
                    let norm = OfBranch { weight: &norm, after };
                    network.apply_to_many_at(level, &pool, norm, &mut y);
                    let in_bf16 = level == Level::Avx512 && storage != Storage::F32;
                    let tolerance = if in_bf16 { 2e-2 } else { 2e-6 };
                    let what = format!(
                        "{is_gated}, {d}, {width}, {storage:?}, {tokens}, {}",
                        level.name()
                    );
                    assert_close(&y, &expected, tolerance, &what);
                    if after {
                        continue;
                    }
                    let mut y = f32s(&h);
                    network.replace_many_at(level, &pool, &mut y);
                    assert_close(&y, &added, tolerance, &format!("{what}, alone"));
                }
            }
        }
    }
}

struct Exp<'a>(&'a mut [f32]);

impl Kernel for Exp<'_> {
    type Output = ();
    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        kernels::cpu::vector::map(s, self.0, |x| s.exp(x));
    }
}

#[test]
fn exp_is_exact_to_a_few_ulp_and_keeps_infinities_and_nan() {
    let x: Vec<f32> = (-8700..8800).map(|i| i as f32 * 0.01).collect();
    for level in Level::available() {
        let mut y = x.clone();
        run_at(level, Exp(&mut y));
        for (x, y) in x.iter().zip(&y) {
            let expected = f64::from(*x).exp();
            assert!(
                (f64::from(*y) / expected - 1.0).abs() < 3e-7,
                "exp({x}) = {y}, not {expected} ({})",
                level.name()
            );
        }
        let mut edges = [f32::NEG_INFINITY, -200.0, 0.0, f32::NAN];
        run_at(level, Exp(&mut edges));
        assert_eq!(edges[..3], [0.0, 0.0, 1.0]);
        assert!(edges[3].is_nan(), "a NaN must not be hidden ({})", level.name());
    }
}

#[test]
fn a_pool_runs_every_piece_once_and_reports_panics() {
    for threads in [1, 2, 4] {
        let pool = Pool::new(threads);
        for n in [0, 1, 2, 7, 100] {
            let counts: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
            for _ in 0..50 {
                pool.for_each(n, |i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
            }
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 50));
        }
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.for_each(8, |i| assert_ne!(i, 5));
        }));
        assert!(caught.is_err(), "a panic in a piece reaches the caller");
        let sum = AtomicUsize::new(0);
        pool.for_each(8, |i| {
            sum.fetch_add(i, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 28, "the pool works on after a panic");
        std::thread::sleep(std::time::Duration::from_millis(2));
        pool.for_each(3, |_| ());
    }
}

#[test]
fn dot_products_are_exact_at_every_length() {
    let mut random = Random::new(4);
    for n in [0, 1, 7, 16, 63, 64, 65, 200] {
        let (a, b) = (f32s(&random.uniform(n, 0.0, 1.0)), f32s(&random.uniform(n, 0.0, 1.0)));
        let expected: f64 = f64s(&a).iter().zip(f64s(&b)).map(|(a, b)| a * b).sum();
        for level in Level::available() {
            assert_close(&[run_at(level, Dot(&a, &b))], &[expected], 1e-6, level.name());
        }
    }
}

struct Dot<'a>(&'a [f32], &'a [f32]);

impl Kernel for Dot<'_> {
    type Output = f32;
    #[inline(always)]
    fn body<S: Simd>(self, s: S) -> f32 {
        kernels::cpu::vector::dot(s, self.0, self.1)
    }
}

#[test]
fn rows_and_columns_against_a_vector_are_exact_at_every_extent() {
    let mut random = Random::new(5);
    for (n, k) in [(1, 1), (3, 7), (4, 16), (5, 33), (6, 64), (63, 100), (17, 128), (2, 200)] {
        let [m, x, w] = [n * k, k, n].map(|len| f32s(&random.uniform(len, 0.0, 1.0)));
        let rows: Vec<f64> = m
            .chunks_exact(k)
            .map(|row| row.iter().zip(&x).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum())
            .collect();
        let columns: Vec<f64> = (0..k)
            .map(|j| {
                w.iter()
                    .zip(&m[j..].iter().step_by(k).collect::<Vec<_>>())
                    .map(|(w, m)| f64::from(*w) * f64::from(**m))
                    .sum()
            })
            .collect();
        for level in Level::available() {
            let (mut y, mut z) = (vec![f32::NAN; n], vec![f32::NAN; k]);
            run_at(level, Around { m: &m, x: &x, y: &mut y, w: &w, z: &mut z });
            assert_close(&y, &rows, 1e-6, level.name());
            assert_close(&z, &columns, 1e-6, level.name());
        }
    }
}

/// y ← M x and z ← Mᵀ w.
struct Around<'a> {
    m: &'a [f32],
    x: &'a [f32],
    y: &'a mut [f32],
    w: &'a [f32],
    z: &'a mut [f32],
}

impl Kernel for Around<'_> {
    type Output = ();
    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        kernels::cpu::vector::dots(s, self.x, self.m, self.y);
        kernels::cpu::vector::weighted_sum(s, self.w, self.m, self.z);
    }
}
