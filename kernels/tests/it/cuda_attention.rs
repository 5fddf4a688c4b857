//! The kernels of attention against their f64 definition, run by the emulator.

use kernels::cuda::attention::check::{Case, Problem};
use kernels::cuda::attention::{Attention, Shape};
use kernels::cuda::emulator::{self, Emulator, Emulators};
use kernels::cuda::{Extent, Source};

const EXTENT: Extent =
    Extent { multiprocessors: 4, shared_bytes: 227 << 10, warps: 4, hopper: false };

/// Weights of the softmax are rounded to bf16, and so is the output, 2⁻⁹ each.
const LIMIT: f64 = 5e-3;

/// The errors of the output and of the cache; an error of the emulator is infinite.
fn errors_of(name: &str, case: Case, text: Option<&str>) -> Option<[f64; 2]> {
    if !emulator::available() {
        eprintln!("SKIPPED: no g++, so the emulator cannot be built");
        return None;
    }
    let attention = Attention::new(case.shape, EXTENT).expect("the shape is covered");
    let text = text.unwrap_or(Source::Attention.text());
    let mut machine =
        Emulator::start_text(Source::Attention, text, &attention.defines(), EXTENT, 1)
            .expect("the emulator builds");
    let problem = Problem::new(&mut machine, case, &attention, 7).expect("the machine answers");
    let errors = problem.errors(&mut machine, &attention).unwrap_or_else(|error| {
        eprintln!("{name}: {error}");
        [f64::INFINITY; 2]
    });
    eprintln!("{name}: output {:.1e}, cache {:.1e}", errors[0], errors[1]);
    Some(errors)
}

fn shape(batch: usize, tokens: usize, heads: (usize, usize), width: usize, window: usize) -> Shape {
    let window = (window > 0).then_some(window);
    Shape { batch, tokens, heads: heads.0, kv_heads: heads.1, width, window }
}

fn check(name: &str, shape: Shape, norm: bool, past: usize) {
    let case = Case { shape, norm, past, compared: usize::MAX };
    let Some([output, cache]) = errors_of(name, case, None) else { return };
    assert!(output < LIMIT, "{name}: relative error {output:.1e}");
    // the same numbers rounded, but for those that fp32 brings to the other side
    assert!(cache < 1e-3, "{name}: relative error of the cache {cache:.1e}");
}

#[test]
fn attention_of_whole_sequences_is_as_defined() {
    check("grouped heads", shape(2, 300, (4, 2), 64, 0), true, 0);
    check("small blocks", shape(1, 100, (2, 1), 128, 0), false, 0);
    check("window of one tile", shape(1, 333, (2, 2), 32, 64), false, 0);
    check("odd window", shape(1, 200, (3, 1), 32, 37), true, 0);
    check("two positions", shape(2, 2, (2, 1), 96, 0), true, 0);
}

#[test]
fn attention_of_one_token_over_the_cache_is_as_defined() {
    check("split", shape(1, 1, (4, 2), 64, 0), true, 700);
    check("nothing before", shape(1, 1, (2, 2), 128, 0), false, 0);
    check("many heads", shape(3, 1, (20, 1), 32, 0), false, 100);
    check("window in a ring", shape(2, 1, (2, 1), 96, 50), true, 333);
    check("window split", shape(1, 1, (2, 2), 32, 600), false, 999);
}

#[test]
fn a_missing_barrier_is_found() {
    let text = Source::Attention.text();
    let whole = shape(1, 300, (1, 1), 32, 0);
    let step = shape(1, 1, (2, 1), 32, 0);
    let faults = [
        (
            "tiles not there",
            whole,
            "        block_sync(); // tile i is there for all",
            "        // tile i is there for all",
        ),
        (
            "no wait for the copies",
            whole,
            "        copies_wait<0>();\n        block_sync(); // tile i",
            "        block_sync(); // tile i",
        ),
        ("units overwritten", step, "        warp_sync(); // unit i is", "        // unit i is"),
        ("units not there", step, "        copies_wait<STAGES - 2>();\n", ""),
        (
            "rings not free",
            step,
            "    block_sync(); // the rings are free",
            "    // the rings are free",
        ),
    ];
    for (name, shape, from, to) in faults {
        assert!(text.contains(from), "{name}: the source has changed");
        let case = Case { shape, norm: false, past: 700, compared: usize::MAX };
        let Some([error, _]) = errors_of(name, case, Some(&text.replace(from, to))) else { return };
        assert!(error > 2.0 * LIMIT, "{name}: not found, relative error {error:.1e}");
    }
}

/// One that has products of four warps.
const HOPPER: Extent = Extent { hopper: true, ..EXTENT };

/// The errors where whole sequences are taken by groups of four warps.
fn wide_errors_of(name: &str, case: Case) -> Option<[f64; 2]> {
    if !emulator::available() {
        eprintln!("SKIPPED: no g++, so the emulator cannot be built");
        return None;
    }
    let attention = Attention::new(case.shape, HOPPER).expect("the shape is covered");
    assert!(attention.wide().is_some(), "{name}: the other kernel was taken");
    let mut machine = Emulators::start(HOPPER, 5).expect("the emulators start");
    let problem = Problem::new(&mut machine, case, &attention, 7).expect("the machine answers");
    let errors = problem.errors(&mut machine, &attention).expect("the kernel ends");
    eprintln!("{name}: output {:.1e}, cache {:.1e}", errors[0], errors[1]);
    Some(errors)
}

#[test]
fn attention_of_groups_of_four_warps_is_as_defined() {
    let cases = [
        ("grouped heads, several tiles a block", shape(2, 300, (4, 2), 64, 0)),
        ("two groups", shape(1, 333, (3, 1), 128, 0)),
        ("a slab half empty, odd window", shape(1, 290, (2, 2), 96, 37)),
        ("window of one tile", shape(1, 500, (1, 1), 64, 128)),
        ("two positions", shape(3, 2, (2, 1), 128, 0)),
    ];
    for (name, shape) in cases {
        let case = Case { shape, norm: true, past: 0, compared: 25 };
        let Some([output, _]) = wide_errors_of(name, case) else { return };
        assert!(output < LIMIT, "{name}: relative error {output:.1e}");
    }
}
