//! The reference stacks, against the lists of their sources.

use search::Architecture;
use search::architecture::{Attention, Mixer, MixerKind};
use search::cost;
use search::latency::{Dtype, Phase};
use search::references::{EqualLatency, Reference, ReferenceShape};
use search::space::{Space, SpaceConfig};

/// The operators of a stack as Nemotron-Flash writes them: d DeltaNet, g Gated DeltaNet, m Mamba2 (G, M log-linear), a attention,
/// s sliding-window attention, c gated short convolution, f FFN.
fn operators(architecture: &Architecture) -> String {
    let mut text = String::new();
    for layer in architecture.layers() {
        text.extend(layer.mixer.map(|mixer| match mixer.kind() {
            MixerKind::FullAttention => 'a',
            MixerKind::SlidingWindow => 's',
            MixerKind::DeltaNet => 'd',
            MixerKind::GatedDeltaNet => 'g',
            MixerKind::LogLinearGatedDeltaNet => 'G',
            MixerKind::Mamba2 => 'm',
            MixerKind::LogLinearMamba2 => 'M',
            MixerKind::GatedConv => 'c',
            _ => '?', // no reference stack has it
        }));
        if layer.ffn.is_some() {
            text.push('f');
        }
    }
    text
}

fn stack(reference: Reference, layers: u32) -> String {
    operators(
        &reference.build(&ReferenceShape::usual(128, layers, 256, true)).expect("a usual shape"),
    )
}

#[test]
fn nemotron_flash_is_exact_at_the_sizes_of_the_paper() {
    let large = ["dfmfafmf"; 2].concat() + &["dfmf"; 2].concat();
    assert_eq!(large.len(), 24);
    assert_eq!(stack(Reference::NemotronFlash, 12), large);
    let larger = ["dfmfafmf"; 2].concat() + "dfmfafmf" + &["dfmf"; 3].concat();
    assert_eq!(larger.len(), 36);
    assert_eq!(stack(Reference::NemotronFlash, 18), larger);
    assert_eq!(stack(Reference::NemotronFlashSmall, 15), ["mfafafd"; 3].concat() + "mfafdff");
}

#[test]
fn lfm2_is_exact_at_the_size_of_its_smaller_models() {
    // `full_attn_idxs` of LFM2-350M, 700M and 1.2B: 2, 5, 8, 10, 12, 14
    let layers = ["cfcfaf"; 3].concat() + &["cfaf"; 3].concat() + "cf";
    assert_eq!(stack(Reference::Lfm2, 16), layers);
    let shape = ReferenceShape::usual(1024, 16, 256, true);
    for scale in [0.3, 1.0, 1.7] {
        let scaled = Reference::Lfm2.build(&shape.scaled(scale)).expect("a usual shape");
        let first = scaled.layers()[0].mixer.expect("a mixer");
        assert_eq!(first.to_string(), format!("gsc(c={},k=3)", scaled.d_model()));
    }
}

#[test]
fn stacks_follow_their_rule() {
    let cases = [
        (Reference::FullAttention, 3, "afafaf"),
        (Reference::Swa, 2, "sfsf"),
        (Reference::SwaFull, 4, "sfafsfaf"),
        (Reference::Mamba2Only, 2, "mmmm"),
        (Reference::DeltaNet, 2, "dfdf"),
        (Reference::DeltaNetSwa, 4, "dfsfdfsf"),
        (Reference::DeltaNetGlobal, 6, "dfafdfafdfdf"),
        (Reference::GatedDeltaNet, 3, "gfgfgf"),
        (Reference::GdnH1, 3, "gfsfgf"),
        (Reference::GdnH2, 4, "mfgfsfmf"),
        (Reference::GdnFull, 8, "gfgfgfafgfgfgfaf"),
        (Reference::Mamba2, 1, "mf"),
        (Reference::Mamba2Full, 8, "mfmfmfmfafmfmfmf"),
        (Reference::Mamba2Full, 4, "mfmfafmf"),
        (Reference::LogLinearGdn, 2, "GfGf"),
        (Reference::LogLinearMamba2, 2, "MfMf"),
        (Reference::Samba, 4, "mfsfmfsf"),
        (Reference::Lfm2, 1, "cf"),
        (Reference::Lfm2, 4, "cfafcfaf"),
        (Reference::Lfm2, 8, "cfcfafcfafcfafcf"),
        (Reference::NemotronFlash, 4, "dfmfafmf"),
        (Reference::NemotronFlash, 6, "dfmfafmfdfmf"),
    ];
    for (reference, layers, expected) in cases {
        assert_eq!(stack(reference, layers), expected, "{reference}");
    }
}

#[test]
fn every_stack_exists_at_every_size_and_parses_by_name() {
    for reference in Reference::ALL {
        assert_eq!(reference.name().parse(), Ok(reference));
        for d_model in [1, 63, 64, 96, 100, 1000, 2048] {
            for layers in 1..20 {
                let built = reference.build(&ReferenceShape::usual(d_model, layers, 256, false));
                assert!(
                    built.is_ok(),
                    "{reference} at d_model {d_model}, {layers} layers: {built:?}"
                );
            }
        }
    }
    let message = "llama".parse::<Reference>().expect_err("no such name").to_string();
    assert!(message.contains("`llama`") && message.contains("full-attention"), "{message}");
}

#[test]
fn references_of_a_space_are_members_where_it_has_their_mixers() {
    let config: SpaceConfig = toml::from_str(
        "d_model = [64, 128]\ndepth = { min = 2, max = 6 }\nffn = [\"none\", \"2x\"]\n\
         [mixers.attn]\nhead_width = [32]\n[mixers.swa]\nhead_width = [32]\nwindow = [64]\n[mixers.gdn]\nkey_width = [16]\n",
    )
    .expect("a space section");
    let space = Space::new(&config).expect("a possible space");
    let shape = ReferenceShape::of(&space);
    for reference in
        [Reference::FullAttention, Reference::SwaFull, Reference::GatedDeltaNet, Reference::GdnFull]
    {
        let stack = reference.build(&shape).expect("a shape of the space");
        assert_eq!(space.contains(&stack), Ok(()), "{stack}");
    }
    let foreign = Reference::Mamba2.build(&shape).expect("the usual shape");
    assert!(space.contains(&foreign).is_err());
}

fn attention(shape: &ReferenceShape) -> Attention {
    match shape.mixer(MixerKind::FullAttention) {
        Mixer::Attention(attention) => attention,
        other => panic!("{other} is no attention"),
    }
}

fn heads(shape: &ReferenceShape, kind: MixerKind) -> u32 {
    match shape.mixer(kind) {
        Mixer::Attention(m) => m.heads,
        Mixer::Delta(m) => m.heads,
        Mixer::Mamba2(m) => m.heads,
        Mixer::Kda(m) => m.heads,
        Mixer::Parallel(m) => m.heads,
        Mixer::GatedConv(m) => panic!("{m:?} has no heads"),
    }
}

#[test]
fn a_scaled_shape_keeps_its_proportions() {
    for d_model in [96, 512, 2048] {
        let shape = ReferenceShape::usual(d_model, 6, 256, true);
        for scale in [0.1, 0.5, 0.77, 1.0, 1.3, 3.0] {
            let scaled = shape.scaled(scale);
            let near = |name: &str, from: u32, to: u32, within: f64| {
                let (wanted, got) = (f64::from(from) * scale, f64::from(to));
                assert!((got - wanted).abs() <= within, "{name} {from} × {scale} became {to}");
            };
            near("d_model", shape.d_model, scaled.d_model, 32.0);
            near("ffn_width", shape.ffn_width, scaled.ffn_width, 32.0);
            for kind in [MixerKind::DeltaNet, MixerKind::Mamba2] {
                near("heads", heads(&shape, kind), heads(&scaled, kind), 1.0);
            }
            let (own, attention) = (attention(&shape), attention(&scaled));
            if f64::from(own.heads) * scale >= 1.0 {
                assert_eq!(attention.head_width, own.head_width);
            } else {
                assert!(attention.head_width < own.head_width);
            }
            for reference in Reference::ALL {
                assert!(reference.build(&scaled).is_ok(), "{reference} at {d_model} × {scale}");
            }
        }
    }
    let shape = ReferenceShape::usual(256, 2, 256, true);
    let grouped = Attention { kv_heads: 2, ..attention(&shape) };
    let attention = attention(&shape.with(Mixer::Attention(grouped)).scaled(0.6));
    assert_eq!((attention.heads, attention.kv_heads), (2, 1), "grouped as before");
}

#[test]
fn every_stack_is_found_at_the_latency_of_another() {
    // A machine on which time is what must be read, and a little for each layer, give or take a percent.
    let time_us = |stack: &Architecture| {
        let bytes = cost::decode_bytes(stack, 512, Dtype::F32) as f64;
        let jitter = (cost::flops(stack, Phase::Decode { context: 512 }) as u64 % 21) as f64 - 10.0;
        (0.3 * stack.layers().len() as f64 + bytes / 30_000.0) * (1.0 + jitter / 1000.0)
    };
    let shape = ReferenceShape::usual(128, 4, 256, true);
    for reference in Reference::ALL {
        for wanted_us in [30.0, 70.0, 900.0] {
            let mut search = EqualLatency::new(reference, shape.clone(), wanted_us);
            let mut timed = 0;
            while let Some(stack) = search.ask() {
                let us = time_us(&stack);
                search.tell(stack, us);
                timed += 1;
            }
            let (stack, us) = search.nearest().expect("something was timed");
            assert!(
                (us / wanted_us - 1.0).abs() < 0.1,
                "{reference}: {us} of {wanted_us}: {stack}"
            );
            assert!(timed <= 10, "{reference}: {timed} timings");
        }
    }
}

#[test]
fn an_impossible_latency_gives_the_nearest_there_is() {
    let shape = ReferenceShape::usual(64, 2, 256, true);
    let mut search = EqualLatency::new(Reference::DeltaNet, shape, 1.0);
    while let Some(stack) = search.ask() {
        let us = 50.0 + f64::from(stack.d_model());
        search.tell(stack, us);
    }
    let (stack, us) = search.nearest().expect("something was timed");
    assert_eq!((stack.d_model(), *us), (8, 58.0));
}
