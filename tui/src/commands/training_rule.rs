//! Under which training rule a campaign's candidates were trained: losses under two have no place in one front.

use anyhow::bail;
use db::{Change, Circumstance};
use search::config::TRAINING_RULE;

use crate::driver::{Program, WorkerSpec};

/// The key of what is kept.
const KEY: &str = "training.rule";

/// Refuses to go on under another rule of the built-in trainer; what a new campaign is to remember.
pub(super) fn keep(
    name: &str,
    trainer: &WorkerSpec,
    began: &[Circumstance],
    is_new: bool,
) -> anyhow::Result<Option<Change>> {
    if let Program::Shell { .. } = trainer.program {
        return Ok(None);
    }
    let now = TRAINING_RULE.to_string();
    let known = began.iter().find(|circumstance| circumstance.key == KEY);
    if !is_new && known.is_none_or(|known| known.value != now) {
        let before = match known {
            Some(known) => format!("training rule {}", known.value),
            None => "an older training rule".to_owned(),
        };
        bail!(
            "campaign `{name}` was trained under {before}, and this program trains under rule {now}: their losses cannot share \
             a front. Go on with the program that began it, or give this one another `name` in the campaign file"
        );
    }
    let circumstance = Circumstance { key: KEY.to_owned(), value: now, stamp: String::new() };
    Ok(Some(Change::Circumstance(circumstance)))
}
