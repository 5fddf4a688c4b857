//! All checks and measurements of the engine on the GPU at hand, in one command: first each mixer against its definition,
//! one token at a time and layer by layer, then a table of times beside their floors. Needs a driver and NVRTC; layer by
//! layer cuBLASLt as well.
//!
//! `gpu_engine [--json FILE] [--only TEXT]`: the table on standard output, the same as JSON lines in FILE; of the checks
//! and measurements only those whose name holds TEXT (`gene`: what came after the first kernels; `eight-bit`: matrices in 8
//! bits, beside bf16).

mod checks;
mod report;
mod times;

use std::io::Write;
use std::process::ExitCode;

use kernels::cuda::gpu::Gpu;
use profiles::ProfileError;
use search::Architecture;
use serde_json::json;

use report::Report;

fn main() -> ExitCode {
    let mut report = match Report::parse(std::env::args().skip(1)) {
        Ok(report) => report,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            return ExitCode::from(2);
        }
    };
    let ended = Gpu::open(0).map_err(ProfileError::from).and_then(|mut gpu| {
        // said before the GPU is closed, which can take long after a fault
        run(&mut gpu, &mut report).inspect_err(|error| drop(writeln!(std::io::stderr(), "{error}")))
    });
    if ended.is_ok() && report.failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(gpu: &mut Gpu, report: &mut Report) -> Result<(), ProfileError> {
    let facts = gpu.facts().clone();
    report.row("device", &json!({
        "gpu": facts.name, "multiprocessors": facts.multiprocessors, "l2_MB": facts.l2_bytes >> 20,
        "shared_KB": facts.shared_bytes >> 10, "driver": facts.driver_version,
    }));
    let copy_bytes_per_ms = times::copy(gpu, report)?;
    checks::one_token(gpu, report)?;
    checks::eight_bits(gpu, report)?;
    checks::layers(gpu, report)?;
    times::prefill(gpu, report)?;
    times::decode(gpu, report, copy_bytes_per_ms)?;
    times::mixers(gpu, report, copy_bytes_per_ms)?;
    times::eight_bits(gpu, report, copy_bytes_per_ms)?;
    for r in gpu.resources().to_vec() {
        report.row(
            &format!("resources {}", r.kernel),
            &json!({ "registers": r.registers, "spill_bytes": r.spill_store_bytes }),
        );
    }
    Ok(())
}

/// The architecture of a text.
fn parsed(text: &str) -> Architecture {
    text.parse().expect("the texts of this program are architectures")
}

/// How far `got` lies from `expected`, relative to its size.
fn relative_error<T: Copy + Into<f64>>(got: &[T], expected: &[f64]) -> f64 {
    let size = expected.iter().map(|x| x * x).sum::<f64>().sqrt();
    let difference = expected.iter().zip(got).map(|(e, g)| (e - (*g).into()).powi(2));
    let error = difference.sum::<f64>().sqrt() / size;
    if error.is_nan() || got.len() != expected.len() { f64::INFINITY } else { error }
}
