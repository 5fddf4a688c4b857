//! Cost formulas against counts that run the loops of the definitions and add up what they do.

use proptest::prelude::*;
use search::Architecture;
use search::architecture::{
    Attention, Experts, Ffn, FfnKind, GatedConv, Kda, Mamba2, Mixer, QkNorm,
};
use search::cost;
use search::device::Platform;
use search::latency::{self, Conditions, Dtype, Part, Phase, parts};
use search::tensors::{active_parameters, parameters};

use crate::strategies;

/// Operations done so far.
#[derive(Default)]
struct Count(u64);

impl Count {
    /// One multiplication or addition.
    fn op(&mut self) {
        self.0 += 1;
    }

    /// `y[o] += w[o][i] · x[i]`
    fn matrix(&mut self, out: u32, input: u32) {
        for _ in 0..out {
            for _ in 0..input {
                self.op(); // ·
                self.op(); // +
            }
        }
    }

    /// Four taps on each channel.
    fn conv(&mut self, channels: u32, bias: bool) {
        for _ in 0..channels {
            for _ in 0..4 {
                self.op();
                self.op();
            }
            if bias {
                self.op();
            }
        }
    }

    /// One position of the (gated) delta rule on a state of `k` × `v`.
    fn delta(&mut self, k: u32, v: u32, gated: bool, steps: u32) {
        if gated {
            for _ in 0..k * v {
                self.op(); // S ← e^g S
            }
        }
        for _ in 0..steps {
            self.matrix(v, k); // Sᵀk
            for _ in 0..v {
                self.op(); // v − Sᵀk
                self.op(); // β ·
            }
            self.matrix(k, v); // S += k uᵀ
        }
        self.matrix(v, k); // Sᵀq
    }

    /// One position of a mixer that is at `position`, from 0.
    fn mixer(&mut self, d: u32, mixer: &Mixer, position: u32) {
        if let Some(phases) = mixer.phases() {
            let angles = phases.heads * phases.half;
            if phases.forms.full_rank {
                let share = if d.is_multiple_of(phases.heads) { d / phases.heads } else { d };
                self.matrix(angles, share);
            } else {
                self.matrix(16, d);
                self.matrix(angles, 16);
            }
            if phases.forms.gate {
                self.matrix(phases.heads, d);
            }
            self.conv(angles, false);
        }
        match *mixer {
            Mixer::Attention(Attention { heads, kv_heads, head_width, window, .. }) => {
                self.matrix(heads * head_width, d); // q
                self.matrix(kv_heads * head_width, d); // k
                self.matrix(kv_heads * head_width, d); // v
                for _ in 0..heads {
                    for key in 0..=position {
                        if window.is_none_or(|window| position - key < window) {
                            self.matrix(1, head_width); // q·k
                            self.matrix(head_width, 1); // o += a v
                        }
                    }
                }
                self.matrix(d, heads * head_width); // o
            }
            Mixer::Delta(family) => {
                let (heads, value_heads) = (family.heads, family.value_heads());
                let (k, v) = (family.key_width, family.value_width);
                let mut convolved = vec![heads * k]; // q
                for _ in 0..family.steps_per_token() {
                    convolved.extend([heads * k, value_heads * v]); // k, v
                    self.matrix(value_heads, d); // b
                }
                for channels in convolved {
                    self.matrix(channels, d);
                    if family.short_conv {
                        self.conv(channels, false);
                    }
                }
                if family.decay {
                    self.matrix(value_heads, d); // a
                }
                if family.output_gate {
                    self.matrix(value_heads * v, d); // g
                }
                for _ in 0..value_heads {
                    self.delta(k, v, family.decay, family.steps_per_token());
                }
                if let Some(levels) = family.levels {
                    self.matrix(value_heads * levels, d); // λ
                    for _ in 0..value_heads * past_levels(position, levels) {
                        for _ in 0..k * v {
                            self.op(); // e^g S
                        }
                        self.matrix(v, k); // Sᵀk
                        for _ in 0..v {
                            self.op(); // β ·
                        }
                        self.matrix(k, v); // S −= k uᵀ
                        self.matrix(v, k); // Sᵀq
                        self.matrix(v, 1); // o += λ ·
                    }
                }
                self.matrix(d, value_heads * v);
            }
            Mixer::Mamba2(Mamba2 { heads, head_width: p, state_width: n, levels }) => {
                for rows in [heads * p, heads * p, n, n, heads] {
                    self.matrix(rows, d); // z, x, B, C, dt
                }
                for channels in [heads * p, n, n] {
                    self.conv(channels, true);
                }
                for _ in 0..heads {
                    for _ in 0..p {
                        self.op(); // dt · x
                        self.op(); // D · x
                        self.op(); // y +
                        for _ in 0..n {
                            self.op(); // e^{dt·A} S
                        }
                    }
                    self.matrix(p, n); // S += (dt·x) Bᵀ
                    self.matrix(p, n); // S C
                }
                if let Some(levels) = levels {
                    self.matrix(heads * levels, d); // λ
                    for _ in 0..heads * past_levels(position, levels) {
                        for _ in 0..p * n {
                            self.op(); // e^{dt·A} S
                        }
                        self.matrix(p, n); // S C
                        self.matrix(p, 1); // y += λ ·
                    }
                }
                self.matrix(d, heads * p);
            }
            Mixer::Kda(Kda { heads, key_width: k, value_width: v }) => {
                for channels in [heads * k, heads * k, heads * v] {
                    self.matrix(channels, d); // q, k, v
                    self.conv(channels, false);
                }
                self.matrix(heads, d); // b
                for rows in [heads * k, heads * v] {
                    self.matrix(v, d); // to the rank
                    self.matrix(rows, v); // the decays, the gate
                }
                for _ in 0..heads {
                    self.delta(k, v, true, 1);
                }
                self.matrix(d, heads * v);
            }
            Mixer::Parallel(of) => {
                self.mixer(d, &of.attention().into(), position);
                self.mixer(d, &of.side().into(), position);
            }
            Mixer::GatedConv(GatedConv { channels, kernel_width }) => {
                self.matrix(3 * channels, d); // B, C, x̃
                self.matrix(channels, kernel_width); // the taps, of each channel its own
                self.matrix(d, channels);
            }
        }
    }

    /// One token at `position`; logits if wanted.
    fn token(&mut self, architecture: &Architecture, position: u32, logits: bool) {
        let d = architecture.d_model();
        for layer in architecture.layers() {
            if let Some(mixer) = &layer.mixer {
                self.mixer(d, mixer, position);
            }
            if let Some(Ffn { width, kind }) = layer.ffn {
                let networks = match kind {
                    FfnKind::SwiGlu | FfnKind::Relu2 => 1,
                    FfnKind::Moe(of) => {
                        self.matrix(of.experts, d); // the router
                        of.per_token + of.shared
                    }
                };
                for _ in 0..networks {
                    if kind != FfnKind::Relu2 {
                        self.matrix(width, d); // gate
                    }
                    self.matrix(width, d); // up
                    self.matrix(d, width); // down
                }
            }
        }
        if logits {
            self.matrix(architecture.vocab(), d);
        }
    }
}

/// Small enough to be counted one by one: every mixer at odd shapes.
const SMALL: [&str; 18] = [
    "d=3,vocab=2 | par(h=2,kv=1,k=2,bh=2,bk=3,bv=5)+ffn(4) | par(h=1,kv=1,k=4,w=3,gdn,bh=1,bk=2,bv=3)",
    "d=3,vocab=2,meta=4 | par(h=2,kv=2,k=2,w=9,qknorm,dn,bh=3,bk=1,bv=2) | attn(h=1,kv=1,k=2)",
    "d=3,vocab=2 | attn(h=1,kv=1,k=2)+moe(4,e=5,k=2,s=3) | moe(1,e=3,k=1) | relu2(4)",
    "d=3,vocab=2 | dn(h=2,k=3,v=5,gate,vg=3,noconv) | gdn(h=1,k=2,v=3,nogate,vg=2,neg)",
    "d=3,vocab=2 | dp(h=2,k=3,v=5,n=3,neg) | gdp(h=1,k=2,v=3,n=2,nogate,vg=2,noconv)",
    "d=3,vocab=2 | lgdn(h=1,k=2,v=3,l=15,vg=2,neg) | lm2(h=2,p=2,n=3,l=4)",
    "d=2,vocab=2 | lgdn(h=1,k=2,v=1,l=2,nogate,noconv) | lm2(h=1,p=1,n=1,l=33)",
    "d=5,vocab=7 | attn(h=3,kv=1,k=2)+ffn(11)",
    "d=5,vocab=7,meta=7 | swa(h=3,kv=1,k=2,w=12) | attn(h=1,kv=1,k=2) | gdn(h=1,k=2,v=3)",
    "d=5,vocab=7,tied,meta=5 | lm2(h=1,p=2,n=2,l=5) | m2(h=1,p=2,n=2)",
    "d=5,vocab=7 | attn(h=4,kv=2,k=4,qknorm,srope) | gdp(h=2,k=4,v=1,n=2,noconv,srope)",
    "d=3,vocab=1,tied | swa(h=4,kv=2,k=6,w=9)",
    "d=7,vocab=3 | dn(h=2,k=3,v=5)+ffn(1)",
    "d=1,vocab=3 | gdn(h=3,k=2,v=7)",
    "d=5,vocab=3 | kda(h=2,k=3,v=4)+ffn(2) | kda(h=1,k=1,v=1)",
    "d=4,vocab=3 | gsc(c=4,k=3)+ffn(2) | gsc(c=1,k=8) | gsc(c=7,k=2)",
    "d=6,vocab=5 | m2(h=3,p=5,n=2) | ffn(4)",
    "d=4,vocab=9,tied | swa(h=1,kv=1,k=2,w=1)+ffn(3) | 2*gdn(h=1,k=1,v=1) | m2(h=1,p=1,n=1)+ffn(2) | attn(h=2,kv=2,k=4)",
];

fn small() -> impl Iterator<Item = Architecture> {
    SMALL.into_iter().map(|text| text.parse().expect("an architecture"))
}

#[test]
fn decode_operations_are_those_of_the_loops() {
    for architecture in small() {
        for context in [0, 1, 8, 9, 63] {
            // of log-linear mixers at the position up to there at which they do the most
            let at = |position| {
                let mut count = Count::default();
                count.token(&architecture, position, true);
                count.0
            };
            let meta = architecture.meta_tokens();
            let count = (0..=meta + context).map(at).max().expect("there is a position");
            let formula = cost::flops(&architecture, Phase::Decode { context });
            assert_eq!(formula.to_bits(), (count as f64).to_bits(), "{architecture} at {context}");
        }
    }
}

#[test]
fn prefill_operations_are_those_of_the_loops() {
    for architecture in small() {
        for tokens in [1, 2, 9, 10, 63] {
            let mut count = Count::default();
            let meta = architecture.meta_tokens();
            for position in meta..meta + tokens {
                count.token(&architecture, position, position + 1 == meta + tokens);
            }
            let phase = Phase::Prefill { tokens };
            let formula = cost::flops(&architecture, phase);
            assert_eq!(formula.to_bits(), (count.0 as f64).to_bits(), "{architecture} of {tokens}");
            let per_token = cost::flops_per_token(&architecture, phase);
            assert!((per_token * f64::from(tokens) / formula - 1.0).abs() < 1e-12);
        }
    }
}

/// Pieces of the past of `position` that a log-linear mixer tells apart: by the definition, from every past position.
fn past_levels(position: u32, levels: u32) -> u32 {
    let level = |past: u32| (32 - (position ^ past).leading_zeros()).min(levels - 1);
    (0..position).map(level).collect::<std::collections::BTreeSet<u32>>().len() as u32
}

/// Elements of every state array that a decoder keeps, written out.
fn state_elements(mixer: &Mixer, positions: u32) -> u64 {
    let mut elements = 0;
    let states = mixer.levels().map_or(1, |levels| {
        1 + (0..positions).map(|position| past_levels(position, levels)).max().unwrap_or(0)
    });
    let mut array =
        |sizes: &[u32]| elements += sizes.iter().map(|&n| u64::from(n)).product::<u64>();
    match *mixer {
        Mixer::Attention(a) => {
            if a.selective_rope {
                array(&[4, a.kv_heads, a.head_width / 2]); // three inputs of the convolution, and the sums
            }
        }
        Mixer::Delta(family) => {
            if family.selective_rope {
                array(&[4, family.heads, family.key_width / 2]);
            }
            array(&[states, family.value_heads(), family.key_width, family.value_width]);
            if family.short_conv {
                array(&[3, family.heads, family.key_width]);
                array(&[3, family.steps_per_token(), family.heads, family.key_width]);
                array(&[3, family.steps_per_token(), family.value_heads(), family.value_width]);
            }
        }
        Mixer::Mamba2(Mamba2 { heads, head_width, state_width, .. }) => {
            array(&[states, heads, head_width, state_width]);
            array(&[3, heads * head_width + 2 * state_width]);
        }
        Mixer::Kda(Kda { heads, key_width, value_width }) => {
            array(&[heads, key_width, value_width]);
            array(&[3, heads, key_width]);
            array(&[3, heads, key_width]);
            array(&[3, heads, value_width]);
        }
        Mixer::Parallel(of) => {
            return state_elements(&of.attention().into(), positions)
                + state_elements(&of.side().into(), positions);
        }
        Mixer::GatedConv(GatedConv { channels, kernel_width }) => {
            array(&[kernel_width - 1, channels]);
        }
    }
    elements
}

proptest! {
    #[test]
    fn states_and_caches_are_their_arrays(architecture in strategies::architecture(), positions in 0..300_u32) {
        let mut state = 0;
        let mut cache = 0;
        let given = positions;
        let positions = positions + architecture.meta_tokens();
        for layer in architecture.layers() {
            state += layer.mixer.as_ref().map_or(0, |mixer| state_elements(mixer, positions)) * 4;
            let attention = match layer.mixer {
                Some(Mixer::Attention(a)) => Some(a),
                Some(Mixer::Parallel(of)) => Some(of.attention()),
                _ => None,
            };
            if let Some(a) = attention {
                let kept = (0..positions).filter(|&p| a.window.is_none_or(|w| positions - p <= w)).count() as u64;
                cache += kept * 2 * u64::from(a.kv_heads * a.head_width) * 2;
            }
        }
        prop_assert_eq!(cost::state_bytes(&architecture, given), state);
        prop_assert_eq!(cost::cache_bytes(&architecture, given, Dtype::Bf16), cache);
        prop_assert_eq!(cost::cache_bytes(&architecture, given, Dtype::F32), 2 * cache);
    }

    #[test]
    fn the_weights_of_the_parts_are_the_weights_of_the_model(architecture in strategies::architecture()) {
        let d = u64::from(architecture.d_model());
        let embedding = d * u64::from(architecture.vocab());
        // so many tokens that every expert is chosen
        let all: u64 = parts(&architecture).map(|part| cost::part_weight_bytes(&part, Dtype::F32, u32::MAX)).sum();
        // A decode step reads one row of an embedding that is not the head as well.
        let not_read = if architecture.tied_embeddings() { 0 } else { embedding }
            + d * u64::from(architecture.meta_tokens()); // read once for the model
        prop_assert_eq!(all, cost::weight_bytes(&architecture, Dtype::F32) - 4 * not_read + 4 * d);
        prop_assert_eq!(all - cost::further_weight_bytes(&architecture, Dtype::F32, u32::MAX), {
            let read = parts(&architecture).map(|part| cost::part_weight_bytes(&part, Dtype::F32, 1));
            read.sum::<u64>()
        });
        let read: u64 = parts(&architecture).map(|part| cost::part_weight_bytes(&part, Dtype::F32, 1)).sum();
        let idle = parameters(&architecture) - active_parameters(&architecture);
        prop_assert_eq!(read, all - 4 * idle);
        let decode = cost::decode_bytes(&architecture, 99, Dtype::F32);
        let state = cost::state_bytes(&architecture, 100);
        prop_assert_eq!(decode, read + 2 * state + cost::cache_bytes(&architecture, 100, Dtype::F32));
    }
}

/// Experts that `tokens` tokens read, each of which chooses k of E by a shuffle: the mean over many draws.
fn read_by_draws(experts: usize, per_token: usize, tokens: usize) -> f64 {
    const DRAWS: usize = 4000;
    let mut state = 1_u64;
    let mut below = |n: usize| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) as usize % n
    };
    let mut read = 0;
    for _ in 0..DRAWS {
        let mut chosen = vec![false; experts];
        for _ in 0..tokens {
            let mut order: Vec<usize> = (0..experts).collect();
            for at in 0..per_token {
                let other = at + below(experts - at);
                order.swap(at, other);
                chosen[order[at]] = true;
            }
        }
        read += chosen.into_iter().filter(|chosen| *chosen).count();
    }
    read as f64 / DRAWS as f64
}

#[test]
fn a_batch_reads_the_experts_that_its_tokens_are_expected_to_choose() {
    for (experts, per_token, tokens) in [(8, 2, 1), (8, 2, 4), (16, 1, 16), (64, 6, 8), (3, 3, 5)] {
        let of = Experts { experts, per_token, shared: 1 };
        let [e, k, t] = [experts, per_token, tokens].map(|n| n as usize);
        let (got, drawn) = (of.read(tokens), read_by_draws(e, k, t));
        assert!((got - drawn).abs() < 0.02 * drawn, "{of:?}, {tokens}: {got}, drawn {drawn}");
    }
    let stack: Architecture =
        "d=64,vocab=256,tied | moe(32,e=16,k=2,s=1)".parse().expect("an architecture");
    let under = |platform: Platform, batch| Conditions {
        device: platform.hardware("any"),
        dtype: Dtype::F32,
        batch,
        threads: 1,
        phase: Phase::Decode { context: 8 },
    };
    let part = parts(&stack).next().expect("an FFN");
    let expert = 4 * 3 * 64 * 32;
    let of_one = cost::part_weight_bytes(&part, Dtype::F32, 1);
    assert_eq!(of_one, 3 * expert + 4 * (16 * 64 + 64));
    assert_eq!(cost::further_weight_bytes(&stack, Dtype::F32, 8), {
        let further = 16.0 * (1.0 - (14.0_f64 / 16.0).powi(8)) - 2.0;
        4 * (further * 3.0 * 64.0 * 32.0).round() as u64
    });
    let set = |platform, batch| latency::working_set_kib(&stack, &under(platform, batch));
    let [one, eight] = [1, 8].map(|batch| set(Platform::Cuda, batch));
    assert!(eight > 2 * one, "{one}, {eight}: what a step reads is streamed");
    let all = cost::weight_bytes(&stack, Dtype::F32) as f64 / 1024.0;
    for kib in [1, 8].map(|batch| f64::from(set(Platform::Cpu, batch))) {
        assert!((kib / all - 1.0).abs() < 0.13, "{kib} of {all}: tokens pass through all in turn");
    }
}

#[test]
fn a_window_longer_than_the_past_costs_as_much_as_full_attention() {
    let full = "d=8,vocab=3 | attn(h=2,kv=2,k=4)".parse().expect("an architecture");
    let windowed = "d=8,vocab=3 | swa(h=2,kv=2,k=4,w=100)".parse().expect("an architecture");
    for phase in [Phase::Decode { context: 99 }, Phase::Prefill { tokens: 100 }] {
        assert_eq!(cost::flops(&full, phase).to_bits(), cost::flops(&windowed, phase).to_bits());
    }
    let longer = Phase::Decode { context: 100 };
    assert!(cost::flops(&full, longer) > cost::flops(&windowed, longer));
}

#[test]
fn the_largest_architecture_overflows_nothing() {
    let n = 1 << 20;
    let text = format!("d={n},vocab={n} | 4096*gdn(h={n},k={n},v={n})+ffn({n})");
    let architecture: Architecture = text.parse().expect("the largest numbers that are accepted");
    assert!(cost::flops(&architecture, Phase::Prefill { tokens: u32::MAX }).is_finite());
    assert_eq!(cost::state_bytes(&architecture, 1), u64::MAX);
    assert_eq!(cost::decode_bytes(&architecture, u32::MAX, Dtype::F32), u64::MAX);
    let attention = Part::Mixer {
        d_model: n,
        meta_tokens: 0,
        mixer: Mixer::Attention(Attention {
            qk_norm: QkNorm::Whole,
            selective_rope: true,
            output_gate: true,
            ..Attention::full(n, n, n)
        }),
    };
    assert_eq!(cost::part_cache_bytes(&attention, u32::MAX, Dtype::F32), u64::MAX);
}

#[test]
fn values_carry_the_names_that_campaigns_use() {
    let architecture = "d=8,vocab=3 | attn(h=2,kv=2,k=4)+ffn(8) | dn(h=1,k=2,v=2)"
        .parse()
        .expect("an architecture");
    let conditions = |batch, phase| Conditions {
        device: "cpu".to_owned(),
        dtype: Dtype::Bf16,
        batch,
        threads: 1,
        phase,
    };
    let (decode, prefill) = (Phase::Decode { context: 10 }, Phase::Prefill { tokens: 10 });
    let values = cost::values(&architecture, &[conditions(2, decode), conditions(1, prefill)]);
    let names: Vec<&str> = values.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "active_parameters",
            "cache_bytes",
            "decode_flops",
            "memory_bytes",
            "parameters",
            "prefill_flops",
            "state_bytes",
            "weight_bytes"
        ]
    );
    // two sequences of 10 positions of 2 · 8 bf16; two of 4 + 3·6 fp32
    assert!((values["cache_bytes"] - 640.0).abs() < 1e-9);
    assert!((values["state_bytes"] - 176.0).abs() < 1e-9);
    assert!((values["weight_bytes"] - 2.0 * values["parameters"]).abs() < 1e-9);
}

#[test]
fn a_part_is_timed_in_models_as_large_as_its_own() {
    let stack = |layers: u32| -> Architecture {
        format!("d=512,vocab=256,tied | {layers}*attn(h=8,kv=8,k=64)+ffn(1536)")
            .parse()
            .expect("valid")
    };
    let under = |batch, phase| Conditions {
        device: "cpu".to_owned(),
        dtype: Dtype::F32,
        batch,
        threads: 1,
        phase,
    };
    let decode = |context| Phase::Decode { context };
    let set = |layers, batch, phase| latency::working_set_kib(&stack(layers), &under(batch, phase));
    // 4 · 512² + 3 · 512 · 1536 parameters of 4 bytes are 13 MiB a layer.
    assert_eq!(
        [1, 2, 3, 4, 100].map(|n| set(n, 1, decode(0))),
        [14, 28, 40, 56, 256].map(|mib| mib << 10)
    );
    assert!(set(1, 8, decode(1024)) > set(1, 1, decode(1024)), "every sequence has its own cache");
    assert_eq!(
        set(1, 1, Phase::Prefill { tokens: 512 }),
        0,
        "a prompt uses what it reads many times"
    );
    let conditions = under(1, decode(0));
    let keys: Vec<_> = latency::keys(&stack(2), &conditions).collect();
    assert_eq!(keys.len(), 5);
    assert!(keys.iter().all(|key| key.working_set_kib == 28 << 10));
    assert_ne!(keys[0], latency::keys(&stack(3), &conditions).next().expect("a mixer"));
}

#[test]
fn a_mixer_before_an_ffn_is_another_row_in_decode_steps_of_one_sequence_on_a_gpu() {
    let stack: Architecture = "d=64,vocab=256 | dn(h=2,k=32,v=32)+ffn(64) | dn(h=2,k=32,v=32) | ffn(64) | dn(h=2,k=32,v=32)"
        .parse()
        .expect("an architecture");
    let mixers = |device: &str, batch, phase| -> Vec<bool> {
        let conditions =
            Conditions { device: device.to_owned(), dtype: Dtype::Bf16, batch, threads: 0, phase };
        latency::keys(&stack, &conditions).map(|key| key.before_ffn).collect()
    };
    let (decode, prefill) = (Phase::Decode { context: 8 }, Phase::Prefill { tokens: 8 });
    // mixer, FFN, mixer, FFN, mixer, head
    assert_eq!(mixers("cuda: one", 1, decode), [true, false, true, false, false, false]);
    for (device, batch, phase) in
        [("cpu: one", 1, decode), ("cuda: one", 2, decode), ("cuda: one", 1, prefill)]
    {
        assert_eq!(mixers(device, batch, phase), [false; 6], "{device}, {batch}, {phase:?}");
    }
}

#[test]
fn the_largest_batch_is_the_last_that_fits_to_two_binary_digits() {
    let stack: Architecture =
        "d=64,vocab=256,tied | attn(h=2,kv=2,k=32)+ffn(64) | gdn(h=2,k=16,v=32)"
            .parse()
            .expect("a stack");
    let needs = |batch| cost::memory_bytes(&stack, 100, batch, Dtype::F32);
    assert_eq!(needs(0), cost::weight_bytes(&stack, Dtype::F32));
    assert_eq!(needs(3) - needs(2), needs(1) - needs(0), "every sequence costs the same");
    let at = |bytes, most| cost::largest_batch(&stack, 100, Dtype::F32, bytes, most);
    assert_eq!(at(needs(0) - 1, 64), 0);
    assert_eq!(at(needs(1) - 1, 64), 0);
    for (fits, expected) in [(1, 1), (2, 2), (3, 3), (4, 4), (5, 4), (7, 6), (13, 12), (31, 24)] {
        assert_eq!(at(needs(fits), 64), expected);
        assert_eq!(at(needs(fits + 1) - 1, 64), expected);
    }
    assert_eq!(at(u64::MAX, 48), 48);
    assert_eq!(at(u64::MAX, u32::MAX), 3 << 30);
}
