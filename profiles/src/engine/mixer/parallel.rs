//! Parallel heads: attention beside another mixer, each normed and added, or added as they are.

use kernels::norm::cpu::OfBranch;

use crate::engine::function::Function;
use crate::engine::memory::Memory;
use crate::engine::scratch::{ROWS, Run};

/// Two mixers that read the same input, each with the norm behind it, `[d]`, empty where there is none.
#[derive(Debug)]
pub(crate) struct Parallel {
    branches: [(Box<dyn Function>, Vec<f32>); 2],
}

impl Parallel {
    /// Of two mixers with the norms behind them: attention, and what stands beside it.
    pub(super) fn new(branches: [(Box<dyn Function>, Vec<f32>); 2]) -> Self {
        Self { branches }
    }
}

impl Function for Parallel {
    fn memory(&self) -> Memory {
        Memory::Both(Box::new(self.branches.each_ref().map(|(mixer, _)| mixer.memory())))
    }

    fn weight_bytes(&self) -> usize {
        self.branches.iter().map(|(mixer, _)| mixer.weight_bytes()).sum()
    }

    fn forward(
        &self,
        on: &mut Run<'_>,
        norm: OfBranch<'_>,
        tokens: usize,
        x: &mut [f32],
        memories: &mut [Memory],
    ) {
        let block = ROWS * norm.weight.len();
        let h = on.read_by(norm, x);
        // A branch with its norm behind it, or none, adds to what it read: h + norm(f(h)).
        let mut added = on.scratch.take(x.len());
        for (at, (mixer, weight)) in self.branches.iter().enumerate() {
            added.copy_from_slice(&h);
            let mut own: Vec<Memory> =
                memories.iter_mut().map(|memory| memory.take_branch(at)).collect();
            let behind = OfBranch { weight, after: !weight.is_empty() };
            mixer.forward(on, behind, tokens, &mut added, &mut own);
            for (memory, own) in memories.iter_mut().zip(own) {
                memory.give_branch(at, own);
            }
            on.pool.chunk_pairs_mut(
                x.len().div_ceil(block),
                (block, block),
                x,
                &mut added,
                |index, x, added| {
                    let h = &h[index * block..];
                    for ((x, added), h) in x.iter_mut().zip(added).zip(h) {
                        *x += *added - h;
                    }
                },
            );
        }
        on.scratch.give(h);
        on.scratch.give(added);
    }
}
