//! One token through a whole stack in one launch: the program for the kernel `decode_step`, its memory, its steps.
//!
//! Weights are bf16, packed once in the order in which they are streamed; recurrent states are fp32, caches bf16. The
//! floor of a step is [`Decoder::bytes_per_step`] over the memory's bandwidth: for the 1B stack of Nemotron-Flash at 8k
//! cached (2.0 GB) 0.60 ms on an H100 (3.35 TB/s by its data sheet), 0.42 ms on an H200 (4.8 TB/s).

pub mod definition;
mod program;

use self::program::{Builder, Control, Layout, Phase};
use super::weights::weight;
use super::{Error, Extent, Launch, Machine, Source, download_vec, upload_new};

/// A stack of layers at deployment scale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Rows of the embedding and of the head.
    pub vocabulary: usize,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// Most positions that a cache must hold.
    pub positions: usize,
    /// From the input to the output.
    pub layers: Vec<Layer>,
}

/// x += mixer(norm x); x += ffn(norm x).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The token mixer, if there is one.
    pub mixer: Option<Mixer>,
    /// Width of the SwiGLU after it, if there is one.
    pub ffn: Option<usize>,
}

/// A token mixer and its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mixer {
    /// Softmax attention, over all positions or a window.
    Attention {
        /// Query heads.
        heads: usize,
        /// Key and value heads.
        kv_heads: usize,
        /// Width of a head.
        width: usize,
        /// Positions seen, the current one included; all if none.
        window: Option<usize>,
        /// RMSNorm of queries and keys.
        qk_norm: bool,
    },
    /// A member of the delta family.
    Delta(Delta),
    /// Mamba2 with one group.
    Mamba2 {
        /// Heads.
        heads: usize,
        /// Channels of a head.
        head_width: usize,
        /// Width of the state.
        state_width: usize,
    },
}

/// DeltaNet, Gated DeltaNet, DeltaProduct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each says of one part whether it is there")]
pub struct Delta {
    /// Heads of queries and keys.
    pub key_heads: usize,
    /// Heads of values, of the state and of the output: a multiple of the key heads.
    pub heads: usize,
    /// Width of queries and keys.
    pub key_width: usize,
    /// Width of values.
    pub value_width: usize,
    /// Delta steps per token.
    pub steps: usize,
    /// Whether the state decays.
    pub decay: bool,
    /// Whether the normed output is gated.
    pub output_gate: bool,
    /// β in (0, 2) and not in (0, 1).
    pub negative_eigenvalues: bool,
    /// Whether q, k and v pass a short convolution.
    pub short_conv: bool,
}

impl Delta {
    /// DeltaNet, or with `gated` Gated DeltaNet, as the reference layers are.
    pub fn new(heads: usize, key_width: usize, value_width: usize, gated: bool) -> Self {
        Self {
            key_heads: heads,
            heads,
            key_width,
            value_width,
            steps: 1,
            decay: gated,
            output_gate: gated,
            negative_eigenvalues: false,
            short_conv: true,
        }
    }
}

/// Moments of a phase in [`Trace`], as `Moment` in `phase.cuh`: it begins, the words it waits for are there, its whole
/// input is, and the first piece of its stream; its units are computed; it ends.
pub const MOMENTS: usize = 6;

/// When the blocks of one step reached the moments of its phases.
#[derive(Debug, Clone)]
pub struct Trace {
    /// What each phase is.
    pub phases: Vec<String>,
    blocks: usize,
    /// Clocks, `[phases, blocks, MOMENTS]`, each block by its own multiprocessor's; all bits set where there was none.
    stamps: Vec<i64>,
}

impl Trace {
    /// Cycles from the begin of a phase to each of its later moments, the median over those blocks that came by.
    pub fn median_cycles(&self, phase: usize) -> [Option<i64>; MOMENTS - 1] {
        let blocks = self.stamps.chunks_exact(MOMENTS).skip(phase * self.blocks).take(self.blocks);
        std::array::from_fn(|moment| {
            let mut spans: Vec<i64> = blocks
                .clone()
                .filter(|stamps| stamps[moment + 1] != -1)
                .map(|stamps| stamps[moment + 1] - stamps[0])
                .collect();
            spans.sort_unstable();
            spans.get(spans.len() / 2).copied()
        })
    }
}

/// A stack on a machine, one token at a time.
#[derive(Debug)]
pub struct Decoder {
    launch: Launch,
    control: u64,
    trace: u64,
    kinds: Vec<String>,
    logits: u64,
    vocabulary: usize,
    positions: usize,
    states: Vec<(u64, usize)>,
    caches: Vec<(u64, usize)>,
    streamed_bytes: u64,
    state_bytes: u64,
    cache_bytes_per_position: Vec<(u64, Option<usize>)>,
    position: usize,
    memory: Vec<u64>,
}

impl Decoder {
    /// Builds the program of `stack` and packs its weights. `load` gives a tensor by its name and size: matrices
    /// row-major `[out, in]`, names as in a checkpoint (`layers.0.mixer.q.weight`).
    pub fn new(
        machine: &mut dyn Machine,
        stack: &Stack,
        load: &mut dyn FnMut(&str, usize) -> Vec<f32>,
    ) -> Result<Self, Error> {
        Self::build(machine, stack, load, false)
    }

    /// The same with some weights and a past of full caches, made on the machine in no time: to be timed.
    pub fn pretended(machine: &mut dyn Machine, stack: &Stack) -> Result<Self, Error> {
        let small = |name: &str| {
            ["norm", "conv", "A_log", "dt_bias", ".D"].iter().any(|part| name.contains(part))
        };
        Self::build(
            machine,
            stack,
            // of matrices only the size is looked at
            &mut |name, count| if small(name) { weight(name, count) } else { vec![0.0; count] },
            true,
        )
    }

    fn build(
        machine: &mut dyn Machine,
        stack: &Stack,
        load: &mut dyn FnMut(&str, usize) -> Vec<f32>,
        pretends: bool,
    ) -> Result<Self, Error> {
        let extent = machine.extent();
        let layout = Layout::of(extent)?;
        let mut builder = Builder::new(machine, stack, layout, pretends);
        if let Err(error) = builder.build(load) {
            let memory = std::mem::take(&mut builder.memory);
            memory.into_iter().try_for_each(|address| machine.free(address))?;
            return Err(error);
        }
        let Builder {
            phases,
            logits,
            states,
            caches,
            streamed_bytes,
            state_bytes,
            cache_bytes_per_position,
            memory,
            ..
        } = builder;
        let bytes: Vec<u8> = phases.iter().copied().flat_map(Phase::to_bytes).collect();
        let program = upload_new(machine, &bytes)?;
        let control = upload_new(machine, &Control::at(0, 0, 0).to_bytes())?;
        let mut arguments = Vec::new();
        let trace_len = phases.len() * extent.multiprocessors as usize * MOMENTS;
        let trace = machine.allocate(trace_len * 8)?;
        for address in [program, control, 0] {
            arguments.extend(address.to_ne_bytes());
        }
        arguments.extend((phases.len() as u32).to_ne_bytes());
        arguments.extend((stack.d_model as u32).to_ne_bytes());
        let launch = Launch {
            source: Source::Decode,
            kernel: "decode_step",
            defines: layout.defines(),
            grid: (extent.multiprocessors, 1),
            threads: (layout.warps + 1) * 32,
            shared_bytes: layout.shared_bytes(),
            together: true,
            arguments,
        };
        let mut decoder = Self {
            launch,
            control,
            trace,
            kinds: phases.iter().map(Phase::describe).collect(),
            logits,
            vocabulary: stack.vocabulary,
            positions: stack.positions,
            states,
            caches,
            streamed_bytes,
            state_bytes,
            cache_bytes_per_position,
            position: 0,
            memory,
        };
        decoder.memory.extend([program, control, trace]);
        decoder.reset(machine)?;
        Ok(decoder)
    }

    /// Forgets the past: zero states, position 0, token 0 next.
    pub fn reset(&mut self, machine: &mut dyn Machine) -> Result<(), Error> {
        for (address, bytes) in &self.states {
            machine.upload(*address, &vec![0; *bytes])?;
        }
        self.seek(machine, 0, 0)
    }

    /// The next step computes `token` at `position`, over the states and caches as they are.
    pub fn seek(
        &mut self,
        machine: &mut dyn Machine,
        position: usize,
        token: u32,
    ) -> Result<(), Error> {
        self.position = position;
        // the count of steps goes on: the words of earlier ones must not pass for new
        let words: Vec<u32> = download_vec(machine, self.control, Control::BYTES / 4)?;
        let control = Control::at(position as u32, token, Control::epoch(&words));
        machine.upload(self.control, &control.to_bytes())
    }

    /// The next step computes `token` instead of the likeliest one.
    pub fn force(&mut self, machine: &mut dyn Machine, token: u32) -> Result<(), Error> {
        self.seek(machine, self.position, token)
    }

    /// Starts the step of the next position. The token after it is the likeliest by its logits, unless forced.
    pub fn step(&mut self, machine: &mut dyn Machine) -> Result<(), Error> {
        if self.position >= self.positions {
            return Err(Error::Shape {
                what: "the position".to_owned(),
                expected: format!("below the {} that the caches hold", self.positions),
                got: self.position.to_string(),
            });
        }
        self.position += 1;
        machine.launch(&self.launch)
    }

    /// One step whose blocks note their clocks. A block notes what it comes by: without a share of a phase, less.
    pub fn trace(&mut self, machine: &mut dyn Machine) -> Result<Trace, Error> {
        let mut launch = self.launch.clone();
        launch.arguments[16..24].copy_from_slice(&self.trace.to_ne_bytes());
        let len = self.kinds.len() * launch.grid.0 as usize * MOMENTS;
        machine.upload(self.trace, &vec![0xff; len * 8])?;
        self.position += 1;
        machine.launch(&launch)?;
        let blocks = launch.grid.0 as usize;
        let stamps = download_vec(machine, self.trace, len)?;
        Ok(Trace { phases: self.kinds.clone(), blocks, stamps })
    }

    /// Pretends a past: every cache filled with `values` (bf16), again and again.
    pub fn fill_caches(&mut self, machine: &mut dyn Machine, values: &[u16]) -> Result<(), Error> {
        for (address, bytes) in &self.caches {
            let filled: Vec<u16> = values.iter().copied().cycle().take(bytes / 2).collect();
            machine.upload(*address, bytemuck::cast_slice(&filled))?;
        }
        Ok(())
    }

    /// The launch of a step, for graphs and timings.
    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    /// Logits of the last step, `[vocabulary]`.
    pub fn logits(&self, machine: &mut dyn Machine) -> Result<Vec<f32>, Error> {
        download_vec(machine, self.logits, self.vocabulary)
    }

    /// The likeliest token by the last step's logits.
    pub fn next_token(&self, machine: &mut dyn Machine) -> Result<u32, Error> {
        let words: Vec<u32> = download_vec(machine, self.control, Control::BYTES / 4)?;
        Ok(Control::next_token(&words, self.position))
    }

    /// Bytes that a step at `position` must move: weights and caches read, states read and written.
    pub fn bytes_per_step(&self, position: usize) -> u64 {
        let cached: u64 = self
            .cache_bytes_per_position
            .iter()
            .map(|(bytes, window)| bytes * window.map_or(position, |w| position.min(w)) as u64)
            .sum();
        self.streamed_bytes + 2 * self.state_bytes + cached
    }

    /// Gives the memory back.
    pub fn free(self, machine: &mut dyn Machine) -> Result<(), Error> {
        self.memory.iter().try_for_each(|address| machine.free(*address))
    }
}

/// The constants that the step is compiled with on a machine of `extent`.
pub fn defines(extent: Extent) -> Result<Vec<(&'static str, u32)>, Error> {
    Ok(Layout::of(extent)?.defines())
}
