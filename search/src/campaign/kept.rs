//! Whose weights stay on disk when nothing is trained on from them any more.

use std::collections::BTreeSet;

use super::candidate::{Candidate, CandidateState};
use super::events::Command;
use super::front::Contenders;
use super::settings::Keep;
use super::standing::Standing;
use super::trust::{Doubt, doubts};

impl Standing {
    /// Lets go of checkpoints of those that are trained to the end, when `number` has just come there, whose row is about
    /// to be saved, or all have (`None`). While some will be trained for longer, any may be among them.
    pub(super) fn let_go(&mut self, number: Option<u32>, commands: &mut Vec<Command>) {
        let (keep, is_over) = (self.settings.keep, number.is_none());
        if keep == Keep::All || self.settings.trust.longer > 0 && !is_over {
            return;
        }
        let full = self.settings.tokens;
        let has_ended = |row: &Candidate| {
            row.state == CandidateState::Done && row.fidelity >= full && row.checkpoint.is_some()
        };
        if !self.rows.values().any(has_ended) {
            return;
        }
        let kept = if keep == Keep::Front { self.possible_members() } else { BTreeSet::new() };
        for row in self.rows.values_mut().filter(|row| has_ended(row)) {
            if !kept.contains(&row.number) {
                let checkpoint = row.checkpoint.take();
                if number != Some(row.number) {
                    commands.push(Command::Save(row.clone()));
                }
                commands.extend(checkpoint.map(Command::RemoveCheckpoint));
            } else if is_over || number == Some(row.number) {
                commands.extend(row.checkpoint.clone().map(Command::RemoveTrunk));
            }
        }
    }

    /// Those that are on the front or, given the noise, may belong to it.
    fn possible_members(&self) -> BTreeSet<u32> {
        let settings = &self.settings;
        let rows = self.rows.values();
        let contenders = Contenders::of(rows, &settings.objectives, settings.target_tokens);
        let doubts = doubts(&contenders, settings.seed).into_iter();
        let possible = doubts.filter(Doubt::is_possible).map(|doubt| doubt.number);
        possible.chain(contenders.front()).collect()
    }
}
