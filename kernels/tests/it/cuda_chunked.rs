//! The chunked kernels against their f64 definitions, run by the emulator.

use kernels::cuda::chunked::check::{Case, Problem};
use kernels::cuda::chunked::{Chunked, Rule, Shape};
use kernels::cuda::emulator::{self, Emulator};
use kernels::cuda::{Extent, Source};

const EXTENT: Extent =
    Extent { multiprocessors: 4, shared_bytes: 227 << 10, warps: 4, hopper: false };

/// The largest error of a case, all of them printed; an error of the emulator is infinite.
fn error_of(name: &str, case: Case, text: Option<&str>) -> Option<f64> {
    if !emulator::available() {
        eprintln!("SKIPPED: no g++, so the emulator cannot be built");
        return None;
    }
    let scale = (case.shape.key_width as f32).powf(-0.5);
    let chunked = Chunked::new(case.rule, case.shape, scale, EXTENT).expect("the shape is covered");
    let text = text.unwrap_or(Source::Chunked.text());
    let mut machine = Emulator::start_text(Source::Chunked, text, &chunked.defines(), EXTENT, 1)
        .expect("the emulator builds");
    let problem = Problem::new(&mut machine, case, 7).expect("the machine answers");
    match problem.errors(&mut machine, &chunked) {
        Ok(errors) => {
            let list: Vec<String> =
                errors.iter().map(|(what, error)| format!("{what} {error:.1e}")).collect();
            eprintln!("{name} {:?}: {}", chunked.blocks(), list.join("  "));
            Some(errors.iter().fold(0.0, |worst: f64, (_, error)| worst.max(*error)))
        }
        Err(error) => {
            eprintln!("{name}: {error}");
            Some(f64::INFINITY)
        }
    }
}

/// Products round their operands to bf16, 2⁻⁹ each.
const LIMIT: f64 = 8e-3;

fn shape(batch: usize, tokens: usize, heads: (usize, usize), widths: (usize, usize)) -> Shape {
    Shape {
        batch,
        tokens,
        heads: heads.0,
        key_heads: heads.1,
        key_width: widths.0,
        value_width: widths.1,
        wide: false,
    }
}

/// Products of fp32 numbers leave out 2⁻¹⁶.
const WIDE_LIMIT: f64 = 1e-4;

fn check(name: &str, rule: Rule, shape: Shape, decay: bool) {
    for (wide, limit) in [(false, LIMIT), (true, WIDE_LIMIT)] {
        let shape = Shape { wide, ..shape };
        let case = Case { rule, shape, decay, backward: true, compared: usize::MAX };
        let Some(error) = error_of(name, case, None) else { return };
        assert!(error < limit, "{name}, fp32 {wide}: relative error {error:.1e}");
    }
}

#[test]
fn the_gated_delta_rule_is_as_defined() {
    check("gated delta rule", Rule::Delta, shape(1, 100, (2, 1), (64, 32)), true);
    check("one position", Rule::Delta, shape(2, 1, (1, 1), (64, 32)), true);
    check("without decay", Rule::Delta, shape(1, 63, (1, 1), (64, 32)), false);
}

#[test]
fn linear_attention_is_as_defined() {
    check("linear attention", Rule::LinearAttention, shape(1, 129, (3, 1), (32, 48)), true);
    check("one position", Rule::LinearAttention, shape(2, 1, (1, 1), (32, 16)), true);
}

#[test]
fn a_missing_barrier_is_found() {
    let text = Source::Chunked.text();
    let faults = [
        (
            "no wait for the copies",
            "        gate_wait(&gates->full[stage], chunk / STAGES & 1);\n        if (chunk >= 2)",
            "        if (chunk >= 2)",
        ),
        (
            "no wait for the readers of a stage",
            "        if (round > 0) gate_wait(&gates->empty[stage], (round - 1) & 1);\n        u8* to = shared + ForwardShared",
            "        u8* to = shared + ForwardShared",
        ),
        (
            "no wait for the state",
            "        gate_wait(&gates->given[walker][chunk % 2], chunk / 2 & 1);\n",
            "",
        ),
        (
            "no wait for the readers of a tile",
            "            block_sync(); // the tiles are read\n",
            "",
        ),
        (
            "no wait for the whole slice",
            "            copies_wait<0>();\n        }\n        block_sync();\n",
            "            copies_wait<0>();\n        }\n",
        ),
    ];
    let shape = shape(1, 300, (1, 1), (32, 32));
    let case = Case { rule: Rule::Delta, shape, decay: true, backward: true, compared: 1 };
    for (name, from, to) in faults {
        assert!(text.contains(from), "{name}: the source has changed");
        let Some(error) = error_of(name, case, Some(&text.replace(from, to))) else { return };
        assert!(error > 2.0 * LIMIT, "{name}: not found, relative error {error:.1e}");
    }
}
