//! One token through a whole stack in one launch: the program for `decode.cu`, its memory, its steps.
//!
//! Weights are bf16, packed once in the order in which they are streamed; recurrent states are fp32, caches bf16. The
//! floor of a step is [`Decoder::bytes_per_step`] over the memory's bandwidth: for the 1B stack of Nemotron-Flash at 8k
//! cached (2.0 GB) 0.60 ms on an H100 (3.35 TB/s by its data sheet), 0.42 ms on an H200 (4.8 TB/s).

pub mod definition;
mod program;

use self::program::{Builder, Control, Phase};
use super::{Error, Launch, Machine, Source, download_vec, upload_new};

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
    /// The token mixer.
    pub mixer: Mixer,
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
    /// DeltaNet, or Gated DeltaNet.
    Delta {
        /// Heads.
        heads: usize,
        /// Width of queries and keys.
        key_width: usize,
        /// Width of values.
        value_width: usize,
        /// With decay and output gate.
        gated: bool,
    },
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
        let extent = machine.extent();
        let warps = extent.warps - 1; // one more streams
        let fixed_bytes = program::fixed_shared_bytes(warps);
        // a slot of the ring belongs to one warp: see `decode.cu`
        let slots =
            extent.shared_bytes.saturating_sub(fixed_bytes) / (program::SLOT_BYTES + 16) / warps
                * warps;
        if slots == 0 {
            return Err(Error::Shape {
                what: "shared memory of a block".to_owned(),
                expected: format!(
                    "{} bytes at least",
                    fixed_bytes + warps * (program::SLOT_BYTES + 16)
                ),
                got: extent.shared_bytes.to_string(),
            });
        }
        let mut builder = Builder::new(machine, stack, warps);
        builder.build(load)?;
        let Builder {
            phases,
            residual,
            logits,
            states,
            caches,
            streamed_bytes,
            state_bytes,
            cache_bytes_per_position,
            memory,
            ..
        } = builder;
        let bytes: Vec<u8> = phases.iter().flat_map(Phase::to_bytes).collect();
        let program = upload_new(machine, &bytes)?;
        let control = machine.allocate(Control::BYTES)?;
        let shared_bytes = program::shared_bytes(warps, slots);
        let mut arguments = Vec::new();
        let trace = machine.allocate(phases.len() * 4 * 8)?;
        for address in [program, control, residual, 0] {
            arguments.extend(address.to_ne_bytes());
        }
        arguments.extend((phases.len() as u32).to_ne_bytes());
        arguments.extend(0_u32.to_ne_bytes());
        let launch = Launch {
            source: Source::Decode,
            kernel: "decode_step",
            defines: defines(warps, slots),
            grid: (extent.multiprocessors, 1),
            threads: (warps + 1) * 32,
            shared_bytes,
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
        machine.upload(self.control, &Control::at(position as u32, token).to_bytes())
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

    /// One step whose block 0 notes its clock: for each phase what it is and the cycles from its begin to its input,
    /// to its sums, to its end, and to the begin of the next.
    pub fn trace(&mut self, machine: &mut dyn Machine) -> Result<Vec<(String, [i64; 4])>, Error> {
        let mut launch = self.launch.clone();
        launch.arguments[24..32].copy_from_slice(&self.trace.to_ne_bytes());
        self.position += 1;
        machine.launch(&launch)?;
        let stamps: Vec<i64> = download_vec(machine, self.trace, self.kinds.len() * 4)?;
        let spans = |i: usize| {
            let at = |moment: usize| stamps[i * 4 + moment];
            let next = stamps.get(i * 4 + 4).copied().unwrap_or(at(3));
            [at(1) - at(0), at(2) - at(0), at(3) - at(0), next - at(0)]
        };
        Ok(self.kinds.iter().cloned().enumerate().map(|(i, kind)| (kind, spans(i))).collect())
    }

    /// Pretends a past: every cache filled with `values` (bf16), again and again.
    pub fn fill_caches(&mut self, machine: &mut dyn Machine, values: &[u16]) -> Result<(), Error> {
        for (address, bytes) in &self.caches {
            let filled: Vec<u16> = values.iter().copied().cycle().take(bytes / 2).collect();
            machine.upload(*address, bytemuck::cast_slice(&filled))?;
        }
        Ok(())
    }

    /// Compiles the step with `units` of 8 KiB asked for in advance by each block, instead of the usual number.
    pub fn set_in_flight(&mut self, units: u32) {
        self.launch.defines.retain(|(name, _)| *name != "IN_FLIGHT");
        self.launch.defines.push(("IN_FLIGHT", units));
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

/// The constants that `decode.cu` is compiled with: how many warps compute, how many slots the ring has.
pub fn defines(warps: u32, slots: u32) -> Vec<(&'static str, u32)> {
    vec![("WARPS", warps), ("SLOTS", slots), ("SHARED_BYTES", program::shared_bytes(warps, slots))]
}
