//! A decode step as it is timed beside one of a run that really advances: `cargo bench -p profiles --bench advancing`;
//! `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` asks for huge pages as the driver does.
//!
//! A step of a log-linear mixer uses two states or ten, as the position has it. Its timing goes through 16 or 32 chosen
//! steps, which on average use as many as those within half the context do. Here every one of these is taken once, from
//! a prompt of half the context to one and a half of it.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use kernels::timing::{Plan, median_and_spread};
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

/// Time that runs go on for, and their number at least.
const TIME: Duration = Duration::from_secs(2);
const RUNS_MIN: usize = 9;

const CONTEXT: u32 = 512;
const VOCAB: u32 = 256;

fn main() -> io::Result<()> {
    let profiler = Profiler::new(Plan::default());
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
        // Each step by itself: what disturbs one of them disturbs no other.
        let mut took_us = vec![Vec::new(); steps.len()];
        let begin = Instant::now();
        while took_us[0].len() < RUNS_MIN || begin.elapsed() < TIME {
            let mut state = engine.state(1);
            engine.prefill(&mut state, &prompt).expect("the prompt is of this vocabulary");
            for (at, took_us) in steps.clone().zip(&mut took_us) {
                let start = Instant::now();
                engine.decode(&mut state, &[token(at)]).expect("so is the token");
                took_us.push(start.elapsed().as_secs_f64() * 1e6);
            }
        }
        let runs = took_us[0].len();
        let medians = took_us.iter_mut().map(|took_us| median_and_spread(took_us).0);
        let step_us = medians.sum::<f64>() / steps.len() as f64;
        writeln!(
            out,
            "timed {:7.2} ± {:.2} µs, advancing {step_us:7.2} µs over {runs} runs, {:+.1} %{}  {text}",
            timed.median_us,
            timed.spread_us,
            100.0 * (timed.median_us / step_us - 1.0),
            if timed.is_disturbed() { " !" } else { "" },
        )?;
        out.flush()?;
    }
    Ok(())
}
