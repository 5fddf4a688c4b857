//! A model layer by layer: prefill of whole prompts, and one token of each sequence of a batch.
//!
//! Where [`super::stream`] streams all weights through one launch for one sequence, a pass here is a list of products and
//! kernels, each of which fills the machine with many positions; a GPU records it as a graph. Weights, activations and
//! caches are bf16, sums, states and logits fp32; the residual stream is bf16, added to by the products themselves.

mod attention;
mod delta;
mod experts;
mod ffn;
mod gated_conv;
mod kda;
mod mamba2;
mod parallel;
mod pass;
mod phases;
mod weights;

use kernels::cuda::chunked::Rows;
use kernels::cuda::norm::Gate;
use kernels::cuda::rows::Gather;
use kernels::cuda::{Error, Machine, upload_new};
use search::Architecture;
use search::architecture::Mixer;

use self::attention::AttentionLayer;
use self::delta::DeltaLayer;
use self::gated_conv::GatedConvLayer;
use self::kda::KdaLayer;
use self::mamba2::Mamba2Layer;
use self::parallel::ParallelLayer;
use self::pass::{Kind, NONE, Recorder, Sublayer};
use self::weights::{Builder, Matrix};
use super::shapes::{Load, check_covered};
use crate::error::ProfileError;

pub use pass::{Pass, Section};

/// A mixer or an FFN with its norm, which stands before or after it.
#[derive(Debug)]
struct Half {
    norm: u64,
    after: bool,
    of: Box<dyn Sublayer>,
}

/// A model with its weights and the past of a batch of sequences.
#[derive(Debug)]
pub struct Model {
    /// Of the residual stream.
    width: usize,
    vocabulary: usize,
    /// That the caches hold.
    capacity: usize,
    batch: usize,
    embedding: Matrix,
    head: Matrix,
    final_norm: u64,
    /// Mixers and FFNs in their order.
    sublayers: Vec<Half>,
    /// u32 `[B]`, the position of the next token of each sequence.
    positions: u64,
    memory: Vec<u64>,
}

impl Model {
    /// The model of `architecture` for `batch` sequences of at most `positions` positions; `load` as for
    /// [`super::stream::Decoder::new`].
    ///
    /// # Errors
    /// When a kernel does not cover it, or the machine's memory does not hold it.
    pub fn new(
        machine: &mut dyn Machine,
        architecture: &Architecture,
        (batch, positions): (usize, usize),
        load: Load,
    ) -> Result<Self, ProfileError> {
        Self::build(machine, architecture, (batch, positions), load, false)
    }

    /// The same with some weights and a past of full caches, made on the machine in no time: to be timed.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn pretended(
        machine: &mut dyn Machine,
        architecture: &Architecture,
        (batch, positions): (usize, usize),
    ) -> Result<Self, ProfileError> {
        Self::build(machine, architecture, (batch, positions), &mut |_, _| Vec::new(), true)
    }

    fn build(
        machine: &mut dyn Machine,
        architecture: &Architecture,
        (batch, positions): (usize, usize),
        load: Load,
        pretends: bool,
    ) -> Result<Self, ProfileError> {
        check_covered(architecture)?;
        let extents = [architecture.d_model() as usize, positions, batch];
        let mut builder = Builder::new(machine, extents, pretends);
        let built = put(&mut builder, architecture, load);
        let memory = std::mem::take(&mut builder.memory);
        match built {
            Ok(model) => Ok(Self { memory, ..model }),
            Err(error) => {
                memory.into_iter().try_for_each(|address| machine.free(address))?;
                Err(error.into())
            }
        }
    }

    /// A prompt of `tokens` for each sequence, from an empty past, which it fills.
    ///
    /// # Errors
    /// When a kernel does not cover it.
    pub fn prefill(
        &self,
        machine: &mut dyn Machine,
        tokens: usize,
        section: Section,
    ) -> Result<Pass, Error> {
        if tokens == 0 || tokens > self.capacity {
            return Err(Error::Shape {
                what: "the tokens of a prompt".to_owned(),
                expected: format!("1 to the {} positions of the caches", self.capacity),
                got: tokens.to_string(),
            });
        }
        self.pass(machine, Kind::Prefill { tokens }, section)
    }

    /// A token of each sequence, at the positions given by [`Self::seek`], each of at most `positions` in the caches.
    ///
    /// # Errors
    /// When a kernel does not cover it.
    pub fn step(
        &self,
        machine: &mut dyn Machine,
        positions: usize,
        section: Section,
    ) -> Result<Pass, Error> {
        self.pass(machine, Kind::Step { positions }, section)
    }

    fn pass(&self, machine: &mut dyn Machine, kind: Kind, section: Section) -> Result<Pass, Error> {
        let of = (self.batch, self.width);
        let mut recorder = Recorder::new(machine, kind, of, self.positions);
        match self.record(&mut recorder, section) {
            Ok([entries, logits]) => {
                Ok(recorder.finish(entries, (logits, self.head.outputs), self.vocabulary))
            }
            Err(error) => {
                let memory = std::mem::take(&mut recorder.memory);
                memory.into_iter().try_for_each(|address| machine.free(address))?;
                Err(error)
            }
        }
    }

    /// Lists the work of a section; where its tokens and its logits stand.
    fn record(&self, on: &mut Recorder<'_>, section: Section) -> Result<[u64; 2], Error> {
        let d = self.width;
        let entries = on.room("entries", 4 * on.rows)?;
        on.machine.upload(entries, &vec![0; 4 * on.rows])?;
        on.x = on.room("x", 2 * on.rows * d)?;
        if section == Section::Layers {
            on.machine.pretend(on.x, 2 * on.rows * d)?;
        } else {
            let gather = Gather { rows: on.rows, width: d };
            gather.check()?;
            on.launch(gather.forward(self.embedding.address, entries, on.x));
        }
        if section != Section::Head {
            for Half { norm, after, of } in &self.sublayers {
                if *after {
                    let u = Rows { address: on.x, stride: d };
                    on.behind(Some(*norm), |on| of.record(on, u))?;
                } else {
                    let u = on.norm(*norm)?;
                    of.record(on, u)?;
                }
            }
        }
        let logits_row = self.head.outputs;
        let logits = on.room("logits", 4 * self.batch * logits_row)?;
        if section != Section::Layers {
            let address = on.x + (2 * (on.tokens - 1) * d) as u64;
            let last = Rows { address, stride: on.tokens * d };
            let extent = [self.batch, 1, d];
            let u = on.normed("last", last, extent, (Gate::None, NONE), self.final_norm)?;
            let y = Rows { address: logits, stride: logits_row };
            on.product(self.head, (u, self.batch), y, [false, true])?;
        }
        Ok([entries, logits])
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

/// Puts the weights and the empty past of `architecture` on a machine.
fn put(on: &mut Builder<'_>, architecture: &Architecture, load: Load) -> Result<Model, Error> {
    let (d, vocabulary) = (on.d_model, architecture.vocab() as usize);
    let embedding = on.matrix(load, &[("embedding.weight", vocabulary)], d)?;
    let head = if architecture.tied_embeddings() {
        embedding
    } else {
        on.matrix(load, &[("head.weight", vocabulary)], d)?
    };
    let mut sublayers = Vec::new();
    for (i, layer) in architecture.layers().iter().enumerate() {
        let after = layer.norms_after();
        if let Some(shape) = &layer.mixer {
            let norm = on.vector(load, &format!("layers.{i}.mixer_norm.weight"), d)?;
            let here =
                &mut |name: &str, count: usize| load(&format!("layers.{i}.mixer.{name}"), count);
            sublayers.push(Half { norm, after, of: mixer(on, shape, here)? });
        }
        if let Some(ffn) = layer.ffn {
            let norm = on.vector(load, &format!("layers.{i}.ffn_norm.weight"), d)?;
            let here =
                &mut |name: &str, count: usize| load(&format!("layers.{i}.ffn.{name}"), count);
            sublayers.push(Half { norm, after, of: ffn::new(on, ffn, here)? });
        }
    }
    let final_norm = on.vector(load, "final_norm.weight", d)?;
    let zeros = vec![0_u32; on.batch];
    let positions = on.keep(|machine| upload_new(machine, &zeros))?;
    let (capacity, batch, memory) = (on.positions, on.batch, Vec::new());
    Ok(Model {
        width: d,
        vocabulary,
        capacity,
        batch,
        embedding,
        head,
        final_norm,
        sublayers,
        positions,
        memory,
    })
}

fn mixer(on: &mut Builder<'_>, mixer: &Mixer, load: Load) -> Result<Box<dyn Sublayer>, Error> {
    Ok(match mixer {
        Mixer::Attention(shape) => Box::new(AttentionLayer::new(on, shape, mixer.phases(), load)?),
        Mixer::Delta(shape) => Box::new(DeltaLayer::new(on, shape, mixer.phases(), load)?),
        Mixer::Mamba2(shape) => Box::new(Mamba2Layer::new(on, shape, load)?),
        Mixer::Kda(shape) => Box::new(KdaLayer::new(on, shape, load)?),
        Mixer::Parallel(shape) => Box::new(ParallelLayer::new(on, shape, load, self::mixer)?),
        Mixer::GatedConv(shape) => Box::new(GatedConvLayer::new(on, *shape, load)?),
    })
}
