//! Timings of single parts and of whole models on the processor, under the conditions of the latency table.
//!
//! A part alone would keep its weights in the nearest cache, where a whole model would not find them again. So a decode
//! step is timed over copies of the part, each with weights and state of its own: as many as take the place of the
//! model that the part stands for. What is timed is a pass over all of them, as a whole model is a pass over its parts;
//! so neither the clock nor what surrounds a step is paid once for every part. Among its copies a part has its code at
//! hand, which in a model it has not after a part of another kind: what such a change costs is timed once and added.
//!
//! Which experts of a mixture a token goes through depends on the token. The same input would read the same ones each time, from
//! a cache that a text leaves them not; so each step is of another random input, by which the random router chooses
//! among all of them alike. A copy of a mixture fills the memory by all that it holds, as its model does.

mod limits;

use std::cell::RefCell;
use std::collections::HashMap;

use kernels::cpu::matrix::Storage;
use kernels::cpu::{Flushed, Matrix, Pool};
use kernels::device::Cpu;
use kernels::timing::{self, Plan};
use search::Architecture;
use search::device::{Device, Platform};
use search::latency::{Conditions, Dtype, LatencyKey, Limit, Phase, Timing};

use crate::backend::Backend;
use crate::engine::scratch::{Run, Scratch};
use crate::engine::sublayer::{self, Memory, Sublayer};
use crate::engine::{Engine, Head};
use crate::error::ProfileError;
use crate::part::alone;
use crate::weights::{SplitMix, Weights};

/// Copies of one part at most.
const COPIES_MAX: usize = 1024;

/// Seed of the weights, states and inputs that are timed.
const SEED: u64 = 1;

/// Random tokens that steps take in turn where what they read depends on them: as many as make nearly every expert of a few
/// dozen be chosen, and a few percent of what the near caches hold.
const INPUT_TOKENS: usize = 256;

/// Two small layers of different code and one memory, by which the cost of a change from one to the other is timed.
const CHANGE: [&str; 2] =
    ["d=64,vocab=1,tied | gdn(h=4,k=16,v=16)", "d=64,vocab=1,tied | ffn(128)"];
/// Copies of each: the nearest caches hold all.
const CHANGE_COPIES: usize = 3;

/// Times parts and models on this CPU.
#[derive(Debug)]
pub struct Profiler {
    hardware: String,
    working_set_bytes: usize,
    memory_bytes: Option<u64>,
    plan: Plan,
    /// What a change from one kind of part to another costs in a decode step, µs, by threads and storage.
    change_us: RefCell<HashMap<(usize, Storage), f64>>,
}

impl Backend for Profiler {
    fn device(&self) -> Device {
        Device::Cpu
    }

    fn hardware(&self) -> &str {
        &self.hardware
    }

    /// `working_set_kib` 0 stands for a model a little larger than the second-level cache.
    fn part(&self, key: &LatencyKey) -> Result<Timing, ProfileError> {
        let LatencyKey { part, working_set_kib, conditions, .. } = key;
        let Timed { tokens, context, batch, threads, storage } = self.work(conditions)?;
        let (architecture, is_head) = alone(part)?;
        let meta_tokens = part.meta_tokens() as usize;
        self.check_memory(&architecture)?;
        let pool = Pool::new(threads);
        let mut copies =
            Copies::new(&architecture, is_head, batch, context + meta_tokens, tokens, storage);
        let copy_bytes = copies.add(&architecture, SEED);
        let working_set = match working_set_kib {
            0 => self.working_set_bytes,
            kib => (*kib as usize) << 10,
        };
        // Of log-linear mixers one step works more than the next: a pass is then many of them.
        let passes = if tokens == 1 { copies.steps() } else { 1 };
        let wanted = match (tokens, passes) {
            (1, 1) => working_set / copy_bytes.max(1),
            // Nothing comes between the passes of a sample: they are to fill the memory by themselves.
            (1, _) => working_set.div_ceil(copy_bytes.max(1)),
            _ => 1,
        };
        for seed in 1..wanted.min(COPIES_MAX) as u64 {
            copies.add(&architecture, SEED + seed);
        }
        let steps = copies.all.len();
        // What is left of the memory that the model passes through is read between the passes.
        let rest = if tokens == 1 { working_set.saturating_sub(steps * copy_bytes) } else { 0 };
        let rest = vec![1.0_f32; rest / size_of::<f32>()];
        let before = || limits::read(&pool, &rest);
        let mut timing = self.timed(steps * passes, before, || {
            for _ in 0..passes {
                copies.run_all(&pool);
            }
        });
        if tokens == 1 {
            timing.median_us += self.change_us(threads, storage);
        }
        Ok(timing)
    }

    fn whole(
        &self,
        architecture: &Architecture,
        conditions: &Conditions,
    ) -> Result<Timing, ProfileError> {
        let Timed { tokens, context, batch, threads, storage } = self.work(conditions)?;
        self.check_memory(architecture)?;
        let weights = Weights::random(architecture, SEED);
        let engine = Engine::with_storage(architecture, &weights, threads, storage);
        let vocab = architecture.vocab();
        let mut prompts = Prompts::new(&engine, batch * tokens, vocab);
        let mut state = engine.pretended(batch, context, SEED);
        let mut logits = vec![0.0; batch * vocab as usize];
        let passes = if tokens == 1 { state.steps(context) } else { 1 };
        Ok(self.timed(
            passes,
            || {},
            || {
                for _ in 0..passes {
                    state.rewind(context);
                    engine
                        .last_logits(&mut state, prompts.next(), &mut logits)
                        .expect("the prompt was made for this model");
                }
            },
        ))
    }

    fn check(
        &self,
        architecture: &Architecture,
        conditions: &Conditions,
    ) -> Result<(), ProfileError> {
        self.work(conditions)?;
        self.check_memory(architecture)
    }

    fn limit(&self, limit: Limit, threads: u32) -> Result<Timing, ProfileError> {
        check_threads(threads)?;
        let pool = Pool::new(threads as usize);
        match limit {
            Limit::Read { mib } => {
                let bytes = u64::from(mib) << 20;
                if mib == 0 || self.memory_bytes.is_some_and(|available| bytes > available) {
                    let what = format!(
                        "{mib} MiB cannot be read here; ask for 1 MiB or more that fits the memory"
                    );
                    return Err(ProfileError::Conditions(what));
                }
                let values = vec![1.0_f32; bytes as usize / 4];
                Ok(self.timed(1, || {}, || limits::read(&pool, &values)))
            }
            Limit::Product => {
                let [rows, outputs, inputs] = Limit::PRODUCT.map(|n| n as usize);
                let matrix = Matrix::from_rows(&vec![0.5; outputs * inputs], outputs, inputs);
                let (x, mut y) = (vec![0.5; rows * inputs], vec![0.0; rows * outputs]);
                Ok(self.timed(1, || {}, || matrix.apply(&pool, &x, &mut y)))
            }
        }
    }

    fn telemetry(&self) -> Option<String> {
        None
    }
}

impl Profiler {
    /// A profiler of this machine.
    pub fn new(plan: Plan) -> Self {
        let cpu = Cpu::read();
        Self {
            hardware: Platform::Cpu.hardware(&cpu.name),
            working_set_bytes: working_set_bytes(&cpu),
            memory_bytes: cpu.memory_available_bytes,
            plan,
            change_us: RefCell::default(),
        }
    }

    /// What a part of a decode step costs beyond its own time because one of another kind ran before it, µs: other code,
    /// and branches of which the processor has forgotten where they went.
    fn change_us(&self, threads: usize, storage: Storage) -> f64 {
        if let Some(us) = self.change_us.borrow().get(&(threads, storage)) {
            return *us;
        }
        let kinds = CHANGE.map(|text| text.parse().expect("the stacks above are valid"));
        let pool = Pool::new(threads);
        let pass_us = |kinds: &[&Architecture]| {
            let mut copies = Copies::new(kinds[0], false, 1, 16, 1, storage);
            for seed in 0..CHANGE_COPIES as u64 {
                for kind in kinds {
                    copies.add(kind, SEED + seed);
                }
            }
            self.timed(1, || {}, || copies.run_all(&pool)).median_us
        };
        let [first, second] = &kinds;
        let changes = (2 * CHANGE_COPIES) as f64;
        let beyond_us = pass_us(&[first, second]) - pass_us(&[first]) - pass_us(&[second]);
        let us = (beyond_us / changes).max(0.0);
        self.change_us.borrow_mut().insert((threads, storage), us);
        us
    }

    /// Times `work`, which is `steps` steps, for one step; `before` runs before it each time.
    fn timed(&self, steps: usize, before: impl FnMut(), work: impl FnMut()) -> Timing {
        let measured = timing::measure_after(&self.plan, before, work);
        Timing {
            median_us: measured.median_us / steps as f64,
            spread_us: measured.spread_us / steps as f64,
            samples: measured.samples as u32,
            // Where the system does not tell the load there is no sign of any.
            other_load: measured.other_load.unwrap_or(0.0),
            kernels: kernels::version(),
            millijoules: None,
        }
    }

    fn work(&self, conditions: &Conditions) -> Result<Timed, ProfileError> {
        let refuse = |what: String| Err(ProfileError::Conditions(what));
        if conditions.device != self.hardware {
            return refuse(format!(
                "this profiler times `{}`, not `{}`",
                self.hardware, conditions.device
            ));
        }
        if conditions.batch == 0 {
            return refuse("batch must be at least 1, got 0".to_owned());
        }
        check_threads(conditions.threads)?;
        let (tokens, context) = match conditions.phase {
            Phase::Decode { context } => (1, context),
            Phase::Prefill { tokens: 0 } => {
                return refuse("a prompt has at least 1 token".to_owned());
            }
            Phase::Prefill { tokens } => (tokens, 0),
        };
        let [tokens, context, batch, threads] =
            [tokens, context, conditions.batch, conditions.threads].map(|n| n as usize);
        Ok(Timed { tokens, context, batch, threads, storage: storage(conditions.dtype)? })
    }

    fn check_memory(&self, architecture: &Architecture) -> Result<(), ProfileError> {
        // The weights as they are drawn, and packed.
        let needed = 2 * 4 * search::tensors::parameters(architecture);
        match self.memory_bytes {
            Some(available) if needed > available => Err(ProfileError::Conditions(format!(
                "the weights need {} MB of memory, {} MB are available",
                needed >> 20,
                available >> 20
            ))),
            _ => Ok(()),
        }
    }
}

fn check_threads(threads: u32) -> Result<(), ProfileError> {
    let cores = Cpu::read().cores as u32;
    if (1..=cores).contains(&threads) {
        return Ok(());
    }
    Err(ProfileError::Conditions(format!("this machine has 1 to {cores} threads, got {threads}")))
}

/// What a whole model reads, step after step: the same tokens, or where that changes its work others in turn.
struct Prompts {
    tokens: Vec<u32>,
    of_step: usize,
    at: usize,
}

impl Prompts {
    fn new(engine: &Engine, of_step: usize, vocab: u32) -> Self {
        let mut random = SplitMix(SEED);
        let tokens: Vec<u32> = if engine.reads_by_input() {
            let token = |_| random.between(0.0, vocab as f32) as u32 % vocab;
            (0..INPUT_TOKENS.div_ceil(of_step) * of_step).map(token).collect()
        } else {
            (0..of_step as u32).map(|i| i % vocab).collect()
        };
        Self { tokens, of_step, at: 0 }
    }

    fn next(&mut self) -> &[u32] {
        let step = &self.tokens[self.at..][..self.of_step];
        self.at = (self.at + self.of_step) % self.tokens.len();
        step
    }
}

/// Checked conditions.
struct Timed {
    /// Positions of a step: 1 in decode.
    tokens: usize,
    context: usize,
    batch: usize,
    threads: usize,
    storage: Storage,
}

/// How the engine keeps weights of an element type.
///
/// # Errors
/// When it keeps none so.
pub fn storage(dtype: Dtype) -> Result<Storage, ProfileError> {
    match dtype {
        Dtype::F32 => Ok(Storage::F32),
        Dtype::Bf16 => Ok(Storage::Bf16),
        Dtype::Int8 => Ok(Storage::Int8),
        Dtype::Fp8 => Err(ProfileError::Conditions(
            "weights in fp8 are timed on a GPU only: on a CPU set `dtype = \"int8\"` in [latency]"
                .to_owned(),
        )),
    }
}

/// Between the second-level cache and the last: where most models are that a cache holds.
fn working_set_bytes(cpu: &Cpu) -> usize {
    const DEFAULT: u64 = 8 << 20;
    let second = cpu.caches.iter().find(|cache| cache.level == 2).map(|cache| 8 * cache.bytes);
    let last = cpu.caches.iter().find(|cache| cache.level == 3).map(|cache| cache.bytes / 2);
    match (second, last) {
        (Some(second), Some(last)) => second.min(last) as usize,
        (Some(second), None) => second as usize,
        _ => DEFAULT as usize,
    }
}

enum Copy {
    Sublayer { layer: Box<Sublayer>, memories: Vec<Memory> },
    Head(Head),
}

/// Copies of one part, run one after the other.
struct Copies {
    all: Vec<Copy>,
    is_head: bool,
    batch: usize,
    context: usize,
    tokens: usize,
    storage: Storage,
    /// What the part reads, `[B·T, d]` for each of some steps.
    inputs: Vec<f32>,
    /// Where that of the next step begins.
    next_input: usize,
    /// `[B·T, d]`
    x: Vec<f32>,
    last: Vec<f32>,
    logits: Vec<f32>,
    prompt: Vec<u32>,
    scratch: Scratch,
}

impl Copies {
    fn new(
        architecture: &Architecture,
        is_head: bool,
        batch: usize,
        context: usize,
        tokens: usize,
        storage: Storage,
    ) -> Self {
        let (d, vocab) = (architecture.d_model() as usize, architecture.vocab() as usize);
        let mut random = SplitMix(SEED);
        let mut layers = architecture.layers().iter();
        let has_experts =
            layers.any(|layer| layer.ffn.is_some_and(|ffn| ffn.kind.experts().is_some()));
        let steps = if has_experts && !is_head { INPUT_TOKENS.div_ceil(batch * tokens) } else { 1 };
        let values = steps * batch * tokens * d;
        let inputs: Vec<f32> = (0..values).map(|_| random.between(-1.0, 1.0)).collect();
        Self {
            all: Vec::new(),
            is_head,
            batch,
            context,
            tokens,
            storage,
            x: vec![0.0; batch * tokens * d],
            inputs,
            next_input: 0,
            last: vec![0.0; batch * d],
            logits: vec![0.0; batch * vocab],
            prompt: (0..batch * tokens).map(|i| (i % vocab) as u32).collect(),
            scratch: Scratch::default(),
        }
    }

    /// Adds a copy and returns the bytes that steps of it read, sooner or later.
    fn add(&mut self, architecture: &Architecture, seed: u64) -> usize {
        let weights = Weights::random(architecture, seed);
        let (d, vocab) = (architecture.d_model() as usize, architecture.vocab() as usize);
        if self.is_head {
            let head = Head::new(&weights, d, vocab, true, self.storage);
            let bytes = head.weight_bytes();
            self.all.push(Copy::Head(head));
            return bytes;
        }
        let mut random = SplitMix(seed);
        let mut bytes = 0;
        for layer in sublayer::build(architecture, &weights, self.storage) {
            let memories: Vec<Memory> =
                (0..self.batch).map(|_| layer.pretended(self.context, &mut random)).collect();
            bytes += layer.weight_bytes() + memories.iter().map(Memory::bytes).sum::<usize>();
            self.all.push(Copy::Sublayer { layer: Box::new(layer), memories });
        }
        bytes
    }

    /// Steps that one timing goes through, see [`crate::engine::State::steps`].
    fn steps(&self) -> usize {
        let steps = |copy: &Copy| match copy {
            Copy::Sublayer { memories, .. } => {
                memories.iter().map(|memory| memory.steps(self.context)).max()
            }
            Copy::Head(_) => None,
        };
        self.all.iter().filter_map(steps).max().unwrap_or(1)
    }

    /// One step of every copy, each going on from what the one before left, as the parts of a model do.
    fn run_all(&mut self, pool: &Pool) {
        let _flushed = Flushed::begin();
        let values = self.x.len();
        self.x.copy_from_slice(&self.inputs[self.next_input..][..values]);
        self.next_input = (self.next_input + values) % self.inputs.len();
        for copy in &mut self.all {
            match copy {
                Copy::Sublayer { layer, memories } => {
                    for memory in memories.iter_mut() {
                        memory.rewind(self.context);
                    }
                    let mut on = Run { pool, scratch: &mut self.scratch };
                    layer.forward(&mut on, self.tokens, &mut self.x, memories);
                }
                Copy::Head(head) => {
                    head.embed(pool, &self.prompt, &mut self.x);
                    head.last_logits(pool, &self.x, self.batch, &mut self.last, &mut self.logits);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_a_mixture_take_other_inputs_and_those_of_one_network_the_same() {
        for (text, alike) in [("moe(8,e=6,k=2)", false), ("ffn(8)", true)] {
            let stack: Architecture =
                format!("d=16,vocab=50,tied | {text}").parse().expect("a stack");
            let mut copies = Copies::new(&stack, false, 3, 0, 1, Storage::F32);
            copies.add(&stack, SEED);
            let pool = Pool::new(1);
            let mut outputs = Vec::new();
            for _ in 0..=INPUT_TOKENS.div_ceil(3) {
                copies.run_all(&pool);
                outputs.push(copies.x.clone());
            }
            assert_eq!(outputs[0] == outputs[1], alike, "{text}");
            assert_eq!(outputs.first(), outputs.last(), "{text}: they come again");
            let engine = Engine::with_storage(&stack, &Weights::random(&stack, 1), 1, Storage::F32);
            let mut prompts = Prompts::new(&engine, 3, 50);
            let [first, second] = [(); 2].map(|()| prompts.next().to_vec());
            assert!(first.len() == 3 && (first == second) == alike, "{text}");
        }
    }
}
