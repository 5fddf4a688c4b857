//! The norms, the short convolution and the values of Mamba2 on the GPU against their definitions in f64, forward and backward, run by the
//! emulator.

use kernels::cuda::chunked::Rows;
use kernels::cuda::emulator::{self, Emulator};
use kernels::cuda::norm::{Gate, Norm};
use kernels::cuda::rows;
use kernels::cuda::short_conv::ShortConv;
use kernels::cuda::values::Values;
use kernels::cuda::{Extent, Machine, Source, bf16_bits, bf16_value, download_vec, upload_new};

use crate::random::{Random, f32s, f64s};

const EXTENT: Extent =
    Extent { multiprocessors: 2, shared_bytes: 48 << 10, warps: 4, hopper: false };

fn start(source: Source, defines: &[(&'static str, u32)]) -> Option<Emulator> {
    if !emulator::available() {
        eprintln!("SKIPPED: no g++, so the emulator cannot be built");
        return None;
    }
    Some(Emulator::start(source, defines, EXTENT, 3).expect("the emulator builds"))
}

/// Numbers as a kernel holds them: f32, or bf16.
#[derive(Clone, Copy)]
struct Numbers {
    wide: bool,
}

impl Numbers {
    /// Puts numbers on the machine and returns them as they are there.
    fn put(self, machine: &mut dyn Machine, values: &[f64]) -> (u64, Vec<f64>) {
        let values = f32s(values);
        if self.wide {
            return (upload_new(machine, &values).expect("it answers"), f64s(&values));
        }
        let bits: Vec<u16> = values.iter().map(|x| bf16_bits(*x)).collect();
        let there = bits.iter().map(|x| f64::from(bf16_value(*x))).collect();
        (upload_new(machine, &bits).expect("it answers"), there)
    }

    fn room(self, machine: &mut dyn Machine, count: usize) -> u64 {
        machine.allocate(count * if self.wide { 4 } else { 2 }).expect("it answers")
    }

    fn get(self, machine: &mut dyn Machine, address: u64, count: usize) -> Vec<f64> {
        if self.wide {
            return f64s(&download_vec::<f32>(machine, address, count).expect("it answers"));
        }
        let bits: Vec<u16> = download_vec(machine, address, count).expect("it answers");
        bits.iter().map(|x| f64::from(bf16_value(*x))).collect()
    }

    fn limit(self) -> f64 {
        if self.wide { 1e-5 } else { 3e-3 }
    }
}

#[track_caller]
fn assert_near(what: &str, got: &[f64], expected: &[f64], limit: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let error = got.iter().zip(expected).map(|(g, e)| (g - e).powi(2)).sum::<f64>().sqrt();
    let size = expected.iter().map(|e| e * e).sum::<f64>().sqrt().max(1e-12);
    eprintln!("{what}: relative error {:.1e}", error / size);
    assert!(error / size < limit, "{what}: relative error {:.1e}", error / size);
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

fn silu_slope(x: f64) -> f64 {
    let s = 1.0 / (1.0 + (-x).exp());
    s * (1.0 + x * (1.0 - s))
}

/// One row and its gradients by the chain rule: y, then those of x, z and w.
fn norm_row(norm: &Norm, x: &[f64], z: &[f64], w: &[f64], d_y: &[f64]) -> [Vec<f64>; 4] {
    let u: Vec<f64> = match norm.gate {
        Gate::BeforeNorm => x.iter().zip(z).map(|(x, z)| x * silu(*z)).collect(),
        _ => x.to_vec(),
    };
    let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
    let after = |z: f64| match norm.gate {
        Gate::AfterNorm => silu(z),
        Gate::SigmoidAfterNorm => sigmoid(z),
        Gate::None | Gate::BeforeNorm => 1.0,
    };
    let slope = |z: f64| match norm.gate {
        Gate::SigmoidAfterNorm => sigmoid(z) * (1.0 - sigmoid(z)),
        _ => silu_slope(z),
    };
    let factor = f64::from(norm.factor);
    let r = (factor * u.iter().map(|u| u * u).sum::<f64>() + f64::from(norm.epsilon)).powf(-0.5);
    let all = 0..x.len();
    let y = all.clone().map(|i| u[i] * r * w[i] * after(z[i])).collect();
    let d_n: Vec<f64> = all.clone().map(|i| d_y[i] * w[i] * after(z[i])).collect();
    let dot: f64 = all.clone().map(|i| d_n[i] * u[i]).sum();
    let d_u: Vec<f64> = all.clone().map(|i| r * d_n[i] - factor * r.powi(3) * u[i] * dot).collect();
    let (d_x, d_z) = match norm.gate {
        Gate::BeforeNorm => (
            all.clone().map(|i| d_u[i] * silu(z[i])).collect(),
            all.clone().map(|i| d_u[i] * x[i] * silu_slope(z[i])).collect(),
        ),
        _ => (d_u, all.clone().map(|i| d_y[i] * u[i] * r * w[i] * slope(z[i])).collect()),
    };
    [y, d_x, d_z, all.map(|i| d_y[i] * u[i] * r * after(z[i])).collect()]
}

fn check_norm(outer: usize, inner: usize, width: usize, gate: Gate, wide: bool) {
    let norm = Norm { outer, inner, width, wide, gate, factor: 1.0 / width as f32, epsilon: 1e-5 };
    norm.check().expect("the shape is covered");
    let Some(mut emulator) = start(Source::Norm, &norm.defines()) else { return };
    let (machine, numbers): (&mut dyn Machine, _) = (&mut emulator, Numbers { wide });
    let mut random = Random::new((outer * width) as u64);
    let (row, stride) = (inner * width, inner * width + 16);
    let (x_at, x) = numbers.put(machine, &random.signed(outer * stride));
    let (z_at, z) = numbers.put(machine, &random.uniform(outer * stride, -3.0, 3.0));
    let (d_at, d_y) = numbers.put(machine, &random.signed(outer * row));
    let w = random.uniform(width, 0.5, 1.5);
    let w_at = upload_new(machine, &f32s(&w)).expect("it answers");
    let y_at = numbers.room(machine, outer * row);
    let (d_x_at, d_z_at) = (numbers.room(machine, outer * row), numbers.room(machine, outer * row));
    let parts_at = machine.allocate(norm.parts() * width * 4).expect("it answers");
    let rows = |address| Rows { address, stride };
    machine.launch(&norm.forward(rows(x_at), rows(z_at), w_at, y_at)).expect("it ends");
    let inputs = (rows(x_at), rows(z_at), w_at);
    machine.launch(&norm.backward(inputs, d_at, (d_x_at, d_z_at, parts_at))).expect("it ends");
    let mut expected: [Vec<f64>; 4] = std::array::from_fn(|_| Vec::new());
    let mut d_w = vec![0.0; width];
    for i in 0..outer * inner {
        let from = i / inner * stride + i % inner * width;
        let d = &d_y[i * width..][..width];
        let all = norm_row(&norm, &x[from..][..width], &z[from..][..width], &f64s(&f32s(&w)), d);
        for (sum, part) in d_w.iter_mut().zip(&all[3]) {
            *sum += part;
        }
        for (to, part) in expected.iter_mut().zip(all) {
            to.extend(part);
        }
    }
    let what = format!("{outer}×{inner}×{width} {gate:?} wide {wide}");
    let limit = numbers.limit();
    assert_near(
        &format!("{what}: y"),
        &numbers.get(machine, y_at, outer * row),
        &expected[0],
        limit,
    );
    let d_x = numbers.get(machine, d_x_at, outer * row);
    assert_near(&format!("{what}: dx"), &d_x, &expected[1], limit);
    if gate != Gate::None {
        let d_z = numbers.get(machine, d_z_at, outer * row);
        assert_near(&format!("{what}: dz"), &d_z, &expected[2], limit);
    }
    let parts: Vec<f32> =
        download_vec(machine, parts_at, norm.parts() * width).expect("it answers");
    let mut sums = vec![0.0; width];
    for (i, part) in parts.iter().enumerate() {
        sums[i % width] += f64::from(*part);
    }
    assert_near(&format!("{what}: dw"), &sums, &d_w, 1e-5);
}

#[test]
fn norms_and_their_gradients_are_as_defined() {
    check_norm(5, 3, 40, Gate::AfterNorm, false);
    check_norm(3, 1, 1000, Gate::BeforeNorm, true);
    check_norm(7, 1, 8, Gate::None, false);
    check_norm(3, 2, 32, Gate::SigmoidAfterNorm, true);
}

fn check_conv(batch: usize, tokens: usize, channels: usize, wide: bool, with_bias: bool) {
    let conv = ShortConv { batch, tokens, channels, wide };
    conv.check().expect("the shape is covered");
    let Some(mut emulator) = start(Source::ShortConv, &conv.defines()) else { return };
    let (machine, numbers): (&mut dyn Machine, _) = (&mut emulator, Numbers { wide });
    let mut random = Random::new((tokens * channels) as u64);
    let stride = channels + 8;
    let (x_at, x) = numbers.put(machine, &random.signed(batch * tokens * stride));
    let (d_at, d_y) = numbers.put(machine, &random.signed(batch * tokens * stride));
    let (w, b) = (f32s(&random.signed(channels * 4)), f32s(&random.signed(channels)));
    let w_at = upload_new(machine, &w).expect("it answers");
    let b_at = if with_bias { upload_new(machine, &b).expect("it answers") } else { 0 };
    let count = batch * tokens * channels;
    let (y_at, d_x_at) = (numbers.room(machine, count), numbers.room(machine, count));
    let parts = conv.parts().iter().product::<usize>();
    let parts_at = machine.allocate(parts * 4).expect("it answers");
    let rows = |address| Rows { address, stride };
    let ring_at = numbers.room(machine, batch * 4 * channels);
    let forward = conv.forward_keeping(rows(x_at), w_at, b_at, y_at, ring_at);
    machine.launch(&forward).expect("it ends");
    let back = conv.backward(rows(x_at), w_at, b_at, rows(d_at), d_x_at, parts_at);
    machine.launch(&back).expect("it ends");
    let ring = numbers.get(machine, ring_at, batch * 4 * channels);
    for (b, t) in (0..batch).flat_map(|b| (tokens.saturating_sub(4)..tokens).map(move |t| (b, t))) {
        let kept = &ring[(b * 4 + t % 4) * channels..][..channels];
        assert_eq!(kept, &x[(b * tokens + t) * stride..][..channels], "inputs kept of {t}");
    }
    let (mut y, mut d_x) = (vec![0.0; count], vec![0.0; count]);
    let mut d_w = vec![0.0; 5 * channels]; // taps, then the bias
    for (i, y) in y.iter_mut().enumerate() {
        let (row, c) = (i / channels, i % channels);
        let t = row % tokens;
        let taps = (0..4).filter(|j| t + j >= 3);
        let bias = if with_bias { f64::from(b[c]) } else { 0.0 };
        let sum = bias
            + taps
                .clone()
                .map(|j| f64::from(w[c * 4 + j]) * x[(row + j - 3) * stride + c])
                .sum::<f64>();
        *y = silu(sum);
        let d = d_y[row * stride + c] * silu_slope(sum);
        d_w[4 * channels + c] += d;
        for j in taps {
            d_x[(row + j - 3) * channels + c] += d * f64::from(w[c * 4 + j]);
            d_w[j * channels + c] += d * x[(row + j - 3) * stride + c];
        }
    }
    let what = format!("{batch}×{tokens}×{channels} wide {wide}");
    let limit = numbers.limit();
    assert_near(&format!("{what}: y"), &numbers.get(machine, y_at, count), &y, limit);
    assert_near(&format!("{what}: dx"), &numbers.get(machine, d_x_at, count), &d_x, limit);
    let mut sums = vec![0.0; 5 * channels];
    let parts: Vec<f32> = download_vec(machine, parts_at, parts).expect("it answers");
    for (i, part) in parts.iter().enumerate() {
        sums[i % (5 * channels)] += f64::from(*part);
    }
    assert_near(&format!("{what}: dw"), &sums, &d_w, 1e-5);
}

#[test]
fn the_short_convolution_and_its_gradients_are_as_defined() {
    check_conv(2, 63, 40, false, true);
    check_conv(1, 1, 8, true, false);
    check_conv(1, 100, 1032, true, true);
}

fn check_values(positions: usize, heads: usize, width: usize, wide: bool) {
    let values = Values { positions, heads, width, wide };
    values.check().expect("the shape is covered");
    let Some(mut emulator) = start(Source::Values, &values.defines()) else { return };
    let (machine, numbers): (&mut dyn Machine, _) = (&mut emulator, Numbers { wide });
    let mut random = Random::new((positions * width) as u64);
    let (row, stride) = (heads * width, heads * width + 24);
    let (x_at, x) = numbers.put(machine, &random.signed(positions * stride));
    let (d_y_at, d_y) = numbers.put(machine, &random.signed(positions * stride));
    let (d_v_at, d_v) = numbers.put(machine, &random.signed(positions * row));
    let (y_at, o) = numbers.put(machine, &random.signed(positions * row));
    let (a, skip) = (f32s(&random.signed(positions * heads)), f32s(&random.signed(heads)));
    let a_at = upload_new(machine, &a).expect("it answers");
    let skip_at = upload_new(machine, &skip).expect("it answers");
    let (v_at, d_x_at) =
        (numbers.room(machine, positions * row), numbers.room(machine, positions * row));
    let d_a_at = machine.allocate(a.len() * 4).expect("it answers");
    let parts = values.parts() * heads;
    let d_skip_at = machine.allocate(parts * 4).expect("it answers");
    let rows = |address| Rows { address, stride };
    let launches = [
        values.scale(rows(x_at), a_at, v_at),
        values.skip(rows(x_at), skip_at, y_at),
        values.backward(
            (rows(x_at), a_at, skip_at),
            (d_v_at, rows(d_y_at)),
            (d_x_at, d_a_at, d_skip_at),
        ),
    ];
    for launch in &launches {
        machine.launch(launch).expect("it ends");
    }
    let count = positions * row;
    let (mut v, mut y, mut d_x) = (vec![0.0; count], vec![0.0; count], vec![0.0; count]);
    let (mut d_a, mut d_skip) = (vec![0.0; a.len()], vec![0.0; heads]);
    for i in 0..count {
        let (t, column) = (i / row, i % row);
        let (head, from) = (column / width, t * stride + column);
        let (a, skip) = (f64::from(a[t * heads + head]), f64::from(skip[head]));
        v[i] = a * x[from];
        y[i] = o[i] + skip * x[from];
        d_x[i] = a * d_v[i] + skip * d_y[from];
        d_a[t * heads + head] += d_v[i] * x[from];
        d_skip[head] += d_y[from] * x[from];
    }
    let what = format!("values {positions}×{heads}×{width} wide {wide}");
    let limit = numbers.limit();
    assert_near(&format!("{what}: v"), &numbers.get(machine, v_at, count), &v, limit);
    assert_near(&format!("{what}: y"), &numbers.get(machine, y_at, count), &y, limit);
    assert_near(&format!("{what}: dx"), &numbers.get(machine, d_x_at, count), &d_x, limit);
    let got = download_vec::<f32>(machine, d_a_at, a.len()).expect("it answers");
    assert_near(&format!("{what}: da"), &f64s(&got), &d_a, 1e-5);
    let got: Vec<f32> = download_vec(machine, d_skip_at, parts).expect("it answers");
    let mut sums = vec![0.0; heads];
    for (i, part) in got.iter().enumerate() {
        sums[i % heads] += f64::from(*part);
    }
    assert_near(&format!("{what}: dD"), &sums, &d_skip, 1e-5);
}

#[test]
fn the_values_of_mamba2_and_their_gradients_are_as_defined() {
    check_values(63, 3, 64, false);
    check_values(1, 35, 16, true);
}

#[test]
fn rows_between_products_are_as_defined() {
    for (count, width) in [(1, 8), (63, 40), (5, 1000)] {
        let Some(mut machine) = start(Source::Rows, &rows::defines(false)) else { return };
        let mut all = rows::check::errors(&mut machine, count, width).expect("it ends");
        let norm = rows::check::norm(count, width);
        let Some(mut machine) = start(Source::Norm, &norm.defines()) else { return };
        all.extend(rows::check::norm_errors(&mut machine, count, width).expect("it ends"));
        for (name, error) in all {
            eprintln!("{count}×{width} {name}: relative error {error:.1e}");
            assert!(error < 3e-3, "{count}×{width} {name}: relative error {error:.1e}");
        }
    }
}
