//! The forward and backward pass of a step. On a GPU it is recorded after a few steps and from then on started as one:
//! small models otherwise wait for each of their thousand kernels to be started.

use operators::Model;
use operators::gpu::{self, Recorded};
use search::Architecture;
use tch::{Kind, Reduction, Tensor};

use crate::error::Result;
use crate::learner::cross_entropy;

/// Steps until all kernels are compiled and all libraries have what they take at first.
pub(crate) const STARTED_FIRST: u32 = 3;

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
    /// The first of a model of `architecture`. Log-linear mixers bring a table from the host, which cannot be recorded.
    pub(crate) fn of(architecture: &Architecture) -> Self {
        let mut mixers = architecture.layers().iter().filter_map(|layer| layer.mixer.as_ref());
        let tables = mixers.any(|mixer| mixer.levels().is_some());
        if tables { Self::Refused } else { Self::Started(0) }
    }

    /// Adds the gradients of the loss towards `targets` `[B, T]` given `inputs` `[B, T]` to those of the model; the loss,
    /// nats per token. If that is not finite, the gradients may be missing.
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
        let loss = cross_entropy(&model.forward(inputs), targets, Reduction::Mean);
        let value = loss.double_value(&[]);
        if value.is_finite() {
            loss.f_backward()?;
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
