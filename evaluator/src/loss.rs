//! What a training makes small.

use operators::ops::cross_entropy;
use tch::{Kind, Reduction, Tensor};

/// Target of a position that is not asked about.
pub const IGNORED: i64 = -100;

/// Cross-entropy of `logits` `[B, T, vocab]` against `targets` `[B, T]`; without reduction `[B·T]`.
pub(crate) fn cross_entropy(logits: &Tensor, targets: &Tensor, reduction: Reduction) -> Tensor {
    let vocab = logits.size()[2];
    // where the logits are, in f32
    let (logits, targets) = (logits.to_kind(Kind::Float), targets.to_device(logits.device()));
    let (logits, targets) = (logits.view([-1, vocab]), targets.reshape(-1));
    match reduction {
        Reduction::Mean => cross_entropy::mean_loss(&logits, &targets, IGNORED),
        _ => cross_entropy::losses(&logits, &targets, IGNORED),
    }
}
