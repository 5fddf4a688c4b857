//! The training form of Kimi Delta Attention: forward against the definition; backward against the definition's reverse,
//! position by position in f64, which is itself held against finite differences.

use half::bf16;
use kernels::activation::softplus;
use kernels::cpu::{Element, Rows, serial};
use kernels::kda::definition;
use kernels::kda::train::decays;
use kernels::kda::train::{Gradients, Inputs, Shape, backward, forward};
use kernels::norm::l2_norm_definition;
use kernels::{cpu, delta_rule::train};

use crate::random::{
    Random, assert_close, assert_gradients, f32s, f64s, moved, poisoned, products,
};

/// Inputs of a batch in f64, which f32 holds: q, k, v, g, β, state, in the layout of the kernel.
#[derive(Clone)]
struct Case {
    shape: Shape,
    inputs: [Vec<f64>; 6],
    normalise: bool,
}

const NAMES: [&str; 6] = ["q", "k", "v", "g", "beta", "state"];
const SCALE: f64 = 0.375;

/// Of the logarithms of the decays.
#[derive(Debug, Clone, Copy)]
enum Decays {
    /// e^−0.5 to 1.
    Mild,
    /// Of the channels in turn: exactly 1, 10⁻⁶, 10⁻³⁰, so small that f32 has no number for it, mild, and any of
    /// these from position to position.
    Strong,
}

impl Decays {
    fn draw(self, random: &mut Random, shape: Shape) -> Vec<f64> {
        let n = shape.batch * shape.tokens * shape.heads * shape.key_width;
        let mild = random.uniform(n, -0.5, 0.0);
        let Self::Strong = self else { return mild };
        let kinds = [0.0, 1e-6_f64.ln(), 1e-30_f64.ln(), -1000.0];
        let drawn = random.uniform(n, 0.0, kinds.len() as f64);
        let each = mild.into_iter().zip(drawn).enumerate();
        each.map(|(at, (mild, drawn))| match at % shape.key_width % 6 {
            4 => mild,
            5 => kinds[drawn as usize],
            kind => kinds[kind],
        })
        .collect()
    }
}

fn shape([batch, tokens, heads]: [usize; 3], [key_width, value_width]: [usize; 2]) -> Shape {
    Shape { batch, tokens, heads, key_width, value_width }
}

fn shapes() -> Vec<Shape> {
    vec![
        shape([1, 1, 1], [3, 5]),
        shape([2, 15, 1], [8, 8]),
        shape([1, 16, 2], [16, 32]),
        shape([2, 17, 3], [20, 7]),
        shape([1, 63, 2], [1, 9]),
        shape([2, 65, 1], [33, 17]),
        shape([1, 100, 2], [64, 1]),
        shape([1, 130, 2], [64, 33]),
        shape([1, 1000, 1], [8, 8]),
    ]
}

/// x_i y_j into a matrix, with a factor.
fn add_outer(to: &mut [f64], factor: f64, x: &[f64], y: &[f64]) {
    for (row, x) in to.chunks_exact_mut(y.len()).zip(x) {
        row.iter_mut().zip(y).for_each(|(to, y)| *to += factor * x * y);
    }
}

/// M · x, or Mᵀ · x.
fn times(m: &[f64], x: &[f64], transposed: bool) -> Vec<f64> {
    if !transposed {
        return m.chunks_exact(x.len()).map(|row| products(row, x)).collect();
    }
    let mut sums = vec![0.0; m.len() / x.len()];
    for (row, x) in m.chunks_exact(sums.len()).zip(x) {
        sums.iter_mut().zip(row).for_each(|(sum, m)| *sum += x * m);
    }
    sums
}

/// Row `t` of x `[T, width]`.
fn row(x: &[f64], t: usize, width: usize) -> &[f64] {
    &x[t * width..][..width]
}

/// The gradients of one head's q, k, v, g, β and state by the reverse of [`definition`].
fn reverse(inputs: &[Vec<f64>; 6], d_out: &[f64], d_state: &[f64]) -> [Vec<f64>; 6] {
    let [q, k, v, g, beta, state] = inputs;
    let tokens = beta.len();
    let (k_width, v_width) = (k.len() / tokens, v.len() / tokens);
    // what is kept of each position: S decayed, the error v − Sᵀk, S after the write
    let mut kept = Vec::new();
    let mut s = state.clone();
    for (t, beta) in beta.iter().enumerate() {
        for (s, g) in s.chunks_exact_mut(v_width).zip(row(g, t, k_width)) {
            for s in s {
                *s *= g.exp();
            }
        }
        let (decayed, key) = (s.clone(), row(k, t, k_width));
        let read = times(&s, key, true);
        let error: Vec<f64> =
            row(v, t, v_width).iter().zip(&read).map(|(v, read)| v - read).collect();
        add_outer(&mut s, *beta, key, &error);
        kept.push((decayed, error, s.clone()));
    }
    let mut d = inputs.clone();
    let mut d_s = d_state.to_vec();
    for (t, (decayed, error, after)) in kept.iter().enumerate().rev() {
        let (query, key) = (row(q, t, k_width), row(k, t, k_width));
        let d_o = row(d_out, t, v_width);
        let keys = t * k_width..(t + 1) * k_width;
        let d_q = times(after, d_o, false);
        d[0][keys.clone()].iter_mut().zip(d_q).for_each(|(d, x)| *d = SCALE * x);
        add_outer(&mut d_s, SCALE, query, d_o);
        let d_error: Vec<f64> = times(&d_s, key, true).iter().map(|x| beta[t] * x).collect();
        d[4][t] = products(&d_error, error) / beta[t];
        d[2][t * v_width..][..v_width].copy_from_slice(&d_error);
        let (write, read) = (times(&d_s, error, false), times(decayed, &d_error, false));
        for ((d, write), read) in d[1][keys.clone()].iter_mut().zip(write).zip(read) {
            *d = beta[t] * write - read;
        }
        add_outer(&mut d_s, -1.0, key, &d_error);
        for (c, at) in keys.enumerate() {
            let values = c * v_width..(c + 1) * v_width;
            d[3][at] = products(&d_s[values.clone()], &decayed[values.clone()]);
            d_s[values].iter_mut().for_each(|x| *x *= g[at].exp());
        }
    }
    d[5] = d_s;
    d
}

impl Case {
    fn new(random: &mut Random, shape: Shape, decays: Decays, normalise: bool) -> Self {
        let Shape { batch, tokens, heads, key_width, value_width } = shape;
        let rows = batch * tokens * heads;
        let mut unit = || -> Vec<f64> {
            let x = random.signed(rows * key_width);
            x.chunks(key_width).flat_map(l2_norm_definition).collect()
        };
        let (q, k) = (unit(), unit());
        let inputs = [
            q,
            k,
            random.signed(rows * value_width),
            decays.draw(random, shape),
            random.uniform(rows, 0.1, if normalise { 1.0 } else { 2.0 }),
            random.signed(batch * heads * shape.state_len()),
        ];
        Self { shape, inputs: inputs.map(|x| f64s(&f32s(&x))), normalise }
    }

    /// The inputs of one head of one sequence, normalised where the kernel does it.
    fn head(&self, b: usize, h: usize) -> [Vec<f64>; 6] {
        let Shape { key_width, value_width, .. } = self.shape;
        let [q, k, v, g, beta, state] = &self.inputs;
        let (k_rows, v_rows) = (self.rows(b, h, key_width), self.rows(b, h, value_width));
        let [q, k, g] = [q, k, g].map(|x| gather(x, &k_rows));
        let unit = |x: Vec<f64>| {
            let rows = x.chunks(key_width);
            if self.normalise { rows.flat_map(l2_norm_definition).collect() } else { x }
        };
        let len = self.shape.state_len();
        let state = state[(b * self.shape.heads + h) * len..][..len].to_vec();
        [unit(q), unit(k), gather(v, &v_rows), g, gather(beta, &self.rows(b, h, 1)), state]
    }

    /// Where the rows of a head lie in `[B, T, H, width]`.
    fn rows(&self, b: usize, h: usize, width: usize) -> Vec<std::ops::Range<usize>> {
        let Shape { tokens, heads, .. } = self.shape;
        let at = |t: usize| ((b * tokens + t) * heads + h) * width;
        (0..tokens).map(|t| at(t)..at(t) + width).collect()
    }

    /// Output `[B, T, H, V]` and last states `[B, H, K, V]` by the definition.
    fn definition(&self) -> [Vec<f64>; 2] {
        let Shape { batch, tokens, heads, value_width, .. } = self.shape;
        let mut out = vec![f64::NAN; batch * tokens * heads * value_width];
        let mut states = Vec::new();
        for (b, h) in (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h))) {
            let [q, k, v, g, beta, mut state] = self.head(b, h);
            let o = definition(&q, &k, &v, &g, &beta, SCALE, &mut state);
            scatter(&o, &self.rows(b, h, value_width), &mut out);
            states.extend(state);
        }
        [out, states]
    }

    /// The gradients of all inputs by the reverse of the definition, of q and k as they come to the kernel.
    fn gradients(&self, towards: &[Vec<f64>; 2]) -> [Vec<f64>; 6] {
        let Shape { batch, heads, key_width, value_width, .. } = self.shape;
        let len = self.shape.state_len();
        let mut all = self.inputs.clone();
        for (b, h) in (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h))) {
            let d_out = gather(&towards[0], &self.rows(b, h, value_width));
            let state = (b * heads + h) * len..(b * heads + h + 1) * len;
            let d = reverse(&self.head(b, h), &d_out, &towards[1][state.clone()]);
            let widths = [key_width, key_width, value_width, key_width, 1];
            for ((all, d), width) in all.iter_mut().zip(&d).zip(widths) {
                scatter(d, &self.rows(b, h, width), all);
            }
            all[5][state].copy_from_slice(&d[5]);
        }
        if self.normalise {
            for (d, x) in all.iter_mut().zip(&self.inputs).take(2) {
                for (d, x) in d.chunks_exact_mut(key_width).zip(x.chunks_exact(key_width)) {
                    let factor = 1.0 / (products(x, x) + kernels::norm::L2_EPS).sqrt();
                    let along = products(d, x) * factor * factor;
                    d.iter_mut().zip(x).for_each(|(d, x)| *d = factor * (*d - along * x));
                }
            }
        }
        all
    }

    /// Output, last states, and with the gradients that arrive at them those of every input, by the kernels.
    fn kernel<E: Element>(
        &self,
        towards: &[Vec<f64>; 2],
        parallel: cpu::Parallel,
    ) -> [Vec<f32>; 8] {
        let Shape { heads, key_width, value_width, .. } = self.shape;
        let narrow = |x: &[f64]| x.iter().map(|x| E::narrow(*x as f32)).collect::<Vec<E>>();
        let wide = |x: &[E]| x.iter().map(|x| x.widen()).collect::<Vec<f32>>();
        let nans = |n: usize| vec![E::narrow(f32::NAN); n];
        let [q, k, v] = [0, 1, 2].map(|i| narrow(&self.inputs[i]));
        let [g, beta, mut state] = [3, 4, 5].map(|i| f32s(&self.inputs[i]));
        let inputs = Inputs {
            shape: self.shape,
            q: Rows::dense(&q, heads * key_width),
            k: Rows::dense(&k, heads * key_width),
            v: Rows::dense(&v, heads * value_width),
            g: Rows::dense(&g, heads * key_width),
            beta: &beta,
            scale: SCALE as f32,
            normalise: self.normalise,
        };
        let mut states = poisoned(self.shape.states_len());
        let mut out = nans(towards[0].len());
        forward(&inputs, &mut state, &mut states, &mut out, parallel);
        let d_out = narrow(&towards[0]);
        let mut d_state = f32s(&towards[1]);
        let (mut d_q, mut d_k, mut d_v) = (nans(q.len()), nans(k.len()), nans(v.len()));
        let (mut d_g, mut d_beta) = (poisoned(g.len()), poisoned(beta.len()));
        let mut to =
            Gradients { q: &mut d_q, k: &mut d_k, v: &mut d_v, g: &mut d_g, beta: &mut d_beta };
        let d_out = Rows::dense(&d_out, heads * value_width);
        backward(&inputs, &states, d_out, &mut d_state, &mut to, parallel);
        [wide(&out), state, wide(&d_q), wide(&d_k), wide(&d_v), d_g, d_beta, d_state]
    }

    fn towards(&self, random: &mut Random) -> [Vec<f64>; 2] {
        let Shape { batch, tokens, heads, value_width, .. } = self.shape;
        let lengths =
            [batch * tokens * heads * value_width, batch * heads * self.shape.state_len()];
        lengths.map(|n| f64s(&f32s(&random.signed(n))))
    }
}

fn gather(x: &[f64], rows: &[std::ops::Range<usize>]) -> Vec<f64> {
    rows.iter().flat_map(|row| x[row.clone()].to_vec()).collect()
}

fn scatter(x: &[f64], rows: &[std::ops::Range<usize>], to: &mut [f64]) {
    for (row, x) in rows.iter().zip(x.chunks_exact(rows[0].len())) {
        to[row.clone()].copy_from_slice(x);
    }
}

#[test]
fn the_reverse_of_the_definition_is_its_slope() {
    let mut random = Random::new(31);
    for (decays, normalise) in [(Decays::Mild, true), (Decays::Strong, false)] {
        let case = Case::new(&mut random, shape([2, 21, 2], [7, 5]), decays, normalise);
        let towards = case.towards(&mut random);
        let gradients = case.gradients(&towards);
        let step = 1e-5;
        for (index, gradient) in gradients.iter().enumerate() {
            let direction = random.signed(gradient.len());
            let loss = |step: f64| -> f64 {
                let mut case = case.clone();
                case.inputs[index] = moved(&case.inputs[index], &direction, step);
                case.definition().iter().zip(&towards).map(|(x, d)| products(x, d)).sum()
            };
            let expected = (loss(step) - loss(-step)) / (2.0 * step);
            let got = products(gradient, &direction);
            let size = products(gradient, gradient).sqrt();
            let error = (got - expected).abs();
            assert!(error < 1e-8 * (1.0 + size), "{decays:?} d{}: {got}, {expected}", NAMES[index]);
        }
    }
}

#[test]
fn forward_equals_the_definition_and_gradients_its_reverse() {
    let mut random = Random::new(32);
    let both = [(Decays::Mild, false), (Decays::Strong, true), (Decays::Strong, false)];
    for shape in shapes() {
        for (decays, normalise) in both {
            // of one channel a unit norm leaves the sign, whose gradient is rounding
            let normalise = normalise && shape.key_width > 1;
            let case = Case::new(&mut random, shape, decays, normalise);
            let what = format!("{shape:?} {decays:?}");
            let towards = case.towards(&mut random);
            let [out, state, gradients @ ..] = case.kernel::<f32>(&towards, &serial);
            let [expected, expected_state] = case.definition();
            assert_close(&out, &expected, 1e-5, &format!("{what} out"));
            assert_close(&state, &expected_state, 1e-5, &format!("{what} state"));
            let expected = case.gradients(&towards);
            for ((got, expected), name) in gradients.iter().zip(&expected).zip(NAMES) {
                assert_close(got, expected, 1e-5, &format!("{what} d{name}"));
            }
            // the gradients of strong decays are small, and right by their own measure
            let channels = shape.heads * shape.key_width;
            let channel = |x: &[f64], c: usize| -> Vec<f64> {
                x.iter().skip(c).step_by(channels).copied().collect()
            };
            for c in 0..channels {
                let expected: Vec<f64> = channel(&expected[3], c);
                let size = expected.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
                // below is what f32 has no numbers for
                if size > 1e-33 {
                    let scaled = |x: Vec<f64>| x.iter().map(|x| x / size).collect::<Vec<f64>>();
                    let got = f32s(&scaled(channel(&f64s(&gradients[3]), c)));
                    assert_close(&got, &scaled(expected), 2e-5, &format!("{what} dg of {c}"));
                }
            }
        }
    }
}

#[test]
fn with_equal_decays_it_trains_as_the_gated_delta_rule() {
    let mut random = Random::new(33);
    let shape = shape([2, 100, 2], [20, 24]);
    let Shape { batch, tokens, heads, key_width, value_width } = shape;
    let mut case = Case::new(&mut random, shape, Decays::Mild, true);
    let g = f32s(&random.uniform(batch * tokens * heads, -0.5, 0.0));
    case.inputs[3] = g.iter().flat_map(|g| vec![f64::from(*g); key_width]).collect();
    let towards = case.towards(&mut random);
    let mut got = case.kernel::<f32>(&towards, &serial);

    let [q, k, v, _, beta, mut state] = case.inputs.clone().map(|x| f32s(&x));
    let shape =
        train::Shape { batch, tokens, steps: 1, key_heads: heads, heads, key_width, value_width };
    let inputs = train::Inputs {
        shape,
        q: Rows::dense(&q, heads * key_width),
        k: Rows::dense(&k, heads * key_width),
        v: Rows::dense(&v, heads * value_width),
        g: &g,
        beta: &beta,
        scale: SCALE as f32,
        normalise: true,
    };
    let mut states = poisoned(shape.states_len());
    let mut out = poisoned(v.len());
    train::forward(&inputs, &mut state, &mut states, &mut out, &serial);
    let [d_out, mut d_state] = towards.map(|x| f32s(&x));
    let [mut d_q, mut d_k, mut d_v, mut d_g, mut d_beta] =
        [&q, &k, &v, &g, &beta].map(|x| poisoned(x.len()));
    let mut to =
        train::Gradients { q: &mut d_q, k: &mut d_k, v: &mut d_v, g: &mut d_g, beta: &mut d_beta };
    let d_out = Rows::dense(&d_out, heads * value_width);
    train::backward(&inputs, &states, d_out, &mut d_state, &mut to, &serial);

    got[5] = got[5].chunks_exact(key_width).map(|g| g.iter().sum()).collect();
    let expected = [out, state, d_q, d_k, d_v, d_g, d_beta, d_state];
    for (index, (got, expected)) in got.iter().zip(&expected).enumerate() {
        assert_close(got, &f64s(expected), 1e-5, &format!("result {index}"));
    }
}

#[test]
fn threads_change_nothing() {
    let mut random = Random::new(34);
    let case = Case::new(&mut random, shape([2, 70, 3], [9, 12]), Decays::Strong, true);
    let towards = case.towards(&mut random);
    let threads: cpu::Parallel = &|pieces, piece| {
        std::thread::scope(|scope| {
            (0..pieces).for_each(|i| drop(scope.spawn(move || piece(i))));
        });
    };
    assert_eq!(case.kernel::<f32>(&towards, threads), case.kernel::<f32>(&towards, &serial));
}

#[test]
fn bf16_is_as_near_as_its_inputs_allow() {
    let mut random = Random::new(35);
    let mut case = Case::new(&mut random, shape([2, 150, 2], [20, 24]), Decays::Mild, true);
    let mut towards = case.towards(&mut random);
    // what bf16 can hold, so that only the output's own rounding is left
    let round = |x: &mut Vec<f64>| x.iter_mut().for_each(|x| *x = f64::from(bf16::from_f64(*x)));
    case.inputs[..3].iter_mut().for_each(round);
    round(&mut towards[0]);
    let exact = case.kernel::<f32>(&towards, &serial);
    let rounded = case.kernel::<bf16>(&towards, &serial);
    for (index, (rounded, exact)) in rounded.iter().zip(&exact).enumerate() {
        assert_close(rounded, &f64s(exact), 1.0 / 256.0, &format!("result {index}"));
    }
}

#[test]
fn the_decays_and_their_gradients() {
    let mut random = Random::new(36);
    for [rows, heads, key_width] in [[1, 1, 1], [63, 3, 5], [100, 2, 33], [130, 1, 64]] {
        let width = heads * key_width;
        // x, b, A: some channels forget at once, some never
        let inputs = [
            random.uniform(rows * width, -20.0, 10.0),
            random.signed(width),
            random.uniform(heads, -2.0, 1.0),
        ];
        let definition = |[x, bias, a_log]: &[Vec<f64>; 3]| -> Vec<f64> {
            let each = x.iter().enumerate();
            each.map(|(i, x)| {
                let channel = i % width;
                -a_log[channel / key_width].exp() * softplus(x + bias[channel])
            })
            .collect()
        };
        let [x, bias, a_log] = inputs.each_ref().map(|x| f32s(x));
        let narrow = decays::Inputs { rows, x: Rows::dense(&x, width), bias: &bias, a_log: &a_log };
        let mut g = poisoned(rows * width);
        decays::forward(&narrow, &mut g, &serial);
        let what = format!("{rows} × {heads} × {key_width}");
        assert_close(&g, &definition(&inputs), 2e-6, &what);
        let towards = random.signed(rows * width);
        let d_g = f32s(&towards);
        let mut gradients = inputs.each_ref().map(|x| poisoned(x.len()));
        let [d_x, d_bias, d_a_log] = &mut gradients;
        let mut to = decays::Gradients { x: d_x, bias: d_bias, a_log: d_a_log };
        decays::backward(&narrow, Rows::dense(&d_g, width), &mut to, &serial);
        let loss = |inputs: &[Vec<f64>; 3]| products(&definition(inputs), &towards);
        assert_gradients(&mut random, &inputs, &gradients, loss, |index| {
            format!("{what}, d{}", ["x", "b", "A"][index])
        });
    }
}
