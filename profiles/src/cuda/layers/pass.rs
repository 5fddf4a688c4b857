//! The list of kernels and products of a prefill or a step.

use std::collections::HashMap;

use kernels::cuda::chunked::log_linear::{LogLinear, Scales, Scratch, States};
use kernels::cuda::chunked::{self, Chunked, Inputs, Prepared, Rows};
use kernels::cuda::gpu::{Gpu, Graph};
use kernels::cuda::norm::{Gate, Norm};
use kernels::cuda::product::{Product, Shape};
use kernels::cuda::short_conv::ShortConv;
use kernels::cuda::step::ConvStep;
use kernels::cuda::{Error, Launch, Machine, download_vec};
use kernels::norm::RMS_EPS;

use super::weights::Matrix;

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

/// What the positions of a pass are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The prompt of each sequence.
    Prefill { tokens: usize },
    /// One token of each, with at most so many positions in the caches.
    Step { positions: usize },
}

/// A mixer or an FFN, as the work that adds it to the residual stream.
pub(super) trait Sublayer: std::fmt::Debug {
    /// Lists the work; `u` is the normed residual stream, bf16 `[B, T, d]`.
    fn record(&self, on: &mut Recorder, u: Rows) -> Result<(), Error>;
}

/// Lists the work of a pass, with scratch memory for it.
pub(super) struct Recorder<'a> {
    pub machine: &'a mut dyn Machine,
    pub kind: Kind,
    /// Sequences.
    pub batch: usize,
    /// Positions of each.
    pub tokens: usize,
    /// B · T.
    pub rows: usize,
    d_model: usize,
    /// The positions of the next tokens, u32 `[B]`.
    pub positions: u64,
    /// The residual stream, bf16 `[B, T, d]`.
    pub x: u64,
    /// The norm between what is listed now and the residual stream.
    behind: Option<u64>,
    work: Vec<Work>,
    /// Scratch memory by its use and size: layers of one shape share it.
    rooms: HashMap<(&'static str, usize), u64>,
    pub memory: Vec<u64>,
}

/// No rows.
pub(super) const NONE: Rows = Rows { address: 0, stride: 0 };

/// The rows of `columns` from `column` on, of rows of bf16.
pub(super) fn part(rows: Rows, column: usize) -> Rows {
    Rows { address: rows.address + 2 * column as u64, ..rows }
}

impl<'a> Recorder<'a> {
    pub(super) fn new(
        machine: &'a mut dyn Machine,
        kind: Kind,
        (batch, d_model): (usize, usize),
        positions: u64,
    ) -> Self {
        let tokens = match kind {
            Kind::Prefill { tokens } => tokens,
            Kind::Step { .. } => 1,
        };
        Self {
            machine,
            kind,
            batch,
            tokens,
            rows: batch * tokens,
            d_model,
            positions,
            x: 0,
            behind: None,
            work: Vec::new(),
            rooms: HashMap::new(),
            memory: Vec::new(),
        }
    }

    /// Width of the residual stream.
    pub(super) fn d_model(&self) -> usize {
        self.d_model
    }

    /// The pass of all that was listed.
    pub(super) fn finish(self, entries: u64, logits: (u64, usize), vocabulary: usize) -> Pass {
        Pass {
            work: self.work,
            batch: self.batch,
            tokens: self.tokens,
            vocabulary,
            entries,
            logits: logits.0,
            logits_row: logits.1,
            memory: self.memory,
        }
    }

    pub(super) fn room(&mut self, name: &'static str, bytes: usize) -> Result<u64, Error> {
        if let Some(address) = self.rooms.get(&(name, bytes)) {
            return Ok(*address);
        }
        let address = self.machine.allocate(bytes)?;
        self.memory.push(address);
        self.rooms.insert((name, bytes), address);
        Ok(address)
    }

    pub(super) fn launch(&mut self, launch: Launch) {
        self.work.push(Work::Kernel(launch));
    }

    /// `x` is `[rows, inputs]`.
    pub(super) fn product(
        &mut self,
        matrix: Matrix,
        (x, rows): (Rows, usize),
        y: Rows,
        [adds, wide]: [bool; 2],
    ) -> Result<(), Error> {
        let Matrix { address, outputs, inputs } = matrix;
        let shape = Shape { rows, outputs, inputs, adds, wide };
        let product = Product { shape, x, weight: address, y };
        product.check()?;
        self.work.push(Work::Product(product));
        Ok(())
    }

    /// To rows of their own.
    pub(super) fn project(
        &mut self,
        name: &'static str,
        matrix: Matrix,
        x: Rows,
    ) -> Result<Rows, Error> {
        let address = self.room(name, 2 * self.rows * matrix.outputs)?;
        let y = Rows { address, stride: matrix.outputs };
        self.product(matrix, (x, self.rows), y, [false, false])?;
        Ok(y)
    }

    /// Lists a branch whose result passes the norm of that weight, if any, before it is added to the residual stream.
    pub(super) fn behind(
        &mut self,
        norm: Option<u64>,
        branch: impl FnOnce(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let before = std::mem::replace(&mut self.behind, norm);
        let listed = branch(self);
        self.behind = before;
        listed
    }

    /// Onto the residual stream, by way of the norm that stands before it.
    pub(super) fn add(&mut self, matrix: Matrix, x: Rows) -> Result<(), Error> {
        let (y, adds) = self.target()?;
        self.product(matrix, (x, self.rows), y, [adds, false])?;
        self.settle()
    }

    /// Where a branch puts its result, `[B, T, d]`, and whether it adds to what is there. [`Self::settle`] follows.
    pub(super) fn target(&mut self) -> Result<(Rows, bool), Error> {
        let stride = self.d_model;
        if self.behind.is_none() {
            return Ok((Rows { address: self.x, stride }, true));
        }
        let address = self.room("branch", 2 * self.rows * stride)?;
        Ok((Rows { address, stride }, false))
    }

    /// Brings what a branch has put there to the residual stream.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        let (y, _) = self.target()?;
        if let Some(weight) = self.behind {
            let norm = Self::norm_of([self.rows, 1, self.d_model], Gate::None)?;
            self.launch(norm.onto(y, weight, self.x));
        }
        Ok(())
    }

    fn norm_of([outer, inner, width]: [usize; 3], gate: Gate) -> Result<Norm, Error> {
        let factor = 1.0 / width as f32;
        let epsilon = RMS_EPS as f32;
        let norm = Norm { outer, inner, width, wide: false, gate, factor, epsilon };
        norm.check().map(|()| norm)
    }

    /// RMSNorm of `[outer, inner, width]`, with a gate in rows of their own.
    pub(super) fn normed(
        &mut self,
        name: &'static str,
        x: Rows,
        [outer, inner, width]: [usize; 3],
        (gate, gates): (Gate, Rows),
        weight: u64,
    ) -> Result<Rows, Error> {
        let norm = Self::norm_of([outer, inner, width], gate)?;
        let y = self.room(name, 2 * outer * inner * width)?;
        self.launch(norm.forward(x, gates, weight, y));
        Ok(Rows { address: y, stride: inner * width })
    }

    /// Of the residual stream.
    pub(super) fn norm(&mut self, weight: u64) -> Result<Rows, Error> {
        let d = self.d_model;
        let x = Rows { address: self.x, stride: d };
        self.normed("u", x, [self.rows, 1, d], (Gate::None, NONE), weight)
    }

    /// The short convolution with SiLU of the first `channels` columns.
    pub(super) fn convolve(
        &mut self,
        x: Rows,
        channels: usize,
        [taps, bias, ring]: [u64; 3],
    ) -> Result<Rows, Error> {
        let (batch, tokens) = (self.batch, self.tokens);
        let y = self.room("convolved", 2 * self.rows * channels)?;
        match self.kind {
            Kind::Prefill { .. } => {
                let conv = ShortConv { batch, tokens, channels, wide: false };
                conv.check()?;
                self.launch(conv.forward_keeping(x, taps, bias, y, ring));
            }
            Kind::Step { .. } => {
                let conv = ConvStep { batch, channels };
                conv.check()?;
                self.launch(conv.forward(x, (taps, bias), ring, self.positions, y));
            }
        }
        Ok(Rows { address: y, stride: channels })
    }

    /// The recurrence from an empty state over whole sequences.
    pub(super) fn chunked(
        &mut self,
        rule: chunked::Rule,
        shape: chunked::Shape,
        scale: f32,
        inputs: Inputs,
        (state, out): (u64, u64),
    ) -> Result<(), Error> {
        let chunked = Chunked::new(rule, shape, scale, self.machine.extent())?;
        let prepared = self.prepared(rule, shape)?;
        self.launch(chunked.prepare(&inputs, &prepared));
        self.launch(chunked.forward(&inputs, &prepared, 0, state, out, None));
        Ok(())
    }

    /// Its log-linear form: of so many levels, for so many of which there are states.
    pub(super) fn log_linear(
        &mut self,
        rule: chunked::Rule,
        shape: chunked::Shape,
        scale: f32,
        inputs: Inputs,
        (scales, levels, kept): (Scales, usize, usize),
        (state, out): (u64, u64),
    ) -> Result<(), Error> {
        let extent = self.machine.extent();
        let chunked = Chunked::new(rule, shape, scale, extent)?;
        let log_linear = LogLinear::new(chunked, levels, extent)?;
        let scratch = Scratch {
            prepared: self.prepared(rule, shape)?,
            lambda: self.room("lambda", 4 * log_linear.lambda_len())?,
            sums: self.room("sums", 4 * log_linear.sums_len())?,
        };
        let states = States { address: state, levels: kept };
        for launch in log_linear.forward(&inputs, scales, &scratch, states, out) {
            self.launch(launch);
        }
        Ok(())
    }

    fn prepared(&mut self, rule: chunked::Rule, shape: chunked::Shape) -> Result<Prepared, Error> {
        let inverse = match rule {
            chunked::Rule::Delta => self.room("inverse", 2 * shape.squares_len())?,
            chunked::Rule::LinearAttention => 0,
        };
        let scores = self.room("scores", 2 * shape.squares_len())?;
        let decays = self.room("decays", 4 * shape.decays_len())?;
        Ok(Prepared { inverse, scores, decays })
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
