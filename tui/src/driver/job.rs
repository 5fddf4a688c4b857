//! What a driver is given to do.

use std::time::Instant;

use search::campaign::Settings;
use search::device::Device;
use search::proposals::Proposer;
use search::subject::Subjects;

use super::limits::Room;
use super::metrics::endpoint::Endpoint;
use super::preflight::Look;
use super::pull::listener::Door;
use super::spec::WorkerSpec;
use super::targets::Target;

/// What a campaign needs to be driven.
pub(crate) struct Job<D: Subjects> {
    /// Its name in the store.
    pub(crate) name: String,
    /// What the state machine is asked, but for what only a profiler knows.
    pub(crate) settings: Settings,
    /// What candidates are timed on, `[latency]` itself first; a black box has none.
    pub(crate) targets: Vec<Target>,
    pub(crate) space: D,
    pub(crate) proposer: Proposer<D::Point>,
    pub(crate) trainer: WorkerSpec,
    /// Trainers on this machine.
    pub(crate) trainers: u32,
    /// What the first pull workers that time are asked before anything is spent.
    pub(crate) look: Option<Look<D>>,
    /// Where others may join.
    pub(crate) door: Option<Door>,
    /// Where Prometheus may ask.
    pub(crate) metrics: Option<Endpoint>,
    /// When nothing more is to be proposed, and why then.
    pub(crate) deadline: Option<(Instant, String)>,
    pub(crate) show: Show,
    /// The room that must be left on the disk of its files.
    pub(crate) room: Option<Room>,
}

impl<D: Subjects> Job<D> {
    /// Refuses programs of ours that this machine is to start and does not have.
    pub(crate) fn must_be_there(&self) -> anyhow::Result<()> {
        let profilers = self.targets.iter().filter(|target| !target.is_elsewhere);
        let trainer = (self.trainers > 0).then_some(&self.trainer);
        let mut all = trainer.into_iter().chain(profilers.map(|target| &target.profiler));
        all.try_for_each(|worker| worker.program.must_be_there(worker.role))
    }

    /// Devices of this machine that are timed, or would be if pull workers did not do it: those of `[latency]` itself in any
    /// case.
    pub(crate) fn timed_devices(&self) -> Vec<Device> {
        let here = |target: &&Target| target.name().is_none() || !target.is_elsewhere;
        self.targets.iter().filter(here).map(Target::device).collect()
    }

    /// Seconds from now on after which nothing more is to be proposed.
    pub(crate) fn deadline_seconds(&self) -> Option<f64> {
        let (at, _) = self.deadline.as_ref()?;
        Some(at.saturating_duration_since(Instant::now()).as_secs_f64())
    }
}

/// What is shown of a campaign at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// Progress as bars.
    Bars,
    /// Plain lines.
    Lines,
    /// Nothing but trouble.
    Nothing,
}
