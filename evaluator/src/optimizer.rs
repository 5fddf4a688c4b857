//! AdamW (arXiv 1711.05101) over one flat buffer.
//!
//! Parameters, gradients and both moments are four vectors; the model's tensors and their gradients are views into the
//! first two. A step is then one pass over the four, whatever the number of tensors, and the norm of the whole gradient is
//! one reduction. Decaying tensors come first; neighbours of equal rate and decay are one group.

use operators::Model;
use operators::ops::optimizer::{self, Group, Groups, Update};
use search::config::TrainingConfig;
use search::tensors::{Role, TensorSpec};
use tch::{Kind, Tensor};

use crate::error::Result;
use crate::rule::Rule;

/// Views begin at multiples of this many elements: one cache line, as libtorch's own allocations.
const ALIGNMENT: i64 = 16;

const EPSILON: f64 = 1e-8;

/// The optimiser with its state.
#[derive(Debug)]
pub struct AdamW {
    spans: Vec<Span>,
    /// `[n]`, the four of them.
    parameters: Tensor,
    gradients: Tensor,
    first_moments: Tensor,
    second_moments: Tensor,
    groups: Groups,
    betas: (f64, f64),
    clip: f64,
    /// Updates made, for the correction of the moments' bias.
    updates: u64,
}

/// Where a tensor lies in the flat vectors.
#[derive(Debug)]
struct Span {
    spec: TensorSpec,
    start: i64,
}

impl Span {
    fn shape(&self) -> Vec<i64> {
        self.spec.shape.iter().map(|&n| n as i64).collect()
    }

    fn view(&self, flat: &Tensor) -> Tensor {
        flat.narrow(0, self.start, self.spec.elements() as i64).view(self.shape().as_slice())
    }
}

impl AdamW {
    /// Moves the variables of a model into one buffer; `rule` says the rate of each.
    ///
    /// # Errors
    /// When libtorch refuses, usually for want of memory.
    pub fn new(model: &Model, config: &TrainingConfig, rule: Rule<'_>) -> Result<Self> {
        // meta tokens are embeddings that no text names
        let is_embedding = |role: Role| matches!(role, Role::Embedding | Role::MetaTokens);
        let decays =
            |role: Role| role.is_matrix() && (config.decay_embeddings || !is_embedding(role));
        let (decaying, others): (Vec<_>, Vec<_>) =
            model.variables().iter().partition(|v| decays(v.spec.role));
        let weight_decay = if config.weight_normalisation { 0.0 } else { config.weight_decay };
        let mut spans = Vec::new();
        let mut groups: Vec<Group> = Vec::new();
        let mut end = 0;
        for (index, variable) in decaying.iter().chain(&others).enumerate() {
            let factors = rule(&variable.spec);
            spans.push(Span { spec: variable.spec.clone(), start: end });
            let elements =
                (variable.spec.elements() as i64 + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
            end += elements;
            let decay = if index < decaying.len() { weight_decay } else { 0.0 };
            let group = Group { elements: elements as usize, rate: factors.rate, decay };
            match groups.last_mut() {
                Some(last) if *last == (Group { elements: last.elements, ..group }) => {
                    last.elements += group.elements;
                }
                _ => groups.push(group),
            }
        }
        let device = model.variables()[0].tensor.device();
        let flat = || Tensor::f_zeros([end], (Kind::Float, device));
        let optimizer = Self {
            spans,
            parameters: flat()?,
            gradients: flat()?,
            first_moments: flat()?,
            second_moments: flat()?,
            groups: Groups::new(groups, device),
            betas: (config.beta1, config.beta2),
            clip: config.gradient_clip,
            updates: 0,
        };
        let leaves = decaying.iter().chain(&others).map(|v| v.tensor.shallow_clone()).collect();
        optimizer.adopt(leaves)?;
        Ok(optimizer)
    }

    /// Makes the model's tensors and their gradients views of the buffers.
    fn adopt(&self, mut leaves: Vec<Tensor>) -> Result<()> {
        // A gradient exists only after a backward pass; from then on autograd adds to it in place.
        let zero = leaves.iter().map(|leaf| leaf.sum(Kind::Float)).sum::<Tensor>() * 0.0;
        zero.f_backward()?;
        for (span, leaf) in self.spans.iter().zip(&mut leaves) {
            let mut home = span.view(&self.parameters);
            home.f_copy_(&leaf.detach())?;
            leaf.f_set_data(&home)?;
            leaf.grad().f_set_data(&span.view(&self.gradients))?;
        }
        Ok(())
    }

    /// To be called before each backward pass.
    pub fn zero_gradients(&mut self) {
        let _ = self.gradients.zero_();
    }

    /// One update. Returns the norm of the gradient before it was clipped; if that is not finite, nothing is updated.
    pub fn step(&mut self, rate: f64) -> f64 {
        tch::no_grad(|| {
            let norm = optimizer::norm(&self.gradients);
            if !norm.is_finite() {
                return norm;
            }
            self.updates += 1;
            let update = Update {
                rate,
                betas: self.betas,
                epsilon: EPSILON,
                gradient_factor: if norm > self.clip { self.clip / norm } else { 1.0 },
                number: self.updates,
            };
            optimizer::adamw(
                &update,
                &self.groups,
                &mut self.parameters,
                &self.gradients,
                &mut self.first_moments,
                &mut self.second_moments,
            );
            norm
        })
    }

    /// The model's tensors by name, as views.
    pub(crate) fn weights(&self) -> Vec<(String, Tensor)> {
        self.named("", &self.parameters)
    }

    /// The optimiser's state by name, as views.
    pub(crate) fn moments(&self) -> Vec<(String, Tensor)> {
        let mut moments = self.named("first_moment.", &self.first_moments);
        moments.extend(self.named("second_moment.", &self.second_moments));
        moments
    }

    fn named(&self, prefix: &str, flat: &Tensor) -> Vec<(String, Tensor)> {
        self.spans
            .iter()
            .map(|span| (format!("{prefix}{}", span.spec.name), span.view(flat)))
            .collect()
    }

    pub(crate) fn set_updates(&mut self, updates: u64) {
        self.updates = updates;
    }
}
