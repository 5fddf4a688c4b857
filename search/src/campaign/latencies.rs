//! The latency of a candidate. Said here once: that of its whole model where that was timed, else the sum of its parts,
//! corrected by what the first whole models of the campaign tell of sums.

use std::collections::BTreeSet;

use super::calibration::{Calibration, SAMPLE};
use super::candidate::{Candidate, CandidateState};
use super::drift::Drift;
use super::events::Command;
use super::settings::Settings;
use super::standing::Standing;
use super::tasks::Task;
use crate::architecture::Architecture;
use crate::latency::{Conditions, Throughput, Timing, WholeModels, keys};
use crate::metric::Metric;
use crate::value::Value;

/// What is timed of a stack, by name: latencies in the order in which limits ask for them, then the step that its throughput
/// is taken from.
///
/// # Errors
/// When no batch fits its memory: the sentence that says so.
pub(super) fn asked(
    settings: &Settings,
    architecture: &Architecture,
) -> Result<Vec<(String, Conditions)>, String> {
    let mut asked = settings.latencies.clone();
    if let Some(throughput) = &settings.throughput {
        let name = Metric::Throughput.name().to_owned();
        asked.push((name, throughput.under(architecture)?));
    }
    Ok(asked)
}

/// Takes the time of a step under these conditions into a candidate's values.
pub(super) fn note(row: &mut Candidate, name: &str, conditions: &Conditions, us: Value) {
    if name == Metric::Throughput.name() {
        row.values.extend(Throughput::values(conditions.batch, us));
    } else {
        row.values.insert(name.into(), us);
    }
}

impl Standing {
    /// The device that a task asks to be timed on, by its name in the conditions; none for trainings.
    pub(super) fn device_of<'a>(&'a self, task: &'a Task) -> Option<&'a str> {
        let settings = &self.settings;
        let conditions = match task {
            Task::Part(key) => &key.conditions,
            Task::Whole { name, .. } => {
                let latency = settings.latencies.iter().find(|(of, _)| of == name);
                let throughput = settings.throughput.as_ref().map(|of| &of.conditions);
                latency.map(|(_, conditions)| conditions).or(throughput)?
            }
            Task::Train(_) => return None,
        };
        Some(&conditions.device)
    }

    /// What the parts of a stack say of its whole model; none while one of them is not timed.
    pub(super) fn composed(
        &self,
        name: &str,
        architecture: &Architecture,
        conditions: &Conditions,
    ) -> Option<Value> {
        Some(self.expected(name, self.table.compose(architecture, conditions)?))
    }

    /// What a sum of parts says of the whole model.
    pub(super) fn expected(&self, name: &str, sum: Value) -> Value {
        match self.calibrations.get(name) {
            Some(calibration) => calibration.expected(sum),
            None => Calibration::default().expected(sum),
        }
    }

    /// The first candidates whose parts are timed: they are timed as whole models, so that sums can be told from them.
    fn sample(&self, name: &str, conditions: &Conditions) -> Vec<&Candidate> {
        if !self.settings.composes(name) || self.settings.time_whole_models == WholeModels::Never {
            return Vec::new();
        }
        let is_known = |row: &Candidate| {
            row.whole.contains_key(name) && row.sums.contains_key(name)
                || (row.state == CandidateState::Proposed || row.values.contains_key(name))
                    && row
                        .subject
                        .stack()
                        .is_some_and(|stack| self.table.is_complete(stack, conditions))
        };
        let is_given_up = |row: &Candidate| {
            let task = Task::Whole { number: row.number, name: name.to_owned() };
            !row.whole.contains_key(name) && self.tasks.is_given_up(&task)
        };
        self.rows.values().filter(|row| is_known(row) && !is_given_up(row)).take(SAMPLE).collect()
    }

    /// The first candidates that were timed as whole models: timed once more, they tell how far the machine drifts.
    fn timed_early(&self, name: &str) -> Vec<&Candidate> {
        let is_whole = |row: &&Candidate| row.whole.contains_key(name);
        let latency = self.settings.latencies.iter().find(|(of, _)| of == name);
        match latency.filter(|_| self.settings.composes(name)) {
            Some((_, conditions)) => {
                self.sample(name, conditions).into_iter().filter(is_whole).collect()
            }
            None => self.rows.values().filter(is_whole).take(SAMPLE).collect(),
        }
    }

    /// Those of them that are still to be timed once more.
    pub(super) fn once_more(&self, name: &str) -> Vec<u32> {
        if self.settings.time_whole_models == WholeModels::Never {
            return Vec::new();
        }
        let early = self.timed_early(name).into_iter();
        early.filter(|row| self.may_be_again(row, name)).map(|row| row.number).collect()
    }

    /// Whether a whole model was timed once, by the kernels of now, so that a second timing can be compared with the first.
    pub(super) fn may_be_again(&self, row: &Candidate, name: &str) -> bool {
        let task = Task::Whole { number: row.number, name: name.to_owned() };
        let Some(first) = row.whole.get(name) else { return false };
        !row.earlier.contains_key(name)
            && !self.tasks.is_given_up(&task)
            && (!self.settings.composes(name)
                || self.kernels_of_parts(row, name).is_some_and(|kernels| kernels == first.kernels))
    }

    /// The version of the kernels by which the parts of a stack were timed, as far as the table goes: it holds those of now.
    fn kernels_of_parts(&self, row: &Candidate, name: &str) -> Option<&str> {
        let stack = row.subject.stack()?;
        let asked = asked(&self.settings, stack).ok()?;
        let (_, conditions) = asked.iter().find(|(of, _)| of == name)?;
        let part = keys(stack, conditions).next()?;
        Some(&self.table.get(&part)?.kernels)
    }

    /// What whole models tell of a latency; none while some of the sample are still to be timed.
    fn told(&self, name: &str) -> Option<Calibration> {
        // Timings of the same minutes are compared: the later ones alone once none is missing, or the earlier ones alone.
        let is_timed_twice = self.once_more(name).is_empty();
        let mut told = Calibration::default();
        let latency = self.settings.latencies.iter().find(|(of, _)| of == name);
        if let Some((_, conditions)) = latency {
            let sample = self.sample(name, conditions);
            if sample.iter().any(|row| !row.whole.contains_key(name)) {
                return None;
            }
            let is_later =
                is_timed_twice && sample.iter().any(|row| row.earlier.contains_key(name));
            let whole = |row: &Candidate| match row.earlier.get(name) {
                Some(earlier) if !is_later => Some(earlier.median_us),
                None if is_later => None,
                _ => Some(row.whole[name].median_us),
            };
            let pair = |row: &&Candidate| Some((row.sum_us(name)?, whole(row)?));
            told = Calibration::of(sample.iter().filter_map(pair));
        }
        Some(if is_timed_twice {
            told.drifting(Drift::of_rows(self.timed_early(name).into_iter(), name))
        } else {
            told
        })
    }

    /// The latency of a whole model that took so long.
    fn of_whole(&self, name: &str, timing: &Timing) -> Value {
        self.calibrations.get(name).map_or_else(|| timing.value(), |of| of.of_whole(timing))
    }

    /// Those of the sample that are still to be timed.
    pub(super) fn untold(&self, name: &str, conditions: &Conditions) -> Vec<u32> {
        let sample = self.sample(name, conditions).into_iter();
        sample.filter(|row| !row.whole.contains_key(name)).map(|row| row.number).collect()
    }

    /// The latencies of which sums mean nothing yet: whole models of the sample are to be timed first.
    pub(super) fn waits(&self) -> BTreeSet<String> {
        let latencies = self.settings.latencies.iter();
        let waits =
            latencies.filter(|(name, conditions)| !self.untold(name, conditions).is_empty());
        waits.map(|(name, _)| name.clone()).collect()
    }

    /// The state after `Proposed`, none while timings are missing. Adds the latencies to the candidate's values. `waits`: those
    /// of which sums mean nothing yet.
    pub(super) fn verdict(
        &self,
        row: &mut Candidate,
        waits: &BTreeSet<String>,
    ) -> Option<CandidateState> {
        let Self { settings, table, tasks, .. } = self;
        // Costs that need no timing come first: they may spare it.
        if let Some(reason) = settings.limits.broken(&row.values) {
            return Some(CandidateState::Infeasible { reason });
        }
        let Some(architecture) = row.subject.stack().cloned() else {
            return Some(CandidateState::Training);
        };
        let asked = match asked(settings, &architecture) {
            Ok(asked) => asked,
            Err(reason) => return Some(CandidateState::Infeasible { reason }),
        };
        // In their order: what is over a limit in the first is not timed for the second, and what a row says does not
        // depend on which timing came in first.
        for (name, conditions) in &asked {
            let whole = row.whole.get(name).map(|timing| self.of_whole(name, timing));
            if let Some(value) = whole {
                note(row, name, conditions, value);
            } else if settings.composes(name) {
                let missing = table.missing(&architecture, conditions);
                let fate = missing.iter().find_map(|key| tasks.fate(&Task::Part(key.clone())));
                if let Some(fate) = fate {
                    return Some(fate.clone());
                }
                let sum = self.composed(name, &architecture, conditions)?;
                if waits.contains(name) {
                    return None;
                }
                note(row, name, conditions, sum);
            }
            if let Some(reason) = settings.limits.broken(&row.values) {
                return Some(CandidateState::Infeasible { reason });
            }
            if whole.is_none() && settings.times_all(name) {
                let task = Task::Whole { number: row.number, name: name.clone() };
                return tasks.fate(&task).cloned();
            }
        }
        Some(CandidateState::Training)
    }

    /// Learns from whole models what sums are worth and how far the machine drifts, and says the latencies of all candidates
    /// anew where that is news.
    pub(super) fn calibrate(&mut self, commands: &mut Vec<Command>) {
        for name in self.settings.timed() {
            let Some(told) = self.told(&name) else { continue };
            if self.calibrations.get(&name).unwrap_or(&Calibration::default()) == &told {
                continue;
            }
            self.calibrations.insert(name.clone(), told);
            let is_known = |row: &&Candidate| {
                matches!(row.state, CandidateState::Training | CandidateState::Done)
                    && row.values.contains_key(name.as_str())
            };
            let known: Vec<u32> =
                self.rows.values().filter(is_known).map(|row| row.number).collect();
            for number in known {
                let Some((conditions, value)) = self.latency(&self.rows[&number], &name) else {
                    continue;
                };
                let row = self.row(number);
                let before = row.values.clone();
                note(row, &name, &conditions, value);
                if row.values != before {
                    commands.push(Command::Save(row.clone()));
                }
            }
        }
    }

    /// The latency of a candidate, as far as it is known, with its conditions.
    fn latency(&self, row: &Candidate, name: &str) -> Option<(Conditions, Value)> {
        let stack = row.subject.stack()?;
        let asked = asked(&self.settings, stack).ok()?;
        let (_, conditions) = asked.into_iter().find(|(of, _)| of == name)?;
        let value = match row.whole.get(name) {
            Some(timing) => self.of_whole(name, timing),
            None => self.composed(name, stack, &conditions)?,
        };
        Some((conditions, value))
    }

    /// Has what whole models took as the latencies of candidates of older programs, which kept the sums of their parts.
    pub(super) fn adopt_wholes(&mut self) -> Vec<u32> {
        let mut changed = Vec::new();
        for row in self.rows.values_mut() {
            for (name, timing) in row.whole.clone() {
                let Some(sum_us) = row.sum_us(&name).filter(|_| !row.sums.contains_key(&name))
                else {
                    continue;
                };
                row.sums.insert(name.clone(), sum_us);
                row.values.insert(name.as_str().into(), timing.value());
                changed.push(row.number);
            }
        }
        changed.dedup();
        changed
    }

    /// Takes the time of a whole model into its row, which is out if that is over a limit. A second timing takes the place of
    /// the first: the front is timed in the same minutes.
    pub(super) fn whole(
        &mut self,
        number: u32,
        name: &str,
        timing: Timing,
        commands: &mut Vec<Command>,
    ) {
        let stack = self.rows[&number].subject.stack();
        let Some((conditions, sum)) = stack.and_then(|stack| {
            let asked = asked(&self.settings, stack).ok()?;
            let (_, conditions) = asked.into_iter().find(|(of, _)| of == name)?;
            let sum = self.table.compose(stack, &conditions);
            Some((conditions, sum))
        }) else {
            return;
        };
        let value = self.of_whole(name, &timing);
        let row = self.rows.get_mut(&number).expect("a task is of a row");
        row.sums.extend(sum.map(|sum| (name.to_owned(), sum.mean)));
        let first = row.whole.insert(name.to_owned(), timing);
        let is_out = first.is_some() && row.state != CandidateState::Done;
        row.earlier.extend(first.map(|first| (name.to_owned(), first)));
        // Of a proposed one the limits are asked when all is known; who is out is out by what it took first.
        if row.state == CandidateState::Proposed || is_out {
            commands.push(Command::Save(row.clone()));
            return;
        }
        let mut alone = row.clone();
        alone.values.clear();
        note(&mut alone, name, &conditions, value);
        note(row, name, &conditions, value);
        let over = self.settings.limits.broken(&alone.values);
        match over.filter(|_| row.state == CandidateState::Done) {
            Some(reason) => self.save(number, CandidateState::Infeasible { reason }, commands),
            None => commands.push(Command::Save(row.clone())),
        }
    }
}
