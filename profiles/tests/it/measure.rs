//! Timings of parts and models: what they refuse, and that they are timings.

use std::time::Duration;

use kernels::timing::Plan;
use profiles::backend::Backend;
use profiles::cpu::Profiler;
use search::Architecture;
use search::architecture::Ffn;
use search::latency::{Conditions, Dtype, LatencyKey, Part, Phase, keys};

fn profiler() -> Profiler {
    Profiler::new(Plan {
        warm_up: Duration::from_millis(1),
        samples_min: 5,
        samples_max: 50,
        time: Duration::from_millis(5),
        quiet_load: 1.0,
        agreement: 0.0,
        patience: Duration::ZERO,
    })
}

fn conditions(profiler: &Profiler, phase: Phase) -> Conditions {
    let device = profiler.hardware().to_owned();
    Conditions { device, dtype: Dtype::F32, batch: 1, threads: 1, phase }
}

#[test]
fn every_part_of_a_hybrid_is_timed_in_both_phases() {
    let text = "d=32,vocab=50,tied | attn(h=2,kv=1,k=8)+ffn(16) | swa(h=2,kv=2,k=8,w=7) | gdn(h=2,k=8,v=16) | dn(h=2,k=8,v=8) | m2(h=2,p=8,n=8)+moe(8,e=6,k=2,s=1) | par(h=2,kv=1,k=8,w=7,bh=2,bk=8,bv=8)";
    let architecture: Architecture = text.parse().unwrap();
    let profiler = profiler();
    for phase in
        [Phase::Decode { context: 0 }, Phase::Decode { context: 20 }, Phase::Prefill { tokens: 33 }]
    {
        for batch in [1, 3] {
            let conditions = Conditions { batch, ..conditions(&profiler, phase) };
            let mut timings: Vec<_> =
                keys(&architecture, &conditions).map(|key| profiler.part(&key).unwrap()).collect();
            timings.push(profiler.whole(&architecture, &conditions).unwrap());
            for timing in timings {
                assert!(timing.median_us > 0.0 && timing.median_us.is_finite());
                assert!(timing.spread_us >= 0.0 && timing.samples >= 5);
                assert_eq!(timing.kernels, kernels::version());
            }
        }
    }
}

#[test]
fn every_element_type_is_timed() {
    let profiler = profiler();
    let architecture: Architecture = "d=32,vocab=50 | gdn(h=2,k=8,v=16)+ffn(16)".parse().unwrap();
    for dtype in [Dtype::F32, Dtype::Bf16, Dtype::Int8] {
        for phase in [Phase::Decode { context: 3 }, Phase::Prefill { tokens: 20 }] {
            let conditions = Conditions { dtype, ..conditions(&profiler, phase) };
            assert!(profiler.whole(&architecture, &conditions).unwrap().median_us > 0.0);
            for key in keys(&architecture, &conditions) {
                assert!(profiler.part(&key).unwrap().median_us > 0.0, "{key}");
            }
        }
    }
}

#[test]
fn a_longer_cache_takes_longer() {
    let profiler = profiler();
    let architecture: Architecture = "d=32,vocab=2,tied | attn(h=2,kv=2,k=16)".parse().unwrap();
    let [short, long] = [16, 4096].map(|context| {
        let conditions = conditions(&profiler, Phase::Decode { context });
        let key = keys(&architecture, &conditions).next().unwrap();
        profiler.part(&key).unwrap().median_us
    });
    assert!(long > 4.0 * short, "{long} µs at 4096 against {short} µs at 16");
}

fn key(part: Part, conditions: Conditions) -> LatencyKey {
    LatencyKey { part, working_set_kib: 0, before_ffn: false, conditions }
}

#[test]
fn conditions_that_cannot_be_met_are_refused() {
    let profiler = profiler();
    let good = conditions(&profiler, Phase::Decode { context: 1 });
    let part = Part::Ffn { d_model: 8, ffn: Ffn::swiglu(8) };
    let bad = [
        (Conditions { device: "cuda:0".to_owned(), ..good.clone() }, "cuda:0"),
        (Conditions { threads: 0, ..good.clone() }, "threads"),
        (Conditions { threads: 100_000, ..good.clone() }, "threads"),
        (Conditions { batch: 0, ..good.clone() }, "batch"),
        (Conditions { dtype: Dtype::Fp8, ..good.clone() }, "on a GPU only"),
        (Conditions { phase: Phase::Prefill { tokens: 0 }, ..good.clone() }, "prompt"),
    ];
    for (conditions, says) in bad {
        let error = profiler.part(&key(part, conditions)).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    let empty = Part::Ffn { d_model: 0, ffn: Ffn::swiglu(8) };
    assert!(profiler.part(&key(empty, good.clone())).is_err());
    let endless: Architecture = "d=1048576,vocab=1048576 | ffn(1048576)".parse().unwrap();
    let error = profiler.whole(&endless, &good).unwrap_err().to_string();
    assert!(error.contains("memory"), "{error}");
}
