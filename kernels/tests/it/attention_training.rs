//! The training form of attention: forward against the definition, backward against finite differences of it in f64.

use kernels::attention::definition;
use kernels::attention::train::{Gradients, Inputs, Shape, backward, forward};
use kernels::cpu::{Arithmetic, Level, Precision, serial};

use crate::random::{Random, assert_close, f32s, poisoned};

#[derive(Clone)]
struct Case {
    shape: Shape,
    /// q, k, v
    inputs: [Vec<f64>; 3],
}

/// B, T, S, H, H_kv, K, V, window
const SHAPES: [([usize; 7], Option<usize>); 8] = [
    ([1, 1, 1, 1, 1, 3, 5], None),
    ([2, 63, 63, 2, 1, 8, 8], None),
    ([1, 64, 64, 1, 1, 16, 32], Some(1)),
    ([1, 100, 100, 4, 2, 20, 7], Some(9)),
    ([1, 150, 150, 2, 2, 64, 33], Some(64)),
    ([2, 33, 100, 2, 1, 6, 6], None),
    ([1, 70, 90, 3, 3, 5, 4], Some(17)),
    ([1, 200, 200, 1, 1, 12, 12], Some(130)),
];

impl Case {
    fn new(
        random: &mut Random,
        [b, t, s, h, h_kv, k, v]: [usize; 7],
        window: Option<usize>,
    ) -> Self {
        let inputs = [b * t * h * k, b * s * h_kv * k, b * s * h_kv * v].map(|n| random.signed(n));
        let shape = Shape {
            batch: b,
            tokens: t,
            keys: s,
            heads: h,
            kv_heads: h_kv,
            key_width: k,
            value_width: v,
            window,
        };
        Self { shape, inputs }
    }

    /// `[B, T, H, V]`
    fn definition(&self) -> Vec<f64> {
        let Shape { batch, tokens, keys, heads, kv_heads, key_width, value_width, window } =
            self.shape;
        let [q, k, v] = &self.inputs;
        let mut out = vec![f64::NAN; batch * tokens * heads * value_width];
        let gather = |x: &[f64], b: usize, rows: usize, heads: usize, head: usize, width: usize| {
            (0..rows)
                .flat_map(|t| x[((b * rows + t) * heads + head) * width..][..width].to_vec())
                .collect::<Vec<f64>>()
        };
        for b in 0..batch {
            for head in 0..heads {
                let kv = head / (heads / kv_heads);
                // Queries before the first one change nothing after them.
                let mut queries = vec![0.0; (keys - tokens) * key_width];
                queries.extend(gather(q, b, tokens, heads, head, key_width));
                let o = definition(
                    &queries,
                    &gather(k, b, keys, kv_heads, kv, key_width),
                    &gather(v, b, keys, kv_heads, kv, value_width),
                    keys,
                    window,
                    SCALE,
                );
                for t in 0..tokens {
                    let from = &o[(keys - tokens + t) * value_width..][..value_width];
                    out[((b * tokens + t) * heads + head) * value_width..][..value_width]
                        .copy_from_slice(from);
                }
            }
        }
        out
    }
}

const SCALE: f64 = 0.7;

#[test]
fn forward_is_the_definition_and_gradients_are_its_finite_differences() {
    let mut random = Random::new(41);
    for (sizes, window) in SHAPES {
        let case = Case::new(&mut random, sizes, window);
        let shape = case.shape;
        let single = case.inputs.clone().map(|x| f32s(&x));
        let inputs =
            Inputs { shape, q: &single[0], k: &single[1], v: &single[2], scale: SCALE as f32 };
        let expected = case.definition();
        let d_out = random.signed(expected.len());
        // One random direction through each input.
        let directions = [0, 1, 2].map(|i| random.signed(case.inputs[i].len()));
        let differences = [0, 1, 2].map(|i| {
            let step = 1e-5;
            let at = |sign: f64| -> f64 {
                let mut moved = case.clone();
                let direction = directions[i].iter();
                moved.inputs[i].iter_mut().zip(direction).for_each(|(x, d)| *x += sign * step * d);
                moved.definition().iter().zip(&d_out).map(|(a, b)| a * b).sum()
            };
            (at(1.0) - at(-1.0)) / (2.0 * step)
        });
        let arithmetics = Level::available().into_iter().flat_map(|level| {
            [Precision::F32, Precision::Bf16].map(|precision| Arithmetic { level, precision })
        });
        for arithmetic in arithmetics {
            // bf16 keeps 8 bits of each factor.
            let wider = if arithmetic.precision == Precision::Bf16 { 1e3 } else { 1.0 };
            let mut out = poisoned(expected.len());
            let mut log_sums = poisoned(shape.batch * shape.heads * shape.tokens);
            forward(arithmetic, &inputs, &mut out, &mut log_sums, &serial);
            assert_close(&out, &expected, 1e-5 * wider, &format!("{shape:?} {arithmetic:?}"));
            let [mut q, mut k, mut v] = [0, 1, 2].map(|i| poisoned(case.inputs[i].len()));
            let mut gradients = Gradients { q: &mut q, k: &mut k, v: &mut v };
            let d_out = f32s(&d_out);
            backward(arithmetic, &inputs, &out, &log_sums, &d_out, &mut gradients, &serial);
            let names = ["q", "k", "v"];
            for (i, gradient) in [q, k, v].iter().enumerate() {
                let terms = gradient.iter().zip(&directions[i]).map(|(g, d)| f64::from(*g) * d);
                let size = terms.clone().map(|x| x * x).sum::<f64>().sqrt();
                let (got, expected) = (terms.sum::<f64>(), differences[i]);
                // Where a gradient vanishes, what is left of dP − D is of the size of dP's rounding.
                let tolerance = match arithmetic.precision {
                    Precision::F32 => 1e-4 * (0.1 + size),
                    Precision::Bf16 => 3e-2 * (1.0 + size),
                };
                assert!(
                    (got - expected).abs() < tolerance,
                    "{shape:?} {arithmetic:?} d{}: {got} for {expected}",
                    names[i]
                );
            }
        }
    }
}
