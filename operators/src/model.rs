//! The model: embedding, blocks, final norm, head.

use std::collections::HashMap;

use search::Architecture;
use search::tensors::{Role, tensors};
use tch::{Kind, Tensor, nn};

use crate::OperatorError;
use crate::block::Block;
use crate::mixer::MixerState;
use crate::ops::linear::linear;
use crate::ops::norm::rms_norm;
use crate::precision::{self, Precision};
use crate::retrieval::LayerReads;
use crate::weights::{Variable, Weights, all_taken, create};

/// By which a row of zeros is divided instead of its norm.
const LEAST_NORM: f64 = 1e-30;

/// A language model: tokens in, logits of the next token out.
#[derive(Debug)]
pub struct Model {
    embedding: Tensor,
    /// The learnt vectors before every sequence, `[m, d]`.
    meta: Option<Tensor>,
    blocks: Vec<Block>,
    final_norm: Tensor,
    head: Tensor,
    divide_by_head_norms: bool,
    precision: Precision,
    variables: Vec<Variable>,
}

/// What a model remembers of the tokens so far.
#[derive(Debug)]
pub struct State {
    /// One per layer; none where a layer has no mixer.
    pub layers: Vec<Option<MixerState>>,
}

impl Model {
    /// Builds `architecture` with variables below `path`, in f32 on the path's device. The weights depend on the
    /// architecture and `seed` only.
    ///
    /// # Errors
    /// When libtorch refuses a tensor, or the list of tensors and the modules disagree.
    pub fn new(
        path: &nn::Path,
        architecture: &Architecture,
        seed: u64,
    ) -> Result<Self, OperatorError> {
        let mut variables = Vec::new();
        let mut untaken = HashMap::new();
        for spec in tensors(architecture) {
            let layer = spec
                .name
                .strip_prefix("layers.")
                .and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
            let mixer = layer.and_then(|layer| architecture.layers()[layer].mixer.as_ref());
            let tensor = create(path, &spec, mixer, seed)?;
            untaken.insert(spec.name.clone(), tensor.shallow_clone());
            variables.push(Variable { spec, tensor });
        }
        let mut weights = Weights::root(&mut untaken);
        let embedding = weights.take("embedding.weight")?;
        let meta = weights.take_if(architecture.meta_tokens() > 0, "meta.weight")?;
        let head = weights.take_if(!architecture.tied_embeddings(), "head.weight")?;
        let head = head.unwrap_or_else(|| embedding.shallow_clone());
        let final_norm = weights.take("final_norm.weight")?;
        let mut blocks = Vec::new();
        for (index, layer) in architecture.layers().iter().enumerate() {
            blocks.push(Block::new(layer, &mut weights.below(&format!("layers.{index}")))?);
        }
        all_taken(&untaken)?;
        Ok(Self {
            embedding,
            meta,
            blocks,
            final_norm,
            head,
            divide_by_head_norms: false,
            precision: Precision::F32,
            variables,
        })
    }

    /// Logits `[B, T, vocab]` of the token after each of `tokens` `[B, T]` (int64), all positions in parallel.
    pub fn forward(&self, tokens: &Tensor) -> Tensor {
        precision::with(self.precision, || self.logits(&self.hidden(tokens, None, None)))
    }

    /// [`Self::forward`], and how unevenly the experts of all mixtures are used, summed over the layers
    /// ([`kernels::moe::balance_definition`]); none where there is no mixture.
    pub fn forward_with_balance(&self, tokens: &Tensor) -> (Tensor, Option<Tensor>) {
        let mut balance = Vec::new();
        let logits = precision::with(self.precision, || {
            self.logits(&self.hidden(tokens, None, Some(&mut balance)))
        });
        (logits, balance.into_iter().reduce(|sum, of_layer| sum + of_layer))
    }

    /// Like [`Self::forward`] for tokens `[B, T]` that follow what `state` has seen; the state is moved past them.
    pub fn extend(&self, tokens: &Tensor, state: &mut State) -> Tensor {
        precision::with(self.precision, || self.logits(&self.hidden(tokens, Some(state), None)))
    }

    /// Logits `[B, vocab]` of the token after `tokens` `[B]` (int64), which follow what `state` has seen.
    pub fn step(&self, tokens: &Tensor, state: &mut State) -> Tensor {
        let mut x = self.embed(tokens);
        for (block, state) in self.blocks.iter().zip(&mut state.layers) {
            x = block.step(x, state.as_mut());
        }
        self.logits(&x)
    }

    /// The state before the first token, on the device and in the precision of the weights: empty, or what the meta
    /// tokens leave, with its gradient.
    pub fn state(&self, batch: i64) -> State {
        let mut state =
            State { layers: self.blocks.iter().map(|block| block.state(batch)).collect() };
        if let Some(meta) = self.meta_of(batch) {
            let _ = self.through(meta, Some(&mut state), None);
        }
        state
    }

    /// What each layer's memories give back: its mixer's of what it stored in the first n positions of `tokens` `[B, T]`
    /// (int64), for each n of `positions`, its network's of its weights. Meta tokens are left out: they are no part of the text.
    pub fn reads(&self, tokens: &Tensor, positions: &[i64]) -> Vec<LayerReads> {
        tch::no_grad(|| {
            let mut x = self.embed(tokens);
            let mut layers = Vec::with_capacity(self.blocks.len());
            for block in &self.blocks {
                let (reads, next) = block.reads(&x, positions);
                layers.push(reads);
                x = next;
            }
            layers
        })
    }

    /// Every trainable tensor, in the order of [`tensors`].
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// The trainable tensors whose role is `chosen`, for the groups of an optimiser.
    pub fn variables_where(&self, chosen: impl Fn(Role) -> bool) -> Vec<Tensor> {
        self.variables
            .iter()
            .filter(|v| chosen(v.spec.role))
            .map(|v| v.tensor.shallow_clone())
            .collect()
    }

    /// The weight normalisation of Nemotron-Flash (arXiv 2511.18890), meant after each step of an optimiser that does
    /// not decay weights: of a matrix that reads the hidden state each output row, of one that writes to it each input
    /// column is brought to unit L2 norm. Rows and columns of zeros stay.
    pub fn normalise_weights(&self) {
        tch::no_grad(|| {
            for Variable { spec, tensor } in &self.variables {
                let dim = match spec.role {
                    Role::Reader => -1,
                    Role::Writer => -2,
                    _ => continue,
                };
                let norm = tensor.square().sum_dim_intlist(dim, true, tensor.kind()).sqrt();
                let _ = tensor.shallow_clone().g_div_(&norm.clamp_min(LEAST_NORM));
            }
        });
    }

    /// Whether logits are divided by the norms of the head's rows, as the model that Nemotron-Flash released does; off
    /// in a new model. A head that is not tied can be divided once instead, before it is exported.
    pub fn divide_by_head_norms(&mut self, divide: bool) {
        self.divide_by_head_norms = divide;
    }

    /// The numbers in which products are made from now on, where kernels make them; f32 in a new model. Weights stay f32.
    /// On a GPU activations are kept in them, too.
    pub fn set_precision(&mut self, precision: Precision) {
        self.precision = precision;
    }

    /// `[…]` → `[…, d]`, on the device of the weights.
    fn embed(&self, tokens: &Tensor) -> Tensor {
        let tokens = tokens.to_device(self.embedding.device());
        let x = Tensor::embedding(&self.embedding, &tokens, -1, false, false);
        let narrow = self.precision == Precision::Bf16 && x.device().is_cuda();
        if narrow { x.to_kind(Kind::BFloat16) } else { x }
    }

    /// The meta tokens for each of `batch` sequences, `[B, m, d]`.
    fn meta_of(&self, batch: i64) -> Option<Tensor> {
        let meta = self.meta.as_ref()?;
        Some(meta.unsqueeze(0).expand([batch, -1, -1], false))
    }

    /// The hidden states of `tokens` `[B, T]`: without a state they begin after the meta tokens.
    fn hidden(
        &self,
        tokens: &Tensor,
        state: Option<&mut State>,
        balance: Option<&mut Vec<Tensor>>,
    ) -> Tensor {
        let x = self.embed(tokens);
        let (batch, positions, _) = x.size3().expect("x is [B, T, d]");
        let meta = if state.is_none() { self.meta_of(batch) } else { None };
        match meta {
            Some(meta) => {
                let meta_tokens = meta.size()[1];
                self.through(Tensor::cat(&[meta, x], 1), None, balance).narrow(
                    1,
                    meta_tokens,
                    positions,
                )
            }
            None => self.through(x, state, balance),
        }
    }

    /// x `[B, T, d]` through all blocks.
    fn through(
        &self,
        mut x: Tensor,
        state: Option<&mut State>,
        mut balance: Option<&mut Vec<Tensor>>,
    ) -> Tensor {
        let mut states = state.map(|state| state.layers.iter_mut());
        for block in &self.blocks {
            let state = states.as_mut().and_then(|states| states.next()?.as_mut());
            x = block.forward(x, state, balance.as_deref_mut());
        }
        x
    }

    fn logits(&self, x: &Tensor) -> Tensor {
        let x = rms_norm(x, &self.final_norm);
        if !self.divide_by_head_norms {
            return linear(&x, &self.head);
        }
        let norms = self.head.square().sum_dim_intlist(1, true, self.head.kind()).sqrt();
        linear(&x, &(&self.head / norms.clamp_min(LEAST_NORM)))
    }
}
