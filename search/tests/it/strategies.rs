//! Random architectures for property tests: every mixer, odd sizes, empty mixers and empty FFNs.

use proptest::prelude::*;
use search::Architecture;
use search::architecture::{
    Attention, Beside, Delta, Experts, Ffn, FfnKind, GatedConv, Kda, Layer, Mamba2, Mixer,
    Parallel, PhaseForms, QkNorm, Temperature,
};

fn levels() -> impl Strategy<Value = Option<u32>> {
    prop::option::of(2..34_u32)
}

pub(crate) fn mixer() -> impl Strategy<Value = Mixer> {
    let shape = (1..5_u32, 1..4_u32, 1..40_u32, prop::option::of(1..700_u32));
    let attention = (shape, qk_norm(), positions(), phases(), any::<bool>()).prop_map(
        |(
            (kv_heads, groups, half, window),
            qk_norm,
            (selective_rope, percent, theta),
            phases,
            output_gate,
        )| {
            // the part of a head that turns has an even width
            let head_width = if percent % 50 > 0 { 8 * half } else { 4 * half };
            let phases = if selective_rope { phases } else { PhaseForms::default() };
            let shape = Attention::full(kv_heads * groups, kv_heads, head_width);
            let norm_after = !selective_rope && theta % 2 == 0;
            let plain = Attention {
                window,
                qk_norm,
                selective_rope,
                phases,
                output_gate,
                norm_after,
                ..shape
            };
            let turns = !selective_rope && percent > 0;
            Mixer::Attention(Attention {
                head_width: if percent == 100 && !selective_rope { 2 * half } else { head_width },
                rotary_percent: if selective_rope { 100 } else { percent },
                rope_theta: if turns { theta } else { plain.rope_theta },
                ..plain
            })
        },
    );
    let widths = || (1..9_u32, 1..100_u32, 1..100_u32);
    prop_oneof![
        attention,
        (widths(), member(), options(), phases()).prop_map(delta),
        (widths(), levels()).prop_map(|((heads, head_width, state_width), levels)| {
            Mixer::Mamba2(Mamba2 { heads, head_width, state_width, levels })
        }),
        widths().prop_map(|(heads, key_width, value_width)| {
            Mixer::Kda(Kda { heads, key_width, value_width })
        }),
        parallel(),
        (1..300_u32, 2..9_u32).prop_map(|(channels, kernel_width)| {
            Mixer::GatedConv(GatedConv { channels, kernel_width })
        }),
    ]
}

fn parallel() -> impl Strategy<Value = Mixer> {
    let beside = prop::sample::select(vec![Beside::M2, Beside::Gdn, Beside::Dn]);
    let percent = prop::sample::select(vec![100, 50, 0]);
    let sizes = (1..5_u32, 1..5_u32, 1..20_u32);
    let widths = (1..9_u32, 1..100_u32, 1..100_u32);
    (sizes, 0..50_u32, qk_norm(), percent, beside, widths, any::<bool>()).prop_map(
        |(
            (kv_heads, groups, quarter),
            window,
            qk_norm,
            rotary_percent,
            beside,
            widths,
            branch_norms,
        )| {
            Mixer::Parallel(Parallel {
                heads: kv_heads * groups,
                kv_heads,
                head_width: 4 * quarter,
                window,
                qk_norm,
                rotary_percent,
                beside,
                beside_heads: widths.0,
                beside_key_width: widths.1,
                beside_value_width: widths.2,
                branch_norms,
            })
        },
    )
}

fn qk_norm() -> impl Strategy<Value = QkNorm> {
    prop::sample::select(vec![QkNorm::None, QkNorm::Head, QkNorm::Whole])
}

/// Whether attention has Selective RoPE; else the part that turns, and θ.
fn positions() -> impl Strategy<Value = (bool, u32, u32)> {
    let percent = prop::sample::select(vec![100, 75, 50, 25, 0]);
    (any::<bool>(), percent, 2..1_000_000_000_u32)
}

/// What of Selective RoPE is not plain.
fn phases() -> impl Strategy<Value = PhaseForms> {
    let temperature = prop::sample::select(vec![
        Temperature::Rope,
        Temperature::Rfa,
        Temperature::Ones,
        Temperature::Learnt,
    ]);
    (any::<[bool; 3]>(), temperature).prop_map(|([gate, bias, full_rank], temperature)| {
        PhaseForms { gate, bias, full_rank, temperature }
    })
}

/// Which member of the delta family: its decay, its steps, its levels.
fn member() -> impl Strategy<Value = (bool, Option<u32>, Option<u32>)> {
    prop_oneof![
        (any::<bool>(), prop::option::of(2..9_u32)).prop_map(|(decay, steps)| (decay, steps, None)),
        levels().prop_map(|levels| (true, None, levels)),
    ]
}

/// Value groups, then what is there: output gate, negative eigenvalues, short convolution, Selective RoPE.
fn options() -> impl Strategy<Value = (u32, [bool; 4])> {
    (1..4_u32, any::<[bool; 4]>())
}

type Widths = (u32, u32, u32);
type Member = (bool, Option<u32>, Option<u32>);

fn delta(
    ((heads, key_width, value_width), (decay, steps, levels), (value_groups, parts), phases): (
        Widths,
        Member,
        (u32, [bool; 4]),
        PhaseForms,
    ),
) -> Mixer {
    let [output_gate, negative_eigenvalues, short_conv, selective_rope] = parts;
    Mixer::Delta(Delta {
        heads,
        // Keys that turn have an even width, of at least four.
        key_width: if selective_rope { 2 * key_width.div_ceil(2).max(2) } else { key_width },
        value_width,
        value_groups,
        decay,
        steps,
        levels,
        output_gate,
        negative_eigenvalues,
        short_conv,
        selective_rope,
        phases: if selective_rope { phases } else { PhaseForms::default() },
    })
}

pub(crate) fn layer() -> impl Strategy<Value = Layer> {
    let experts = || {
        (2..40_u32, 1..9_u32, 0..3_u32).prop_map(|(experts, per_token, shared)| {
            FfnKind::Moe(Experts { experts, per_token: per_token.min(experts), shared })
        })
    };
    let kind = || prop_oneof![Just(FfnKind::SwiGlu), Just(FfnKind::Relu2), experts()];
    let ffn = || (1..1000_u32, kind()).prop_map(|(width, kind)| Ffn { width, kind });
    prop_oneof![
        (mixer(), prop::option::of(ffn()))
            .prop_map(|(mixer, ffn)| Layer { mixer: Some(mixer), ffn }),
        ffn().prop_map(|ffn| Layer { mixer: None, ffn: Some(ffn) }),
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
