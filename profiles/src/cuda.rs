//! The same timings on an NVIDIA GPU.
//!
//! Decode steps of batch 1 run by the kernel that goes through a whole step in one launch. A step streams the weights
//! while it waits for its own results, so a part by itself does not take the time that it takes in a model. What a part
//! adds is measured instead: the difference between a stack with 2n copies of it and one with n, over n, where both
//! are several times the last-level cache. In a model that the cache holds a part takes its share of a stack that is as
//! large as the model, less what a step has without layers, which counts to the head. A mixer waits more than it streams,
//! an FFN streams more than it waits; so a mixer before an FFN is timed with one after it, whose time is taken away again.
//!
//! Prefill and decode steps of more sequences run layer by layer, as recorded graphs of products and kernels, one after
//! the other: there a part takes its n-th of a pass over n copies, each with weights of its own.

pub mod definition;
pub mod layers;
pub(crate) mod nvml;
mod passes;
mod rehearsal;
mod series;
mod shapes;
pub mod stream;
mod typical;

use std::cell::RefCell;

use kernels::cuda::Machine as _;
use kernels::cuda::decode::Storage;
use kernels::cuda::gpu::Gpu;
use kernels::timing::{Measurement, Plan};
use search::Architecture;
use search::architecture::{Ffn, Layer};
use search::device::{Device, Platform};
use search::latency::{Conditions, Dtype, LatencyKey, Limit, Part, Phase, Timing};

use self::layers::{Model, Section};
use self::passes::Run;
use self::series::Sampler;
use self::stream::Decoder;
use self::typical::typical_position;
use crate::backend::Backend;
use crate::error::ProfileError;
use crate::part::alone;

pub use rehearsal::Rehearsal;
pub use shapes::{Load, check_covered};

/// Steps in one sample: they follow each other as in generation.
const STEPS: usize = 8;
/// Copies of a part in the shorter stack.
const COPIES: std::ops::RangeInclusive<u64> = 4..=48;
/// Copies of a part in prefill at most, where many positions use what was read once.
const PREFILL_COPIES: u64 = 6;
/// Bytes of the shorter stack for models that no cache holds.
const LARGE_BYTES: u64 = 160 << 20;
/// Models of this size and more count as such.
const LARGE_KIB: u32 = 64 << 10;
/// Tokens of the head that stacks of parts have.
const SMALL_VOCABULARY: u32 = 64;
/// Width of layers that have next to nothing to do.
const TINY_FFN: u32 = 64;

/// Times parts and models on one GPU.
#[derive(Debug)]
pub struct Profiler {
    gpu: RefCell<Gpu>,
    sampler: Sampler,
    number: u32,
    hardware: String,
}

/// What is timed: by the one launch, or layer by layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Stream(Steps),
    Layers(Run),
}

/// Steps of one sequence: positions in its caches, and the element type of matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Steps {
    context: usize,
    dtype: Dtype,
    storage: Storage,
}

impl Steps {
    /// The same of sequences that begin with so many meta tokens.
    fn after(self, meta_tokens: u32) -> Self {
        Self { context: self.context + meta_tokens as usize, ..self }
    }

    /// Bytes that one reads of a part.
    fn bytes(self, part: &Part) -> Result<u64, ProfileError> {
        bytes(part, self.context, self.dtype)
    }
}

impl Profiler {
    /// Opens GPU number `number`.
    ///
    /// # Errors
    /// When it cannot be used: the message says what is missing and what to do.
    pub fn open(number: u32, plan: &Plan) -> Result<Self, ProfileError> {
        let gpu = Gpu::open(number as usize)?;
        let hardware = Platform::Cuda.hardware(&gpu.facts().name);
        let sampler = Sampler::new(&gpu.facts().uuid, plan);
        Ok(Self { gpu: RefCell::new(gpu), sampler, number, hardware })
    }

    fn work(&self, conditions: &Conditions) -> Result<Work, ProfileError> {
        let refuse = |what: String| Err(ProfileError::Conditions(what));
        if conditions.device != self.hardware {
            return refuse(format!(
                "this profiler times `{}`, not `{}`",
                self.hardware, conditions.device
            ));
        }
        let dtype = conditions.dtype;
        let storage = match dtype {
            Dtype::F32 => {
                return refuse(
                    "weights on a GPU are bf16, int8 or fp8, not fp32: set `dtype = \"bf16\"` in [latency]".to_owned(),
                );
            }
            Dtype::Bf16 => Storage::Bf16,
            Dtype::Int8 => Storage::Int8,
            Dtype::Fp8 => Storage::Fp8,
        };
        let batch = conditions.batch as usize;
        match conditions.phase {
            _ if batch == 0 => refuse("batch must be at least 1, got 0".to_owned()),
            Phase::Prefill { tokens: 0 } => refuse("a prompt has at least 1 token".to_owned()),
            Phase::Decode { context } if batch == 1 => {
                Ok(Work::Stream(Steps { context: context as usize, dtype, storage }))
            }
            _ if storage != Storage::Bf16 => refuse(format!(
                "weights in {dtype} are timed on a GPU one token of one sequence at a time: leave prompts out (`prefill_tokens = 0` \
                 in [latency], `--prompt 0`) and batches (`throughput_batch`, `memory_budget_mb`, `--batch`), or set \
                 `dtype = \"bf16\"`"
            )),
            Phase::Decode { context } => {
                Ok(Work::Layers(Run { batch, tokens: 1, context: Some(context as usize) }))
            }
            Phase::Prefill { tokens } => {
                Ok(Work::Layers(Run { batch, tokens: tokens as usize, context: None }))
            }
        }
    }

    /// Steps of a model, and the energy of one if `counts_energy`.
    fn sample(
        &self,
        architecture: &Architecture,
        Steps { context, storage, .. }: Steps,
        counts_energy: bool,
    ) -> Result<(Measurement, Option<f64>), ProfileError> {
        let gpu = &mut *self.gpu.borrow_mut();
        let mut decoder = Decoder::pretended(gpu, architecture, storage, context + STEPS + 1)?;
        let first = typical_position(architecture, context, STEPS);
        let sampled = self.sampler.repeat(gpu, STEPS, counts_energy, &mut |gpu| {
            decoder.seek(gpu, first, 1)?;
            gpu.elapsed_ms(|gpu| (0..STEPS).try_for_each(|_| decoder.step(gpu)))
        });
        decoder.free(gpu)?;
        Ok(sampled?)
    }

    /// Steps of a stack of so many of one layer.
    fn sample_of(
        &self,
        d_model: u32,
        vocabulary: u32,
        (layer, copies): (&Layer, usize),
        steps: Steps,
    ) -> Result<Measurement, ProfileError> {
        let stack = stack_of(d_model, vocabulary, layer, copies)?;
        Ok(self.sample(&stack, steps, false)?.0)
    }

    /// What a layer takes in a model of `working_set_kib`, where copies of it fill one.
    fn layer(
        &self,
        d_model: u32,
        layer: &Layer,
        bytes: u64,
        (working_set_kib, steps): (u32, Steps),
    ) -> Result<Measurement, ProfileError> {
        let copies = copies(bytes, working_set_kib);
        let of = |copies| self.sample_of(d_model, SMALL_VOCABULARY, (layer, copies), steps);
        let all = of(copies)?;
        Ok(one_of(
            copies,
            if is_small(working_set_kib) {
                less(all, self.ends(d_model, SMALL_VOCABULARY, steps)?, 1.0)
            } else {
                less(of(2 * copies)?, all, 1.0)
            },
        ))
    }

    /// What a step has before and after its layers: the launch, the embedding and the head.
    fn ends(
        &self,
        d_model: u32,
        vocabulary: u32,
        steps: Steps,
    ) -> Result<Measurement, ProfileError> {
        let layer = Layer { mixer: None, ffn: Some(Ffn::swiglu(TINY_FFN)) };
        let of = |copies| self.sample_of(d_model, vocabulary, (&layer, copies), steps);
        let (one, two) = (of(1)?, of(2)?);
        Ok(less(one, less(two, one, 1.0), 1.0))
    }
}

/// So many of one layer, with a small head.
fn stack_of(
    d_model: u32,
    vocabulary: u32,
    layer: &Layer,
    copies: usize,
) -> Result<Architecture, ProfileError> {
    Architecture::new(d_model, vocabulary, true, vec![layer.clone(); copies])
        .map_err(|error| ProfileError::Conditions(format!("the stack cannot be built: {error}")))
}

/// What is left of one timing when `n` times another is taken away.
fn less(from: Measurement, what: Measurement, n: f64) -> Measurement {
    Measurement {
        median_us: from.median_us - n * what.median_us,
        spread_us: from.spread_us.hypot(n * what.spread_us),
        samples: from.samples.min(what.samples),
        other_load: from.other_load.into_iter().chain(what.other_load).reduce(f64::max),
    }
}

/// One of n alike.
fn one_of(n: usize, all: Measurement) -> Measurement {
    let n = n as f64;
    Measurement { median_us: all.median_us / n, spread_us: all.spread_us / n, ..all }
}

fn timing(measured: Measurement) -> Timing {
    Timing {
        median_us: measured.median_us.max(0.0),
        spread_us: measured.spread_us,
        samples: measured.samples as u32,
        other_load: measured.other_load.unwrap_or(0.0),
        kernels: kernels::version(),
        millijoules: None,
    }
}

/// Width of the FFN that is timed with a mixer: in the middle of what stacks have beside it.
fn width_beside(d_model: u32) -> u32 {
    (d_model / 2 * 5).next_multiple_of(8)
}

/// Whether a cache holds a model of this size.
fn is_small(working_set_kib: u32) -> bool {
    (1..LARGE_KIB).contains(&working_set_kib)
}

/// Copies of a layer of so many bytes that fill what a model of `working_set_kib` fills.
fn copies(bytes: u64, working_set_kib: u32) -> usize {
    let bytes = bytes.max(1);
    if is_small(working_set_kib) {
        let wanted = (u64::from(working_set_kib) << 10).saturating_add(bytes / 2) / bytes;
        return wanted.clamp(1, *COPIES.end()) as usize;
    }
    LARGE_BYTES.div_ceil(bytes).clamp(*COPIES.start(), *COPIES.end()) as usize
}

/// Bytes that a step reads of a part.
fn bytes(part: &Part, context: usize, dtype: Dtype) -> Result<u64, ProfileError> {
    Ok(search::cost::decode_bytes(&alone(part)?.0, context as u32, dtype))
}

impl Backend for Profiler {
    fn device(&self) -> Device {
        Device::Cuda(Some(self.number))
    }

    fn hardware(&self) -> &str {
        &self.hardware
    }

    fn part(&self, key: &LatencyKey) -> Result<Timing, ProfileError> {
        let steps = match self.work(&key.conditions)? {
            Work::Stream(steps) => steps,
            Work::Layers(run) => return self.layers_part(key, run),
        };
        let of = (key.working_set_kib, steps.after(key.part.meta_tokens()));
        let ffn = |d_model: u32, width: u32| -> Result<(Layer, u64), ProfileError> {
            let ffn = Ffn::swiglu(width);
            let layer = Layer { mixer: None, ffn: Some(ffn) };
            Ok((layer, steps.bytes(&Part::Ffn { d_model, ffn })?))
        };
        let sampled = match key.part {
            Part::Mixer { d_model, mixer, .. } if !key.before_ffn => {
                let layer = Layer { mixer: Some(mixer), ffn: None };
                self.layer(d_model, &layer, steps.bytes(&key.part)?, of)?
            }
            Part::Mixer { d_model, mixer, .. } => {
                let (beside, bytes_beside) = ffn(d_model, width_beside(d_model))?;
                let layer = Layer { mixer: Some(mixer), ..beside };
                let bytes = steps.bytes(&key.part)? + bytes_beside;
                let both = self.layer(d_model, &layer, bytes, of)?;
                less(both, self.layer(d_model, &beside, bytes_beside, of)?, 1.0)
            }
            Part::Ffn { d_model, ffn } => {
                let layer = Layer { mixer: None, ffn: Some(ffn) };
                self.layer(d_model, &layer, steps.bytes(&key.part)?, of)?
            }
            Part::Head { d_model, vocab } if is_small(key.working_set_kib) => {
                self.ends(d_model, vocab, steps)?
            }
            // What is left of a step when its layers are taken away, the start and the end of the launch too.
            Part::Head { d_model, vocab } => {
                let (layer, bytes) = ffn(d_model, d_model)?;
                let copies = copies(bytes, key.working_set_kib);
                let one = self.layer(d_model, &layer, bytes, of)?;
                let whole = self.sample_of(d_model, vocab, (&layer, copies), steps)?;
                let left = less(whole, one, copies as f64);
                // a difference of two long times; it is no less than a step that has next to nothing to do
                let ends = self.ends(d_model, SMALL_VOCABULARY, steps)?;
                Measurement { median_us: left.median_us.max(ends.median_us), ..left }
            }
        };
        Ok(timing(sampled))
    }

    fn whole(
        &self,
        architecture: &Architecture,
        conditions: &Conditions,
    ) -> Result<Timing, ProfileError> {
        let meta_tokens = architecture.meta_tokens();
        let (sampled, energy, tokens) = match self.work(conditions)? {
            Work::Stream(steps) => {
                let (sampled, energy) =
                    self.sample(architecture, steps.after(meta_tokens), true)?;
                (sampled, energy, 1)
            }
            Work::Layers(run) => {
                let run = run.after(meta_tokens as usize)?;
                let (sampled, energy) = self.run(architecture, run, Section::Whole, true)?;
                (sampled, energy, run.batch * run.tokens)
            }
        };
        let millijoules = energy.map(|mj| mj / tokens as f64);
        Ok(Timing { millijoules, ..timing(sampled) })
    }

    fn limit(&self, limit: Limit, _threads: u32) -> Result<Timing, ProfileError> {
        Err(ProfileError::Conditions(format!(
            "{limit} is timed on the CPU only; `cargo run --release -p profiles --example gpu_engine` measures a GPU's limits"
        )))
    }

    fn check(
        &self,
        architecture: &Architecture,
        conditions: &Conditions,
    ) -> Result<(), ProfileError> {
        let machine = &mut Rehearsal::of(self.gpu.borrow().extent());
        let meta_tokens = architecture.meta_tokens() as usize;
        match self.work(conditions)? {
            Work::Stream(Steps { context, storage, .. }) => {
                let positions = context + meta_tokens + STEPS + 1;
                Decoder::pretended(machine, architecture, storage, positions)?;
            }
            Work::Layers(run) => {
                let run = run.after(meta_tokens)?;
                let model = Model::pretended(machine, architecture, (run.batch, run.positions()))?;
                match run.context {
                    None => model.prefill(machine, run.tokens, Section::Whole)?,
                    Some(context) => model.step(machine, context + 1, Section::Whole)?,
                };
            }
        }
        Ok(())
    }

    fn telemetry(&self) -> Option<String> {
        Some(self.sampler.watch.read().to_string())
    }
}
