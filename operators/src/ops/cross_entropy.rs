//! Cross-entropy of logits, by the CPU kernels of `kernels::cross_entropy` where they apply.

use kernels::cross_entropy::{backward, forward};
use tch::{Device, Kind, Reduction, Tensor};

use super::memory::{elements, read, single_on_cpu, write};
use crate::libtorch::{Operation, apply, parallel};

/// Loss of each row of `logits` `[N, vocab]` against `targets` `[N]` (int64), `[N]`; 0 where the target is `ignored`.
pub fn losses(logits: &Tensor, targets: &Tensor, ignored: i64) -> Tensor {
    if !single_on_cpu(logits) {
        return logits.cross_entropy_loss::<Tensor>(targets, None, Reduction::None, ignored, 0.0);
    }
    let inputs = [logits.contiguous(), targets.contiguous()];
    apply(CrossEntropy { ignored }, &inputs.each_ref()).pop().expect("one output")
}

/// Mean of the losses of the rows that are not ignored; not a number if all are.
pub fn mean_loss(logits: &Tensor, targets: &Tensor, ignored: i64) -> Tensor {
    let count = targets.ne(ignored).sum(Kind::Float);
    losses(logits, targets, ignored).sum(Kind::Float) / count
}

struct CrossEntropy {
    ignored: i64,
}

impl Operation for CrossEntropy {
    fn forward(&self, tensors: &[Tensor]) -> (Vec<Tensor>, Vec<Tensor>) {
        let empty = || Tensor::empty(tensors[1].size(), (Kind::Float, Device::Cpu));
        let (mut losses, mut log_sums) = (empty(), empty());
        forward(
            read(&tensors[0]),
            elements(&tensors[1]),
            self.ignored,
            write(&mut losses),
            write(&mut log_sums),
            &parallel,
        );
        (vec![losses], vec![log_sums])
    }

    fn backward(&self, tensors: &[Tensor], kept: &[Tensor], d_outputs: &[Tensor]) -> Vec<Tensor> {
        let d_losses = d_outputs[0].contiguous();
        let mut d_logits = tensors[0].empty_like();
        backward(
            read(&tensors[0]),
            elements(&tensors[1]),
            self.ignored,
            read(&kept[0]),
            read(&d_losses),
            write(&mut d_logits),
            &parallel,
        );
        vec![d_logits, Tensor::new()] // targets have no gradient
    }
}
