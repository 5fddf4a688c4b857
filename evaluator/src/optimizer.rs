//! Muon for matrices (Jordan et al. 2024): along their momentum, orthogonalised, as far as AdamW would move them (arXiv
//! 2502.16982, eq. 4); AdamW (arXiv 1711.05101) for the rest. The training rule says which is which. All over one flat
//! buffer.
//!
//! Parameters, gradients and both moments are four vectors; the model's tensors and their gradients are views into the
//! first two. A step is then one pass over the four, whatever the number of tensors, and the norm of the whole gradient is
//! one reduction. Tensors that move by Muon come first, those of one shape together, then others that decay;
//! neighbours of equal rate and decay are one group.

use operators::Model;
use operators::gpu::{self, Recorded};
use operators::ops::optimizer::{self, Group, Groups, Units, Update};
use search::config::TrainingConfig;
use search::tensors::{Role, TensorSpec};
use tch::{Kind, Tensor};

use crate::error::Result;
use crate::pass::STARTED_FIRST;
use crate::rule::Rule;

/// Views begin at multiples of this many elements: one cache line, as libtorch's own allocations.
const ALIGNMENT: i64 = 16;

/// So many elements, and those up to where a view may begin.
fn aligned(elements: i64) -> i64 {
    (elements + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT
}

const EPSILON: f64 = 1e-8;

/// Muon's momentum, after Nesterov.
const MOMENTUM: f64 = 0.95;

/// Root mean square of an update of AdamW, which one of Muon is brought to.
const UPDATE_RMS: f64 = 0.2;

/// The optimiser with its state.
#[derive(Debug)]
pub struct Optimizer {
    spans: Vec<Span>,
    /// `[n]`, the four of them.
    parameters: Tensor,
    gradients: Tensor,
    first_moments: Tensor,
    second_moments: Tensor,
    /// Of what AdamW moves.
    groups: Groups,
    /// What Muon moves, at the beginning of the vectors.
    stacks: Vec<Stack>,
    betas: (f64, f64),
    clip: f64,
    /// Updates made, for the correction of the moments' bias.
    updates: u64,
    /// On a GPU, what [`Self::numbers_of`] gave for this update.
    numbers: Tensor,
    update: Work,
}

/// How the next update is made on a GPU.
#[derive(Debug)]
enum Work {
    /// Kernel by kernel; so many were.
    Started(u32),
    /// As one.
    Recorded(Recorded),
    /// Kernel by kernel, for good: it cannot be recorded.
    Refused,
}

impl Default for Work {
    fn default() -> Self {
        Self::Started(0)
    }
}

/// Matrices of one shape that lie one after the other and move by Muon.
#[derive(Debug)]
struct Stack {
    start: i64,
    /// How many, rows, columns.
    shape: [i64; 3],
    units: Units,
    /// Of the learning rate.
    rate: f64,
    decay: f64,
}

impl Stack {
    fn elements(&self) -> i64 {
        self.shape.iter().product()
    }

    fn view(&self, flat: &Tensor) -> Tensor {
        flat.narrow(0, self.start, self.elements()).view(self.shape)
    }
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

impl Optimizer {
    /// Moves the variables of a model into one buffer; `rule` says the rate of each.
    ///
    /// # Errors
    /// When libtorch refuses, usually for want of memory.
    pub fn new(model: &Model, config: &TrainingConfig, rule: Rule<'_>) -> Result<Self> {
        // meta tokens are embeddings that no text names
        let is_embedding = |role: Role| matches!(role, Role::Embedding | Role::MetaTokens);
        let decays =
            |role: Role| role.is_matrix() && (config.decay_embeddings || !is_embedding(role));
        let (mut orthogonal, rest): (Vec<_>, Vec<_>) =
            model.variables().iter().partition(|v| rule(&v.spec).orthogonal.is_some());
        orthogonal.sort_by_key(|v| v.spec.shape.clone());
        let (decaying, others): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|v| decays(v.spec.role));
        let weight_decay = if config.weight_normalisation { 0.0 } else { config.weight_decay };
        let mut spans: Vec<Span> = Vec::new();
        let mut stacks: Vec<Stack> = Vec::new();
        let mut groups: Vec<Group> = Vec::new();
        let mut end = 0;
        let variables: Vec<_> = orthogonal.iter().chain(&decaying).chain(&others).collect();
        for variable in &variables {
            let factors = rule(&variable.spec);
            let decay = if decays(variable.spec.role) { weight_decay } else { 0.0 };
            let (start, elements) = (end, variable.spec.elements() as i64);
            spans.push(Span { spec: variable.spec.clone(), start });
            end += aligned(elements);
            if let Some(units) = factors.orthogonal {
                // of a mixture one matrix for each expert
                let (count, rows, columns) = match variable.spec.shape[..] {
                    [rows, columns] => (1, rows as i64, columns as i64),
                    [count, rows, columns] => (count as i64, rows as i64, columns as i64),
                    _ => panic!("{} is no matrix", variable.spec.name),
                };
                let rate = factors.rate;
                match stacks.last_mut() {
                    Some(last)
                        if last.start + last.elements() == start
                            && last.shape[1..] == [rows, columns]
                            && (last.units, last.rate, last.decay) == (units, rate, decay) =>
                    {
                        last.shape[0] += count;
                    }
                    _ => {
                        let shape = [count, rows, columns];
                        stacks.push(Stack { start, shape, units, rate, decay });
                    }
                }
                continue;
            }
            let group = Group { elements: (end - start) as usize, rate: factors.rate, decay };
            match groups.last_mut() {
                Some(last) if *last == (Group { elements: last.elements, ..group }) => {
                    last.elements += group.elements;
                }
                _ => groups.push(group),
            }
        }
        let device = model.variables()[0].tensor.device();
        let numbers = 4 + 2 * stacks.len() as i64;
        let flat = || Tensor::f_zeros([end], (Kind::Float, device));
        let optimizer = Self {
            spans,
            parameters: flat()?,
            gradients: flat()?,
            first_moments: flat()?,
            second_moments: flat()?,
            groups: Groups::new(groups, device),
            stacks,
            betas: (config.beta1, config.beta2),
            clip: config.gradient_clip,
            updates: 0,
            numbers: Tensor::f_zeros([numbers], (Kind::Float, device))?,
            update: Work::default(),
        };
        let leaves = variables.iter().map(|v| v.tensor.shallow_clone()).collect();
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
            let numbers = Tensor::from_slice(&self.numbers_of(&update));
            if self.parameters.device().is_cuda() {
                self.update_on_gpu(&numbers);
            } else {
                self.move_matrices(&numbers);
                self.move_rest(|groups, parameters, gradients, [m, v]| {
                    optimizer::adamw(&update, groups, parameters, gradients, m, v);
                });
            }
            norm
        })
    }

    /// What of an update changes from one to the next: four numbers of AdamW, of which the first is the gradient's factor,
    /// then of each stack what is left of its matrices and how far they move.
    fn numbers_of(&self, update: &Update) -> Vec<f32> {
        let of_stacks = self.stacks.iter().flat_map(|stack| {
            let rate = update.rate * stack.rate;
            [1.0 - rate * stack.decay, -rate * UPDATE_RMS].map(|x| x as f32)
        });
        optimizer::adamw_numbers(update).into_iter().chain(of_stacks).collect()
    }

    /// An update by `numbers`, recorded after a few.
    fn update_on_gpu(&mut self, numbers: &Tensor) {
        self.numbers.copy_(numbers);
        let device = self.parameters.device();
        self.update = match std::mem::take(&mut self.update) {
            Work::Started(STARTED_FIRST) => gpu::record(device, || self.update_by_numbers())
                .map_or(Work::Refused, |(recorded, ())| Work::Recorded(recorded)),
            other => other,
        };
        if let Work::Recorded(recorded) = &mut self.update {
            recorded.replay().expect("what was recorded on a GPU starts there");
            return;
        }
        self.update_by_numbers();
        if let Work::Started(count) = &mut self.update {
            *count += 1;
        }
    }

    fn update_by_numbers(&self) {
        self.move_matrices(&self.numbers);
        self.move_rest(|groups, parameters, gradients, moments| {
            let betas = self.betas;
            optimizer::adamw_on_gpu(betas, &self.numbers, groups, parameters, gradients, moments);
        });
    }

    /// What AdamW moves: parameters, gradients, both moments.
    fn move_rest(&self, by: impl FnOnce(&Groups, &mut Tensor, &Tensor, [&mut Tensor; 2])) {
        let first = self.first_of_adamw();
        let rest = |flat: &Tensor| flat.narrow(0, first, flat.size()[0] - first);
        let (mut m, mut v) = (rest(&self.first_moments), rest(&self.second_moments));
        by(&self.groups, &mut rest(&self.parameters), &rest(&self.gradients), [&mut m, &mut v]);
    }

    /// Where the elements begin that AdamW moves.
    fn first_of_adamw(&self) -> i64 {
        aligned(self.stacks.last().map_or(0, |stack| stack.start + stack.elements()))
    }

    /// Muon: m ← μ m + (1 − μ) g, then θ ← (1 − η λ) θ − 0.2 η · orthogonalised(μ m + (1 − μ) g), whose
    /// root mean square is 1.
    fn move_matrices(&self, numbers: &Tensor) {
        let len = self.first_of_adamw();
        if len == 0 {
            return;
        }
        let gradients = self.gradients.narrow(0, 0, len) * numbers.get(0);
        let mut moments = self.first_moments.narrow(0, 0, len);
        let _ = moments.lerp_(&gradients, 1.0 - MOMENTUM);
        let ahead = gradients.lerp(&moments, MOMENTUM);
        for (i, stack) in (0_i64..).zip(&self.stacks) {
            let (left, distance) = (numbers.get(4 + 2 * i), numbers.get(5 + 2 * i));
            let step = optimizer::orthogonalised(&stack.view(&ahead), stack.units);
            let mut theta = stack.view(&self.parameters);
            let _ = theta.g_mul_(&left);
            let _ = theta.g_add_(&(step * distance));
        }
    }

    /// The model's tensors by name, as views.
    pub(crate) fn weights(&self) -> Vec<(String, Tensor)> {
        self.named("", &self.parameters)
    }

    /// The optimiser's state by name, as views.
    pub(crate) fn moments(&self) -> Vec<(String, Tensor)> {
        let mut moments = self.named("first_moment.", &self.first_moments);
        // Muon has none
        let first = self.first_of_adamw();
        let of_adamw = self.spans.iter().filter(|span| span.start >= first);
        moments.extend(of_adamw.map(|span| {
            (format!("second_moment.{}", span.spec.name), span.view(&self.second_moments))
        }));
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
