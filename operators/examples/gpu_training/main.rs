//! One mixer layer trained on the GPU at hand in bf16, and in fp32, with f32 weights: first its output and gradients
//! against the same layer in f32 on the CPU, then forward and backward timed. Kimi Delta Attention's rule alone is checked
//! against f64 and timed beside the gated delta rule and torch operators.
//!
//! `cargo run --release -p operators --example gpu_training [-- FILE]`: JSON lines, in FILE too; `-- FILE profile` runs
//! each layer twice and nothing else, `-- FILE NAME` only the layers whose name holds NAME, and of rules KDA's if it is `KDA`.

mod rules;

use std::io::Write as _;
use std::time::Instant;

use operators::Variable;
use operators::mixer::{Mixer, alone};
use search::architecture::{Attention, Delta, GatedConv, Kda, Mamba2, Mixer as Gene};
use tch::{Device, Kind, Tensor, nn};

fn genes(d: u32, head: u32) -> Vec<(&'static str, Gene)> {
    let heads = d / head;
    let attention = Attention::full(heads, heads.min(4), head);
    vec![
        ("Gated DeltaNet", Gene::Delta(Delta::gated(heads * 3 / 4, head, 2 * head))),
        ("DeltaNet", Gene::Delta(Delta::deltanet(heads, head, head))),
        // of the widths of Gated DeltaNet, beside which it is to be read
        ("KDA", Gene::Kda(Kda { heads: heads * 3 / 4, key_width: head, value_width: 2 * head })),
        (
            "Mamba2",
            Gene::Mamba2(Mamba2 {
                heads: 2 * d / 64,
                head_width: 64,
                state_width: 128,
                levels: None,
            }),
        ),
        ("attention", Gene::Attention(attention)),
        ("gated short convolution", Gene::GatedConv(GatedConv { channels: d, kernel_width: 3 })),
    ]
}

struct Layer {
    mixer: Box<dyn Mixer>,
    variables: Vec<Variable>,
    _store: nn::VarStore,
}

fn layer(device: Device, d: u32, gene: Gene) -> Result<Layer, Box<dyn std::error::Error>> {
    let store = nn::VarStore::new(device);
    let (mixer, variables) = alone(&store.root(), d, gene, 0)?;
    Ok(Layer { mixer, variables, _store: store })
}

impl Layer {
    /// The output and the gradients of x and of every variable, towards `d_y`.
    fn run(&self, x: &Tensor, d_y: &Tensor) -> Vec<Tensor> {
        let y = self.mixer.forward(x, None);
        let loss = y.flatten(0, -1).dot(&d_y.flatten(0, -1));
        let leaves: Vec<&Tensor> =
            self.variables.iter().map(|v| &v.tensor).chain(std::iter::once(x)).collect();
        let mut all = vec![y];
        all.extend(Tensor::run_backward(&[loss], &leaves, false, false));
        all
    }
}

/// Two runs of each recurrent layer and nothing else, for a profiler.
fn once(device: Device) -> Result<(), Box<dyn std::error::Error>> {
    for (_, gene) in genes(2048, 128) {
        let there = layer(device, 2048, gene)?;
        let random = || Tensor::randn([4, 4096, 2048], (Kind::BFloat16, device));
        let (x, d_y) = (random().set_requires_grad(true), random());
        for _ in 0..2 {
            drop(there.run(&x, &d_y));
        }
        tch::Cuda::synchronize(0);
    }
    Ok(())
}

/// Where lines go.
type Say<'a> = dyn FnMut(String) + 'a;

/// Median and spread (9th to 1st decile) of three runs in a row, each.
fn milliseconds(mut work: impl FnMut()) -> (f64, f64) {
    for _ in 0..3 {
        work();
    }
    let mut samples = Vec::new();
    for _ in 0..11 {
        tch::Cuda::synchronize(0);
        let start = Instant::now();
        for _ in 0..3 {
            work();
        }
        tch::Cuda::synchronize(0);
        samples.push(start.elapsed().as_secs_f64() * 1e3 / 3.0);
    }
    samples.sort_by(f64::total_cmp);
    (samples[5], samples[9] - samples[1])
}

fn error(got: &Tensor, expected: &Tensor) -> f64 {
    let (got, expected) =
        (got.to_device(Device::Cpu).to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let error = ((got - &expected).norm() / expected.norm()).double_value(&[]);
    if error.is_nan() { f64::INFINITY } else { error }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut file = std::env::args().nth(1).map(std::fs::File::create).transpose()?;
    let mut say = |line: String| {
        let _ = writeln!(std::io::stdout(), "{line}");
        if let Some(file) = &mut file {
            let _ = writeln!(file, "{line}");
        }
    };
    let device = operators::gpu::device(0)?;
    let only = std::env::args().nth(2).unwrap_or_default();
    if only == "profile" {
        return once(device);
    }
    let genes = |d, head| -> Vec<(&str, Gene)> {
        genes(d, head).into_iter().filter(|(name, _)| name.contains(&only)).collect()
    };
    let mut wrong = 0;
    // products round to bf16 at every step of the layer, or leave out 2⁻¹⁶
    let kinds = [(Kind::BFloat16, "", 4e-2), (Kind::Float, ", fp32", 1e-3)];
    let checks =
        kinds.iter().flat_map(|kind| genes(512, 128).into_iter().map(move |gene| (*kind, gene)));
    for ((kind, suffix, limit), (name, gene)) in checks {
        let (b, t, d) = (2, 300, 512);
        let random = || Tensor::randn([b, t, d], (Kind::Float, Device::Cpu)).to_kind(kind);
        let (x, d_y) = (random(), random());
        let reference = layer(Device::Cpu, d as u32, gene)?;
        let wide = |x: &Tensor| x.to_kind(Kind::Float);
        let expected = reference.run(&wide(&x).set_requires_grad(true), &wide(&d_y));
        let there = layer(device, d as u32, gene)?;
        let on_gpu = |x: &Tensor| x.to_device(device);
        let got = there.run(&on_gpu(&x).set_requires_grad(true), &on_gpu(&d_y));
        let names = there.variables.iter().map(|v| v.spec.name.as_str());
        let names = std::iter::once("y").chain(names).chain(std::iter::once("x"));
        let mut worst: f64 = 0.0;
        let mut list = Vec::new();
        for (name, (got, expected)) in names.zip(got.iter().zip(&expected)) {
            let error = error(got, expected);
            worst = worst.max(error);
            list.push(format!("{name} {error:.1e}"));
        }
        let verdict = if worst < limit { "ok" } else { "WRONG" };
        wrong += usize::from(worst >= limit);
        say(format!(
            "{{\"check\":\"{name}{suffix}\",\"verdict\":\"{verdict}\",\"errors\":\"{}\"}}",
            list.join(" ")
        ));
    }
    let with_rules = only.is_empty() || only == "KDA";
    if with_rules {
        wrong += rules::checks(device, &mut say);
        rules::times(device, &mut say);
    }
    let shapes = [
        (Kind::BFloat16, 2048, 4096, 4),
        (Kind::BFloat16, 1024, 4096, 4),
        (Kind::BFloat16, 2048, 8192, 2),
        (Kind::BFloat16, 2048, 32768, 1),
        (Kind::Float, 2048, 4096, 1),
    ];
    for (kind, d, t, b) in shapes {
        for (name, gene) in genes(d as u32, 128) {
            let there = layer(device, d as u32, gene)?;
            let random = || Tensor::randn([b, t, d], (kind, device));
            let (x, d_y) = (random().set_requires_grad(true), random());
            let (ms, spread) = milliseconds(|| drop(there.run(&x, &d_y)));
            let parameters: u64 = there.variables.iter().map(|v| v.spec.elements()).sum();
            let rate = (b * t) as f64 / ms * 1e3;
            say(format!(
                "{{\"layer\":\"{name}\",\"kind\":\"{kind:?}\",\"d\":{d},\"T\":{t},\"B\":{b},\"ms\":{ms:.3},\"spread_ms\":{spread:.3},\"tokens_per_s\":{rate:.0},\"parameters\":{parameters}}}"
            ));
        }
    }
    if wrong > 0 {
        return Err(format!("{wrong} layers are wrong").into());
    }
    Ok(())
}
