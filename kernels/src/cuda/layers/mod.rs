//! A stack layer by layer: prefill of whole prompts, and one token of each sequence of a batch.
//!
//! Where [`super::decode`] streams all weights through one launch for one sequence, a pass here is a list of products and
//! kernels, each of which fills the machine with many positions; a GPU records it as a graph. Weights, activations and
//! caches are bf16, sums, states and logits fp32; the residual stream is bf16, added to by the products themselves.

mod model;
mod pass;

use super::decode::Stack;
use super::gpu::{Gpu, Graph};
use super::product::Product;
use super::{Error, Launch, Machine, download_vec};
use model::{Layer, Matrix};

/// A stack with its weights and the past of a batch of sequences.
#[derive(Debug)]
pub struct Model {
    stack: Stack,
    batch: usize,
    embedding: Matrix,
    head: Matrix,
    final_norm: u64,
    layers: Vec<Layer>,
    /// u32 `[B]`, the position of the next token of each sequence.
    positions: u64,
    memory: Vec<u64>,
}

/// What a pass goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// From tokens to logits.
    Whole,
    /// The layers alone, from a residual stream to the next.
    Layers,
    /// The embedding, the last norm and the head alone.
    Head,
}

/// What is started one after the other.
#[derive(Debug, Clone)]
enum Work {
    Kernel(Launch),
    Product(Product),
}

/// The work of one prefill or of one step, with its scratch memory.
#[derive(Debug)]
pub struct Pass {
    work: Vec<Work>,
    batch: usize,
    tokens: usize,
    vocabulary: usize,
    /// u32 `[B, T]`.
    entries: u64,
    /// f32 `[B, logits_row]`.
    logits: u64,
    logits_row: usize,
    memory: Vec<u64>,
}

impl Model {
    /// The model of `stack` for `batch` sequences of at most `stack.positions` positions; `load` as for
    /// [`super::decode::Decoder::new`].
    ///
    /// # Errors
    /// When a kernel does not cover the stack, or the machine's memory does not hold it.
    pub fn new(
        machine: &mut dyn Machine,
        stack: &Stack,
        batch: usize,
        load: &mut dyn FnMut(&str, usize) -> Vec<f32>,
    ) -> Result<Self, Error> {
        model::build(machine, stack, batch, load, false)
    }

    /// The same with some weights and a past of full caches, made on the machine in no time: to be timed.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn pretended(
        machine: &mut dyn Machine,
        stack: &Stack,
        batch: usize,
    ) -> Result<Self, Error> {
        model::build(machine, stack, batch, &mut |_, _| Vec::new(), true)
    }

    /// A prompt of `tokens` for each sequence, from an empty past, which it fills.
    ///
    /// # Errors
    /// When a kernel does not cover it.
    pub fn prefill(
        &self,
        machine: &mut dyn Machine,
        tokens: usize,
        extent: Section,
    ) -> Result<Pass, Error> {
        if tokens == 0 || tokens > self.stack.positions {
            return Err(Error::Shape {
                what: "the tokens of a prompt".to_owned(),
                expected: format!("1 to the {} positions of the caches", self.stack.positions),
                got: tokens.to_string(),
            });
        }
        pass::build(self, machine, pass::Kind::Prefill { tokens }, extent)
    }

    /// A token of each sequence, at the positions given by [`Self::seek`], each of at most `positions` in the caches.
    ///
    /// # Errors
    /// When a kernel does not cover it.
    pub fn step(
        &self,
        machine: &mut dyn Machine,
        positions: usize,
        extent: Section,
    ) -> Result<Pass, Error> {
        pass::build(self, machine, pass::Kind::Step { positions }, extent)
    }

    /// The positions of the tokens that the next step computes.
    ///
    /// # Errors
    /// When the machine does not answer.
    pub fn seek(&self, machine: &mut dyn Machine, positions: &[u32]) -> Result<(), Error> {
        machine.upload(self.positions, bytemuck::cast_slice(positions))
    }

    /// Gives the memory back.
    ///
    /// # Errors
    /// When the machine does not answer.
    pub fn free(self, machine: &mut dyn Machine) -> Result<(), Error> {
        self.memory.iter().try_for_each(|address| machine.free(*address))
    }
}

impl Pass {
    /// The tokens to be computed, `[B, T]`.
    ///
    /// # Errors
    /// When the machine does not answer.
    pub fn set_tokens(&self, machine: &mut dyn Machine, tokens: &[u32]) -> Result<(), Error> {
        assert_eq!(tokens.len(), self.batch * self.tokens, "tokens of a pass");
        machine.upload(self.entries, bytemuck::cast_slice(tokens))
    }

    /// Starts all of it.
    ///
    /// # Errors
    /// When the machine refuses.
    pub fn run(&self, machine: &mut dyn Machine) -> Result<(), Error> {
        self.work.iter().try_for_each(|work| match work {
            Work::Kernel(launch) => machine.launch(launch),
            Work::Product(product) => machine.product(product),
        })
    }

    /// All of it as one graph, after it has run once so that its kernels are compiled and its products chosen.
    ///
    /// # Errors
    /// When the GPU refuses.
    pub fn record(&self, gpu: &mut Gpu) -> Result<Graph, Error> {
        self.run(gpu)?;
        gpu.wait()?;
        gpu.record(|gpu| self.run(gpu))
    }

    /// Logits of the last position of each sequence, `[B, vocabulary]`.
    ///
    /// # Errors
    /// When the machine does not answer.
    pub fn logits(&self, machine: &mut dyn Machine) -> Result<Vec<f32>, Error> {
        let rows: Vec<f32> = download_vec(machine, self.logits, self.batch * self.logits_row)?;
        let vocabulary = self.vocabulary;
        Ok(rows.chunks_exact(self.logits_row).flat_map(|row| &row[..vocabulary]).copied().collect())
    }

    /// Kernels and products of it.
    pub fn len(&self) -> usize {
        self.work.len()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.work.is_empty()
    }

    /// Floating-point operations of its products of weights.
    pub fn product_flops(&self) -> f64 {
        let flops = |work: &Work| match work {
            Work::Kernel(_) => 0.0,
            Work::Product(product) => product.shape.flops(),
        };
        self.work.iter().map(flops).sum()
    }

    /// Gives the scratch memory back.
    ///
    /// # Errors
    /// When the machine does not answer.
    pub fn free(self, machine: &mut dyn Machine) -> Result<(), Error> {
        self.memory.iter().try_for_each(|address| machine.free(*address))
    }
}
