//! The retrieval SNR where it is known.

use operators::ops::delta_rule::DeltaRule;
use operators::ops::kda::Kda;
use operators::ops::linear_attention::LinearAttention;
use operators::ops::log_linear::{self, Levels, LogLinear};
use operators::retrieval::{Asked, LARGEST_SNR, Retrieval};
use search::architecture::{Layer, Mixer as Gene};
use search::retrieval::of_independent_keys;
use search::wire::Memory;
use tch::{Kind, Tensor};

use crate::support::{self, Built, D, Random, assert_close, genes};

/// Unit keys in random directions: `[B, N, H, K]`.
fn unit(random: &mut Random, size: [i64; 4]) -> Tensor {
    let x = random.tensor(&size, 1.0);
    let norm = x.square().sum_dim_intlist(-1, true, x.kind()).sqrt();
    x / norm
}

fn delta_rule(k: Tensor, v: Tensor, beta: f64, log_decay: Option<Tensor>) -> DeltaRule {
    let (b, n, h, _) = k.size4().expect("[B, N, H, K]");
    let beta = Tensor::full([b, n, h], beta, (k.kind(), k.device()));
    DeltaRule { q: k.zeros_like(), k, v, log_decay, beta, scale: 1.0, normalise: false }
}

fn linear_attention(k: Tensor, v: Tensor, log_decay: Tensor) -> LinearAttention {
    LinearAttention { q: k.zeros_like(), k, v, log_decay, v_scale: None, skip: None }
}

#[test]
fn the_weights_on_the_values_are_what_the_state_gives() {
    let mut random = Random::new(1);
    for n in [1, 7, 100] {
        let k = unit(&mut random, [2, n, 3, 8]);
        let v = random.tensor(&[2, n, 3, 5], 1.0);
        let g = -random.tensor(&[2, n, 3], 1.0).abs();
        let rule = delta_rule(k.shallow_clone(), v.shallow_clone(), 0.7, Some(g.shallow_clone()));
        let Retrieval { weights, values } = rule.retrieval(Asked::Keys);
        let (_, state) = rule.recurrent(None);
        assert_close("delta rule", &weights.matmul(&values), &k.transpose(1, 2).matmul(&state));

        let keys = k.select(2, 0);
        let rule = linear_attention(keys.shallow_clone(), v, g);
        let Retrieval { weights, values } = rule.retrieval(Asked::Keys);
        let (_, state) = rule.recurrent(None);
        assert_close(
            "linear attention",
            &weights.matmul(&values),
            &keys.unsqueeze(1).matmul(&state),
        );
    }
}

/// arXiv 2505.19488: of linear attention with independent keys of width K, SNR⁻¹ is about pairs / K; the delta rule
/// erases along the key before it writes, and is better.
#[test]
fn independent_keys_crowd_linear_attention_and_less_so_the_delta_rule() {
    let mut random = Random::new(2);
    let width = 32;
    for n in [8, 32, 128] {
        let keys = unit(&mut random, [8, n, 1, width]);
        let v = random.tensor(&[8, n, 1, 16], 1.0);
        let g = Tensor::zeros([8, n, 1], (v.kind(), v.device()));
        let k = keys.select(2, 0);
        let linear = linear_attention(k, v.shallow_clone(), g);
        let linear = linear.retrieval(Asked::Keys).snr();
        let expected = width as f64 / (n - 1) as f64;
        assert!((linear / expected - 1.0).abs() < 0.2, "{n} pairs: {linear}, expected {expected}");
        let delta = delta_rule(keys, v, 1.0, None).retrieval(Asked::Keys).snr();
        assert!(n > width || delta > linear, "{n} pairs: delta {delta}, linear {linear}");
    }
}

#[test]
fn orthogonal_keys_are_read_back_exactly() {
    let k = Tensor::eye(8, (Kind::Double, tch::Device::Cpu)).reshape([1, 8, 1, 8]);
    let v = Random::new(3).tensor(&[1, 8, 1, 4], 1.0).to_kind(Kind::Double);
    let rule = delta_rule(k, v, 0.5, None);
    assert!(rule.retrieval(Asked::Keys).snr() >= LARGEST_SNR);
}

#[test]
fn every_mixer_answers_and_a_window_forgets() {
    for gene in genes() {
        let built = Built::new(gene, 4);
        let x = Random::new(5).tensor(&[2, 70, D.into()], 1.0);
        let Some(retrieval) = built.mixer.retrieval(&x, Asked::Keys) else {
            let has_no_answer = matches!(gene, Gene::GatedConv(_));
            assert!(has_no_answer, "{gene} reads nothing");
            continue;
        };
        assert!(retrieval.pairs() >= 70 && retrieval.pairs() % 70 == 0, "{gene}");
        let size = retrieval.weights.size();
        assert_eq!(size[2..], [retrieval.pairs(), retrieval.pairs()], "{gene}");
        let snr = retrieval.snr();
        assert!(snr.is_finite() && snr > 0.0, "{gene}: {snr}");
        let each = retrieval.snr_by_sequence();
        let (least, most) = (each[0].min(each[1]), each[0].max(each[1]));
        assert!(least <= snr && snr <= most, "{gene}: {snr} of {each:?}");
        let queries = built.mixer.retrieval(&x, Asked::Queries).expect("keys were asked, too");
        assert_eq!(queries.weights.size()[2], 70, "{gene}: a read of every position");
        let peak = queries.peak_snr();
        assert!(peak.is_finite() && peak > 0.0, "{gene}: {peak}");
        if let Gene::Attention(attention) = gene {
            let gone = attention.window.map_or(0, |window| (70 - i64::from(window)).max(0));
            let forgotten = retrieval.weights.narrow(-1, 0, gone);
            assert_eq!(i64::try_from(forgotten.count_nonzero(None::<i64>)).expect("one number"), 0);
            let ones = retrieval.weights.sum_dim_intlist(-1, false, Kind::Double);
            assert_close("softmax", &ones, &ones.ones_like());
        }
    }
}

/// What a mixer reads is its weights times what it stored: the reads of its queries are its own.
#[test]
fn the_reads_of_queries_are_what_the_rules_give() {
    let mut random = Random::new(6);
    for n in [1, 7, 64, 100] {
        let mut tensor = |size: &[i64]| random.tensor(size, 1.0);
        let (q, v) = (tensor(&[2, n, 3, 8]), tensor(&[2, n, 3, 5]));
        let g = -tensor(&[2, n, 3]).abs();
        let k = unit(&mut random, [2, n, 3, 8]);
        let own = |reads: &Retrieval| reads.weights.matmul(&reads.values).transpose(1, 2);

        let copies = [&k, &v, &g].map(Tensor::shallow_clone);
        let [k2, v2, g2] = copies;
        let rule = DeltaRule { q: q.shallow_clone(), ..delta_rule(k2, v2, 0.7, Some(g2)) };
        let reads = rule.retrieval(Asked::Queries);
        assert_close("delta rule", &own(&reads), &rule.chunked(None).0);

        let lambda = random.tensor(&[2, n, 3, 5], 1.0).abs();
        let weighed = log_linear::weigh(&reads, &lambda, Asked::Queries);
        let form = LogLinear::of_delta_rule(&rule, &lambda);
        assert_close("log-linear delta rule", &own(&weighed), &form.forward(None));

        let rule = LinearAttention {
            q: q.select(2, 0),
            ..linear_attention(k.select(2, 0), v.shallow_clone(), g.shallow_clone())
        };
        let reads = rule.retrieval(Asked::Queries);
        assert_close("linear attention", &own(&reads), &rule.chunked(None).0);

        let log_decay = -random.tensor(&[2, n, 3, 8], 1.0).abs();
        let beta = random.tensor(&[2, n, 3], 1.0).sigmoid();
        let rule = Kda { q, k, v, log_decay, beta, scale: 0.5, normalise: false };
        let reads = rule.retrieval(Asked::Queries);
        assert_close("Kimi Delta Attention", &own(&reads), &rule.chunked(None).0);
    }
}

/// Steps of a position store pairs of their own, and a position reads once.
#[test]
fn a_position_of_several_steps_reads_all_of_them() {
    let mut random = Random::new(7);
    let (k, v) = (unit(&mut random, [2, 60, 2, 6]), random.tensor(&[2, 60, 2, 4], 1.0));
    let rule = DeltaRule { q: random.tensor(&[2, 20, 2, 6], 1.0), ..delta_rule(k, v, 0.7, None) };
    let reads = rule.retrieval(Asked::Queries);
    assert_eq!(reads.weights.size(), [2, 2, 20, 60]);
    let own = reads.weights.matmul(&reads.values).transpose(1, 2);
    assert_close("three steps", &own, &rule.chunked(None).0);
}

/// A log-linear memory is read level by level, with λ of the position that reads.
#[test]
fn the_keys_of_a_log_linear_memory_are_read_with_its_last_lambda() {
    let mut random = Random::new(8);
    for n in [1, 5, 64, 65, 100] {
        let (k, v) = (unit(&mut random, [2, n, 2, 6]), random.tensor(&[2, n, 2, 4], 1.0));
        let g = -random.tensor(&[2, n, 2], 0.3).abs();
        let rule = delta_rule(k.shallow_clone(), v, 0.6, Some(g));
        let lambda = random.tensor(&[2, n, 2, 5], 1.0).abs();
        let reads = log_linear::weigh(&rule.retrieval(Asked::Keys), &lambda, Asked::Keys);
        let memory = Tensor::zeros([2, 2, 5, 6, 4], (Kind::Double, tch::Device::Cpu));
        let mut levels = Levels { memory, position: 0 };
        let _ = LogLinear::of_delta_rule(&rule, &lambda).recurrent(&mut levels);
        let of_last = lambda.select(1, n - 1).reshape([2, 2, 5, 1, 1]); // [B, H, L, 1, 1]
        let state = (levels.memory * of_last).sum_dim_intlist(2, false, Kind::Double);
        let expected = k.transpose(1, 2).matmul(&state);
        assert_close("log-linear", &reads.weights.matmul(&reads.values), &expected);
        let ones =
            log_linear::weigh(&rule.retrieval(Asked::Keys), &lambda.ones_like(), Asked::Keys);
        assert_close("λ = 1", &ones.weights, &rule.retrieval(Asked::Keys).weights);
    }
}

#[test]
fn attention_reads_as_it_attends() {
    let x = Random::new(9).tensor(&[2, 40, D.into()], 1.0);
    for text in ["attn(h=4,kv=2,k=6)", "swa(h=4,kv=2,k=6,w=7)", "attn(h=2,kv=2,k=6,qknorm,srope)"] {
        let built = Built::new(support::gene(text), 10);
        let reads = built.mixer.retrieval(&x, Asked::Queries).expect("attention is read by keys");
        let o = reads.weights.matmul(&reads.values).transpose(1, 2).flatten(2, 3); // [B, T, H·K]
        let output = built.variables.iter().find(|v| v.spec.name == "o.weight").expect("an output");
        assert_close(text, &o.matmul(&output.tensor.tr()), &built.mixer.forward(&x, None));
    }
}

/// arXiv 2505.19488: with the exponential kernel SNR falls as one over the pairs, too, but from e^(2√K − 2).
#[test]
fn softmax_over_independent_keys_reads_as_the_exponential_kernel() {
    let mut random = Random::new(11);
    for (width, n) in [(16, 64), (16, 256), (36, 256)] {
        let k = unit(&mut random, [16, n, 1, width]) * (width as f64).sqrt();
        let k = k.transpose(1, 2); // [B, 1, N, K]
        let scores = k.matmul(&k.transpose(-1, -2)) * (width as f64).powf(-0.5);
        let values = random.tensor(&[16, 1, n, 8], 1.0);
        let snr = Retrieval { weights: scores.exp(), values }.snr();
        let layer: Layer = format!("attn(h=1,kv=1,k={width})").parse().expect("a layer");
        let expected = of_independent_keys(&layer, Memory::Mixer, 64, n as u32).expect("a formula");
        assert!((snr / expected - 1.0).abs() < 0.25, "{width}, {n}: {snr}, expected {expected}");
    }
}

#[test]
fn a_network_of_independent_channels_reads_as_the_formula_says() {
    for (text, tolerance) in [("relu2(256)", 0.1), ("ffn(256)", 0.35)] {
        let layer: Layer = text.parse().expect("a layer");
        let store = tch::nn::VarStore::new(tch::Device::Cpu);
        let (ffn, variables) =
            operators::ffn::alone(&store.root(), 64, layer.ffn.expect("an FFN"), 3).expect(text);
        for variable in &variables {
            // rows so long that SiLU is nearly ReLU
            let _ = tch::no_grad(|| variable.tensor.shallow_clone().multiply_scalar_(2000.0));
        }
        let x = Random::new(12).tensor(&[2, 30, 64], 1.0).to_kind(Kind::Float);
        let keys = ffn.retrieval(&x, Asked::Keys).expect("a network is a memory");
        assert_eq!((keys.pairs(), keys.weights.size()[2]), (256, 256));
        let expected = of_independent_keys(&layer, Memory::Ffn, 64, 256).expect("a formula");
        let snr = keys.snr();
        assert!((snr / expected - 1.0).abs() < tolerance, "{text}: {snr}, expected {expected}");
        let inputs = ffn.retrieval(&x, Asked::Queries).expect("a network is a memory");
        let own = inputs.weights.matmul(&inputs.values).reshape([2, 30, 64]);
        let error = crate::support::error(&own, &ffn.forward(&x, None));
        assert!(error < 1e-5, "{text}: {error}");
    }
    let mixture: Layer = "moe(16,e=4,k=1)".parse().expect("a layer");
    let store = tch::nn::VarStore::new(tch::Device::Cpu);
    let (ffn, _) = operators::ffn::alone(&store.root(), 8, mixture.ffn.expect("an FFN"), 3)
        .expect("it can be built");
    let x = Tensor::zeros([1, 2, 8], (Kind::Float, tch::Device::Cpu));
    assert!(ffn.retrieval(&x, Asked::Keys).is_none());
}

#[test]
fn a_query_is_taken_to_ask_for_what_it_reads_most_of() {
    let weights = Tensor::from_slice(&[0.5, 0.1, 0.0, 0.1, 0.2, -1.0]).reshape([1, 1, 2, 3]);
    let values = Tensor::from_slice(&[2.0, 0.0, 0.0, 4.0, 1.0, 0.0]).reshape([1, 1, 3, 2]);
    let reads = Retrieval { weights, values };
    // (1, 0) beside (0, 0.4), then (−1, 0) beside (0.2, 0.8)
    assert!((reads.between(0, 1).peak_snr() - 1.0 / 0.16).abs() < 1e-9);
    assert!((reads.peak_snr() - 2.0 / (0.16 + 0.68)).abs() < 1e-9);
}
