//! Series of samples on a GPU, until one is not disturbed; and the energy that a step takes.

use std::time::{Duration, Instant};

use kernels::cuda::Error;
use kernels::cuda::gpu::Gpu;
use kernels::timing::{Measurement, Plan, agreed, median_and_spread, quickest};

use super::nvml::{Watch, disturbance};

/// Samples of one model.
const SAMPLES: usize = 25;
/// Samples before those that count.
const WARM_UP: usize = 4;
/// Work between two moves of the energy counter, which moves about ten times a second; and how long to wait for them.
const ENERGY_TIME: Duration = Duration::from_millis(300);
const ENERGY_PATIENCE: Duration = Duration::from_secs(2);
/// Work between two looks at that counter.
const ENERGY_LOOK_MS: f64 = 10.0;

/// Runs some steps and tells their milliseconds.
pub(super) type Once<'a> = &'a mut dyn FnMut(&mut Gpu) -> Result<f64, Error>;

/// How long to go on, and what is watched meanwhile.
#[derive(Debug)]
pub(super) struct Sampler {
    pub watch: Watch,
    plan: Plan,
    /// As many tries as the CPU's plan has.
    tries: u32,
}

impl Sampler {
    pub(super) fn new(uuid: &str, plan: &Plan) -> Self {
        let tries = (plan.patience.as_secs_f64() / plan.time.as_secs_f64()).ceil().max(1.0) as u32;
        Self { watch: Watch::open(uuid), plan: *plan, tries }
    }

    /// Series of `once`, which runs so many steps and tells its milliseconds, until one is not disturbed; and the
    /// millijoules of a step if `counts_energy`.
    pub(super) fn repeat(
        &self,
        gpu: &mut Gpu,
        steps: usize,
        counts_energy: bool,
        once: Once,
    ) -> Result<(Measurement, Option<f64>), Error> {
        let mut all = Vec::new();
        for _ in 0..self.tries {
            all.push(self.series(gpu, steps, once)?);
            if agreed(&self.plan, &mut all) {
                break;
            }
        }
        let energy = if counts_energy { self.millijoules(gpu, steps, once)? } else { None };
        Ok((quickest(&self.plan, &all), energy))
    }

    fn series(&self, gpu: &mut Gpu, steps: usize, once: Once) -> Result<Measurement, Error> {
        for _ in 0..WARM_UP {
            once(gpu)?;
        }
        let before = self.watch.read();
        let mut samples = Vec::new();
        for _ in 0..SAMPLES {
            samples.push(1e3 * once(gpu)? / steps as f64);
        }
        let after = self.watch.read_after(&before);
        let (median_us, spread_us) = median_and_spread(&mut samples);
        let other_load = Some(disturbance(&before, &after));
        Ok(Measurement { median_us, spread_us, samples: samples.len(), other_load })
    }

    /// Energy of a step, from one move of the GPU's counter to another; nothing where there is no counter.
    fn millijoules(&self, gpu: &mut Gpu, steps: usize, once: Once) -> Result<Option<f64>, Error> {
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
}
