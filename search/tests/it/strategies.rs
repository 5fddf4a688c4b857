//! Random architectures for property tests: every mixer, odd sizes, empty mixers and empty FFNs.

use proptest::prelude::*;
use search::Architecture;
use search::architecture::{
    Attention, DeltaNet, DeltaOptions, DeltaProduct, GatedDeltaNet, Layer, Mamba2, Mixer,
};

fn options() -> impl Strategy<Value = DeltaOptions> {
    (1..4_u32, any::<bool>(), any::<bool>()).prop_map(
        |(value_groups, negative_eigenvalues, short_conv)| DeltaOptions {
            value_groups,
            negative_eigenvalues,
            short_conv,
        },
    )
}

pub(crate) fn mixer() -> impl Strategy<Value = Mixer> {
    let attention = (1..5_u32, 1..4_u32, 1..40_u32, prop::option::of(1..700_u32), any::<bool>())
        .prop_map(|(kv_heads, groups, half, window, qk_norm)| {
            Mixer::Attention(Attention {
                heads: kv_heads * groups,
                kv_heads,
                head_width: 2 * half,
                window,
                qk_norm,
            })
        });
    let widths = || (1..9_u32, 1..100_u32, 1..100_u32);
    prop_oneof![
        attention,
        (widths(), any::<bool>(), options()).prop_map(
            |((heads, key_width, value_width), output_gate, options)| {
                Mixer::DeltaNet(DeltaNet { heads, key_width, value_width, output_gate, options })
            }
        ),
        (widths(), any::<bool>(), options()).prop_map(
            |((heads, key_width, value_width), output_gate, options)| {
                Mixer::GatedDeltaNet(GatedDeltaNet {
                    heads,
                    key_width,
                    value_width,
                    output_gate,
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
        widths().prop_map(|(heads, head_width, state_width)| Mixer::Mamba2(Mamba2 {
            heads,
            head_width,
            state_width
        })),
    ]
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
    (1..300_u32, 1..1000_u32, any::<bool>(), layers).prop_map(|(d_model, vocab, tied, layers)| {
        Architecture::new(d_model, vocab, tied, layers)
            .expect("the strategies stay inside the limits")
    })
}
