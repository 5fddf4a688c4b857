//! In which numbers a campaign's trainers make products, where its file leaves that to the machine.

use db::{Change, Circumstance};
use search::config::Precision;
use search::device::Device;

use crate::driver::precision::{KEY, remembered, word};
use crate::driver::{Introduction, WorkerSpec, ask_precision};

/// Makes `auto` what it is for this campaign, for all its trainers alike and for good: what it began with, on whatever
/// machine it goes on; else what the trainer says of this one, which is then to be remembered. A campaign of an older program
/// keeps to what that did. Where no trainer is here the first one elsewhere is asked, later.
pub(super) async fn settle(
    trainer: &mut WorkerSpec,
    began: &[Circumstance],
    is_new: bool,
    is_here: bool,
) -> Option<Change> {
    let Introduction::Configure(configure) = &mut trainer.introduction else { return None };
    let training = configure.training.as_mut()?;
    if (training.precision, training.device) != (Precision::Auto, Device::Cpu) {
        return None;
    }
    let known = began.iter().find(|circumstance| circumstance.key == KEY);
    if let Some(precision) = known.and_then(|known| precision(&known.value)) {
        training.precision = precision;
        return None;
    }
    if !is_here {
        return None;
    }
    let auto = ask_precision(&trainer.program, Some(training.threads)).await?;
    training.precision = if is_new { auto.precision } else { auto.by_instructions };
    remembered(training.precision)
}

fn precision(stored: &str) -> Option<Precision> {
    [Precision::Fp32, Precision::Bf16].into_iter().find(|known| word(*known) == Some(stored))
}
