//! Random architectures for property tests: every mixer, odd sizes, empty mixers and empty FFNs.

use proptest::prelude::*;
use search::Architecture;
use search::architecture::{
    Attention, DeltaNet, DeltaOptions, DeltaProduct, GatedDeltaNet, Layer, Mamba2, Mixer,
};

fn options() -> impl Strategy<Value = DeltaOptions> {
    (1..4_u32, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(value_groups, negative_eigenvalues, short_conv, selective_rope)| DeltaOptions {
            value_groups,
            negative_eigenvalues,
            short_conv,
            selective_rope,
        },
    )
}

fn levels() -> impl Strategy<Value = Option<u32>> {
    prop::option::of(2..34_u32)
}

pub(crate) fn mixer() -> impl Strategy<Value = Mixer> {
    let shape = (1..5_u32, 1..4_u32, 1..40_u32, prop::option::of(1..700_u32));
    let attention = (shape, any::<bool>(), any::<bool>()).prop_map(
        |((kv_heads, groups, half, window), qk_norm, selective_rope)| {
            Mixer::Attention(Attention {
                heads: kv_heads * groups,
                kv_heads,
                head_width: 2 * half,
                window,
                qk_norm,
                selective_rope,
            })
        },
    );
    let widths = || (1..9_u32, 1..100_u32, 1..100_u32);
    let mixer = prop_oneof![
        attention,
        (widths(), any::<bool>(), options()).prop_map(
            |((heads, key_width, value_width), output_gate, options)| {
                Mixer::DeltaNet(DeltaNet { heads, key_width, value_width, output_gate, options })
            }
        ),
        (widths(), any::<bool>(), levels(), options()).prop_map(
            |((heads, key_width, value_width), output_gate, levels, options)| {
                Mixer::GatedDeltaNet(GatedDeltaNet {
                    heads,
                    key_width,
                    value_width,
                    output_gate,
                    levels,
                    options,
                })
            }
        ),
        (widths(), 2..9_u32, any::<bool>(), any::<bool>(), options()).prop_map(
            |((heads, key_width, value_width), steps, decay, output_gate, options)| {
                Mixer::DeltaProduct(DeltaProduct {
                    heads,
                    key_width,
                    value_width,
                    steps,
                    decay,
                    output_gate,
                    options,
                })
            }
        ),
        (widths(), levels()).prop_map(|((heads, head_width, state_width), levels)| {
            Mixer::Mamba2(Mamba2 { heads, head_width, state_width, levels })
        }),
    ];
    mixer.prop_map(|mixer| match mixer {
        Mixer::DeltaNet(m) => {
            Mixer::DeltaNet(DeltaNet { key_width: even(m.key_width, m.options), ..m })
        }
        Mixer::GatedDeltaNet(m) => {
            Mixer::GatedDeltaNet(GatedDeltaNet { key_width: even(m.key_width, m.options), ..m })
        }
        Mixer::DeltaProduct(m) => {
            Mixer::DeltaProduct(DeltaProduct { key_width: even(m.key_width, m.options), ..m })
        }
        Mixer::Attention(_) | Mixer::Mamba2(_) => mixer,
    })
}

/// Keys that turn have an even width.
fn even(key_width: u32, options: DeltaOptions) -> u32 {
    key_width + u32::from(options.selective_rope) * (key_width % 2)
}

pub(crate) fn layer() -> impl Strategy<Value = Layer> {
    let ffn = || 1..1000_u32;
    prop_oneof![
        (mixer(), prop::option::of(ffn()))
            .prop_map(|(mixer, ffn_width)| Layer { mixer: Some(mixer), ffn_width }),
        ffn().prop_map(|width| Layer { mixer: None, ffn_width: Some(width) }),
    ]
}

pub(crate) fn architecture() -> impl Strategy<Value = Architecture> {
    // Runs of equal layers, because the text form folds them.
    let layers = prop::collection::vec((layer(), 1..4_usize), 1..6).prop_map(|runs| {
        runs.into_iter().flat_map(|(layer, n)| vec![layer; n]).collect::<Vec<_>>()
    });
    let meta_tokens = prop_oneof![Just(0), 1..300_u32];
    (1..300_u32, 1..1000_u32, any::<bool>(), layers, meta_tokens).prop_map(
        |(d_model, vocab, tied, layers, meta_tokens)| {
            Architecture::new(d_model, vocab, tied, layers)
                .and_then(|stack| stack.with_meta_tokens(meta_tokens))
                .expect("the strategies stay inside the limits")
        },
    )
}
