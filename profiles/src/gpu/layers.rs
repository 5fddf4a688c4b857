//! Prefill, and decode of more than one sequence: passes over layers, recorded as graphs.

use kernels::cuda::Error;
use kernels::cuda::decode::{Layer, Stack};
use kernels::cuda::layers::{Model, Pass, Section};
use kernels::timing::Measurement;
use search::latency::{LatencyKey, Part, Timing};

use super::{
    GpuProfiler, PREFILL_COPIES, SMALL_VOCABULARY, STEPS, bytes, copies, one_of, stack, timing,
};
use crate::error::ProfileError;

/// A sample takes at least this, up to [`STEPS`] passes.
const SAMPLE_MS: f64 = 1.0;

/// A pass to be timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// Sequences.
    pub batch: usize,
    /// Positions of each: 1 in decode.
    pub tokens: usize,
    /// Positions in the caches of a decode step; none in prefill.
    pub context: Option<usize>,
}

impl Run {
    /// Positions that caches must hold.
    pub(super) fn positions(self) -> usize {
        self.context.map_or(self.tokens, |context| context + 1)
    }

    /// The same run of sequences that begin with so many meta tokens.
    pub(super) fn after(self, meta_tokens: usize) -> Result<Self, ProfileError> {
        match self.context {
            None if meta_tokens > 0 => Err(ProfileError::Conditions(
                "a GPU does not read prompts after meta tokens: set prefill_tokens = 0 in [latency], leave meta_tokens out of \
                 [space], or time with latency.device = \"cpu\""
                    .to_owned(),
            )),
            context => Ok(Self { context: context.map(|n| n + meta_tokens), ..self }),
        }
    }
}

impl GpuProfiler {
    /// A part of a pass.
    pub(super) fn layers_part(&self, key: &LatencyKey, run: Run) -> Result<Timing, ProfileError> {
        let bytes = bytes(&key.part, run.context.unwrap_or(run.tokens))?;
        let run = run.after(key.part.meta_tokens() as usize)?;
        let (d_model, vocabulary, layer) = match key.part {
            Part::Mixer { d_model, mixer, .. } => {
                let layer = Layer { mixer: Some(stack::mixer(&mixer)?), ffn: None };
                (d_model, SMALL_VOCABULARY, Some(layer))
            }
            Part::Ffn { d_model, width } => {
                let layer = Layer { mixer: None, ffn: Some(width as usize) };
                (d_model, SMALL_VOCABULARY, Some(layer))
            }
            Part::Head { d_model, vocab } => (d_model, vocab as usize, None),
        };
        let mut copies = copies(bytes, key.working_set_kib);
        if run.context.is_none() {
            copies = copies.min(PREFILL_COPIES as usize);
        }
        let section = if layer.is_some() { Section::Layers } else { Section::Head };
        let layers: Vec<Layer> = layer.into_iter().flat_map(|one| vec![one; copies]).collect();
        let n = layers.len().max(1);
        let stack = Stack {
            d_model: d_model as usize,
            vocabulary,
            tied: true,
            positions: run.positions(),
            layers,
        };
        let (all, _) = self.run(&stack, run, section, false)?;
        Ok(timing(one_of(n, all)))
    }

    /// Passes over `stack`, and the energy of one if `counts_energy`.
    pub(super) fn run(
        &self,
        stack: &Stack,
        run: Run,
        section: Section,
        counts_energy: bool,
    ) -> Result<(Measurement, Option<f64>), Error> {
        let gpu = &mut *self.gpu.borrow_mut();
        let model = Model::pretended(gpu, stack, run.batch)?;
        let pass = match run.context {
            None => model.prefill(gpu, run.tokens, section),
            Some(context) => {
                let at = u32::try_from(context).unwrap_or(u32::MAX);
                model
                    .seek(gpu, &vec![at; run.batch])
                    .and_then(|()| model.step(gpu, context + 1, section))
            }
        };
        let sampled = match pass {
            Err(error) => Err(error),
            Ok(pass) => {
                let vocabulary = stack.vocabulary as u32;
                let sampled = self.run_pass(&pass, gpu, (run, vocabulary), counts_energy);
                pass.free(gpu).and(sampled)
            }
        };
        model.free(gpu)?;
        sampled
    }

    fn run_pass(
        &self,
        pass: &Pass,
        gpu: &mut kernels::cuda::gpu::Gpu,
        (run, vocabulary): (Run, u32),
        counts_energy: bool,
    ) -> Result<(Measurement, Option<f64>), Error> {
        let prompt: Vec<u32> =
            (0..(run.batch * run.tokens) as u32).map(|i| i % vocabulary).collect();
        pass.set_tokens(gpu, &prompt)?;
        let graph = pass.record(gpu)?;
        gpu.replay(&graph)?;
        let ms = gpu.elapsed_ms(|gpu| gpu.replay(&graph))?;
        let steps = ((SAMPLE_MS / ms.max(1e-3)).ceil() as usize).clamp(1, STEPS);
        self.repeat(gpu, steps, counts_energy, &mut |gpu| {
            gpu.elapsed_ms(|gpu| (0..steps).try_for_each(|_| gpu.replay(&graph)))
        })
    }
}
