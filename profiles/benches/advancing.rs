//! A decode step as it is timed beside one of a run that really advances: `cargo bench -p profiles --bench advancing`;
//! `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` asks for huge pages as the driver does.
//!
//! A step of a log-linear mixer uses two states or ten, as the position has it. Its timing goes through 16 or 32 chosen
//! steps, which on average use as many as those within half the context do. Here every one of these is taken once, from
//! a prompt of half the context to one and a half of it.

use std::io::{self, Write};

use kernels::timing::{Plan, measure_after};
use profiles::Weights;
use profiles::backend::Backend;
use profiles::cpu::Profiler;
use profiles::engine::Engine;
use search::Architecture;
use search::latency::{Conditions, Dtype, Phase};

/// Log-linear stacks, and two without for comparison.
const STACKS: [&str; 6] = [
    "d=128,vocab=256,tied | 4*lgdn(h=3,k=32,v=64,l=12)+ffn(384)",
    "d=128,vocab=256,tied | 4*lm2(h=8,p=32,n=64,l=12)+ffn(384)",
    "d=96,vocab=256,tied | lgdn(h=2,k=32,v=64,l=12) | lm2(h=6,p=32,n=32,l=12)+ffn(192)",
    "d=256,vocab=256,tied | 2*lgdn(h=6,k=32,v=64,l=12)+ffn(768)",
    "d=128,vocab=256,tied | 4*gdn(h=3,k=32,v=64)+ffn(384)",
    "d=128,vocab=256,tied | 4*m2(h=8,p=32,n=64)+ffn(384)",
];

const CONTEXT: u32 = 512;
const VOCAB: u32 = 256;

fn main() -> io::Result<()> {
    let plan = Plan::default();
    let profiler = Profiler::new(plan);
    let mut out = io::stdout().lock();
    writeln!(out, "{}, {}, decode at {CONTEXT}", profiler.hardware(), kernels::version())?;
    for text in STACKS {
        let architecture: Architecture = text.parse().expect("the stacks above are valid");
        let conditions = Conditions {
            device: profiler.hardware().to_owned(),
            dtype: Dtype::F32,
            batch: 1,
            threads: 1,
            phase: Phase::Decode { context: CONTEXT },
        };
        let timed = profiler.whole(&architecture, &conditions).expect("it can be timed here");
        let engine = Engine::new(&architecture, &Weights::random(&architecture, 1), 1);
        let token = |at: u32| (7 * at + at / 3) % VOCAB;
        let prompt: Vec<u32> = (0..CONTEXT / 2).map(token).collect();
        let steps = CONTEXT / 2..3 * CONTEXT / 2;
        let state = std::cell::RefCell::new(engine.state(1));
        let run = measure_after(
            &plan,
            || {
                let mut new = engine.state(1);
                engine.prefill(&mut new, &prompt).expect("the prompt is of this vocabulary");
                state.replace(new);
            },
            || {
                let mut state = state.borrow_mut();
                for at in steps.clone() {
                    engine.decode(&mut state, &[token(at)]).expect("so is the token");
                }
            },
        );
        let step_us = run.median_us / f64::from(CONTEXT);
        writeln!(
            out,
            "timed {:7.2} ± {:.2} µs, advancing {step_us:7.2} ± {:.2} µs, {:+.1} %{}  {text}",
            timed.median_us,
            timed.spread_us,
            run.spread_us / f64::from(CONTEXT),
            100.0 * (timed.median_us / step_us - 1.0),
            if timed.is_disturbed() || run.other_load.is_some_and(|load| load > 0.05) {
                " !"
            } else {
                ""
            },
        )?;
        out.flush()?;
    }
    Ok(())
}
