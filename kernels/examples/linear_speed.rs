//! Speed of the products of linear maps on this machine, beside the most that its instructions allow.
//!
//! `cargo run --release -p kernels --example linear_speed [-- tokens inputs outputs threads]`, from 8192, 512, 2304, 2.

use std::io::Write as _;
use std::time::Instant;

use kernels::cpu::{Arithmetic, Pool, Precision, peak_flops};
use kernels::linear::{Shape, d_input, d_weights, forward};

const ROUNDS: usize = 9;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut sizes = [8192, 512, 2304, 2];
    for (size, argument) in sizes.iter_mut().zip(std::env::args().skip(1)) {
        *size = argument.parse::<usize>()?;
    }
    let [tokens, inputs, outputs, threads] = sizes;
    let pool = Pool::new(threads);
    let parallel = |pieces: usize, piece: &(dyn Fn(usize) + Sync)| pool.for_each(pieces, piece);
    let shape = Shape { tokens, inputs };
    let numbers = |n: usize| (0..n).map(|i| (i * 7 % 13) as f32 / 13.0 - 0.5).collect::<Vec<f32>>();
    let (x, w, d_y) =
        (numbers(tokens * inputs), numbers(outputs * inputs), numbers(tokens * outputs));
    let (mut y, mut d_x, mut d_w) = (numbers(d_y.len()), numbers(x.len()), numbers(w.len()));
    let flops = 2.0 * (tokens * inputs * outputs) as f64;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "[{tokens}, {inputs}] · [{inputs}, {outputs}], {threads} threads, GFLOP/s: median (fastest) of {ROUNDS}"
    )?;
    for precision in [Precision::F32, Precision::Bf16] {
        let arithmetic = Arithmetic::from(precision);
        let mut seconds = [const { Vec::new() }; 3];
        let mut peaks = Vec::new();
        for _ in 0..=ROUNDS {
            peaks.push(peak_flops(arithmetic, threads, &parallel));
            let start = Instant::now();
            forward(arithmetic, shape, &x, &[&w], &mut [&mut y], &parallel);
            seconds[0].push(start.elapsed().as_secs_f64());
            let start = Instant::now();
            d_input(arithmetic, shape, &[&w], &[&d_y], &mut d_x, &parallel);
            seconds[1].push(start.elapsed().as_secs_f64());
            let start = Instant::now();
            d_weights(arithmetic, shape, &x, &[&d_y], &mut [&mut d_w], &parallel);
            seconds[2].push(start.elapsed().as_secs_f64());
        }
        peaks.sort_by(f64::total_cmp);
        write!(
            out,
            "{precision:?}: peak {:.0} ({:.0})",
            peaks[ROUNDS / 2] / 1e9,
            peaks[ROUNDS] / 1e9
        )?;
        for (name, seconds) in ["forward", "d input", "d weights"].iter().zip(&mut seconds) {
            seconds.remove(0); // the first round warms up
            seconds.sort_by(f64::total_cmp);
            write!(
                out,
                ", {name} {:.0} ({:.0})",
                flops / seconds[ROUNDS / 2] / 1e9,
                flops / seconds[0] / 1e9
            )?;
        }
        writeln!(out)?;
    }
    Ok(())
}
