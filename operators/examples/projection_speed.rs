//! Projections forward and backward on this machine, ours and libtorch's in turn, in both precisions.
//!
//! `cargo run --release -p operators --example projection_speed [-- rows inputs outputs]`, from 8192, 512, 1536.

use std::io::Write as _;
use std::time::Instant;

use operators::ops::linear::{by_torch, project};
use operators::precision::{self, Precision};
use tch::{Device, Kind, Tensor};

const ROUNDS: usize = 9;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut sizes = [8192, 512, 1536];
    for (size, argument) in sizes.iter_mut().zip(std::env::args().skip(1)) {
        *size = argument.parse::<i64>()?;
    }
    let [rows, inputs, outputs] = sizes;
    let cases = [
        ("ours fp32", Precision::F32, Kind::Float),
        ("libtorch fp32", Precision::F32, Kind::Float),
        ("ours bf16", Precision::Bf16, Kind::Float),
        ("libtorch bf16", Precision::Bf16, Kind::BFloat16),
    ];
    let mut seconds = vec![Vec::new(); cases.len()];
    let mut peaks = [0.0_f64; 2];
    for round in 0..=ROUNDS {
        for (case, (name, precision, kind)) in cases.iter().enumerate() {
            let random = |shape: [i64; 2]| Tensor::randn(shape, (*kind, Device::Cpu));
            let (x, w) = (random([rows, inputs]), random([outputs, inputs]));
            let (x, w) = (x.set_requires_grad(true), w.set_requires_grad(true));
            let d_y = random([rows, outputs]);
            let peak = &mut peaks[usize::from(*precision == Precision::Bf16)];
            *peak = peak.max(precision::peak_flops(*precision));
            let start = Instant::now();
            let y = if name.starts_with("ours") {
                precision::with(*precision, || project(&x, &[&w]))
            } else {
                by_torch(&x, &[&w])
            };
            // the gradient of the output is given, as a layer above gives it
            let loss = (&y[0] * &d_y).sum(*kind);
            drop(Tensor::run_backward(&[loss], &[&x, &w], false, false));
            if round > 0 {
                seconds[case].push(start.elapsed().as_secs_f64());
            }
        }
    }
    let flops = 6.0 * (rows * inputs * outputs) as f64;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "[{rows}, {inputs}] → {outputs}, forward + backward, {} threads",
        tch::get_num_threads()
    )?;
    for ((name, precision, _), seconds) in cases.iter().zip(&mut seconds) {
        seconds.sort_by(f64::total_cmp);
        let peak = peaks[usize::from(*precision == Precision::Bf16)];
        let (median, fastest) = (seconds[ROUNDS / 2], seconds[0]);
        writeln!(
            out,
            "{name:14} {:6.0} GFLOP/s (fastest {:.0}), {:.0} % of the peak of {:.0}",
            flops / median / 1e9,
            flops / fastest / 1e9,
            100.0 * flops / median / peak,
            peak / 1e9
        )?;
    }
    Ok(())
}
