//! A mixture of experts, [`kernels::moe`]: a router chooses k of E SwiGLUs for each token, shared ones take all.
//!
//! Tokens are put in the order of their experts, each expert takes its own at once, and what they give is added up where they
//! came from: no expert is ever full, none pads.

use search::architecture::Experts;
use tch::{Kind, Tensor};

use super::dense::{Dense, gated};
use crate::OperatorError;
use crate::ops::linear::linear;
use crate::ops::wide;
use crate::precision::{self, Precision};
use crate::weights::Weights;

#[derive(Debug)]
pub(super) struct Moe {
    experts: i64,
    per_token: i64,
    /// `[E, d]`
    router: Tensor,
    /// `[E, f, d]`
    gate: Tensor,
    /// `[E, f, d]`
    up: Tensor,
    /// `[E, d, f]`
    down: Tensor,
    shared: Option<Dense>,
}

/// Which tokens go where.
struct Choice {
    /// The tokens of each expert in the order of the experts, `[N·k]`.
    tokens: Tensor,
    /// Their weights there, `[N·k, 1]`.
    weights: Tensor,
    /// How many each expert has.
    counts: Vec<i64>,
}

impl Moe {
    pub(super) fn new(of: Experts, weights: &mut Weights) -> Result<Self, OperatorError> {
        let [router, gate, up, down] =
            ["router", "gate", "up", "down"].map(|name| weights.take(&format!("{name}.weight")));
        let mut shared = || Dense::new(true, &mut weights.below("shared"));
        Ok(Self {
            experts: of.experts.into(),
            per_token: of.per_token.into(),
            router: router?,
            gate: gate?,
            up: up?,
            down: down?,
            shared: (of.shared > 0).then(&mut shared).transpose()?,
        })
    }

    /// x `[…, d]` → `[…, d]`.
    pub(super) fn forward(&self, x: &Tensor, balance: Option<&mut Vec<Tensor>>) -> Tensor {
        let d = x.size()[x.dim() - 1];
        let rows = x.reshape([-1, d]); // [N, d]
        let choice = self.choose(&rows, balance);
        let sorted = rows.index_select(0, &choice.tokens); // [N·k, d]
        // one gradient of the whole for all its parts
        let each = |all: &Tensor| all.unbind(0);
        let [gate, up, down] = [&self.gate, &self.up, &self.down].map(each);
        let parts = sorted.split_with_sizes(&choice.counts, 0);
        let outputs: Vec<Tensor> = parts
            .iter()
            .enumerate()
            .filter(|(expert, _)| choice.counts[*expert] > 0)
            .map(|(expert, x)| gated(x, [&gate[expert], &up[expert], &down[expert]]))
            .collect();
        let outputs = Tensor::cat(&outputs, 0) * choice.weights.to_kind(x.kind());
        let mixed = rows.zeros_like().index_add(0, &choice.tokens, &outputs).view_as(x);
        match &self.shared {
            Some(shared) => mixed + shared.forward(x),
            None => mixed,
        }
    }

    /// The experts of each of x `[N, d]`. The router computes in f32 or wider.
    fn choose(&self, x: &Tensor, balance: Option<&mut Vec<Tensor>>) -> Choice {
        let wide_x = x.to_kind(wide(x.kind()));
        let logits = precision::with(Precision::F32, || linear(&wide_x, &self.router)); // [N, E]
        let logits = logits.to_kind(wide(x.kind()));
        let (largest, chosen) = logits.topk(self.per_token, -1, true, true); // [N, k]
        let weights = if self.per_token == 1 {
            logits.softmax(-1, None).gather(-1, &chosen, false)
        } else {
            largest.softmax(-1, None)
        };
        let chosen = chosen.reshape([-1]); // [N·k]
        let counts = chosen.bincount(None::<&Tensor>, self.experts);
        if let Some(balance) = balance {
            let shares = counts.to_kind(logits.kind()) / chosen.numel() as f64;
            let means = logits.softmax(-1, None).mean_dim(0_i64, false, None::<Kind>);
            balance.push((shares * means).sum(None::<Kind>) * self.experts as f64);
        }
        let order = chosen.argsort_stable(true, 0, false);
        Choice {
            tokens: order.divide_scalar_mode(self.per_token, "floor"),
            weights: weights.reshape([-1, 1]).index_select(0, &order),
            counts: Vec::try_from(&counts).expect("a count for each expert"),
        }
    }
}
