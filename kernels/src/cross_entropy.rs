//! Cross-entropy of logits against targets, for training: the loss of every row, and the gradient in the logits' place.
//!
//! With p = softmax(z): loss = ln Σ_j e^{z_j} − z_target, d_z = d_loss · (p − e_target).

use crate::cpu::pool::SharedMut;
use crate::cpu::{Kernel, Parallel, Simd, dynamic, run, vector};

/// −ln softmax(z)_target of one row.
pub fn definition(z: &[f64], target: usize) -> f64 {
    let largest = z.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
    largest + z.iter().map(|z| (z - largest).exp()).sum::<f64>().ln() - z[target]
}

/// Loss of every row of `logits` `[N, vocab]`; 0 where the target is `ignored`. `log_sums` `[N]` is what the backward
/// pass wants.
///
/// # Panics
/// When a slice has another length than its shape, or a target is neither below the vocabulary nor `ignored`.
pub fn forward(
    logits: &[f32],
    targets: &[i64],
    ignored: i64,
    losses: &mut [f32],
    log_sums: &mut [f32],
    parallel: Parallel,
) {
    let rows = targets.len();
    let vocab = vocab(logits, targets, ignored);
    assert_eq!((losses.len(), log_sums.len()), (rows, rows), "cross-entropy: a loss for each row");
    let (losses, log_sums) = (SharedMut::new(losses), SharedMut::new(log_sums));
    dynamic(parallel, rows.div_ceil(PIECE), &|piece| {
        let from = piece * PIECE;
        let count = PIECE.min(rows - from);
        // SAFETY: pieces do not overlap.
        let (losses, log_sums) = unsafe { (losses.part(from, count), log_sums.part(from, count)) };
        let logits = &logits[from * vocab..][..count * vocab];
        run(LogSums { logits, log_sums: &mut *log_sums });
        let rows = losses.iter_mut().zip(log_sums).zip(&targets[from..]);
        for (((loss, log_sum), target), z) in rows.zip(logits.chunks_exact(vocab.max(1))) {
            *loss = if *target == ignored { 0.0 } else { *log_sum - z[*target as usize] };
        }
    });
}

/// Gradient of every logit, `[N, vocab]`, from those of the losses `[N]`; 0 where the target is `ignored`.
///
/// # Panics
/// As [`forward`].
pub fn backward(
    logits: &[f32],
    targets: &[i64],
    ignored: i64,
    log_sums: &[f32],
    d_losses: &[f32],
    d_logits: &mut [f32],
    parallel: Parallel,
) {
    let rows = targets.len();
    let vocab = vocab(logits, targets, ignored);
    assert_eq!((log_sums.len(), d_losses.len()), (rows, rows), "cross-entropy: one for each row");
    assert_eq!(d_logits.len(), logits.len(), "cross-entropy: d_logits must be [N, vocab]");
    let d_logits = SharedMut::new(d_logits);
    dynamic(parallel, rows.div_ceil(PIECE), &|piece| {
        for row in piece * PIECE..((piece + 1) * PIECE).min(rows) {
            // SAFETY: each row is one piece's.
            let to = unsafe { d_logits.part(row * vocab, vocab) };
            if targets[row] == ignored {
                to.fill(0.0);
                continue;
            }
            let z = &logits[row * vocab..][..vocab];
            run(Softmax { z, log_sum: log_sums[row], factor: d_losses[row], to });
            to[targets[row] as usize] -= d_losses[row];
        }
    });
}

/// Rows of a piece of work.
const PIECE: usize = 64;

fn vocab(logits: &[f32], targets: &[i64], ignored: i64) -> usize {
    let vocab = logits.len().checked_div(targets.len()).unwrap_or(0);
    assert_eq!(logits.len(), targets.len() * vocab, "cross-entropy: logits must be [N, vocab]");
    for target in targets {
        let known = usize::try_from(*target).is_ok_and(|target| target < vocab);
        assert!(
            known || *target == ignored,
            "cross-entropy: target {target} of a vocabulary of {vocab}"
        );
    }
    vocab
}

struct LogSums<'a> {
    /// `[N, vocab]`
    logits: &'a [f32],
    /// `[N]`, overwritten.
    log_sums: &'a mut [f32],
}

impl Kernel for LogSums<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let vocab = self.logits.len() / self.log_sums.len().max(1);
        for (z, log_sum) in self.logits.chunks_exact(vocab.max(1)).zip(self.log_sums) {
            let largest = vector::largest(s, z);
            let shift = s.splat(largest);
            let mut sums = s.splat(0.0);
            let whole = vocab / S::LANES * S::LANES;
            for i in (0..whole).step_by(S::LANES) {
                // SAFETY: i + LANES ≤ vocab.
                sums = s.add(sums, s.exp(s.sub(unsafe { s.load(z.as_ptr().add(i)) }, shift)));
            }
            let rest: f32 = z[whole..].iter().map(|z| (z - largest).exp()).sum();
            *log_sum = largest + (s.sum(sums) + rest).ln();
        }
    }
}

struct Softmax<'a> {
    z: &'a [f32],
    log_sum: f32,
    factor: f32,
    to: &'a mut [f32],
}

impl Kernel for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let (log_sum, factor) = (s.splat(self.log_sum), s.splat(self.factor));
        vector::update(
            s,
            self.z,
            self.to,
            #[inline(always)]
            |z, _| s.mul(factor, s.exp(s.sub(z, log_sum))),
        );
    }
}
