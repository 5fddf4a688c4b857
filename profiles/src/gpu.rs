//! The same timings on an NVIDIA GPU.
//!
//! Decode steps of batch 1 run by the kernel that goes through a whole step in one launch. A step streams the weights
//! while it waits for its own results, so a part by itself does not take the time that it takes in a model. What a part
//! adds is measured instead: the difference between a stack with 2n copies of it and one with n, over n. What is left of a
//! step that has no layers counts to the head. Weights of a stack are several times the last-level cache, unless the
//! model that a part stands for is smaller than that.
//!
//! Prefill and decode steps of more sequences run layer by layer, as recorded graphs of products and kernels, one after
//! the other: there a part takes its n-th of a pass over n copies, each with weights of its own.

mod layers;
mod stack;

use std::cell::RefCell;
use std::time::{Duration, Instant};

use kernels::cuda::Error;
use kernels::cuda::decode::{Decoder, Layer, Stack};
use kernels::cuda::gpu::Gpu;
use kernels::cuda::layers::Section;
use kernels::timing::Plan;
use search::Architecture;
use search::latency::{Conditions, Dtype, LatencyKey, Limit, Part, Phase, Timing};

use self::layers::Run;
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
/// Copies of a part in prefill at most, where many positions use what was read once.
const PREFILL_COPIES: u64 = 6;
/// Bytes of the shorter stack for models that no cache holds.
const LARGE_BYTES: u64 = 160 << 20;
/// Models of this size and more count as such.
const LARGE_KIB: u32 = 64 << 10;
/// Tokens of the head that stacks of parts have.
const SMALL_VOCABULARY: usize = 64;
/// Work between two moves of the energy counter, which moves about ten times a second; and how long to wait for them.
const ENERGY_TIME: Duration = Duration::from_millis(300);
const ENERGY_PATIENCE: Duration = Duration::from_secs(2);
/// Work between two looks at that counter.
const ENERGY_LOOK_MS: f64 = 10.0;

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
}

/// What is timed: by the one launch, or layer by layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Stream { context: usize },
    Layers(Run),
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

    fn check(&self, conditions: &Conditions) -> Result<Work, ProfileError> {
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
        let batch = conditions.batch as usize;
        match conditions.phase {
            _ if batch == 0 => refuse("batch must be at least 1, got 0".to_owned()),
            Phase::Prefill { tokens: 0 } => refuse("a prompt has at least 1 token".to_owned()),
            Phase::Decode { context } if batch == 1 => {
                Ok(Work::Stream { context: context as usize })
            }
            Phase::Decode { context } => {
                Ok(Work::Layers(Run { batch, tokens: 1, context: Some(context as usize) }))
            }
            Phase::Prefill { tokens } => {
                Ok(Work::Layers(Run { batch, tokens: tokens as usize, context: None }))
            }
        }
    }

    /// Steps of `stack` with `context` positions in its caches, and the energy of one if `counts_energy`.
    fn sample(
        &self,
        stack: &Stack,
        context: usize,
        counts_energy: bool,
    ) -> Result<(Sampled, Option<f64>), Error> {
        let gpu = &mut *self.gpu.borrow_mut();
        let mut decoder = Decoder::pretended(gpu, stack)?;
        let sampled = self.repeat(gpu, STEPS, counts_energy, &mut |gpu| {
            decoder.seek(gpu, context, 1)?;
            gpu.elapsed_ms(|gpu| (0..STEPS).try_for_each(|_| decoder.step(gpu)))
        });
        decoder.free(gpu)?;
        sampled
    }

    /// Series of `once`, which runs so many steps and tells its milliseconds, until one is not disturbed; and the
    /// millijoules of a step if `counts_energy`.
    fn repeat(
        &self,
        gpu: &mut Gpu,
        steps: usize,
        counts_energy: bool,
        once: &mut dyn FnMut(&mut Gpu) -> Result<f64, Error>,
    ) -> Result<(Sampled, Option<f64>), Error> {
        let mut best: Option<Sampled> = None;
        for _ in 0..self.patience {
            let sampled = self.series(gpu, steps, once)?;
            if best.is_none_or(|best| sampled.other_load < best.other_load) {
                best = Some(sampled);
            }
            if sampled.other_load <= Timing::QUIET_LOAD {
                break;
            }
        }
        let energy = if counts_energy { self.millijoules(gpu, steps, once)? } else { None };
        Ok((best.expect("there is one try at least"), energy))
    }

    fn series(
        &self,
        gpu: &mut Gpu,
        steps: usize,
        once: &mut dyn FnMut(&mut Gpu) -> Result<f64, Error>,
    ) -> Result<Sampled, Error> {
        for _ in 0..WARM_UP {
            once(gpu)?;
        }
        let before = self.watch.read();
        let mut samples = Vec::new();
        for _ in 0..SAMPLES {
            samples.push(1e3 * once(gpu)? / steps as f64);
        }
        let after = self.watch.read_after(&before);
        samples.sort_by(f64::total_cmp);
        let at = |share: f64| samples[((samples.len() - 1) as f64 * share).round() as usize];
        Ok(Sampled {
            median_us: at(0.5),
            spread_us: (at(0.75) - at(0.25)) / 2.0,
            other_load: disturbance(&before, &after),
        })
    }

    /// Energy of a step, from one move of the GPU's counter to another; nothing where there is no counter.
    fn millijoules(
        &self,
        gpu: &mut Gpu,
        steps: usize,
        once: &mut dyn FnMut(&mut Gpu) -> Result<f64, Error>,
    ) -> Result<Option<f64>, Error> {
        let Some(mut last) = self.watch.energy_mj() else { return Ok(None) };
        let begin = Instant::now();
        let mut from: Option<(u64, Instant, usize)> = None;
        let mut done = 0;
        while begin.elapsed() < ENERGY_PATIENCE {
            let mut milliseconds = 0.0;
            while milliseconds < ENERGY_LOOK_MS {
                milliseconds += once(gpu)?;
                done += steps;
            }
            let Some(now) = self.watch.energy_mj() else { return Ok(None) };
            if now == last {
                continue;
            }
            last = now;
            match from {
                None => from = Some((now, Instant::now(), done)),
                Some((first, at, before)) if at.elapsed() >= ENERGY_TIME => {
                    return Ok(Some(now.saturating_sub(first) as f64 / (done - before) as f64));
                }
                Some(_) => {}
            }
        }
        Ok(None)
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
        let (short, long) = (
            self.sample(&of(copies), context, false)?.0,
            self.sample(&of(2 * copies), context, false)?.0,
        );
        let n = copies as f64;
        let slope = Sampled {
            median_us: (long.median_us - short.median_us) / n,
            spread_us: short.spread_us.hypot(long.spread_us) / n,
            other_load: short.other_load.max(long.other_load),
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
        millijoules: None,
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
        let context = match self.check(&key.conditions)? {
            Work::Stream { context } => context,
            Work::Layers(run) => return self.layers_part(key, run),
        };
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
                let (whole, _) = self.sample(&whole, context, false)?;
                let n = copies as f64;
                Sampled {
                    median_us: whole.median_us - n * slope.median_us,
                    spread_us: whole.spread_us.hypot(n * slope.spread_us),
                    other_load: whole.other_load.max(slope.other_load),
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
        let (sampled, energy, tokens) = match self.check(conditions)? {
            Work::Stream { context } => {
                let stack = stack(architecture, context + STEPS + 1)?;
                let (sampled, energy) = self.sample(&stack, context, true)?;
                (sampled, energy, 1)
            }
            Work::Layers(run) => {
                let stack = stack(architecture, run.positions())?;
                let (sampled, energy) = self.run(&stack, run, Section::Whole, true)?;
                (sampled, energy, run.batch * run.tokens)
            }
        };
        let millijoules = energy.map(|mj| mj / tokens as f64);
        let energy = millijoules.map_or(String::new(), |mj| format!("{mj:.2} mJ a token, "));
        eprintln!("deltafront-profile: {energy}{}", self.watch.read());
        Ok(Timing { millijoules, ..timing(sampled) })
    }

    fn limit(&self, limit: Limit, _threads: u32) -> Result<Timing, ProfileError> {
        Err(ProfileError::Conditions(format!(
            "{limit} is timed on the CPU only; `deltafront-gpu` measures a GPU's limits"
        )))
    }
}
