//! Whole layers composed of the f64 definitions, head by head, against the modules in f64.

use std::collections::HashMap;

use kernels::activation::{sigmoid, softplus};
use kernels::rope::{PhaseProjection, PhaseWeights};
use kernels::{
    attention, delta_rule, gated_conv, kda, linear_attention, log_linear, norm, rope, short_conv,
};
use search::architecture::{Attention, Delta, Kda, Mixer as Gene, Phases};
use tch::Tensor;

use crate::support::{Built, D, Random, assert_close, genes, numbers};

type Weights<'a> = HashMap<&'a str, Vec<f64>>;

/// x `[T, in]` times weight `[out, in]`, transposed.
fn linear(x: &[f64], weight: &[f64], inputs: usize) -> Vec<f64> {
    let dot = |x: &[f64], w: &[f64]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
    x.chunks_exact(inputs)
        .flat_map(|x| weight.chunks_exact(inputs).map(move |w| dot(x, w)))
        .collect()
}

/// Columns `from..from + count` of x `[T, width]`.
fn columns(x: &[f64], width: usize, from: usize, count: usize) -> Vec<f64> {
    x.chunks_exact(width).flat_map(|row| row[from..from + count].iter().copied()).collect()
}

/// Heads `[T, W]` side by side, `[T, H·W]`.
fn join(heads: &[Vec<f64>], width: usize) -> Vec<f64> {
    let tokens = heads[0].len() / width;
    (0..tokens)
        .flat_map(|t| heads.iter().flat_map(move |head| head[t * width..][..width].to_vec()))
        .collect()
}

fn conv_silu(x: &[f64], weight: &[f64], bias: Option<&[f64]>) -> Vec<f64> {
    let mut state = vec![0.0; 3 * weight.len() / 4];
    short_conv::definition(x, weight, bias, &mut state)
        .into_iter()
        .map(|y| y * sigmoid(y))
        .collect()
}

/// The whole mixer on x `[T, d]`.
fn mixer(gene: Gene, w: &Weights, x: &[f64]) -> Vec<f64> {
    let d = D as usize;
    match gene {
        Gene::Attention(gene) => attention(w, x, &gene),
        Gene::Delta(family) => delta(w, x, &family),
        Gene::Mamba2(gene) => {
            let (h, p, n) =
                (gene.heads as usize, gene.head_width as usize, gene.state_width as usize);
            let inner = h * p;
            let all = linear(x, &w["in.weight"], d);
            let levels = gene.levels.unwrap_or(0) as usize;
            let rows = 2 * inner + 2 * n + h + h * levels;
            let z = columns(&all, rows, 0, inner);
            let channels = inner + 2 * n;
            let xbc = conv_silu(
                &columns(&all, rows, inner, channels),
                &w["conv.weight"],
                Some(&w["conv.bias"]),
            );
            let (b, c) = (columns(&xbc, channels, inner, n), columns(&xbc, channels, inner + n, n));
            let heads: Vec<Vec<f64>> = (0..h)
                .map(|i| {
                    let x = columns(&xbc, channels, i * p, p);
                    let dt: Vec<f64> = columns(&all, rows, 2 * inner + 2 * n + i, 1)
                        .iter()
                        .map(|raw| softplus(raw + w["dt_bias"][i]))
                        .collect();
                    let g: Vec<f64> = dt.iter().map(|dt| -w["A_log"][i].exp() * dt).collect();
                    let v: Vec<f64> = x.iter().enumerate().map(|(at, x)| x * dt[at / p]).collect();
                    let y = if levels > 0 {
                        let raw = columns(&all, rows, rows - (h - i) * levels, levels);
                        let lambda = lambda(&raw, &w["L"][i * levels..][..levels]);
                        log_linear::linear_attention_definition(&c, &b, &v, &g, &lambda, 1.0)
                    } else {
                        linear_attention::definition(&c, &b, &v, &g, 1.0, &mut vec![0.0; n * p])
                    };
                    y.iter().zip(&x).map(|(y, x)| y + w["D"][i] * x).collect()
                })
                .collect();
            let y = norm::gate_then_norm_definition(
                &join(&heads, p),
                &z,
                &w["norm.weight"],
                norm::RMS_EPS,
            );
            linear(&y, &w["out.weight"], inner)
        }
        Gene::Kda(gene) => kimi(w, x, &gene),
        Gene::Parallel(gene) => {
            let branch = |gene: Gene, name: &str| {
                let prefix = format!("{name}.");
                let own = w.iter().filter_map(|(full, values)| {
                    Some((full.strip_prefix(prefix.as_str())?, values.clone()))
                });
                let y = mixer(gene, &own.collect(), x);
                match w.get(format!("{name}_norm.weight").as_str()) {
                    Some(norm) => norm::rms_norm_definition(&y, norm, norm::RMS_EPS),
                    None => y,
                }
            };
            let attention = branch(gene.attention().into(), "attention");
            let beside = branch(gene.side().into(), "beside");
            attention.iter().zip(beside).map(|(a, b)| a + b).collect()
        }
        Gene::GatedConv(gene) => {
            let (channels, taps) = (gene.channels as usize, gene.kernel_width as usize);
            let rows = linear(x, &w["in.weight"], d);
            let mut state = vec![0.0; (taps - 1) * channels];
            let y = gated_conv::definition(&rows, &w["conv.weight"], taps, &mut state);
            linear(&y, &w["out.weight"], channels)
        }
    }
}

/// Attention, head by head.
fn attention(w: &Weights, x: &[f64], gene: &Attention) -> Vec<f64> {
    let d = D as usize;
    let [h, kv, width] = [gene.heads, gene.kv_heads, gene.head_width].map(|n| n as usize);
    let phi = phi(w, x, Gene::from(*gene).phases());
    let heads = |name: &str, heads: usize| {
        let rows = linear(x, &w[format!("{name}.weight").as_str()], d);
        let each = |turn: &dyn Fn(usize, &mut Vec<f64>), rows: &[f64]| {
            let turned: Vec<Vec<f64>> = (0..heads)
                .map(|i| {
                    let mut head = columns(rows, heads * width, i * width, width);
                    turn(i, &mut head);
                    head
                })
                .collect();
            join(&turned, width)
        };
        let by_input = |i: usize, head: &mut Vec<f64>| {
            if let Some((phi, temperatures)) = &phi {
                let half = width / 2;
                let phi = columns(phi, kv * half, i * kv / heads * half, half);
                rope::selective_definition(head, &phi, temperatures);
            }
        };
        let by_position = |_: usize, head: &mut Vec<f64>| {
            let turned = gene.rotary_width() as usize;
            rope::partial_definition(head, width, turned, 0, gene.rope_theta.into());
        };
        let rows = each(&by_input, &rows);
        let rows = match w.get(format!("{name}_norm.weight").as_str()) {
            // as many channels together as it has weights
            Some(weight) => norm::rms_norm_definition(&rows, weight, norm::RMS_EPS),
            None => rows,
        };
        each(&by_position, &rows)
    };
    let (q, k, v) = (heads("q", h), heads("k", kv), linear(x, &w["v.weight"], d));
    let window = gene.window.map(|w| w as usize);
    let scale = (width as f64).powf(-0.5);
    let attended: Vec<Vec<f64>> = (0..h)
        .map(|i| {
            let j = i / (h / kv);
            let q = columns(&q, h * width, i * width, width);
            let [k, v] = [&k, &v].map(|x| columns(x, kv * width, j * width, width));
            attention::definition(&q, &k, &v, x.len() / d, window, scale)
        })
        .collect();
    let mut o = join(&attended, width);
    if let Some(gate) = w.get("g.weight") {
        let gate = linear(x, gate, d);
        o.iter_mut().zip(gate).for_each(|(o, gate)| *o *= sigmoid(gate));
    }
    linear(&o, &w["o.weight"], h * width)
}

/// Kimi Delta Attention, head by head.
fn kimi(w: &Weights, x: &[f64], gene: &Kda) -> Vec<f64> {
    let d = D as usize;
    let [h, k, v] = [gene.heads, gene.key_width, gene.value_width].map(|n| n as usize);
    let project = |name: &str| {
        let raw = linear(x, &w[format!("{name}.weight").as_str()], d);
        conv_silu(&raw, &w[format!("{name}_conv.weight").as_str()], None)
    };
    let (q, key, value) = (project("q"), project("k"), project("v"));
    let b = linear(x, &w["b.weight"], d);
    let decay = linear(&linear(x, &w["f_a.weight"], d), &w["f_b.weight"], v);
    let gate = linear(&linear(x, &w["g_a.weight"], d), &w["g_b.weight"], v);
    let heads: Vec<Vec<f64>> = (0..h)
        .map(|i| {
            let unit = |x: &[f64]| -> Vec<f64> {
                let x = columns(x, h * k, i * k, k);
                x.chunks_exact(k).flat_map(norm::l2_norm_definition).collect()
            };
            let raw = columns(&decay, h * k, i * k, k);
            let g: Vec<f64> = raw
                .iter()
                .enumerate()
                .map(|(at, x)| -w["A_log"][i].exp() * softplus(x + w["dt_bias"][i * k + at % k]))
                .collect();
            let beta: Vec<f64> = columns(&b, h, i, 1).into_iter().map(sigmoid).collect();
            let value = columns(&value, h * v, i * v, v);
            let (q, key, scale) = (unit(&q), unit(&key), (k as f64).powf(-0.5));
            let o = kda::definition(&q, &key, &value, &g, &beta, scale, &mut vec![0.0; k * v]);
            let o = norm::rms_norm_definition(&o, &w["norm.weight"], norm::RMS_EPS);
            let gate = columns(&gate, h * v, i * v, v);
            o.iter().zip(gate).map(|(o, gate)| o * sigmoid(gate)).collect()
        })
        .collect();
    linear(&join(&heads, v), &w["o.weight"], h * v)
}

/// φ `[T, H·K/2]` of Selective RoPE and τ `[K/2]`, if the mixer has it; x `[T, d]`.
fn phi(w: &Weights, x: &[f64], phases: Option<Phases>) -> Option<(Vec<f64>, Vec<f64>)> {
    let phases = phases?;
    let of = |name: &str| w.get(name).map(Vec::as_slice);
    let projection = match of("phi_full.weight") {
        Some(rows) => PhaseProjection::FullRank { rows, scale: &w["phi_scale"] },
        None => PhaseProjection::LowRank { down: &w["phi_down.weight"], up: &w["phi_up.weight"] },
    };
    let weights = PhaseWeights {
        projection,
        taps: &w["phi_conv.weight"],
        bias: of("phi_bias"),
        gate: of("phi_gate.weight").zip(of("phi_gate_bias")),
    };
    let phi = rope::phases_definition(x, D as usize, phases.heads as usize, &weights);
    let learnt = of("phi_temperature").map(<[f64]>::to_vec);
    Some((phi, learnt.unwrap_or_else(|| phases.temperatures())))
}

/// λ `[T, L]` of one head from its raw values `[T, L]` and its L.
fn lambda(raw: &[f64], scales: &[f64]) -> Vec<f64> {
    raw.iter().enumerate().map(|(at, x)| softplus(x * scales[at % scales.len()])).collect()
}

/// A member of the delta family, step after step: of a token's n steps the first has the decay and the last the query.
fn delta(w: &Weights, x: &[f64], family: &Delta) -> Vec<f64> {
    let d = D as usize;
    let (n, h, value_h) =
        (family.steps_per_token() as usize, family.heads as usize, family.value_heads() as usize);
    let (k_width, v_width) = (family.key_width as usize, family.value_width as usize);
    let project = |name: &str| {
        let raw = linear(x, &w[format!("{name}.weight").as_str()], d);
        match w.get(format!("{name}_conv.weight").as_str()) {
            Some(taps) => conv_silu(&raw, taps, None),
            None => raw.into_iter().map(|y| y * sigmoid(y)).collect(),
        }
    };
    let (q, k, v) = (project("q"), project("k"), project("v"));
    let b = linear(x, &w["b.weight"], d);
    let phi = phi(w, x, Gene::from(*family).phases());
    let heads: Vec<Vec<f64>> = (0..value_h)
        .map(|i| {
            let key_head = i / (value_h / h);
            let unit = |mut x: Vec<f64>| -> Vec<f64> {
                if let Some((phi, temperatures)) = &phi {
                    let half = k_width / 2;
                    let phi = columns(phi, h * half, key_head * half, half);
                    rope::selective_definition(&mut x, &phi, temperatures);
                }
                x.chunks_exact(k_width).flat_map(norm::l2_norm_definition).collect()
            };
            let q = unit(columns(&q, h * k_width, key_head * k_width, k_width));
            let k: Vec<Vec<f64>> = (0..n)
                .map(|j| unit(columns(&k, n * h * k_width, (j * h + key_head) * k_width, k_width)))
                .collect();
            let v: Vec<Vec<f64>> = (0..n)
                .map(|j| columns(&v, n * value_h * v_width, (j * value_h + i) * v_width, v_width))
                .collect();
            let largest_beta = if family.negative_eigenvalues { 2.0 } else { 1.0 };
            let beta: Vec<Vec<f64>> = (0..n)
                .map(|j| columns(&b, n * value_h, j * value_h + i, 1))
                .map(|b| b.iter().map(|b| largest_beta * sigmoid(*b)).collect())
                .collect();
            let g: Vec<f64> = match w.get("a.weight") {
                Some(a) => columns(&linear(x, a, d), value_h, i, 1)
                    .iter()
                    .map(|a| -w["A_log"][i].exp() * softplus(a + w["dt_bias"][i]))
                    .collect(),
                None => vec![0.0; x.len() / d],
            };
            let scale = (k_width as f64).powf(-0.5);
            let mut state = vec![0.0; k_width * v_width];
            let mut o = Vec::new();
            for t in 0..x.len() / d {
                for j in 0..n {
                    let read = delta_rule::definition(
                        &q[t * k_width..][..k_width],
                        &k[j][t * k_width..][..k_width],
                        &v[j][t * v_width..][..v_width],
                        &[if j == 0 { g[t] } else { 0.0 }],
                        &[beta[j][t]],
                        scale,
                        &mut state,
                    );
                    if j == n - 1 {
                        o.extend(read);
                    }
                }
            }
            if let Some(levels) = family.levels {
                let levels = levels as usize;
                let raw =
                    columns(&linear(x, &w["l.weight"], d), value_h * levels, i * levels, levels);
                let lambda = lambda(&raw, &w["L"][i * levels..][..levels]);
                let (k, v, beta) = (&k[0], &v[0], &beta[0]);
                o = log_linear::delta_rule_definition(&q, k, v, &g, beta, &lambda, 1.0);
            }
            match w.get("g.weight") {
                Some(gate) => {
                    let gate = linear(x, gate, d);
                    let gate = columns(&gate, value_h * v_width, i * v_width, v_width);
                    norm::norm_then_gate_definition(&o, &gate, &w["norm.weight"], norm::RMS_EPS)
                }
                None => norm::rms_norm_definition(&o, &w["norm.weight"], norm::RMS_EPS),
            }
        })
        .collect();
    linear(&join(&heads, v_width), &w["o.weight"], value_h * v_width)
}

#[test]
fn every_mixer_is_its_definition() {
    for gene in genes() {
        let built = Built::new(gene, 1);
        for tokens in [1, 2, 63, 64, 65, 100, 130] {
            let x = Random::new(tokens as u64).tensor(&[2, tokens, D.into()], 1.0);
            let got = built.mixer.forward(&x, None);
            let rows: Vec<f64> =
                (0..2).flat_map(|b| mixer(gene, &built.weights(), &numbers(&x.get(b)))).collect();
            let expected = Tensor::from_slice(&rows).reshape([2, tokens, D.into()]);
            assert_close(&format!("{gene} over {tokens} positions"), &got, &expected);
        }
        assert_eq!(built.gene, gene);
    }
}
