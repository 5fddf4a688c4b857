//! What half a layer computes: a mixer or a feed-forward network, built and ready to run.

use std::fmt::Debug;

use kernels::norm::cpu::OfBranch;

use super::memory::Memory;
use super::scratch::Run;

/// A built mixer or feed-forward network.
pub(super) trait Function: Debug + Send + Sync {
    /// What a sequence that has seen nothing leaves here.
    fn memory(&self) -> Memory;

    /// Bytes of its matrices: of a mixture of experts of all, as steps read them sooner or later.
    fn weight_bytes(&self) -> usize;

    /// Whether what a step reads depends on its input.
    fn reads_by_input(&self) -> bool {
        false
    }

    /// x `[B·T, d]` += f(norm x), or norm(f x), T = `tokens`, one memory for each of the B sequences. One token is a decode
    /// step, several are a prompt.
    fn forward(
        &self,
        on: &mut Run<'_>,
        norm: OfBranch<'_>,
        tokens: usize,
        x: &mut [f32],
        memories: &mut [Memory],
    );
}
