//! The gated delta rule and linear attention by `kernels::cuda::chunked`.

use kernels::cuda::chunked::{Chunked, Gradients, Inputs, Kept, Prepared, Rows, Rule, Shape};
use kernels::cuda::values::Values;
use tch::{Kind, Tensor};

use super::{address, extent, in_rows, launch, on_gpu, rows};
use crate::libtorch::{Operation, apply};
use crate::ops::delta_rule::DeltaRule;
use crate::ops::linear_attention::LinearAttention;

impl DeltaRule {
    /// Whether the GPU's kernels take these inputs: bf16 or fp32 values on a GPU, in shapes that they cover.
    pub(crate) fn suits_gpu(&self) -> bool {
        on_gpu(&self.v) && layout(Rule::Delta, &self.q, &self.v, self.scale).is_some()
    }

    /// As [`Self::chunked`].
    pub(crate) fn by_gpu(&self, state: Option<&Tensor>) -> (Tensor, Tensor) {
        let plain = self.plain();
        let g = match &plain.log_decay {
            Some(g) => single(g),
            None => Tensor::zeros(plain.beta.size(), (Kind::Float, plain.beta.device())),
        };
        let inputs = vec![
            alike(&plain.q, &plain.v),
            alike(&plain.k, &plain.v),
            alike(&plain.v, &plain.v),
            g,
            single(&plain.beta),
        ];
        let rule = Recurrence { scale: plain.scale, ..Recurrence::of(Rule::Delta) };
        let (o, after) = rule.run(inputs, state);
        (self.after_last_step(o), after)
    }
}

impl LinearAttention {
    /// As [`DeltaRule::suits_gpu`].
    pub(crate) fn suits_gpu(&self) -> bool {
        let heads = |x: &Tensor| x.unsqueeze(2); // q and k are shared by all heads
        on_gpu(&self.v)
            && values(&self.v).check().is_ok()
            && layout(Rule::LinearAttention, &heads(&self.q), &self.v, 1.0).is_some()
    }

    /// As [`Self::chunked`].
    pub(crate) fn by_gpu(&self, state: Option<&Tensor>) -> (Tensor, Tensor) {
        let mut inputs = vec![
            alike(&self.q.unsqueeze(2), &self.v),
            alike(&self.k.unsqueeze(2), &self.v),
            alike(&self.v, &self.v),
            single(&self.log_decay),
        ];
        inputs.extend(self.v_scale.as_ref().map(single));
        inputs.extend(self.skip.as_ref().map(single));
        let rule = Recurrence {
            scaled: self.v_scale.is_some(),
            skip: self.skip.is_some(),
            ..Recurrence::of(Rule::LinearAttention)
        };
        rule.run(inputs, state)
    }
}

/// Rows of heads in the kind of the values.
pub(super) fn alike(x: &Tensor, v: &Tensor) -> Tensor {
    in_rows(&x.to_kind(v.kind()), 2)
}

/// f32 without gaps.
pub(super) fn single(x: &Tensor) -> Tensor {
    x.to_kind(Kind::Float).contiguous()
}

/// q `[B, T, key heads, K]`, v `[B, T, H, V]`.
fn layout(rule: Rule, q: &Tensor, v: &Tensor, scale: f64) -> Option<Chunked> {
    let (_, _, key_heads, key_width) = q.size4().expect("q is [B, T, H, K]");
    let (batch, tokens, heads, value_width) = v.size4().expect("v is [B, T, H, V]");
    let [batch, tokens, heads, key_heads, key_width, value_width] =
        [batch, tokens, heads, key_heads, key_width, value_width].map(|n| n as usize);
    let wide = v.kind() == Kind::Float;
    let shape = Shape { batch, tokens, heads, key_heads, key_width, value_width, wide };
    Chunked::new(rule, shape, scale as f32, extent(v)?).ok()
}

/// What surrounds the recurrence of Mamba2, on v `[B, T, H, V]`.
fn values(v: &Tensor) -> Values {
    let (b, t, h, width) = v.size4().expect("v is [B, T, H, V]");
    let [positions, heads, width] = [b * t, h, width].map(|n| n as usize);
    Values { positions, heads, width, wide: v.kind() == Kind::Float }
}

/// q, k `[B, T, key heads, K]`, v `[B, T, H, V]`, g `[B, T, H]`, of the delta rule β `[B, T, H]`, if `scaled` the factor of
/// v `[B, T, H]`, if `skip` D `[H]`, perhaps the state `[B, H, K, V]` → output `[B, T, H, V]`, state after.
struct Recurrence {
    rule: Rule,
    scale: f64,
    /// Whether values are multiplied by a factor before they are written.
    scaled: bool,
    /// Whether values times D are added to the output.
    skip: bool,
    /// Whether a backward pass may follow.
    keep: bool,
}

impl Recurrence {
    fn of(rule: Rule) -> Self {
        Self { rule, scale: 1.0, scaled: false, skip: false, keep: false }
    }

    /// The output and the state after it.
    fn run(self, mut inputs: Vec<Tensor>, state: Option<&Tensor>) -> (Tensor, Tensor) {
        inputs.extend(state.map(single));
        let keep = inputs.iter().any(Tensor::requires_grad);
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        let mut outputs = apply(Self { keep, ..self }, &inputs);
        let after = outputs.pop().expect("the operation returns the output and the state");
        (outputs.pop().expect("the operation returns the output and the state"), after)
    }

    fn layout(&self, tensors: &[Tensor]) -> Chunked {
        layout(self.rule, &tensors[0], &tensors[2], self.scale)
            .expect("`suits_gpu` asked for this shape")
    }

    /// `v` as it is written.
    fn inputs(&self, tensors: &[Tensor], v: Rows) -> Inputs {
        let [q, k] = [0, 1].map(|i| rows(&tensors[i], 2));
        let beta = if self.rule == Rule::Delta { address(&tensors[4]) } else { 0 };
        Inputs { q, k, v, g: address(&tensors[3]), beta }
    }

    /// The factors, D and the state before the first position, as many as there are.
    fn others<'a>(&self, tensors: &'a [Tensor]) -> [Option<&'a Tensor>; 3] {
        let mut rest = tensors[if self.rule == Rule::Delta { 5 } else { 4 }..].iter();
        let factors = if self.scaled { rest.next() } else { None };
        let skip = if self.skip { rest.next() } else { None };
        [factors, skip, rest.next()]
    }
}

/// Of `kept`: the inverse, the scores, the decays, then Δ and the states.
fn prepared(kept: &[Tensor]) -> Prepared {
    let [inverse, scores, decays] = [0, 1, 2].map(|i| address(&kept[i]));
    Prepared { inverse, scores, decays }
}

fn walked(kept: &[Tensor]) -> Kept {
    Kept { corrections: address(&kept[3]), states: address(&kept[4]) }
}

impl Operation for Recurrence {
    fn forward(&self, tensors: &[Tensor]) -> (Vec<Tensor>, Vec<Tensor>) {
        let (chunked, v) = (self.layout(tensors), &tensors[2]);
        let shape = chunked.shape();
        let [factors, skip, state] = self.others(tensors);
        let mut launches = Vec::new();
        let written = factors.map(|factors| {
            let written = Tensor::empty(v.size(), (v.kind(), v.device()));
            launches.push(values(v).scale(rows(v, 2), address(factors), address(&written)));
            written
        });
        let inputs = self.inputs(tensors, rows(written.as_ref().unwrap_or(v), 2));
        let numbers = |len: usize| Tensor::empty([len as i64], (v.kind(), v.device()));
        let delta = self.rule == Rule::Delta;
        let mut kept = vec![
            numbers(if delta { shape.squares_len() } else { 8 }),
            numbers(shape.squares_len()),
            Tensor::empty([shape.decays_len() as i64], (Kind::Float, v.device())),
        ];
        if self.keep {
            // of linear attention, the values as they were written
            kept.push(written.as_ref().map_or_else(
                || numbers(if delta { shape.rows() * shape.value_width } else { 8 }),
                Tensor::shallow_clone,
            ));
            kept.push(numbers(shape.states_len()));
        }
        let out = Tensor::empty(v.size(), (v.kind(), v.device()));
        let after = [shape.batch, shape.heads, shape.key_width, shape.value_width];
        let after = Tensor::empty(after.map(|n| n as i64), (Kind::Float, v.device()));
        let walked = self.keep.then(|| walked(&kept));
        launches.push(chunked.prepare(&inputs, &prepared(&kept)));
        launches.push(chunked.forward(
            &inputs,
            &prepared(&kept),
            state.map_or(0, address),
            address(&after),
            address(&out),
            walked.as_ref(),
        ));
        if let Some(skip) = skip {
            launches.push(values(v).skip(rows(v, 2), address(skip), address(&out)));
        }
        launch(v, &launches);
        (vec![out, after], if self.keep { kept } else { Vec::new() })
    }

    fn backward(&self, tensors: &[Tensor], kept: &[Tensor], d_outputs: &[Tensor]) -> Vec<Tensor> {
        let (chunked, v) = (self.layout(tensors), &tensors[2]);
        let shape = chunked.shape();
        let [factors, skip, state] = self.others(tensors);
        let written = if self.scaled {
            let stride = shape.heads * shape.value_width;
            Rows { address: address(&kept[3]), stride }
        } else {
            rows(v, 2)
        };
        let inputs = self.inputs(tensors, written);
        let d_out = alike(&d_outputs[0], v);
        let d_after = single(&d_outputs[1]);
        let empty = |size: &[usize], kind: Kind| {
            let size: Vec<i64> = size.iter().map(|n| *n as i64).collect();
            Tensor::empty(size, (kind, v.device()))
        };
        let Shape { batch, tokens, heads, key_heads, key_width, value_width, .. } = shape;
        let delta = self.rule == Rule::Delta;
        let d_q = empty(&[batch, tokens, heads, key_width], v.kind());
        let d_k = empty(&[batch, tokens, heads, key_width], v.kind());
        let d_v = empty(&[batch, tokens, heads, value_width], v.kind());
        let d_g = empty(&[batch, tokens, heads], Kind::Float);
        let d_beta = empty(&[batch, tokens, if delta { heads } else { 0 }], Kind::Float);
        let d_state = state.map(Tensor::empty_like);
        let d_states = empty(&[shape.states_len()], v.kind());
        let to = Gradients {
            q: address(&d_q),
            k: address(&d_k),
            v: address(&d_v),
            g: address(&d_g),
            beta: address(&d_beta),
            state: d_state.as_ref().map_or(0, address),
            states: address(&d_states),
        };
        let launches = chunked.backward(
            &inputs,
            &prepared(kept),
            &walked(kept),
            rows(&d_out, 2),
            address(&d_after),
            &to,
        );
        launch(v, &launches);
        let (mut d_v, mut around) = (d_v, Vec::new());
        if factors.is_some() || skip.is_some() {
            let d_x = d_v.empty_like();
            let d_factors = factors.map(Tensor::empty_like);
            let d_skip = skip.map(|_| empty(&[values(v).parts(), heads], Kind::Float));
            let optional = |tensor: Option<&Tensor>| tensor.map_or(0, address);
            let around_launch = values(v).backward(
                (rows(v, 2), optional(factors), optional(skip)),
                (address(&d_v), rows(&d_out, 2)),
                (address(&d_x), optional(d_factors.as_ref()), optional(d_skip.as_ref())),
            );
            launch(v, &[around_launch]);
            around.extend(d_factors);
            around.extend(d_skip.map(|d| d.sum_dim_intlist(0, false, Kind::Float)));
            d_v = d_x;
        }
        // heads that share a key head add up
        let shared = |d: Tensor| {
            if key_heads == heads {
                return d;
            }
            let size = [batch, tokens, key_heads, heads / key_heads, key_width].map(|n| n as i64);
            d.reshape(size).sum_dim_intlist(3, false, v.kind())
        };
        let mut gradients = vec![shared(d_q), shared(d_k), d_v, d_g];
        if delta {
            gradients.push(d_beta);
        }
        gradients.extend(around);
        gradients.extend(d_state);
        gradients
    }
}
