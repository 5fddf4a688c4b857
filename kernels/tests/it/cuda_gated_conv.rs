//! The gated short convolution on the GPU, run by the emulator: sequences against the CPU's kernels, which other tests hold
//! to the definition and to finite differences; then token after token against the definition.

use kernels::cpu::{Rows as CpuRows, serial};
use kernels::cuda::chunked::Rows;
use kernels::cuda::emulator::{self, Emulator};
use kernels::cuda::gated_conv::GatedConv;
use kernels::cuda::{
    Error, Extent, Machine, Source, bf16_bits, bf16_value, download_vec, upload_new,
};
use kernels::gated_conv::{cpu, definition, train};

use crate::random::{Random, f32s, f64s};

const EXTENT: Extent =
    Extent { multiprocessors: 2, shared_bytes: 48 << 10, warps: 4, hopper: false };

fn start(conv: &GatedConv) -> Option<Emulator> {
    if !emulator::available() {
        eprintln!("SKIPPED: no g++, so the emulator cannot be built");
        return None;
    }
    conv.check().expect("the shape is covered");
    let started = Emulator::start(Source::GatedConv, &conv.defines(), EXTENT, 3);
    Some(started.expect("the emulator builds"))
}

/// Random numbers on the machine, and as they are there.
fn put(
    machine: &mut dyn Machine,
    random: &mut Random,
    count: usize,
    wide: bool,
) -> Result<(u64, Vec<f32>), Error> {
    let values = f32s(&random.signed(count));
    if wide {
        return Ok((upload_new(machine, &values)?, values));
    }
    let bits: Vec<u16> = values.iter().map(|x| bf16_bits(*x)).collect();
    Ok((upload_new(machine, &bits)?, bits.iter().map(|x| bf16_value(*x)).collect()))
}

fn get(
    machine: &mut dyn Machine,
    address: u64,
    count: usize,
    wide: bool,
) -> Result<Vec<f32>, Error> {
    if wide {
        return download_vec(machine, address, count);
    }
    let bits: Vec<u16> = download_vec(machine, address, count)?;
    Ok(bits.iter().map(|x| bf16_value(*x)).collect())
}

#[track_caller]
fn assert_near(what: &str, got: &[f32], expected: &[f64], limit: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let error = got.iter().zip(expected).map(|(g, e)| (f64::from(*g) - e).powi(2)).sum::<f64>();
    let size = expected.iter().map(|e| e * e).sum::<f64>();
    let error = (error / size).sqrt();
    eprintln!("{what}: relative error {error:.1e}");
    assert!(error < limit, "{what}: relative error {error:.1e}");
}

fn check(conv: GatedConv) -> Result<(), Error> {
    let GatedConv { batch, tokens, channels, taps, wide } = conv;
    let Some(mut emulator) = start(&conv) else { return Ok(()) };
    let machine: &mut dyn Machine = &mut emulator;
    let mut random = Random::new((tokens * channels) as u64);
    let (positions, x_row, d_row) = (batch * tokens, 3 * channels + 8, channels + 16);
    let (x_at, x) = put(machine, &mut random, positions * x_row, wide)?;
    let (d_at, d_y) = put(machine, &mut random, positions * d_row, wide)?;
    let (weight_at, weight) = put(machine, &mut random, channels * taps, true)?;
    let bytes = if wide { 4 } else { 2 };
    let y_at = machine.allocate(positions * channels * bytes)?;
    let d_x_at = machine.allocate(positions * 3 * channels * bytes)?;
    let ring_len = batch * (taps - 1) * channels;
    let ring_at = upload_new(machine, &vec![0.0_f32; ring_len])?;
    let parts: usize = conv.parts().iter().product();
    let parts_at = machine.allocate(parts * 4)?;
    let rows = Rows { address: x_at, stride: x_row };
    let d_rows = Rows { address: d_at, stride: d_row };
    machine.launch(&conv.forward(rows, weight_at, y_at, ring_at))?;
    machine.launch(&conv.backward(rows, weight_at, d_rows, d_x_at, parts_at))?;

    let transposed = cpu::transpose_weight(&weight, taps);
    let rows = CpuRows::new(&x, positions, 3 * channels, x_row);
    let inputs = cpu::Inputs { batch, tokens, rows, before: None, weight: &transposed };
    let (mut y, mut d_x) = (vec![0.0; positions * channels], vec![0.0; positions * 3 * channels]);
    let mut d_weight = vec![0.0; weight.len()];
    cpu::forward(&inputs, &mut y, &serial);
    let d_y = CpuRows::new(&d_y, positions, channels, d_row);
    let mut to = train::Gradients { rows: &mut d_x, before: None, weight: &mut d_weight };
    train::backward(&inputs, d_y, &mut to, &serial);

    let limit = if wide { 1e-6 } else { 3e-3 };
    let what = format!("{batch}×{tokens}×{channels}, {taps} taps, wide {wide}");
    let got = get(machine, y_at, y.len(), wide)?;
    assert_near(&format!("{what}: y"), &got, &f64s(&y), limit);
    let got = get(machine, d_x_at, d_x.len(), wide)?;
    assert_near(&format!("{what}: dx"), &got, &f64s(&d_x), limit);
    let mut sums = vec![0.0; weight.len()]; // [C, k]
    let got: Vec<f32> = download_vec(machine, parts_at, parts)?;
    for (i, part) in got.iter().enumerate() {
        sums[i % channels * taps + i / channels % taps] += part;
    }
    assert_near(&format!("{what}: dw"), &sums, &f64s(&d_weight), 1e-5);

    // position p in row p % (k − 1), where the CPU has the oldest first
    let (ring, after): (Vec<f32>, _) = (download_vec(machine, ring_at, ring_len)?, inputs.after());
    let past = taps - 1;
    for (at, row) in after.chunks_exact(channels).enumerate() {
        let (sequence, i) = (at / past, at % past);
        let Some(position) = (tokens + i).checked_sub(past) else { continue };
        let kept = &ring[(sequence * past + position % past) * channels..][..channels];
        assert_eq!(kept, row, "{what}: what is left of position {position}");
    }
    Ok(())
}

#[test]
fn the_gated_convolution_and_its_gradients_are_those_of_the_cpu() -> Result<(), Error> {
    let conv = |batch, tokens, channels, taps, wide| {
        check(GatedConv { batch, tokens, channels, taps, wide })
    };
    conv(2, 63, 40, 3, false)?;
    conv(1, 1, 8, 8, true)?;
    conv(2, 100, 520, 2, true)?;
    conv(1, 67, 24, 8, true)?;
    conv(3, 32, 16, 6, false)
}

#[test]
fn positions_of_the_gated_convolution_follow_each_other() -> Result<(), Error> {
    for taps in [2, 3, 8] {
        let (batch, channels) = (3, 136);
        let conv = GatedConv { batch, tokens: 1, channels, taps, wide: false };
        let Some(mut emulator) = start(&conv) else { return Ok(()) };
        let machine: &mut dyn Machine = &mut emulator;
        let mut random = Random::new(4);
        let stride = 3 * channels + 8;
        let (weight_at, weight) = put(machine, &mut random, channels * taps, true)?;
        // whatever it holds counts for nothing at the first positions
        let ring = upload_new(machine, &vec![f32::NAN; batch * (taps - 1) * channels])?;
        let y_at = machine.allocate(batch * channels * 2)?;
        let mut states = vec![vec![0.0; (taps - 1) * channels]; batch];
        for position in 0..2 * taps as u32 {
            let (x_at, x) = put(machine, &mut random, batch * stride, false)?;
            let positions = upload_new(machine, &vec![position; batch])?;
            let rows = Rows { address: x_at, stride };
            machine.launch(&conv.step(rows, weight_at, ring, positions, y_at))?;
            let got = get(machine, y_at, batch * channels, false)?;
            let expected: Vec<f64> = x
                .chunks_exact(stride)
                .zip(&mut states)
                .flat_map(|(row, state)| {
                    definition(&f64s(&row[..3 * channels]), &f64s(&weight), taps, state)
                })
                .collect();
            assert_near(&format!("{taps} taps at {position}"), &got, &expected, 3e-3);
        }
    }
    Ok(())
}
