//! What a campaign at work tells Prometheus. Everything is a number as it is now, but for the failed attempts, which are those
//! of this run.

pub(crate) mod endpoint;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use db::Change;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use search::campaign::{Candidate, CandidateState, Settings, findings};
use search::failure::FailureKind;
use search::objective::Objective;
use search::pareto::{Objectives, Scale};

use super::slot::{Presence, Slot};
use super::spec::Role;

/// Evaluations whose front is the unit of the hypervolume.
const FIRST: usize = 12;

/// One label of a metric.
type Label = [(&'static str, String); 1];
type Gauges = Family<Label, Gauge>;
type Number = Gauge<f64, AtomicU64>;
/// A number that is not there while it is not known.
type Known = Family<[(&'static str, String); 0], Number>;

/// The metrics of a campaign.
#[derive(Debug)]
pub(crate) struct Metrics {
    candidates: Gauges,
    evaluations: Gauge,
    wanted: Gauge,
    front: Gauge,
    tokens: Gauge,
    best: Family<Label, Number>,
    hypervolume: Known,
    left: Known,
    workers: Family<[(&'static str, String); 2], Gauge>,
    failed_attempts: Family<Label, Counter>,
    objectives: Vec<Objective>,
    /// Tokens of a full evaluation.
    full: u64,
    refusals_count: bool,
}

/// What is served.
#[derive(Debug, Clone)]
pub(crate) struct Served(Arc<Registry>);

impl Served {
    /// Metrics in the text format of OpenMetrics.
    fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.0).expect("a string takes all that is written");
        text
    }
}

/// How far a campaign is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Far {
    /// Evaluations that are over.
    pub(super) over: u64,
    /// Members of the front.
    pub(super) front: usize,
    /// About how long it goes on, where that is known.
    pub(super) seconds_left: Option<f64>,
}

impl Metrics {
    /// Of a campaign of this name.
    pub(super) fn new(name: &str, settings: &Settings) -> (Self, Served) {
        let campaign = [("campaign".into(), name.to_owned().into())];
        let mut registry = Registry::with_prefix_and_labels("deltafront", campaign.into_iter());
        let metrics = Self {
            candidates: Family::default(),
            evaluations: Gauge::default(),
            wanted: Gauge::default(),
            front: Gauge::default(),
            tokens: Gauge::default(),
            best: Family::default(),
            hypervolume: Family::default(),
            left: Family::default(),
            workers: Family::default(),
            failed_attempts: Family::default(),
            objectives: settings.objectives.clone(),
            full: settings.tokens,
            refusals_count: settings.refusals_count,
        };
        let Self { candidates, evaluations, wanted, front, tokens, best, hypervolume, .. } =
            &metrics;
        registry.register(
            "candidates",
            "Candidates by state; proposed ones wait",
            candidates.clone(),
        );
        registry.register("evaluations", "Evaluations that are over", evaluations.clone());
        registry.register(
            "evaluations_wanted",
            "Evaluations that the campaign is to do",
            wanted.clone(),
        );
        registry.register("front_members", "Candidates on the front", front.clone());
        registry.register(
            "trained_tokens",
            "Tokens that candidates were trained on",
            tokens.clone(),
        );
        registry.register("best", "The best value of an objective so far", best.clone());
        registry.register(
            "hypervolume",
            "Hypervolume of the front over that of the first 12 evaluations",
            hypervolume.clone(),
        );
        registry.register_with_unit(
            "left",
            "About how long the campaign goes on",
            Unit::Seconds,
            metrics.left.clone(),
        );
        registry.register("workers", "Workers that are connected", metrics.workers.clone());
        registry.register(
            "failed_attempts",
            "Attempts of this run that came to nothing, by kind",
            metrics.failed_attempts.clone(),
        );
        for kind in FailureKind::ALL {
            drop(metrics.failed_attempts.get_or_create(&label("kind", kind.words())));
        }
        metrics.wanted.set(settings.evaluations.into());
        (metrics, Served(Arc::new(registry)))
    }

    /// Counts an attempt that came to nothing.
    pub(super) fn heard(&self, change: &Change) {
        let Change::Attempt { failure: Some(kind), .. } = change else { return };
        self.failed_attempts.get_or_create(&label("kind", kind.words())).inc();
    }

    /// The candidates stand so.
    pub(super) fn candidates(&self, rows: &[&Candidate], far: Far) {
        let states = ["proposed", "training", "done", "failed", "infeasible"];
        for state in states {
            let count = rows.iter().filter(|row| row.state.word() == state).count();
            self.candidates.get_or_create(&label("state", state)).set(count as i64);
        }
        self.evaluations.set(far.over as i64);
        self.front.set(far.front as i64);
        self.tokens.set(rows.iter().map(|row| row.tokens).sum::<u64>() as i64);
        for objective in &self.objectives {
            let done = rows.iter().filter(|row| row.state == CandidateState::Done);
            let best =
                done.filter_map(|row| objective.minimised(&row.values)).min_by(f64::total_cmp);
            if let Some(best) = best {
                let best = objective.turned(best);
                self.best.get_or_create(&label("value", objective.name())).set(best);
            }
        }
        known(&self.hypervolume, self.growth(rows));
        known(&self.left, far.seconds_left);
    }

    /// The workers are these.
    pub(super) fn workers(&self, slots: &[Slot]) {
        for role in [Role::Trainer, Role::Profiler, Role::BlackBox] {
            for (state, is_busy) in [("idle", false), ("busy", true)] {
                let is_such = |slot: &&Slot| {
                    slot.role == role
                        && slot.request.is_some() == is_busy
                        && matches!(slot.presence, Presence::Here | Presence::Waits)
                };
                let labels = [("role", role.word().to_owned()), ("state", state.to_owned())];
                let count = slots.iter().filter(is_such).count();
                self.workers.get_or_create(&labels).set(count as i64);
            }
        }
    }

    /// Hypervolume of what was found over that of what the first evaluations had found; none before these are over.
    fn growth(&self, rows: &[&Candidate]) -> Option<f64> {
        let found = findings::evaluations(
            rows.iter().copied(),
            &self.objectives,
            self.full,
            self.refusals_count,
        );
        let first: Vec<Objectives> = found.get(..FIRST)?.iter().flatten().cloned().collect();
        let all: Vec<Objectives> = found.into_iter().flatten().collect();
        Some(Scale::of(&first)?.share(&all))
    }
}

/// Sets a gauge that need not be known.
fn known(gauge: &Known, value: Option<f64>) {
    match value {
        Some(value) => {
            gauge.get_or_create(&[]).set(value);
        }
        None => {
            gauge.remove(&[]);
        }
    }
}

fn label(name: &'static str, value: &str) -> Label {
    [(name, value.to_owned())]
}
