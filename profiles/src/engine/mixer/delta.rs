//! The delta family: DeltaNet, Gated DeltaNet, log-linear or not, DeltaProduct.

use kernels::activation::cpu::{Sigmoid, Softplus};
use kernels::cpu::matrix::Storage;
use kernels::cpu::{Matrix, Rows, run};
use kernels::delta_rule::cpu::Step;
use kernels::delta_rule::prefill::prefill;
use kernels::delta_rule::train::{Inputs, Shape};
use kernels::norm::cpu::{Gate, L2Norm, OfBranch, RmsNorm};
use kernels::short_conv::cpu::transpose_weight;
use search::architecture;

use crate::engine::fenwick::{Visit, lambdas};
use crate::engine::function::Function;
use crate::engine::memory::Memory;
use crate::engine::phases::{Phases, Turns};
use crate::engine::recurrent::{Convolution, Recurrent, interleave_heads};
use crate::engine::scratch::{ROWS, Run};
use crate::weights::Weights;

/// A delta-rule mixer with its projections.
#[derive(Debug)]
pub(crate) struct Delta {
    /// Delta steps per token.
    steps: usize,
    key_heads: usize,
    /// Heads of v, of the state and of the output.
    heads: usize,
    key_width: usize,
    value_width: usize,
    largest_beta: f32,
    /// Rows q, k, v, then b, and where they are there a, g, λ; of k, v and b one block for each step.
    input: Matrix,
    convolution: Option<Convolution>,
    decay: Option<Decay>,
    output_gate: bool,
    /// L of λ = softplus(L ⊙ …), `[H, L]`, of a log-linear member.
    level_scales: Option<Vec<f32>>,
    scale: f32,
    /// Selective RoPE of q and k.
    phases: Option<Phases>,
    /// `[V]`
    norm: Vec<f32>,
    /// `[d, H·V]`
    output: Matrix,
}

/// g = −exp(A_log) · softplus(a·x + dt_bias)
#[derive(Debug)]
struct Decay {
    /// −exp(A_log), `[H]`
    rate: Vec<f32>,
    /// `[H]`
    dt_bias: Vec<f32>,
}

impl Function for Delta {
    fn weight_bytes(&self) -> usize {
        self.input.bytes()
            + self.output.bytes()
            + self.phases.as_ref().map_or(0, Phases::weight_bytes)
    }

    fn memory(&self) -> Memory {
        let channels = self.convolution.as_ref().map_or(0, Convolution::channels);
        let levels = self.level_scales.as_ref().map(|scales| scales.len() / self.heads);
        let shape = [self.heads, self.key_width, self.value_width];
        let phases = self.phases.as_ref().map(Phases::state);
        let state = Recurrent::with_levels(channels, levels, shape);
        Memory::Recurrent(Recurrent { phases, ..state })
    }

    fn forward(
        &self,
        on: &mut Run<'_>,
        norm: OfBranch<'_>,
        tokens: usize,
        x: &mut [f32],
        memories: &mut [Memory],
    ) {
        let gate_at =
            self.channels() + self.heads * (self.steps + usize::from(self.decay.is_some()));
        on.mix_sequences(
            (&self.input, &self.output),
            (norm, tokens),
            x,
            memories.iter_mut().map(Memory::recurrent),
            |on, x, (p, mixed), state| {
                let turns = match (&self.phases, &mut state.phases) {
                    (Some(phases), Some(state)) => Some(phases.turns(on, norm.weight, x, state)),
                    _ => None,
                };
                self.mix(on, p, tokens, mixed, state, turns.as_ref());
                if let Some(turns) = turns {
                    turns.give_back(on);
                }
            },
            |p, mixed| {
                let gate = if self.output_gate {
                    Gate::After(&p[gate_at..][..mixed.len()])
                } else {
                    Gate::None
                };
                run(RmsNorm { x: mixed, weight: &self.norm, gate });
            },
        );
    }
}

impl Delta {
    pub(super) fn new(
        weights: &Weights,
        prefix: &str,
        d: usize,
        shape: &architecture::Delta,
        storage: Storage,
        phases: Option<Phases>,
    ) -> Self {
        let mut inputs = vec!["q.weight", "k.weight", "v.weight", "b.weight"];
        let decay = shape.decay.then(|| {
            inputs.push("a.weight");
            Decay {
                rate: weights.get(&format!("{prefix}A_log")).iter().map(|a| -a.exp()).collect(),
                dt_bias: weights.get(&format!("{prefix}dt_bias")).to_vec(),
            }
        });
        if shape.output_gate {
            inputs.push("g.weight");
        }
        let level_scales = shape.levels.map(|_| {
            inputs.push("l.weight");
            weights.get(&format!("{prefix}L")).to_vec()
        });
        let convolution = shape.short_conv.then(|| {
            let taps = weights.rows(prefix, &["q_conv.weight", "k_conv.weight", "v_conv.weight"]);
            Convolution { weight: transpose_weight(&taps), bias: None, offset: 0 }
        });
        let input = weights.rows(prefix, &inputs);
        Self {
            steps: shape.steps_per_token() as usize,
            key_heads: shape.heads as usize,
            heads: shape.value_heads() as usize,
            key_width: shape.key_width as usize,
            value_width: shape.value_width as usize,
            largest_beta: if shape.negative_eigenvalues { 2.0 } else { 1.0 },
            input: Matrix::pack(&input, input.len() / d, d, storage),
            convolution,
            decay,
            output_gate: shape.output_gate,
            level_scales,
            scale: shape.scale() as f32,
            phases,
            norm: weights.get(&format!("{prefix}norm.weight")).to_vec(),
            output: Matrix::pack(
                weights.get(&format!("{prefix}o.weight")),
                d,
                shape.value_rows() as usize,
                storage,
            ),
        }
    }

    /// Rows of q, k and v together.
    fn channels(&self) -> usize {
        let (keys, values) = (self.key_heads * self.key_width, self.heads * self.value_width);
        keys + self.steps * (keys + values)
    }

    /// mixed `[T, H·V]`, before norm and gate, from p `[T, stride]` of one sequence.
    fn mix(
        &self,
        on: &mut Run<'_>,
        p: &[f32],
        tokens: usize,
        mixed: &mut [f32],
        state: &mut Recurrent,
        turns: Option<&Turns>,
    ) {
        let Self { steps, key_heads, heads, key_width, value_width, .. } = *self;
        let (stride, channels) = (self.input.outputs(), self.channels());
        let (keys, values) = (key_heads * key_width, heads * value_width);
        let mut y = on.scratch.take(tokens * channels);
        let normed = |row: &mut [f32]| {
            run(L2Norm { x: &mut row[..(1 + steps) * keys], width: key_width });
        };
        // what turns is normed after it
        let normed_now = |row: &mut [f32]| {
            if turns.is_none() {
                normed(row);
            }
        };
        match &self.convolution {
            Some(convolution) => convolution.forward(on, p, stride, state, &mut y, normed_now),
            None => on.pool.chunks_mut(&mut y, ROWS * channels, |block, y| {
                let rows = p[block * ROWS * stride..].chunks(stride);
                for (y, p) in y.chunks_exact_mut(channels).zip(rows) {
                    y.iter_mut().zip(p).for_each(|(y, &p)| *y = p * sigmoid(p));
                    normed_now(y);
                }
            }),
        }
        if let Some(turns) = turns {
            on.pool.chunks_mut(&mut y, ROWS * channels, |block, y| {
                for (t, row) in (block * ROWS..).zip(y.chunks_exact_mut(channels)) {
                    for (head, x) in
                        row[..(1 + steps) * keys].chunks_exact_mut(key_width).enumerate()
                    {
                        turns.turn(x, t, head % key_heads);
                    }
                    normed(row);
                }
            });
        }

        // [T·n, H] and [T, H]; the decay is on a token's first step
        let mut beta = on.scratch.take(heads * tokens * steps);
        let mut g = on.scratch.take(heads * tokens);
        let lengths = (ROWS * steps * heads, ROWS * heads);
        on.pool.chunk_pairs_mut(
            tokens.div_ceil(ROWS),
            lengths,
            &mut beta,
            &mut g,
            |block, beta, g| {
                let rows = p[block * ROWS * stride..].chunks_exact(stride);
                let outputs = beta.chunks_exact_mut(steps * heads).zip(g.chunks_exact_mut(heads));
                for ((beta, g), row) in outputs.zip(rows) {
                    let (b, a) = row[channels..].split_at(steps * heads);
                    run(Sigmoid { x: b, factor: self.largest_beta, y: beta });
                    if let Some(Decay { rate, dt_bias }) = &self.decay {
                        run(Softplus { x: &a[..heads], bias: dt_bias, y: &mut *g });
                        g.iter_mut().zip(rate).for_each(|(g, rate)| *g *= rate);
                    } else {
                        g.fill(0.0);
                    }
                }
            },
        );

        let scale = self.scale;
        if let (Some(fenwick), Some(scales)) = (&mut state.fenwick, &self.level_scales) {
            let mut o = on.scratch.take(heads * tokens * value_width);
            let lambda = lambdas(p, stride, scales);
            let levels = scales.len() / heads;
            fenwick.forward(on, tokens, value_width, &mut o, |visit| {
                let Visit { head, at, level, state, read, nothing } = visit;
                let row = &y[at * channels..][..channels];
                let key_head = head / (heads / key_heads);
                let q = &row[key_head * key_width..][..key_width];
                let k = &row[keys + key_head * key_width..][..key_width];
                let written = &row[2 * keys + head * value_width..][..value_width];
                let v = if level == 0 { written } else { nothing };
                let (g, beta) = (g[at * heads + head], beta[at * heads + head]);
                let scale = scale * lambda[(at * heads + head) * levels + level];
                run(Step { q, k, v, g, beta, scale, state, o: read });
            });
            interleave_heads(on, &o, tokens, value_width, mixed);
            on.scratch.give(o);
        } else if tokens == 1 {
            on.pool.pairs_mut(heads, &mut state.matrix, mixed, |head, state, o| {
                let key_head = head / (heads / key_heads);
                let q = &y[key_head * key_width..][..key_width];
                for step in 0..steps {
                    let k = &y[(1 + step) * keys + key_head * key_width..][..key_width];
                    let v_at = (1 + steps) * keys + step * values + head * value_width;
                    let v = &y[v_at..][..value_width];
                    let g = if step == 0 { g[head] } else { 0.0 };
                    let beta = beta[step * heads + head];
                    run(Step { q, k, v, g, beta, scale, state: &mut *state, o: &mut *o });
                }
            });
        } else {
            // The steps of a token one after the other, as rows of their own.
            let apart = |from: usize, width: usize| -> Vec<f32> {
                let rows = y.chunks_exact(channels);
                rows.flat_map(|row| row[from..][..steps * width].iter().copied()).collect()
            };
            let all = (steps > 1).then(|| (apart(keys, keys), apart((1 + steps) * keys, values)));
            let (k, v) = match &all {
                Some((k, v)) => (Rows::dense(k, keys), Rows::dense(v, values)),
                None => (
                    Rows::new(&y[keys..], tokens, keys, channels),
                    Rows::new(&y[2 * keys..], tokens, values, channels),
                ),
            };
            let inputs = Inputs {
                shape: Shape { batch: 1, tokens, steps, key_heads, heads, key_width, value_width },
                q: Rows::new(&y, tokens, keys, channels),
                k,
                v,
                g: &g,
                beta: &beta,
                scale,
                normalise: false,
            };
            let arithmetic = self.input.precision().into();
            prefill(arithmetic, &inputs, &mut state.matrix, mixed, &|n, f| on.pool.for_each(n, f));
        }

        for buffer in [y, beta, g] {
            on.scratch.give(buffer);
        }
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
