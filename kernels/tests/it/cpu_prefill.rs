//! Recurrences and attention over prompts against their definitions, at every level of this machine, in f32 and bf16.

use kernels::cpu::{Arithmetic, Level, Precision, Rows, serial};
use kernels::{attention, delta_rule, linear_attention, norm};

use crate::random::{Random, assert_close, f32s, f64s, poisoned};

/// Key heads, value heads, K, V, steps.
const SHAPES: [[usize; 5]; 6] = [
    [1, 1, 1, 1, 1],
    [1, 3, 7, 5, 1],
    [3, 3, 64, 128, 1],
    [2, 4, 33, 65, 1],
    [1, 2, 16, 16, 2],
    [2, 2, 9, 40, 3],
];
const TOKENS: [usize; 6] = [1, 5, 63, 64, 65, 200];
/// More chunks than are taken at once.
const LONG: usize = 1100;

/// What a recurrence reads, exact in f32. Rows of q, k and v are columns of wider ones.
struct Case {
    shape: delta_rule::train::Shape,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    g: Vec<f32>,
    beta: Vec<f32>,
    skip: Vec<f32>,
    state: Vec<f32>,
}

const GAP: usize = 3;

impl Case {
    fn new(
        [key_heads, heads, key_width, value_width, steps]: [usize; 5],
        [batch, tokens]: [usize; 2],
        strongest: f64,
    ) -> Self {
        let mut random = Random::new((tokens * heads + key_width) as u64);
        let shape = delta_rule::train::Shape {
            batch,
            tokens,
            steps,
            key_heads,
            heads,
            key_width,
            value_width,
        };
        let rows = batch * tokens;
        // Rows of keys of unit norm, and what lies between them.
        let mut keys = |rows: usize| -> Vec<f32> {
            (0..rows)
                .flat_map(|_| {
                    let row = random.signed(key_heads * key_width);
                    let heads = row.chunks_exact(key_width).flat_map(norm::l2_norm_definition);
                    let row: Vec<f64> = heads.chain([f64::NAN; GAP]).collect();
                    f32s(&row)
                })
                .collect()
        };
        let (q, k) = (keys(rows), keys(rows * steps));
        Self {
            shape,
            q,
            k,
            v: f32s(&random.signed(rows * steps * (heads * value_width + GAP))),
            g: f32s(&random.uniform(rows * heads, strongest, 0.0)),
            beta: f32s(&random.uniform(rows * steps * heads, 0.0, 1.0)),
            skip: f32s(&random.signed(heads)),
            state: f32s(&random.signed(batch * heads * key_width * value_width)),
        }
    }

    fn keys(&self) -> usize {
        self.shape.key_heads * self.shape.key_width
    }

    fn values(&self) -> usize {
        self.shape.heads * self.shape.value_width
    }

    fn rows<'a>(&self, x: &'a [f32], steps: usize, width: usize) -> Rows<'a, f32> {
        Rows::new(x, self.shape.batch * self.shape.tokens * steps, width, width + GAP)
    }

    /// Calls a form of the rule for every head of every sequence, with a row for each step and the state: what it
    /// returns for the last step of each position stands in its place in `[B, T, H, V]`, then all states.
    fn each_head(
        &self,
        mut of_head: impl FnMut(&HeadInputs, &mut Vec<f64>) -> Vec<f64>,
    ) -> (Vec<f64>, Vec<f64>) {
        let delta_rule::train::Shape {
            batch,
            tokens,
            steps,
            key_heads,
            heads,
            key_width,
            value_width,
        } = self.shape;
        let mut out = vec![f64::NAN; batch * tokens * heads * value_width];
        let mut states = Vec::new();
        for b in 0..batch {
            for head in 0..heads {
                let key_head = head / (heads / key_heads);
                let part = |x: &[f32], row: usize, stride: usize, from: usize, width: usize| {
                    f64s(&x[row * (stride + GAP) + from..][..width])
                };
                let (keys, values) = (self.keys(), self.values());
                let mut inputs = HeadInputs::default();
                for t in b * tokens..(b + 1) * tokens {
                    for row in t * steps..(t + 1) * steps {
                        inputs.k.push(part(&self.k, row, keys, key_head * key_width, key_width));
                        inputs.v.push(part(&self.v, row, values, head * value_width, value_width));
                        inputs.beta.push(f64::from(self.beta[row * heads + head]));
                        let g = f64::from(self.g[t * heads + head]);
                        inputs.g.push(if row == t * steps { g } else { 0.0 });
                        // only the last step of a position is read
                        inputs.q.push(part(&self.q, t, keys, key_head * key_width, key_width));
                    }
                }
                inputs.skip = f64::from(self.skip[head]);
                let len = key_width * value_width;
                let mut state = f64s(&self.state[(b * heads + head) * len..][..len]);
                let o = of_head(&inputs, &mut state);
                states.extend(state);
                for (t, o) in o.chunks_exact(steps * value_width).enumerate() {
                    let at = ((b * tokens + t) * heads + head) * value_width;
                    out[at..at + value_width].copy_from_slice(&o[(steps - 1) * value_width..]);
                }
            }
        }
        (out, states)
    }

    fn delta_rule(&self, arithmetic: Arithmetic) -> (Vec<f32>, Vec<f32>) {
        let steps = self.shape.steps;
        let inputs = delta_rule::train::Inputs {
            shape: self.shape,
            q: self.rows(&self.q, 1, self.keys()),
            k: self.rows(&self.k, steps, self.keys()),
            v: self.rows(&self.v, steps, self.values()),
            g: &self.g,
            beta: &self.beta,
            scale: SCALE as f32,
            normalise: false,
        };
        let (mut state, mut out) = (self.state.clone(), self.out());
        delta_rule::prefill::prefill(arithmetic, &inputs, &mut state, &mut out, &serial);
        (out, state)
    }

    /// With one key head, as the heads share q and k here.
    fn linear_attention(&self, arithmetic: Arithmetic) -> (Vec<f32>, Vec<f32>) {
        let delta_rule::train::Shape { batch, tokens, heads, key_width, value_width, .. } =
            self.shape;
        let inputs = linear_attention::train::Inputs {
            shape: linear_attention::train::Shape { batch, tokens, heads, key_width, value_width },
            q: self.rows(&self.q, 1, self.keys()),
            k: self.rows(&self.k, 1, self.keys()),
            v: self.rows(&self.v, 1, self.values()),
            v_scale: &self.beta,
            g: &self.g,
            skip: &self.skip,
        };
        let (mut state, mut out) = (self.state.clone(), self.out());
        linear_attention::prefill::prefill(arithmetic, &inputs, &mut state, &mut out, &serial);
        (out, state)
    }

    fn out(&self) -> Vec<f32> {
        poisoned(self.shape.batch * self.shape.tokens * self.values())
    }
}

const SCALE: f64 = 0.5;

/// Of one head, a row for each step.
#[derive(Default)]
struct HeadInputs {
    q: Vec<Vec<f64>>,
    k: Vec<Vec<f64>>,
    v: Vec<Vec<f64>>,
    g: Vec<f64>,
    beta: Vec<f64>,
    skip: f64,
}

impl HeadInputs {
    fn delta_rule(&self, state: &mut [f64]) -> Vec<f64> {
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|rows| rows.concat());
        delta_rule::definition(&q, &k, &v, &self.g, &self.beta, SCALE, state)
    }

    fn linear_attention(&self, state: &mut [f64]) -> Vec<f64> {
        let scaled = self.v.iter().zip(&self.beta);
        let v: Vec<f64> = scaled.flat_map(|(v, beta)| v.iter().map(move |v| v * beta)).collect();
        let (q, k) = (self.q.concat(), self.k.concat());
        let o = linear_attention::definition(&q, &k, &v, &self.g, 1.0, state);
        o.iter().zip(self.v.concat()).map(|(o, v)| o + self.skip * v).collect()
    }

    /// Step by step as anyone would write it with bf16: what is multiplied is rounded first, the state is kept.
    fn plain_bf16(&self, state: &mut [f64], erases: bool) -> Vec<f64> {
        let width = self.v[0].len();
        let mut out = Vec::new();
        for t in 0..self.g.len() {
            let read = |state: &[f64], row: &[f64]| -> Vec<f64> {
                (0..width)
                    .map(|j| {
                        row.iter()
                            .enumerate()
                            .map(|(i, x)| bf16(*x) * bf16(state[i * width + j]))
                            .sum()
                    })
                    .collect()
            };
            for x in state.iter_mut() {
                *x *= self.g[t].exp();
            }
            let found = if erases { read(state, &self.k[t]) } else { vec![0.0; width] };
            for (i, k) in self.k[t].iter().enumerate() {
                for (j, v) in self.v[t].iter().enumerate() {
                    state[i * width + j] += bf16(*k) * bf16(self.beta[t] * (v - found[j]));
                }
            }
            let (scale, skip) = if erases { (SCALE, 0.0) } else { (1.0, self.skip) };
            let found = read(state, &self.q[t]);
            out.extend(found.iter().zip(&self.v[t]).map(|(o, v)| scale * o + skip * v));
        }
        out
    }
}

fn bf16(x: f64) -> f64 {
    f64::from(half::bf16::from_f64(x))
}

fn cases() -> impl Iterator<Item = (Case, String, f64)> {
    let all = SHAPES.into_iter().flat_map(|shape| {
        let short = TOKENS.into_iter().map(move |tokens| [2, tokens]);
        let long = [[1, LONG]].into_iter().filter(move |_| shape[2] < 10);
        short.chain(long).map(move |extent| (shape, extent))
    });
    all.flat_map(|(shape, extent)| {
        [-0.5, -50.0].map(|strongest| {
            let what = format!("{shape:?}, B and T {extent:?}, g {strongest}");
            (Case::new(shape, extent, strongest), what, strongest)
        })
    })
}

/// f32 rounding, and that of log-decays summed over a chunk of 64, on average half the strongest.
fn tolerance(strongest: f64) -> f64 {
    3e-5 + f64::from(f32::EPSILON) * 32.0 * strongest.abs()
}

#[test]
fn the_delta_rule_over_prompts_is_the_definition() {
    for (case, what, strongest) in cases() {
        let (expected, states) = case.each_head(|head, state| head.delta_rule(state));
        for level in Level::available() {
            let (out, state) = case.delta_rule(Arithmetic { level, precision: Precision::F32 });
            let what = format!("{what}, {}", level.name());
            assert_close(&out, &expected, tolerance(strongest), &what);
            assert_close(&state, &states, tolerance(strongest), &what);
        }
    }
}

#[test]
fn linear_attention_over_prompts_is_the_definition() {
    for (case, what, strongest) in cases() {
        if case.shape.key_heads > 1 || case.shape.steps > 1 {
            continue;
        }
        let (expected, states) = case.each_head(|head, state| head.linear_attention(state));
        for level in Level::available() {
            let (out, state) =
                case.linear_attention(Arithmetic { level, precision: Precision::F32 });
            let what = format!("{what}, {}", level.name());
            assert_close(&out, &expected, tolerance(strongest), &what);
            assert_close(&state, &states, tolerance(strongest), &what);
        }
    }
}

/// Query heads, key heads, K, V.
const ATTENTION: [[usize; 4]; 3] = [[1, 1, 2, 3], [4, 2, 64, 64], [3, 1, 31, 100]];
const WINDOWS: [Option<usize>; 5] = [None, Some(1), Some(7), Some(64), Some(1000)];

/// Attention of the last `tokens` of some positions.
struct Attention {
    /// `[T, H·K]` with gaps, `[H_kv, S, K]`, `[H_kv, S, V]`.
    inputs: [Vec<f32>; 3],
    sizes: [usize; 4],
    tokens: usize,
    positions: usize,
    window: Option<usize>,
}

impl Attention {
    fn all() -> impl Iterator<Item = Self> {
        let extents = [(1, 1), (63, 63), (100, 300), (1, 200), (300, 300)];
        let cases = ATTENTION.into_iter().flat_map(move |sizes| extents.map(|at| (sizes, at)));
        cases.flat_map(
            |(sizes @ [heads, kv_heads, key_width, value_width], (tokens, positions))| {
                let mut random = Random::new(positions as u64);
                let inputs = [
                    random.signed(tokens * (heads * key_width + GAP)),
                    random.signed(kv_heads * positions * key_width),
                    random.signed(kv_heads * positions * value_width),
                ];
                let inputs = inputs.map(|x| f32s(&x));
                WINDOWS.map(|window| {
                    let inputs = inputs.clone();
                    Self { inputs, sizes, tokens, positions, window }
                })
            },
        )
    }

    /// Position by position; what is read passes through `round`.
    fn definition(&self, round: fn(f64) -> f64) -> Vec<f64> {
        let [heads, kv_heads, key_width, value_width] = self.sizes;
        let [q, keys, values] = &self.inputs;
        let mut out = Vec::new();
        for t in 0..self.tokens {
            let position = self.positions - self.tokens + t;
            let from = self.window.map_or(0, |window| (position + 1).saturating_sub(window));
            for head in 0..heads {
                let row = &q[t * (heads * key_width + GAP) + head * key_width..][..key_width];
                let q: Vec<f64> =
                    row.iter().map(|x| round(ATTENTION_SCALE * f64::from(*x))).collect();
                let kv = head / (heads / kv_heads) * self.positions;
                let seen = |x: &[f32], width: usize| -> Vec<f64> {
                    let rows = &x[(kv + from) * width..(kv + position + 1) * width];
                    rows.iter().map(|x| round(f64::from(*x))).collect()
                };
                let (k, v) = (seen(keys, key_width), seen(values, value_width));
                out.extend(attention::definition_of_row(&q, &k, &v, 1.0));
            }
        }
        out
    }

    fn prefill(&self, arithmetic: Arithmetic) -> Vec<f32> {
        let [heads, kv_heads, key_width, value_width] = self.sizes;
        let [q, keys, values] = &self.inputs;
        let width = heads * key_width;
        let inputs = attention::prefill::Inputs {
            q: Rows::new(q, self.tokens, width, width + GAP),
            keys,
            values,
            tokens: self.tokens,
            heads,
            kv_heads,
            key_width,
            value_width,
            window: self.window,
            scale: ATTENTION_SCALE as f32,
        };
        let mut out = poisoned(self.tokens * heads * value_width);
        attention::prefill::prefill(arithmetic, &inputs, &mut out, &serial);
        out
    }
}

/// Scores up to 6 or so, so that the softmax is far from a mean.
const ATTENTION_SCALE: f64 = 1.5;

#[test]
fn attention_over_prompts_is_the_definition() {
    let (mut ours, mut plain) = (0.0, 0.0);
    for case in Attention::all() {
        let what =
            format!("{:?}, {} of {}, {:?}", case.sizes, case.tokens, case.positions, case.window);
        let expected = case.definition(|x| x);
        let of_plain = distance(case.definition(bf16).into_iter(), &expected);
        for level in Level::available() {
            let what = format!("{what}, {}", level.name());
            let out = case.prefill(Arithmetic { level, precision: Precision::F32 });
            assert_close(&out, &expected, 1e-5, &what);
            let out = case.prefill(Arithmetic { level, precision: Precision::Bf16 });
            let of_ours = distance(out.iter().map(|x| f64::from(*x)), &expected);
            assert!(of_ours < 0.03, "{what}: {of_ours:.1e} in bf16");
            ours += of_ours;
            plain += of_plain;
        }
    }
    assert!(ours > 0.0 && ours <= 2.0 * plain, "{:.2} times a plain form's", ours / plain);
}

/// The root of the mean square of the differences, of what is expected.
fn distance(got: impl Iterator<Item = f64>, expected: &[f64]) -> f64 {
    let square = |x: f64| x * x;
    let size: f64 = expected.iter().map(|x| square(*x)).sum();
    let off: f64 = got.zip(expected).map(|(a, b)| square(a - b)).sum();
    (off / size).sqrt()
}

#[test]
fn in_bf16_they_are_as_close_as_a_plain_form() {
    let (mut ours, mut plain) = ([0.0; 2], [0.0; 2]);
    for (case, what, _) in cases() {
        let is_shared = case.shape.key_heads == 1 && case.shape.steps == 1;
        for (family, erases) in [(0, true), (1, false)] {
            if family == 1 && !is_shared {
                continue;
            }
            let (expected, _) = case.each_head(|head, state| {
                if erases { head.delta_rule(state) } else { head.linear_attention(state) }
            });
            let (rounded, _) = case.each_head(|head, state| head.plain_bf16(state, erases));
            for level in Level::available() {
                let arithmetic = Arithmetic { level, precision: Precision::Bf16 };
                let (out, _) = if erases {
                    case.delta_rule(arithmetic)
                } else {
                    case.linear_attention(arithmetic)
                };
                let of_ours = distance(out.iter().map(|x| f64::from(*x)), &expected);
                let of_plain = distance(rounded.iter().copied(), &expected);
                assert!(of_ours < 0.02, "{what}, {}: {of_ours:.1e}", level.name());
                ours[family] += of_ours;
                plain[family] += of_plain;
            }
        }
    }
    for (ours, plain) in ours.into_iter().zip(plain) {
        assert!(ours > 0.0 && ours <= 2.0 * plain, "{:.2} times the plain form's", ours / plain);
    }
}
