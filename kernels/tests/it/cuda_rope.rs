//! Rotary positions on the GPU, run by the emulator, against the definition, and turned back.

use kernels::cuda::attention::rotations;
use kernels::cuda::chunked::Rows;
use kernels::cuda::emulator::{self, Emulator};
use kernels::cuda::rope::Rope;
use kernels::cuda::{
    Error, Extent, Machine, Source, bf16_bits, bf16_value, download_vec, upload_new,
};
use kernels::rope::definition;

use crate::random::{Random, f32s};

const EXTENT: Extent =
    Extent { multiprocessors: 2, shared_bytes: 48 << 10, warps: 4, hopper: false };
const THETA: f64 = 1e4;

/// Numbers on the machine in the kind of `rope`, and as they are there.
fn put(machine: &mut dyn Machine, rope: Rope, x: &[f32]) -> Result<(u64, Vec<f32>), Error> {
    if rope.wide {
        return Ok((upload_new(machine, x)?, x.to_vec()));
    }
    let bits: Vec<u16> = x.iter().map(|x| bf16_bits(*x)).collect();
    Ok((upload_new(machine, &bits)?, bits.iter().map(|x| bf16_value(*x)).collect()))
}

fn get(machine: &mut dyn Machine, rope: Rope, at: u64, count: usize) -> Result<Vec<f32>, Error> {
    if rope.wide {
        return download_vec(machine, at, count);
    }
    let bits: Vec<u16> = download_vec(machine, at, count)?;
    Ok(bits.iter().map(|x| bf16_value(*x)).collect())
}

fn error(got: &[f32], expected: &[f64]) -> f64 {
    let error: f64 = got.iter().zip(expected).map(|(g, e)| (f64::from(*g) - e).powi(2)).sum();
    (error / expected.iter().map(|e| e * e).sum::<f64>()).sqrt()
}

fn check(rope: Rope) -> Result<(), Error> {
    if !emulator::available() {
        eprintln!("SKIPPED: no g++, so the emulator cannot be built");
        return Ok(());
    }
    rope.check()?;
    let Rope { batch, tokens, heads, width, wide } = rope;
    let mut emulator = Emulator::start(Source::Rope, &rope.defines(), EXTENT, 3)?;
    let machine: &mut dyn Machine = &mut emulator;
    let (rows, columns) = (batch * tokens, heads * width);
    let stride = columns + 24;
    let drawn = f32s(&Random::new(rows as u64).signed(rows * stride));
    let (x_at, x) = put(machine, rope, &drawn)?;
    let table = upload_new(machine, &rotations(tokens, width, THETA))?;
    let bytes = rows * columns * if wide { 4 } else { 2 };
    let (y_at, back_at) = (machine.allocate(bytes)?, machine.allocate(bytes)?);
    machine.launch(&rope.turn(Rows { address: x_at, stride }, table, false, y_at))?;
    machine.launch(&rope.turn(Rows { address: y_at, stride: columns }, table, true, back_at))?;
    let before: Vec<f64> =
        x.chunks(stride).flat_map(|row| &row[..columns]).map(|x| f64::from(*x)).collect();
    let mut expected = before.clone();
    for (row, x) in expected.chunks_mut(columns).enumerate() {
        for head in x.chunks_mut(width) {
            definition(head, width, row % tokens, THETA);
        }
    }
    let limit = if wide { 1e-6 } else { 4e-3 };
    let turned = error(&get(machine, rope, y_at, rows * columns)?, &expected);
    let back = error(&get(machine, rope, back_at, rows * columns)?, &before);
    assert!(turned < limit, "{rope:?}: relative error {turned:.1e}");
    assert!(back < limit, "{rope:?}: turned back, relative error {back:.1e}");
    Ok(())
}

#[test]
fn rotary_positions_are_as_defined_and_turn_back() -> Result<(), Error> {
    check(Rope { batch: 2, tokens: 63, heads: 3, width: 32, wide: false })?;
    check(Rope { batch: 1, tokens: 1, heads: 1, width: 16, wide: true })?;
    check(Rope { batch: 3, tokens: 40, heads: 2, width: 96, wide: true })
}

#[test]
fn heads_that_do_not_split_into_pieces_are_refused() {
    let refused = Rope { batch: 1, tokens: 9, heads: 2, width: 24, wide: false }.check();
    assert!(refused.is_err_and(|error| error.to_string().contains("multiple of 16")));
}
