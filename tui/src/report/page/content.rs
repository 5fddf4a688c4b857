//! What a page is made of, and everything that is drawn of it.

use std::collections::BTreeSet;

use db::snapshot::{Candidate, Snapshot};
use search::campaign::CandidateState;
use search::latency::LatencyEntry;
use search::metric::Metric;
use search::objective::Objective;
use tui::plot::{Scene, axes};

use super::figure::Figure;
use super::times::{Row, Times};
use super::{climb, front, law, mixers, tables, threads, trust};
use crate::report;
use crate::report::comparison::Comparison;
use crate::report::findings::Findings;
use crate::report::law::Found;
use crate::report::progress::Progress;

/// Candidates beside the front and the references that have a card at most, the likeliest members first.
const CARDS: usize = 60;

/// All that a page is made of.
pub(crate) struct Page {
    pub(crate) snapshot: Snapshot,
    pub(crate) algorithm: String,
    pub(crate) findings: Findings,
    /// None while nothing is evaluated.
    pub(crate) progress: Option<Progress>,
    /// The law, or why there is none.
    pub(crate) law: Result<Found, String>,
    /// Comparisons at equal latency with candidates of this campaign, by what they are called.
    pub(crate) comparisons: Vec<(String, Comparison)>,
    pub(crate) latencies: Vec<LatencyEntry>,
    /// Roles, workers and devices.
    pub(crate) workers: Vec<[String; 3]>,
    /// What the campaign's files held, and what was left open in it.
    pub(crate) circumstances: Vec<(String, String)>,
    /// Where the latencies come from, in a sentence.
    pub(crate) provenance: String,
    /// ` --db PATH`, or nothing.
    pub(crate) db_flag: String,
}

/// Whose page it is to be decided before the curves are read: everybody with a card.
pub(crate) fn with_cards(snapshot: &Snapshot, findings: &Findings) -> BTreeSet<u32> {
    let is_named = |c: &&Candidate| c.rank == Some(0) || c.row.reference.is_some();
    let named = snapshot.candidates.iter().filter(is_named).map(|c| c.row.number);
    let likely = findings.front.iter().filter(|member| !member.on_front).take(CARDS);
    named.chain(likely.map(|member| member.number)).collect()
}

/// Kinds of failures with whose log is to be read for each.
pub(crate) fn failures(snapshot: &Snapshot) -> Vec<u32> {
    let troubles = tables::troubles(&snapshot.candidates);
    troubles
        .iter()
        .filter(|(word, ..)| *word == "failed")
        .map(|(.., numbers)| numbers[0])
        .take(12)
        .collect()
}

impl Page {
    /// Names of the values that tables show.
    pub(super) fn values(&self) -> Vec<&str> {
        let campaign = &self.snapshot.campaign;
        let mut values: Vec<&str> = campaign.objectives.iter().map(Objective::name).collect();
        for metric in [Metric::DecodeUs, Metric::PrefillUs, Metric::Parameters] {
            let is_known = || {
                self.snapshot.candidates.iter().any(|c| c.row.values.contains_key(metric.name()))
            };
            if !campaign.is_black_box() && !values.contains(&metric.name()) && is_known() {
                values.push(metric.name());
            }
        }
        for name in campaign.values_of_targets(&self.snapshot.candidates.iter()) {
            if !values.contains(&name) {
                values.push(name);
            }
        }
        values
    }

    fn times(&self) -> Option<Times> {
        let campaign = &self.snapshot.campaign;
        let profiler = self.workers.iter().rev().find(|worker| worker[0] == "profiler")?;
        let (_, conditions) = campaign.latency.latencies(&profiler[2]).into_iter().next()?;
        Times::of(&self.latencies, conditions)
    }

    /// What the plot shows, with the whole errors of all who may be on the front.
    fn scene(&self, x: Option<&Objective>, y: &Objective) -> Option<Scene> {
        let mut scene = Scene::of(&self.snapshot, None)?;
        for member in &self.findings.front {
            let place = scene.points.binary_search_by_key(&member.number, |point| point.number);
            let Ok(place) = place else { continue };
            let error = |of: &Objective| member.objectives.get(of.name())?.standard_error;
            let point = &mut scene.points[place];
            point.y_error = error(y).unwrap_or(point.y_error);
            point.x_error = x.and_then(error).unwrap_or(point.x_error);
        }
        Some(scene)
    }

    /// Draws it.
    pub(super) fn drawn(&self) -> Drawn {
        let campaign = &self.snapshot.campaign;
        let (x, y) = axes(&campaign.objectives);
        let scene = self.scene(x.as_ref(), &y);
        let latency = [x.as_ref(), Some(&y)]
            .into_iter()
            .flatten()
            .find(|objective| report::is_latency(objective.name()));
        let is_whole = |c: &&Candidate| latency.is_some_and(|of| c.whole(of.name()).is_some());
        let whole =
            self.snapshot.candidates.iter().filter(is_whole).map(|c| c.row.number).collect();
        let maybe: BTreeSet<u32> = self
            .findings
            .front
            .iter()
            .filter(|m| !m.on_front && m.reference.is_none())
            .map(|m| m.number)
            .collect();
        let known =
            front::Known { campaign, whole: &whole, maybe: &maybe, is_timed: latency.is_some() };
        let dots: Vec<u32> = scene
            .as_ref()
            .map(|scene| front::shown(scene, &maybe).0.iter().map(|point| point.number).collect())
            .unwrap_or_default();
        let members: Vec<&Candidate> =
            self.snapshot.candidates.iter().filter(|c| c.rank == Some(0)).collect();
        let stacks = |all: bool| {
            let of = move |c: &&Candidate| {
                if all { c.row.state == CandidateState::Done } else { c.rank == Some(0) }
            };
            self.snapshot.candidates.iter().filter(of).filter_map(|c| c.row.subject.stack())
        };
        let times = self.times();
        Drawn {
            front: scene.as_ref().map(|scene| front::figure(scene, &known)),
            climb: self.progress.as_ref().and_then(climb::figure),
            agreements: trust::agreements(&self.findings.agreements),
            pairs: trust::pairs(&self.findings.predictions),
            law: self.law.as_ref().ok().and_then(law::figure),
            mixers: mixers::figure(stacks(false), stacks(true)),
            times: times.as_ref().and_then(|times| times.overview(&by_time(&members))),
            threads: threads::figure(&self.snapshot, &self.values(), &dots),
            dots,
            timed: times,
        }
    }
}

/// Everything that is drawn.
pub(super) struct Drawn {
    pub(super) front: Option<Figure>,
    pub(super) climb: Option<Figure>,
    pub(super) agreements: Option<Figure>,
    pub(super) pairs: Option<Figure>,
    pub(super) law: Option<Figure>,
    pub(super) mixers: Option<Figure>,
    pub(super) times: Option<Figure>,
    pub(super) threads: Option<Figure>,
    /// Numbers of the dominated candidates in the first.
    pub(super) dots: Vec<u32>,
    pub(super) timed: Option<Times>,
}

impl Drawn {
    /// All of them, in the order of the page.
    pub(super) fn figures(&self) -> impl Iterator<Item = &Figure> {
        let all = [
            &self.front,
            &self.climb,
            &self.agreements,
            &self.pairs,
            &self.law,
            &self.mixers,
            &self.times,
            &self.threads,
        ];
        all.into_iter().flatten()
    }
}

/// Numbers, labels, stacks and times of whole models, the quickest first.
fn by_time<'a>(members: &[&'a Candidate]) -> Vec<Row<'a>> {
    let name = Metric::DecodeUs.name();
    let us = |c: &Candidate| c.row.values.get(name).map_or(f64::INFINITY, |value| value.mean);
    let mut members = members.to_vec();
    members.sort_by(|a, b| us(a).total_cmp(&us(b)));
    let of = |c: &&'a Candidate| {
        let label = c.row.reference.clone().unwrap_or_else(|| c.row.number.to_string());
        let whole = c.whole_us(name).map(|us| (us.mean, us.standard_error.unwrap_or(0.0)));
        Some(Row { number: c.row.number, label, stack: c.row.subject.stack()?, whole })
    };
    members.iter().filter_map(of).collect()
}
