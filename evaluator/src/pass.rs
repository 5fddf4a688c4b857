//! The forward and backward pass of a step. On a GPU it is recorded after a few steps and from then on started as one:
//! small models otherwise wait for each of their thousand kernels to be started.

use operators::Model;
use operators::gpu::{self, Recorded};
use search::Architecture;
use tch::{Kind, Reduction, Tensor};

use crate::error::Result;
use crate::loss::cross_entropy;

/// Steps until all kernels are compiled and all libraries have what they take at first.
pub(crate) const STARTED_FIRST: u32 = 3;

/// What a training adds to its loss for each mixture of experts, times how unevenly these are used: that of Switch (arXiv
/// 2101.03961, section 2.2) and OLMoE (arXiv 2409.02060, section 4.1.7). No loss that is shown holds it.
const BALANCE: f64 = 0.01;

/// How the next pass is made.
#[derive(Debug)]
pub(crate) enum Pass {
    /// Kernel by kernel; so many passes were.
    Started(u32),
    /// As one.
    Recorded(Box<Recording>),
    /// Kernel by kernel, for good: it cannot be recorded.
    Refused,
}

/// A pass over tensors that stay.
#[derive(Debug)]
pub(crate) struct Recording {
    graph: Recorded,
    inputs: Tensor,
    targets: Tensor,
    loss: Tensor,
}

impl Pass {
    /// The first of a model of `architecture`. Log-linear mixers bring a table from the host, and of a mixture of experts the
    /// host asks how many tokens each has: neither can be recorded.
    pub(crate) fn of(architecture: &Architecture) -> Self {
        let asks_host = architecture.layers().iter().any(|layer| {
            layer.mixer.is_some_and(|mixer| mixer.levels().is_some())
                || layer.ffn.is_some_and(|ffn| ffn.kind.experts().is_some())
        });
        if asks_host { Self::Refused } else { Self::Started(0) }
    }

    /// Adds the gradients of the loss towards `targets` `[B, T]` given `inputs` `[B, T]` to those of the model, with
    /// those of [`BALANCE`] times how unevenly experts are used; the loss, nats per token. If that is not finite, the gradients
    /// may be missing.
    pub(crate) fn run(&mut self, model: &Model, inputs: &Tensor, targets: &Tensor) -> Result<f64> {
        let device = model.variables()[0].tensor.device();
        if matches!(self, Self::Started(STARTED_FIRST)) {
            *self = Recording::new(model, inputs, targets)
                .map_or(Self::Refused, |recording| Self::Recorded(Box::new(recording)));
        }
        if let Self::Recorded(recording) = self
            && recording.inputs.size() == inputs.size()
        {
            return recording.run(inputs, targets);
        }
        if let Self::Started(count) = self
            && device.is_cuda()
        {
            *count += 1;
        }
        let (logits, balance) = model.forward_with_balance(inputs);
        let loss = cross_entropy(&logits, targets, Reduction::Mean);
        let value = loss.double_value(&[]);
        if value.is_finite() {
            balance.map_or(loss.shallow_clone(), |uneven| loss + uneven * BALANCE).f_backward()?;
        }
        Ok(value)
    }
}

impl Recording {
    fn new(model: &Model, inputs: &Tensor, targets: &Tensor) -> std::result::Result<Self, String> {
        let device = model.variables()[0].tensor.device();
        let held = |x: &Tensor| x.to_device(device).to_kind(Kind::Int64).copy();
        let (inputs, targets) = (held(inputs), held(targets));
        let (graph, loss) = gpu::record(device, || {
            let loss = cross_entropy(&model.forward(&inputs), &targets, Reduction::Mean);
            loss.backward();
            loss.detach()
        })?;
        Ok(Self { graph, inputs, targets, loss })
    }

    fn run(&mut self, inputs: &Tensor, targets: &Tensor) -> Result<f64> {
        self.inputs.f_copy_(inputs)?;
        self.targets.f_copy_(targets)?;
        self.graph.replay().map_err(tch::TchError::Torch)?;
        Ok(self.loss.f_double_value(&[])?)
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, nn};

    use super::*;

    #[test]
    fn the_balance_of_experts_is_learnt_and_is_no_part_of_the_loss() {
        let text = "d=12,vocab=17,tied | moe(5,e=6,k=2,s=1) | gdn(h=1,k=4,v=4)+moe(7,e=4,k=1)";
        let stack: Architecture = text.parse().expect("a stack");
        let store = nn::VarStore::new(Device::Cpu);
        let model = Model::new(&store.root(), &stack, 3).expect("it builds");
        let tokens = Tensor::arange(2 * 33, (Kind::Int64, Device::Cpu)).remainder(17);
        let tokens = (&tokens * &tokens).remainder(17).reshape([2, 33]);
        let (inputs, targets) = (tokens.narrow(1, 0, 32), tokens.narrow(1, 1, 32));
        let routers: Vec<Tensor> = model
            .variables()
            .iter()
            .filter(|variable| variable.spec.name.ends_with("router.weight"))
            .map(|variable| variable.tensor.shallow_clone())
            .collect();
        let gradients = || -> Vec<Tensor> {
            let taken = routers.iter().map(|router| router.grad().copy()).collect();
            for variable in model.variables() {
                let _ = variable.tensor.grad().zero_();
            }
            taken
        };
        let loss = Pass::of(&stack).run(&model, &inputs, &targets).expect("a pass");
        let both = gradients();
        let plain = cross_entropy(&model.forward(&inputs), &targets, Reduction::Mean);
        assert!((loss - plain.double_value(&[])).abs() < 1e-6);
        plain.backward();
        let of_loss = gradients();
        let balance = model.forward_with_balance(&inputs).1.expect("there are mixtures");
        assert!((2.0..4.0).contains(&balance.double_value(&[])), "nearly 1 in each of two layers");
        (balance * BALANCE).backward();
        for ((both, loss), balance) in both.iter().zip(of_loss).zip(gradients()) {
            assert!(balance.norm().double_value(&[]) > 0.0);
            assert!(both.allclose(&(loss + balance), 1e-4, 1e-8, false));
        }
    }
}
