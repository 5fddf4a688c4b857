//! The wire messages: written and read back, refused when they are not finite, their JSON fixed for workers in other
//! languages.

use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;
use search::architecture::{Ffn, FfnKind};
use search::config::{CampaignFile, TEMPLATE};
use search::latency::{Conditions, Dtype, LatencyKey, Part, Phase, Timing};
use search::wire::{
    Configure, Evaluate, Evaluation, Hello, LayerRetrieval, Measure, MeasureWhole, Measured,
    Memory, PROTOCOL, Progress, Refusal, Reply, Request, Value,
};

use crate::strategies;

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), Just(f64::MIN_POSITIVE), Just(f64::MAX), 0.0..1e9]
}

fn conditions() -> impl Strategy<Value = Conditions> {
    let phase = prop_oneof![
        any::<u32>().prop_map(|context| Phase::Decode { context }),
        any::<u32>().prop_map(|tokens| Phase::Prefill { tokens })
    ];
    (
        ".{0,20}",
        prop_oneof![Just(Dtype::F32), Just(Dtype::Bf16), Just(Dtype::Int8), Just(Dtype::Fp8)],
        any::<u32>(),
        any::<u32>(),
        phase,
    )
        .prop_map(|(device, dtype, batch, threads, phase)| Conditions {
            device,
            dtype,
            batch,
            threads,
            phase,
        })
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        (any::<u32>(), strategies::mixer(), any::<u32>())
            .prop_map(|(d_model, mixer, meta)| Part::mixer(d_model, mixer, meta)),
        (any::<u32>(), any::<u32>(), any::<bool>()).prop_map(|(d_model, width, is_gated)| {
            let kind = if is_gated { FfnKind::SwiGlu } else { FfnKind::Relu2 };
            Part::Ffn { d_model, ffn: Ffn { width, kind } }
        }),
        (any::<u32>(), any::<u32>()).prop_map(|(d_model, vocab)| Part::Head { d_model, vocab }),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let evaluate = (
        any::<u64>(),
        any::<u32>(),
        strategies::architecture(),
        any::<u64>(),
        any::<u64>(),
        any::<bool>(),
    )
        .prop_map(|(id, attempt, architecture, tokens, seed, resumed)| {
            let resume_from = resumed.then(|| PathBuf::from("/a folder/1.safetensors"));
            Request::Evaluate(Evaluate { id, attempt, architecture, tokens, seed, resume_from })
        });
    prop_oneof![
        evaluate,
        (any::<u64>(), part(), 0..3_u32, any::<bool>(), conditions()).prop_map(
            |(id, part, set, before_ffn, conditions)| {
                let key = LatencyKey { part, working_set_kib: 8 * set, before_ffn, conditions };
                Request::Measure(Measure::of(id, key))
            }
        ),
        (any::<u64>(), strategies::architecture(), conditions()).prop_map(
            |(id, architecture, conditions)| Request::MeasureWhole(MeasureWhole {
                id,
                architecture,
                conditions
            })
        ),
        any::<u64>().prop_map(|id| Request::Stop { id }),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    let hello =
        (any::<u32>(), ".*", prop::collection::vec(".*", 0..3), ".*", prop::option::of(".*"))
            .prop_map(|(protocol, worker, can, device, kernels)| {
                Reply::Hello(Hello { protocol, worker, can, device, kernels })
            });
    let progress = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), number(), number())
        .prop_map(|(id, step, tokens, tokens_total, loss, tokens_per_second)| {
            Reply::Progress(Progress {
                id,
                step,
                tokens,
                tokens_total,
                loss: -loss,
                tokens_per_second,
            })
        });
    let value = (number(), prop::option::of(number()))
        .prop_map(|(mean, standard_error)| Value { mean: -mean, standard_error });
    let result = (
        any::<u64>(),
        prop::collection::btree_map(".*", value, 0..4),
        any::<u64>(),
        number(),
        any::<bool>(),
        prop::collection::vec((any::<u64>(), number()), 0..4),
        prop::collection::vec((any::<u32>(), number()), 0..4),
    )
        .prop_map(|(id, values, tokens, seconds, kept, curve, snr)| {
            let checkpoint = kept.then(|| PathBuf::from("1.safetensors"));
            Reply::Result(Evaluation {
                id,
                values,
                parameters: tokens / 2,
                tokens,
                seconds,
                checkpoint,
                unsaved: None,
                parts: BTreeMap::new(),
                curve,
                retrieval: vec![LayerRetrieval {
                    layer: 3,
                    memory: Memory::Ffn,
                    queries: snr.clone(),
                    snr,
                }],
            })
        });
    let timing = (any::<u64>(), number(), number(), any::<u32>(), number(), ".*").prop_map(
        |(id, median_us, spread_us, samples, other_load, kernels)| {
            Reply::Timing(Measured {
                id,
                timing: Timing {
                    median_us,
                    spread_us,
                    samples,
                    other_load,
                    kernels,
                    millijoules: samples.is_multiple_of(2).then_some(spread_us),
                },
            })
        },
    );
    let refusal = || (any::<u64>(), ".*").prop_map(|(id, reason)| Refusal::new(id, reason));
    prop_oneof![
        hello,
        progress,
        result,
        timing,
        refusal().prop_map(Reply::Infeasible),
        refusal().prop_map(Reply::Failed)
    ]
}

proptest! {
    #[test]
    fn requests_read_back_from_one_line(request in request()) {
        let line = request.to_line().expect("every request is JSON");
        prop_assert!(!line.contains('\n'));
        prop_assert_eq!(Request::parse(&line), Ok(request));
    }

    #[test]
    fn replies_read_back_from_one_line(reply in reply()) {
        let line = reply.to_line().expect("finite replies are JSON");
        prop_assert!(!line.contains('\n'));
        prop_assert_eq!(Reply::parse(&line), Ok(reply));
    }
}

#[test]
fn the_configuration_of_a_campaign_reads_back() {
    let file = CampaignFile::parse(TEMPLATE).expect("the template is a campaign file");
    let request = Request::Configure(Configure {
        data: file.data,
        training: Some(file.training),
        tasks: Vec::new(),
        contents: BTreeMap::from([("data.corpus".to_owned(), "0a1b".to_owned().into())]),
        latency: Some(file.latency),
        checkpoints: Some(PathBuf::from("/checkpoints")),
    });
    let line = request.to_line().expect("a configuration is JSON");
    assert_eq!(Request::parse(&line), Ok(request));
}

/// The JSON that workers in other languages read and write; a change here is a new protocol.
#[test]
fn the_json_of_the_messages_stands() {
    let measure = Request::Measure(Measure {
        id: 7,
        part: Part::Mixer {
            d_model: 64,
            mixer: "dn(h=2,k=32,v=32)"
                .parse::<search::architecture::Layer>()
                .expect("a layer")
                .mixer
                .expect("a mixer"),
            meta_tokens: 0,
        },
        working_set_kib: 0,
        before_ffn: false,
        conditions: Conditions {
            device: "cpu".to_owned(),
            dtype: Dtype::F32,
            batch: 1,
            threads: 2,
            phase: Phase::Decode { context: 512 },
        },
    });
    assert_eq!(
        measure.to_line().expect("JSON"),
        r#"{"type":"measure","id":7,"part":"mixer","d_model":64,"mixer":{"kind":"deltanet","heads":2,"key_width":32,"value_width":32},"conditions":{"device":"cpu","dtype":"fp32","batch":1,"threads":2,"phase":"decode","context":512}}"#
    );
    let evaluate = r#"{"type":"evaluate","id":1,"attempt":1,"architecture":{"d_model":64,"vocab":256,"tied_embeddings":true,"layers":[{"mixer":{"kind":"attention","heads":2,"kv_heads":1,"head_width":32,"window":64,"qk_norm":false},"ffn_width":128}]},"tokens":1000,"seed":3}"#;
    assert_eq!(Request::parse(evaluate).expect("a request").to_line().expect("JSON"), evaluate);
    let replies = [
        r#"{"type":"hello","protocol":1,"worker":"mine 1.0","can":["evaluate"],"device":"cpu"}"#,
        r#"{"type":"progress","id":1,"step":2,"tokens":512,"tokens_total":1000,"loss":5.25,"tokens_per_second":100.0}"#,
        r#"{"type":"result","id":1,"values":{"bits_per_byte":{"mean":2.5,"standard_error":0.1},"x":{"mean":-1.0}},"parameters":10,"tokens":1000,"seconds":1.5,"curve":[[512,5.25]]}"#,
        r#"{"type":"timing","id":1,"median_us":10.5,"spread_us":0.5,"samples":100,"other_load":0.0,"kernels":"1"}"#,
        r#"{"type":"infeasible","id":1,"reason":"stopped"}"#,
        r#"{"type":"failed","id":1,"reason":"loss is NaN"}"#,
    ];
    for line in replies {
        let reply = Reply::parse(line).expect("a reply");
        assert_eq!(reply.to_line().expect("JSON"), line);
    }
    assert_eq!(PROTOCOL, 1);
}

#[test]
fn lines_that_are_no_replies_are_kept_with_a_reason() {
    let cases = [
        ("", "EOF"),
        ("Traceback (most recent call last):", "expected value"),
        (r#"{"type":"done","id":1}"#, "unknown variant `done`"),
        (r#"{"type":"failed","reason":"no id"}"#, "missing field `id`"),
        (r#"{"type":"failed","id":-1,"reason":""}"#, "invalid value"),
        (r#"{"type":"failed","id":1,"reason":""} and more"#, "trailing characters"),
        (
            r#"{"type":"result","id":1,"values":{"bits_per_byte":{"mean":NaN}},"parameters":1,"tokens":1,"seconds":1}"#,
            "not finite",
        ),
        (
            r#"{"type":"result","id":1,"values":{"bits_per_byte":{"mean":-Infinity}},"parameters":1,"tokens":1,"seconds":1}"#,
            "not finite",
        ),
        (
            r#"{"type":"result","id":1,"values":{"bits_per_byte":{"mean":null}},"parameters":1,"tokens":1,"seconds":1}"#,
            "not finite",
        ),
        (
            r#"{"type":"result","id":1,"values":{"bits_per_byte":{"mean":1e999}},"parameters":1,"tokens":1,"seconds":1}"#,
            "out of range",
        ),
        (
            r#"{"type":"result","id":1,"values":{"x":{"mean":1,"standard_error":-1}},"parameters":1,"tokens":1,"seconds":1}"#,
            "standard error of x",
        ),
        (
            r#"{"type":"timing","id":1,"median_us":-1,"spread_us":0.5,"samples":1,"other_load":0,"kernels":""}"#,
            "median_us must be",
        ),
    ];
    for (line, reason) in cases {
        let error = Reply::parse(line).expect_err(line);
        assert!(error.reason.contains(reason), "{line}: {error}");
        assert_eq!(error.line, line);
    }
    let long = "x".repeat(5000);
    let error = Reply::parse(&long).expect_err("not JSON");
    assert_eq!(error.line.chars().count(), 1001);
}

#[test]
fn a_worker_cannot_send_what_is_not_finite() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let values = BTreeMap::from([(
            "bits_per_byte".to_owned(),
            Value { mean: bad, standard_error: None },
        )]);
        let result = Reply::Result(Evaluation {
            id: 1,
            values,
            parameters: 1,
            tokens: 1,
            seconds: 1.0,
            checkpoint: None,
            unsaved: None,
            parts: BTreeMap::new(),
            curve: vec![],
            retrieval: vec![],
        });
        let error = result.to_line().expect_err("not finite");
        assert!(error.reason.contains("bits_per_byte must be finite"), "{error}");
        let progress = Reply::Progress(Progress {
            id: 1,
            step: 1,
            tokens: 1,
            tokens_total: 1,
            loss: bad,
            tokens_per_second: 1.0,
        });
        assert!(progress.to_line().is_err());
    }
}

#[test]
fn requests_hold_checked_architectures_only() {
    let line = r#"{"type":"evaluate","id":1,"attempt":1,"architecture":{"d_model":64,"vocab":256,"tied_embeddings":true,"layers":[]},"tokens":1000,"seed":3}"#;
    let error = Request::parse(line).expect_err("no layers");
    assert!(error.reason.contains("1 to 4096 layers"), "{error}");
}
