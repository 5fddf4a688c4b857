//! Kimi Delta Attention over whole sequences, prefill and training, against its f64 definition, run by the emulator.

use kernels::activation::softplus;
use kernels::cuda::chunked::Rows;
use kernels::cuda::chunked::kda::check::{Case, Forgets, OF_FEW, Problem};
use kernels::cuda::chunked::kda::decays::LogDecays;
use kernels::cuda::chunked::kda::{Kda, Shape};
use kernels::cuda::emulator::{self, Emulator, Emulators};
use kernels::cuda::{Extent, Machine, Source, bf16_bits, bf16_value, download_vec, upload_new};

use crate::random::{Random, assert_close, f32s};

const EXTENT: Extent =
    Extent { multiprocessors: 4, shared_bytes: 227 << 10, warps: 4, hopper: false };

/// Products round their operands to bf16, 2⁻⁹ each.
const LIMIT: f64 = 8e-3;
/// Products of fp32 numbers leave out 2⁻¹⁶.
const WIDE_LIMIT: f64 = 1e-4;

fn shape([batch, tokens, heads]: [usize; 3], [key_width, value_width]: [usize; 2]) -> Shape {
    Shape { batch, tokens, heads, key_width, value_width, wide: false }
}

/// The errors of a case on a machine, all of them printed.
fn errors(
    machine: &mut dyn Machine,
    kda: &Kda,
    name: &str,
    problem: &Problem,
) -> Vec<(&'static str, f64)> {
    let errors = problem.errors(machine, kda).unwrap_or_else(|error| {
        eprintln!("{name}: {error}");
        vec![("end", f64::INFINITY)]
    });
    let list: Vec<String> = errors.iter().map(|(what, e)| format!("{what} {e:.1e}")).collect();
    eprintln!("{name} {:?}: {}", kda.blocks(), list.join("  "));
    errors
}

fn assert_below(limit: f64, name: &str, errors: &[(&'static str, f64)]) {
    for (what, error) in errors {
        let limit = if OF_FEW.contains(what) { 4.0 * limit } else { limit };
        assert!(*error < limit, "{name}: relative error of {what} {error:.1e}");
    }
}

fn has_no_emulator() -> bool {
    let missing = !emulator::available();
    if missing {
        eprintln!("SKIPPED: no g++, so the emulator cannot be built");
    }
    missing
}

fn check_prefill(name: &str, shape: Shape) {
    if has_no_emulator() {
        return;
    }
    let mut machine = Emulators::start(EXTENT, 5).expect("the emulators start");
    let case = Case { shape, forgets: Forgets::Raw, compared: usize::MAX };
    let problem = Problem::new(&mut machine, case, 7).expect("the machine answers");
    let kda = Kda::prefill(shape, problem.scale(), EXTENT).expect("the shape is covered");
    assert_below(LIMIT, name, &errors(&mut machine, &kda, name, &problem));
}

#[test]
fn kimi_delta_attention_of_whole_sequences_is_as_defined() {
    check_prefill("two chunks", shape([1, 100, 2], [64, 32]));
    check_prefill("three chunks, wide", shape([1, 150, 1], [128, 16]));
    check_prefill("one position", shape([2, 1, 1], [32, 16]));
    check_prefill("a chunk less one", shape([1, 63, 1], [96, 48]));
}

/// The errors of training, in an emulator that watches all memory; `text` may hold faults.
fn training_errors(name: &str, case: Case, text: &str) -> Vec<(&'static str, f64)> {
    let scale = (case.shape.key_width as f32).powf(-0.5);
    let kda = Kda::training(case.shape, scale, EXTENT).expect("the shape is covered");
    let defines = kda.training_defines();
    let mut machine = Emulator::start_text(Source::Chunked, text, &defines, EXTENT, 1)
        .expect("the emulator builds");
    let problem = Problem::new(&mut machine, case, 7).expect("the machine answers");
    errors(&mut machine, &kda, name, &problem)
}

fn check_training(name: &str, shape: Shape, forgets: Forgets) {
    if has_no_emulator() {
        return;
    }
    for (wide, limit) in [(false, LIMIT), (true, WIDE_LIMIT)] {
        let case = Case { shape: Shape { wide, ..shape }, forgets, compared: usize::MAX };
        let name = format!("{name}, fp32 {wide}");
        let errors = training_errors(&name, case, Source::Chunked.text());
        assert_below(limit, &name, &errors);
    }
}

#[test]
fn it_trains_as_defined() {
    check_training("two heads, ragged", shape([1, 100, 2], [32, 48]), Forgets::Mild);
    check_training("one position", shape([20, 1, 2], [32, 48]), Forgets::Mild);
}

/// With decays that leave nothing, beside others that leave everything.
#[test]
fn strong_decays_train_as_defined() {
    check_training("strong decays", shape([1, 130, 1], [96, 32]), Forgets::Strong);
}

#[test]
fn with_equal_decays_it_trains_as_the_gated_delta_rule() {
    check_training("equal decays", shape([1, 63, 1], [96, 32]), Forgets::Alike);
}

#[test]
fn decays_and_their_gradients_are_as_defined() {
    if has_no_emulator() {
        return;
    }
    let mut random = Random::new(5);
    for wide in [false, true] {
        let decays = LogDecays { positions: 70, heads: 2, key_width: 24, wide };
        decays.check().expect("the shape is covered");
        let (rows, channels) = (70, 48);
        let defines = decays.defines();
        let mut machine = Emulator::start(Source::Chunked, &defines, EXTENT, 3).expect("it builds");
        let m = &mut machine;
        // some channels forget at once, some never
        let x = f32s(&random.uniform(rows * channels, -20.0, 10.0));
        let x: Vec<f32> =
            x.iter().map(|x| if wide { *x } else { bf16_value(bf16_bits(*x)) }).collect();
        let (bias, a_log) = (f32s(&random.signed(channels)), f32s(&random.uniform(2, -2.0, 1.0)));
        let d_g = f32s(&random.signed(rows * channels));
        let narrow: Vec<u16> = x.iter().map(|x| bf16_bits(*x)).collect();
        let at = if wide { upload_new(m, &x) } else { upload_new(m, &narrow) };
        let x_rows = Rows { address: at.expect("it answers"), stride: channels };
        let [bias_at, a_at, d_g_at] =
            [&bias, &a_log, &d_g].map(|values| upload_new(m, values).expect("it answers"));
        let parts = decays.parts();
        let lens = [rows * channels, rows * channels, parts * channels, parts * channels];
        let [g_at, d_x_at, d_bias_at, d_a_at] =
            lens.map(|len| m.allocate(4 * len).expect("it answers"));
        m.launch(&decays.forward(x_rows, (bias_at, a_at), g_at)).expect("it ends");
        let d_g_rows = Rows { address: d_g_at, stride: channels };
        let to = (d_x_at, d_bias_at, d_a_at);
        m.launch(&decays.backward((x_rows, bias_at, a_at), d_g_rows, to)).expect("it ends");

        let mut expected = [vec![0.0; lens[0]], vec![0.0; lens[0]], vec![0.0; 48], vec![0.0; 48]];
        for at in 0..rows * channels {
            let channel = at % channels;
            let rate = -f64::from(a_log[channel / 24]).exp();
            let (u, d) = (f64::from(x[at]) + f64::from(bias[channel]), f64::from(d_g[at]));
            let (g, d_x) = (rate * softplus(u), rate * d / (1.0 + (-u).exp()));
            (expected[0][at], expected[1][at]) = (g, d_x);
            expected[2][channel] += d_x;
            expected[3][channel] += d * g;
        }
        let g: Vec<f32> = download_vec(m, g_at, lens[0]).expect("it answers");
        assert_close(&g, &expected[0], 3e-6, "g");
        let d_x: Vec<f32> = if wide {
            download_vec(m, d_x_at, lens[1]).expect("it answers")
        } else {
            let bits: Vec<u16> = download_vec(m, d_x_at, lens[1]).expect("it answers");
            bits.into_iter().map(bf16_value).collect()
        };
        assert_close(&d_x, &expected[1], if wide { 3e-6 } else { 4e-3 }, "dx");
        for (at, expected, what) in [(d_bias_at, &expected[2], "db"), (d_a_at, &expected[3], "dA")]
        {
            let all: Vec<f32> = download_vec(m, at, parts * channels).expect("it answers");
            let sums: Vec<f32> =
                (0..channels).map(|c| all.iter().skip(c).step_by(channels).sum()).collect();
            assert_close(&sums, expected, 1e-5, what);
        }
    }
}

#[test]
fn a_missing_barrier_of_its_gradients_is_found() {
    if has_no_emulator() {
        return;
    }
    let text = Source::Chunked.text();
    let faults = [
        ("no wait for the tiles", "    block_sync(); // the tiles are there\n"),
        ("no wait for who reads them", "    block_sync(); // the tiles are read\n"),
    ];
    let case = Case { shape: shape([1, 128, 1], [32, 32]), forgets: Forgets::Mild, compared: 1 };
    for (name, line) in faults {
        assert!(text.contains(line), "{name}: the source has changed");
        let errors = training_errors(name, case, &text.replace(line, ""));
        let worst = errors.iter().fold(0.0, |worst: f64, (_, error)| worst.max(*error));
        assert!(worst > 2.0 * LIMIT, "{name}: not found, relative error {worst:.1e}");
    }
}
