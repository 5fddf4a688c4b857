//! What a trainer's `training.precision = "auto"` is, asked of it before a campaign begins.

use std::process::Stdio;
use std::time::Duration;

use db::{Change, Circumstance};
use search::config::Precision;
use serde::Deserialize;

use super::spec::Program;

/// How long it may take: to load libtorch from a cold disk, and to train a small model for half a second.
const PATIENCE: Duration = Duration::from_mins(1);

/// What it says.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub(crate) struct Auto {
    /// What `auto` is.
    pub(crate) precision: Precision,
    /// What it was for campaigns of older programs.
    pub(crate) by_instructions: Precision,
    /// Training speeds that were measured.
    pub(crate) speeds: Option<Speeds>,
}

/// Tokens per second.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub(crate) struct Speeds {
    pub(crate) fp32: f64,
    pub(crate) bf16: f64,
}

/// The key of what a campaign keeps to.
pub(crate) const KEY: &str = "training.precision";

/// What a campaign is to remember of it; none: not settled.
pub(crate) fn remembered(precision: Precision) -> Option<Change> {
    let value = word(precision)?.to_owned();
    let circumstance = Circumstance { key: KEY.to_owned(), value, stamp: String::new() };
    Some(Change::Circumstance(circumstance))
}

/// As it is stored; none: not settled.
pub(crate) fn word(precision: Precision) -> Option<&'static str> {
    match precision {
        Precision::Auto => None,
        Precision::Fp32 => Some("fp32"),
        Precision::Bf16 => Some("bf16"),
    }
}

/// Asks the built-in trainer; none where it does not say, as a user's own does not.
pub(crate) async fn ask_precision(program: &Program, threads: Option<u32>) -> Option<Auto> {
    let Program::File(_) = program else { return None };
    // As it is started to train: how libtorch's threads wait decides how fast it is beside other load.
    let mut command = program.command();
    command.arg("--precision").args(threads.map(|threads| threads.to_string()));
    command.stdin(Stdio::null()).stderr(Stdio::null());
    let output = tokio::time::timeout(PATIENCE, command.output()).await.ok()?.ok()?;
    if output.status.success() { serde_json::from_slice(&output.stdout).ok() } else { None }
}
