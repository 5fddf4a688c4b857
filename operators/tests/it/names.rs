//! The model's variables against the one list of tensors.

use operators::Model;
use search::Architecture;
use search::architecture::{
    Attention, Beside, Delta, Experts, Ffn, FfnKind, GatedConv, Kda, Layer, Mamba2, Mixer,
    Parallel, PhaseForms, QkNorm, Temperature,
};
use search::tensors::{parameters, tensors};
use tch::{Device, nn};

use crate::support::Random;

/// What of Selective RoPE is not plain, where it is there.
fn random_phases(turns: bool, upto: &mut impl FnMut(u64) -> u32) -> PhaseForms {
    let temperatures =
        [Temperature::Rope, Temperature::Rfa, Temperature::Ones, Temperature::Learnt];
    let temperature = temperatures[upto(4) as usize - 1];
    let [gate, bias, full_rank] = std::array::from_fn(|_| upto(2) == 1);
    if turns { PhaseForms { gate, bias, full_rank, temperature } } else { PhaseForms::default() }
}

fn random_delta(upto: &mut impl FnMut(u64) -> u32) -> Delta {
    let mut coin = || upto(2) == 1;
    let [levels, decay, steps] = [coin(), coin(), coin()];
    let [output_gate, negative_eigenvalues, short_conv, selective_rope] =
        [coin(), coin(), coin(), coin()];
    Delta {
        heads: upto(4),
        key_width: 2 + 2 * upto(10),
        value_width: upto(20),
        value_groups: upto(3),
        decay: decay || levels,
        steps: (steps && !levels).then(|| 1 + upto(4)),
        levels: levels.then(|| 1 + upto(16)),
        output_gate,
        negative_eigenvalues,
        short_conv,
        selective_rope,
        phases: random_phases(selective_rope, upto),
    }
}

fn random_mixer(random: &mut Random) -> Mixer {
    let mut upto = |n: u64| 1 + random.below(n) as u32;
    match upto(9) {
        1 | 2 => {
            let kv_heads = upto(3);
            let shape = Attention::full(kv_heads * upto(3), kv_heads, 8 * upto(4));
            let selective_rope = upto(2) == 1;
            Mixer::Attention(Attention {
                window: (upto(2) == 1).then(|| upto(100)),
                qk_norm: [QkNorm::None, QkNorm::Head, QkNorm::Whole][upto(3) as usize - 1],
                selective_rope,
                phases: random_phases(selective_rope, &mut upto),
                output_gate: upto(2) == 1,
                norm_after: !selective_rope && upto(2) == 1,
                rotary_percent: if selective_rope { 100 } else { 25 * upto(4) },
                ..shape
            })
        }
        3..=5 => Mixer::Delta(random_delta(&mut upto)),
        9 => Mixer::Parallel(Parallel {
            kv_heads: 2,
            heads: 2 * upto(3),
            head_width: 4 * upto(4),
            window: upto(30) - 1,
            qk_norm: [QkNorm::None, QkNorm::Head, QkNorm::Whole][upto(3) as usize - 1],
            rotary_percent: 50 * upto(2),
            beside: [Beside::M2, Beside::Gdn, Beside::Dn][upto(3) as usize - 1],
            beside_heads: upto(4),
            beside_key_width: upto(20),
            beside_value_width: upto(20),
            branch_norms: upto(2) == 1,
        }),
        7 => Mixer::Kda(Kda { heads: upto(4), key_width: upto(20), value_width: upto(20) }),
        6 => Mixer::GatedConv(GatedConv { channels: upto(30), kernel_width: 1 + upto(7) }),
        _ => Mixer::Mamba2(Mamba2 {
            heads: upto(4),
            head_width: upto(20),
            state_width: upto(20),
            levels: (upto(2) == 1).then(|| 1 + upto(16)),
        }),
    }
}

fn random_architecture(random: &mut Random) -> Architecture {
    let layers = (0..=random.below(5))
        .map(|_| {
            let mixer = (random.below(5) > 0).then(|| random_mixer(random));
            let ffn = (mixer.is_none() || random.below(2) == 0).then(|| {
                let width = 1 + random.below(50) as u32;
                let experts = 2 + random.below(6) as u32;
                let per_token = 1 + random.below(experts.into()) as u32;
                let shared = random.below(3) as u32;
                let mixture = FfnKind::Moe(Experts { experts, per_token, shared });
                let kind = [FfnKind::SwiGlu, FfnKind::Relu2, mixture][random.below(3) as usize];
                Ffn { width, kind }
            });
            Layer { mixer, ffn }
        })
        .collect();
    let (d, vocab) = (1 + random.below(30) as u32, 1 + random.below(40) as u32);
    let meta_tokens = if random.below(2) == 0 { 0 } else { random.below(9) as u32 };
    Architecture::new(d, vocab, random.below(2) == 0, layers)
        .and_then(|stack| stack.with_meta_tokens(meta_tokens))
        .expect("every drawn architecture is valid")
}

#[test]
fn every_variable_is_on_the_list_and_every_tensor_of_it_is_built() {
    let mut random = Random::new(21);
    for _ in 0..200 {
        let architecture = random_architecture(&mut random);
        let store = nn::VarStore::new(Device::Cpu);
        let model = Model::new(&store.root(), &architecture, 0).expect("it builds");
        let mut built: Vec<(String, Vec<u64>)> = store
            .variables()
            .into_iter()
            .map(|(name, tensor)| (name, tensor.size().iter().map(|&n| n as u64).collect()))
            .collect();
        let mut listed: Vec<(String, Vec<u64>)> =
            tensors(&architecture).into_iter().map(|spec| (spec.name, spec.shape)).collect();
        built.sort();
        listed.sort();
        assert_eq!(built, listed, "{architecture}");
        let elements: usize = store.variables().values().map(tch::Tensor::numel).sum();
        assert_eq!(elements as u64, parameters(&architecture), "{architecture}");
        assert_eq!(model.variables().len(), listed.len());
    }
}
