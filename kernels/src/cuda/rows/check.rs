//! The kernels of rows and the sum before a norm on a machine, against plain loops in f64. The same for the emulator and
//! for a GPU.

use super::{Each, Gates, Gather, Spread, Swiglu};
use crate::activation::{sigmoid, silu, softplus};
use crate::cuda::chunked::Rows;
use crate::cuda::norm::{Gate, Norm};
use crate::cuda::random::{Random, bf16s};
use crate::cuda::step::Decay;
use crate::cuda::{Error, Launch, Machine, bf16_bits, bf16_value, download_vec, upload_new};
use crate::norm::{RMS_EPS, rms_norm_definition};

/// Rows in memory as bf16, with NaN between them.
struct Matrix {
    rows: Rows,
    values: Vec<f64>, // without gaps
}

fn matrix(
    machine: &mut dyn Machine,
    random: &mut Random,
    rows: usize,
    columns: usize,
) -> Result<Matrix, Error> {
    let stride = columns.next_multiple_of(8) + 8;
    let values = bf16s(&random.many(rows * columns, -2.0, 2.0));
    let mut all = vec![0x7fc0; rows * stride];
    for (to, from) in all.chunks_mut(stride).zip(values.chunks(columns)) {
        to[..columns].copy_from_slice(from);
    }
    let rows = Rows { address: upload_new(machine, &all)?, stride };
    Ok(Matrix { rows, values: values.iter().map(|x| f64::from(bf16_value(*x))).collect() })
}

/// Runs `launch` and compares what it left at `to`; bf16 if `narrow`, else f32.
fn error(
    machine: &mut dyn Machine,
    launch: &Launch,
    to: u64,
    narrow: bool,
    expected: &[f64],
) -> Result<f64, Error> {
    machine.launch(launch)?;
    compare(machine, to, narrow, expected)
}

fn compare(
    machine: &mut dyn Machine,
    to: u64,
    narrow: bool,
    expected: &[f64],
) -> Result<f64, Error> {
    let got: Vec<f64> = if narrow {
        let got: Vec<u16> = download_vec(machine, to, expected.len())?;
        got.iter().map(|x| f64::from(bf16_value(*x))).collect()
    } else {
        let got: Vec<f32> = download_vec(machine, to, expected.len())?;
        got.iter().map(|x| f64::from(*x)).collect()
    };
    let square = |x: &f64| x * x;
    let size: f64 = expected.iter().map(square).sum();
    let error: f64 = got.iter().zip(expected).map(|(g, e)| square(&(g - e))).sum();
    let error = (error / size.max(1e-30)).sqrt();
    Ok(if error.is_nan() { f64::INFINITY } else { error })
}

/// Errors relative to the size of what is compared, of every kernel, of so many rows. Results in bf16 are off by 2⁻⁹
/// at most, those in f32 by 10⁻⁶.
pub fn errors(
    machine: &mut dyn Machine,
    rows: usize,
    width: usize,
) -> Result<Vec<(&'static str, f64)>, Error> {
    let mut random = Random::new((rows * width) as u64);
    let mut all = Vec::new();

    let x = matrix(machine, &mut random, rows, 2 * width)?;
    let swiglu = Swiglu { rows, width, wide: false };
    swiglu.check()?;
    let y = machine.allocate(rows * width * 2)?;
    let expected: Vec<f64> = x
        .values
        .chunks(2 * width)
        .flat_map(|row| (0..width).map(|i| silu(row[i]) * row[width + i]))
        .collect();
    all.push(("swiglu", error(machine, &swiglu.forward(x.rows, y), y, true, &expected)?));

    let each = Each { rows, width, wide: false };
    each.check()?;
    let (up, gate) =
        (matrix(machine, &mut random, rows, width)?, matrix(machine, &mut random, rows, width)?);
    let expected: Vec<f64> = up.values.iter().map(|x| x.max(0.0).powi(2)).collect();
    all.push(("relu2", error(machine, &each.relu2(up.rows, y), y, true, &expected)?));
    let expected: Vec<f64> =
        up.values.iter().zip(&gate.values).map(|(x, gate)| x * sigmoid(*gate)).collect();
    all.push(("gate", error(machine, &each.gate(up.rows, gate.rows, y), y, true, &expected)?));

    let d_y = matrix(machine, &mut random, rows, width)?;
    let d_x = machine.allocate(rows * 2 * width * 2)?;
    let expected: Vec<f64> = x
        .values
        .chunks(2 * width)
        .zip(d_y.values.chunks(width))
        .flat_map(|(x, d_y)| {
            let (gate, up) = x.split_at(width);
            let sigma = |x: f64| 1.0 / (1.0 + (-x).exp());
            let d_gate = (0..width).map(move |i| {
                let s = sigma(gate[i]);
                d_y[i] * up[i] * s * (1.0 + gate[i] * (1.0 - s))
            });
            d_gate.chain((0..width).map(move |i| d_y[i] * silu(gate[i])))
        })
        .collect();
    let back = swiglu.backward(x.rows, d_y.rows, d_x);
    all.push(("gradients of swiglu", error(machine, &back, d_x, true, &expected)?));

    let table = bf16s(&random.many(37 * width, -1.0, 1.0));
    let entries: Vec<u32> = (0..rows).map(|_| random.uniform(0.0, 37.0) as u32).collect();
    let expected: Vec<f64> = entries
        .iter()
        .flat_map(|entry| &table[*entry as usize * width..][..width])
        .map(|x| f64::from(bf16_value(*x)))
        .collect();
    let gather = Gather { rows, width };
    gather.check()?;
    let (table, entries) = (upload_new(machine, &table)?, upload_new(machine, &entries)?);
    all.push(("gather", error(machine, &gather.forward(table, entries, y), y, true, &expected)?));

    let x = matrix(machine, &mut random, rows, 3 * width)?;
    let spread = Spread { rows, steps: 3, width };
    spread.check()?;
    let wide = machine.allocate(rows * 3 * width * 2)?;
    all.push(("spread", error(machine, &spread.each(x.rows, wide), wide, true, &x.values)?));
    let last: Vec<f64> = x
        .values
        .chunks(3 * width)
        .flat_map(|row| std::iter::repeat_n(0.0, 2 * width).chain(row[..width].iter().copied()))
        .collect();
    let launch = spread.last(x.rows, wide);
    all.push(("spread, the last", error(machine, &launch, wide, true, &last)?));

    let (heads, steps) = (5, 2);
    let raw = matrix(machine, &mut random, rows, heads)?;
    let b = matrix(machine, &mut random, rows, steps * heads)?;
    let vectors = [random.many(heads, -1.0, 1.0), random.many(heads, -2.0, 1.0)];
    let [a_log, dt_bias] = vectors.each_ref().map(|vector| upload_new(machine, vector));
    let decay = Decay { raw: raw.rows, a_log: a_log?, dt_bias: dt_bias? };
    let [a_log, dt_bias] = vectors.map(|v| v.iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
    let dt: Vec<f64> =
        raw.values.iter().enumerate().map(|(i, x)| softplus(x + dt_bias[i % heads])).collect();
    let g: Vec<f64> = dt.iter().enumerate().map(|(i, dt)| -a_log[i % heads].exp() * dt).collect();
    let [g_at, factors] = [0, 1].map(|_| machine.allocate(rows * steps * heads * 4));
    let (g_at, factors) = (g_at?, factors?);
    let gates = Gates { positions: rows, heads, steps };
    let beta: Vec<f64> = b.values.iter().map(|x| 2.0 * sigmoid(*x)).collect();
    let launch = gates.delta(b.rows, Some(decay), 2.0, g_at, factors);
    all.push(("beta", error(machine, &launch, factors, false, &beta)?));
    let first: Vec<f64> = g
        .chunks(heads)
        .flat_map(|g| g.iter().copied().chain(std::iter::repeat_n(0.0, heads)))
        .collect();
    all.push(("decays of steps", compare(machine, g_at, false, &first)?));
    let launch = Gates { steps: 1, ..gates }.mamba2(decay, g_at, factors);
    all.push(("dt", error(machine, &launch, factors, false, &dt)?));
    all.push(("decays", compare(machine, g_at, false, &g)?));
    Ok(all)
}

/// The same of the norm of a sum, and of the sum with what is normed.
pub fn norm_errors(
    machine: &mut dyn Machine,
    rows: usize,
    width: usize,
) -> Result<Vec<(&'static str, f64)>, Error> {
    let mut random = Random::new((rows + width) as u64);
    let y = machine.allocate(rows * width * 2)?;
    let x = matrix(machine, &mut random, rows, width)?;
    let residual = bf16s(&random.many(rows * width, -2.0, 2.0));
    let weight = random.many(width, 0.5, 1.5);
    let rounded = |x: f64| f64::from(bf16_value(bf16_bits(x as f32)));
    let sum: Vec<f64> = residual
        .iter()
        .zip(&x.values)
        .map(|(r, x)| rounded(f64::from(bf16_value(*r)) + x))
        .collect();
    let norm = norm(rows, width);
    norm.check()?;
    let (residual, weight_at) = (upload_new(machine, &residual)?, upload_new(machine, &weight)?);
    let weight: Vec<f64> = weight.iter().map(|w| f64::from(*w)).collect();
    let expected = rms_norm_definition(&sum, &weight, RMS_EPS);
    let launch = norm.add(x.rows, residual, weight_at, y);
    let normed = error(machine, &launch, y, true, &expected)?;
    let of_sum = compare(machine, residual, true, &sum)?;
    let unit = rms_norm_definition(&x.values, &weight, RMS_EPS);
    let mut all = vec![("norm of a sum", normed), ("sum", of_sum)];
    // onto what the sum left there
    let mut expected = sum;
    for (name, weight_at, added) in
        [("sum with the normed", weight_at, &unit), ("sum with it as it is", 0, &x.values)]
    {
        expected.iter_mut().zip(added).for_each(|(sum, x)| *sum = rounded(*sum + x));
        let launch = norm.onto(x.rows, weight_at, residual);
        all.push((name, error(machine, &launch, residual, true, &expected)?));
    }
    Ok(all)
}

/// The norm that [`norm_errors`] runs.
pub fn norm(rows: usize, width: usize) -> Norm {
    Norm {
        outer: rows,
        inner: 1,
        width,
        wide: false,
        gate: Gate::None,
        factor: 1.0 / width as f32,
        epsilon: RMS_EPS as f32,
    }
}
