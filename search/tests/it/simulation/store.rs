//! What survives a kill, and what must not be undone in it.

use std::collections::BTreeMap;

use search::campaign::{Campaign, Candidate, CandidateState, History};
use search::latency::LatencyEntry;
use search::metric::Metric;

use super::world::{FULL, World, proposer, settings};
use crate::stacks::Stacks;

/// What survives a kill.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Store {
    pub(super) rows: BTreeMap<u32, Candidate>,
    pub(super) latencies: Vec<LatencyEntry>,
}

impl Store {
    pub(super) fn history(&self) -> History {
        History {
            candidates: self.rows.values().cloned().collect(),
            latencies: self.latencies.clone(),
        }
    }

    pub(super) fn campaign(&self, world: &World) -> Campaign<Stacks> {
        Campaign::new(settings(world), Stacks { depth: 4 }, proposer(), self.history())
    }

    /// Writes a row, which must not undo what was final.
    pub(super) fn save(&mut self, row: Candidate) {
        if let Some(old) = self.rows.get(&row.number) {
            assert_eq!(old.subject, row.subject, "a number keeps its subject");
            assert!(old.fidelity <= row.fidelity, "nobody falls from a rung");
            for trained in &old.trained {
                assert!(row.trained.contains(trained), "what was trained stays");
            }
            let is_promoted = old.state == CandidateState::Done
                && row.state == CandidateState::Training
                && old.fidelity < FULL;
            // A row that a campaign was halted or given up over is tried again.
            let is_reopened = old.given_up && !row.given_up;
            // What its whole model took may be over a limit that the sum of its parts was within.
            let is_timed =
                old.whole.len() + old.earlier.len() < row.whole.len() + row.earlier.len();
            for (name, timing) in &old.earlier {
                assert_eq!(row.earlier.get(name), Some(timing), "what was timed first stays");
            }
            if old.state.is_final() && !is_promoted && !is_reopened {
                if !is_timed {
                    assert_eq!(old.state, row.state, "what is final stays");
                }
                if old.trained == row.trained {
                    let trained = |row: &Candidate| {
                        let mut values = row.values.clone();
                        values.retain(|name, _| {
                            !Metric::of(name).is_some_and(|(metric, _)| metric.is_latency())
                        });
                        values
                    };
                    assert_eq!(trained(old), trained(&row), "what is final stays");
                }
            }
            for (name, timing) in &row.whole {
                // Who is out is out by the first time that failed or was too long.
                let is_out = matches!(
                    row.state,
                    CandidateState::Infeasible { .. } | CandidateState::Failed { .. }
                );
                let is_open = row.state == CandidateState::Proposed;
                let value = row.values.get(name.as_str());
                let is_of_it = value.is_some_and(|value| {
                    value.mean.to_bits() == timing.median_us.to_bits()
                        && value.standard_error >= timing.value().standard_error
                });
                assert!(is_out || is_open || is_of_it);
            }
        } else {
            let id = row.subject.id();
            assert!(
                self.rows.values().all(|r| r.subject.id() != id),
                "{} was proposed twice",
                row.subject
            );
        }
        self.rows.insert(row.number, row);
    }
}
