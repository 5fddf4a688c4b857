//! A mixture of experts, [`kernels::moe`]: each token goes through the k experts that the router chose and through the shared
//! ones, and no other weight is read.

use kernels::cpu::matrix::Storage;
use kernels::cpu::matrix::feed_forward::FeedForward;
use kernels::cpu::{Matrix, Pool};
use kernels::moe::Chosen;
use kernels::moe::cpu::route;
use kernels::norm::cpu::OfBranch;
use search::architecture::Experts;

use super::dense::activate;
use crate::engine::function::Function;
use crate::engine::memory::Memory;
use crate::engine::scratch::{ROWS, Run, Scratch};

/// Rows that are gathered at once at most, for all experts together.
const GATHERED: usize = 8192;

#[derive(Debug)]
pub(super) struct Moe {
    of: Experts,
    /// `[E, d]`, in f32 whatever the others are: which experts are chosen hangs on small differences.
    router: Matrix,
    experts: Vec<FeedForward>,
    /// All shared ones as one.
    shared: Option<FeedForward>,
}

/// Where the rows of the tokens stand when they are in the order of their experts.
struct Plan {
    /// Of each of the N·k choices, token by token: its row and its weight.
    places: Vec<(usize, f32)>,
    /// The token of each row.
    tokens: Vec<usize>,
    /// Where the rows of each expert begin, and the end.
    starts: Vec<usize>,
}

impl Plan {
    /// From the router's logits `[N, E]`.
    fn of(logits: &[f32], Experts { experts, per_token, .. }: Experts) -> Self {
        let (experts, per_token) = (experts as usize, per_token as usize);
        let mut chosen = vec![Chosen::default(); logits.len() / experts * per_token];
        for (chosen, logits) in chosen.chunks_exact_mut(per_token).zip(logits.chunks_exact(experts))
        {
            route(logits, chosen);
        }
        let mut starts = vec![0; experts + 1];
        for of in &chosen {
            starts[of.expert + 1] += 1;
        }
        for expert in 0..experts {
            starts[expert + 1] += starts[expert];
        }
        let mut next = starts.clone();
        let mut tokens = vec![0; chosen.len()];
        let mut places = Vec::with_capacity(chosen.len());
        for (index, Chosen { expert, weight }) in chosen.into_iter().enumerate() {
            let row = next[expert];
            next[expert] += 1;
            tokens[row] = index / per_token;
            places.push((row, weight));
        }
        Self { places, tokens, starts }
    }
}

impl Moe {
    pub(super) fn new<'w>(
        matrix: &impl Fn(&str) -> &'w [f32],
        (d, width): (usize, usize),
        of: Experts,
        storage: Storage,
    ) -> Self {
        let experts = of.experts as usize;
        let [gate, up, down] = ["gate", "up", "down"].map(matrix);
        let expert = |index: usize| {
            let own = [gate, up, down].map(|all| &all[index * width * d..][..width * d]);
            FeedForward::swiglu(own, d, width, storage)
        };
        let shared = (of.shared > 0).then(|| {
            let own = ["shared.gate", "shared.up", "shared.down"].map(matrix);
            FeedForward::swiglu(own, d, width * of.shared as usize, storage)
        });
        Self {
            of,
            router: Matrix::from_rows(matrix("router"), experts, d),
            experts: (0..experts).map(expert).collect(),
            shared,
        }
    }

    /// x `[N, d]` += what its experts make of h `[N, d]`; h is overwritten.
    fn add(&self, pool: &Pool, scratch: &mut Scratch, h: &mut [f32], x: &mut [f32]) {
        let d = self.router.inputs();
        let (rows, per_token) = (x.len() / d, self.of.per_token as usize);
        let mut logits = scratch.take(rows * self.experts.len());
        self.router.apply(pool, h, &mut logits);
        let Plan { places, tokens, starts } = Plan::of(&logits, self.of);
        scratch.give(logits);
        let mut sorted = scratch.take(rows * per_token * d);
        pool.chunks_mut(&mut sorted, ROWS * d, |block, sorted| {
            for (row, token) in sorted.chunks_exact_mut(d).zip(&tokens[block * ROWS..]) {
                row.copy_from_slice(&h[token * d..][..d]);
            }
        });
        for (expert, range) in self.experts.iter().zip(starts.windows(2)) {
            replace(expert, pool, scratch, &mut sorted[range[0] * d..range[1] * d]);
        }
        if let Some(shared) = &self.shared {
            replace(shared, pool, scratch, h);
        }
        pool.chunks_mut(x, ROWS * d, |block, x| {
            for (at, x) in x.chunks_exact_mut(d).enumerate() {
                let token = block * ROWS + at;
                for (row, weight) in &places[token * per_token..][..per_token] {
                    let y = &sorted[row * d..][..d];
                    x.iter_mut().zip(y).for_each(|(x, y)| *x += weight * y);
                }
                if self.shared.is_some() {
                    x.iter_mut().zip(&h[token * d..]).for_each(|(x, y)| *x += y);
                }
            }
        });
        scratch.give(sorted);
    }
}

/// h `[N, d]` ← the network of h.
fn replace(network: &FeedForward, pool: &Pool, scratch: &mut Scratch, h: &mut [f32]) {
    let rows = h.len() / network.down().outputs();
    if rows == 0 {
        return;
    }
    if FeedForward::is_for(rows, pool) {
        return network.replace_many(pool, h);
    }
    let mut hidden = scratch.take(rows * network.reading().outputs());
    let mut activated = scratch.take(rows * network.width());
    network.reading().apply(pool, h, &mut hidden);
    activate(network, pool, &hidden, &mut activated);
    network.down().apply(pool, &activated, h);
    scratch.give(hidden);
    scratch.give(activated);
}

impl Function for Moe {
    fn memory(&self) -> Memory {
        Memory::None
    }

    fn weight_bytes(&self) -> usize {
        let networks = self.experts.iter().chain(&self.shared);
        self.router.bytes() + networks.map(FeedForward::bytes).sum::<usize>()
    }

    fn reads_by_input(&self) -> bool {
        true
    }

    fn forward(
        &self,
        on: &mut Run<'_>,
        norm: OfBranch<'_>,
        _: usize,
        x: &mut [f32],
        _: &mut [Memory],
    ) {
        let d = norm.weight.len();
        for x in x.chunks_mut((GATHERED / self.of.per_token as usize).max(1) * d) {
            let mut h = on.read_by(norm, x);
            if norm.after {
                let mut y = on.scratch.take(x.len());
                y.fill(0.0);
                self.add(on.pool, on.scratch, &mut h, &mut y);
                on.add_branch(norm, x, |_, sum| sum.copy_from_slice(&y));
                on.scratch.give(y);
            } else {
                self.add(on.pool, on.scratch, &mut h, x);
            }
            on.scratch.give(h);
        }
    }
}
