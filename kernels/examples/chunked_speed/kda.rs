//! Kimi Delta Attention: its kernels against its definition, and their times.

use kernels::cuda::chunked::kda::check::{Case, Forgets, OF_FEW, Problem};
use kernels::cuda::chunked::kda::{Kda, Shape};
use kernels::cuda::gpu::Gpu;
use kernels::cuda::{Error, Launch, Machine as _};
use serde_json::json;

use crate::report::{Report, time};
use crate::{LIMIT, WIDE_LIMIT};

fn shape(batch: usize, tokens: usize, heads: usize, widths: (usize, usize)) -> Shape {
    Shape { batch, tokens, heads, key_width: widths.0, value_width: widths.1, wide: false }
}

fn in_fp32(shape: Shape) -> Shape {
    Shape { wide: true, ..shape }
}

/// Prefill and training.
pub(crate) fn checks(gpu: &mut Gpu, report: &mut Report) -> Result<(), Error> {
    use Forgets::{Alike, Mild, Raw, Strong};
    let cases = [
        ("KDA", shape(2, 1000, 3, (128, 128)), Raw, 1),
        ("KDA, odd", shape(1, 129, 2, (96, 48)), Raw, 1),
        ("KDA, one position", shape(3, 1, 2, (64, 64)), Raw, 1),
        ("KDA, 8192", shape(1, 8192, 32, (128, 128)), Raw, 1),
        ("KDA training", shape(2, 1000, 4, (128, 128)), Mild, 3),
        ("KDA training, wide values", shape(1, 700, 2, (128, 256)), Mild, 2),
        ("KDA training, strong decays", shape(1, 700, 2, (128, 128)), Strong, 2),
        ("KDA training, decays alike", shape(2, 63, 3, (64, 64)), Alike, 3),
        ("KDA training, odd", shape(1, 129, 2, (96, 48)), Strong, 2),
        ("KDA training, one position", shape(3, 1, 2, (32, 16)), Mild, 3),
        ("KDA training, fp32", in_fp32(shape(1, 700, 2, (128, 256))), Mild, 2),
        ("KDA training, fp32, strong decays", in_fp32(shape(1, 300, 2, (128, 64))), Strong, 2),
        ("KDA training, fp32, odd", in_fp32(shape(1, 129, 2, (96, 48))), Strong, 2),
    ];
    for (name, shape, forgets, compared) in cases {
        let problem = Problem::new(gpu, Case { shape, forgets, compared }, 11)?;
        let kda = if forgets == Raw { Kda::prefill } else { Kda::training };
        let kda = kda(shape, problem.scale(), gpu.extent())?;
        let errors = problem.errors(gpu, &kda)?;
        problem.free(gpu)?;
        let limit = if shape.wide { WIDE_LIMIT } else { LIMIT };
        let (of_few, all): (Vec<_>, Vec<_>) =
            errors.into_iter().partition(|(what, _)| OF_FEW.contains(what));
        report.check(name, &all, limit);
        if !of_few.is_empty() {
            report.check(&format!("{name}, of few"), &of_few, 4.0 * limit);
        }
    }
    Ok(())
}

pub(crate) fn prefill(gpu: &mut Gpu, report: &mut Report) -> Result<(), Error> {
    for (name, shape) in [
        ("KDA 1x8192", shape(1, 8192, 32, (128, 128))),
        ("KDA 1x32768", shape(1, 32768, 32, (128, 128))),
        ("KDA 8x4096", shape(8, 4096, 8, (128, 128))),
    ] {
        let case = Case { shape, forgets: Forgets::Raw, compared: 1 };
        let problem = Problem::new(gpu, case, 11)?;
        let kda = Kda::prefill(shape, problem.scale(), gpu.extent())?;
        let launches = problem.forward(&kda, false);
        let (prepare, _) = time(gpu, &launches[..1])?;
        let (walk, _) = time(gpu, &launches[1..])?;
        let (ms, spread) = time(gpu, &launches)?;
        report.row(
            &format!("prefill {name}"),
            &json!({
                "ms": ms, "spread_ms": spread, "prepare_ms": prepare, "walk_ms": walk,
                "GFLOP": shape.flops() / 1e9, "GB": shape.bytes(false) / 1e9,
            }),
        );
        problem.free(gpu)?;
    }
    Ok(())
}

/// At the shapes of the gated delta rule's training.
pub(crate) fn training(gpu: &mut Gpu, report: &mut Report) -> Result<(), Error> {
    let widths = (128, 256);
    for (name, shape) in [
        ("KDA 4x4096", shape(4, 4096, 12, widths)),
        ("KDA 4x4096, 16 heads of 128", shape(4, 4096, 16, (128, 128))),
        ("KDA 1x32768", shape(1, 32768, 12, widths)),
        ("KDA 4x4096 fp32", in_fp32(shape(4, 4096, 12, widths))),
    ] {
        let case = Case { shape, forgets: Forgets::Mild, compared: 1 };
        let problem = Problem::new(gpu, case, 11)?;
        let kda = Kda::training(shape, problem.scale(), gpu.extent())?;
        let (forward, backward) = (problem.forward(&kda, true), problem.backward(&kda));
        let (prepare, _) = time(gpu, &forward[..1])?;
        let (walk, _) = time(gpu, &forward[1..])?;
        let (back, _) = time(gpu, &backward[..1])?;
        let (rest, _) = time(gpu, &backward[1..])?;
        let all: Vec<Launch> = forward.into_iter().chain(backward).collect();
        let (ms, spread) = time(gpu, &all)?;
        report.row(
            &format!("training {name}"),
            &json!({
                "ms": ms, "spread_ms": spread, "prepare_ms": prepare, "walk_ms": walk,
                "walk_back_ms": back, "gradients_ms": rest,
                "GFLOP": 3.0 * shape.flops() / 1e9, "GB": 3.0 * shape.bytes(true) / 1e9,
            }),
        );
        problem.free(gpu)?;
    }
    Ok(())
}
