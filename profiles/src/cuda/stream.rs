//! One token through a whole model in one launch: the program for the kernel `decode_step`, its memory, its steps.
//!
//! Matrices are bf16 or of 8 bits with a factor for each row, packed once in the order in which they are streamed; other
//! weights and recurrent states are fp32, caches bf16. The
//! floor of a step is [`Decoder::bytes_per_step`] over the memory's bandwidth: for the 1B stack of Nemotron-Flash at 8k
//! cached (2.0 GB) 0.60 ms on an H100 (3.35 TB/s by its data sheet), 0.42 ms on an H200 (4.8 TB/s).

mod attention;
mod delta;
mod experts;
mod gated_conv;
mod kda;
mod mamba2;
mod phases;
mod program;
mod states;

use kernels::cuda::decode::{Control, DecodeArgs, Kind, Layout, MOMENTS, Phase, Storage};
use kernels::cuda::weights::weight;
use kernels::cuda::{Error, Launch, Machine, download_vec, upload_new};
use kernels::log_linear::is_in_use;
use search::Architecture;

use self::program::Builder;
use super::shapes::{Load, check_covered};
use crate::error::ProfileError;

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

/// A model on a machine, one token at a time.
#[derive(Debug)]
pub struct Decoder {
    launch: Launch,
    /// The same with notes of clocks, at `trace`.
    traced: Launch,
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
    level_bytes: Vec<(u64, usize)>,
    position: usize,
    memory: Vec<u64>,
}

impl Decoder {
    /// Builds the program of `architecture`, with caches for `positions` of which its meta tokens are the first, and packs
    /// its weights. `load` gives a tensor by its name and size: matrices row-major `[out, in]`, names as in a checkpoint
    /// (`layers.0.mixer.q.weight`).
    ///
    /// # Errors
    /// When the step does not cover one of its mixers, or the machine's memory does not hold it.
    pub fn new(
        machine: &mut dyn Machine,
        architecture: &Architecture,
        positions: usize,
        load: Load,
    ) -> Result<Self, ProfileError> {
        Self::with_storage(machine, architecture, Storage::Bf16, positions, load)
    }

    /// The same with matrices kept as `storage`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_storage(
        machine: &mut dyn Machine,
        architecture: &Architecture,
        storage: Storage,
        positions: usize,
        load: Load,
    ) -> Result<Self, ProfileError> {
        Self::build(machine, architecture, storage, (positions, false), load)
    }

    /// The same with some weights and a past of full caches, made on the machine in no time: to be timed.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn pretended(
        machine: &mut dyn Machine,
        architecture: &Architecture,
        storage: Storage,
        positions: usize,
    ) -> Result<Self, ProfileError> {
        let small = |name: &str| {
            ["norm", "conv", "A_log", "dt_bias", ".D"].iter().any(|part| name.contains(part))
        };
        // of matrices only the size is looked at
        let load = &mut |name: &str, count: usize| {
            if small(name) { weight(name, count) } else { vec![0.0; count] }
        };
        Self::build(machine, architecture, storage, (positions, true), load)
    }

    fn build(
        machine: &mut dyn Machine,
        architecture: &Architecture,
        storage: Storage,
        (positions, pretends): (usize, bool),
        load: Load,
    ) -> Result<Self, ProfileError> {
        check_covered(architecture)?;
        let layout = Layout::of(machine.extent(), storage)?;
        let mut builder = Builder::new(machine, architecture, positions, layout, pretends);
        if let Err(error) = builder.build(load) {
            let memory = std::mem::take(&mut builder.memory);
            memory.into_iter().try_for_each(|address| machine.free(address))?;
            return Err(error.into());
        }
        let Builder {
            phases,
            logits,
            states,
            caches,
            streamed_bytes,
            state_bytes,
            cache_bytes_per_position,
            level_bytes,
            mut memory,
            ..
        } = builder;
        let layout =
            Layout { genes: phases.iter().fold(0, |all, phase| all | phase.genes()), ..layout };
        let program = upload_new(machine, &phases)?;
        let control = upload_new(machine, &[Control::at(0, 0, 0)])?;
        let trace = machine.allocate(phases.len() * layout.blocks as usize * MOMENTS * 8)?;
        memory.extend([program, control, trace]);
        let arguments = DecodeArgs {
            phases: program,
            control,
            trace: 0,
            phase_count: phases.len() as u32,
            d_model: architecture.d_model(),
        };
        let mut decoder = Self {
            launch: layout.launch(&arguments),
            traced: layout.launch(&DecodeArgs { trace, ..arguments }),
            control,
            trace,
            kinds: phases.iter().map(describe).collect(),
            logits,
            vocabulary: architecture.vocab() as usize,
            positions,
            states,
            caches,
            streamed_bytes,
            state_bytes,
            cache_bytes_per_position,
            level_bytes,
            position: 0,
            memory,
        };
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
        let epoch = self.control(machine)?.epoch;
        let control = Control::at(position as u32, token, epoch);
        machine.upload(self.control, bytemuck::bytes_of(&control))
    }

    fn control(&self, machine: &mut dyn Machine) -> Result<Control, Error> {
        let mut control = Control::default();
        machine.download(self.control, bytemuck::bytes_of_mut(&mut control))?;
        Ok(control)
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
        let blocks = self.traced.grid.0 as usize;
        let len = self.kinds.len() * blocks * MOMENTS;
        machine.upload(self.trace, &vec![0xff; len * 8])?;
        self.position += 1;
        machine.launch(&self.traced)?;
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
        Ok(self.control(machine)?.next_token(self.position))
    }

    /// Bytes that a step at `position` must move: weights and caches read, states read and written.
    pub fn bytes_per_step(&self, position: usize) -> u64 {
        let cached: u64 = self
            .cache_bytes_per_position
            .iter()
            .map(|(bytes, window)| bytes * window.map_or(position, |w| position.min(w)) as u64)
            .sum();
        // of a log-linear mixer the states that the step before left are read, those of this one written
        let in_use = |at: usize, levels: usize| {
            (0..levels).filter(|level| is_in_use(*level, at, levels)).count() as u64
        };
        let leveled: u64 = self
            .level_bytes
            .iter()
            .map(|(bytes, levels)| {
                let read = position.checked_sub(1).map_or(0, |before| in_use(before, *levels));
                bytes * (read + in_use(position, *levels))
            })
            .sum();
        self.streamed_bytes + 2 * self.state_bytes + leveled + cached
    }

    /// Gives the memory back.
    pub fn free(self, machine: &mut dyn Machine) -> Result<(), Error> {
        self.memory.iter().try_for_each(|address| machine.free(*address))
    }
}

/// A phase in a few words.
fn describe(phase: &Phase) -> String {
    let word = match phase.kind {
        Kind::Gemv => return format!("gemv {}x{}", phase.rows, phase.columns),
        Kind::Delta => "delta",
        Kind::Mamba2 => "mamba2",
        Kind::GatedConv => "gated convolution",
        Kind::Attend => "attend",
        Kind::Combine => "combine",
        Kind::Kda => "kda",
        Kind::Add => "add",
        Kind::Turns => "turns",
        Kind::LogDelta => "log-linear delta",
        Kind::LogMamba2 => "log-linear mamba2",
    };
    word.to_owned()
}
