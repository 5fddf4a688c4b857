//! Identities that the definitions must keep among themselves.

use kernels::{attention, delta_rule, linear_attention, norm, rope, short_conv};

use crate::random::{Random, largest_difference};

const TOKENS: [usize; 5] = [1, 2, 63, 64, 100];
const K: usize = 7;
const V: usize = 5;

struct Head {
    q: Vec<f64>,
    k: Vec<f64>,
    v: Vec<f64>,
    g: Vec<f64>,
    beta: Vec<f64>,
    state: Vec<f64>,
}

impl Head {
    fn new(seed: u64, tokens: usize) -> Self {
        let mut random = Random::new(seed);
        let k = random.signed(tokens * K);
        Self {
            q: random.signed(tokens * K),
            k: k.chunks_exact(K).flat_map(norm::l2_norm_definition).collect(),
            v: random.signed(tokens * V),
            g: random.uniform(tokens, -2.0, 0.0),
            beta: random.uniform(tokens, 0.0, 1.0),
            state: random.signed(K * V),
        }
    }

    fn part(&self, from: usize, to: usize) -> Self {
        Self {
            q: self.q[from * K..to * K].to_vec(),
            k: self.k[from * K..to * K].to_vec(),
            v: self.v[from * V..to * V].to_vec(),
            g: self.g[from..to].to_vec(),
            beta: self.beta[from..to].to_vec(),
            state: self.state.clone(),
        }
    }

    fn delta_rule(&self, state: &mut [f64]) -> Vec<f64> {
        delta_rule::definition(&self.q, &self.k, &self.v, &self.g, &self.beta, 0.5, state)
    }

    fn linear_attention(&self, state: &mut [f64]) -> Vec<f64> {
        linear_attention::definition(&self.q, &self.k, &self.v, &self.g, 0.5, state)
    }
}

type Recurrence = fn(&Head, &mut [f64]) -> Vec<f64>;
const RECURRENCES: [Recurrence; 2] = [Head::delta_rule, Head::linear_attention];

#[test]
fn split_anywhere_and_carry_the_state_is_unsplit() {
    for recurrence in RECURRENCES {
        for tokens in TOKENS {
            let head = Head::new(1, tokens);
            let mut state = head.state.clone();
            let whole = recurrence(&head, &mut state);
            for at in [0, 1, tokens / 3, tokens] {
                let mut carried = head.state.clone();
                let mut parts = recurrence(&head.part(0, at), &mut carried);
                parts.extend(recurrence(&head.part(at, tokens), &mut carried));
                assert!(largest_difference(&parts, &whole) < 1e-12);
                assert!(largest_difference(&carried, &state) < 1e-12);
            }
        }
    }
}

#[test]
fn a_change_at_t_moves_nothing_before_t() {
    for recurrence in RECURRENCES {
        let head = Head::new(2, 63);
        let before = recurrence(&head, &mut head.state.clone());
        for t in [0, 1, 31, 62] {
            let mut changed = head.part(0, 63);
            changed.q[t * K] += 1.0;
            changed.k[t * K] += 1.0;
            changed.v[t * V] += 1.0;
            changed.g[t] -= 1.0;
            let after = recurrence(&changed, &mut head.state.clone());
            assert_eq!(after[..t * V], before[..t * V]);
            assert_ne!(after[t * V..], before[t * V..]);
        }
    }
}

/// DeltaNet as arXiv 2406.06484 writes it, S (I − β k kᵀ) + β v kᵀ with S of [V, K].
#[test]
fn the_gated_delta_rule_without_decay_is_deltanet() {
    let mut head = Head::new(3, 100);
    head.g.fill(0.0);
    let gated = head.delta_rule(&mut head.state.clone());
    let mut s = vec![0.0; V * K];
    for (i, j) in (0..K).flat_map(|i| (0..V).map(move |j| (i, j))) {
        s[j * K + i] = head.state[i * V + j];
    }
    for t in 0..100 {
        let k = &head.k[t * K..][..K];
        let old = s.clone();
        for j in 0..V {
            for i in 0..K {
                let erased: f64 = (0..K).map(|l| old[j * K + l] * k[l]).sum::<f64>() * k[i];
                s[j * K + i] = old[j * K + i] - head.beta[t] * erased
                    + head.beta[t] * head.v[t * V + j] * k[i];
            }
            let read: f64 = (0..K).map(|i| s[j * K + i] * head.q[t * K + i]).sum();
            assert!((0.5 * read - gated[t * V + j]).abs() < 1e-12);
        }
    }
}

/// With orthonormal keys, β = 1 and an empty state the delta rule
#[test]
fn the_delta_rule_on_orthogonal_keys_is_linear_attention() {
    let mut head = Head::new(4, K);
    head.beta.fill(1.0);
    head.k.fill(0.0);
    for t in 0..K {
        head.k[t * K + t] = 1.0;
    }
    let mut state = vec![0.0; K * V];
    let delta = head.delta_rule(&mut state);
    let mut state = vec![0.0; K * V];
    assert!(largest_difference(&delta, &head.linear_attention(&mut state)) < 1e-14);
}

/// The quadratic form: o_t = scale Σ_{s≤t} exp(Σ_{r=s+1..t} g_r) (q_t·k_s) v_s.
#[test]
fn linear_attention_is_its_quadratic_form() {
    for tokens in TOKENS {
        let head = Head::new(5, tokens);
        let recurrent = head.linear_attention(&mut [0.0; K * V]);
        let mut quadratic = vec![0.0; tokens * V];
        for t in 0..tokens {
            for s in 0..=t {
                let decay = head.g[s + 1..=t].iter().sum::<f64>().exp();
                let score: f64 = (0..K).map(|i| head.q[t * K + i] * head.k[s * K + i]).sum();
                for j in 0..V {
                    quadratic[t * V + j] += 0.5 * decay * score * head.v[s * V + j];
                }
            }
        }
        assert!(largest_difference(&recurrent, &quadratic) < 1e-12);
    }
}

#[test]
fn a_window_as_long_as_the_sequence_is_full_attention() {
    for tokens in TOKENS {
        let head = Head::new(6, tokens);
        let full = attention::definition(&head.q, &head.k, &head.v, tokens, None, 0.3);
        for window in [tokens, tokens + 1, 1000] {
            let windowed =
                attention::definition(&head.q, &head.k, &head.v, tokens, Some(window), 0.3);
            assert_eq!(windowed, full);
        }
        let own = attention::definition(&head.q, &head.k, &head.v, tokens, Some(1), 0.3);
        assert_eq!(own, head.v, "a window of one reads the current value");
    }
}

#[test]
fn a_window_forgets_what_is_outside_and_nothing_else() {
    let head = Head::new(7, 63);
    let attend = |v: &[f64]| attention::definition(&head.q, &head.k, v, 63, Some(8), 0.3);
    let before = attend(&head.v);
    let mut v = head.v.clone();
    v[20 * V] += 1.0;
    let after = attend(&v);
    for t in 0..63 {
        let moved = (after[t * V] - before[t * V]).abs() > 1e-9;
        assert_eq!(moved, (20..28).contains(&t), "position {t}");
    }
}

#[test]
fn rotated_products_depend_on_the_distance_only() {
    let mut random = Random::new(8);
    let (q, k) = (random.signed(8), random.signed(8));
    let product = |m: usize, n: usize| -> f64 {
        let (mut q, mut k) = (q.clone(), k.clone());
        rope::definition(&mut q, 8, m, 1e4);
        rope::definition(&mut k, 8, n, 1e4);
        q.iter().zip(&k).map(|(a, b)| a * b).sum()
    };
    assert!((product(5, 3) - product(105, 103)).abs() < 1e-12);
    assert!((product(5, 3) - product(5, 4)).abs() > 1e-3);
    let mut sequence = [q.clone(), q.clone()].concat();
    rope::definition(&mut sequence, 8, 0, 1e4);
    assert_eq!(sequence[..8], q, "position 0 does not rotate");
}

#[test]
fn the_convolution_split_anywhere_is_unsplit() {
    let (tokens, channels) = (19, 3);
    let mut random = Random::new(9);
    let (x, weight, bias) =
        (random.signed(tokens * channels), random.signed(channels * 4), random.signed(channels));
    let mut state = vec![0.0; 3 * channels];
    let whole = short_conv::definition(&x, &weight, Some(&bias), &mut state);
    assert_eq!(state, x[(tokens - 3) * channels..]);
    for at in 0..=tokens {
        let mut carried = vec![0.0; 3 * channels];
        let mut parts =
            short_conv::definition(&x[..at * channels], &weight, Some(&bias), &mut carried);
        parts.extend(short_conv::definition(
            &x[at * channels..],
            &weight,
            Some(&bias),
            &mut carried,
        ));
        assert_eq!(parts, whole);
        assert_eq!(carried, state);
    }
    let identity: Vec<f64> = (0..channels).flat_map(|_| [0.0, 0.0, 0.0, 1.0]).collect();
    assert_eq!(short_conv::definition(&x, &identity, None, &mut vec![0.0; 3 * channels]), x);
}

#[test]
fn norms_have_the_length_they_promise() {
    let mut random = Random::new(10);
    let (x, gate) = (random.signed(63), random.signed(63));
    let length = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>();
    assert!((length(&norm::l2_norm_definition(&x)) - 1.0).abs() < 1e-5);
    assert!((length(&norm::rms_norm_definition(&x, &[1.0; 63], 1e-5)) - 63.0).abs() < 1e-2);
    let before = norm::norm_then_gate_definition(&x, &gate, &[1.0; 63], 1e-5);
    let after = norm::gate_then_norm_definition(&x, &gate, &[1.0; 63], 1e-5);
    assert!((length(&after) - 63.0).abs() < 1e-1, "the gate is inside the norm");
    assert!((length(&before) - 63.0).abs() > 1.0, "the gate is outside the norm");
    let rows = norm::rms_norm_definition(&[x.clone(), gate.clone()].concat(), &[1.0; 63], 1e-5);
    assert_eq!(
        rows[63..],
        norm::rms_norm_definition(&gate, &[1.0; 63], 1e-5),
        "rows are independent"
    );
}
