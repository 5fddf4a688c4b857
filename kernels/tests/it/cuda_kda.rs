//! Kimi Delta Attention over whole sequences against its f64 definition, run by the emulator.

use kernels::cuda::Extent;
use kernels::cuda::chunked::kda::check::Problem;
use kernels::cuda::chunked::kda::{Kda, Shape};
use kernels::cuda::emulator::{self, Emulators};

const EXTENT: Extent =
    Extent { multiprocessors: 4, shared_bytes: 227 << 10, warps: 4, hopper: false };

/// Products round their operands to bf16, 2⁻⁹ each.
const LIMIT: f64 = 8e-3;

fn check(name: &str, batch: usize, tokens: usize, heads: usize, widths: (usize, usize)) {
    if !emulator::available() {
        eprintln!("SKIPPED: no g++, so the emulator cannot be built");
        return;
    }
    let shape = Shape { batch, tokens, heads, key_width: widths.0, value_width: widths.1 };
    let mut machine = Emulators::start(EXTENT, 5).expect("the emulators start");
    let problem = Problem::new(&mut machine, shape, 7).expect("the machine answers");
    let kda = Kda::new(shape, problem.scale(), EXTENT).expect("the shape is covered");
    for (what, error) in problem.errors(&mut machine, &kda, usize::MAX).expect("it ends") {
        eprintln!("{name}: {what} {error:.1e}");
        assert!(error < LIMIT, "{name}: relative error of {what} {error:.1e}");
    }
}

#[test]
fn kimi_delta_attention_of_whole_sequences_is_as_defined() {
    check("two chunks", 1, 100, 2, (64, 32));
    check("three chunks, wide", 1, 150, 1, (128, 16));
    check("one position", 2, 1, 1, (32, 16));
    check("a chunk less one", 1, 63, 1, (96, 48));
}
