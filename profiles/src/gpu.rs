//! The same timings on an NVIDIA GPU: decode steps of batch 1 by the kernel that runs a whole step in one launch.
//!
//! A step streams the weights while it waits for its own results, so a part by itself does not take the time that it takes
//! in a model. What a part adds is measured instead: the difference between a stack with 2n copies of it and one with n,
//! over n. What is left of a step that has no layers counts to the head. Weights of a stack are several times the
//! last-level cache, unless the model that a part stands for is smaller than that.

mod stack;

use std::cell::RefCell;

use kernels::cuda::Error;
use kernels::cuda::decode::{Decoder, Layer, Stack};
use kernels::cuda::gpu::Gpu;
use kernels::timing::Plan;
use search::Architecture;
use search::latency::{Conditions, Dtype, LatencyKey, Limit, Part, Phase, Timing};

use crate::error::ProfileError;
use crate::measure::{Times, alone};
use crate::nvml::{Watch, disturbance};
pub use stack::stack;

/// Steps in one sample: they follow each other as in generation.
const STEPS: usize = 8;
/// Samples of one stack.
const SAMPLES: usize = 25;
/// Samples before those that count.
const WARM_UP: usize = 4;
/// Copies of a part in the shorter stack.
const COPIES: std::ops::RangeInclusive<u64> = 4..=48;
/// Bytes of the shorter stack for models that no cache holds.
const LARGE_BYTES: u64 = 160 << 20;
/// Models of this size and more count as such.
const LARGE_KIB: u32 = 64 << 10;
/// Tokens of the head that stacks of parts have.
const SMALL_VOCABULARY: usize = 64;

/// Times parts and models on one GPU.
#[derive(Debug)]
pub struct GpuProfiler {
    gpu: RefCell<Gpu>,
    watch: Watch,
    ordinal: usize,
    device: String,
    patience: u32,
}

/// Median and half the interquartile range of a stack's step.
#[derive(Debug, Clone, Copy)]
struct Sampled {
    median_us: f64,
    spread_us: f64,
    other_load: f64,
    millijoules_per_token: Option<f64>,
}

impl GpuProfiler {
    /// Opens GPU number `ordinal`.
    ///
    /// # Errors
    /// When it cannot be used: the message says what is missing and what to do.
    pub fn open(ordinal: usize, plan: &Plan) -> Result<Self, ProfileError> {
        let gpu = Gpu::open(ordinal)?;
        let device = format!("cuda: {}", gpu.facts().name);
        let watch = Watch::open(&gpu.facts().uuid);
        // as many tries as the CPU's plan has
        let patience =
            (plan.patience.as_secs_f64() / plan.time.as_secs_f64()).ceil().max(1.0) as u32;
        Ok(Self { gpu: RefCell::new(gpu), watch, ordinal, device, patience })
    }

    fn check(&self, conditions: &Conditions) -> Result<usize, ProfileError> {
        let refuse = |what: String| Err(ProfileError::Conditions(what));
        if conditions.device != self.device {
            return refuse(format!(
                "this profiler times `{}`, not `{}`",
                self.device, conditions.device
            ));
        }
        if conditions.dtype != Dtype::Bf16 {
            let got = conditions.dtype;
            return refuse(format!(
                "weights on a GPU are bf16, not {got}: set `dtype = \"bf16\"` in [latency]"
            ));
        }
        match conditions.phase {
            Phase::Decode { context } if conditions.batch == 1 => Ok(context as usize),
            Phase::Decode { .. } => {
                refuse(format!("decode on a GPU is timed at batch 1, not {}", conditions.batch))
            }
            Phase::Prefill { .. } => refuse(
                "prefill is not timed on a GPU yet: set `prefill_tokens = 0` in [latency]"
                    .to_owned(),
            ),
        }
    }

    /// Steps of `stack` with `context` positions in its caches.
    fn sample(&self, stack: &Stack, context: usize) -> Result<Sampled, Error> {
        let gpu = &mut *self.gpu.borrow_mut();
        let mut decoder = Decoder::pretended(gpu, stack)?;
        let mut best: Option<Sampled> = None;
        for _ in 0..self.patience {
            let sampled = self.series(gpu, &mut decoder, context)?;
            if best.is_none_or(|best| sampled.other_load < best.other_load) {
                best = Some(sampled);
            }
            if sampled.other_load <= Timing::QUIET_LOAD {
                break;
            }
        }
        decoder.free(gpu)?;
        Ok(best.expect("there is one try at least"))
    }

    fn series(
        &self,
        gpu: &mut Gpu,
        decoder: &mut Decoder,
        context: usize,
    ) -> Result<Sampled, Error> {
        let mut samples = Vec::new();
        let mut before = self.watch.read();
        let mut milliseconds = 0.0;
        for index in 0..WARM_UP + SAMPLES {
            if index == WARM_UP {
                before = self.watch.read();
                milliseconds = 0.0;
            }
            decoder.seek(gpu, context, 1)?;
            let ms = gpu.elapsed_ms(|gpu| (0..STEPS).try_for_each(|_| decoder.step(gpu)))?;
            milliseconds += ms;
            if index >= WARM_UP {
                samples.push(1e3 * ms / STEPS as f64);
            }
        }
        let after = self.watch.read_after(&before);
        samples.sort_by(f64::total_cmp);
        let at = |share: f64| samples[((samples.len() - 1) as f64 * share).round() as usize];
        Ok(Sampled {
            median_us: at(0.5),
            spread_us: (at(0.75) - at(0.25)) / 2.0,
            other_load: disturbance(&before, &after),
            // a counter that moves ten times a second says nothing of less than that
            millijoules_per_token: (milliseconds > 300.0)
                .then(|| after.energy_since(&before).map(|mj| mj / (SAMPLES * STEPS) as f64))
                .flatten(),
        })
    }

    /// What one of `layers` adds to a step, from stacks of n and 2n of it.
    fn slope(
        &self,
        d_model: u32,
        layer: &Layer,
        copies: usize,
        context: usize,
    ) -> Result<(Sampled, Sampled), Error> {
        let of = |copies: usize| Stack {
            d_model: d_model as usize,
            vocabulary: SMALL_VOCABULARY,
            tied: true,
            positions: context + STEPS + 1,
            layers: vec![layer.clone(); copies],
        };
        let (short, long) =
            (self.sample(&of(copies), context)?, self.sample(&of(2 * copies), context)?);
        let n = copies as f64;
        let slope = Sampled {
            median_us: (long.median_us - short.median_us) / n,
            spread_us: short.spread_us.hypot(long.spread_us) / n,
            other_load: short.other_load.max(long.other_load),
            millijoules_per_token: None,
        };
        Ok((slope, short))
    }
}

fn timing(sampled: Sampled) -> Timing {
    Timing {
        median_us: sampled.median_us.max(0.0),
        spread_us: sampled.spread_us,
        samples: SAMPLES as u32,
        other_load: sampled.other_load,
        kernels: kernels::version(),
    }
}

/// Copies of a part that fill what a model of `working_set_kib` fills.
fn copies(part: &Architecture, working_set_kib: u32, context: usize) -> usize {
    let wanted = match working_set_kib {
        kib if (1..LARGE_KIB).contains(&kib) => u64::from(kib) << 10,
        _ => LARGE_BYTES,
    };
    let bytes = search::cost::decode_bytes(part, context as u32, Dtype::Bf16).max(1);
    wanted.div_ceil(bytes).clamp(*COPIES.start(), *COPIES.end()) as usize
}

impl Times for GpuProfiler {
    fn device(&self) -> &str {
        &self.device
    }

    fn serves(&self) -> String {
        format!("cuda:{}", self.ordinal)
    }

    fn part(&self, key: &LatencyKey) -> Result<Timing, ProfileError> {
        let context = self.check(&key.conditions)?;
        let (architecture, _) = alone(&key.part)?;
        let copies_of_part = copies(&architecture, key.working_set_kib, context);
        let sampled = match key.part {
            Part::Mixer { d_model, mixer, meta_tokens } => {
                stack::refuse_meta_tokens(meta_tokens)?;
                let layer = Layer { mixer: Some(stack::mixer(&mixer)?), ffn: None };
                self.slope(d_model, &layer, copies_of_part, context)?.0
            }
            Part::Ffn { d_model, width } => {
                let layer = Layer { mixer: None, ffn: Some(width as usize) };
                self.slope(d_model, &layer, copies_of_part, context)?.0
            }
            // What is left of a step when its layers are taken away: the start and the end of the launch too.
            Part::Head { d_model, vocab } => {
                let layer = Layer { mixer: None, ffn: Some(d_model as usize) };
                // layers that no cache holds: of others the first ones would cost less than the next
                let (filler, _) = alone(&Part::Ffn { d_model, width: d_model })?;
                let copies = copies(&filler, key.working_set_kib, context);
                let (slope, _) = self.slope(d_model, &layer, copies, context)?;
                let whole = Stack {
                    d_model: d_model as usize,
                    vocabulary: vocab as usize,
                    tied: true,
                    positions: context + STEPS + 1,
                    layers: vec![layer; copies],
                };
                let whole = self.sample(&whole, context)?;
                let n = copies as f64;
                Sampled {
                    median_us: whole.median_us - n * slope.median_us,
                    spread_us: whole.spread_us.hypot(n * slope.spread_us),
                    other_load: whole.other_load.max(slope.other_load),
                    millijoules_per_token: None,
                }
            }
        };
        Ok(timing(sampled))
    }

    fn whole(
        &self,
        architecture: &Architecture,
        conditions: &Conditions,
    ) -> Result<Timing, ProfileError> {
        let context = self.check(conditions)?;
        let stack = stack(architecture, context + STEPS + 1)?;
        let sampled = self.sample(&stack, context)?;
        let (now, energy) = (self.watch.read(), sampled.millijoules_per_token);
        let energy = energy.map_or(String::new(), |mj| format!("{mj:.1} mJ a token, "));
        eprintln!("deltafront-profile: {energy}{now}");
        Ok(timing(sampled))
    }

    fn limit(&self, limit: Limit, _threads: u32) -> Result<Timing, ProfileError> {
        Err(ProfileError::Conditions(format!(
            "{limit} is timed on the CPU only; `deltafront-gpu` measures a GPU's limits"
        )))
    }
}
