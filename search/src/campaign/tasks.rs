//! What is on its way to a worker, and what was tried before: one map from each task to its tries.

use std::collections::HashMap;

use super::candidate::CandidateState;
use crate::latency::LatencyKey;

/// A training of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Training {
    pub(super) number: u32,
    pub(super) tokens: u64,
    pub(super) seed: u64,
}

/// Something that a worker is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Task {
    /// The timing of a part.
    Part(LatencyKey),
    /// The timing of a whole model: of which candidate, and the name of the latency.
    Whole { number: u32, name: String },
    /// A training.
    Train(Training),
}

impl Task {
    /// The candidate that it is about; parts are of many.
    pub(super) fn number(&self) -> Option<u32> {
        match self {
            Self::Part(_) => None,
            Self::Whole { number, .. } | Self::Train(Training { number, .. }) => Some(*number),
        }
    }
}

/// What became of a task in this run.
#[derive(Debug, Clone, Default)]
struct Tries {
    /// The request by which it is on its way.
    request: Option<u64>,
    failed: u32,
    /// Workers that were lost at it.
    lost: u32,
    /// How those fare who need it, when it is tried no more.
    fate: Option<CandidateState>,
}

/// Every task that was ever begun in this run. Those that ended well are forgotten: their results are elsewhere.
#[derive(Debug, Clone)]
pub(super) struct Tasks {
    tries: HashMap<Task, Tries>,
    next_request: u64,
    /// Tries that a task has.
    attempts: u32,
}

impl Tasks {
    pub(super) fn new(attempts: u32) -> Self {
        Self { tries: HashMap::new(), next_request: 1, attempts }
    }

    /// Requests get numbers from here on.
    pub(super) fn number_from(&mut self, first: u64) {
        self.next_request = first;
    }

    /// Puts a task on its way by a request that a worker is at already.
    pub(super) fn adopt(&mut self, task: Task, request: u64) {
        self.tries.entry(task).or_default().request = Some(request);
    }

    /// Takes the task of a request off its way because its worker is lost; gives it, and how often that was so.
    pub(super) fn lose(&mut self, request: u64) -> Option<(Task, u32)> {
        let task = self.hand_back(request)?;
        let tries = self.tries.get_mut(&task)?;
        tries.lost += 1;
        Some((task, tries.lost))
    }

    /// Takes the task of a request off its way because its worker leaves.
    pub(super) fn hand_back(&mut self, request: u64) -> Option<Task> {
        let task = self.of(request)?.clone();
        self.tries.get_mut(&task)?.request = None;
        Some(task)
    }

    /// Puts a task on its way; gives its request.
    pub(super) fn begin(&mut self, task: Task) -> u64 {
        let request = self.next_request;
        self.next_request += 1;
        self.tries.entry(task).or_default().request = Some(request);
        request
    }

    /// The task of a request that is not answered yet.
    pub(super) fn of(&self, request: u64) -> Option<&Task> {
        self.tries.iter().find(|(_, tries)| tries.request == Some(request)).map(|(task, _)| task)
    }

    /// Takes the task of a request off its way.
    pub(super) fn answer(&mut self, request: u64) -> Option<Task> {
        let task = self.of(request)?.clone();
        match self.tries.get_mut(&task) {
            Some(tries) if tries.failed > 0 => tries.request = None,
            _ => drop(self.tries.remove(&task)),
        }
        Some(task)
    }

    /// Takes the task of a request off its way as done, and forgets its failed tries: should it be done again, that begins anew.
    pub(super) fn finish(&mut self, request: u64) -> Option<Task> {
        let task = self.of(request)?.clone();
        self.tries.remove(&task);
        Some(task)
    }

    /// Notes that a try has failed; whether it was the last.
    pub(super) fn fail(&mut self, task: Task) -> bool {
        let tries = self.tries.entry(task).or_default();
        tries.failed += 1;
        tries.failed >= self.attempts
    }

    /// Has no more tries of a task; `fate` of those who need it.
    pub(super) fn give_up(&mut self, task: Task, fate: Option<CandidateState>) {
        let tries = self.tries.entry(task).or_default();
        tries.failed = tries.failed.max(self.attempts);
        tries.fate = fate;
    }

    /// Failed tries of a task.
    pub(super) fn failed(&self, task: &Task) -> u32 {
        self.tries.get(task).map_or(0, |tries| tries.failed)
    }

    /// Whether a task is tried no more.
    pub(super) fn is_given_up(&self, task: &Task) -> bool {
        self.failed(task) >= self.attempts
    }

    /// How those fare who need a timing that is tried no more.
    pub(super) fn fate(&self, task: &Task) -> Option<&CandidateState> {
        self.tries.get(task)?.fate.as_ref()
    }

    /// What is on its way, with its requests, in their order.
    pub(super) fn under_way(&self) -> Vec<(u64, &Task)> {
        let all = self.tries.iter();
        let mut under_way: Vec<(u64, &Task)> =
            all.filter_map(|(task, tries)| Some((tries.request?, task))).collect();
        under_way.sort_unstable_by_key(|(request, _)| *request);
        under_way
    }

    pub(super) fn is_under_way(&self, task: &Task) -> bool {
        self.tries.get(task).is_some_and(|tries| tries.request.is_some())
    }

    /// The trainings on their way.
    pub(super) fn trainings(&self) -> Vec<Training> {
        let training = |(_, task): (u64, &Task)| match task {
            Task::Train(training) => Some(*training),
            Task::Part(_) | Task::Whole { .. } => None,
        };
        self.under_way().into_iter().filter_map(training).collect()
    }

    /// The timings on their way.
    pub(super) fn timings(&self) -> impl Iterator<Item = &Task> {
        let tasks = self.under_way().into_iter().map(|(_, task)| task);
        tasks.filter(|task| !matches!(task, Task::Train(_)))
    }

    /// Forgets all: what is answered now comes too late.
    pub(super) fn clear(&mut self) {
        self.tries.clear();
    }
}
