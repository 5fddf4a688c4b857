//! What a worker's child is: its program, and the campaign's settings as they hold on this machine.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use search::config::{Precision, TRAINING_RULE};
use search::device::Device;
use search::wire::Configure;

use super::Welcome;
use super::post::Post;
use crate::driver::gpus::Gpus;
use crate::driver::limits::Limits;
use crate::driver::precision::ask_precision;
use crate::driver::spec::{Introduction, Program, Role, WorkerSpec};

/// What a worker works with.
pub(super) struct Outfit {
    pub(super) spec: WorkerSpec,
    /// Which GPU of this machine it computes on.
    pub(super) gpu: Option<String>,
    /// What `training.precision = "auto"` is, where the campaign did not know it yet.
    pub(super) precision: Option<Precision>,
}

impl Outfit {
    /// Makes what a campaign leaves to its machines what it is on this one.
    ///
    /// # Errors
    /// When this worker cannot do the campaign's work.
    pub(super) async fn of(post: &Post, welcome: &Welcome, shares: bool) -> anyhow::Result<Self> {
        let mut configure = Configure::clone(&welcome.configure);
        let mut program = program(post, welcome.is_own)?;
        let (gpus, mut gpu) = (Gpus::here(), None);
        let mut seen = |device: &mut Device| {
            *device = gpus.nearest(*device);
            gpu = gpus.name(*device);
        };
        if let Some(data) = &mut configure.data {
            let absolute =
                |path: &Path| std::path::absolute(path).context("a path is not absolute");
            if let Some(corpus) = &post.corpus {
                data.corpus = absolute(corpus)?;
            }
            if let Some(tokenizer) = &post.tokenizer {
                data.tokenizer = Some(absolute(tokenizer)?);
            }
        }
        let mut precision = None;
        if let Some(training) = &mut configure.training {
            if !welcome.is_own && welcome.rule != TRAINING_RULE {
                bail!(
                    "the campaign trains under rule {}, and this program under rule {TRAINING_RULE}: build both from the same source",
                    welcome.rule
                );
            }
            seen(&mut training.device);
            let cores =
                std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u32;
            training.threads = post.threads.unwrap_or(training.threads.min(cores)).max(1);
            if (training.precision, training.device) == (Precision::Auto, Device::Cpu) {
                let auto = ask_precision(&program, Some(training.threads)).await;
                precision = auto.map(|auto| auto.precision);
                training.precision = precision.unwrap_or(training.precision);
            }
        }
        if let Some(latency) = &mut configure.latency {
            seen(&mut latency.device);
            if let gpu @ Device::Cuda(_) = latency.device {
                program = program.on(gpu);
            }
        }
        if !shares && post.role == Role::Trainer {
            configure.checkpoints = Some(post.checkpoints());
        }
        let seconds = |s: f64| Duration::try_from_secs_f64(s).context("a time of the coordinator");
        let limits =
            Limits { wall: welcome.wall_s.map(seconds).transpose()?, memory_gb: welcome.memory_gb };
        let spec = WorkerSpec {
            role: post.role,
            program,
            introduction: Introduction::Configure(Box::new(configure)),
            log: post.home.folder.join(format!("{}.log", post.role.word())),
            silence: seconds(welcome.silence_s)?,
            limits,
        };
        Ok(Self { spec, gpu, precision })
    }
}

/// The program that does it.
fn program(post: &Post, is_own: bool) -> anyhow::Result<Program> {
    let (does, ours) = match post.role {
        Role::Profiler => ("timed", "deltafront-profile"),
        _ => ("trained", "deltafront-train"),
    };
    match (&post.command, is_own) {
        (Some(line), true) => {
            let folder = std::env::current_dir().context("where this is run is gone")?;
            Ok(Program::Shell { line: line.clone(), folder })
        }
        (None, false) => Program::built_in(post.role),
        (None, true) => bail!(
            "stacks of this campaign are {does} by a command of its user: give it to this worker by --command"
        ),
        (Some(_), false) => bail!(
            "stacks of this campaign are {does} by {ours}; a --command would do something else"
        ),
    }
}
