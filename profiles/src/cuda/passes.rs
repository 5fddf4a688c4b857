//! Prefill, and decode of more than one sequence: passes over layers, recorded as graphs.

use kernels::cuda::Error;
use kernels::cuda::gpu::Gpu;
use kernels::timing::Measurement;
use search::Architecture;
use search::architecture::{Ffn, Layer};
use search::latency::{Dtype, LatencyKey, Part, Timing};

use super::layers::{Model, Pass, Section};
use super::typical::typical_position;
use super::{
    PREFILL_COPIES, Profiler, SMALL_VOCABULARY, STEPS, TINY_FFN, bytes, copies, one_of, stack_of,
    timing,
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

impl Profiler {
    /// A part of a pass.
    pub(super) fn layers_part(&self, key: &LatencyKey, run: Run) -> Result<Timing, ProfileError> {
        let bytes = bytes(&key.part, run.context.unwrap_or(run.tokens), Dtype::Bf16)?;
        let run = run.after(key.part.meta_tokens() as usize)?;
        let (d_model, vocabulary, layer, section) = match key.part {
            Part::Mixer { d_model, mixer, .. } => {
                let layer = Layer { mixer: Some(mixer), ffn: None };
                (d_model, SMALL_VOCABULARY, layer, Section::Layers)
            }
            Part::Ffn { d_model, ffn } => {
                let layer = Layer { mixer: None, ffn: Some(ffn) };
                (d_model, SMALL_VOCABULARY, layer, Section::Layers)
            }
            // the layer is not run
            Part::Head { d_model, vocab } => {
                let layer = Layer { mixer: None, ffn: Some(Ffn::swiglu(TINY_FFN)) };
                (d_model, vocab, layer, Section::Head)
            }
        };
        let n = match section {
            Section::Head => 1,
            _ if run.context.is_none() => {
                copies(bytes, key.working_set_kib).min(PREFILL_COPIES as usize)
            }
            _ => copies(bytes, key.working_set_kib),
        };
        let stack = stack_of(d_model, vocabulary, &layer, n)?;
        let (all, _) = self.run(&stack, run, section, false)?;
        Ok(timing(one_of(n, all)))
    }

    /// Passes over a model, and the energy of one if `counts_energy`.
    pub(super) fn run(
        &self,
        architecture: &Architecture,
        run: Run,
        section: Section,
        counts_energy: bool,
    ) -> Result<(Measurement, Option<f64>), ProfileError> {
        let gpu = &mut *self.gpu.borrow_mut();
        let model = Model::pretended(gpu, architecture, (run.batch, run.positions()))?;
        let pass = match run.context {
            None => model.prefill(gpu, run.tokens, section),
            Some(context) => {
                let at = typical_position(architecture, context, 1);
                let at = u32::try_from(at).unwrap_or(u32::MAX);
                model
                    .seek(gpu, &vec![at; run.batch])
                    .and_then(|()| model.step(gpu, context + 1, section))
            }
        };
        let sampled = match pass {
            Err(error) => Err(error),
            Ok(pass) => {
                let vocabulary = architecture.vocab();
                let sampled = self.run_pass(&pass, gpu, (run, vocabulary), counts_energy);
                pass.free(gpu).and(sampled)
            }
        };
        model.free(gpu)?;
        Ok(sampled?)
    }

    fn run_pass(
        &self,
        pass: &Pass,
        gpu: &mut Gpu,
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
        self.sampler.repeat(gpu, steps, counts_energy, &mut |gpu| {
            gpu.elapsed_ms(|gpu| (0..steps).try_for_each(|_| gpu.replay(&graph)))
        })
    }
}
