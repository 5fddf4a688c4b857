//! A whole model as a composition of the f64 definitions: slow, plain, one sequence.

use kernels::activation::{sigmoid, softplus};
use kernels::moe::Mixture;
use kernels::rope::{PhaseProjection, PhaseWeights};
use kernels::{
    activation, attention, delta_rule, gated_conv, kda, linear_attention, log_linear, moe, norm,
    relu2, rope, short_conv, swiglu,
};
use profiles::Weights;
use search::Architecture;
use search::architecture::{
    Attention, Delta, Experts, FfnKind, GatedConv, Kda, Mamba2, Mixer, QkNorm,
};

struct Model<'a> {
    weights: &'a Weights,
    prefix: String,
    tokens: usize,
}

/// Logits `[T, vocab]` of every position, meta tokens before the first.
pub(crate) fn logits(architecture: &Architecture, weights: &Weights, tokens: &[u32]) -> Vec<f64> {
    let d = architecture.d_model() as usize;
    let meta_tokens = architecture.meta_tokens() as usize;
    let mut model = Model { weights, prefix: String::new(), tokens: meta_tokens + tokens.len() };
    let embedding = model.tensor("embedding.weight");
    let mut x = if meta_tokens > 0 { model.tensor("meta.weight") } else { Vec::new() };
    x.extend(tokens.iter().flat_map(|t| embedding[*t as usize * d..][..d].to_vec()));
    for (index, layer) in architecture.layers().iter().enumerate() {
        if let Some(mixer) = &layer.mixer {
            model.prefix = format!("layers.{index}.");
            let h = if layer.norms_after() {
                x.clone()
            } else {
                model.rms_norm(&x, "mixer_norm.weight")
            };
            model.prefix = format!("layers.{index}.mixer.");
            let mut y = model.mixer(mixer, &h);
            model.prefix = format!("layers.{index}.");
            if layer.norms_after() {
                y = model.rms_norm(&y, "mixer_norm.weight");
            }
            add(&mut x, &y);
        }
        if let Some(ffn) = layer.ffn {
            model.prefix = format!("layers.{index}.");
            let h =
                if layer.norms_after() { x.clone() } else { model.rms_norm(&x, "ffn_norm.weight") };
            let mut y = model.ffn(ffn.kind, &h);
            if layer.norms_after() {
                y = model.rms_norm(&y, "ffn_norm.weight");
            }
            add(&mut x, &y);
        }
    }
    model.prefix.clear();
    let h = model.rms_norm(&x, "final_norm.weight");
    let head = if architecture.tied_embeddings() { "embedding.weight" } else { "head.weight" };
    model.linear(head, &h).split_off(meta_tokens * architecture.vocab() as usize)
}

fn add(x: &mut [f64], y: &[f64]) {
    assert_eq!(x.len(), y.len());
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// `width` columns from `from` of x `[T, stride]`.
fn columns(x: &[f64], stride: usize, from: usize, width: usize) -> Vec<f64> {
    x.chunks_exact(stride).flat_map(|row| row[from..from + width].to_vec()).collect()
}

/// Puts o `[T, width]` into columns from `from` of x `[T, stride]`.
fn put(o: &[f64], width: usize, x: &mut [f64], stride: usize, from: usize) {
    for (row, o) in x.chunks_exact_mut(stride).zip(o.chunks_exact(width)) {
        row[from..from + width].copy_from_slice(o);
    }
}

impl Model<'_> {
    fn tensor(&self, name: &str) -> Vec<f64> {
        self.weights.get(&format!("{}{name}", self.prefix)).iter().map(|x| f64::from(*x)).collect()
    }

    fn rms_norm(&self, x: &[f64], name: &str) -> Vec<f64> {
        norm::rms_norm_definition(x, &self.tensor(name), 1e-5)
    }

    /// y `[T, out]` = x `[T, in]` · Wᵀ
    fn linear(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let w = self.tensor(name);
        let inputs = x.len() / self.tokens;
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        x.chunks_exact(inputs)
            .flat_map(|x| w.chunks_exact(inputs).map(move |w| dot(w, x)))
            .collect()
    }

    fn conv_silu(&self, name: &str, bias: Option<&[f64]>, x: &[f64]) -> Vec<f64> {
        let weight = self.tensor(name);
        let mut state = vec![0.0; 3 * weight.len() / 4];
        let y = short_conv::definition(x, &weight, bias, &mut state);
        y.into_iter().map(activation::silu).collect()
    }

    fn ffn(&self, kind: FfnKind, h: &[f64]) -> Vec<f64> {
        let network = |prefix: &str, is_gated: bool| {
            let linear = |name: &str, x: &[f64]| self.linear(&format!("ffn.{prefix}{name}"), x);
            let up = linear("up.weight", h);
            let hidden = if is_gated {
                swiglu::definition(&linear("gate.weight", h), &up)
            } else {
                relu2::definition(&up)
            };
            linear("down.weight", &hidden)
        };
        let Some(Experts { per_token, shared, .. }) = kind.experts() else {
            return network("", kind == FfnKind::SwiGlu);
        };
        let [router, gate, up, down] =
            ["router", "gate", "up", "down"].map(|name| self.tensor(&format!("ffn.{name}.weight")));
        let per_token = per_token as usize;
        let mixture = Mixture { per_token, router: &router, gate: &gate, up: &up, down: &down };
        let mut y = moe::definition(h, h.len() / self.tokens, &mixture);
        if shared > 0 {
            add(&mut y, &network("shared.", true));
        }
        y
    }

    fn mixer(&self, mixer: &Mixer, h: &[f64]) -> Vec<f64> {
        match mixer {
            Mixer::Attention(shape) => self.attention(shape, h),
            Mixer::Delta(shape) => self.delta(shape, h),
            Mixer::Mamba2(shape) => self.mamba2(shape, h),
            Mixer::GatedConv(shape) => self.gated_conv(*shape, h),
            Mixer::Kda(shape) => self.kda(shape, h),
            Mixer::Parallel(shape) => {
                let has_norms = shape.branch_norms;
                let branch = |mixer: Mixer, name| self.branch(&mixer, name, has_norms, h);
                let mut y = branch(shape.attention().into(), "attention");
                add(&mut y, &branch(shape.side().into(), "beside"));
                y
            }
        }
    }

    /// A mixer of parallel heads with the norm behind it, if it has one.
    fn branch(&self, mixer: &Mixer, name: &str, has_norm: bool, h: &[f64]) -> Vec<f64> {
        let prefix = format!("{}{name}.", self.prefix);
        let own = Model { prefix, weights: self.weights, tokens: self.tokens };
        let y = own.mixer(mixer, h);
        if has_norm { self.rms_norm(&y, &format!("{name}_norm.weight")) } else { y }
    }

    fn attention(&self, shape: &Attention, h: &[f64]) -> Vec<f64> {
        let (heads, kv_heads) = (shape.heads as usize, shape.kv_heads as usize);
        let k = shape.head_width as usize;
        let [q, key, v] = ["q.weight", "k.weight", "v.weight"].map(|name| self.linear(name, h));
        let [q, key] =
            [(q, heads, "q_norm"), (key, kv_heads, "k_norm")].map(|(mut rows, own, norm)| {
                if let Some((phi, temperatures)) = self.phi(&(*shape).into(), h) {
                    for head in 0..own {
                        let mut turned = columns(&rows, own * k, head * k, k);
                        let phi = &phi[head * kv_heads / own];
                        rope::selective_definition(&mut turned, phi, &temperatures);
                        put(&turned, k, &mut rows, own * k, head * k);
                    }
                }
                if shape.qk_norm != QkNorm::None {
                    // as many channels together as there are weights
                    rows = self.rms_norm(&rows, &format!("{norm}.weight"));
                }
                for head in 0..own {
                    let mut turned = columns(&rows, own * k, head * k, k);
                    let (width, theta) = (shape.rotary_width() as usize, shape.rope_theta.into());
                    rope::partial_definition(&mut turned, k, width, 0, theta);
                    put(&turned, k, &mut rows, own * k, head * k);
                }
                rows
            });
        let mut out = vec![0.0; self.tokens * heads * k];
        for head in 0..heads {
            let kv = head * kv_heads / heads;
            let q = columns(&q, heads * k, head * k, k);
            let key = columns(&key, kv_heads * k, kv * k, k);
            let v = columns(&v, kv_heads * k, kv * k, k);
            let window = shape.window.map(|w| w as usize);
            let o = attention::definition(&q, &key, &v, self.tokens, window, (k as f64).powf(-0.5));
            put(&o, k, &mut out, heads * k, head * k);
        }
        if shape.output_gate {
            let gate = self.linear("g.weight", h);
            out.iter_mut().zip(gate).for_each(|(out, gate)| *out *= sigmoid(gate));
        }
        self.linear("o.weight", &out)
    }

    /// Of each key head φ `[T, K/2]`, and τ `[K/2]`, if the mixer has Selective RoPE.
    fn phi(&self, mixer: &Mixer, h: &[f64]) -> Option<(Vec<Vec<f64>>, Vec<f64>)> {
        let phases = mixer.phases()?;
        let (heads, half) = (phases.heads as usize, phases.half as usize);
        let has = |name: &str| self.weights.has(&format!("{}{name}", self.prefix));
        let tensor = |name: &str| has(name).then(|| self.tensor(name));
        let [full, scale, down, up, bias, gate, gate_bias, learnt] = [
            "phi_full.weight",
            "phi_scale",
            "phi_down.weight",
            "phi_up.weight",
            "phi_bias",
            "phi_gate.weight",
            "phi_gate_bias",
            "phi_temperature",
        ]
        .map(tensor);
        let projection = match (&full, &scale, &down, &up) {
            (Some(rows), Some(scale), ..) => PhaseProjection::FullRank { rows, scale },
            (.., Some(down), Some(up)) => PhaseProjection::LowRank { down, up },
            _ => panic!("there is a projection"),
        };
        let weights = PhaseWeights {
            projection,
            taps: &self.tensor("phi_conv.weight"),
            bias: bias.as_deref(),
            gate: gate.as_deref().zip(gate_bias.as_deref()),
        };
        let phi = rope::phases_definition(h, h.len() / self.tokens, heads, &weights);
        let of_head = |head| columns(&phi, heads * half, head * half, half);
        let each = (0..heads).map(of_head).collect();
        Some((each, learnt.unwrap_or_else(|| phases.temperatures())))
    }

    fn delta(&self, family: &Delta, h: &[f64]) -> Vec<f64> {
        let [steps, key_heads, heads, k, v] = [
            family.steps_per_token(),
            family.heads,
            family.value_heads(),
            family.key_width,
            family.value_width,
        ]
        .map(|n| n as usize);
        let projected = |name: &str| {
            let x = self.linear(&format!("{name}.weight"), h);
            if family.short_conv {
                self.conv_silu(&format!("{name}_conv.weight"), None, &x)
            } else {
                x.into_iter().map(activation::silu).collect()
            }
        };
        let (mut q, mut key, value) = (projected("q"), projected("k"), projected("v"));
        let (phi, temperatures) = self.phi(&(*family).into(), h).unwrap_or_default();
        for (head, phi) in phi.iter().enumerate() {
            for (x, copies) in [(&mut q, 1), (&mut key, steps)] {
                for copy in 0..copies {
                    let stride = copies * key_heads * k;
                    let from = (copy * key_heads + head) * k;
                    let mut turned = columns(x, stride, from, k);
                    rope::selective_definition(&mut turned, phi, &temperatures);
                    put(&turned, k, x, stride, from);
                }
            }
        }
        let b = self.linear("b.weight", h);
        let a = family.decay.then(|| self.linear("a.weight", h));
        let gate = family.output_gate.then(|| self.linear("g.weight", h));
        let l2 = norm::l2_norm_definition;
        let mut out = vec![0.0; self.tokens * heads * v];
        for head in 0..heads {
            let key_head = head / (heads / key_heads);
            let mut state = vec![0.0; k * v];
            let mut o = Vec::new();
            let mut inputs: [Vec<f64>; 5] = Default::default(); // q, k, v, g, β
            for t in 0..self.tokens {
                let q = l2(&q[(t * key_heads + key_head) * k..][..k]);
                let mut read = Vec::new();
                for step in 0..steps {
                    let row = t * steps + step;
                    let key = l2(&key[(row * key_heads + key_head) * k..][..k]);
                    let value = &value[(row * heads + head) * v..][..v];
                    let sigma = sigmoid(b[row * heads + head]);
                    let beta = if family.negative_eigenvalues { 2.0 * sigma } else { sigma };
                    let g = match &a {
                        Some(a) if step == 0 => {
                            let dt = softplus(a[t * heads + head] + self.tensor("dt_bias")[head]);
                            -self.tensor("A_log")[head].exp() * dt
                        }
                        _ => 0.0,
                    };
                    let all: [&[f64]; 5] = [&q, &key, value, &[g], &[beta]];
                    inputs.iter_mut().zip(all).for_each(|(inputs, x)| inputs.extend(x));
                    let scale = (k as f64).powf(-0.5);
                    read =
                        delta_rule::definition(&q, &key, value, &[g], &[beta], scale, &mut state);
                }
                o.extend(read);
            }
            if let Some(levels) = family.levels {
                let levels = levels as usize;
                let raw =
                    columns(&self.linear("l.weight", h), heads * levels, head * levels, levels);
                let lambda = self.lambda(&raw, head, levels);
                let [q, k, v, g, beta] = &inputs;
                o = log_linear::delta_rule_definition(q, k, v, g, beta, &lambda, 1.0);
            }
            let weight = self.tensor("norm.weight");
            let o = match &gate {
                None => norm::rms_norm_definition(&o, &weight, 1e-5),
                Some(gate) => {
                    let gate = columns(gate, heads * v, head * v, v);
                    norm::norm_then_gate_definition(&o, &gate, &weight, 1e-5)
                }
            };
            put(&o, v, &mut out, heads * v, head * v);
        }
        self.linear("o.weight", &out)
    }

    /// λ `[T, L]` of a head from its raw values.
    fn lambda(&self, raw: &[f64], head: usize, levels: usize) -> Vec<f64> {
        let scales = &self.tensor("L")[head * levels..][..levels];
        raw.iter().enumerate().map(|(at, x)| softplus(x * scales[at % levels])).collect()
    }

    fn mamba2(&self, shape: &Mamba2, h: &[f64]) -> Vec<f64> {
        let (heads, p, n) =
            (shape.heads as usize, shape.head_width as usize, shape.state_width as usize);
        let (inner, levels) = (heads * p, shape.levels.unwrap_or(0) as usize);
        let stride = 2 * inner + 2 * n + heads * (1 + levels);
        let dt_at = 2 * inner + 2 * n;
        let projected = self.linear("in.weight", h);
        let z = columns(&projected, stride, 0, inner);
        let channels = inner + 2 * n;
        let xbc = columns(&projected, stride, inner, channels);
        let xbc = self.conv_silu("conv.weight", Some(&self.tensor("conv.bias")), &xbc);
        let (b, c) = (columns(&xbc, channels, inner, n), columns(&xbc, channels, inner + n, n));
        let mut y = vec![0.0; self.tokens * inner];
        for head in 0..heads {
            let x = columns(&xbc, channels, head * p, p);
            let dt: Vec<f64> = columns(&projected, stride, dt_at + head, 1)
                .into_iter()
                .map(|dt| softplus(dt + self.tensor("dt_bias")[head]))
                .collect();
            let a = -self.tensor("A_log")[head].exp();
            let g: Vec<f64> = dt.iter().map(|dt| dt * a).collect();
            let v: Vec<f64> = x.iter().enumerate().map(|(i, x)| dt[i / p] * x).collect();
            let mut o = if levels > 0 {
                let raw = columns(&projected, stride, dt_at + heads + head * levels, levels);
                let lambda = self.lambda(&raw, head, levels);
                log_linear::linear_attention_definition(&c, &b, &v, &g, &lambda, 1.0)
            } else {
                linear_attention::definition(&c, &b, &v, &g, 1.0, &mut vec![0.0; n * p])
            };
            let skip: Vec<f64> = x.iter().map(|x| self.tensor("D")[head] * x).collect();
            add(&mut o, &skip);
            put(&o, p, &mut y, inner, head * p);
        }
        let y = norm::gate_then_norm_definition(&y, &z, &self.tensor("norm.weight"), 1e-5);
        self.linear("out.weight", &y)
    }

    fn gated_conv(&self, shape: GatedConv, h: &[f64]) -> Vec<f64> {
        let [channels, taps] = [shape.channels, shape.kernel_width].map(|n| n as usize);
        let rows = self.linear("in.weight", h);
        let mut state = vec![0.0; (taps - 1) * channels];
        let y = gated_conv::definition(&rows, &self.tensor("conv.weight"), taps, &mut state);
        self.linear("out.weight", &y)
    }

    fn kda(&self, shape: &Kda, h: &[f64]) -> Vec<f64> {
        let [heads, k, v] = [shape.heads, shape.key_width, shape.value_width].map(|n| n as usize);
        let [q, key, value] = ["q", "k", "v"].map(|name| {
            let x = self.linear(&format!("{name}.weight"), h);
            self.conv_silu(&format!("{name}_conv.weight"), None, &x)
        });
        let b = self.linear("b.weight", h);
        let decay = self.linear("f_b.weight", &self.linear("f_a.weight", h));
        let gate = self.linear("g_b.weight", &self.linear("g_a.weight", h));
        let (dt_bias, a_log) = (self.tensor("dt_bias"), self.tensor("A_log"));
        let mut out = vec![0.0; self.tokens * heads * v];
        for head in 0..heads {
            let unit = |x: &[f64]| -> Vec<f64> {
                let x = columns(x, heads * k, head * k, k);
                x.chunks_exact(k).flat_map(norm::l2_norm_definition).collect()
            };
            let g: Vec<f64> = columns(&decay, heads * k, head * k, k)
                .iter()
                .enumerate()
                .map(|(i, x)| -a_log[head].exp() * softplus(x + dt_bias[head * k + i % k]))
                .collect();
            let beta: Vec<f64> = columns(&b, heads, head, 1).into_iter().map(sigmoid).collect();
            let value = columns(&value, heads * v, head * v, v);
            let scale = (k as f64).powf(-0.5);
            let o = kda::definition(
                &unit(&q),
                &unit(&key),
                &value,
                &g,
                &beta,
                scale,
                &mut vec![0.0; k * v],
            );
            let o = norm::rms_norm_definition(&o, &self.tensor("norm.weight"), 1e-5);
            let gate = columns(&gate, heads * v, head * v, v);
            let o: Vec<f64> = o.iter().zip(gate).map(|(o, gate)| o * sigmoid(gate)).collect();
            put(&o, v, &mut out, heads * v, head * v);
        }
        self.linear("o.weight", &out)
    }
}
