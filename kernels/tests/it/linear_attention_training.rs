//! The training form of scalar-gated linear attention: forward against the definition, backward against finite
//! differences of the definition in f64.

use half::bf16;
use kernels::cpu::{Element, Rows, serial};
use kernels::linear_attention::definition;
use kernels::linear_attention::train::{Gradients, Inputs, Shape, backward, forward};

use crate::random::{Random, assert_close, assert_gradients, f32s, f64s, poisoned, products};

/// Inputs of a batch in f64: q, k `[B, T, K]`, v `[B, T, H, V]`, a, g `[B, T, H]`, D `[H]`, state `[B, H, K, V]`.
#[derive(Clone)]
struct Case {
    shape: Shape,
    inputs: [Vec<f64>; 7],
}

const NAMES: [&str; 7] = ["q", "k", "v", "v_scale", "g", "skip", "state"];

fn shapes() -> Vec<Shape> {
    [
        (1, 1, 1, 3, 5),
        (2, 63, 3, 8, 8),
        (1, 64, 2, 16, 32),
        (2, 65, 12, 20, 7),
        (1, 100, 2, 64, 33),
        (1, 130, 20, 33, 17),
        (1, 1000, 1, 8, 16),
    ]
    .into_iter()
    .map(|(batch, tokens, heads, key_width, value_width)| Shape {
        batch,
        tokens,
        heads,
        key_width,
        value_width,
    })
    .collect()
}

impl Case {
    fn new(random: &mut Random, shape: Shape) -> Self {
        let Shape { batch, tokens, heads, key_width, value_width } = shape;
        let rows = batch * tokens;
        let inputs = [
            random.signed(rows * key_width),
            random.signed(rows * key_width),
            random.signed(rows * heads * value_width),
            random.uniform(rows * heads, 0.0, 2.0),
            random.uniform(rows * heads, -0.5, 0.0),
            random.signed(heads),
            random.signed(batch * heads * shape.state_len()),
        ];
        Self { shape, inputs }
    }

    /// Output `[B, T, H, V]` and last states `[B, H, K, V]` by the definition.
    fn definition(&self) -> [Vec<f64>; 2] {
        let Shape { batch, tokens, heads, key_width, value_width } = self.shape;
        let [q, k, v, a, g, skip, state] = &self.inputs;
        let (mut out, mut states) = (vec![f64::NAN; v.len()], state.clone());
        for b in 0..batch {
            for h in 0..heads {
                let row = |t: usize| (b * tokens + t) * heads + h;
                let shared = |x: &[f64]| x[b * tokens * key_width..][..tokens * key_width].to_vec();
                let scaled: Vec<f64> = (0..tokens)
                    .flat_map(|t| {
                        v[row(t) * value_width..][..value_width].iter().map(move |v| a[row(t)] * v)
                    })
                    .collect();
                let g: Vec<f64> = (0..tokens).map(|t| g[row(t)]).collect();
                let state = &mut states[(b * heads + h) * self.shape.state_len()..]
                    [..self.shape.state_len()];
                let o = definition(&shared(q), &shared(k), &scaled, &g, 1.0, state);
                for (t, o) in o.chunks(value_width).enumerate() {
                    for (j, o) in o.iter().enumerate() {
                        let at = row(t) * value_width + j;
                        out[at] = o + skip[h] * v[at];
                    }
                }
            }
        }
        [out, states]
    }

    /// Output, last states, and with the gradients that arrive at them those of every input, by the kernels.
    fn kernel<E: Element>(&self, towards: &[Vec<f64>; 2]) -> [Vec<f32>; 9] {
        let Shape { heads, key_width, value_width, .. } = self.shape;
        let narrow = |x: &[f64]| x.iter().map(|x| E::narrow(*x as f32)).collect::<Vec<E>>();
        let wide = |x: &[E]| x.iter().map(|x| x.widen()).collect::<Vec<f32>>();
        let nans = |n: usize| vec![E::narrow(f32::NAN); n];
        let [q, k, v] = [0, 1, 2].map(|i| narrow(&self.inputs[i]));
        let [a, g, skip, mut state] = [3, 4, 5, 6].map(|i| f32s(&self.inputs[i]));
        let inputs = Inputs {
            shape: self.shape,
            q: Rows::dense(&q, key_width),
            k: Rows::dense(&k, key_width),
            v: Rows::dense(&v, heads * value_width),
            v_scale: &a,
            g: &g,
            skip: &skip,
        };
        let mut states = poisoned(self.shape.states_len());
        let mut out = nans(v.len());
        forward(&inputs, &mut state, &mut states, &mut out, &serial);
        let d_out = narrow(&towards[0]);
        let mut d_state = f32s(&towards[1]);
        let (mut d_q, mut d_k, mut d_v) = (nans(q.len()), nans(k.len()), nans(v.len()));
        let (mut d_a, mut d_g, mut d_skip) =
            (poisoned(a.len()), poisoned(g.len()), poisoned(skip.len()));
        let mut to = Gradients {
            q: &mut d_q,
            k: &mut d_k,
            v: &mut d_v,
            v_scale: &mut d_a,
            g: &mut d_g,
            skip: &mut d_skip,
        };
        let d_out = Rows::dense(&d_out, heads * value_width);
        backward(&inputs, &states, d_out, &mut d_state, &mut to, &serial);
        [wide(&out), state, wide(&d_q), wide(&d_k), wide(&d_v), d_a, d_g, d_skip, d_state]
    }
}

#[test]
fn forward_equals_the_definition_and_gradients_its_finite_differences() {
    let mut random = Random::new(21);
    for shape in shapes() {
        let case = Case::new(&mut random, shape);
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
    let mut random = Random::new(22);
    let shape = Shape { batch: 2, tokens: 150, heads: 3, key_width: 20, value_width: 24 };
    let mut case = Case::new(&mut random, shape);
    let mut towards = [random.signed(2 * 150 * 3 * 24), random.signed(2 * 3 * 20 * 24)];
    // what bf16 can hold, so that only the output's own rounding is left
    let round = |x: &mut Vec<f64>| x.iter_mut().for_each(|x| *x = f64::from(bf16::from_f64(*x)));
    case.inputs[..3].iter_mut().for_each(round);
    round(&mut towards[0]);
    let [exact, rounded] = [case.kernel::<f32>(&towards), case.kernel::<bf16>(&towards)];
    for (index, (rounded, exact)) in rounded.iter().zip(&exact).enumerate() {
        assert_close(rounded, &f64s(exact), 1.0 / 256.0, &format!("result {index}"));
    }
}
