//! The training form of the gated delta rule: forward against the definition, backward against finite differences of
//! the definition in f64.

use kernels::delta_rule::definition;
use kernels::delta_rule::train::{Gradients, Inputs, Shape, backward, forward, serial};

use crate::random::Random;

/// Inputs of a batch in f64, laid out `[B, T, H, …]`.
#[derive(Clone)]
struct Case {
    shape: Shape,
    q: Vec<f64>,
    k: Vec<f64>,
    v: Vec<f64>,
    g: Vec<f64>,
    beta: Vec<f64>,
    /// `[B, H, K, V]`.
    state: Vec<f64>,
    scale: f64,
}

fn single(x: &[f64]) -> Vec<f32> {
    x.iter().map(|x| *x as f32).collect()
}

impl Case {
    fn new(random: &mut Random, shape: Shape) -> Self {
        let rows = shape.batch * shape.tokens * shape.heads;
        let unit = |random: &mut Random| {
            let mut x = random.signed(rows * shape.key_width);
            for row in x.chunks_mut(shape.key_width) {
                let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt() + 1e-3;
                for x in row.iter_mut() {
                    *x /= norm;
                }
            }
            x
        };
        Self {
            shape,
            q: unit(random),
            k: unit(random),
            v: random.signed(rows * shape.value_width),
            g: random.uniform(rows, -0.5, 0.0),
            beta: random.uniform(rows, 0.0, 2.0),
            state: random.signed(shape.pieces() * shape.state_len()),
            scale: 0.37,
        }
    }

    /// Output `[B, T, H, V]` and last states `[B, H, K, V]` by the definition.
    fn definition(&self) -> (Vec<f64>, Vec<f64>) {
        let Shape { tokens, heads, key_width, value_width, .. } = self.shape;
        let mut out = vec![f64::NAN; self.v.len()];
        let mut states = self.state.clone();
        for (piece, state) in states.chunks_mut(self.shape.state_len()).enumerate() {
            let row = |t: usize| (piece / heads * tokens + t) * heads + piece % heads;
            let gather = |x: &[f64], width: usize| -> Vec<f64> {
                (0..tokens).flat_map(|t| x[row(t) * width..][..width].to_vec()).collect()
            };
            let [q, k] = [&self.q, &self.k].map(|x| gather(x, key_width));
            let v = gather(&self.v, value_width);
            let [g, beta] = [&self.g, &self.beta].map(|x| gather(x, 1));
            let o = definition(&q, &k, &v, &g, &beta, self.scale, state);
            for (t, o) in o.chunks(value_width).enumerate() {
                out[row(t) * value_width..][..value_width].copy_from_slice(o);
            }
        }
        (out, states)
    }

    /// Every differentiable input.
    fn inputs(&mut self) -> [&mut Vec<f64>; 6] {
        [&mut self.q, &mut self.k, &mut self.v, &mut self.g, &mut self.beta, &mut self.state]
    }
}

fn relative_error(got: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().fold(1e-12_f64, |m, x| m.max(x.abs()));
    let error = got.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs());
    error.fold(0.0, |m, e| if e.is_nan() { f64::INFINITY } else { m.max(e) }) / largest
}

fn shapes() -> impl Iterator<Item = Shape> {
    [
        (1, 1, 1, 3, 5),
        (2, 63, 1, 8, 8),
        (1, 64, 2, 16, 32),
        (2, 65, 3, 20, 7),
        (1, 130, 2, 64, 33),
        (1, 200, 1, 33, 17),
    ]
    .into_iter()
    .map(|(batch, tokens, heads, key_width, value_width)| Shape {
        batch,
        tokens,
        heads,
        key_width,
        value_width,
    })
}

#[test]
fn forward_equals_the_definition() {
    let mut random = Random::new(11);
    for shape in shapes() {
        let case = Case::new(&mut random, shape);
        let (q, k, v, g, beta) = (
            single(&case.q),
            single(&case.k),
            single(&case.v),
            single(&case.g),
            single(&case.beta),
        );
        let inputs =
            Inputs { shape, q: &q, k: &k, v: &v, g: &g, beta: &beta, scale: case.scale as f32 };
        let mut state = single(&case.state);
        let mut states = vec![f32::NAN; shape.states_len()];
        let mut out = vec![f32::NAN; v.len()];
        forward(&inputs, &mut state, &mut states, &mut out, &serial);
        let (expected, last) = case.definition();
        assert!(
            relative_error(&out, &expected) < 1e-5,
            "{shape:?}: {}",
            relative_error(&out, &expected)
        );
        assert!(
            relative_error(&state, &last) < 1e-5,
            "{shape:?}: {}",
            relative_error(&state, &last)
        );
    }
}

#[test]
fn gradients_equal_finite_differences_of_the_definition() {
    let mut random = Random::new(12);
    for shape in shapes() {
        let case = Case::new(&mut random, shape);
        let d_out = random.signed(case.v.len());
        let d_last = random.signed(case.state.len());
        let (q, k, v, g, beta) = (
            single(&case.q),
            single(&case.k),
            single(&case.v),
            single(&case.g),
            single(&case.beta),
        );
        let inputs =
            Inputs { shape, q: &q, k: &k, v: &v, g: &g, beta: &beta, scale: case.scale as f32 };
        let mut states = vec![f32::NAN; shape.states_len()];
        forward(
            &inputs,
            &mut single(&case.state),
            &mut states,
            &mut vec![f32::NAN; v.len()],
            &serial,
        );
        let nan = |n: usize| vec![f32::NAN; n];
        let (mut dq, mut dk, mut dv) = (nan(q.len()), nan(k.len()), nan(v.len()));
        let (mut dg, mut dbeta) = (nan(g.len()), nan(beta.len()));
        let mut d_state = single(&d_last);
        let mut to = Gradients { q: &mut dq, k: &mut dk, v: &mut dv, g: &mut dg, beta: &mut dbeta };
        backward(&inputs, &states, &single(&d_out), &mut d_state, &mut to, &serial);

        let loss = |case: &Case| -> f64 {
            let (out, last) = case.definition();
            let sum = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            sum(&out, &d_out) + sum(&last, &d_last)
        };
        let gradients = [&dq, &dk, &dv, &dg, &dbeta, &d_state];
        let names = ["q", "k", "v", "g", "beta", "state"];
        for (index, (gradient, name)) in gradients.into_iter().zip(names).enumerate() {
            // Single elements at both ends and in the middle, then a random direction through all of them.
            let n = gradient.len();
            let mut directions: Vec<Vec<f64>> = [0, n / 2, n - 1]
                .map(|at| (0..n).map(|i| f64::from(u8::from(i == at))).collect())
                .to_vec();
            directions.push(random.signed(n));
            for direction in directions {
                let step = 1e-5;
                let at = |sign: f64| {
                    let mut moved = case.clone();
                    for (x, d) in moved.inputs()[index].iter_mut().zip(&direction) {
                        *x += sign * step * d;
                    }
                    loss(&moved)
                };
                let expected = (at(1.0) - at(-1.0)) / (2.0 * step);
                let got: f64 =
                    gradient.iter().zip(&direction).map(|(g, d)| f64::from(*g) * d).sum();
                let size: f64 = gradient
                    .iter()
                    .zip(&direction)
                    .map(|(g, d)| (f64::from(*g) * d).powi(2))
                    .sum::<f64>()
                    .sqrt();
                let error = (got - expected).abs();
                assert!(error < 1e-4 * (1.0 + size), "{shape:?} d{name}: {got} for {expected}");
            }
        }
    }
}
