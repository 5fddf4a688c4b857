//! The retrieval SNR where it is known.

use operators::ops::delta_rule::DeltaRule;
use operators::ops::linear_attention::LinearAttention;
use operators::retrieval::{LARGEST_SNR, Retrieval};
use search::architecture::Mixer as Gene;
use tch::{Kind, Tensor};

use crate::support::{Built, D, Random, assert_close, genes};

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
        let Retrieval { weights, values } = rule.retrieval();
        let (_, state) = rule.recurrent(None);
        assert_close("delta rule", &weights.matmul(&values), &k.transpose(1, 2).matmul(&state));

        let keys = k.select(2, 0);
        let rule = linear_attention(keys.shallow_clone(), v, g);
        let Retrieval { weights, values } = rule.retrieval();
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
        let linear = linear.retrieval().snr();
        let expected = width as f64 / (n - 1) as f64;
        assert!((linear / expected - 1.0).abs() < 0.2, "{n} pairs: {linear}, expected {expected}");
        let delta = delta_rule(keys, v, 1.0, None).retrieval().snr();
        assert!(n > width || delta > linear, "{n} pairs: delta {delta}, linear {linear}");
    }
}

#[test]
fn orthogonal_keys_are_read_back_exactly() {
    let k = Tensor::eye(8, (Kind::Double, tch::Device::Cpu)).reshape([1, 8, 1, 8]);
    let v = Random::new(3).tensor(&[1, 8, 1, 4], 1.0).to_kind(Kind::Double);
    let rule = delta_rule(k, v, 0.5, None);
    assert!(rule.retrieval().snr() >= LARGEST_SNR);
}

#[test]
fn every_mixer_answers_and_a_window_forgets() {
    for gene in genes() {
        let built = Built::new(gene, 4);
        let x = Random::new(5).tensor(&[2, 70, D.into()], 1.0);
        let Some(retrieval) = built.mixer.retrieval(&x) else {
            let has_no_answer = matches!(gene, Gene::GatedConv(_) | Gene::Parallel(_));
            assert!(has_no_answer, "{gene} reads nothing");
            continue;
        };
        assert!(retrieval.pairs() >= 70 && retrieval.pairs() % 70 == 0, "{gene}");
        let size = retrieval.weights.size();
        assert_eq!(size[2..], [retrieval.pairs(), retrieval.pairs()], "{gene}");
        let snr = retrieval.snr();
        assert!(snr.is_finite() && snr > 0.0, "{gene}: {snr}");
        if let Gene::Attention(attention) = gene {
            let gone = attention.window.map_or(0, |window| (70 - i64::from(window)).max(0));
            let forgotten = retrieval.weights.narrow(-1, 0, gone);
            assert_eq!(i64::try_from(forgotten.count_nonzero(None::<i64>)).expect("one number"), 0);
            let ones = retrieval.weights.sum_dim_intlist(-1, false, Kind::Double);
            assert_close("softmax", &ones, &ones.ones_like());
        }
    }
}
