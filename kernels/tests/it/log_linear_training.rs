//! The training forms of the log-linear rules: forward against the dense definition, backward against finite differences
//! of the definition in f64.

use half::bf16;
use kernels::cpu::{Element, Rows, serial};
use kernels::delta_rule::train as delta_rule;
use kernels::linear_attention::train as linear_attention;
use kernels::log_linear::{Lambda, delta_rule_definition, linear_attention_definition};
use kernels::norm::l2_norm_definition;

use crate::random::{
    Random, assert_close, assert_slope, directions, f32s, f64s, moved, poisoned, products,
};

const SCALE: f64 = 0.37;

/// Extents and L. Of the delta rule neighbouring heads share a key head, of linear attention all do.
#[derive(Debug, Clone, Copy)]
struct Extents {
    batch: usize,
    tokens: usize,
    key_heads: usize,
    heads: usize,
    key_width: usize,
    value_width: usize,
    levels: usize,
}

fn extents() -> Vec<Extents> {
    [
        (1, 1, [1, 1], 3, 5, 4),
        (2, 37, [1, 3], 8, 8, 1),
        (1, 63, [2, 2], 16, 32, 6),
        (1, 64, [1, 2], 20, 7, 12),
        (2, 100, [1, 2], 33, 17, 8),
        (1, 200, [1, 1], 5, 6, 2),
        (1, 300, [2, 4], 8, 9, 8),
        (1, 530, [1, 1], 6, 4, 11),
    ]
    .into_iter()
    .map(|(batch, tokens, [key_heads, heads], key_width, value_width, levels)| Extents {
        batch,
        tokens,
        key_heads,
        heads,
        key_width,
        value_width,
        levels,
    })
    .collect()
}

const LONG: Extents = Extents {
    batch: 1,
    tokens: 1000,
    key_heads: 1,
    heads: 1,
    key_width: 4,
    value_width: 3,
    levels: 12,
};

/// What a form of the rule is, so that one test holds both.
trait Form: Clone {
    const NAMES: [&'static str; 7];

    fn new(random: &mut Random, extents: Extents) -> Self;
    fn inputs(&mut self) -> &mut [Vec<f64>; 7];
    /// `[B, T, H, V]`
    fn definition(&self) -> Vec<f64>;
    /// The output, and for the gradient that arrives at it those of all inputs.
    fn kernel<E: Element>(&self, towards: &[f64]) -> (Vec<f32>, [Vec<f32>; 7]);
}

/// Positions of a sequence, `width` numbers of a head at each.
fn of_head(x: &[f64], extents: Extents, b: usize, (h, heads): (usize, usize)) -> Vec<f64> {
    let width = x.len() / (extents.batch * extents.tokens * heads);
    let row = |t: usize| ((b * extents.tokens + t) * heads + h) * width;
    (0..extents.tokens).flat_map(|t| x[row(t)..][..width].to_vec()).collect()
}

/// `[B, T, H, V]` from what `head` gives for each sequence and head, `[T, V]`.
fn all_heads(extents: Extents, head: impl Fn(usize, usize) -> Vec<f64>) -> Vec<f64> {
    let Extents { batch, tokens, heads, value_width: width, .. } = extents;
    let mut out = vec![f64::NAN; batch * tokens * heads * width];
    for (b, h) in (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h))) {
        for (t, o) in head(b, h).chunks(width).enumerate() {
            out[((b * tokens + t) * heads + h) * width..][..width].copy_from_slice(o);
        }
    }
    out
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

/// q, k `[B, T, K]`, v `[B, T, H, V]`, a, g `[B, T, H]`, D `[H]`, λ `[B, T, H, L]`.
#[derive(Clone)]
struct Linear {
    extents: Extents,
    inputs: [Vec<f64>; 7],
}

impl Form for Linear {
    const NAMES: [&'static str; 7] = ["q", "k", "v", "v_scale", "g", "skip", "lambda"];

    fn new(random: &mut Random, extents: Extents) -> Self {
        let Extents { batch, tokens, heads, key_width, value_width, levels, .. } = extents;
        let rows = batch * tokens;
        let inputs = [
            random.signed(rows * key_width),
            random.signed(rows * key_width),
            random.signed(rows * heads * value_width),
            random.uniform(rows * heads, 0.0, 2.0),
            random.uniform(rows * heads, -0.1, 0.0),
            random.signed(heads),
            random.uniform(rows * heads * levels, 0.0, 1.5),
        ];
        Self { extents, inputs }
    }

    fn inputs(&mut self) -> &mut [Vec<f64>; 7] {
        &mut self.inputs
    }

    fn definition(&self) -> Vec<f64> {
        let [q, k, v, a, g, skip, lambda] = &self.inputs;
        let extents @ Extents { heads, value_width, .. } = self.extents;
        all_heads(extents, |b, h| {
            let of = |x: &[f64]| of_head(x, extents, b, (h, heads));
            let shared = |x: &[f64]| of_head(x, extents, b, (0, 1));
            let (v, a) = (of(v), of(a));
            let scaled: Vec<f64> =
                v.iter().enumerate().map(|(i, v)| v * a[i / value_width]).collect();
            let (g, lambda) = (of(g), of(lambda));
            let o = linear_attention_definition(&shared(q), &shared(k), &scaled, &g, &lambda, 1.0);
            o.iter().zip(&v).map(|(o, v)| o + skip[h] * v).collect()
        })
    }

    fn kernel<E: Element>(&self, towards: &[f64]) -> (Vec<f32>, [Vec<f32>; 7]) {
        let Extents { batch, tokens, heads, key_width, value_width, levels, .. } = self.extents;
        let [q, k, v] = [0, 1, 2].map(|i| narrow::<E>(&self.inputs[i]));
        let [a, g, skip, lambda] = [3, 4, 5, 6].map(|i| f32s(&self.inputs[i]));
        let shape = linear_attention::Shape { batch, tokens, heads, key_width, value_width };
        let inputs = linear_attention::Inputs {
            shape,
            q: Rows::dense(&q, key_width),
            k: Rows::dense(&k, key_width),
            v: Rows::dense(&v, heads * value_width),
            v_scale: &a,
            g: &g,
            skip: &skip,
        };
        let scales = Lambda { values: &lambda, levels };
        let mut states = poisoned(shape.states_len());
        let mut out = nans::<E>(v.len());
        linear_attention::forward_log_linear(&inputs, scales, &mut states, &mut out, &serial);
        let d_out = narrow::<E>(towards);
        let (mut d_q, mut d_k, mut d_v) = (nans(q.len()), nans(k.len()), nans(v.len()));
        let (mut d_a, mut d_g) = (poisoned(a.len()), poisoned(g.len()));
        let (mut d_skip, mut d_lambda) = (poisoned(skip.len()), poisoned(lambda.len()));
        let mut to = linear_attention::Gradients {
            q: &mut d_q,
            k: &mut d_k,
            v: &mut d_v,
            v_scale: &mut d_a,
            g: &mut d_g,
            skip: &mut d_skip,
        };
        linear_attention::backward_log_linear(
            &inputs,
            scales,
            &states,
            Rows::dense(&d_out, heads * value_width),
            &mut d_lambda,
            &mut to,
            &serial,
        );
        (wide(&out), [wide(&d_q), wide(&d_k), wide(&d_v), d_a, d_g, d_skip, d_lambda])
    }
}

/// q, k `[B, T, key heads, K]`, v `[B, T, H, V]`, g, β `[B, T, H]`, λ `[B, T, H, L]`; the last input is empty.
#[derive(Clone)]
struct Delta {
    extents: Extents,
    inputs: [Vec<f64>; 7],
    normalise: bool,
}

impl Form for Delta {
    const NAMES: [&'static str; 7] = ["q", "k", "v", "g", "beta", "lambda", "nothing"];

    fn new(random: &mut Random, extents: Extents) -> Self {
        let Extents { batch, tokens, key_heads, heads, key_width, value_width, levels } = extents;
        let rows = batch * tokens;
        let mut unit = || -> Vec<f64> {
            let x = random.signed(rows * key_heads * key_width);
            x.chunks(key_width).flat_map(l2_norm_definition).collect()
        };
        let normalise = tokens % 2 == 0;
        let inputs = [
            unit(),
            unit(),
            random.signed(rows * heads * value_width),
            random.uniform(rows * heads, -0.1, 0.0),
            random.uniform(rows * heads, 0.0, if normalise { 1.0 } else { 2.0 }),
            random.uniform(rows * heads * levels, 0.0, 1.5),
            Vec::new(),
        ];
        Self { extents, inputs, normalise }
    }

    fn inputs(&mut self) -> &mut [Vec<f64>; 7] {
        &mut self.inputs
    }

    fn definition(&self) -> Vec<f64> {
        let [q, k, v, g, beta, lambda, _] = &self.inputs;
        let extents @ Extents { key_heads, heads, key_width, .. } = self.extents;
        all_heads(extents, |b, h| {
            let of = |x: &[f64]| of_head(x, extents, b, (h, heads));
            let key = |x: &[f64]| -> Vec<f64> {
                let x = of_head(x, extents, b, (h / (heads / key_heads), key_heads));
                let unit = |x: &[f64]| {
                    if self.normalise { l2_norm_definition(x) } else { x.to_vec() }
                };
                x.chunks(key_width).flat_map(unit).collect()
            };
            let (v, g, beta, lambda) = (of(v), of(g), of(beta), of(lambda));
            delta_rule_definition(&key(q), &key(k), &v, &g, &beta, &lambda, SCALE)
        })
    }

    fn kernel<E: Element>(&self, towards: &[f64]) -> (Vec<f32>, [Vec<f32>; 7]) {
        let Extents { batch, tokens, key_heads, heads, key_width, value_width, levels } =
            self.extents;
        let [q, k, v] = [0, 1, 2].map(|i| narrow::<E>(&self.inputs[i]));
        let [g, beta, lambda] = [3, 4, 5].map(|i| f32s(&self.inputs[i]));
        let steps = 1;
        let shape =
            delta_rule::Shape { batch, tokens, steps, key_heads, heads, key_width, value_width };
        let inputs = delta_rule::Inputs {
            shape,
            q: Rows::dense(&q, key_heads * key_width),
            k: Rows::dense(&k, key_heads * key_width),
            v: Rows::dense(&v, heads * value_width),
            g: &g,
            beta: &beta,
            scale: SCALE as f32,
            normalise: self.normalise,
        };
        let scales = Lambda { values: &lambda, levels };
        let mut states = poisoned(delta_rule::log_linear::states_len(shape, levels));
        let mut out = nans::<E>(v.len());
        delta_rule::log_linear::forward(&inputs, scales, &mut states, &mut out, &serial);
        let d_out = narrow::<E>(towards);
        let (mut d_q, mut d_k, mut d_v) = (nans(q.len()), nans(k.len()), nans(v.len()));
        let (mut d_g, mut d_beta) = (poisoned(g.len()), poisoned(beta.len()));
        let mut d_lambda = poisoned(lambda.len());
        let mut to = delta_rule::log_linear::Gradients {
            inputs: delta_rule::Gradients {
                q: &mut d_q,
                k: &mut d_k,
                v: &mut d_v,
                g: &mut d_g,
                beta: &mut d_beta,
            },
            lambda: &mut d_lambda,
        };
        let d_out = Rows::dense(&d_out, heads * value_width);
        delta_rule::log_linear::backward(&inputs, scales, &states, d_out, &mut to, &serial);
        let nothing = Vec::new();
        (wide(&out), [wide(&d_q), wide(&d_k), wide(&d_v), d_g, d_beta, d_lambda, nothing])
    }
}

/// The output against the definition, and every gradient against slopes of it: along what [`directions`] takes, or
/// where the definition, whose time grows with the square of T, is slow along one random direction.
fn check<F: Form>(random: &mut Random, extents: Extents) {
    let case = F::new(random, extents);
    let expected = case.definition();
    let towards = random.signed(expected.len());
    let (out, gradients) = case.kernel::<f32>(&towards);
    assert_close(&out, &expected, 1e-5, &format!("{extents:?} out"));
    for (index, gradient) in gradients.iter().enumerate().filter(|(_, x)| !x.is_empty()) {
        let directions = match extents.tokens {
            ..=100 => directions(random, gradient.len()),
            _ => vec![random.signed(gradient.len())],
        };
        for direction in directions {
            let loss = |step: f64| {
                let mut case = case.clone();
                let input = &mut case.inputs()[index];
                *input = moved(input, &direction, step);
                products(&case.definition(), &towards)
            };
            assert_slope(gradient, &direction, loss, &format!("{extents:?} d{}", F::NAMES[index]));
        }
    }
}

fn check_all<F: Form>(seed: u64) {
    let mut random = Random::new(seed);
    for extents in extents() {
        check::<F>(&mut random, extents);
    }
}

#[test]
fn linear_attention_is_its_definition_and_its_gradients_are_finite_differences() {
    check_all::<Linear>(31);
}

#[test]
fn the_delta_rule_is_its_definition_and_its_gradients_are_finite_differences() {
    check_all::<Delta>(32);
}

#[test]
fn a_thousand_positions_are_the_definition_too() {
    let mut random = Random::new(33);
    check::<Linear>(&mut random, LONG);
    check::<Delta>(&mut random, LONG);
}

/// What bf16 can hold goes in, so that only the rounding of what comes out is left.
fn check_bf16<F: Form>(seed: u64) {
    let mut random = Random::new(seed);
    let extents = Extents {
        batch: 2,
        tokens: 150,
        key_heads: 1,
        heads: 2,
        key_width: 20,
        value_width: 24,
        levels: 8,
    };
    let mut case = F::new(&mut random, extents);
    let mut towards = random.signed(2 * 150 * 2 * 24);
    let round = |x: &mut Vec<f64>| x.iter_mut().for_each(|x| *x = f64::from(bf16::from_f64(*x)));
    case.inputs()[..3].iter_mut().for_each(round);
    round(&mut towards);
    let (exact, exact_gradients) = case.kernel::<f32>(&towards);
    let (rounded, gradients) = case.kernel::<bf16>(&towards);
    assert_close(&rounded, &f64s(&exact), 1.0 / 256.0, "out");
    for (index, (rounded, exact)) in gradients.iter().zip(&exact_gradients).enumerate() {
        assert_close(rounded, &f64s(exact), 1.0 / 256.0, F::NAMES[index]);
    }
}

#[test]
fn bf16_is_as_near_as_its_inputs_allow() {
    check_bf16::<Linear>(35);
    check_bf16::<Delta>(36);
}
