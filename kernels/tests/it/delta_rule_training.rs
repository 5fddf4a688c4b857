//! The training form of the gated delta rule: forward against the definition, backward against finite differences of
//! the definition in f64.

use half::bf16;
use kernels::cpu::{Element, Rows, serial};
use kernels::delta_rule::definition;
use kernels::delta_rule::train::{Gradients, Inputs, Shape, backward, forward};
use kernels::norm::l2_norm_definition;

use crate::random::{Random, assert_close, assert_gradients, f32s, f64s, poisoned, products};

/// Inputs of a batch in f64: q, k, v, g, β, state, in the layout of the kernel.
#[derive(Clone)]
struct Case {
    shape: Shape,
    inputs: [Vec<f64>; 6],
    normalise: bool,
}

const NAMES: [&str; 6] = ["q", "k", "v", "g", "beta", "state"];
const SCALE: f64 = 0.37;

fn shapes() -> Vec<Shape> {
    [
        (1, 1, 1, [1, 1], 3, 5),
        (2, 63, 1, [1, 1], 8, 8),
        (1, 64, 1, [2, 2], 16, 32),
        (2, 65, 1, [3, 3], 20, 7),
        (1, 130, 1, [2, 2], 64, 33),
        (1, 100, 1, [2, 4], 33, 17),
        (2, 50, 2, [1, 1], 16, 16),
        (1, 45, 3, [1, 3], 9, 12),
        (1, 1000, 1, [1, 1], 8, 8),
    ]
    .into_iter()
    .map(|(batch, tokens, steps, [key_heads, heads], key_width, value_width)| Shape {
        batch,
        tokens,
        steps,
        key_heads,
        heads,
        key_width,
        value_width,
    })
    .collect()
}

impl Case {
    fn new(random: &mut Random, shape: Shape, normalise: bool) -> Self {
        let Shape { batch, tokens, steps, key_heads, heads, key_width, value_width } = shape;
        let rows = batch * tokens;
        let mut unit = |rows: usize| -> Vec<f64> {
            let x = random.signed(rows * key_heads * key_width);
            x.chunks(key_width).flat_map(l2_norm_definition).collect()
        };
        let (q, k) = (unit(rows), unit(rows * steps));
        let inputs = [
            q,
            k,
            random.signed(rows * steps * heads * value_width),
            random.uniform(rows * heads, -0.5, 0.0),
            random.uniform(rows * steps * heads, 0.0, if normalise { 1.0 } else { 2.0 }),
            random.signed(batch * heads * shape.state_len()),
        ];
        Self { shape, inputs, normalise }
    }

    /// Output `[B, T, H, V]` and last states `[B, H, K, V]` by the definition, on the sequence of all steps.
    fn definition(&self) -> [Vec<f64>; 2] {
        let Shape { batch, tokens, steps, key_heads, heads, key_width, value_width } = self.shape;
        let [q, k, v, g, beta, state] = &self.inputs;
        let mut out = vec![f64::NAN; batch * tokens * heads * value_width];
        let mut states = state.clone();
        for b in 0..batch {
            for h in 0..heads {
                let key_head = h / (heads / key_heads);
                let key = |x: &[f64], row: usize| {
                    let x = &x[(row * key_heads + key_head) * key_width..][..key_width];
                    if self.normalise { l2_norm_definition(x) } else { x.to_vec() }
                };
                let all = 0..tokens * steps;
                let step = |i: usize| b * tokens * steps + i;
                let token = |i: usize| b * tokens + i / steps;
                let queries: Vec<f64> = all.clone().flat_map(|i| key(q, token(i))).collect();
                let keys: Vec<f64> = all.clone().flat_map(|i| key(k, step(i))).collect();
                let values: Vec<f64> = all
                    .clone()
                    .flat_map(|i| v[(step(i) * heads + h) * value_width..][..value_width].to_vec())
                    .collect();
                let g: Vec<f64> = all
                    .clone()
                    .map(|i| if i % steps == 0 { g[token(i) * heads + h] } else { 0.0 })
                    .collect();
                let beta: Vec<f64> = all.map(|i| beta[step(i) * heads + h]).collect();
                let len = self.shape.state_len();
                let state = &mut states[(b * heads + h) * len..][..len];
                let o = definition(&queries, &keys, &values, &g, &beta, SCALE, state);
                for t in 0..tokens {
                    out[((b * tokens + t) * heads + h) * value_width..][..value_width]
                        .copy_from_slice(&o[((t + 1) * steps - 1) * value_width..][..value_width]);
                }
            }
        }
        [out, states]
    }

    /// Output, last states, and with the gradients that arrive at them those of every input, by the kernels.
    fn kernel<E: Element>(&self, towards: &[Vec<f64>; 2]) -> [Vec<f32>; 8] {
        let Shape { key_heads, heads, key_width, value_width, .. } = self.shape;
        let narrow = |x: &[f64]| x.iter().map(|x| E::narrow(*x as f32)).collect::<Vec<E>>();
        let wide = |x: &[E]| x.iter().map(|x| x.widen()).collect::<Vec<f32>>();
        let nans = |n: usize| vec![E::narrow(f32::NAN); n];
        let [q, k, v] = [0, 1, 2].map(|i| narrow(&self.inputs[i]));
        let [g, beta, mut state] = [3, 4, 5].map(|i| f32s(&self.inputs[i]));
        let inputs = Inputs {
            shape: self.shape,
            q: Rows::dense(&q, key_heads * key_width),
            k: Rows::dense(&k, key_heads * key_width),
            v: Rows::dense(&v, heads * value_width),
            g: &g,
            beta: &beta,
            scale: SCALE as f32,
            normalise: self.normalise,
        };
        let mut states = poisoned(self.shape.states_len());
        let mut out = nans(towards[0].len());
        forward(&inputs, &mut state, &mut states, &mut out, &serial);
        let d_out = narrow(&towards[0]);
        let mut d_state = f32s(&towards[1]);
        let (mut d_q, mut d_k, mut d_v) = (nans(q.len()), nans(k.len()), nans(v.len()));
        let (mut d_g, mut d_beta) = (poisoned(g.len()), poisoned(beta.len()));
        let mut to =
            Gradients { q: &mut d_q, k: &mut d_k, v: &mut d_v, g: &mut d_g, beta: &mut d_beta };
        let d_out = Rows::dense(&d_out, heads * value_width);
        backward(&inputs, &states, d_out, &mut d_state, &mut to, &serial);
        [wide(&out), state, wide(&d_q), wide(&d_k), wide(&d_v), d_g, d_beta, d_state]
    }
}

#[test]
fn forward_equals_the_definition_and_gradients_its_finite_differences() {
    let mut random = Random::new(11);
    for (shape, normalise) in shapes().into_iter().zip([false, true].into_iter().cycle()) {
        let case = Case::new(&mut random, shape, normalise);
        let expected = case.definition();
        let towards = [random.signed(expected[0].len()), random.signed(expected[1].len())];
        let [out, state, gradients @ ..] = case.kernel::<f32>(&towards);
        assert_close(&out, &expected[0], 1e-5, &format!("{shape:?} out"));
        assert_close(&state, &expected[1], 1e-5, &format!("{shape:?} state"));
        let loss = |inputs: &[Vec<f64>; NAMES.len()]| {
            let case = Case { inputs: inputs.clone(), ..case };
            case.definition().iter().zip(&towards).map(|(x, d)| products(x, d)).sum::<f64>()
        };
        assert_gradients(&mut random, &case.inputs, &gradients, loss, |index| {
            format!("{shape:?} d{}", NAMES[index])
        });
    }
}

#[test]
fn bf16_is_as_near_as_its_inputs_allow() {
    let mut random = Random::new(12);
    let shape = Shape {
        batch: 2,
        tokens: 150,
        steps: 1,
        key_heads: 2,
        heads: 2,
        key_width: 20,
        value_width: 24,
    };
    let mut case = Case::new(&mut random, shape, true);
    let mut towards = [random.signed(2 * 150 * 2 * 24), random.signed(2 * 2 * 20 * 24)];
    // what bf16 can hold, so that only the output's own rounding is left
    let round = |x: &mut Vec<f64>| x.iter_mut().for_each(|x| *x = f64::from(bf16::from_f64(*x)));
    case.inputs[..3].iter_mut().for_each(round);
    round(&mut towards[0]);
    let [exact, rounded] = [case.kernel::<f32>(&towards), case.kernel::<bf16>(&towards)];
    for (index, (rounded, exact)) in rounded.iter().zip(&exact).enumerate() {
        assert_close(rounded, &f64s(exact), 1.0 / 256.0, &format!("result {index}"));
    }
}
