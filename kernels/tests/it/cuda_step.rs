//! One token of each sequence through the recurrent mixers against their f64 definitions, run by the emulator.

use kernels::cuda::chunked::Rows;
use kernels::cuda::emulator::{self, Emulator};
use kernels::cuda::step::check::Problem;
use kernels::cuda::step::{ConvStep, RecurrentStep, Rule};
use kernels::cuda::{
    Error, Extent, Machine, Source, bf16_bits, bf16_value, download_vec, upload_new,
};

use crate::random::Random;

const EXTENT: Extent =
    Extent { multiprocessors: 4, shared_bytes: 227 << 10, warps: 4, hopper: false };

fn start(text: &str, defines: &[(&'static str, u32)]) -> Option<Emulator> {
    if !emulator::available() {
        eprintln!("SKIPPED: no g++, so the emulator cannot be built");
        return None;
    }
    let emulator = Emulator::start_text(Source::Step, text, defines, EXTENT, 3);
    Some(emulator.expect("the emulator builds"))
}

fn step(
    rule: Rule,
    batch: usize,
    (heads, key_heads): (usize, usize),
    (key_width, value_width): (usize, usize),
) -> RecurrentStep {
    RecurrentStep { rule, batch, heads, key_heads, key_width, value_width }
}

fn check(name: &str, step: RecurrentStep, decay: bool, largest_beta: f32) {
    step.check().expect("the shape is covered");
    let Some(mut machine) = start(Source::Step.text(), &step.defines()) else { return };
    let problem =
        Problem::new(&mut machine, step, decay, largest_beta, 5).expect("the machine answers");
    let [out, state] = problem.errors(&mut machine, usize::MAX).expect("it ends");
    eprintln!("{name}: output {out:.1e}, state {state:.1e}");
    assert!(out < 3e-3, "{name}: relative error of the output {out:.1e}"); // rounded to bf16
    assert!(state < 1e-6, "{name}: relative error of the state {state:.1e}");
}

#[test]
fn a_token_of_the_delta_family_is_as_defined() {
    check("Gated DeltaNet", step(Rule::Delta(1), 3, (4, 2), (128, 64)), true, 1.0);
    check("DeltaNet", step(Rule::Delta(1), 2, (3, 3), (64, 48)), false, 1.0);
    check("DeltaProduct", step(Rule::Delta(3), 2, (2, 1), (96, 32)), true, 2.0);
    check("DeltaProduct without decay", step(Rule::Delta(2), 1, (1, 1), (32, 16)), false, 2.0);
}

#[test]
fn a_token_of_kimi_delta_attention_is_as_defined() {
    check("KDA", step(Rule::Kda, 2, (3, 3), (128, 64)), true, 1.0);
    check("KDA, narrow", step(Rule::Kda, 1, (2, 2), (32, 16)), true, 1.0);
    check("KDA, of odd width", step(Rule::Kda, 1, (1, 1), (96, 48)), true, 1.0);
}

#[test]
fn a_token_of_mamba2_is_as_defined() {
    check("Mamba2", step(Rule::Mamba2, 3, (5, 1), (128, 64)), true, 1.0);
    check("Mamba2, narrow", step(Rule::Mamba2, 1, (2, 1), (32, 16)), true, 1.0);
}

#[test]
fn a_missing_barrier_is_found() {
    let text = Source::Step.text();
    let fault = "        block_sync();\n        kept = make_float4";
    assert!(text.contains(fault), "the source has changed");
    let changed = text.replace(fault, "        kept = make_float4");
    let step = step(Rule::Delta(1), 1, (1, 1), (64, 32));
    let Some(mut machine) = start(&changed, &step.defines()) else { return };
    let problem = Problem::new(&mut machine, step, true, 1.0, 5).expect("the machine answers");
    let error = problem.errors(&mut machine, 1).map_or(f64::INFINITY, |[out, _]| out);
    assert!(error > 1e-2, "not found, relative error {error:.1e}");
}

#[test]
fn positions_of_the_convolution_follow_each_other() -> Result<(), Error> {
    let conv = ConvStep { batch: 6, channels: 1032 };
    conv.check()?;
    let Some(mut emulator) = start(Source::Step.text(), &conv.defines()) else { return Ok(()) };
    let machine: &mut dyn Machine = &mut emulator;
    let mut random = Random::new(4);
    let (channels, stride) = (conv.channels, conv.channels + 16);
    let f32s = |x: Vec<f64>| -> Vec<f32> { x.iter().map(|x| *x as f32).collect() };
    let (weight, bias) = (f32s(random.signed(channels * 4)), f32s(random.signed(channels)));
    let taps = (upload_new(machine, &weight)?, upload_new(machine, &bias)?);
    let ring = machine.allocate(conv.batch * 4 * channels * 2)?;
    let y = machine.allocate(conv.batch * channels * 2)?;
    let mut seen: Vec<Vec<f64>> = Vec::new(); // [position][B · C]
    for position in 0..6_usize {
        let x: Vec<u16> =
            f32s(random.signed(conv.batch * stride)).iter().map(|x| bf16_bits(*x)).collect();
        let rows = Rows { address: upload_new(machine, &x)?, stride };
        let positions = upload_new(machine, &vec![position as u32; conv.batch])?;
        machine.launch(&conv.forward(rows, taps, ring, positions, y))?;
        seen.push(
            x.chunks(stride)
                .flat_map(|row| &row[..channels])
                .map(|x| f64::from(bf16_value(*x)))
                .collect(),
        );
        let got: Vec<u16> = download_vec(machine, y, conv.batch * channels)?;
        for (i, got) in got.iter().enumerate() {
            let c = i % channels;
            let sum = f64::from(bias[c])
                + (0..4)
                    .filter(|j| position + j >= 3)
                    .map(|j| f64::from(weight[c * 4 + j]) * seen[position + j - 3][i])
                    .sum::<f64>();
            let expected = sum / (1.0 + (-sum).exp());
            let got = f64::from(bf16_value(*got));
            assert!(
                (got - expected).abs() <= 5e-3 * expected.abs().max(0.02),
                "{position}, {i}: {got}, not {expected}"
            );
        }
    }
    Ok(())
}
