//! The inference engine: an architecture with weights, run on the CPU without libtorch.
//!
//! State and caches are explicit: the engine never changes, a [`State`] holds what a batch of sequences has seen.

mod cache;
mod fenwick;
mod ffn;
mod function;
mod memory;
mod mixer;
mod phases;
mod recurrent;
pub(crate) mod scratch;
pub(crate) mod sublayer;

use std::borrow::Cow;

use kernels::cpu::matrix::{Rows, Storage};
use kernels::cpu::{Flushed, Matrix, Pool, run};
use kernels::norm::cpu::{Gate, RmsNorm};
use search::Architecture;

use crate::error::ProfileError;
use crate::weights::{SplitMix, Weights};
use memory::Memory;
use scratch::{Buffer, ROWS, Run, Scratch};
use sublayer::Sublayer;

/// A model ready to run.
#[derive(Debug)]
pub struct Engine {
    pool: Pool,
    sublayers: Vec<Sublayer>,
    head: Head,
    /// What a sequence begins with in every sublayer: nothing, or what the meta tokens leave.
    initial: Vec<Memory>,
    meta_tokens: usize,
}

/// Embedding, final norm and logits.
#[derive(Debug)]
pub(crate) struct Head {
    /// `[vocab, d]`, or none when the logits' matrix serves.
    embedding: Option<Rows>,
    /// `[d]`
    norm: Vec<f32>,
    /// `[vocab, d]`
    logits: Matrix,
}

/// What a batch of sequences of equal length has seen.
#[derive(Debug)]
pub struct State {
    position: usize,
    batch: usize,
    /// For every sublayer, for every sequence.
    memories: Vec<Vec<Memory>>,
    /// Positions that every sequence had before its first token.
    meta_tokens: usize,
    scratch: Scratch,
}

impl State {
    /// Positions seen.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Sequences.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Bytes of states and caches.
    pub fn bytes(&self) -> usize {
        self.memories.iter().flatten().map(Memory::bytes).sum()
    }

    /// Goes back to `position` so that the same step can be timed again. Caches forget what came after; recurrent states
    /// keep it, which changes values but no amount of work. Those of log-linear mixers, of which one step works more than
    /// the next, go on, and begin anew after [`State::steps`].
    pub(crate) fn rewind(&mut self, position: usize) {
        self.position = position;
        for memory in self.memories.iter_mut().flatten() {
            memory.rewind(position + self.meta_tokens);
        }
    }

    /// Steps that one timing goes through: one, or of log-linear mixers as many as show their average.
    pub(crate) fn steps(&self, position: usize) -> usize {
        let memories = self.memories.iter().flatten();
        memories.map(|memory| memory.steps(position + self.meta_tokens)).max().unwrap_or(1)
    }
}

impl Head {
    pub(crate) fn new(
        weights: &Weights,
        d_model: usize,
        vocab: usize,
        tied: bool,
        storage: Storage,
    ) -> Self {
        let embedding = weights.get("embedding.weight");
        let head = if tied { embedding } else { weights.get("head.weight") };
        let mut logits = Cow::Borrowed(head);
        if weights.divided_logits {
            for row in logits.to_mut().chunks_exact_mut(d_model) {
                let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
                for x in row {
                    *x /= norm;
                }
            }
        }
        Self {
            embedding: (!tied || weights.divided_logits)
                .then(|| Rows::pack(embedding, d_model, storage)),
            norm: weights.get("final_norm.weight").to_vec(),
            logits: Matrix::pack(&logits, vocab, d_model, storage),
        }
    }

    /// The bytes that a decode step reads: one row of the embedding does not count.
    pub(crate) fn weight_bytes(&self) -> usize {
        self.logits.bytes()
    }

    pub(crate) fn d_model(&self) -> usize {
        self.logits.inputs()
    }

    pub(crate) fn vocab(&self) -> usize {
        self.logits.outputs()
    }

    /// x `[N, d]` ← the rows of the tokens.
    pub(crate) fn embed(&self, pool: &Pool, tokens: &[u32], x: &mut [f32]) {
        let d = self.d_model();
        pool.chunks_mut(x, ROWS * d, |block, x| {
            for (token, x) in tokens[block * ROWS..].iter().zip(x.chunks_exact_mut(d)) {
                match &self.embedding {
                    Some(rows) => rows.read(*token as usize, x),
                    None => self.logits.read_row(*token as usize, x),
                }
            }
        });
    }

    /// logits `[B, vocab]` of the last of the T positions of x `[B, T, d]`, by way of `last`, `[B, d]`.
    pub(crate) fn last_logits(
        &self,
        pool: &Pool,
        x: &[f32],
        batch: usize,
        last: &mut [f32],
        logits: &mut [f32],
    ) {
        let (d, length) = (self.d_model(), x.len() / batch);
        for (last, x) in last.chunks_exact_mut(d).zip(x.chunks_exact(length)) {
            last.copy_from_slice(&x[length - d..]);
        }
        self.logits(pool, last, logits);
    }

    /// logits `[N, vocab]` ← x `[N, d]`, which is normalised in place.
    pub(crate) fn logits(&self, pool: &Pool, x: &mut [f32], logits: &mut [f32]) {
        run(RmsNorm { x, weight: &self.norm, gate: Gate::None });
        self.logits.apply(pool, x, logits);
    }
}

impl Engine {
    /// Builds the model on `threads` threads, the calling one included, with weights in f32.
    ///
    /// # Panics
    /// As [`Engine::with_storage`].
    pub fn new(architecture: &Architecture, weights: &Weights, threads: usize) -> Self {
        Self::with_storage(architecture, weights, threads, Storage::F32)
    }

    /// Builds the model with the matrices of mixers, feed-forward networks, embedding and head in one storage: norms,
    /// convolutions and the parameters of decays stay f32.
    ///
    /// # Panics
    /// When the weights are not those of the architecture; [`Weights`] checks files before that.
    pub fn with_storage(
        architecture: &Architecture,
        weights: &Weights,
        threads: usize,
        storage: Storage,
    ) -> Self {
        let d = architecture.d_model() as usize;
        let vocab = architecture.vocab() as usize;
        let sublayers = sublayer::build(architecture, weights, storage);
        let meta_tokens = architecture.meta_tokens() as usize;
        let mut engine = Self {
            pool: Pool::new(threads),
            head: Head::new(weights, d, vocab, architecture.tied_embeddings(), storage),
            initial: sublayers.iter().map(Sublayer::memory).collect(),
            sublayers,
            meta_tokens,
        };
        if meta_tokens > 0 {
            let mut state = engine.state(1);
            let mut x = weights.get("meta.weight").to_vec();
            engine.through(&mut state, meta_tokens, &mut x);
            engine.initial = state.memories.into_iter().flatten().collect();
        }
        engine
    }

    /// The state of `batch` sequences that have seen nothing.
    pub fn state(&self, batch: usize) -> State {
        let memories = self.initial.iter().map(|memory| vec![memory.clone(); batch]).collect();
        let meta_tokens = self.meta_tokens;
        State { position: 0, batch, memories, meta_tokens, scratch: Scratch::default() }
    }

    /// A state as if `position` positions had been seen, with random values: to time a step without a long prompt.
    pub(crate) fn pretended(&self, batch: usize, position: usize, seed: u64) -> State {
        let mut random = SplitMix(seed);
        let mut state = self.state(batch);
        state.position = position;
        for (layer, memories) in self.sublayers.iter().zip(&mut state.memories) {
            for memory in memories {
                *memory = layer.pretended(position + self.meta_tokens, &mut random);
            }
        }
        state
    }

    /// Bytes of the weights that decode steps read.
    pub fn weight_bytes(&self) -> usize {
        let of_layers = self.sublayers.iter().map(Sublayer::weight_bytes);
        self.head.weight_bytes() + of_layers.sum::<usize>()
    }

    /// Whether what a step reads depends on its input: there is a mixture of experts.
    pub(crate) fn reads_by_input(&self) -> bool {
        self.sublayers.iter().any(Sublayer::reads_by_input)
    }

    /// Reads prompts, `[B, T]`, and returns the logits of their last positions, `[B, vocab]`.
    ///
    /// # Errors
    /// When there is no token, a token is outside the vocabulary, or the tokens are not a multiple of the batch.
    pub fn prefill(&self, state: &mut State, tokens: &[u32]) -> Result<Vec<f32>, ProfileError> {
        let mut logits = vec![0.0; state.batch * self.head.vocab()];
        self.last_logits(state, tokens, &mut logits)?;
        Ok(logits)
    }

    /// [`Engine::prefill`] into a buffer of the caller.
    pub(crate) fn last_logits(
        &self,
        state: &mut State,
        tokens: &[u32],
        logits: &mut [f32],
    ) -> Result<(), ProfileError> {
        let _flushed = Flushed::begin();
        let x = self.forward(state, tokens)?;
        let mut last = state.scratch.take(state.batch * self.head.d_model());
        self.head.last_logits(&self.pool, &x, state.batch, &mut last, logits);
        state.scratch.give(last);
        state.scratch.give(x);
        Ok(())
    }

    /// Reads the next token of every sequence, `[B]`, and returns the logits, `[B, vocab]`.
    ///
    /// # Errors
    /// As [`Engine::prefill`].
    pub fn decode(&self, state: &mut State, tokens: &[u32]) -> Result<Vec<f32>, ProfileError> {
        if tokens.len() != state.batch {
            let (got, batch) = (tokens.len(), state.batch);
            return Err(ProfileError::Tokens(format!(
                "decode takes one token for each of the {batch} sequences, got {got}"
            )));
        }
        self.prefill(state, tokens)
    }

    /// Reads `[B, T]` tokens and returns the logits of every position, `[B, T, vocab]`: to compare models.
    ///
    /// # Errors
    /// As [`Engine::prefill`].
    pub fn logits(&self, state: &mut State, tokens: &[u32]) -> Result<Vec<f32>, ProfileError> {
        let _flushed = Flushed::begin();
        let mut x = self.forward(state, tokens)?;
        let mut logits = vec![0.0; tokens.len() * self.head.vocab()];
        self.head.logits(&self.pool, &mut x, &mut logits);
        state.scratch.give(x);
        Ok(logits)
    }

    /// The hidden states after the last layer, `[B, T, d]`.
    fn forward(&self, state: &mut State, tokens: &[u32]) -> Result<Buffer, ProfileError> {
        let (batch, vocab) = (state.batch, self.head.vocab());
        if tokens.is_empty() || !tokens.len().is_multiple_of(batch) {
            let got = tokens.len();
            return Err(ProfileError::Tokens(format!(
                "{batch} sequences need equally many tokens each, at least one; got {got} in all"
            )));
        }
        if let Some(token) = tokens.iter().find(|token| **token as usize >= vocab) {
            return Err(ProfileError::Tokens(format!(
                "token {token} is outside the vocabulary of {vocab}"
            )));
        }
        assert_eq!(state.memories.len(), self.sublayers.len(), "the state is of another engine");
        let length = tokens.len() / batch;
        let mut x = state.scratch.take(tokens.len() * self.head.d_model());
        self.head.embed(&self.pool, tokens, &mut x);
        self.through(state, length, &mut x);
        state.position += length;
        Ok(x)
    }

    /// x `[B·T, d]` through all sublayers, T = `length`.
    fn through(&self, state: &mut State, length: usize, x: &mut [f32]) {
        let mut on = Run { pool: &self.pool, scratch: &mut state.scratch };
        for (layer, memories) in self.sublayers.iter().zip(&mut state.memories) {
            layer.forward(&mut on, length, x, memories);
        }
    }
}
