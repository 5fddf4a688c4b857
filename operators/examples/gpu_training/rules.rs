//! Kimi Delta Attention's rule alone: its output and gradients on the GPU against the definition in f64 on the CPU, and its
//! time beside that of the same by torch operators and of the gated delta rule.

use operators::ops::delta_rule::DeltaRule;
use operators::ops::kda::Kda;
use tch::{Device, Kind, Tensor};

use crate::{Say, error, milliseconds};

/// Names of the leaves, and of what comes out.
const LEAVES: [&str; 6] = ["dq", "dk", "dv", "dg", "dbeta", "dstate"];

/// The output and the state after it of the leaves.
type Form<'a> = dyn Fn(&[Tensor; 6]) -> (Tensor, Tensor) + 'a;

/// q, k, v, g, β and the state before, as `kind` holds them, the last three in f32; some channels forget all at once if `strong`.
fn leaves([b, t, h, k, v]: [i64; 5], strong: bool, kind: Kind, device: Device) -> [Tensor; 6] {
    let random = |size: &[i64]| Tensor::randn(size, (Kind::Float, device));
    let unit = |x: Tensor| &x / x.norm_scalaropt_dim(2, [-1_i64].as_slice(), true);
    let held = |x: Tensor| x.to_kind(kind);
    let g = -0.1 * random(&[b, t, h, k]).abs();
    let forgets = random(&[b, t, h, k]).gt(1.5).to_kind(Kind::Float) * -1000.0;
    [
        held(unit(random(&[b, t, h, k]))),
        held(unit(random(&[b, t, h, k]))),
        held(random(&[b, t, h, v])),
        if strong { g + forgets } else { g },
        random(&[b, t, h]).sigmoid(),
        random(&[b, h, k, v]),
    ]
}

fn rule([q, k, v, g, beta, _]: &[Tensor; 6]) -> Kda {
    let scale = (q.size()[3] as f64).powf(-0.5);
    let [q, k, v, log_decay, beta] = [q, k, v, g, beta].map(Tensor::shallow_clone);
    Kda { q, k, v, log_decay, beta, scale, normalise: false }
}

/// The output, the state after, and the gradients of all leaves towards the given directions.
fn run(
    leaves: [Tensor; 6],
    towards: &[Tensor; 2],
    form: impl Fn(&[Tensor; 6]) -> (Tensor, Tensor),
) -> Vec<Tensor> {
    let leaves = leaves.map(|x| x.detach().set_requires_grad(true));
    let (out, after) = form(&leaves);
    let dot =
        |x: &Tensor, y: &Tensor| (x * y.to_kind(x.kind()).to_device(x.device())).sum(None::<Kind>);
    let loss = dot(&out, &towards[0]).to_kind(after.kind()) + dot(&after, &towards[1]);
    let gradients = Tensor::run_backward(&[loss], &leaves.each_ref(), false, false);
    [out, after].into_iter().chain(gradients).collect()
}

/// Checks against f64; how many are wrong.
pub(crate) fn checks(device: Device, say: &mut Say) -> usize {
    let mut wrong = 0;
    let sizes = [2, 130, 2, 64, 48];
    for (kind, suffix, limit) in [(Kind::BFloat16, "", 2e-2), (Kind::Float, ", fp32", 2e-4)] {
        for strong in [false, true] {
            let here = leaves(sizes, strong, kind, Device::Cpu);
            let towards = [&here[2], &here[5]].map(Tensor::randn_like);
            let wide = here.each_ref().map(|x| x.to_kind(Kind::Double));
            let expected = run(wide, &towards, |x| rule(x).recurrent(Some(&x[5])));
            let there = here.map(|x| x.to_device(device));
            let got = run(there, &towards, |x| rule(x).forward(Some(&x[5])));
            let names = ["out", "state"].into_iter().chain(LEAVES);
            let errors: Vec<(&str, f64)> = names
                .zip(got.iter().zip(&expected))
                .map(|(name, (got, expected))| (name, error(got, expected)))
                .collect();
            let worst = errors.iter().fold(0.0, |worst: f64, (_, error)| worst.max(*error));
            wrong += usize::from(worst >= limit);
            let verdict = if worst < limit { "ok" } else { "WRONG" };
            let list: Vec<String> = errors.iter().map(|(n, e)| format!("{n} {e:.1e}")).collect();
            let decays = if strong { ", strong decays" } else { "" };
            say(format!(
                "{{\"check\":\"KDA rule{suffix}{decays}\",\"verdict\":\"{verdict}\",\"errors\":\"{}\"}}",
                list.join(" ")
            ));
        }
    }
    wrong
}

/// Forward and backward of the rules, one after the other.
pub(crate) fn times(device: Device, say: &mut Say) {
    let sizes @ [b, t, h, k, v] = [1, 4096, 12, 128, 256];
    for kind in [Kind::BFloat16, Kind::Float] {
        let all = leaves(sizes, false, kind, device);
        let towards = [all[2].randn_like(), all[5].randn_like()];
        let gated = |x: &[Tensor; 6]| {
            let [q, k, v, beta] = [&x[0], &x[1], &x[2], &x[4]].map(Tensor::shallow_clone);
            let g = x[3].select(3, 0);
            let scale = (q.size()[3] as f64).powf(-0.5);
            DeltaRule { q, k, v, log_decay: Some(g), beta, scale, normalise: false }.forward(None)
        };
        let forms: [(&str, &Form); 3] = [
            ("KDA", &|x| rule(x).forward(None)),
            ("gated delta rule", &gated),
            ("KDA by torch operators", &|x| rule(x).chunked(None)),
        ];
        for (name, form) in forms {
            let x = all.each_ref().map(|x| x.detach().set_requires_grad(true));
            let (ms, spread) = milliseconds(|| {
                let (out, _) = form(&x);
                let loss = (out * &towards[0]).sum(Kind::Float);
                let leaves: Vec<&Tensor> = x[..5].iter().collect(); // nothing begins with a state
                drop(Tensor::run_backward(&[loss], &leaves, false, false));
            });
            let rate = (b * t) as f64 / ms * 1e3;
            say(format!(
                "{{\"rule\":\"{name}\",\"kind\":\"{kind:?}\",\"B\":{b},\"T\":{t},\"H\":{h},\"K\":{k},\"V\":{v},\"ms\":{ms:.3},\"spread_ms\":{spread:.3},\"tokens_per_s\":{rate:.0}}}"
            ));
        }
    }
}
